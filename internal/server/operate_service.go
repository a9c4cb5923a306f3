package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server/convert"
)

// operateService answers OperateService.
type operateService struct{ *Server }

// Limits of tokens and of questions to hosts.
const (
	defaultTokenTTL = time.Hour
	maxTokenTTL     = 30 * 24 * time.Hour
	queryTimeout    = 5 * time.Second
	maxQueries      = 64 // hosts asked at a time
)

// FleetStatus says how the store and every host are.
func (s operateService) FleetStatus(ctx context.Context, _ *connect.Request[weftv1.FleetStatusRequest]) (*connect.Response[weftv1.FleetStatusResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	out := &weftv1.FleetStatusResponse{Store: s.policy.store.Where(), Version: s.version}
	if _, err := s.policy.ready(); err != nil {
		out.Store += " (unavailable: " + err.Error() + ")"
	} else {
		out.Store += " (healthy)"
	}
	v := s.viewer()
	s.policy.read(func(st *intent.State) {
		out.Revision = st.Revision()
		for _, r := range st.List(model.KindHost, "") {
			out.Hosts = append(out.Hosts, v.hostStatus(st, r.Meta().Name))
		}
	})
	return connect.NewResponse(out), nil
}

// Lookup says what policy holds for a CA.
func (s operateService) Lookup(ctx context.Context, req *connect.Request[weftv1.LookupRequest]) (*connect.Response[weftv1.LookupResponse], error) {
	if err := s.allow(ctx, identity.VerbRead, model.Key{Kind: model.KindLookupRecord}); err != nil {
		return nil, err
	}
	ca, err := netip.ParseAddr(req.Msg.GetCa())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("ca: %.60q is not an IP address", req.Msg.GetCa()))
	}
	vsid := model.VSID(req.Msg.GetVsid())
	var out *weftv1.LookupResponse
	s.policy.read(func(st *intent.State) { out, err = lookup(st, vsid, ca.Unmap()) })
	if err != nil {
		return nil, connect.NewError(connect.CodeNotFound, err)
	}
	return connect.NewResponse(out), nil
}

func lookup(st *intent.State, vsid model.VSID, ca netip.Addr) (*weftv1.LookupResponse, error) {
	subnet, ok := st.SubnetByVSID(vsid)
	if !ok {
		return nil, fmt.Errorf("no subnet has VSID %s", vsid)
	}
	out := &weftv1.LookupResponse{Tenant: subnet.Metadata.Tenant, Network: subnet.Spec.Network, Subnet: subnet.Metadata.Name}
	r, _ := st.Lookup(vsid, ca)
	switch r := r.(type) {
	case *model.Port:
		out.Kind, out.Port, out.Host, out.Mac = "port", r.Metadata.Ref().String(), r.Host(), r.Spec.MAC.String()
		out.Pa = convert.Addr(st.PAOf(r.Host()))
		out.Rewrite = convert.Addr(r.RewriteOf(ca))
		if slices.Contains(r.Learned, ca) {
			out.Kind = "dynamic"
		}
	case *model.VirtualSubnet:
		out.Kind, out.Mac = "router", model.RouterMAC(vsid).String()
	case *model.LookupRecord:
		mac, pa := st.PlaceOf(r)
		out.Kind, out.Mac, out.Pa = lookupKind(r), mac.String(), convert.Addr(pa)
		if r.Rewrite {
			out.Rewrite = out.Pa
		}
		if p, ok := st.Get(model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: r.Metadata.Tenant, Name: r.Spec.Port}}); ok {
			out.Port, out.Host = p.Meta().Ref().String(), p.(*model.Port).Host()
		}
	default:
		return nil, fmt.Errorf("%s has no record for %s in VSID %s", model.KeyOf(subnet), ca, vsid)
	}
	return out, nil
}

func lookupKind(l *model.LookupRecord) string {
	if l.Spec.Type == model.RecordGatewayWildcard {
		return "gateway wildcard"
	}
	return "static"
}

