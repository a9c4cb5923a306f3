// Package store keeps policy in etcd: embedded in this process, or an existing
// cluster. It is the only etcd client in weft.
//
// Invariants: a set is stored in one transaction or not at all. Every transaction
// compares and rewrites one serial key, so the revision of that key is the revision
// of policy, changes have one order, and a decision taken on an old revision can
// not be stored. What is read at a revision is what was stored at it.
// It must never judge policy (package intent does) nor know of hosts.
package store

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/weft-sdn/weft/internal/model"
)

// Config says where policy is kept: in DataDir by an embedded etcd, or, when there
// are Endpoints, in that cluster.
type Config struct {
	DataDir   string
	Endpoints []string
	TLS       *tls.Config
	Username  string
	Password  string
	Logger    *slog.Logger
	// Compaction is how long old revisions are kept by the embedded etcd; 0 is an hour.
	Compaction time.Duration
}

// Keys. Names are DNS labels, so a slash separates.
const (
	prefix       = "/weft/v1/"
	serialKey    = "/weft/serial"
	tokenPrefix  = "/weft/token/"
	pageSize     = 2000
	callTimeout  = 10 * time.Second
	startTimeout = 60 * time.Second
)

// Store is an open store.
type Store struct {
	client   *clientv3.Client
	embedded *embed.Etcd
	where    string
	log      *slog.Logger
	close    func() error
}

// Errors that callers act on.
var (
	ErrConflict    = errors.New("policy was changed by somebody else in the meantime")
	ErrUnavailable = errors.New("the store is unavailable")
	ErrTooLarge    = errors.New("the set is larger than the etcd cluster takes in one transaction")
	ErrNoToken     = errors.New("no such token")
)

// Open opens the store; with an embedded etcd, it waits until that serves.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.close = sync.OnceValue(s.end)
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Store, error) {
	switch {
	case len(cfg.Endpoints) > 0:
		return openCluster(cfg)
	case cfg.DataDir != "":
		return openEmbedded(ctx, cfg)
	}
	return nil, errors.New("store: neither a data directory nor endpoints are given")
}

// Close ends the client and, if embedded, etcd. It may be called twice.
func (s *Store) Close() error { return s.close() }

func (s *Store) end() error {
	err := s.client.Close()
	if s.embedded != nil {
		s.embedded.Close()
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Where says what the store is, for people: "embedded", or the endpoints.
func (s *Store) Where() string { return s.where }

// Snapshot is all of policy at one revision. Extra is what the last Commit said to
// keep beside it.
type Snapshot struct {
	Resources []model.Resource
	Extra     json.RawMessage
	Revision  int64 // of policy; 0 when nothing was ever stored

	etcd int64 // revision of etcd, to watch from
}

// Load reads all of policy at one revision, in pages.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) {
	first, err := s.get(ctx, serialKey)
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	snap := &Snapshot{etcd: first.Header.Revision}
	for _, kv := range first.Kvs {
		snap.Revision, snap.Extra = kv.ModRevision, kv.Value
	}
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		page, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(snap.etcd), clientv3.WithLimit(pageSize))
		if err != nil {
			return nil, fmt.Errorf("load policy: %w", err)
		}
		for _, kv := range page.Kvs {
			r, err := decode(string(kv.Key), kv.Value, kv.ModRevision)
			if err != nil {
				return nil, fmt.Errorf("load policy: %w", err)
			}
			snap.Resources = append(snap.Resources, r)
		}
		if !page.More {
			return snap, nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.client.Get(ctx, key, opts...)
	return res, explain(err)
}

// Commit stores a set that was decided on at policy revision base, and returns the
// revision that the set has. The resources' own revisions must be those that the
// decision saw; extra is kept beside policy. ErrConflict when policy is not at base
// any more, ErrTooLarge when the cluster's limits are in the way, ErrUnavailable
// when the store cannot be reached: whether the set was stored is then not known
// until policy is read again.
func (s *Store) Commit(ctx context.Context, base int64, puts []model.Resource, deletes []Deletion, extra json.RawMessage) (int64, error) {
	ifs := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(serialKey), "=", base)}
	thens := []clientv3.Op{clientv3.OpPut(serialKey, string(extra))}
	for _, r := range puts {
		value, err := encode(r)
		if err != nil {
			return 0, err
		}
		k := keyOf(model.KeyOf(r))
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(k), "=", r.Meta().Revision))
		thens = append(thens, clientv3.OpPut(k, value))
	}
	for _, d := range deletes {
		k := keyOf(d.Key)
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(k), "=", d.Revision))
		thens = append(thens, clientv3.OpDelete(k))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.client.Txn(ctx).If(ifs...).Then(thens...).Commit()
	if err != nil {
		return 0, fmt.Errorf("store %d resources: %w", len(thens)-1, explain(err))
	}
	if !res.Succeeded {
		return 0, ErrConflict
	}
	return res.Header.Revision, nil
}

// Deletion of the resource Key that the decision saw at Revision.
type Deletion struct {
	model.Key
	Revision int64
}

func keyOf(k model.Key) string {
	if k.Kind.Tenanted() {
		return prefix + string(k.Kind) + "/" + k.Tenant + "/" + k.Name
	}
	return prefix + string(k.Kind) + "/" + k.Name
}

func parseKey(key string) (model.Key, error) {
	parts := strings.Split(strings.TrimPrefix(key, prefix), "/")
	kind := model.Kind(parts[0])
	switch {
	case kind.Tenanted() && len(parts) == 3:
		return model.Key{Kind: kind, Ref: model.Ref{Tenant: parts[1], Name: parts[2]}}, nil
	case !kind.Tenanted() && len(parts) == 2:
		return model.Key{Kind: kind, Ref: model.Ref{Name: parts[1]}}, nil
	}
	return model.Key{}, fmt.Errorf("key %q is not one of weft's", key)
}

// encode leaves the revision out: etcd keeps it.
func encode(r model.Resource) (string, error) {
	m := r.Meta()
	revision := m.Revision
	m.Revision = 0
	b, err := json.Marshal(r)
	m.Revision = revision
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", model.KeyOf(r), err)
	}
	return string(b), nil
}

func decode(key string, value []byte, revision int64) (model.Resource, error) {
	k, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	r := newResource(k.Kind)
	if r == nil {
		return nil, fmt.Errorf("key %q: this version does not know the kind", key)
	}
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("key %q: %w", key, err)
	}
	if model.KeyOf(r) != k {
		return nil, fmt.Errorf("key %q holds %s", key, model.KeyOf(r))
	}
	r.Meta().Revision = revision
	return r, nil
}

func newResource(k model.Kind) model.Resource {
	switch k {
	case model.KindTenant:
		return &model.Tenant{}
	case model.KindHost:
		return &model.Host{}
	case model.KindProviderAddress:
		return &model.ProviderAddress{}
	case model.KindProviderRoute:
		return &model.ProviderRoute{}
	case model.KindVirtualNetwork:
		return &model.VirtualNetwork{}
	case model.KindVirtualSubnet:
		return &model.VirtualSubnet{}
	case model.KindAddressGroup:
		return &model.AddressGroup{}
	case model.KindAccessList:
		return &model.AccessList{}
	case model.KindExternalNetwork:
		return &model.ExternalNetwork{}
	case model.KindPortProfile:
		return &model.PortProfile{}
	case model.KindPort:
		return &model.Port{}
	case model.KindCustomerRoute:
		return &model.CustomerRoute{}
	case model.KindLookupRecord:
		return &model.LookupRecord{}
	}
	return nil
}
