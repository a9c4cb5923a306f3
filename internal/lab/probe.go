package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Probing.
const (
	identityPort = 7777            // TCP: answers with the guest's own name
	probeWait    = 3 * time.Second // long enough for a second SYN, and a third ping
	pingEvery    = time.Second
	maxMark      = 64 // bytes of a mark
)

// responder answers in a guest with the guest's name, and remembers by their
// marks who asked: it proves who was reached, and who was not.
type responder struct {
	name     string
	listener net.Listener
	mu       sync.Mutex
	marks    []string
}

// respond opens the identity service in a guest's namespace.
func respond(space, name string) (*responder, error) {
	r := &responder{name: name}
	err := within(space, func() (err error) {
		r.listener, err = net.Listen("tcp", fmt.Sprintf(":%d", identityPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("identity service of %s: %w", name, err)
	}
	go r.serve()
	return r, nil
}

func (r *responder) serve() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		go r.answer(c)
	}
}

func (r *responder) answer(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(probeWait))
	mark, err := bufio.NewReader(io.LimitReader(c, maxMark)).ReadString('\n')
	if err != nil {
		return
	}
	r.mu.Lock()
	r.marks = append(r.marks, strings.TrimSpace(mark))
	r.mu.Unlock()
	fmt.Fprintln(c, r.name)
}

// heard lists the marks that came from a guest.
func (r *responder) heard(from string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var marks []string
	for _, m := range r.marks {
		if strings.HasPrefix(m, from+" ") {
			marks = append(marks, m)
		}
	}
	return marks
}

// ask opens a connection from a namespace and returns who answers; "" when
// nobody does. mark is written to whoever is reached.
func ask(ctx context.Context, space, mark string, to netip.Addr) (who string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	err = within(space, func() error {
		// An address that is a literal is dialled on this very thread.
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(to, identityPort).String())
		if err != nil {
			return quiet(err)
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		c.SetDeadline(deadline)
		fmt.Fprintln(c, mark)
		text, err := bufio.NewReader(io.LimitReader(c, maxMark)).ReadString('\n')
		who = strings.TrimSpace(text)
		return quiet(err)
	})
	return who, err
}

// quiet makes no error of what only says that nobody is there.
func quiet(err error) error {
	var network net.Error
	var operation *net.OpError
	if errors.As(err, &network) || errors.As(err, &operation) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// pingID tells the pings of one process apart.
var pingID atomic.Uint32

// ping sends echo requests from a namespace until one is answered or the wait is over.
func ping(ctx context.Context, space string, to netip.Addr) (answered bool, err error) {
	network, any, protocol := "ip4:icmp", "0.0.0.0", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, any, protocol = "ip6:ipv6-icmp", "::", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var socket *icmp.PacketConn
	err = within(space, func() (err error) {
		socket, err = icmp.ListenPacket(network, any)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ping: %w", err)
	}
	defer socket.Close()
	id := int(pingID.Add(1) & 0xffff)
	end := time.Now().Add(probeWait)
	for sequence := 1; time.Now().Before(end) && ctx.Err() == nil; sequence++ {
		m := icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: sequence, Data: []byte("weft")}}
		packet, err := m.Marshal(nil)
		if err != nil {
			return false, err
		}
		// No route and no neighbour are answers as well: nobody is there.
		socket.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()})
		if answered, err := awaitEcho(socket, protocol, reply, id, to); answered || err != nil {
			return answered, err
		}
	}
	return false, nil
}

// awaitEcho reads until the answer comes from the right address or it is time
// for the next request.
func awaitEcho(socket *icmp.PacketConn, protocol int, reply icmp.Type, id int, from netip.Addr) (bool, error) {
	socket.SetReadDeadline(time.Now().Add(pingEvery))
	buffer := make([]byte, 1500)
	for {
		n, peer, err := socket.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("ping: %w", err)
		}
		m, err := icmp.ParseMessage(protocol, buffer[:n])
		if err != nil || m.Type != reply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if ok && echo.ID == id && peer.String() == from.String() {
			return true, nil
		}
	}
}
