package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// whoServer answers with the principal of the request.
func whoServer(t *testing.T, cfg *tls.Config, err error) *httptest.Server {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(Authenticate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := FromContext(r.Context())
		if !ok {
			p.Name = "nobody"
		}
		io.WriteString(w, p.String())
	})))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.Listener = tls.NewListener(s.Listener, cfg)
	s.Start()
	s.URL = "https" + strings.TrimPrefix(s.URL, "http")
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, s *httptest.Server, cfg *tls.Config) (string, error) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	res, err := c.Get(s.URL)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func host(t *testing.T, a *Authority, name string) *Host {
	t.Helper()
	h, err := OpenHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := h.Request()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.SignHost(csr, name, "uid-of-"+name)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Accept(cert, a.PEM()); err != nil {
		t.Fatal(err)
	}
	return h
}

func admin(t *testing.T, a *Authority) *tls.Config {
	t.Helper()
	cert, key, err := a.IssueAdmin("alice")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ClientTLS(a.PEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestTheAuthorityIsMadeOnceAndItsKeyIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenAuthority(dir)
	if err != nil || a.Fingerprint() != b.Fingerprint() {
		t.Fatalf("%v: %s, then %s", err, a.Fingerprint(), b.Fingerprint())
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("ca.key: %v %v", info.Mode(), err)
	}
	os.Remove(filepath.Join(dir, "ca.key"))
	if _, err := OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Fatalf("a lost key was replaced: %v", err)
	}
}

