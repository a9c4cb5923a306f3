package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// APITLS serves people: only administrators get in.
func (a *Authority) APITLS(names []string) (*tls.Config, error) {
	return a.serverTLS(names, tls.RequireAndVerifyClientCert, RoleAdmin)
}

// HostsTLS serves hosts. A client without a certificate gets in, because it may
// come to join; the handler must refuse it everything else.
func (a *Authority) HostsTLS(names []string) (*tls.Config, error) {
	return a.serverTLS(names, tls.VerifyClientCertIfGiven, RoleHost)
}

func (a *Authority) serverTLS(names []string, auth tls.ClientAuthType, role Role) (*tls.Config, error) {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s := &serverCert{authority: a, names: names}
	if _, err := s.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: s.get, ClientCAs: pool, ClientAuth: auth, Time: a.now,
		// Resumed sessions come by here as well, unlike VerifyPeerCertificate.
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			p, err := principalOf(cs.PeerCertificates[0])
			if err == nil && p.Role != role {
				err = fmt.Errorf("a certificate of role %q is not for this listener, which serves role %q", p.Role, role)
			}
			return err
		},
	}, nil
}

// serverCert is made anew when two thirds of its life are over.
type serverCert struct {
	authority *Authority
	names     []string

	mu   sync.Mutex
	cert *tls.Certificate
}

func (s *serverCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil && s.authority.now().Before(ageOf(s.cert.Leaf, 2.0/3)) {
		return s.cert, nil
	}
	cert, err := s.authority.issueServer(s.names)
	if err != nil {
		return nil, err
	}
	s.cert = cert
	return cert, nil
}

// ageOf is the moment when a part of a certificate's life is over.
func ageOf(c *x509.Certificate, part float64) time.Time {
	return c.NotBefore.Add(time.Duration(float64(c.NotAfter.Sub(c.NotBefore)) * part))
}

// ClientTLS is for an administrator's client: certificate and key PEM as issued.
func ClientTLS(caPEM, certPEM, keyPEM []byte) (*tls.Config, error) {
	ca, err := parseCert(caPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	cfg := clientTLS(func([]*x509.Certificate) (*x509.Certificate, error) { return ca, nil })
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// JoinTLS is for a host that holds nothing but a token: it trusts the authority
// with the token's fingerprint, which the server shows in its chain.
func JoinTLS(t Token) *tls.Config {
	return clientTLS(func(chain []*x509.Certificate) (*x509.Certificate, error) {
		for _, c := range chain {
			if fingerprint(c) == t.Fingerprint {
				return c, nil
			}
		}
		return nil, errors.New("the server does not belong to the fleet of this token: its certificate authority has another fingerprint")
	})
}

// clientTLS verifies that the other end is a server of the fleet by the role in its
// certificate and not by host name: the authority is ours alone, it signs servers
// for nobody else, and a server may be reached under addresses that nobody listed.
func clientTLS(trust func(chain []*x509.Certificate) (*x509.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // VerifyConnection does all of it
		VerifyConnection: func(cs tls.ConnectionState) error {
			ca, err := trust(cs.PeerCertificates)
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			leaf := cs.PeerCertificates[0]
			_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			if err != nil {
				return fmt.Errorf("server certificate: %w", err)
			}
			p, err := principalOf(leaf)
			if err == nil && p.Role != RoleServer {
				err = fmt.Errorf("server certificate: it is one of role %q", p.Role)
			}
			return err
		},
	}
}

// principalOf reads the role and name that a verified certificate speaks for.
func principalOf(c *x509.Certificate) (Principal, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != uriScheme {
		return Principal{}, errors.New("certificate: no weft:// name in it")
	}
	u := c.URIs[0]
	name, uid, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	p := Principal{Role: Role(u.Host), Name: name, UID: uid}
	if name == "" || (uid != "") != (p.Role == RoleHost) || u.String() != p.uri().String() {
		return Principal{}, fmt.Errorf("certificate: %q does not name a role's holder", u)
	}
	return p, nil
}

// uri is how a certificate names p.
func (p Principal) uri() *url.URL {
	u := &url.URL{Scheme: uriScheme, Host: string(p.Role), Path: "/" + p.Name}
	if p.UID != "" {
		u.Path += "/" + p.UID
	}
	return u
}
