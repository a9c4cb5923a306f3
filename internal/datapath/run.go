package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// skb is struct __sk_buff, as far as a test run takes and gives it.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol uint32
	VLANPresent, VLANTCI, VLANProto, Priority  uint32
	IngressIfindex, IfIndex, TCIndex           uint32
	CB                                         [5]uint32
	Hash, TCClassid, Data, DataEnd, NAPIID     uint32
	Family, RemoteIP4, LocalIP4                uint32
	RemoteIP6, LocalIP6                        [4]uint32
	RemotePort, LocalPort, DataMeta            uint32
	FlowKeys, TStamp                           uint64
	WireLen, GSOSegs                           uint32
	SK                                         uint64
	GSOSize                                    uint32
	TStampType                                 uint8
	_                                          [3]uint8
	HWTStamp                                   uint64
}

// ErrShort says that the kernel does not test-run a frame that ends inside its first
// Ethernet, IPv4 or IPv6 header. Real devices may well receive such frames.
var ErrShort = errors.New("the kernel runs tests only on whole Ethernet and IP headers")

// vlanTold, in cb[4] of what a program leaves, says that the frame has a VLAN tag beside its bytes, and which.
const vlanTold = 0x10000

// The way that a packet went, in cb[3].
const cameShort, cameKnown = 1, 2

func cutInIP(frame []byte) bool {
	if len(frame) < 14 {
		return true
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return len(frame) < 14+20
	case 0x86dd:
		return len(frame) < 14+40
	}
	return false
}

// Run runs a program once over a frame, as if it came from the device (which must
// exist in the namespace of the calling thread): nothing is sent, but counters
// count. (Copies of a flooded frame are sent, unless the Switch rehearses.) A frame from the underlay that is to be ours carries the device's MAC.
func (s *Switch) Run(p Program, ifindex uint32, frame []byte) (RunResult, error) {
	return s.run(p, skb{IfIndex: ifindex}, frame)
}

// RunGSO is Run for a packet that is yet to be cut into segments with gsoSize bytes of
// payload each (the kernel's gso_size).
func (s *Switch) RunGSO(p Program, ifindex uint32, frame []byte, gsoSize uint16) (RunResult, error) {
	return s.run(p, skb{IfIndex: ifindex, GSOSize: uint32(gsoSize)}, frame)
}

func (s *Switch) run(p Program, in skb, frame []byte) (RunResult, error) {
	prog, ok := s.programs[p.String()]
	if !ok {
		return RunResult{}, fmt.Errorf("run: no such program: %s", p)
	}
	return runOnce(prog, s.maps["copy"], p, in, frame)
}

func runOnce(prog *ebpf.Program, copies *ebpf.Map, p Program, in skb, frame []byte) (RunResult, error) {
	var out skb
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: &in, ContextOut: &out}
	_, err := prog.Run(&o)
	if errors.Is(err, unix.EINVAL) && cutInIP(frame) {
		return RunResult{}, fmt.Errorf("run %s: %d bytes: %w", p, len(frame), ErrShort)
	}
	if err != nil {
		return RunResult{}, fmt.Errorf("run %s on device %d: %w", p, in.IfIndex, err)
	}
	if tag := out.CB[4]; tag&vlanTold != 0 && len(o.DataOut) >= 12 {
		o.DataOut = slices.Concat(o.DataOut[:12], []byte{0x81, 0, byte(tag >> 8), byte(tag)}, o.DataOut[12:])
	}
	made, err := readCopies(copies, out.CB[2])
	return RunResult{Verdict: model.Verdict(out.CB[0]), IfIndex: out.CB[1], Frame: o.DataOut, Short: out.CB[3] == cameShort, Known: out.CB[3] == cameKnown, Copies: made}, err
}
