package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/store/etcdtest"
)

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openHere(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{DataDir: dir, Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func tenant(name string) *model.Tenant {
	return &model.Tenant{Metadata: model.Metadata{Name: name, Generation: 1}}
}

func port(i int) *model.Port {
	return &model.Port{ID: model.PortID(i + 1), Metadata: model.Metadata{Tenant: "red", Name: fmt.Sprintf("p-%d", i), Labels: map[string]string{"a": "b"}},
		Spec: model.PortSpec{Subnet: "web", MAC: model.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}}}
}

func commit(t *testing.T, s *Store, base int64, puts ...model.Resource) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), base, puts, nil, json.RawMessage(`{"port":7}`))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestWhatIsStoredComesBackAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := openHere(t, dir)
	puts := []model.Resource{tenant("red"), port(1),
		&model.Host{Metadata: model.Metadata{Name: "h1"}},
		&model.ProviderAddress{Metadata: model.Metadata{Name: "a"}, Spec: model.ProviderAddressSpec{Host: "h1", Address: netip.MustParseAddr("192.0.2.1")}},
		&model.VirtualNetwork{Metadata: model.Metadata{Tenant: "red", Name: "prod"}, Index: 3},
		&model.VirtualSubnet{Metadata: model.Metadata{Tenant: "red", Name: "web"}, Spec: model.VirtualSubnetSpec{VSID: 5001, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}},
		&model.CustomerRoute{Metadata: model.Metadata{Tenant: "red", Name: "r"}, Spec: model.CustomerRouteSpec{Prefix: netip.MustParsePrefix("0.0.0.0/0"), NextHop: netip.MustParseAddr("10.0.0.5")}},
		&model.LookupRecord{Metadata: model.Metadata{Tenant: "red", Name: "l"}, Spec: model.LookupRecordSpec{CustomerAddress: netip.MustParseAddr("10.0.0.9")}}}
	rev := commit(t, s, 0, puts...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	snap, err := openHere(t, dir).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if snap.Revision != rev || string(snap.Extra) != `{"port":7}` || len(snap.Resources) != len(puts) {
		t.Fatalf("revision %d, extra %s, %d resources; want %d, the cursor, %d", snap.Revision, snap.Extra, len(snap.Resources), rev, len(puts))
	}
	want := map[model.Key]model.Resource{}
	for _, r := range puts {
		r.Meta().Revision = rev
		want[model.KeyOf(r)] = r
	}
	for _, r := range snap.Resources {
		if d := cmp.Diff(want[model.KeyOf(r)], r, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("%s (-stored +loaded):\n%s", model.KeyOf(r), d)
		}
	}
}

func TestAnEmbeddedStoreListensNowhere(t *testing.T) {
	// Two of them in one process would clash on any fixed address.
	a, b := openHere(t, t.TempDir()), openHere(t, t.TempDir())
	commit(t, a, 0, tenant("red"))
	snap, err := b.Load(t.Context())
	if err != nil || len(snap.Resources) != 0 {
		t.Fatalf("the other store sees %d resources, %v", len(snap.Resources), err)
	}
	if n := len(a.embedded.Clients) + len(a.embedded.Peers); n != 0 {
		t.Fatalf("%d listeners", n)
	}
	info, err := os.Stat(filepath.Join(a.embedded.Config().Dir))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Fatalf("the data directory is open to others: %v, %v", info.Mode(), err)
	}
}

