package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A worker is this program once more, as one end of the traffic: one process,
// one thread that does the work, plain blocking system calls. The Go scheduler
// has no part in what is measured.

const workerEnv = "WEFT_BENCH_WORKER"

// spec tells a worker what to do.
type spec struct {
	Role   string // see workerMain
	NS     string // namespace to work in
	CPU    int    // -1: any
	Local  netip.AddrPort
	Remote netip.AddrPort
	Begin  time.Time // what is received from here
	End    time.Time // to here counts, for all workers of a measurement alike
	HostNS string    // pump: where the port is
	Device string    // pump: name of the port there
	Poll   bool      // udp-recv: do not sleep
	Spread int       // udp-send: how many addresses behind Remote's get datagrams, in turn; 0: Remote itself
	Random bool      // udp-send: not in turn, but at random
}

// result is what a worker found.
type result struct {
	Bytes   uint64  // payload received in the counted time
	Total   uint64  // payload received in all
	Packets uint64  // datagrams received, or round trips made, in it
	P50     float64 // µs
	P99     float64 // µs
	Retrans uint32  // TCP segments sent again

	cpu time.Duration // processor time of the worker, softirqs on its back included
}

const (
	socketBuffer = 4 << 20 // bytes asked for; the kernel doubles it
	block        = 128 << 10
	patience     = 3                    // seconds without progress before a worker gives up
	fastest      = 2 * time.Microsecond // a round trip; bounds the memory for them
	overtime     = 100 * time.Millisecond
	datagram     = 64
	datagrams    = 32 // in one system call
)

// workerMain runs the worker that text describes, and prints its result.
func workerMain(text string) {
	runtime.LockOSThread()
	var s spec
	err := json.Unmarshal([]byte(text), &s)
	var r result
	if err == nil {
		r, err = s.work()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "worker %s: %v\n", s.Role, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

func (s spec) work() (result, error) {
	if err := hurry(); err != nil {
		return result{}, err
	}
	if s.CPU >= 0 {
		if err := pin(0, s.CPU); err != nil {
			return result{}, err
		}
	}
	if s.Role == "pump" {
		return result{}, pump(s)
	}
	if err := enter(s.NS); err != nil {
		return result{}, err
	}
	roles := map[string]func() (result, error){
		"tcp-send": s.tcpSend, "tcp-recv": s.tcpRecv,
		"rr-ask": s.rrAsk, "rr-answer": s.rrAnswer,
		"crr-ask": s.crrAsk, "crr-answer": s.crrAnswer,
		"udp-send": s.udpSend, "udp-recv": s.udpRecv,
	}
	role, ok := roles[s.Role]
	if !ok {
		return result{}, fmt.Errorf("no such role")
	}
	return role()
}

// pin ties thread tid (0: the caller) to one CPU.
func pin(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("pinning to cpu %d: %w", cpu, err)
	}
	return nil
}

// hurry puts the calling thread before all else that the machine does: with it
// the rounds of a busy machine differ by a few percent, without it several times over.
func hurry() error { return hurryThread(0) }

func hurryThread(tid int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
	if err := unix.SchedSetAttr(tid, &attr, 0); err != nil {
		return fmt.Errorf("asking for real-time scheduling: %w", err)
	}
	return nil
}

// hurryAll is hurry for every thread that this process has, and so for those that they make.
func hurryAll() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := hurryThread(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (s spec) counts(now time.Time) bool { return now.After(s.Begin) && now.Before(s.End) }

// ready tells the parent that the other end may start.
func ready() { fmt.Println("ready") }

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// tune gives a socket what every contender gets: fixed buffers, and an end to waiting.
func tune(fd int) error {
	wait := unix.Timeval{Sec: patience}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait),
	)
}

// tcpSocket has cubic, because the default of a machine (bbr paces by its own
// estimates) makes runs of one setup differ several times over.
func tcpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(tune(fd),
		unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic"),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
}

func (s spec) listen() (int, error) {
	l, err := tcpSocket()
	if err != nil {
		return -1, err
	}
	if err := errors.Join(unix.Bind(l, sockaddr(s.Local)), unix.Listen(l, 1)); err != nil {
		return -1, err
	}
	ready()
	return l, nil
}

func (s spec) accept() (int, error) {
	l, err := s.listen()
	if err != nil {
		return -1, err
	}
	fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("waiting for the client: %w", err)
	}
	return fd, tune(fd)
}

