// Package datapath is the switch as the rest of weft sees it: it loads the eBPF
// programs of bpf/, attaches them, keeps their maps equal to a table.Set, and
// reads back what they count and report. It is the only user of cilium/ebpf.
//
// Invariants: nothing is detached before its successor is in place; a map is
// never written when the Set as a whole would not fit; what is pinned survives
// the process and is taken over by the next Open. Devices are those of the
// network namespace of the calling thread: callers that work in another one
// lock their OS thread and enter it first.
// It must never know Goals, resources, addresses of devices or routes of the
// host, and it decides nothing about policy.
package datapath

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// Options of a Switch. The zero value of each field means its default.
type Options struct {
	PinDir     string // directory in a bpffs (no dots in its name); "": nothing outlives the process
	Decap      string // DecapAuto or another of these; default auto
	MaxPorts   uint32 // default 4096
	MaxRecords uint32 // default 262144, at most 4194304
	MaxRoutes  uint32 // default 65536
	MaxPeers   uint32 // default 16384
	Rehearse   bool   // flooded frames are only recorded, for Run; nothing may be attached
	Recycle    bool   // for tests, which open many: Close leaves programs and emptied maps to the next Open of this process
	Logger     *slog.Logger
}

// How an uplink strips the outer headers (docs/design/pipeline.md, from_uplink).
const (
	DecapAuto  = "auto"  // the best of the others that this kernel and device allow, but never vxlan
	DecapTCX   = "tcx"   // at tcx, after GRO
	DecapDX2   = "dx2"   // at tcx, and TCP for taps by a detour through the kernel (bpf/lib/dx2.h)
	DecapXDP   = "xdp"   // at XDP, before GRO, so that GRO merges the inner packets
	DecapVeth  = "veth"  // at tcx, and TCP for taps by a detour through a veth pair, which merges once more (bpf/lib/gro.h)
	DecapVXLAN = "vxlan" // at tcx, and TCP over VXLAN for taps by the kernel's vxlan device (bpf/lib/vxdev.h)
)

// Program names one of the switch's programs.
type Program uint8

// The programs that Run can run.
const (
	FromPort Program = iota + 1
	FromUplink
	ToPort
	WalkPort // what FromPort leaves to all stages
	VLANGuest
	VLANUplink
)

func (p Program) String() string {
	switch p {
	case FromPort:
		return "from_port"
	case FromUplink:
		return "from_uplink"
	case ToPort:
		return "to_port"
	case VLANGuest:
		return progVLANGuest
	case VLANUplink:
		return progVLANUplink
	case WalkPort:
		return "walk_port"
	}
	return fmt.Sprintf("program %d", uint8(p))
}

// RunResult is what one run of a program did.
type RunResult struct {
	Verdict model.Verdict
	IfIndex uint32 // device the frame left by; 0 if it went nowhere
	Frame   []byte // the frame as the program left it
	Short   bool   // by the short way (bpf/way/short.h)
	Known   bool   // by the known way (bpf/way/known.h)
	Copies  []Copy // of a flooded frame, in the order they were made; of a Switch that rehearses
}

// Copy is one copy of a flooded frame.
type Copy struct {
	IfIndex uint32
	Frame   []byte // its first 4096 bytes
}

// Direction of a packet as the VM sees it.
type Direction uint8

// The directions.
const (
	Outbound Direction = iota // from a port
	Inbound                   // toward a port
)

func (d Direction) String() string {
	if d == Inbound {
		return "inbound"
	}
	return "outbound"
}

// DropCount says how often one port met one drop reason since the maps were made.
type DropCount struct {
	Reason    model.Verdict
	Direction Direction
	Port      model.PortID // 0 when none was known
	Packets   uint64       // a GSO packet counts once
	Bytes     uint64       // of the frames as they came
	Rule      model.RuleID // of ACL_DENIED; zero: a rule that is gone
}

// TrafficCount is what one port sent and received through the switch.
type TrafficCount struct {
	OutPackets, OutBytes uint64 // as the guest sent them
	InPackets, InBytes   uint64 // as handed over
}

// Event is one dropped packet. Events are sampled: at most ten a second for
// each (reason, direction, port); the counters of Drops are exact.
type Event struct {
	Time      time.Time
	Reason    model.Verdict
	Direction Direction
	Port      model.PortID // 0 when none was known
	IfIndex   uint32       // device that the packet came from or was sent into
	Length    uint32       // of the whole frame
	Head      []byte       // its first bytes, at most 96
	Rule      model.RuleID // of ACL_DENIED
}

// ErrFull says that rows do not fit into a table; nothing was written.
type ErrFull struct {
	Table       string // records, routes, ...
	Map         string // of the kernel, when it holds the rows already and they would be lost
	Need, Limit int    // rows
}

func (e *ErrFull) Error() string {
	held := ""
	if e.Map != "" {
		held = fmt.Sprintf(" that the running switch holds in map %s", e.Map)
	}
	return fmt.Sprintf("%s: %d rows%s do not fit into %d; set limits.%s of the agent to %d or more",
		e.Table, e.Need, held, e.Limit, e.Table, e.Need)
}