// hostsAsked are the named host, or all. All the same to the caller: a host that
// does not exist is an error, one that is away is an answer.
func (s operateService) hostsAsked(name string) ([]string, error) {
	var hosts []string
	s.policy.read(func(st *intent.State) {
		for _, r := range st.List(model.KindHost, "") {
			if name == "" || r.Meta().Name == name {
				hosts = append(hosts, r.Meta().Name)
			}
		}
	})
	if name != "" && len(hosts) == 0 {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("Host %s does not exist", name))
	}
	return hosts, nil
}

// answer is what a host said, or why it did not.
type answer struct {
	host string
	msg  *hostv1.Answer
	err  error
}

// ask puts the same question to several hosts, some at a time; the answers are in
// the order of the hosts.
func (s operateService) ask(ctx context.Context, hosts []string, q func() *hostv1.Query) []answer {
	return s.askEach(ctx, hosts, func(string) *hostv1.Query { return q() })
}

// askEach is ask with a question for each host.
func (s operateService) askEach(ctx context.Context, hosts []string, q func(host string) *hostv1.Query) []answer {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	out := make([]answer, len(hosts))
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxQueries)
	for i, h := range hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			msg, err := s.dist.Query(ctx, h, q(h))
			if err == nil && msg.GetError() != "" {
				err = errors.New(msg.GetError())
			}
			out[i] = answer{h, msg, err}
		})
	}
	wg.Wait()
	return out
}

// portAsked says which port is asked about, and where: of a port, only its host is asked, and nobody where it has none.
func (s operateService) portAsked(name, host string) (uint32, []string, error) {
	var id uint32
	if name != "" {
		p, err := s.portNamed(name)
		if err != nil {
			return 0, nil, err
		}
		if id = uint32(p.ID); host == "" && p.Host() == "" {
			return id, nil, nil
		}
		host = cmp.Or(host, p.Host())
	}
	hosts, err := s.hostsAsked(host)
	return id, hosts, err
}

// Drops asks hosts what they drop. Of a port, only its host is asked.
func (s operateService) Drops(ctx context.Context, req *connect.Request[weftv1.DropsRequest]) (*connect.Response[weftv1.DropsResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	port, hosts, err := s.portAsked(req.Msg.GetPort(), req.Msg.GetHost())
	if err != nil {
		return nil, err
	}
	query := &hostv1.DropsQuery{Port: port}
	out := &weftv1.DropsResponse{}
	for _, a := range s.ask(ctx, hosts, func() *hostv1.Query { return &hostv1.Query{Query: &hostv1.Query_Drops{Drops: query}} }) {
		if a.err != nil {
			out.UnreachableHosts = append(out.UnreachableHosts, a.host)
			continue
		}
		for _, row := range a.msg.GetDrops().GetRows() {
			if query.Port == 0 || row.GetPort() == query.Port {
				out.Drops = append(out.Drops, s.drop(a.host, row))
			}
		}
	}
	s.policy.read(func(st *intent.State) {
		for _, d := range out.Drops {
			d.Source = sourceOf(st, d.GetList(), d.GetRule())
		}
	})
	slices.SortFunc(out.Drops, func(a, b *weftv1.Drop) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.List, b.List), cmp.Compare(a.Rule, b.Rule))
	})
	return connect.NewResponse(out), nil
}

func (s operateService) drop(host string, row *hostv1.DropRow) *weftv1.Drop {
	info := model.Verdict(row.GetReason()).Info()
	d := &weftv1.Drop{Host: host, Direction: "outbound", Reason: row.GetReason(), ReasonName: info.Name, Stage: info.Stage,
		Class: info.Class, Packets: row.GetPackets(), Bytes: row.GetBytes(), Last: row.GetLast(), List: row.GetList(), Rule: row.GetRule()}
	if row.GetInbound() {
		d.Direction = "inbound"
	}
	s.policy.read(func(st *intent.State) {
		if p, ok := st.PortByID(model.PortID(row.GetPort())); ok {
			d.Port = p.Metadata.Ref().String()
		} else if row.GetPort() != 0 {
			d.Port = fmt.Sprintf("deleted port %d", row.GetPort())
		}
	})
	return d
}

