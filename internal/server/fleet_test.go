package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/store"
	"github.com/weft-sdn/weft/internal/store/etcdtest"
)

const patience = 60 * time.Second

// agent is the host's end of a session: it acknowledges everything, but for the
// failures that the test tells it to report.
type agent struct {
	stream *connect.BidiStreamForClient[hostv1.AgentMessage, hostv1.ServerMessage]
	cancel context.CancelFunc
	done   chan struct{}
}

// attach joins host, if it has not, and opens its session.
func attach(t *testing.T, r *running, h *identity.Host, facts *hostv1.Facts, fail ...*hostv1.Failure) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{stream: hostClient(r, h).Session(ctx), cancel: cancel, done: make(chan struct{})}
	t.Cleanup(func() { a.leave() })
	receiver := hostwire.NewReceiver(goal.New(), 0)
	digest := receiver.Digest()
	if err := a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Hello{Hello: &hostv1.Hello{
		Protocol: hostwire.Protocol, Version: "9.9", Instance: t.Name(), Digest: digest[:], Facts: facts}}}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(a.done)
		for {
			m, err := a.stream.Receive()
			if err != nil {
				return
			}
			if u := m.GetUpdate(); u != nil {
				if whole, err := receiver.Receive(u); err != nil {
					t.Errorf("update: %v", err)
				} else if whole {
					d := receiver.Digest()
					a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{Ack: &hostv1.Ack{Revision: receiver.Revision(), Digest: d[:], Failures: fail}}})
				}
			}
			if q := m.GetQuery(); q != nil {
				a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Answer{Answer: answerTo(q)}})
			}
		}
	}()
	return a
}

// leave ends the session. The request's body must end first: Go's client looks at
// the context only when it is not waiting for more of it.
func (a *agent) leave() {
	a.stream.CloseRequest()
	a.cancel()
	<-a.done
}

// answerTo makes up what a host says: two drops, one on the port asked for, and drift.
func answerTo(q *hostv1.Query) *hostv1.Answer {
	if q.GetHits() != nil {
		return &hostv1.Answer{Id: q.Id, Answer: &hostv1.Answer_Hits{Hits: hitsAnswer(q.GetHits())}}
	}
	if q.GetVerify() != nil {
		return &hostv1.Answer{Id: q.Id, Answer: &hostv1.Answer_Verify{Verify: &hostv1.VerifyAnswer{Revision: 7, Differences: []string{"- record"}}}}
	}
	return &hostv1.Answer{Id: q.Id, Answer: &hostv1.Answer_Drops{Drops: &hostv1.DropsAnswer{Rows: []*hostv1.DropRow{
		{Port: 1, Reason: uint32(model.VerdictPortDown), Inbound: true, Packets: 3, Bytes: 300},
		{Port: 4711, Reason: uint32(model.VerdictMulticast), Packets: 5, Bytes: 500}}}}}
}

// eventually polls a condition of the API with a deadline.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-tick.C
	}
}

func condition(s *weftv1.Status, kind string) *weftv1.Condition {
	for _, c := range s.GetConditions() {
		if c.Type == kind {
			return c
		}
	}
	return &weftv1.Condition{}
}

func facts(pas ...string) *hostv1.Facts {
	return &hostv1.Facts{ProviderAddresses: pas, UnderlayMtu: 1600, Kernel: "6.18", Decap: "eth0=tcx"}
}

