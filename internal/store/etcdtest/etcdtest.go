// Package etcdtest runs an etcd for tests: a real one, on a Unix socket, that the
// test can stop, start again and set back.
//
// Invariants: it clashes with nothing on the machine and is gone with the test. It
// must never be linked into a program.
package etcdtest

import (
	"net/url"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Cluster is an etcd of one member with the limits of a plain installation.
type Cluster struct {
	t    testing.TB
	dir  string
	addr url.URL
	etcd *embed.Etcd
}

// New starts an etcd that ends with the test.
func New(t testing.TB) *Cluster {
	c := &Cluster{t: t, dir: t.TempDir(), addr: url.URL{Scheme: "unix", Path: filepath.Join(t.TempDir(), "etcd.sock")}}
	c.Start()
	t.Cleanup(c.Stop)
	return c
}

// Endpoint is what clients connect to.
func (c *Cluster) Endpoint() string { return c.addr.String() }

// Start starts it again after Stop, with the data that it had.
func (c *Cluster) Start() {
	c.t.Helper()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "test", c.dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{c.addr}, []url.URL{c.addr}
	self := url.URL{Scheme: "http", Host: "127.0.0.1:1"} // nobody listens there
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{self}
	cfg.InitialCluster = cfg.Name + "=" + self.String()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		c.t.Fatalf("start etcd: %v", err)
	}
	<-e.Server.ReadyNotify()
	c.etcd = e
}

// Stop cuts all clients off. It may be called twice.
func (c *Cluster) Stop() {
	if c.etcd != nil {
		c.etcd.Close()
		c.etcd = nil
	}
}

// Wipe makes the next Start begin with nothing, as after restoring an old backup.
func (c *Cluster) Wipe() { c.dir = c.t.TempDir() }
