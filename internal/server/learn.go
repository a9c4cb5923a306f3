package server

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

const (
	maxReported     = 256 // addresses in one report
	reasonAsPolicy  = "AsPolicySays"
	conditionGuest  = "GuestConfigured"
	nothingContrary = "Nothing to the contrary was seen."
)

// learn takes what host saw of the guest of one of its ports.
func (s *Server) learn(ctx context.Context, host identity.Principal, r *hostv1.ReportAddressesRequest) (*hostv1.ReportAddressesResponse, error) {
	var seen intent.Seen
	for _, part := range []struct {
		to   *[]netip.Addr
		from [][]byte
	}{{&seen.Used, r.GetUsed()}, {&seen.Announced, r.GetAnnounced()}, {&seen.Released, r.GetReleased()}} {
		var err error
		if *part.to, err = reported(part.from); err != nil {
			return nil, err
		}
	}
	port := model.Ref{Tenant: r.GetTenant(), Name: r.GetName()}
	var refused []intent.Refusal
	revision, err := s.place(ctx, host, port, func(st *intent.State, ref model.Ref, host string) (res *intent.Result, v []intent.Violation) {
		res, refused, v = intent.AdmitLearned(st, ref, host, seen)
		return res, v
	})
	if err != nil {
		return nil, err
	}
	out := &hostv1.ReportAddressesResponse{Revision: revision}
	for _, f := range refused {
		out.Refused = append(out.Refused, &hostv1.Refusal{Address: f.Address.AsSlice(), Finding: string(f.Finding), Message: f.Message})
	}
	return out, nil
}

func reported(all [][]byte) ([]netip.Addr, error) {
	if len(all) > maxReported {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d addresses in one report; at most %d are taken", len(all), maxReported))
	}
	out := make([]netip.Addr, 0, len(all))
	for _, b := range all {
		ca, ok := netip.AddrFromSlice(b)
		if !ok || ca.Is4In6() {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("an address of %d bytes, or IPv4 inside IPv6", len(b)))
		}
		out = append(out, ca)
	}
	return out, nil
}

// guestCondition says whether the guest of a port does what policy says.
func (s *viewer) guestCondition(p *model.Port) *weftv1.Condition {
	c := &weftv1.Condition{Type: conditionGuest, Status: statusTrue, Reason: reasonAsPolicy, Message: nothingContrary, ObservedGeneration: p.Metadata.Generation}
	if p.Host() == "" {
		c.Status, c.Reason, c.Message = statusUnknown, reasonNotPlugged, "The port is on no host yet."
		return c
	}
	found := s.dist.Findings(p.Host(), p.Metadata.Ref())
	if len(found) == 0 {
		return c
	}
	var all []string
	for _, f := range found {
		text := strings.TrimSuffix(f.Message, ".") + "."
		if info, ok := model.FindingByName(f.Reason); ok {
			text += " " + info.Action
		}
		all = append(all, strings.ToUpper(text[:1])+text[1:])
	}
	c.Status, c.Reason, c.Message = statusFalse, found[0].Reason, strings.Join(all, " ")
	return c
}
