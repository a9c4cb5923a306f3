package lab

import (
	"io"
	"net"
	"testing"
	"time"
)

// streamsExchanged sends much by TCP between guests of networks that are rewritten over one family: as super-packets that the underlay
// passes on whole, and as segments that it cuts.
func streamsExchanged(t *testing.T, l Lab) {
	t.Helper()
	for _, cut := range []bool{false, true} {
		for _, host := range []string{"h1", "h2"} {
			if out, code := l.in(host, "", "ethtool", "-K", "eth0", "tso", onOff(!cut), "gso", onOff(!cut)); code != 0 {
				t.Fatalf("%s: %s", host, out)
			}
		}
		for _, tenant := range []string{"over-ipv4", "over-ipv6"} {
			for _, to := range []string{"10.0.0.7", "fd00:a::7"} {
				if n, err := l.stream(portRef{tenant, "a1"}, portRef{tenant, "a3"}, to, 16<<20); err != nil || n != 16<<20 {
					t.Errorf("%s: to %s, cut %t: %d bytes arrived, %v", tenant, to, cut, n, err)
				}
			}
		}
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// stream sends n bytes by TCP from one guest to another, and tells how many arrive.
func (l Lab) stream(from, to portRef, address string, n int) (got int64, err error) {
	at, deadline := net.JoinHostPort(address, "5202"), time.Now().Add(30*time.Second)
	var listener net.Listener
	if err = within(l.guestSpace(to), func() (err error) { listener, err = net.Listen("tcp", at); return err }); err != nil {
		return 0, err
	}
	defer listener.Close()
	var out net.Conn
	dial := net.Dialer{Deadline: deadline, Control: cubic}
	if err = within(l.guestSpace(from), func() (err error) { out, err = dial.Dial("tcp", at); return err }); err != nil {
		return 0, err
	}
	in, err := listener.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	_ = out.SetDeadline(deadline)
	_ = in.SetDeadline(deadline)
	go func() {
		_, _ = out.Write(make([]byte, n))
		out.Close()
	}()
	return io.Copy(io.Discard, in)
}
