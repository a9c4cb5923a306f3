// Package server is the role that people and hosts talk to: it admits and stores
// policy, tells hosts through package dist, and says how far they are.
//
// Invariants: nothing is answered as stored that the store has not taken, nor as
// programmed that not every host concerned has acknowledged. Policy moves only by
// what comes back from the store. Without the store, hosts are served from memory
// and writes are refused. Nobody is answered before they proved who they are.
// It must never touch a kernel's network, and never decide what a rule of policy
// is: package intent does.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/dist"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server/convert"
	"github.com/weft-sdn/weft/internal/store"
)

// Server is a running server.
type Server struct {
	log        *slog.Logger
	version    string
	authority  *identity.Authority
	authorizer identity.Authorizer
	policy     *policy
	dist       *dist.Distributor
	problems   factProblems
	changes    changes

	changesFile string // where they outlive the server
	captures    room
	metrics     *metrics
	closing     context.Context // ends when streams must
}

// Bounds of what clients may do.
const (
	maxMessage      = 64 << 20
	headerTimeout   = 10 * time.Second
	idleTimeout     = 5 * time.Minute
	pingAfter       = 15 * time.Second
	pingTimeout     = 10 * time.Second
	shutdownTimeout = 5 * time.Second
)

// Run serves until ctx ends. It fails at once where the settings, the files or the
// addresses are at fault; a cluster that cannot be reached is waited for.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	authority, err := cfg.authority()
	if err != nil {
		return err
	}
	st, err := openStore(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer st.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &Server{log: log, version: cfg.Version, authority: authority, authorizer: identity.AdminsMayAll{},
		problems: factProblems{hosts: map[string][]string{}}, metrics: newMetrics(), closing: ctx}
	s.dist = dist.New(dist.Config{Logger: log, Version: cfg.Version, Settings: cfg.Fleet.settings(), Host: identity.HostFromRequest,
		Join: s.join, Renew: s.renew, Bind: s.bind, Unbind: s.unbind, Learn: s.learn, Facts: s.takeFacts})
	s.policy = newPolicy(st, s.dist, log, s.metrics)
	s.metrics.observe(s)
	s.changesFile = filepath.Join(cfg.DataDir, "conditions.json")
	if err := s.changes.load(s.changesFile, time.Now()); err != nil {
		log.Warn("since when conditions are as they are begins anew", "error", err)
	}

	faces, addrs, err := s.listen(cfg)
	if err != nil {
		return err
	}
	if err := writeAdmin(cfg, authority, addrs); err != nil {
		closeAll(faces)
		return err
	}
	return s.serve(ctx, cancel, faces, func() {
		log.Info("server ready", "api", addrs.API, "hosts", addrs.Hosts, "socket", addrs.Socket, "metrics", addrs.Metrics, "store", st.Where())
		if cfg.Ready != nil {
			cfg.Ready(addrs)
		}
	})
}

func openStore(ctx context.Context, cfg Config, log *slog.Logger) (*store.Store, error) {
	t, err := cfg.Store.tls()
	if err != nil {
		return nil, err
	}
	password, err := cfg.Store.password()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Config{DataDir: cfg.DataDir, Endpoints: cfg.Store.Endpoints, TLS: t,
		Username: cfg.Store.Username, Password: password, Logger: log})
}

// face is one listener and what answers on it.
type face struct {
	name     string
	listener net.Listener
	handler  http.Handler
}

func closeAll(faces []face) {
	for _, f := range faces {
		f.listener.Close()
	}
}