func (s operateService) portNamed(name string) (*model.Port, error) {
	tenant, port, ok := strings.Cut(name, "/")
	if !ok {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("port: %.80q is not TENANT/PORT", name))
	}
	r, ok := s.policy.get(model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: tenant, Name: port}})
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("Port %s does not exist", name))
	}
	return r.(*model.Port), nil
}

// Verify asks hosts whether their kernel holds what policy says.
func (s operateService) Verify(ctx context.Context, req *connect.Request[weftv1.VerifyRequest]) (*connect.Response[weftv1.VerifyResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	hosts, err := s.hostsAsked(req.Msg.GetHost())
	if err != nil {
		return nil, err
	}
	out := &weftv1.VerifyResponse{}
	for _, a := range s.ask(ctx, hosts, func() *hostv1.Query { return &hostv1.Query{Query: &hostv1.Query_Verify{Verify: &hostv1.VerifyQuery{}}} }) {
		v := &weftv1.HostVerification{Host: a.host, Reachable: a.err == nil}
		if a.err != nil {
			v.Differences = []string{"not verified: " + a.err.Error()}
		} else {
			v.Revision, v.Differences = a.msg.GetVerify().GetRevision(), a.msg.GetVerify().GetDifferences()
		}
		out.Hosts = append(out.Hosts, v)
	}
	return connect.NewResponse(out), nil
}

// CreateToken makes a token that lets one agent join as host, and the Host if there
// is none yet.
func (s operateService) CreateToken(ctx context.Context, req *connect.Request[weftv1.CreateTokenRequest]) (*connect.Response[weftv1.CreateTokenResponse], error) {
	host := req.Msg.GetHost()
	if err := s.allow(ctx, identity.VerbOperate, model.Key{Kind: model.KindHost, Ref: model.Ref{Name: host}}); err != nil {
		return nil, err
	}
	ttl := cmp.Or(time.Duration(req.Msg.GetTtlSeconds())*time.Second, defaultTokenTTL)
	if req.Msg.GetTtlSeconds() < 0 || req.Msg.GetTtlSeconds() > int64(maxTokenTTL/time.Second) {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("ttl_seconds: must be between 1 and %d", int64(maxTokenTTL/time.Second)))
	}
	uid, err := s.ensureHost(ctx, host)
	if err != nil {
		return nil, err
	}
	expires := time.Now().Add(ttl).UTC()
	token, record := identity.NewToken(host, uid, s.authority.Fingerprint(), expires)
	value, err := json.Marshal(record)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	if err := s.policy.store.PutToken(ctx, token.ID, value, ttl); err != nil {
		return nil, storeError(err)
	}
	s.log.Info("join token made", "host", host, "token", token, "expires", expires)
	return connect.NewResponse(&weftv1.CreateTokenResponse{Token: token.Text(), Expires: expires.Format(time.RFC3339)}), nil
}

// ensureHost creates the Host if there is none, and gives its UID.
func (s *Server) ensureHost(ctx context.Context, name string) (uid string, err error) {
	h := &model.Host{Metadata: model.Metadata{Name: name}}
	res, _, err := s.policy.write(ctx, func(st *intent.State) (*intent.Result, []intent.Violation) {
		if r, ok := st.Get(model.KeyOf(h)); ok {
			return &intent.Result{Changes: []intent.Change{{Action: intent.Unchanged, Key: model.KeyOf(r), Before: r, After: r}}}, nil
		}
		return intent.Admit(st, []model.Resource{h}, nil, allocator())
	})
	if err != nil {
		return "", err
	}
	return res.Changes[0].After.Meta().UID, nil
}
