package interop

import (
	"encoding/base64"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/test/twohosts"
)

// recorder keeps what crosses the underlay of our host: of each part of the traffic no
// more than a budget, so that a stream leaves room for what comes after.
type recorder struct {
	mu     sync.Mutex
	file   []byte
	budget int // bytes of each part
	left   int
}

// budget of each part in bytes; an emulated machine's console is slow.
func budget() int {
	if inEmulation() {
		return 12 << 10
	}
	return 1 << 20
}

func (r *recorder) part() {
	r.mu.Lock()
	r.left = r.budget
	r.mu.Unlock()
}

func (r *recorder) add(frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(frame) > r.left {
		return
	}
	r.left -= len(frame)
	r.file = pcapFrame(r.file, frame, time.Now())
}

// record captures the underlay while f runs, and gives the capture.
func (w *world) record(f func()) []byte {
	w.t.Helper()
	return w.recordOn(twohosts.Underlay, budget(), f)
}

// recordOn is record on any device of the first host.
func (w *world) recordOn(device string, budget int, f func()) []byte {
	w.t.Helper()
	r := &recorder{file: pcapHeader(), budget: budget, left: budget}
	w.recorder = r
	var fd int
	w.In(w.Hosts[0].NS, func() (err error) {
		fd, err = tap(device)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<18)
		for {
			n, err := unix.Read(fd, b)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue // the timeout
			}
			if err != nil {
				return
			}
			r.add(b[:n])
		}
	}()
	f()
	_ = unix.Shutdown(fd, unix.SHUT_RD)
	unix.Close(fd)
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file
}

// tap opens a socket that hears all of a device.
func tap(name string) (int, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})
}

// judge lets tshark look at the capture, or says it for those who have one.
func (w *world) judge(pcap []byte) {
	w.t.Helper()
	if inEmulation() {
		w.t.Logf("\n%s%s %s", CapturePrefix, strings.ReplaceAll(w.t.Name(), " ", "_"), base64.StdEncoding.EncodeToString(pcap))
		return
	}
	report, err := Examine(pcap)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("tshark reads %d tunnelled frames", report.Tunnelled)
	for _, m := range report.Malformed {
		w.t.Errorf("malformed: %s", m)
	}
	if report.Tunnelled < 40 {
		w.t.Errorf("only %d tunnelled frames were captured", report.Tunnelled)
	}
}
