package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/weft-sdn/weft/test/twohosts"
)

// How Open vSwitch moves packets.
const (
	kernelPath = "system" // by the kernel's module
	userPath   = "netdev" // by itself
)

// schema of Open vSwitch's database, where Debian puts it.
const schema = "/usr/share/openvswitch/vswitch.ovsschema"

func ovsGRE(path string) func(*world) {
	return func(w *world) { w.ovs(path, "gre", fmt.Sprintf("%#x/0xffffff00", int(vsid)<<8), int(vsid)<<8|7) }
}

func ovsVXLAN(path string) func(*world) {
	return func(w *world) { w.ovs(path, "vxlan", fmt.Sprint(int(vsid)), int(vsid)) }
}

// ovs makes a switch of Open vSwitch's with the peer's device and a tunnel of the kind. What comes with
// one of the keys goes to the peer; what the peer sends gets the key.
func (w *world) ovs(path, kind, keys string, key int) {
	if path == kernelPath && !hasModule("openvswitch") {
		w.t.Skip("this kernel has no openvswitch")
	}
	o := w.startOVS()
	local, remote, host := w.Hosts[1].PA, w.Hosts[0].PA, w.Hosts[1].NS
	if path == userPath {
		// The tunnel ends on a bridge of its own, which has the underlay's device and address.
		o.ctl("add-br phy -- set bridge phy datapath_type=netdev fail-mode=standalone -- add-port phy %s", twohosts.Underlay)
		w.IP("-n %s addr flush dev %s", host, twohosts.Underlay)
		w.IP("-n %s addr add %s/24 dev phy", host, local)
		w.IP("-n %s link set phy up", host)
	}
	o.ctl("add-br int -- set bridge int datapath_type=%s fail-mode=secure -- add-port int %s -- set interface %s ofport_request=1", path, w.port, w.port)
	o.ctl("add-port int tun -- set interface tun type=%s ofport_request=2 options:remote_ip=%s options:local_ip=%s options:key=flow", kind, remote, local)
	o.flow("in_port=2,tun_id=%s,actions=output:1", keys)
	o.flow("in_port=1,actions=set_field:%#x->tun_id,output:2", key)
}

// openvswitch is a running one, in a directory of its own.
type openvswitch struct {
	w   *world
	dir string
}

func (w *world) startOVS() *openvswitch {
	o := &openvswitch{w, w.t.TempDir()}
	db := filepath.Join(o.dir, "conf.db")
	o.run("ovsdb-tool", "create", db, schema)
	o.start("ovsdb-server", db, "--no-chdir", "--remote=punix:"+o.socket(), "--unixctl="+filepath.Join(o.dir, "db.ctl"))
	o.run("ovs-vsctl", "--db=unix:"+o.socket(), "--no-wait", "--retry", "-t", "20", "init")
	o.start("ovs-vswitchd", "unix:"+o.socket(), "--no-chdir", "--unixctl="+filepath.Join(o.dir, "vswitchd.ctl"))
	return o
}

func (o *openvswitch) socket() string { return filepath.Join(o.dir, "db.sock") }

func (o *openvswitch) ctl(format string, args ...any) {
	o.w.t.Helper()
	o.run("ovs-vsctl", append([]string{"--db=unix:" + o.socket(), "-t", "30"}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

func (o *openvswitch) flow(format string, args ...any) {
	o.w.t.Helper()
	o.run("ovs-ofctl", "add-flow", "unix:"+filepath.Join(o.dir, "int.mgmt"), fmt.Sprintf(format, args...))
}

// command of Open vSwitch, in the second host's namespace and the own directory.
func (o *openvswitch) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	words := append([]string{"netns", "exec", o.w.Hosts[1].NS, name}, args...)
	cmd := exec.CommandContext(ctx, "ip", words...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.dir, "OVS_LOGDIR="+o.dir, "OVS_DBDIR="+o.dir, "OVS_SYSCONFDIR="+o.dir)
	return cmd
}

func (o *openvswitch) run(name string, args ...string) {
	o.w.t.Helper()
	ctx, cancel := context.WithTimeout(o.w.t.Context(), time.Minute)
	defer cancel()
	if out, err := o.command(ctx, name, args...).CombinedOutput(); err != nil {
		o.w.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// start runs a daemon until the test ends.
func (o *openvswitch) start(name string, args ...string) {
	o.w.t.Helper()
	cmd := o.command(context.Background(), name, args...)
	log, err := os.Create(filepath.Join(o.dir, name+".out"))
	if err != nil {
		o.w.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	// The kernel kills it when the thread that started it ends, and so even when the test is
	// killed: the thread does nothing else.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, over := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		<-over
	}()
	if err := <-started; err != nil {
		o.w.t.Fatalf("%s: %v: make test installs it", name, err)
	}
	o.w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		close(over)
		_ = log.Close()
		if o.w.t.Failed() {
			said, _ := os.ReadFile(log.Name())
			o.w.t.Logf("%s said:\n%s", name, said)
		}
	})
}

func hasModule(name string) bool {
	_, err := os.Stat("/sys/module/" + name)
	return err == nil
}
