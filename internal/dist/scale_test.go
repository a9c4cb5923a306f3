package dist

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
)

var (
	scaleHosts   = flag.Int("hosts", 100, "simulated agents of the scale test")
	scalePorts   = flag.Int("ports", 50, "ports per host of the scale test")
	scaleChanges = flag.Int("changes", 300, "ports that move in the scale test")
)

const hostsPerNetwork = 10

// Port i is on host i%hosts, in the network of its block of ten hosts.
func scalePort(i, host int) *model.Port {
	block := (i % *scaleHosts) / hostsPerNetwork
	n := i / *scaleHosts * hostsPerNetwork + i%hostsPerNetwork
	return &model.Port{Metadata: model.Metadata{Tenant: fmt.Sprint("t", block), Name: fmt.Sprint("p", i)}, ID: model.PortID(i + 1),
		Spec: model.PortSpec{Subnet: "web", Host: fmt.Sprint("h", host), MAC: model.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), netip.AddrFrom16([16]byte{0xfd, 12: 1, 14: byte(n >> 8), 15: byte(n)})}}}
}

func scaleWorld() []model.Resource {
	out := world(*scaleHosts, 0)
	for b := range (*scaleHosts + hostsPerNetwork - 1) / hostsPerNetwork {
		tenant := fmt.Sprint("t", b)
		out = append(out, &model.VirtualNetwork{Metadata: model.Metadata{Tenant: tenant, Name: "prod"}, Index: model.NetworkIndex(b + 10)},
			&model.VirtualSubnet{Metadata: model.Metadata{Tenant: tenant, Name: "web"}, Spec: model.VirtualSubnetSpec{Network: "prod", VSID: model.VSID(10000 + b),
				Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")},
				Gateway:  []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}})
	}
	for i := range *scaleHosts * *scalePorts {
		out = append(out, scalePort(i, i%*scaleHosts))
	}
	return out
}

// Every simulated agent ends with exactly the Goal of its host, and the
// server knows it.
func TestFleetConverges(t *testing.T) {
	f := newFleet(t)
	f.cfg.Now = time.Now
	start := time.Now()
	f.Sync(scaleWorld(), 1)
	compiled := time.Since(start)

	agents := make([]*agent, *scaleHosts)
	gone := make(chan error, len(agents))
	var rows, updates atomic.Int64
	run := func(a *agent) {
		for {
			var m *hostv1.ServerMessage
			select {
			case m = <-a.in:
			case err := <-a.over:
				gone <- err
				return
			}
			u := m.GetUpdate()
			if u == nil {
				continue
			}
			rows.Add(int64(hostwire.Rows(u)))
			updates.Add(1)
			done, err := a.receiver.Receive(u)
			if err != nil {
				t.Error(err)
			}
			if done {
				a.ack()
			}
		}
	}
	start = time.Now()
	for i := range agents {
		agents[i] = f.arrive(fmt.Sprint("h", i), "x", fresh())
		go run(agents[i])
	}
	inStep := func() bool {
		for _, h := range f.Hosts() {
			if !h.Connected || h.Lag != 0 || h.Acknowledged == 0 {
				return false
			}
		}
		return true
	}
	f.until("everyone has the first goal", inStep)
	t.Logf("%d hosts, %d ports: compiled in %v; %d rows in %d messages reached all in %v", *scaleHosts, *scaleHosts**scalePorts,
		compiled.Round(time.Millisecond), rows.Load(), updates.Load(), time.Since(start).Round(time.Millisecond))

	rows.Store(0)
	start = time.Now()
	random := rand.New(rand.NewPCG(1, 2))
	for n := range *scaleChanges {
		i := random.IntN(*scaleHosts * *scalePorts)
		f.Apply(put(scalePort(i, random.IntN(*scaleHosts))), nil, int64(n+2))
	}
	f.until("everyone has followed", inStep)
	t.Logf("%d moves, %d rows, reached all in %v", *scaleChanges, rows.Load(), time.Since(start).Round(time.Millisecond))

	for _, a := range agents {
		a.stop()
	}
	for range agents {
		<-gone
	}
	for i, a := range agents {
		want, _ := f.Goal(fmt.Sprint("h", i))
		if !a.receiver.Goal().Equal(want) || a.receiver.Goal().Digest() != want.Digest() {
			t.Errorf("%s holds another goal than it should", a.host)
		}
	}
}
