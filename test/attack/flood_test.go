package attack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weft-sdn/weft/test/fleet"
	"github.com/weft-sdn/weft/test/stream"
)

// bob lets in what is meant for his services, by connections, and what answers him; nothing else.
const services = `
kind: AccessList
metadata: {tenant: red, name: services}
spec:
  default: {inbound: deny}
  rules:
  - {name: web, direction: inbound, action: allow, protocol: tcp, localPorts: ["8000-8010"], stateful: true}
  - {name: streams, direction: inbound, action: allow, protocol: udp, localPorts: ["20000-30000"], stateful: true}
  - {name: calls, direction: outbound, action: allow, protocol: tcp, stateful: true}
  - {name: sends, direction: outbound, action: allow, protocol: udp, stateful: true}
---
kind: Port
metadata: {tenant: red, name: bob}
spec: {subnet: web, mac: "02:00:00:00:00:06", addresses: [10.0.0.6, "fd00:a::6"], host: h2, accessLists: [services], connectionLimit: 3000}
`

// TestFloodsOfConnections has evil open connections at bob until his table has given way to thousands of them. alice and
// bob have connections of both directions meanwhile, that are never interrupted, and some that are silent until it is over.
func TestFloodsOfConnections(t *testing.T) {
	f := newField(t)
	if err := f.Apply(services).Err(); err != nil {
		t.Fatal(err)
	}
	f.Verified()
	const each = 10
	var busy, silent []*call
	for _, c := range []struct{ from, to, at string }{{alice, bob, "10.0.0.6:8000"}, {bob, alice, "10.0.0.5:9000"}, {alice, bob, "[fd00:a::6]:8001"}, {bob, alice, "[fd00:a::5]:9001"}} {
		l := f.answers(c.to, c.at)
		for range each {
			busy = append(busy, f.call(c.from, l))
		}
		silent = append(silent, f.call(c.from, l))
	}
	f.answers(bob, "10.0.0.6:8002") // what evil may speak to
	var on sync.WaitGroup
	stop := make(chan struct{})
	for _, c := range busy {
		on.Go(func() { c.goOn(stop) })
	}
	streams := f.Traffic(fleet.Pair{A: alice, B: bob, A4: addr("10.0.0.5"), A6: addr("fd00:a::5"), B4: addr("10.0.0.6"), B6: addr("fd00:a::6")})
	for _, a := range []attack{
		{name: "hping3: a SYN flood at a service", tool: words("hping3 -q -S -p 8002 -i u100 10.0.0.6"), count: gaveWay},
		{name: "hping3: a SYN flood at what nobody listens to, and rules allow", tool: words("hping3 -q -S -p 8005 -i u100 10.0.0.6"), count: gaveWay},
		{name: "hping3: a SYN flood at what rules deny", tool: words("hping3 -q -S -p 80 -i u100 10.0.0.6"), reasons: []string{"ACL_DENIED"}, port: bob},
		{name: "hping3: a flood of datagrams", tool: words("hping3 -q -2 -p 29999 -i u100 10.0.0.6"), count: gaveWay},
		{name: "hping3: a flood of ACKs without a connection", tool: words("hping3 -q -A -p 8005 -i u100 10.0.0.6"), count: gaveWay},
	} {
		t.Run(a.name, func(t *testing.T) {
			a.from, a.least = evil, 2000
			denied, rounds := f.counted(deniedBob), talked(busy)
			f.suffer(t, a)
			f.Poll("the connections go on", func() error {
				if now := talked(busy); now < rounds+uint64(len(busy)) {
					return fmt.Errorf("%d messages were answered", now-rounds)
				}
				return nil
			})
			streams.More(20)
			if n := f.counted(deniedBob) - denied; n != 0 && a.reasons == nil {
				t.Errorf("%d packets to bob were denied", n)
			}
		})
	}
	close(stop)
	on.Wait()
	for _, c := range append(busy, silent...) {
		if err := errors.Join(c.err, c.say()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	total := streams.Finish()
	t.Logf("%d messages of %d connections were answered; %d datagrams, %d lost; %d connections gave way", talked(busy), len(busy)+len(silent), total.Sent, total.Lost, gaveWay(f))
	f.Verified()
}

var deniedBob = attack{port: bob, reasons: []string{"ACL_DENIED"}}

// gaveWay is how many connections of bob have given way to others.
func gaveWay(f *field) int {
	var answer struct {
		Ports []struct {
			HalfOpen  int `json:"lostHalfOpen,string"`
			Confirmed int `json:"lostConfirmed,string"`
		} `json:"ports"`
	}
	if err := json.Unmarshal([]byte(f.Must("get", "connections", "-p", bob, "--limit", "1", "-o", "json")), &answer); err != nil {
		f.T.Fatal(err)
	}
	n := 0
	for _, p := range answer.Ports {
		n += p.HalfOpen + p.Confirmed
	}
	return n
}

// answers has a guest say back what it is told, to whoever connects.
func (f *field) answers(where, at string) net.Listener {
	f.T.Helper()
	var l net.Listener
	if err := stream.In(f.Space(where), func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	}); err != nil {
		f.T.Fatal(err)
	}
	f.T.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l
}

// A call is a TCP connection on which every message is answered.
type call struct {
	net.Conn
	name string
	said atomic.Uint64
	err  error
}

func (f *field) call(from string, to net.Listener) *call {
	f.T.Helper()
	c := &call{name: fmt.Sprintf("%s to %s", strings.TrimPrefix(from, "red/"), to.Addr())}
	if err := stream.In(f.Space(from), func() (err error) {
		c.Conn, err = net.DialTimeout("tcp", to.Addr().String(), 10*time.Second)
		return err
	}); err != nil {
		f.T.Fatalf("%s: %v", c.name, err)
	}
	f.T.Cleanup(func() { c.Close() })
	if err := c.say(); err != nil {
		f.T.Fatalf("%s: %v", c.name, err)
	}
	return c
}

// say sends one message and waits for its answer.
func (c *call) say() error {
	n := c.said.Add(1)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	sent := fmt.Appendf(nil, "%08d", n)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("message %d is not answered: %w", n, err)
	}
	if string(got) != string(sent) {
		return fmt.Errorf("message %d is answered by %q", n, got)
	}
	return nil
}

// goOn talks at a person's pace until it is stopped, or nobody answers.
func (c *call) goOn(stop chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for c.err == nil {
		select {
		case <-stop:
			return
		case <-tick.C:
			c.err = c.say()
		}
	}
}

// talked is how many messages were sent, all but the last of each answered.
func talked(calls []*call) (n uint64) {
	for _, c := range calls {
		n += c.said.Load()
	}
	return n
}
