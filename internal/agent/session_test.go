package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

// A renewed certificate is another one, is stored, and is what the next
// connection shows.
func TestCertificateIsRenewed(t *testing.T) {
	f := newFleet(t)
	path := filepath.Join(t.TempDir(), "server")
	l, err := net.Listen("unix", path)
	must(t, err)
	f.start(l)
	t.Cleanup(func() { f.http.Close() })

	dir := t.TempDir()
	host, err := identity.OpenHost(dir)
	must(t, err)
	csr, err := host.Request()
	must(t, err)
	cert, err := f.authority.SignHost(csr, "h1", "u1")
	must(t, err)
	must(t, host.Accept(cert, f.authority.PEM()))
	s := &server{Agent: &Agent{cfg: Config{Host: "h1"}, log: slog.New(slog.DiscardHandler)}, host: host}
	before := shown(t, host)

	client := hostv1connect.NewHostServiceClient(&http.Client{Transport: &http.Transport{
		TLSClientConfig: host.TLS(), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}, "https://weft")
	must(t, s.renewOnce(t.Context(), client))
	after := shown(t, host)
	if before.SerialNumber.Cmp(after.SerialNumber) == 0 {
		t.Error("the certificate is the old one")
	}
	again, err := identity.OpenHost(dir)
	must(t, err)
	if stored := shown(t, again); stored.SerialNumber.Cmp(after.SerialNumber) != 0 {
		t.Error("the new certificate was not stored")
	}

	f.stop()
	err = s.renewOnce(t.Context(), client)
	if err == nil {
		t.Error("renewed without a server")
	}
	// Whatever the dying connection says, it is not the server's word.
	if err := plain(err); !errors.Is(err, errUnreachable) {
		t.Errorf("with no server: %v", err)
	}
	if kept := shown(t, host); kept.SerialNumber.Cmp(after.SerialNumber) != 0 {
		t.Error("a renewal that failed changed the certificate")
	}
}

func shown(t *testing.T, h *identity.Host) *x509.Certificate {
	t.Helper()
	c, err := h.TLS().GetClientCertificate(nil)
	must(t, err)
	return c.Leaf
}

func TestOneFailurePerResource(t *testing.T) {
	host, port := model.Ref{Name: "h1"}, model.Ref{Tenant: "red", Name: "web-1"}
	m := ack(7, goal.Digest{1}, []failure{
		{model.KindHost, host, "A", "one"}, {model.KindPort, port, "B", "two"}, {model.KindHost, host, "C", "three"},
	}).GetAck()
	if len(m.GetFailures()) != 2 || m.GetRevision() != 7 || m.GetDigest()[0] != 1 {
		t.Fatalf("%v", m)
	}
	if f := m.GetFailures()[0]; f.GetKind() != "Host" || f.GetReason() != "A" || f.GetMessage() != "one; three" {
		t.Errorf("%v", f)
	}
	if f := m.GetFailures()[1]; f.GetTenant() != "red" || f.GetName() != "web-1" || f.GetMessage() != "two" {
		t.Errorf("%v", f)
	}
}
