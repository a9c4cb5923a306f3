package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Open vSwitch as a peer, with the datapath that it brings itself: this kernel has
// no openvswitch module. Each host runs its own, in a directory of its own. It tunnels
// no packet whose checksum or segmentation is still to be done, so its guests do both.

const ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema" // where Debian puts it

// buildOVS puts on each host a bridge with the guest's port and a tunnel, and a second
// one that has the underlay's device and address.
func (s *site) buildOVS(ctx context.Context) error {
	kind := strings.TrimPrefix(s.name, "ovs-")
	for i, h := range s.host {
		dir, err := os.MkdirTemp("", "weft-bench-ovs-")
		if err != nil {
			return err
		}
		s.undo = append(s.undo, func() { os.RemoveAll(dir) })
		o := ovs{h, dir}
		if err := s.startOVS(ctx, o); err != nil {
			return err
		}
		if err := o.ctl(ctx, "add-br phy -- set bridge phy datapath_type=netdev fail-mode=standalone -- add-port phy u0"); err != nil {
			return err
		}
		if err := sh(ctx, fmt.Sprintf(`
			ip -n %[1]s addr flush dev u0
			ip -n %[1]s addr add %[2]s/24 dev phy
			ip -n %[1]s link set phy up
			ip netns exec %[3]s ethtool -K eth0 tx off`, h, hostPA[i], s.guest[i])); err != nil {
			return err
		}
		err = o.ctl(ctx, `add-br int -- set bridge int datapath_type=netdev fail-mode=standalone -- add-port int p0
			-- add-port int tun -- set interface tun type=%s options:remote_ip=%s options:local_ip=%s options:key=%d`,
			kind, hostPA[1-i], hostPA[i], subnet)
		if err != nil {
			return err
		}
	}
	// It drops what it has no neighbour or route for yet.
	return sh(ctx, fmt.Sprintf("ip netns exec %s ping -q -c 1 -w 20 -i 0.2 %s", s.guest[0], s.ca[1]))
}

func (s *site) startOVS(ctx context.Context, o ovs) error {
	db := filepath.Join(o.dir, "conf.db")
	if out, err := o.command(ctx, "ovsdb-tool", "create", db, ovsSchema).CombinedOutput(); err != nil {
		return fmt.Errorf("ovsdb-tool: %w: %s", err, out)
	}
	server, err := o.start("ovsdb-server", db, "--no-chdir", "--remote=punix:"+o.socket(), "--unixctl="+filepath.Join(o.dir, "db.ctl"))
	if err != nil {
		return err
	}
	s.undo = append(s.undo, server.stop)
	if err := o.ctl(ctx, "--retry --no-wait init"); err != nil {
		return err
	}
	// It forwards, as a pump does, and has to be scheduled as one.
	daemon, err := o.start("chrt", "-r", "1", "ovs-vswitchd", "unix:"+o.socket(), "--no-chdir", "--unixctl="+filepath.Join(o.dir, "vswitchd.ctl"))
	if err != nil {
		return err
	}
	s.pumps = append(s.pumps, daemon)
	return nil
}

// ovs is an Open vSwitch in a namespace, with all its files in a directory.
type ovs struct{ ns, dir string }

func (o ovs) socket() string { return filepath.Join(o.dir, "db.sock") }

func (o ovs) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + filepath.Join(netnsDir, o.ns), name}, args...)...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.dir, "OVS_LOGDIR="+o.dir, "OVS_DBDIR="+o.dir, "OVS_SYSCONFDIR="+o.dir)
	return cmd
}

// start runs a daemon in the foreground: nsenter and chrt become it.
func (o ovs) start(name string, args ...string) (*process, error) {
	p := &process{role: name, errs: &strings.Builder{}}
	p.cmd = o.command(context.Background(), name, args...)
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w (make bench installs it)", name, err)
	}
	return p, nil
}

func (o ovs) ctl(ctx context.Context, format string, args ...any) error {
	words := append([]string{"--db=unix:" + o.socket(), "-t", "20"}, strings.Fields(fmt.Sprintf(format, args...))...)
	if out, err := o.command(ctx, "ovs-vsctl", words...).CombinedOutput(); err != nil {
		return fmt.Errorf("ovs-vsctl in %s: %w: %s", o.ns, err, out)
	}
	return nil
}