func TestProgrammedIsTrueOnlyWhenEveryHostHasSaidSo(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	r.apply(t, portOf("red", "web-2", "web", "h2"))
	web1 := func() *weftv1.Status { return r.get(t, "Port", "red", "web-1").GetPort().Status }
	if c := condition(web1(), "Programmed"); c.Status != "False" || web1().Rollout.Current != 0 {
		t.Fatalf("before any host is there: %v", web1())
	}
	h1, h2 := joined(t, r, "h1"), joined(t, r, "h2")
	attach(t, r, h1, facts("192.0.2.1"))
	eventually(t, "h1 has it", func() bool { return web1().Rollout.Current == 1 })
	if c := condition(web1(), "Programmed"); c.Status != "False" || web1().Rollout.Desired != 2 {
		t.Fatalf("one of two: %v", web1())
	}
	second := attach(t, r, h2, facts("192.0.2.2"))
	eventually(t, "programmed", func() bool { return condition(web1(), "Programmed").Status == "True" })
	if s := web1(); s.Host != "h1" || s.Rollout.Current != 2 || condition(s, "Degraded").Status != "False" {
		t.Errorf("%v", s)
	}
	host := r.get(t, "Host", "", "h2").GetHost().Status
	if !host.Connected || host.AgentVersion != "9.9" || fmt.Sprint(host.ProviderAddresses) != "[192.0.2.2]" {
		t.Errorf("%v", host)
	}
	second.leave()
	eventually(t, "h2 is away", func() bool {
		return condition(r.get(t, "Host", "", "h2").GetHost().Status, "Degraded").Reason == reasonHostAway
	})
	second = attach(t, r, h2, facts("192.0.2.2"), &hostv1.Failure{Kind: "Port", Tenant: "red", Name: "web-2", Reason: "TableFull", Message: "no room"})
	eventually(t, "the failure shows", func() bool {
		s := r.get(t, "Port", "red", "web-2").GetPort().Status
		return condition(s, "Degraded").Status == "True" && strings.Contains(condition(s, "Degraded").Message, "no room") && condition(s, "Programmed").Status == "False"
	})
}

// A port that policy keeps on a host is programmed there before a device comes, and
// says so; a host is programmed when it has acknowledged; and both say since when.
func TestConditionsTellOfDevicesHostsAndTimes(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	before := time.Now()
	r.apply(t, world()...)
	host := func(name string) *weftv1.Status { return r.get(t, "Host", "", name).GetHost().Status }
	web1 := func() *weftv1.Status { return r.get(t, "Port", "red", "web-1").GetPort().Status }
	if c := condition(host("h1"), "Programmed"); c.Status != "False" || c.Reason != reasonHostAway {
		t.Errorf("a host that never came: %v", c)
	}
	a := attach(t, r, joined(t, r, "h1"), facts("192.0.2.1"))
	eventually(t, "h1 is programmed", func() bool { return condition(host("h1"), "Programmed").Status == "True" })
	eventually(t, "web-1 is programmed", func() bool { return condition(web1(), "Programmed").Status == "True" })
	if c := condition(host("h2"), "Programmed"); c.Status != "False" {
		t.Errorf("the other host: %v", c)
	}
	a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Devices{Devices: &hostv1.Devices{}}})
	eventually(t, "it is told that no device is plugged", func() bool {
		c := condition(web1(), "Programmed")
		return c.Status == "True" && c.Reason == reasonNotPlugged && strings.Contains(c.Message, "no device is plugged") && strings.Contains(c.Message, "weft plug red/web-1")
	})
	a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Devices{Devices: &hostv1.Devices{Ports: []uint32{web1().Index}}}})
	network := r.get(t, "VirtualNetwork", "red", "prod").GetVirtualNetwork().Status.Index
	a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Devices{Devices: &hostv1.Devices{Ports: []uint32{web1().Index}, Mtus: map[uint32]uint32{network: 1430}}}})
	eventually(t, "the guest's MTU shows", func() bool { return web1().Mtu == 1430 })
	eventually(t, "the device shows", func() bool { return condition(web1(), "Programmed").Reason == reasonAllHosts })

	changed := condition(web1(), "Programmed").GetChangedAt().AsTime()
	if changed.Before(before) || changed.After(time.Now()) {
		t.Errorf("Programmed since %s", changed)
	}
	degraded := condition(host("h1"), "Degraded").GetChangedAt().AsTime()
	a.leave()
	eventually(t, "h1 is away", func() bool { return condition(host("h1"), "Degraded").Status == "True" })
	if at := condition(host("h1"), "Degraded").GetChangedAt().AsTime(); !at.After(degraded) {
		t.Errorf("Degraded since %s, and it was not at %s", at, degraded)
	}
	if at := condition(web1(), "Programmed").GetChangedAt().AsTime(); !at.Equal(changed) {
		t.Errorf("Programmed since %s, now since %s", changed, at)
	}
}

