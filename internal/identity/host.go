package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Host is the identity of a host as its agent keeps it, in two files of its state
// directory: host.pem (key and certificate, so that they change together) and ca.pem.
type Host struct {
	dir string
	now func() time.Time

	mu      sync.Mutex
	pending *ecdsa.PrivateKey
	cert    *tls.Certificate
	ca      *x509.Certificate
}

// ErrNotJoined is returned while a host has no certificate.
var ErrNotJoined = errors.New("this host has not joined yet: it needs a token (`weft token create HOST`)")

// OpenHost loads what dir holds. A directory without an identity is no error.
func OpenHost(dir string) (*Host, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity directory: %w", err)
	}
	h := &Host{dir: dir, now: time.Now}
	both, err := os.ReadFile(filepath.Join(dir, "host.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("host certificate: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("host certificate: %w", err)
	}
	if err := h.set(both, ca); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "host.pem"), err)
	}
	return h, nil
}

func (h *Host) set(keyAndCert, ca []byte) error {
	pair, err := tls.X509KeyPair(keyAndCert, keyAndCert)
	if err != nil {
		return err
	}
	p, err := principalOf(pair.Leaf)
	if err != nil {
		return err
	}
	if p.Role != RoleHost {
		return fmt.Errorf("the certificate is one of role %q, not of a host", p.Role)
	}
	root, err := parseCert(ca)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cert, h.ca = &pair, root
	return nil
}

// Name is the host's name in its certificate; false while it has none.
func (h *Host) Name() (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cert == nil {
		return "", false
	}
	p, err := principalOf(h.cert.Leaf)
	return p.Name, err == nil
}

// Request makes a new key and a certificate request (DER) for it. The key becomes
// the host's with Accept.
func (h *Host) Request() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending = key
	return der, nil
}

// Accept stores the answer to the last Request, both PEM.
func (h *Host) Accept(certPEM, caPEM []byte) error {
	h.mu.Lock()
	key := h.pending
	h.mu.Unlock()
	if key == nil {
		return errors.New("accept host certificate: none was requested")
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	both := bytes.Join([][]byte{keyPEM, certPEM}, nil)
	if err := h.set(both, caPEM); err != nil {
		return fmt.Errorf("accept host certificate: %w", err)
	}
	if err := WriteFile(filepath.Join(h.dir, "ca.pem"), caPEM); err != nil {
		return err
	}
	return WriteFile(filepath.Join(h.dir, "host.pem"), both)
}

// Forget removes the certificate, so that the host must join again.
func (h *Host) Forget() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cert, h.ca, h.pending = nil, nil, nil
	err := os.Remove(filepath.Join(h.dir, "host.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RenewAt is when the certificate should be renewed: after a third of its life.
// Zero while there is none.
func (h *Host) RenewAt() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cert == nil {
		return time.Time{}
	}
	return ageOf(h.cert.Leaf, 1.0/3)
}

// Expired reports whether the certificate is of no use any more.
func (h *Host) Expired() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cert != nil && h.now().After(h.cert.Leaf.NotAfter)
}

// TLS is for connections to the server; it follows renewals.
func (h *Host) TLS() *tls.Config {
	cfg := clientTLS(func([]*x509.Certificate) (*x509.Certificate, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.ca == nil {
			return nil, ErrNotJoined
		}
		return h.ca, nil
	})
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.cert == nil {
			return nil, ErrNotJoined
		}
		return h.cert, nil
	}
	return cfg
}
