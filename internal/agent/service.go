package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
)

// service is the agent's face on its local socket.
type service struct {
	agent *Agent
	loop  *loop
}

var _ weftv1connect.AgentServiceHandler = service{}

// Plug attaches a device to a port and waits until it is programmed.
func (s service) Plug(ctx context.Context, r *connect.Request[weftv1.PlugRequest]) (*connect.Response[weftv1.PlugResponse], error) {
	m := r.Msg
	got, err := s.agent.plug(ctx, s.loop, plugRequest{
		portName: portName{m.GetTenant(), m.GetPort()}, device: m.GetDevice(), netns: m.GetNetns(), ifname: m.GetIfname(),
	})
	if err != nil {
		return nil, coded(err)
	}
	out := &weftv1.PlugResponse{Device: got.device, Mac: got.mac.String(), Mtu: uint32(got.mtu)}
	for _, a := range got.addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, g := range got.gateways {
		out.Gateways = append(out.Gateways, g.String())
	}
	return connect.NewResponse(out), nil
}

// Unplug undoes Plug.
func (s service) Unplug(ctx context.Context, r *connect.Request[weftv1.UnplugRequest]) (*connect.Response[weftv1.UnplugResponse], error) {
	err := s.agent.unplug(ctx, s.loop, model.Ref{Tenant: r.Msg.GetTenant(), Name: r.Msg.GetPort()})
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&weftv1.UnplugResponse{}), nil
}

// ListPlugs lists the plugs with what is known of their devices.
func (s service) ListPlugs(ctx context.Context, _ *connect.Request[weftv1.ListPlugsRequest]) (*connect.Response[weftv1.ListPlugsResponse], error) {
	v, err := s.agent.firstView(ctx)
	if err != nil {
		return nil, coded(err)
	}
	out := &weftv1.ListPlugsResponse{}
	for ref, p := range v.plugs {
		out.Plugs = append(out.Plugs, &weftv1.Plug{Tenant: ref.Tenant, Port: ref.Name, Device: p.device,
			Present: p.present, State: p.text(v.port(ref) != nil)})
	}
	slices.SortFunc(out.Plugs, func(a, b *weftv1.Plug) int {
		return compareRefs(model.Ref{Tenant: a.Tenant, Name: a.Port}, model.Ref{Tenant: b.Tenant, Name: b.Port})
	})
	return connect.NewResponse(out), nil
}

// AgentStatus says what this host holds.
func (s service) AgentStatus(ctx context.Context, _ *connect.Request[weftv1.AgentStatusRequest]) (*connect.Response[weftv1.AgentStatusResponse], error) {
	v, err := s.agent.firstView(ctx)
	if err != nil {
		return nil, coded(err)
	}
	out := &weftv1.AgentStatusResponse{
		Host: s.agent.cfg.Host, Version: Version, Connected: s.agent.server.connected(), Revision: v.revision,
		Ports: int32(len(v.goal.Ports)), Records: int32(len(v.goal.Records)), Decap: v.facts.decap,
	}
	for _, f := range v.failures {
		out.Failures = append(out.Failures, f.String())
	}
	if err := s.agent.server.trouble(); err != nil {
		out.Failures = append(out.Failures, fmt.Sprintf("server %s: %v", s.agent.cfg.Server, err))
	}
	return connect.NewResponse(out), nil
}

// LocalDrops reads the drop counters of this host.
func (s service) LocalDrops(context.Context, *connect.Request[weftv1.LocalDropsRequest]) (*connect.Response[weftv1.DropsResponse], error) {
	rows, err := s.agent.drops(0)
	if err != nil {
		return nil, coded(err)
	}
	names := s.agent.view.Load().portNames()
	out := &weftv1.DropsResponse{}
	for _, d := range rows {
		info := d.count.Reason.Info()
		out.Drops = append(out.Drops, &weftv1.Drop{
			Host: s.agent.cfg.Host, Port: names[d.count.Port], Direction: d.count.Direction.String(),
			Reason: uint32(d.count.Reason), ReasonName: info.Name, Stage: info.Stage, Class: info.Class,
			Packets: d.count.Packets, Bytes: d.count.Bytes, Last: d.last, List: listName(d.count.Rule), Rule: d.count.Rule.Rule,
		})
	}
	return connect.NewResponse(out), nil
}