// A restart of the server changes no condition: not in its first moments, when no host is back yet, nor when one is that
// says the same as before. What is otherwise is so since the restart, at the earliest.
func TestTimesOfConditionsOutliveTheServer(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	r.apply(t, world()...)
	programmed := func() *weftv1.Condition {
		return condition(r.get(t, "Port", "red", "web-1").GetPort().Status, "Programmed")
	}
	h1 := joined(t, r, "h1")
	attach(t, r, h1, facts("192.0.2.1"))
	eventually(t, "web-1 is programmed", func() bool { return programmed().Status == "True" })
	before := programmed().GetChangedAt().AsTime()
	accepted := condition(r.get(t, "Host", "", "h2").GetHost().Status, "Programmed").GetChangedAt().AsTime()
	r.stop(t)

	restarted := time.Now()
	r = start(t, dir, nil)
	if c := programmed(); c.Status != "True" && c.GetChangedAt().AsTime().Before(restarted) {
		t.Errorf("while its host is away: %v, restarted at %s", c, restarted)
	}
	attach(t, r, h1, facts("192.0.2.1"))
	eventually(t, "web-1 is programmed again", func() bool { return programmed().Status == "True" })
	if at := programmed().GetChangedAt().AsTime(); !at.Equal(before) {
		t.Errorf("Programmed since %s, was so since %s", at, before)
	}
	if at := condition(r.get(t, "Host", "", "h2").GetHost().Status, "Programmed").GetChangedAt().AsTime(); !at.Equal(accepted) {
		t.Errorf("h2 is not programmed since %s, was so since %s", at, accepted)
	}
}

// After the first moments, what an earlier server saw counts for nothing where it is otherwise now.
func TestOldConditionsGiveWay(t *testing.T) {
	path, key, began := filepath.Join(t.TempDir(), "conditions.json"), model.Key{Kind: model.KindHost, Ref: model.Ref{Name: "h1"}}, time.Unix(1_800_000_000, 0).UTC()
	at := func(c *changes, status string, now time.Time) time.Time {
		condition := &weftv1.Condition{Status: status}
		c.note(key, []*weftv1.Condition{condition}, now)
		return condition.GetChangedAt().AsTime()
	}
	first := &changes{}
	was := at(first, "True", began.Add(-time.Hour))
	if err := first.save(path); err != nil {
		t.Fatal(err)
	}
	next := &changes{}
	if err := next.load(path, began); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status string
		after  time.Duration
		want   time.Time
	}{
		{"False", time.Second, began}, {"True", 2 * time.Second, was}, {"False", 3 * time.Second, began},
		{"False", returnTime + time.Second, began}, {"True", returnTime + 2*time.Second, began.Add(returnTime + 2*time.Second)},
	} {
		if got := at(next, c.status, began.Add(c.after)); !got.Equal(c.want) {
			t.Errorf("%s after %s: since %s, want %s", c.status, c.after, got, c.want)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&changes{}).load(path, began); err == nil {
		t.Error("half a file was taken")
	}
}

