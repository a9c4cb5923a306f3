package packet

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// The devices of the test's namespace: ports first, then uplinks, then one that the switch
// knows nothing of. They are made once, in this order.
const (
	portDevices   = 10
	uplinkDevices = 2
	devices       = portDevices + uplinkDevices + 1
)

// inNamespace says to a process of this test that it is in the namespace already.
const inNamespace = "WEFT_PACKET_NAMESPACE"

// TestMain runs the tests once more, in a network namespace that lives and dies with them.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread dies, not the process
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "the packet tests need root, for a network namespace and eBPF: %v\n", err)
		os.Exit(1)
	}
	if err := cmd.Wait(); err != nil {
		os.Exit(1)
	}
}

// site is the devices of the namespace.
type site struct {
	ports   [portDevices]uint32
	uplinks [uplinkDevices]uint32
	unknown uint32
	macs    map[uint32]model.MAC // of all of them
}

// newSite makes the devices of test runs, or finds those that this namespace has already.
func newSite(tb testing.TB) site {
	tb.Helper()
	return newSiteNamed(tb, "wp", "wq")
}

// newSiteNamed makes the devices near0, near1, ... whose other ends are far0, far1, ...
func newSiteNamed(tb testing.TB, near, far string) site {
	tb.Helper()
	s := site{macs: map[uint32]model.MAC{}}
	for i := range devices {
		name, other := near+strconv.Itoa(i), far+strconv.Itoa(i)
		mac := model.MAC{2, 0xee, 0, 0, 0, byte(i)}
		if _, err := net.InterfaceByName(name); err != nil {
			out, err := exec.Command("ip", "link", "add", name, "address", mac.String(), "type", "veth", "peer", "name", other).CombinedOutput()
			if err != nil {
				tb.Fatalf("ip link add %s: %v: %s", name, err, out)
			}
		}
		device, err := net.InterfaceByName(name)
		if err != nil {
			tb.Fatal(err)
		}
		ifindex := uint32(device.Index)
		s.macs[ifindex] = mac
		switch {
		case i < portDevices:
			s.ports[i] = ifindex
		case i < portDevices+uplinkDevices:
			s.uplinks[i-portDevices] = ifindex
		default:
			s.unknown = ifindex
		}
	}
	return s
}

// packetIn is one frame on its way into a switch.
type packetIn struct {
	program datapath.Program
	ifindex uint32
	frame   []byte
	gsoSize uint16 // of a packet that is yet to be cut; else 0
}

// inbound tells whether the frame is not from a guest.
func (p packetIn) inbound() bool {
	return p.program != datapath.FromPort && p.program != datapath.VLANGuest
}

func (p packetIn) String() string {
	return fmt.Sprintf("%s, device %d, GSO %d, %d bytes: %x", p.program, p.ifindex, p.gsoSize, len(p.frame), p.frame)
}

// outcome is what either engine made of a frame.
type outcome struct {
	verdict model.Verdict
	ifindex uint32
	frame   []byte // nil when nothing leaves; of a flooded frame all that copies writes
}

// copies writes the copies of a flooded frame as one string of bytes.
func copies(all []sim.Copy) []byte {
	var out []byte
	for _, c := range all {
		out = fmt.Appendf(out, "[device %d, %d bytes]", c.IfIndex, len(c.Frame))
		out = append(out, c.Frame...)
	}
	return out
}

func (o outcome) String() string {
	return fmt.Sprintf("%s, device %d, %d bytes: %x", o.verdict, o.ifindex, len(o.frame), o.frame)
}

// equal compares outcomes but for the 14 bytes before an encapsulated IP packet, which
// the kernel writes later.
func (o outcome) equal(other outcome) bool {
	return o.verdict == other.verdict && o.ifindex == other.ifindex && bytes.Equal(o.settled(), other.settled())
}

func (o outcome) settled() []byte {
	if o.verdict != model.VerdictEncapsulated || innerType(o.frame) == wire.TypeARP && !isRewritten(o.frame) {
		return o.frame
	}
	return o.frame[wire.EthernetLen:]
}

// oracle is internal/sim.
func oracle(s site, set table.Set, in packetIn) sim.Result {
	return oracleAt(s, set, in, &sim.Connections{}, 0)
}

// oracleAt is oracle where earlier packets have left something.
func oracleAt(s site, set table.Set, in packetIn, conns *sim.Connections, now time.Duration) sim.Result {
	sw := sim.Switch{Set: set, Devices: s.macs, Connections: conns, Now: now}
	switch in.program {
	case datapath.FromPort:
		return refuseGSO(in, sw.FromPortGSO(in.ifindex, in.frame, in.gsoSize), model.VerdictEncapsulated, model.VerdictEncapFailed)
	case datapath.FromUplink:
		return refuseGSO(in, sw.FromUplinkGSO(in.ifindex, in.frame, in.gsoSize), model.VerdictDelivered, model.VerdictDecapFailed)
	}
	switch in.program {
	case datapath.VLANGuest:
		return sw.FromVLANGuest(in.ifindex, in.frame)
	case datapath.VLANUplink:
		return sw.FromVLANUplink(in.ifindex, in.frame)
	}
	return sw.ToPort(in.ifindex, in.frame, false)
}

// refuseGSO is what becomes of r in a test run, which gives a packet a gso_size and no gso_type: the
// kernel makes room for outer headers, and takes them off, only in GSO packets whose type it knows.
func refuseGSO(in packetIn, r sim.Result, done, failed model.Verdict) sim.Result {
	if in.gsoSize != 0 && r.Verdict == model.VerdictFlooded {
		return refuseFloodedGSO(r)
	}
	if in.gsoSize == 0 || r.Verdict != done {
		return r
	}
	room := wire.IPv4Len + wire.NVGRELen + wire.EthernetLen
	if n := len(in.frame) - len(r.Frame); n > -room && n < room || in.program == datapath.FromUplink && isRewritten(in.frame) {
		if in.program == datapath.FromUplink && n == wire.IPv6Len+8-wire.IPv4Len { // a Fragment header, too
			return sim.Result{Verdict: failed, Port: r.Port, Inbound: r.Inbound}
		}
		return r // rewritten: no such room was needed
	}
	return sim.Result{Verdict: failed, Port: r.Port, Inbound: r.Inbound, Hits: r.Hits}
}

// refuseFloodedGSO is refuseGSO for a flooded frame: there it costs copies.
func refuseFloodedGSO(r sim.Result) sim.Result {
	if r.Inbound {
		return sim.Result{Verdict: model.VerdictDecapFailed, Port: r.Port, Inbound: true}
	}
	made := r.Copies
	r.Copies = nil
	for _, c := range made {
		if c.To == 0 {
			r.Lost = append(r.Lost, model.VerdictEncapFailed)
			continue
		}
		r.Copies = append(r.Copies, c)
	}
	return r
}

func outcomeOf(r sim.Result) outcome {
	if r.Verdict == model.VerdictFlooded {
		return outcome{r.Verdict, 0, copies(r.Copies)}
	}
	return outcome{r.Verdict, r.IfIndex, append(r.Frame, copies(r.Copies)...)}
}
