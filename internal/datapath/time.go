package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Time runs a program over a frame repeat times and returns the mean of one run.
// The frame comes from the loopback device (ifindex 1), and the runs go on with
// what earlier ones made of it: with repeat above 1 the program must leave it as it is.
func (s *Switch) Time(p Program, frame []byte, repeat int) (time.Duration, error) {
	prog, ok := s.programs[p.String()]
	if !ok {
		return 0, fmt.Errorf("time: no such program: %s", p)
	}
	_, d, err := prog.Benchmark(frame, repeat, nil)
	if err != nil {
		return 0, fmt.Errorf("time %s: %w", p, err)
	}
	return d, nil
}

// sourcePort is where a frame has its TCP or UDP source port, behind IPv4 without options.
const sourcePort = 34

// TimeFirst is Time where each run has another source port than the one before, one of the 32,768 that guests take, of a frame with
// IPv4 and TCP or UDP. The change of the port, and the run of a program that does nothing, are not in it.
func (s *Switch) TimeFirst(p Program, frame []byte, repeat int) (time.Duration, error) {
	prog, ok := s.programs[p.String()]
	if !ok {
		return 0, fmt.Errorf("time: no such program: %s", p)
	}
	nothing, err := timed(asm.Mov.Imm(asm.R0, 0), asm.Return())
	if err != nil {
		return 0, err
	}
	defer nothing.Close()
	d, err := timeFirst(prog, frame, repeat)
	if err != nil {
		return 0, fmt.Errorf("time %s: %w", p, err)
	}
	none, err := timeFirst(nothing, frame, repeat)
	return d - none, err
}

// timeFirst times a program behind one that changes the source port.
func timeFirst(of *ebpf.Program, frame []byte, repeat int) (time.Duration, error) {
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return 0, err
	}
	defer next.Close()
	if err := next.Put(uint32(0), of); err != nil {
		return 0, err
	}
	const data, dataEnd, passing = 76, 80, 0x80 // in struct __sk_buff; the first byte of such a port
	prog, err := timed(
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, sourcePort+2),
		asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.LoadMem(asm.R4, asm.R2, sourcePort, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.Add.Imm(asm.R4, 1),
		asm.Or.Imm(asm.R4, passing<<8),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.StoreMem(asm.R2, sourcePort, asm.R4, asm.Half),
		asm.LoadMapPtr(asm.R2, next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, actShot).WithSymbol("out"),
		asm.Return(),
	)
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	ret, d, err := prog.Benchmark(frame, repeat, nil)
	if err == nil && ret == actShot {
		err = errors.New("the packet is dropped")
	}
	return d, err
}

// actShot is TC_ACT_SHOT.
const actShot = 2

// timed is a program that the switch's own may be called from.
func timed(instructions ...asm.Instruction) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL", Instructions: instructions})
	if err != nil {
		return nil, fmt.Errorf("time: %w", err)
	}
	return p, nil
}

// Memory is how many bytes of kernel memory a map takes.
func (s *Switch) Memory(name string) (uint64, error) {
	m, ok := s.maps[name]
	if !ok {
		return 0, fmt.Errorf("memory: no such map: %s", name)
	}
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", name, err)
	}
	bytes, ok := info.Memlock()
	if !ok {
		return 0, fmt.Errorf("memory of %s: the kernel does not say", name)
	}
	return bytes, nil
}