func TestHostsSayTheirProviderAddresses(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	h1, h2 := joined(t, r, "h1"), joined(t, r, "h2")
	a := attach(t, r, h1, facts("192.0.2.1", "192.0.2.5"))
	pas := func() string {
		var out []string
		for _, p := range r.list(t, "ProviderAddress", "") {
			out = append(out, p.GetProviderAddress().Spec.Host+"="+p.GetProviderAddress().Spec.Address)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	eventually(t, "both addresses are there", func() bool { return pas() == "h1=192.0.2.1 h1=192.0.2.5" })
	// An address that goes from the host goes from policy; one that people wrote stays.
	r.apply(t, paOf("mine", "h1", "192.0.2.77"))
	a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Facts{Facts: facts("192.0.2.5")}})
	eventually(t, "192.0.2.1 is gone", func() bool { return pas() == "h1=192.0.2.5 h1=192.0.2.77" })
	// Another host cannot take it over.
	attach(t, r, h2, facts("192.0.2.5", "127.0.0.1"))
	eventually(t, "the contradiction shows", func() bool {
		c := condition(r.get(t, "Host", "", "h2").GetHost().Status, "Degraded")
		return c.Reason == reasonHostFacts && strings.Contains(c.Message, `host "h1"`) && strings.Contains(c.Message, "127.0.0.1")
	})
	if pas() != "h1=192.0.2.5 h1=192.0.2.77" {
		t.Error(pas())
	}
}

// What a host says of an address is shown, and decides whether others are told of it.
func TestUnusableAddressesAreHandedToNobody(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	h1, h2 := joined(t, r, "h1"), joined(t, r, "h2")
	says := func(states ...string) *hostv1.Facts {
		f := facts("192.0.2.1", "192.0.2.5")
		for i, s := range states {
			a := &hostv1.AddressState{Address: f.ProviderAddresses[i], State: s}
			if s == "Duplicate" {
				a.Owner = "02:00:00:00:00:99"
			}
			f.Addresses = append(f.Addresses, a)
		}
		return f
	}
	a := attach(t, r, h1, says("Preferred", "Tentative"))
	attach(t, r, h2, facts("192.0.2.2"))
	shown := func(name string) *weftv1.Status {
		return r.get(t, "ProviderAddress", "", name).GetProviderAddress().GetStatus()
	}
	eventually(t, "both states are shown", func() bool {
		return len(r.list(t, "ProviderAddress", "")) == 3 && shown("h1-192-0-2-1").AddressState == "Preferred" && shown("h1-192-0-2-5").AddressState == "Tentative" &&
			condition(shown("h1-192-0-2-5"), "Degraded").Reason == reasonUnusable
	})
	a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Facts{Facts: says("Duplicate", "Preferred")}})
	eventually(t, "the duplicate is shown, with who has it", func() bool {
		s := shown("h1-192-0-2-1")
		c := condition(s, "Degraded")
		return s.AddressState == "Duplicate" && s.DuplicateOwner == "02:00:00:00:00:99" && c.Reason == reasonDuplicate && strings.Contains(c.Message, "02:00:00:00:00:99")
	})
	if c := condition(r.get(t, "Host", "", "h1").GetHost().Status, "Degraded"); c.Reason != reasonDuplicate {
		t.Errorf("the host: %v", c)
	}
	// What people write meanwhile changes nothing of that, and what they add waits for the host's word.
	r.apply(t, paOf("h1-192-0-2-1", "h1", "192.0.2.1"), paOf("mine", "h1", "192.0.2.77"))
	if s := shown("h1-192-0-2-1").AddressState; s != "Duplicate" {
		t.Errorf("after an apply it is %q", s)
	}
	if s := shown("mine").AddressState; s != "Tentative" {
		t.Errorf("an address that no agent has looked at is %q", s)
	}
	a.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Facts{Facts: says("Preferred", "Nonsense")}})
	eventually(t, "a state that is none shows as a contradiction, and the other counts", func() bool {
		return shown("h1-192-0-2-1").AddressState == "Preferred" && shown("h1-192-0-2-5").AddressState == "Preferred" &&
			strings.Contains(condition(r.get(t, "Host", "", "h1").GetHost().Status, "Degraded").Message, "Nonsense")
	})
}

// watcher collects what a watch sends.
type watcher struct {
	t      *testing.T
	stream *connect.ServerStreamForClient[weftv1.WatchResponse]
}

