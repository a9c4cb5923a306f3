// Package exchange moves known bytes both ways over a connection and proves by
// SHA-256 that both ends saw the same. The virtual machine and the test that
// watches it speak it with each other.
//
// Wire form: the client sends a length n (8 bytes, big-endian) and n bytes; the
// server answers with the SHA-256 of what it read and n bytes of its own. Both
// streams are fixed pseudo-random sequences, so that a repeated or misplaced
// segment cannot go unseen.
// It must never be satisfied by a stream that ends early or goes on too long.
package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// MaxBytes bounds what a server accepts from a client.
const MaxBytes = 1 << 30

// Patience is how long one exchange may take.
const Patience = 60 * time.Second

const (
	forward byte = 1 // seed of the client's stream
	back    byte = 2 // seed of the server's stream
)

// stream is the first n bytes of the sequence of a seed.
func stream(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

// sum is the SHA-256 of exactly n bytes of r.
func sum(r io.Reader, n int64) ([]byte, error) {
	h := sha256.New()
	if _, err := io.CopyN(h, r, n); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// Client sends n bytes over c, and checks what the server says of them and sends back.
func Client(c net.Conn, n int64) error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if err := binary.Write(c, binary.BigEndian, n); err != nil {
		return fmt.Errorf("send length: %w", err)
	}
	if m, err := io.Copy(c, stream(forward, n)); err != nil {
		return fmt.Errorf("send, after %d of %d bytes: %w", m, n, err)
	}
	seen := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, seen); err != nil {
		return fmt.Errorf("read the server's hash: %w", err)
	}
	if want, _ := sum(stream(forward, n), n); !bytes.Equal(seen, want) {
		return errors.New("the server saw other bytes than were sent")
	}
	got, err := sum(c, n)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if want, _ := sum(stream(back, n), n); !bytes.Equal(got, want) {
		return errors.New("received other bytes than the server sends")
	}
	if extra, err := io.Copy(io.Discard, c); extra > 0 || err != nil {
		return fmt.Errorf("%d bytes after the end (%v)", extra, err)
	}
	return nil
}

// Dial runs one exchange of n bytes each way with the server at to, from the
// local address from (invalid: any).
func Dial(from netip.Addr, to netip.AddrPort, n int64) error {
	d := net.Dialer{Timeout: 10 * time.Second}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	return Client(c, n)
}

// Serve answers exchanges until the listener is closed.
func Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = answer(c) // what goes wrong here, the client sees
		}()
	}
}

func answer(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	var n int64
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		return err
	}
	if n < 0 || n > MaxBytes {
		return fmt.Errorf("length %d is not within 0..%d", n, MaxBytes)
	}
	seen, err := sum(c, n)
	if err != nil {
		return err
	}
	if _, err := c.Write(seen); err != nil {
		return err
	}
	_, err = io.Copy(c, stream(back, n))
	return err
}

// Echo answers datagrams with themselves until the connection is closed.
func Echo(c net.PacketConn) error {
	b := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			return err
		}
	}
}

// Datagrams sends n datagrams of size bytes to an echoing peer, one after the
// other, and checks every answer. A lost one is sent again, tries times in all.
func Datagrams(to netip.AddrPort, n, size, tries int) error {
	c, err := net.Dial("udp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	sent, got := make([]byte, size), make([]byte, 65536)
	for i := range n {
		if _, err := io.ReadFull(stream(byte(i), int64(size)), sent); err != nil {
			return err
		}
		if err := datagram(c, sent, got, tries); err != nil {
			return fmt.Errorf("datagram %d of %d: %w", i+1, n, err)
		}
	}
	return nil
}

func datagram(c net.Conn, sent, got []byte, tries int) error {
	for try := 1; ; try++ {
		if _, err := c.Write(sent); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		m, err := c.Read(got)
		if err != nil && try < tries {
			continue
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(got[:m], sent) {
			return fmt.Errorf("%d other bytes came back", m)
		}
		return nil
	}
}
