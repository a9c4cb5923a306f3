// Package identity says who is who: the certificate authority of a fleet, the
// tokens that let hosts in, the certificates of servers, hosts and
// administrators, and the credentials of the other end of a local socket.
//
// Invariants: a certificate says one role and one name, in a URI name
// weft://ROLE/NAME, and is good for nothing else; a host cannot pass for a server
// or an administrator. That of a host is weft://host/NAME/UID, with the UID of its
// Host resource: who was deleted does not come back under an old name. Private keys are made where they are used, stored 0600 and
// never sent. The name in a host's certificate is the server's choice.
// It must never log a secret, decide what a principal may do to a resource beyond
// its Authorizer, or talk to the network itself.
package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Lifetimes. Hosts renew after a third of theirs, which leaves two months for a
// server that is away; servers make theirs anew at every start and when it ages.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	hostLife      = 90 * 24 * time.Hour
	adminLife     = 5 * 365 * 24 * time.Hour
	clockSkew     = 5 * time.Minute
)

// Role is what a certificate is good for.
type Role string

// The roles.
const (
	RoleServer Role = "server"
	RoleHost   Role = "host"
	RoleAdmin  Role = "admin"
)

const uriScheme = "weft"

// Authority signs the certificates of one fleet.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

// OpenAuthority loads the authority in dir (ca.crt, ca.key), or makes one if
// there is none.
func OpenAuthority(dir string) (*Authority, error) {
	certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	_, certErr := os.Stat(certFile)
	if _, err := os.Stat(keyFile); err == nil && certErr == nil {
		return LoadAuthority(certFile, keyFile)
	}
	if certErr == nil {
		return nil, fmt.Errorf("certificate authority: %s is there but %s is not: restore it", certFile, keyFile)
	}
	if err := makeAuthority(dir, certFile, keyFile); err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	return LoadAuthority(certFile, keyFile)
}

func makeAuthority(dir, certFile, keyFile string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "weft certificate authority"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true,
		BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := WriteFile(keyFile, keyPEM); err != nil {
		return err
	}
	// Last, because its presence says that the authority is complete.
	return WriteFile(certFile, encodeCert(der))
}

// LoadAuthority uses an authority that somebody else made: PEM files, the key
// unencrypted PKCS #8, PKCS #1 or SEC 1.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if !pair.Leaf.IsCA {
		return nil, fmt.Errorf("certificate authority: %s is not a CA certificate", certFile)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("certificate authority: %s cannot sign", keyFile)
	}
	return &Authority{cert: pair.Leaf, key: signer, now: time.Now}, nil
}

// Fingerprint is the SHA-256 of the authority's certificate in hexadecimal.
func (a *Authority) Fingerprint() string { return fingerprint(a.cert) }

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return encodeCert(a.cert.Raw) }

// SignHost answers a certificate request (PKCS #10, DER) with a PEM certificate for
// the host of that name and UID. What the request says of names and uses is ignored.
func (a *Authority) SignHost(csrDER []byte, name, uid string) ([]byte, error) {
	if name == "" || uid == "" {
		return nil, errors.New("host certificate: it needs the name and the UID of the host")
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: the key must be ECDSA P-256")
	}
	der, err := a.sign(Principal{RoleHost, name, uid}, hostLife, key, nil)
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

// IssueAdmin makes a key and certificate, both PEM, for an administrator.
func (a *Authority) IssueAdmin(name string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(Principal{Role: RoleAdmin, Name: name}, adminLife, key.Public(), nil)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	return encodeCert(der), keyPEM, err
}

// issueServer makes a server certificate whose chain carries the authority, so
// that a host that knows only its fingerprint can verify it.
func (a *Authority) issueServer(names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := a.sign(Principal{Role: RoleServer, Name: "server"}, serverLife, key.Public(), names)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *Authority) sign(p Principal, life time.Duration, key crypto.PublicKey, names []string) ([]byte, error) {
	now := a.now()
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: p.Name, OrganizationalUnit: []string{string(p.Role)}},
		NotBefore:    now.Add(-clockSkew), NotAfter: earlier(now.Add(life), a.cert.NotAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{p.uri()},
	}
	if p.Role == RoleServer {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, n)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", p, err)
	}
	return der, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// serial is random and positive, of at most 20 octets (RFC 5280 section 4.1.2.2).
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCert(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// WriteFile replaces path by data in one step, mode 0600.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
