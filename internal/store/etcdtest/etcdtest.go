// Package etcdtest runs an etcd for tests: a real one, on a Unix socket or with
// mutual TLS, that the test can stop, start again and set back.
//
// Invariants: it clashes with nothing on the machine and is gone with the test. It
// must never be linked into a program.
package etcdtest

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Cluster is an etcd of one member with the limits of a plain installation.
type Cluster struct {
	t    testing.TB
	dir  string
	addr url.URL
	tls  *Files // nil: plain
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
	e, err := start(c.dir, c.addr, c.tls)
	if err != nil {
		c.t.Fatalf("start etcd: %v", err)
	}
	c.etcd = e
}

func start(dir string, addr url.URL, tls *Files) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "test", dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{addr}, []url.URL{addr}
	self := url.URL{Scheme: "http", Host: "127.0.0.1:1"} // nobody listens there
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{self}
	cfg.InitialCluster = cfg.Name + "=" + self.String()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	if tls != nil {
		cfg.ClientTLSInfo = transport.TLSInfo{TrustedCAFile: tls.CA, CertFile: tls.Certificate, KeyFile: tls.Key, ClientCertAuth: true}
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	<-e.Server.ReadyNotify()
	return e, nil
}

// Serve is an etcd for a process of its own, which a test can kill: with its data
// in dir, on the socket etcd.sock there. It returns when the etcd fails.
func Serve(dir string) error {
	addr := At(dir)
	// A killed etcd leaves its socket behind.
	if err := os.Remove(addr.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	e, err := start(filepath.Join(dir, "data"), addr, nil)
	if err != nil {
		return err
	}
	return <-e.Err()
}

// At is what clients of Serve connect to.
func At(dir string) url.URL { return url.URL{Scheme: "unix", Path: filepath.Join(dir, "etcd.sock")} }

// Stop cuts all clients off. It may be called twice.
func (c *Cluster) Stop() {
	if c.etcd != nil {
		c.etcd.Close()
		c.etcd = nil
	}
}

// Wipe makes the next Start begin with nothing, as after restoring an old backup.
func (c *Cluster) Wipe() { c.dir = c.t.TempDir() }
