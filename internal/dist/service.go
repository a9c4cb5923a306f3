package dist

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

// service is the face that agents see.
type service struct{ *Distributor }

// Handler gives the path and handler of HostService. It must be served over
// HTTP/2.
func (d *Distributor) Handler() (string, http.Handler) {
	path, handler := hostv1connect.NewHostServiceHandler(&service{d},
		connect.WithReadMaxBytes(hostwire.MaxMessage), connect.WithSendMaxBytes(hostwire.MaxMessage))
	return path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{control: http.NewResponseController(w)}
		var err error
		if c.host, err = d.cfg.Host(r); err != nil {
			c.err = connect.NewError(connect.CodeUnauthenticated, err)
		}
		if r.URL.Path != hostv1connect.HostServiceSessionProcedure {
			// A Session has its heartbeats; any other call is over soon, or is cut off.
			_ = c.control.SetReadDeadline(time.Now().Add(d.cfg.Heartbeat))
			_ = c.control.SetWriteDeadline(time.Now().Add(missedHeartbeats * d.cfg.Heartbeat))
		}
		handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

type callKey struct{}

// call is who calls, and the means to cut the call off.
type call struct {
	host    identity.Principal
	err     error
	control *http.ResponseController
}

func caller(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{err: connect.NewError(connect.CodeInternal, errors.New("the handler was not made by Distributor.Handler"))}
}

// Join is the one call that needs no certificate: it is how to get one.
func (d *service) Join(ctx context.Context, r *connect.Request[hostv1.JoinRequest]) (*connect.Response[hostv1.JoinResponse], error) {
	return respond(d.cfg.Join(ctx, r.Msg))
}

func (d *service) Renew(ctx context.Context, r *connect.Request[hostv1.RenewRequest]) (*connect.Response[hostv1.JoinResponse], error) {
	from := caller(ctx)
	if from.err != nil {
		return nil, from.err
	}
	return respond(d.cfg.Renew(ctx, from.host, r.Msg))
}

func (d *service) BindPort(ctx context.Context, r *connect.Request[hostv1.BindPortRequest]) (*connect.Response[hostv1.BindPortResponse], error) {
	return bind(ctx, r.Msg, d.cfg.Bind)
}

func (d *service) UnbindPort(ctx context.Context, r *connect.Request[hostv1.BindPortRequest]) (*connect.Response[hostv1.BindPortResponse], error) {
	return bind(ctx, r.Msg, d.cfg.Unbind)
}

func (d *service) ReportAddresses(ctx context.Context, r *connect.Request[hostv1.ReportAddressesRequest]) (*connect.Response[hostv1.ReportAddressesResponse], error) {
	from := caller(ctx)
	if from.err != nil {
		return nil, from.err
	}
	return respond(d.cfg.Learn(ctx, from.host, r.Msg))
}

func bind(ctx context.Context, r *hostv1.BindPortRequest, do func(context.Context, identity.Principal, model.Ref) (int64, error)) (*connect.Response[hostv1.BindPortResponse], error) {
	from := caller(ctx)
	if from.err != nil {
		return nil, from.err
	}
	revision, err := do(ctx, from.host, model.Ref{Tenant: r.GetTenant(), Name: r.GetName()})
	return respond(&hostv1.BindPortResponse{Revision: revision}, err)
}

func respond[T any](m *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}
