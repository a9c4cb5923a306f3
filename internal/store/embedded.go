package store

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Limits of the embedded etcd: a large set is one transaction.
const (
	maxTxnOps       = 65536
	maxRequestBytes = 128 << 20
	backendQuota    = 8 << 30
)

// openEmbedded starts etcd in this process without a listener of any kind: its one
// client calls it directly. So nothing can clash, and nobody else can connect.
func openEmbedded(ctx context.Context, cfg Config) (*Store, error) {
	dir := filepath.Join(cfg.DataDir, "etcd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded store: %w", err)
	}
	e, err := embed.StartEtcd(embeddedConfig(dir, cfg))
	if err != nil {
		return nil, fmt.Errorf("embedded store in %s: %w", dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("embedded store in %s: %w", dir, err)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("embedded store in %s did not become ready: %w", dir, ctx.Err())
	}
	return &Store{client: v3client.New(e.Server), embedded: e, where: "embedded", log: cfg.Logger}, nil
}

func embeddedConfig(dir string, cfg Config) *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = "weft", dir
	c.ListenClientUrls, c.ListenPeerUrls, c.AdvertiseClientUrls = nil, nil, nil
	// A cluster of one still needs an address to be known by; nobody listens there.
	self := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls = []url.URL{self}
	c.InitialCluster = c.Name + "=" + self.String()
	c.MaxTxnOps, c.MaxRequestBytes, c.QuotaBackendBytes = maxTxnOps, maxRequestBytes, backendQuota
	keep := cfg.Compaction
	if keep == 0 {
		keep = time.Hour
	}
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, keep.String()
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet(cfg.Logger))
	return c
}

// quiet passes etcd's errors on and keeps the rest, which tells operators nothing.
func quiet(log *slog.Logger) *zap.Logger {
	return zap.New(slogCore{log})
}

// slogCore is a zapcore.Core over slog.
type slogCore struct{ log *slog.Logger }

func (slogCore) Enabled(l zapcore.Level) bool        { return l >= zapcore.ErrorLevel }
func (c slogCore) With([]zapcore.Field) zapcore.Core { return c }
func (slogCore) Sync() error                         { return nil }
func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	c.log.Error("etcd: "+e.Message, "details", enc.Fields)
	return nil
}
