package intent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, addrOf(a))
	}
	return out
}

// learn stores what is learned of red's port and gives what was refused.
func (w *world) learn(name string, used, released []netip.Addr) []Refusal {
	w.t.Helper()
	res, refused, v := AdmitLearned(w.state, model.Ref{Tenant: "red", Name: name}, "h1", Seen{Used: used, Released: released})
	if len(v) > 0 {
		w.t.Fatalf("refused: %v", v)
	}
	w.store(res)
	return refused
}

func (w *world) learned(name, want string) {
	w.t.Helper()
	if got := fmt.Sprint(w.port(name).Learned); got != want {
		w.t.Fatalf("%s has learned %s, want %s", name, got, want)
	}
}

func TestWhatIsLearned(t *testing.T) {
	w := newWorld(t, append(base(), learner("red", "a", "web", 2), learner("red", "b", "web", 2))...)
	if p := w.port("a"); len(p.Spec.Addresses) != 0 {
		t.Fatalf("a port that learns was given %v", p.Spec.Addresses)
	}
	if r := w.learn("a", addrs("10.0.0.90", "fd00:a::90"), nil); r != nil {
		t.Fatal(r)
	}
	w.learned("a", "[10.0.0.90 fd00:a::90]")
	w.learn("a", addrs("fd00:a::90"), nil) // again: nothing changes
	for _, c := range []struct {
		port, ca string
		finding  model.Finding
		says     string
	}{
		{"a", "10.0.0.91", model.FindingAddressLimit, "learned 2 addresses"},
		{"b", "10.0.0.90", model.FindingDuplicateAddress, "Port red/a"}, // the first one stays
		{"b", "10.0.0.1", model.FindingDuplicateAddress, "the gateway"},
		{"b", w.port("web-1").Spec.Addresses[0].String(), model.FindingDuplicateAddress, "Port red/web-1"},
		{"b", "10.0.0.255", model.FindingForeignAddress, "broadcast"},
		{"b", "192.168.0.1", model.FindingForeignAddress, "in none of the prefixes"},
		{"b", "fe80::1", model.FindingForeignAddress, "not for hosts"},
	} {
		r := w.learn(c.port, addrs(c.ca), nil)
		if len(r) != 1 || r[0].Finding != c.finding || !strings.Contains(r[0].Message, c.says) {
			t.Errorf("%s learns %s: %+v", c.port, c.ca, r)
		}
	}
	w.learned("b", "[]")
	if r, ok := w.state.Lookup(5001, addrOf("10.0.0.90")); !ok || model.KeyOf(r).Name != "a" {
		t.Errorf("the learned address is found as %v", r)
	}
	var types []string
	for _, l := range w.state.Derived(w.port("a")) {
		types = append(types, fmt.Sprint(l.Spec.Type, " ", l.Metadata.Name))
	}
	if got := strings.Join(types, ", "); got != "Dynamic port:a:10.0.0.90, Dynamic port:a:fd00:a::90, L2Only port:a:l2only" {
		t.Errorf("records %s", got)
	}
	if _, _, v := AdmitLearned(w.state, model.Ref{Tenant: "red", Name: "a"}, "h2", Seen{Used: addrs("10.0.0.92")}); len(v) == 0 {
		t.Error("another host speaks for the port")
	}
}