func (s spec) connect() (int, error) {
	fd, err := tcpSocket()
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(s.Remote)); err != nil {
		return -1, fmt.Errorf("connecting to %s: %w", s.Remote, err)
	}
	return fd, nil
}

// read and write are raw: the runtime does not get to hand the processor over.
func read(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func write(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func (s spec) tcpSend() (result, error) {
	fd, err := s.connect()
	if err != nil {
		return result{}, err
	}
	b := make([]byte, block)
	for time.Now().Before(s.End) {
		if _, err := write(fd, b); err != nil {
			return result{}, fmt.Errorf("writing: %w", err)
		}
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return result{}, err
	}
	return result{Retrans: info.Total_retrans}, unix.Shutdown(fd, unix.SHUT_WR)
}

func (s spec) tcpRecv() (result, error) {
	fd, err := s.accept()
	if err != nil {
		return result{}, err
	}
	b := make([]byte, block)
	var r result
	for {
		n, err := read(fd, b)
		if err != nil {
			return r, fmt.Errorf("reading: %w", err)
		}
		if n == 0 {
			return r, nil
		}
		r.Total += uint64(n)
		if s.counts(time.Now()) {
			r.Bytes += uint64(n)
		}
	}
}

func (s spec) rrAnswer() (result, error) {
	fd, err := s.accept()
	if err != nil {
		return result{}, err
	}
	b := make([]byte, 1)
	for {
		n, err := read(fd, b)
		if err != nil || n == 0 {
			return result{}, err
		}
		if _, err := write(fd, b); err != nil {
			return result{}, err
		}
	}
}

func (s spec) rrAsk() (result, error) {
	fd, err := s.connect()
	if err != nil {
		return result{}, err
	}
	b := make([]byte, 1)
	return s.times(func() error {
		if _, err := write(fd, b); err != nil {
			return fmt.Errorf("asking: %w", err)
		}
		if _, err := read(fd, b); err != nil {
			return fmt.Errorf("waiting for the answer: %w", err)
		}
		return nil
	})
}

// crrAnswer closes first, so that the ports that wait (TIME_WAIT) are its own, not
// the many of the asking end. It ends when a connection asks for nothing.
func (s spec) crrAnswer() (result, error) {
	l, err := s.listen()
	if err != nil {
		return result{}, err
	}
	b := make([]byte, 1)
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return result{}, fmt.Errorf("waiting for a client: %w", err)
		}
		n, err := read(fd, b)
		if err != nil || n == 0 {
			return result{}, err
		}
		if _, err := write(fd, b); err != nil {
			return result{}, err
		}
		unix.Close(fd)
	}
}

func (s spec) crrAsk() (result, error) {
	if err := setSysctl(s.NS, "net/ipv4/tcp_congestion_control", "reno"); err != nil { // bbr paces; a namespace may not choose cubic
		return result{}, err
	}
	b := make([]byte, 1)
	r, err := s.times(func() error {
		fd, err := s.dial()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, err := write(fd, b); err != nil {
			return fmt.Errorf("asking: %w", err)
		}
		for n := 1; n > 0; { // the answer, and the end
			if n, err = read(fd, b); err != nil {
				return fmt.Errorf("waiting for the answer: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	fd, err := s.dial()
	unix.Close(fd)
	return r, err
}

// dial connects a socket as it comes: eight options for each would be a part of what is measured, the same for every contender.
func (s spec) dial() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(s.Remote)); err != nil {
		return -1, fmt.Errorf("connecting to %s: %w", s.Remote, err)
	}
	return fd, nil
}

// times does one thing over and over, and tells how long it took each time.
func (s spec) times(once func() error) (result, error) {
	took := make([]time.Duration, 0, int(s.End.Sub(s.Begin)/fastest))
	last := time.Now()
	for last.Before(s.End) && len(took) < cap(took) {
		if err := once(); err != nil {
			return result{}, err
		}
		now := time.Now()
		if s.counts(last) {
			took = append(took, now.Sub(last))
		}
		last = now
	}
	if len(took) == 0 {
		return result{}, errors.New("no round trip was completed")
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1e3 }
	return result{Packets: uint64(len(took)), P50: at(0.50), P99: at(0.99)}, nil
}

func (s spec) udpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := errors.Join(tune(fd), unix.Bind(fd, sockaddr(s.Local))); err != nil {
		return -1, err
	}
	if !s.Remote.IsValid() || s.Spread > 0 {
		return fd, nil
	}
	return fd, unix.Connect(fd, sockaddr(s.Remote))
}

// mmsghdr is one message of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	len uint32
	_   uint32
}

// batch makes the messages of one system call: with one call for each datagram,
// the call would be half of what is measured, of the fastest contender most.
func batch() []mmsghdr {
	ms := make([]mmsghdr, datagrams)
	for i := range ms {
		iov := &unix.Iovec{Base: &make([]byte, 2*datagram)[0], Len: datagram}
		ms[i].Iov, ms[i].Iovlen = iov, 1
	}
	return ms
}

// exchange is sendmmsg or recvmmsg; it tells how many datagrams went.
func exchange(call uintptr, fd int, ms []mmsghdr, flags uintptr) (int, error) {
	n, _, e := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&ms[0])), uintptr(len(ms)), flags, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// address gives the messages places for addresses, and returns what writes the next ones.