// listen opens every listener of the settings, or none.
func (s *Server) listen(cfg Config) (faces []face, addrs Addresses, err error) {
	defer func() {
		if err != nil {
			closeAll(faces)
		}
	}()
	add := func(name string, l net.Listener, h http.Handler) string {
		faces = append(faces, face{name, l, h})
		return l.Addr().String()
	}
	api, hosts := s.apiHandler(), s.hostsHandler()
	if cfg.Listen.API != "" {
		l, err := listenTLS(cfg.Listen.API, cfg.certNames(), s.authority.APITLS)
		if err != nil {
			return faces, addrs, fmt.Errorf("listen.api: %w", err)
		}
		addrs.API = add("api", l, api)
	}
	if cfg.Listen.Hosts != "" {
		l, err := listenTLS(cfg.Listen.Hosts, cfg.certNames(), s.authority.HostsTLS)
		if err != nil {
			return faces, addrs, fmt.Errorf("listen.hosts: %w", err)
		}
		addrs.Hosts = add("hosts", l, hosts)
	}
	if cfg.Socket != "" {
		l, err := identity.ListenUnix(cfg.Socket, s.log)
		if err != nil {
			return faces, addrs, err
		}
		addrs.Socket = add("socket", l, api)
	}
	if cfg.Metrics != "" {
		l, err := net.Listen("tcp", cfg.Metrics)
		if err != nil {
			return faces, addrs, fmt.Errorf("metrics: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
		addrs.Metrics = add("metrics", l, mux)
	}
	return faces, addrs, nil
}

func listenTLS(addr string, names []string, config func([]string) (*tls.Config, error)) (net.Listener, error) {
	t, err := config(names)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, t), nil
}

// serve runs everything until ctx ends or something fails.
func (s *Server) serve(ctx context.Context, cancel context.CancelFunc, faces []face, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.policy.follow(ctx) })
	g.Go(func() error { return s.watchConditions(ctx) })
	g.Go(func() error {
		for !s.policy.settle(ctx, func() bool { return s.policy.synced }) {
			if ctx.Err() != nil {
				return nil
			}
			s.log.Warn("waiting for the store", "store", s.policy.store.Where())
		}
		ready()
		return nil
	})
	for _, f := range faces {
		h := httpServer(ctx, f.handler, s.log)
		g.Go(func() error {
			if err := h.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", f.name, err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			// Streams end by themselves now; who hangs on is cut off.
			late, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer done()
			if h.Shutdown(late) != nil {
				h.Close()
			}
			return nil
		})
	}
	err := g.Wait()
	cancel()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func httpServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // on the local socket
	return &http.Server{
		Handler: h, ConnContext: identity.ConnContext, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, Protocols: &protocols,
		HTTP2:    &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, MaxConcurrentStreams: 1000},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func (s *Server) apiHandler() http.Handler {
	options := append(convert.StrictCodecs(), connect.WithReadMaxBytes(maxMessage), connect.WithInterceptors(s.metrics.interceptor()))
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewPolicyServiceHandler(policyService{s}, options...))
	mux.Handle(weftv1connect.NewOperateServiceHandler(operateService{s}, options...))
	return identity.Authenticate(s.whenSynced(mux))
}

func (s *Server) hostsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(s.dist.Handler())
	return identity.Authenticate(s.onlyHosts(mux))
}

// whenSynced refuses questions about policy that was not read yet.
func (s *Server) whenSynced(next http.Handler) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if synced, err := s.policy.ready(); !synced {
			refuse.Write(w, r, connect.NewError(connect.CodeUnavailable, fmt.Errorf("the server has not read policy yet: %w", err)))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allow asks the authorizer; who did not prove who they are may nothing.
func (s *Server) allow(ctx context.Context, verb identity.Verb, key model.Key) error {
	p, ok := identity.FromContext(ctx)
	if !ok {
		return connect.NewError(connect.CodeUnauthenticated, errors.New("a client certificate or the local socket is needed"))
	}
	if err := s.authorizer.Authorize(ctx, p, verb, key); err != nil {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	return nil
}

// writeAdmin leaves the first administrator's certificate in the data directory, with
// a context file that `weft` reads. They are made once and again when the authority is
// another.
func writeAdmin(cfg Config, authority *identity.Authority, addrs Addresses) error {
	if addrs.API == "" {
		return nil
	}
	dir := filepath.Join(cfg.DataDir, "admin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("administrator's certificate: %w", err)
	}
	files := map[string]string{"ca": filepath.Join(dir, "ca.crt"), "cert": filepath.Join(dir, "admin.crt"), "key": filepath.Join(dir, "admin.key")}
	old, _ := os.ReadFile(files["ca"])
	if string(old) != string(authority.PEM()) {
		cert, key, err := authority.IssueAdmin("admin")
		if err != nil {
			return err
		}
		// The authority last: it says that the rest is complete.
		if err := errors.Join(identity.WriteFile(files["key"], key), identity.WriteFile(files["cert"], cert),
			identity.WriteFile(files["ca"], authority.PEM())); err != nil {
			return fmt.Errorf("administrator's certificate: %w", err)
		}
	}
	text := fmt.Sprintf("# How weft reaches this server: `weft --context FILE`, or copy this directory to ~/.config/weft\n"+
		"server: %q\nca: ca.crt\ncertificate: admin.crt\nkey: admin.key\n", "https://"+clientAddress(addrs.API))
	return identity.WriteFile(filepath.Join(dir, "context.yaml"), []byte(text))
}

// clientAddress is where a client on this machine finds a listener.
func clientAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