func TestEachFaceTakesItsOwnRoleOnly(t *testing.T) {
	a, stranger := authority(t), authority(t)
	apiCfg, err := a.APITLS([]string{"localhost"})
	api := whoServer(t, apiCfg, err)
	hostsCfg, err := a.HostsTLS([]string{"localhost"})
	hosts := whoServer(t, hostsCfg, err)
	none := func(cfg *tls.Config) *tls.Config {
		cfg = cfg.Clone()
		cfg.Certificates, cfg.GetClientCertificate = nil, nil
		return cfg
	}
	mixed := admin(t, a) // trusts a, shows a stranger's certificate
	mixed.Certificates = admin(t, stranger).Certificates
	cases := []struct {
		name string
		to   *httptest.Server
		cfg  *tls.Config
		want string // "" if refused
	}{
		{"an administrator on the API", api, admin(t, a), "admin alice"},
		{"a host on the API", api, host(t, a, "h1").TLS(), ""},
		{"nobody on the API", api, none(admin(t, a)), ""},
		{"another fleet's administrator on the API", api, mixed, ""},
		{"a host among the hosts", hosts, host(t, a, "h1").TLS(), "host h1"},
		{"an administrator among the hosts", hosts, admin(t, a), ""},
		{"nobody among the hosts, to join", hosts, none(admin(t, a)), " nobody"},
		{"a host that trusts another fleet", hosts, host(t, stranger, "h1").TLS(), ""},
		{"a token of the fleet", hosts, JoinTLS(Token{Fingerprint: a.Fingerprint()}), " nobody"},
		{"a token of another fleet", hosts, JoinTLS(Token{Fingerprint: stranger.Fingerprint()}), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ask(t, c.to, c.cfg)
			if c.want == "" {
				if err == nil {
					t.Fatalf("got in as %q", got)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestAHostCannotPassForTheServer(t *testing.T) {
	a := authority(t)
	h := host(t, a, "h1")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.Listener = tls.NewListener(s.Listener, &tls.Config{Certificates: []tls.Certificate{*h.cert}})
	s.Start()
	defer s.Close()
	s.URL = "https" + strings.TrimPrefix(s.URL, "http")
	if _, err := ask(t, s, host(t, a, "h2").TLS()); err == nil {
		t.Fatal("another host believed it")
	}
}

func TestTheServerChoosesTheNameInACertificate(t *testing.T) {
	a := authority(t)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	evil, _ := url.Parse("weft://admin/root")
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "h9"}, URIs: []*url.URL{evil}, DNSNames: []string{"server"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.SignHost(csr, "h1", "u1")
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := parseCert(text)
	p, err := principalOf(cert)
	if err != nil || p != (Principal{RoleHost, "h1", "u1"}) || len(cert.DNSNames) != 0 || cert.Subject.CommonName != "h1" || cert.IsCA {
		t.Fatalf("%v %v %v", p, err, cert)
	}
	csr[len(csr)-1] ^= 1
	if _, err := a.SignHost(csr, "h1", "u1"); err == nil {
		t.Error("a request with a broken signature was signed")
	}
	weak, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	csr, _ = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if _, err := a.SignHost(csr, "h1", "u1"); err == nil {
		t.Error("a weak key was signed")
	}
	if _, err := a.SignHost([]byte("nonsense"), "h1", "u1"); err == nil {
		t.Error("nonsense was signed")
	}
}

func TestWhatDoesNotNameOneRoleHolderIsNoPrincipal(t *testing.T) {
	for _, p := range []Principal{{RoleHost, "h1", "0a1b-2c"}, {RoleAdmin, "alice", ""}, {RoleServer, "server", ""}} {
		if got, err := principalOf(&x509.Certificate{URIs: []*url.URL{p.uri()}}); err != nil || got != p {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, bad := range []string{"weft://host/h1", "weft://host/h1/", "weft://host//u1", "weft://admin/alice/u1", "weft://host/h1/u1?x", "weft://host/h1/u1#x",
		"weft://host:1/h1/u1", "weft://x@host/h1/u1", "weft://admin/", "https://host/h1/u1", "weft:host/h1/u1"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := principalOf(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%s passes for %+v", bad, p)
		}
	}
	if _, err := authority(t).SignHost(nil, "h1", ""); err == nil || !strings.Contains(err.Error(), "UID") {
		t.Errorf("a host without a UID: %v", err)
	}
}

func TestTokens(t *testing.T) {
	now := time.Now()
	a := authority(t)
	token, record := NewToken("h1", "u1", a.Fingerprint(), now.Add(time.Hour))
	parsed, err := ParseToken(" " + token.Text() + "\n")
	if err != nil || parsed != token {
		t.Fatalf("%v %v", parsed, err)
	}
	if err := record.Check(parsed, now); err != nil || record.Host != "h1" {
		t.Fatalf("%v %+v", err, record)
	}
	if err := record.Check(parsed, now.Add(time.Hour)); err != ErrToken {
		t.Errorf("expired: %v", err)
	}
	other, _ := NewToken("h1", "u1", a.Fingerprint(), now.Add(time.Hour))
	if err := record.Check(Token{ID: token.ID, Secret: other.Secret}, now); err != ErrToken {
		t.Errorf("another secret: %v", err)
	}
	if strings.Contains(token.String(), token.Secret) || strings.Contains(string(record.Hash), token.Secret) {
		t.Error("the secret shows")
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "token", token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "token", token, "all", []any{token})
	fmt.Fprintf(&log, "%v %+v %s", token, token, token)
	if strings.Contains(log.String(), token.Secret) || !strings.Contains(log.String(), token.ID) {
		t.Errorf("logged %s", &log)
	}
	for _, bad := range []string{"", "weft1", "weft1...", "weft2." + token.Text()[6:], token.Text()[:80], token.Text() + "00", token.Text() + ".x"} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestAHostKeepsItsIdentityAndRenewsInTime(t *testing.T) {
	a := authority(t)
	dir := t.TempDir()
	h, err := OpenHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.Name(); ok || !h.RenewAt().IsZero() {
		t.Fatal("a new host has an identity")
	}
	if _, err := h.TLS().GetClientCertificate(nil); err != ErrNotJoined {
		t.Fatalf("%v", err)
	}
	if err := h.Accept([]byte("x"), a.PEM()); err == nil {
		t.Fatal("accepted what was not requested")
	}
	csr, _ := h.Request()
	cert, _ := a.SignHost(csr, "h1", "u1")
	h.Request() // another request makes the answer to the first one stale
	if err := h.Accept(cert, a.PEM()); err == nil {
		t.Fatal("accepted a certificate of another key")
	}
	csr, _ = h.Request()
	cert, _ = a.SignHost(csr, "h1", "u1")
	if err := h.Accept(cert, a.PEM()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "host.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("host.pem: %v %v", info.Mode(), err)
	}
	again, err := OpenHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := again.Name(); !ok || name != "h1" {
		t.Fatalf("%q %v", name, ok)
	}
	left := time.Until(again.RenewAt())
	if left < hostLife/4 || left > hostLife/2 {
		t.Errorf("renews in %v of %v", left, hostLife)
	}
	again.now = func() time.Time { return time.Now().Add(hostLife + time.Hour) }
	if h.Expired() || !again.Expired() {
		t.Error("expiry is not seen")
	}
	os.WriteFile(filepath.Join(dir, "host.pem"), []byte("damaged"), 0o600)
	if _, err := OpenHost(dir); err == nil || !strings.Contains(err.Error(), "host.pem") {
		t.Errorf("a damaged file: %v", err)
	}
	if err := again.Forget(); err != nil {
		t.Fatal(err)
	}
	if fresh, err := OpenHost(dir); err != nil {
		t.Error(err)
	} else if _, ok := fresh.Name(); ok {
		t.Error("not forgotten")
	}
}

func TestAServerCertificateIsRenewedBeforeItEnds(t *testing.T) {
	a := authority(t)
	s := &serverCert{authority: a, names: []string{"localhost", "192.0.2.1"}}
	first, err := s.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := s.get(nil); same != first {
		t.Error("made anew for every connection")
	}
	if len(first.Leaf.DNSNames) != 1 || len(first.Leaf.IPAddresses) != 1 {
		t.Errorf("names %v %v", first.Leaf.DNSNames, first.Leaf.IPAddresses)
	}
	a.now = func() time.Time { return time.Now().Add(serverLife * 3 / 4) }
	if next, err := s.get(nil); err != nil || next == first {
		t.Errorf("not renewed: %v", err)
	}
}

func TestTheLocalSocketKnowsItsPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "s.sock")
	l, err := ListenUnix(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	go func() {
		if c, err := net.Dial("unix", path); err == nil {
			defer c.Close()
			io.ReadAll(c)
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, ok := FromContext(ConnContext(t.Context(), c))
	if !ok || p.Role != RoleAdmin || p.Name != fmt.Sprintf("uid %d", os.Getuid()) {
		t.Fatalf("%v %v", p, ok)
	}
	if _, err := ListenUnix(path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two on one socket: %v", err)
	}
}

func TestASocketOfTheDeadIsReplacedAndAFileIsNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := ListenUnix(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	os.WriteFile(path, nil, 0o600)
	if _, err := ListenUnix(path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("%v", err)
	}
}

func TestOnlyRootTheDaemonAndTheGroupMayUseTheSocket(t *testing.T) {
	me := uint32(os.Geteuid())
	cases := []struct {
		uid    uint32
		groups []uint32
		gid    int
		want   bool
	}{
		{0, nil, -1, true}, {me, nil, -1, true},
		{4242, []uint32{4242}, -1, false}, {4242, []uint32{4242, 77}, 77, true}, {4242, []uint32{4242}, 77, false},
		{4242, []uint32{0}, -1, false}, // group root is not root
	}
	for _, c := range cases {
		if got := mayUse(c.uid, c.groups, c.gid); got != c.want {
			t.Errorf("uid %d groups %v group %d: %v", c.uid, c.groups, c.gid, got)
		}
	}
}

func TestAdministratorsMayAllAndHostsNothing(t *testing.T) {
	k := model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: "red", Name: "web-1"}}
	if err := (AdminsMayAll{}).Authorize(t.Context(), Principal{Role: RoleAdmin, Name: "alice"}, VerbWrite, k); err != nil {
		t.Error(err)
	}
	if err := (AdminsMayAll{}).Authorize(t.Context(), Principal{Role: RoleHost, Name: "h1"}, VerbRead, k); err == nil {
		t.Error("a host may read policy")
	}
}
