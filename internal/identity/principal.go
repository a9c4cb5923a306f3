package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/weft-sdn/weft/internal/model"
)

// Principal is who is at the other end. On a local socket the role is RoleAdmin
// and the name says the Unix user, "uid 0".
type Principal struct {
	Role Role
	Name string
	UID  string // of the Host resource; empty for other roles
}

func (p Principal) String() string { return string(p.Role) + " " + p.Name }

type principalKey struct{}

// WithPrincipal puts p into ctx.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext says who a request is from; false if nobody proved who they are.
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}

// HostFromContext gives the authenticated host that a request is from; false if it
// is from no host.
func HostFromContext(ctx context.Context) (Principal, bool) {
	p, ok := FromContext(ctx)
	return p, ok && p.Role == RoleHost
}

// ErrNoHost is returned for requests that no host's certificate came with.
var ErrNoHost = errors.New("the request needs the certificate of a host")

// HostFromRequest gives the host that Authenticate found r to be from.
func HostFromRequest(r *http.Request) (Principal, error) {
	p, ok := HostFromContext(r.Context())
	if !ok {
		return Principal{}, ErrNoHost
	}
	return p, nil
}

// Authenticate puts the Principal of a verified client certificate into the
// request's context. It refuses nobody.
func Authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			if p, err := principalOf(r.TLS.PeerCertificates[0]); err == nil {
				r = r.WithContext(WithPrincipal(r.Context(), p))
			}
		}
		next.ServeHTTP(w, r)
	})
}

// ConnContext is for http.Server: it puts the Principal of a connection from
// ListenUnix into the context of its requests.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(interface{ Principal() Principal }); ok {
		return WithPrincipal(ctx, p.Principal())
	}
	return ctx
}

// Verb is what a principal wants to do.
type Verb string

// The verbs.
const (
	VerbRead    Verb = "read"
	VerbWrite   Verb = "write"
	VerbDelete  Verb = "delete"
	VerbOperate Verb = "operate" // look at hosts, let hosts in
)

// Authorizer decides what a principal may do. The key's fields are empty where
// the request does not say: all kinds, all tenants, all names.
type Authorizer interface {
	Authorize(ctx context.Context, p Principal, verb Verb, key model.Key) error
}

// AdminsMayAll lets administrators do everything and others nothing.
type AdminsMayAll struct{}

// Authorize implements Authorizer.
func (AdminsMayAll) Authorize(_ context.Context, p Principal, verb Verb, key model.Key) error {
	if p.Role == RoleAdmin {
		return nil
	}
	return fmt.Errorf("%s may not %s %s", p, verb, key)
}