func TestADecisionOnAnOldRevisionIsNotStored(t *testing.T) {
	s := openHere(t, t.TempDir())
	rev := commit(t, s, 0, tenant("red"))
	if _, err := s.Commit(t.Context(), 0, []model.Resource{tenant("blue")}, nil, nil); !errors.Is(err, ErrConflict) {
		t.Fatalf("stale base: %v", err)
	}
	if _, err := s.Commit(t.Context(), rev, []model.Resource{tenant("red")}, nil, nil); !errors.Is(err, ErrConflict) {
		t.Fatalf("create of what exists: %v", err)
	}
	if _, err := s.Commit(t.Context(), rev, nil, []Deletion{{model.KeyOf(tenant("red")), rev - 1}}, nil); !errors.Is(err, ErrConflict) {
		t.Fatalf("delete of another revision: %v", err)
	}
	if _, err := s.Commit(t.Context(), rev, nil, []Deletion{{model.KeyOf(tenant("red")), rev}}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestOfManyWritersOnOneBaseExactlyOneIsStored(t *testing.T) {
	s := openHere(t, t.TempDir())
	base := commit(t, s, 0, tenant("red"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for i := range 16 {
		wg.Go(func() {
			_, err := s.Commit(t.Context(), base, []model.Resource{port(i)}, nil, json.RawMessage(`{}`))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				stored++
			} else if !errors.Is(err, ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if stored != 1 {
		t.Fatalf("%d were stored", stored)
	}
}

func TestALargeSetIsOneTransactionHere(t *testing.T) {
	s := openHere(t, t.TempDir())
	var puts []model.Resource
	for i := range 5000 { // more than two pages, far more than a plain cluster takes
		puts = append(puts, port(i))
	}
	rev := commit(t, s, 0, puts...)
	snap, err := s.Load(t.Context())
	if err != nil || len(snap.Resources) != len(puts) || snap.Revision != rev {
		t.Fatalf("%d resources at %d, %v", len(snap.Resources), snap.Revision, err)
	}
}

// follow collects changes and applies them to a map, as a server would.
type followed struct {
	mu        sync.Mutex
	cond      *sync.Cond
	resources map[model.Key]model.Resource
	snapshots int
	revision  int64
	storeErr  error
	lost      int
}

func follow(t *testing.T, s *Store) *followed {
	f := &followed{}
	f.cond = sync.NewCond(&f.mu)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Follow(ctx, f.apply, f.state)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *followed) apply(c Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.cond.Broadcast()
	if c.Snapshot {
		f.resources, f.snapshots = map[model.Key]model.Resource{}, f.snapshots+1
	}
	for _, r := range c.Puts {
		f.resources[model.KeyOf(r)] = r
	}
	for _, k := range c.Deletes {
		delete(f.resources, k)
	}
	f.revision = c.Revision
}

func (f *followed) state(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.cond.Broadcast()
	if err != nil {
		f.lost++
	}
	f.storeErr = err
}

func (f *followed) wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.revision = -1
		f.cond.Broadcast()
	})
	defer late.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !is() {
		if f.revision == -1 {
			t.Fatalf("waited too long for %s", what)
		}
		f.cond.Wait()
	}
}

func (f *followed) has(names ...string) func() bool {
	return func() bool {
		if len(f.resources) != len(names) {
			return false
		}
		for _, n := range names {
			if f.resources[model.KeyOf(tenant(n))] == nil {
				return false
			}
		}
		return true
	}
}

func openAt(t *testing.T, c *etcdtest.Cluster) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Endpoints: []string{c.Endpoint()}, Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFollowSeesEveryChangeOfTwoServersOnOneCluster(t *testing.T) {
	c := etcdtest.New(t)
	a, b := openAt(t, c), openAt(t, c)
	f := follow(t, a)
	f.wait(t, "the snapshot", func() bool { return f.snapshots == 1 })
	rev := commit(t, a, 0, tenant("red"))
	rev = commit(t, b, rev, tenant("blue"))
	f.wait(t, "both tenants", f.has("red", "blue"))
	if f.revision != rev {
		t.Fatalf("revision %d, want %d", f.revision, rev)
	}
	if _, err := a.Commit(t.Context(), rev, nil, []Deletion{{model.KeyOf(tenant("blue")), rev}}, nil); err != nil {
		t.Fatal(err)
	}
	f.wait(t, "the deletion", f.has("red"))
	if f.snapshots != 1 {
		t.Fatalf("%d snapshots", f.snapshots)
	}
}

func TestFollowGoesOnAfterTheClusterWasAway(t *testing.T) {
	c := etcdtest.New(t)
	a := openAt(t, c)
	f := follow(t, a)
	rev := commit(t, a, 0, tenant("red"))
	f.wait(t, "red", f.has("red"))
	c.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := a.Commit(ctx, rev, []model.Resource{tenant("lost")}, nil, nil); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("commit without a cluster: %v", err)
	}
	c.Start()
	commit(t, a, rev, tenant("blue"))
	f.wait(t, "blue", f.has("red", "blue"))
	if f.snapshots != 1 {
		t.Fatalf("started over (%d snapshots) though nothing was compacted", f.snapshots)
	}
}

func TestFollowStartsOverAfterCompaction(t *testing.T) {
	c := etcdtest.New(t)
	a := openAt(t, c)
	f := &followed{}
	f.cond = sync.NewCond(&f.mu)
	follower := &follower{store: a, apply: f.apply}
	if err := follower.snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	// While the follower is away, history goes on and is compacted.
	rev := commit(t, a, 0, tenant("red"), tenant("green"))
	if _, err := a.Commit(t.Context(), rev, nil, []Deletion{{model.KeyOf(tenant("green")), rev}}, nil); err != nil {
		t.Fatal(err)
	}
	rev++
	rev = commit(t, a, rev, tenant("blue"))
	if _, err := a.client.Compact(t.Context(), rev, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if err := follower.run(t.Context(), nil); !errors.Is(err, errStartOver) {
		t.Fatalf("run: %v", err)
	}
	follower.started = false
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go follower.run(ctx, nil)
	f.wait(t, "the second snapshot", func() bool { return f.snapshots == 2 && f.has("red", "blue")() })
}

func TestFollowStartsOverWhenTheStoreWentBack(t *testing.T) {
	c := etcdtest.New(t)
	a := openAt(t, c)
	f := follow(t, a)
	rev := commit(t, a, 0, tenant("red"))
	for i := range 20 {
		rev = commit(t, a, rev, tenant(fmt.Sprintf("t%d", i)))
	}
	f.wait(t, "all tenants", func() bool { return len(f.resources) == 21 })
	c.Stop()
	c.Wipe()
	c.Start()
	f.wait(t, "the older state", func() bool { return f.snapshots == 2 && len(f.resources) == 0 })
	commit(t, a, 0, tenant("anew"))
	f.wait(t, "the new tenant", f.has("anew"))
}

func TestATooLargeSetForAClusterSaysWhatToDo(t *testing.T) {
	c := etcdtest.New(t)
	s := openAt(t, c)
	var puts []model.Resource
	for i := range 300 {
		puts = append(puts, port(i))
	}
	_, err := s.Commit(t.Context(), 0, puts, nil, nil)
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "--max-txn-ops") {
		t.Fatalf("many operations: %v", err)
	}
	big := tenant("red")
	big.Spec.Description = strings.Repeat("x", 2<<20)
	_, err = s.Commit(t.Context(), 0, []model.Resource{big}, nil, nil)
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "--max-request-bytes") {
		t.Fatalf("many bytes: %v", err)
	}
	snap, err := s.Load(t.Context())
	if err != nil || len(snap.Resources) != 0 {
		t.Fatalf("half a set was stored: %d, %v", len(snap.Resources), err)
	}
}

func TestATokenIsTakenOnce(t *testing.T) {
	s := openHere(t, t.TempDir())
	if err := s.PutToken(t.Context(), "id", []byte("value"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Token(t.Context(), "id"); err != nil || string(v) != "value" {
		t.Fatalf("%q, %v", v, err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 8 {
		wg.Go(func() {
			err := s.TakeToken(t.Context(), "id")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				taken++
			} else if !errors.Is(err, ErrNoToken) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken != 1 {
		t.Fatalf("taken %d times", taken)
	}
	if _, err := s.Token(t.Context(), "id"); !errors.Is(err, ErrNoToken) {
		t.Fatalf("after it was taken: %v", err)
	}
}

func TestTokensAndStrangersDoNotDisturbPolicy(t *testing.T) {
	s := openHere(t, t.TempDir())
	f := follow(t, s)
	rev := commit(t, s, 0, tenant("red"))
	if err := s.PutToken(t.Context(), "id", []byte("value"), time.Hour); err != nil {
		t.Fatal(err)
	}
	// Somebody edits policy in etcd by hand; the next commit must still succeed.
	if _, err := s.client.Put(t.Context(), keyOf(model.KeyOf(tenant("hand"))), `{"metadata":{"name":"hand"},"spec":{}}`); err != nil {
		t.Fatal(err)
	}
	f.wait(t, "the edit", f.has("red", "hand"))
	if f.revision != rev {
		t.Fatalf("revision of policy is %d, want %d", f.revision, rev)
	}
	commit(t, s, rev, tenant("blue"))
	f.wait(t, "blue", f.has("red", "hand", "blue"))
}