func (r *running) watch(t *testing.T, kind string, from int64) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s, err := r.Watch(ctx, connect.NewRequest(&weftv1.WatchRequest{Kind: kind, FromRevision: from}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &watcher{t, s}
}

func (w *watcher) next() *weftv1.WatchResponse {
	w.t.Helper()
	if !w.stream.Receive() {
		w.t.Fatalf("watch ended: %v", w.stream.Err())
	}
	return w.stream.Msg()
}

// line reads "PUT Tenant red".
func line(m *weftv1.WatchResponse) string {
	s := m.Type.String()
	if m.Key != nil {
		s += " " + m.Key.Kind + " " + strings.TrimPrefix(m.Key.Tenant+"/"+m.Key.Name, "/")
	}
	return s
}

func (w *watcher) expect(lines ...string) *weftv1.WatchResponse {
	w.t.Helper()
	var m *weftv1.WatchResponse
	for _, want := range lines {
		if m = w.next(); line(m) != want {
			w.t.Fatalf("got %q, want %q", line(m), want)
		}
	}
	return m
}

func TestAWatchResumesWhereItStoppedOrStartsOver(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	r.apply(t, tenant("red"), tenant("blue"))
	w := r.watch(t, "Tenant", 0)
	at := w.expect("SNAPSHOT_BEGIN", "PUT Tenant blue", "PUT Tenant red", "SYNCED").Revision
	r.apply(t, tenant("green"))
	w.expect("PUT Tenant green")
	r.apply(t, hostNamed("h1")) // not watched
	r.Delete(t.Context(), connect.NewRequest(&weftv1.DeleteRequest{Items: []*weftv1.DeleteRequest_Item{{Key: &weftv1.Key{Kind: "Tenant", Name: "blue"}}}}))
	last := w.expect("DELETED Tenant blue").Revision

	r.watch(t, "Tenant", at).expect("PUT Tenant green", "DELETED Tenant blue", "SYNCED")
	r.watch(t, "Tenant", last).expect("SYNCED")
	r.watch(t, "Tenant", last+100).expect("SNAPSHOT_BEGIN", "PUT Tenant green", "PUT Tenant red", "SYNCED")
	r.stop(t)
	r = start(t, dir, nil) // which remembers no history
	r.watch(t, "Tenant", at).expect("SNAPSHOT_BEGIN", "PUT Tenant green", "PUT Tenant red", "SYNCED")
	r.watch(t, "Tenant", last).expect("SYNCED")
}

func TestAWatchSeesDerivedRecordsAndStatus(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	records := r.watch(t, "LookupRecord", 0)
	for records.next().Type != weftv1.WatchResponse_SYNCED {
	}
	// Changes of status come in between, of other records as well.
	until := func(pa string) {
		for {
			m := records.next()
			if m.GetKey().GetName() == "port:web-3:10.0.0.30" && m.Resource.GetLookupRecord().Spec.ProviderAddress == pa {
				return
			}
		}
	}
	r.apply(t, portOf("red", "web-3", "web", "h2", "10.0.0.30"))
	until("192.0.2.2")
	r.apply(t, paOf("pa2", "h2", "192.0.2.22"))
	until("192.0.2.22")
	ports := r.watch(t, "Port", 0)
	for ports.next().Type != weftv1.WatchResponse_SYNCED {
	}
	attach(t, r, joined(t, r, "h1"), facts("192.0.2.1"))
	attach(t, r, joined(t, r, "h2"), facts("192.0.2.22"))
	for {
		m := ports.next()
		if m.GetKey().GetName() == "web-1" && condition(m.Resource.GetPort().Status, "Programmed").Status == "True" {
			return
		}
	}
}

func TestHistoryIsBoundedAndNeverCutsARevision(t *testing.T) {
	var h history
	h.reset(10)
	for rev := int64(11); rev < 11+maxHistory; rev++ {
		h.add(event{revision: rev}, event{revision: rev}, event{revision: rev})
	}
	if len(h.events) > 2*maxHistory+3 {
		t.Fatalf("%d events", len(h.events))
	}
	if _, ok := h.since(h.floor - 1); ok {
		t.Error("claims to know what it forgot")
	}
	events, ok := h.since(h.floor)
	if !ok || len(events)%3 != 0 || events[0].revision != h.floor+1 {
		t.Errorf("%v, %d events from %d, floor %d", ok, len(events), events[0].revision, h.floor)
	}
}

func TestLookup(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	r.apply(t, &weftv1.Resource{Kind: &weftv1.Resource_LookupRecord{LookupRecord: &weftv1.LookupRecord{Metadata: &weftv1.Metadata{Tenant: "red", Name: "box"},
		Spec: &weftv1.LookupRecordSpec{Subnet: "web", CustomerAddress: "10.0.0.99", Mac: "02:00:00:00:00:99", ProviderAddress: "198.51.100.9"}}}})
	look := func(vsid uint32, ca string) (*weftv1.LookupResponse, error) {
		res, err := r.operate.Lookup(t.Context(), connect.NewRequest(&weftv1.LookupRequest{Vsid: vsid, Ca: ca}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	if l, err := look(4096, "10.0.0.5"); err != nil || l.Kind != "port" || l.Port != "red/web-1" || l.Host != "h1" || l.Pa != "192.0.2.1" {
		t.Errorf("%v %v", l, err)
	}
	if l, err := look(4096, "fd00:a::1"); err != nil || l.Kind != "router" || l.Mac != model.RouterMAC(4096).String() {
		t.Errorf("%v %v", l, err)
	}
	if l, err := look(4096, "10.0.0.99"); err != nil || l.Kind != "static" || l.Pa != "198.51.100.9" {
		t.Errorf("%v %v", l, err)
	}
	for _, bad := range []struct {
		vsid uint32
		ca   string
		code connect.Code
	}{{4096, "10.0.0.200", connect.CodeNotFound}, {4099, "10.0.0.5", connect.CodeNotFound}, {4096, "x", connect.CodeInvalidArgument}} {
		if _, err := look(bad.vsid, bad.ca); connect.CodeOf(err) != bad.code {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestHostsAreAskedAndWhoIsAwayIsNamed(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	attach(t, r, joined(t, r, "h1"), facts("192.0.2.1"))
	eventually(t, "h1 is connected", func() bool { return r.get(t, "Host", "", "h1").GetHost().Status.Connected })
	drops := func(host, port string) *weftv1.DropsResponse {
		t.Helper()
		res, err := r.operate.Drops(t.Context(), connect.NewRequest(&weftv1.DropsRequest{Host: host, Port: port}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	all := drops("", "")
	if len(all.Drops) != 2 || fmt.Sprint(all.UnreachableHosts) != "[h2]" {
		t.Fatalf("%v", all)
	}
	id := r.get(t, "Port", "red", "web-1").GetPort().Status.Index
	for _, d := range all.Drops {
		switch d.ReasonName {
		case "PORT_DOWN":
			if d.Direction != "inbound" || d.Stage != "lookup" || (id == 1) != (d.Port == "red/web-1") {
				t.Errorf("%v", d)
			}
		case "MULTICAST":
			if d.Port != "deleted port 4711" || d.Direction != "outbound" {
				t.Errorf("%v", d)
			}
		}
	}
	if one := drops("", "red/web-1"); len(one.UnreachableHosts) != 0 {
		t.Errorf("asked others than the port's host: %v", one)
	}
	if _, err := r.operate.Drops(t.Context(), connect.NewRequest(&weftv1.DropsRequest{Host: "h9"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}
	v, err := r.operate.Verify(t.Context(), connect.NewRequest(&weftv1.VerifyRequest{}))
	if err != nil || len(v.Msg.Hosts) != 2 || !v.Msg.Hosts[0].Reachable || v.Msg.Hosts[0].Differences[0] != "- record" || v.Msg.Hosts[1].Reachable || len(v.Msg.Hosts[1].Differences) == 0 {
		t.Errorf("%v %v", v, err)
	}
	s, err := r.operate.FleetStatus(t.Context(), connect.NewRequest(&weftv1.FleetStatusRequest{}))
	if err != nil || len(s.Msg.Hosts) != 2 || !s.Msg.Hosts[0].Connected || s.Msg.Hosts[1].Connected || s.Msg.Store != "embedded (healthy)" || s.Msg.Hosts[0].Decap != "eth0=tcx" {
		t.Errorf("%v %v", s, err)
	}
}

func TestWithoutTheStoreHostsAreServedAndWritesRefused(t *testing.T) {
	e := etcdtest.New(t)
	r := start(t, t.TempDir(), func(c *Config) { c.Store.Endpoints = []string{e.Endpoint()} })
	r.apply(t, world()...)
	h1, h2 := joined(t, r, "h1"), joined(t, r, "h2")
	attach(t, r, h1, facts("192.0.2.1"))
	e.Stop()
	status := func() string {
		s, err := r.operate.FleetStatus(t.Context(), connect.NewRequest(&weftv1.FleetStatusRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return s.Msg.Store
	}
	eventually(t, "the loss is seen", func() bool { return strings.Contains(status(), "unavailable") })
	_, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: []*weftv1.Resource{tenant("late")}}))
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("write: %v", err)
	}
	// A host that comes now gets its Goal from memory; reads answer as well.
	attach(t, r, h2, facts("192.0.2.2"))
	eventually(t, "h2 is served", func() bool { return r.get(t, "Host", "", "h2").GetHost().Status.Connected })
	e.Start()
	eventually(t, "writes are taken again", func() bool {
		_, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: []*weftv1.Resource{tenant("late")}}))
		return err == nil
	})
	r.get(t, "Tenant", "", "late")
}

func TestAServerWaitsForAClusterThatIsAwayAtItsStart(t *testing.T) {
	e := etcdtest.New(t)
	e.Stop()
	dir := t.TempDir()
	cfg, _ := ParseConfig(nil)
	cfg.DataDir, cfg.Socket, cfg.Metrics, cfg.Listen = dir, filepath.Join(dir, "s.sock"), "", ListenConfig{}
	cfg.Store.Endpoints = []string{e.Endpoint()}
	ready, done := make(chan Addresses, 1), make(chan error, 1)
	cfg.Ready = func(a Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- Run(ctx, cfg, slog.New(slog.DiscardHandler)) }()
	c := weftv1connect.NewPolicyServiceClient(unixClient(cfg.Socket), "http://weft")
	eventually(t, "it says that it has nothing to say", func() bool {
		_, err := c.List(t.Context(), connect.NewRequest(&weftv1.ListRequest{Kind: "Tenant"}))
		return connect.CodeOf(err) == connect.CodeUnavailable && strings.Contains(err.Error(), "has not read policy")
	})
	select {
	case <-ready:
		t.Fatal("ready without policy")
	default:
	}
	e.Start()
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("not ready though the cluster is there")
	}
	if _, err := c.List(t.Context(), connect.NewRequest(&weftv1.ListRequest{Kind: "Tenant"})); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAClusterWithMutualTLS(t *testing.T) {
	e, files := etcdtest.NewTLS(t)
	r := start(t, t.TempDir(), func(c *Config) {
		c.Store.Endpoints = []string{e.Endpoint()}
		c.Store.TLS = StoreTLSConfig{CA: files.CA, Certificate: files.Certificate, Key: files.Key}
	})
	r.apply(t, world()...)
	if n := len(r.list(t, "Port", "red")); n != 2 {
		t.Errorf("%d ports", n)
	}
	// Without a certificate, etcd refuses, and the store is away for us.
	cfg := StoreConfig{TLS: StoreTLSConfig{CA: files.CA}}
	settings, err := cfg.tls()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Endpoints: []string{e.Endpoint()}, TLS: settings})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := s.Load(ctx); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestTwoServersOnOneClusterAgree(t *testing.T) {
	e := etcdtest.New(t)
	shared := t.TempDir()
	if _, err := identity.OpenAuthority(filepath.Join(shared, "ca")); err != nil {
		t.Fatal(err)
	}
	use := func(c *Config) {
		c.Store.Endpoints = []string{e.Endpoint()}
		c.Authority = AuthorityConfig{filepath.Join(shared, "ca", "ca.crt"), filepath.Join(shared, "ca", "ca.key")}
	}
	a, b := start(t, t.TempDir(), use), start(t, t.TempDir(), use)
	a.apply(t, world()...)
	done := make(chan error, 20)
	for i := range 20 {
		r := []*running{a, b}[i%2]
		go func() {
			_, err := r.Apply(context.Background(), connect.NewRequest(&weftv1.ApplyRequest{Resources: []*weftv1.Resource{portOf("red", fmt.Sprintf("x-%d", i), "web", "")}}))
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "both have all ports", func() bool { return len(a.list(t, "Port", "red")) == 22 && len(b.list(t, "Port", "red")) == 22 })
	seen := map[string]bool{}
	for _, p := range b.list(t, "Port", "red") {
		ca := p.GetPort().Spec.Addresses[0]
		if seen[ca] || seen[fmt.Sprint(p.GetPort().Status.Index)] {
			t.Errorf("%s or its id was given out twice", ca)
		}
		seen[ca], seen[fmt.Sprint(p.GetPort().Status.Index)] = true, true
	}
	// A token made at one lets a host in at the other, and only once.
	h, _ := identity.OpenHost(t.TempDir())
	text := a.token(t, "h5")
	eventually(t, "the host is known at both", func() bool { return len(b.list(t, "Host", "")) == 3 })
	if err := join(t, b, h, text); err != nil {
		t.Fatal(err)
	}
	if err := join(t, a, h, text); err == nil {
		t.Error("the token was good twice")
	}
}

func TestSettings(t *testing.T) {
	if _, err := ParseConfig([]byte(DefaultConfig())); err != nil {
		t.Fatalf("the default does not parse: %v", err)
	}
	for text, want := range map[string]string{
		"fleet: {vxlanPort: 0}":                          "fleet.vxlanPort",
		"fleet: {vxlanPort: 65536}":                      "65536",
		"fleet: {dscp: 64}":                              "fleet.dscp",
		"fleet: {dscp: pipe}":                            "fleet.dscp",
		"dataDri: /x":                                    "dataDri",
		"listen: {api: nonsense}":                        "listen.api",
		"authority: {key: /x}":                           "go together",
		"store: {username: u}":                           "need endpoints",
		"{socket: \"\", listen: {api: \"\"}}":            "one of them is needed",
		"dataDir: \"\"":                                  "dataDir",
		"socket: /a\n---\nsocket: /b":                    "more than one document",
		"store: {endpoints: [a], tls: {certificate: x}}": "store.tls",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]goal.Settings{"": {VXLANPort: 4789}, "fleet: {vxlanPort: 8472, dscp: 0}": {VXLANPort: 8472, Pipe: true}, "fleet: {dscp: 46}": {VXLANPort: 4789, Pipe: true, DSCP: 46}} {
		if c, err := ParseConfig([]byte(text)); err != nil || c.Fleet.settings() != want {
			t.Errorf("%q: %+v, %v", text, c.Fleet.settings(), err)
		}
	}
	c, err := ParseConfig([]byte("socket: /a\nlisten: {api: \":1\"}"))
	if err != nil || c.Socket != "/a" || c.Listen.API != ":1" || c.Listen.Hosts == "" || c.DataDir == "" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestAnAddressThatIsTakenIsAnErrorAtOnceAndLeavesNothingOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg, _ := ParseConfig(nil)
	dir := t.TempDir()
	cfg.DataDir, cfg.Socket, cfg.Metrics = dir, filepath.Join(dir, "s.sock"), l.Addr().String()
	cfg.Listen = ListenConfig{API: "127.0.0.1:0"}
	if err := Run(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Fatalf("%v", err)
	}
	if c, err := net.Dial("unix", cfg.Socket); err == nil {
		c.Close()
		t.Error("the socket is still open")
	}
}