// LocalVerify compares the kernel with the Goal that this host holds.
func (s service) LocalVerify(ctx context.Context, _ *connect.Request[weftv1.LocalVerifyRequest]) (*connect.Response[weftv1.HostVerification], error) {
	revision, differences, err := s.loop.verify(ctx)
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&weftv1.HostVerification{Host: s.agent.cfg.Host, Reachable: true,
		Revision: revision, Differences: differences}), nil
}

// LocalDoctor examines this host.
func (s service) LocalDoctor(ctx context.Context, _ *connect.Request[weftv1.LocalDoctorRequest]) (*connect.Response[weftv1.DoctorResponse], error) {
	findings, err := s.loop.examine(ctx)
	if err != nil {
		return nil, coded(err)
	}
	if err := s.agent.server.trouble(); err != nil {
		findings = append(findings, &weftv1.Finding{Host: s.agent.cfg.Host, Check: "server", Severity: severityFail,
			Text: fmt.Sprintf("no session with the server %s: %v", s.agent.cfg.Server, err), Action: "is the server up, and reachable from this host? The host forwards by the last policy it received"})
	}
	return connect.NewResponse(&weftv1.DoctorResponse{Findings: findings}), nil
}

// coded gives an error the code that scripts can rely on.
func coded(err error) error {
	for _, c := range []struct {
		is   error
		code connect.Code
	}{
		{errUsage, connect.CodeInvalidArgument},
		{errCapture, connect.CodeInvalidArgument},
		{errPlugged, connect.CodeAlreadyExists},
		{errDeviceTaken, connect.CodeAlreadyExists},
		{netdev.ErrExists, connect.CodeAlreadyExists},
		{netdev.ErrNoDevice, connect.CodeNotFound},
		{netdev.ErrNoNamespace, connect.CodeNotFound},
		{errNotPlugged, connect.CodeNotFound},
		{errUnreachable, connect.CodeUnavailable},
		{errDeviceUse, connect.CodeFailedPrecondition},
		{errProgram, connect.CodeFailedPrecondition},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{context.Canceled, connect.CodeCanceled},
	} {
		if errors.Is(err, c.is) {
			return connect.NewError(c.code, err)
		}
	}
	// What the server said of the request keeps the server's code.
	var remote *connect.Error
	if errors.As(err, &remote) {
		return connect.NewError(remote.Code(), errors.New(remote.Message()))
	}
	return connect.NewError(connect.CodeInternal, err)
}

// endpoint is an HTTP server with its listener.
type endpoint struct {
	server   *http.Server
	listener net.Listener
}

func (e *endpoint) close() {
	if e.listener != nil {
		e.listener.Close()
	}
}

// serve until ctx ends. Requests under way get a moment to finish.
func (e *endpoint) serve(ctx context.Context) error {
	if e.listener == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if e.server.Shutdown(grace) != nil {
			e.server.Close()
		}
	})
	defer stop()
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", e.listener.Addr(), err)
	}
	return nil
}

// maxRequest bounds what one call on the local socket may say, in bytes.
const maxRequest = 64 << 10

// listenLocal opens the agent's socket: for root and the group weft-admins.
func listenLocal(a *Agent, l *loop) (*endpoint, error) {
	listener, err := identity.ListenUnix(a.cfg.Socket, a.log)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewAgentServiceHandler(service{a, l}, connect.WithReadMaxBytes(maxRequest)))
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &endpoint{&http.Server{Handler: mux, ConnContext: identity.ConnContext, Protocols: &protocols,
		ReadHeaderTimeout: 5 * time.Second}, listener}, nil
}
