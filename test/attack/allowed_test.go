package attack

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/stream"
)

const allowances = `
kind: Port
metadata: {tenant: red, name: evil, labels: {vm: worker}}
spec:
  subnet: web
  mac: "02:00:00:00:00:66"
  addresses: [10.0.0.66, "fd00:a::66"]
  host: h1
  allowTeaming: true
  allowedAddresses:
    - {prefix: 172.16.0.0/24}
    - {prefix: 10.0.0.77/32, mac: "00:00:5e:00:01:07"}
---
kind: Port
metadata: {tenant: red, name: alice, labels: {vm: worker}}
spec: {subnet: web, mac: "02:00:00:00:00:05", addresses: [10.0.0.5, "fd00:a::5"], host: h1, allowTeaming: true, stormLimit: 1}
---
kind: CustomerRoute
metadata: {tenant: red, name: behind-evil}
spec: {network: prod, prefix: 172.16.0.0/24, nextHop: 10.0.0.66}
`

// TestWhatPolicyAllows has evil use what is not its own, first against policy and then by it: addresses behind it, a
// virtual router's address and MAC, and what is alice's, who is then another NIC of the same VM.
func TestWhatPolicyAllows(t *testing.T) {
	f := newField(t)
	if err := f.On(evil, words("ip address add 172.16.0.1/32 dev lo")...).Err(); err != nil {
		t.Fatal(err)
	}
	virtual := [6]byte{0, 0, 0x5e, 0, 1, 7}
	says := func(src string, mac [6]byte, port uint16) []byte { // to bob, on the other host
		return frame(bobMAC, mac, wire.TypeIPv4, v4(wire.IPv4{Proto: protoUDP, Source: addr(src), Destination: addr("10.0.0.6")}, datagram(4000, port, 8)))
	}
	hears := f.listen(bob, 7000)
	for _, a := range []attack{
		{name: "a virtual router's address", frames: [][]byte{says("10.0.0.77", evilMAC, 7000)}, reasons: []string{"SPOOFED_CA"}},
		{name: "a virtual router's MAC", frames: [][]byte{says("10.0.0.66", virtual, 7000)}, reasons: []string{"SPOOFED_MAC"}},
		{name: "a neighbour's address", frames: [][]byte{says("10.0.0.5", evilMAC, 7000)}, reasons: []string{"SPOOFED_CA"}},
		{name: "a neighbour's MAC and address", frames: [][]byte{says("10.0.0.5", aliceMAC, 7000)}, reasons: []string{"SPOOFED_MAC"}},
	} {
		a.from, a.least = evil, 10
		f.suffer(t, a)
	}
	if from := hears(50 * time.Millisecond); from != "" {
		t.Errorf("bob has heard %s", from)
	}
	if err := f.Apply(allowances).Err(); err != nil {
		t.Fatal(err)
	}
	f.Verified()
	for src, frames := range map[string][][]byte{
		"10.0.0.77": {says("10.0.0.77", evilMAC, 7000), says("10.0.0.77", virtual, 7000)},
		"10.0.0.66": {says("10.0.0.66", virtual, 7000)},
		"10.0.0.5":  {says("10.0.0.5", aliceMAC, 7000), says("10.0.0.5", evilMAC, 7000)},
	} {
		for i, b := range frames {
			stop := f.repeat(evil, [][]byte{b}, time.Millisecond)
			f.Poll(fmt.Sprintf("bob hears %s, %d", src, i), func() error {
				if from := hears(time.Second); from != src {
					return fmt.Errorf("he hears %q", from)
				}
				return nil
			})
			stop()
		}
	}
	f.Poll("bob reaches what is behind evil", func() error { return f.On(bob, words("ping -n -c1 -W1 172.16.0.1")...).Err() })
	f.suffer(t, attack{name: "alice's own storm limit", from: alice, tool: words("ping -n -q -b -i 0.01 10.0.0.255"), reasons: []string{"STORM_LIMITED"}, least: 10})
	f.Verified()
}

// listen has a guest hear datagrams; the function waits for one, and gives the sender of the last that is there.
func (f *field) listen(where string, port int) func(most time.Duration) string {
	f.T.Helper()
	var c *net.UDPConn
	err := stream.In(f.Space(where), func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		f.T.Fatal(err)
	}
	f.T.Cleanup(func() { c.Close() })
	return func(most time.Duration) string {
		for last := ""; ; most = time.Millisecond / 2 { // less than until the next is sent
			c.SetReadDeadline(time.Now().Add(most))
			_, from, err := c.ReadFromUDP(make([]byte, 64))
			if err != nil {
				return last
			}
			last = from.IP.String()
		}
	}
}