func (s spec) address(ms []mmsghdr) func() {
	to := make([]unix.RawSockaddrInet4, len(ms))
	port := s.Remote.Port()
	for i := range ms {
		to[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8}
		ms[i].Name, ms[i].Namelen = (*byte)(unsafe.Pointer(&to[i])), unix.SizeofSockaddrInet4
	}
	first, at := s.Remote.Addr().As4(), 0
	base := binary.BigEndian.Uint32(first[:])
	return func() {
		for i := range to {
			if at++; s.Random {
				at = rand.IntN(s.Spread)
			}
			binary.BigEndian.PutUint32(to[i].Addr[:], base+uint32(at%s.Spread))
		}
	}
}

// yield lets the pump of this end have the core, which would else wait for the end of
// a real-time slice.
func yield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

func (s spec) udpSend() (result, error) {
	fd, err := s.udpSocket()
	if err != nil {
		return result{}, err
	}
	ms := batch()
	next := func() {}
	if s.Spread > 0 {
		next = s.address(ms)
	}
	var r result
	for end := s.End.Add(overtime); time.Now().Before(end); {
		next()
		n, err := exchange(unix.SYS_SENDMMSG, fd, ms, 0)
		if err == unix.ECONNREFUSED {
			return r, nil // the receiver has counted enough and is gone
		}
		if err != nil && err != unix.ENOBUFS {
			return r, fmt.Errorf("sending: %w", err)
		}
		r.Packets += uint64(n)
		yield()
	}
	return r, nil
}

// udpRecv polls where it has a core of its own, with no pump to run there: a receiver
// that sleeps costs the sender more to wake than the path costs, and how often that
// happens is chance.
func (s spec) udpRecv() (result, error) {
	fd, err := s.udpSocket()
	if err != nil {
		return result{}, err
	}
	ready()
	wait := uintptr(unix.MSG_WAITFORONE)
	if s.Poll {
		wait = unix.MSG_DONTWAIT
	}
	ms := batch()
	var r result
	for {
		n, err := exchange(unix.SYS_RECVMMSG, fd, ms, wait)
		if err != nil && err != unix.EAGAIN {
			return r, fmt.Errorf("receiving: %w", err)
		}
		now := time.Now()
		if now.After(s.End) {
			return r, nil
		}
		if s.counts(now) {
			r.Packets += uint64(n)
		}
	}
}

// process is a running worker.
type process struct {
	cmd  *exec.Cmd
	out  io.ReadCloser
	errs *strings.Builder
	role string
}

// start runs a worker; when it is a waiting end, start returns once it waits.
func start(ctx context.Context, s spec) (*process, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	p := &process{role: s.Role, errs: &strings.Builder{}}
	p.cmd = exec.CommandContext(ctx, "/proc/self/exe")
	// Neither the collector nor preemption signals may interrupt a raw system call.
	p.cmd.Env = append(os.Environ(), workerEnv+"="+string(text), "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=4")
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	p.cmd.Stderr = p.errs
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	switch s.Role {
	case "tcp-recv", "rr-answer", "crr-answer", "udp-recv", "pump":
	default:
		return p, nil
	}
	word := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(p.out, word); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s did not come up: %s", s.Role, strings.TrimSpace(p.errs.String()))
	}
	return p, nil
}

// finish waits for the worker's result.
func (p *process) finish() (result, error) {
	var r result
	bad := json.NewDecoder(p.out).Decode(&r)
	if err := p.cmd.Wait(); err != nil {
		return r, fmt.Errorf("%s: %w: %s", p.role, err, strings.TrimSpace(p.errs.String()))
	}
	r.cpu = p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	return r, bad
}

// stop ends a worker that has no end of its own.
func (p *process) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