func TestHowWhatWasLearnedIsForgotten(t *testing.T) {
	fresh := func(t *testing.T) *world {
		w := newWorld(t, append(base(), learner("red", "a", "web", 2), learner("red", "b", "web", 2))...)
		w.learn("a", addrs("10.0.0.90", "10.0.0.91"), nil)
		return w
	}
	t.Run("released", func(t *testing.T) {
		w := fresh(t)
		w.learn("a", addrs("10.0.0.92"), addrs("10.0.0.90"))
		w.learned("a", "[10.0.0.91 10.0.0.92]")
		w.learn("b", addrs("10.0.0.90"), nil)
		w.learned("b", "[10.0.0.90]")
	})
	t.Run("kept when the manifest is applied again", func(t *testing.T) {
		w := fresh(t)
		w.apply(learner("red", "a", "web", 2))
		w.learned("a", "[10.0.0.90 10.0.0.91]")
	})
	t.Run("limit lowered", func(t *testing.T) {
		w := fresh(t)
		w.apply(learner("red", "a", "web", 1))
		w.learned("a", "[10.0.0.90]")
	})
	t.Run("written for the port itself", func(t *testing.T) {
		w := fresh(t)
		w.apply(with(learner("red", "a", "web", 2), func(p *model.Port) { p.Spec.Addresses = addrs("10.0.0.91") }))
		w.learned("a", "[10.0.0.90]")
	})
	t.Run("written for another port", func(t *testing.T) {
		w := fresh(t)
		w.apply(port("red", "c", "web", "10.0.0.90"))
		w.learned("a", "[10.0.0.91]")
		w.learn("a", addrs("10.0.0.90"), nil)
		w.learned("a", "[10.0.0.91]")
	})
	t.Run("written for another port, in one set with its own", func(t *testing.T) {
		for _, set := range [][]model.Resource{
			{learner("red", "a", "web", 2), port("red", "c", "web", "10.0.0.90")},
			{port("red", "c", "web", "10.0.0.90"), learner("red", "a", "web", 2)},
		} {
			w := fresh(t)
			w.apply(set...)
			w.learned("a", "[10.0.0.91]")
		}
	})
	t.Run("a static record", func(t *testing.T) {
		w := fresh(t)
		w.apply(record("red", "box", "web", "10.0.0.91", "02:00:00:00:00:99", "192.0.2.9"))
		w.learned("a", "[10.0.0.90]")
	})
	t.Run("the subnet's gateway", func(t *testing.T) {
		w := fresh(t)
		r, _ := w.state.Get(subnetKey("red", "web"))
		w.apply(gateways(with(subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64"), func(s *model.VirtualSubnet) { s.Spec.Gateway = nil }),
			"10.0.0.90", r.(*model.VirtualSubnet).Spec.Gateway[1].String()))
		w.learned("a", "[10.0.0.91]")
	})
	t.Run("unplugged", func(t *testing.T) {
		w := fresh(t)
		res, v := AdmitUnbinding(w.state, model.Ref{Tenant: "red", Name: "a"}, "h1")
		if len(v) > 0 {
			t.Fatal(v)
		}
		w.store(res)
		w.learned("a", "[]")
		if w.port("a").Host() != "h1" {
			t.Error("spec.host was forgotten, too")
		}
	})
	t.Run("deleted", func(t *testing.T) {
		w := fresh(t)
		w.change(nil, portKey("red", "a"))
		if r, ok := w.state.Lookup(5001, addrOf("10.0.0.90")); ok {
			t.Errorf("still found as %v", r)
		}
	})
}

func TestAnAnnouncedAddressMovesWhereTheSubnetIsFlooded(t *testing.T) {
	for flood, want := range map[model.Flood]string{model.FloodL2: "[] [10.0.0.90]", model.FloodL3: "[10.0.0.90] []"} {
		web := subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64")
		web.Spec.Flood = flood
		w := newWorld(t, append(base(), learner("red", "a", "web", 1), learner("red", "b", "web", 1), learner("red", "c", "web", 1))...)
		w.apply(web)
		w.learn("a", addrs("10.0.0.90"), nil)
		w.learn("c", addrs("10.0.0.91"), nil)
		ref := model.Ref{Tenant: "red", Name: "b"}
		seen := func(ca string, announced ...string) []Refusal {
			res, refused, v := AdmitLearned(w.state, ref, "h1", Seen{Used: addrs(ca), Announced: addrs(announced...)})
			if len(v) > 0 {
				t.Fatal(v)
			}
			w.store(res)
			return refused
		}
		if r := seen("10.0.0.90"); len(r) != 1 { // speaking from it is no announcement
			t.Errorf("%s: taken without an announcement", flood)
		}
		if r := seen("10.0.0.5", "10.0.0.5"); len(r) != 1 || r[0].Finding != model.FindingDuplicateAddress {
			t.Errorf("%s: what is written was taken: %v", flood, r)
		}
		seen("10.0.0.90", "10.0.0.90")
		if got := fmt.Sprint(w.port("a").Learned, w.port("b").Learned); got != want {
			t.Errorf("%s: learned %s, want %s", flood, got, want)
		}
		if flood == model.FloodL2 {
			if r := seen("10.0.0.91", "10.0.0.91"); len(r) != 1 || r[0].Finding != model.FindingAddressLimit {
				t.Errorf("the limit holds for what is taken, too: %v", r)
			}
		}
	}
}
