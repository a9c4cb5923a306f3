package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/store"
)

// onlyHosts lets through the hosts that policy knows, and those who come to join.
// Nothing is served before policy was read: an empty Goal would be a lie.
func (s *Server) onlyHosts(next http.Handler) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.mayEnter(r); err != nil {
			refuse.Write(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) mayEnter(r *http.Request) error {
	if synced, _ := s.policy.ready(); !synced {
		return connect.NewError(connect.CodeUnavailable, errors.New("the server has not read policy yet; try again"))
	}
	if r.URL.Path == hostv1connect.HostServiceJoinProcedure {
		return nil
	}
	host, err := identity.HostFromRequest(r)
	if err != nil {
		return connect.NewError(connect.CodeUnauthenticated, err)
	}
	s.policy.read(func(st *intent.State) { err = isCurrent(st, host) })
	if err != nil {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	return nil
}

// isCurrent says why a certificate is not that of the Host in policy. One that was
// deleted and created again is another: the old certificate may be in other hands.
func isCurrent(st *intent.State, host identity.Principal) error {
	r, ok := st.Get(hostKey(host.Name))
	switch {
	case !ok:
		return fmt.Errorf("host %q is not in policy (any more): make a token (`weft token create %s`) and join again", host.Name, host.Name)
	case r.Meta().UID != host.UID:
		return fmt.Errorf("host %q was deleted and created again, and this certificate is of the one before: make a token (`weft token create %s`) and join again", host.Name, host.Name)
	}
	return nil
}

func hostKey(name string) model.Key {
	return model.Key{Kind: model.KindHost, Ref: model.Ref{Name: name}}
}

// join trades a token for a certificate. The request must be sound before the token
// is spent, and the token is spent before the certificate is given away.
func (s *Server) join(ctx context.Context, req *hostv1.JoinRequest) (*hostv1.JoinResponse, error) {
	token, err := identity.ParseToken(req.GetToken())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	record, err := s.tokenRecord(ctx, token)
	if err != nil {
		return nil, err
	}
	if h := req.GetHost(); h != "" && h != record.Host {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the token is for host %q, not %q", record.Host, h))
	}
	s.policy.read(func(st *intent.State) {
		err = isCurrent(st, identity.Principal{Role: identity.RoleHost, Name: record.Host, UID: record.UID})
	})
	if err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the token is of no use any more: %w", err))
	}
	cert, err := s.authority.SignHost(req.GetCsrDer(), record.Host, record.UID)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	err = s.policy.store.TakeToken(ctx, token.ID)
	if errors.Is(err, store.ErrNoToken) {
		return nil, connect.NewError(connect.CodePermissionDenied, identity.ErrToken)
	}
	if err != nil {
		return nil, storeError(err)
	}
	s.log.Info("host joined", "host", record.Host)
	return &hostv1.JoinResponse{CertificatePem: cert, CaPem: s.authority.PEM()}, nil
}

func (s *Server) tokenRecord(ctx context.Context, token identity.Token) (identity.TokenRecord, error) {
	var record identity.TokenRecord
	value, err := s.policy.store.Token(ctx, token.ID)
	if errors.Is(err, store.ErrNoToken) {
		return record, connect.NewError(connect.CodePermissionDenied, identity.ErrToken)
	}
	if err != nil {
		return record, storeError(err)
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return record, connect.NewError(connect.CodeInternal, fmt.Errorf("token record: %w", err))
	}
	if err := record.Check(token, time.Now()); err != nil {
		return record, connect.NewError(connect.CodePermissionDenied, err)
	}
	return record, nil
}

// renew gives a host a fresh certificate of the same name and UID.
func (s *Server) renew(_ context.Context, host identity.Principal, req *hostv1.RenewRequest) (*hostv1.JoinResponse, error) {
	cert, err := s.authority.SignHost(req.GetCsrDer(), host.Name, host.UID)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	return &hostv1.JoinResponse{CertificatePem: cert, CaPem: s.authority.PEM()}, nil
}

// bind records that a device for the port is on host.
func (s *Server) bind(ctx context.Context, host identity.Principal, port model.Ref) (int64, error) {
	return s.place(ctx, host, port, intent.AdmitBinding)
}

// unbind undoes bind.
func (s *Server) unbind(ctx context.Context, host identity.Principal, port model.Ref) (int64, error) {
	return s.place(ctx, host, port, intent.AdmitUnbinding)
}

// place gives the revision of the change, 0 if nothing had to change.
func (s *Server) place(ctx context.Context, host identity.Principal, port model.Ref,
	admit func(*intent.State, model.Ref, string) (*intent.Result, []intent.Violation)) (int64, error) {
	res, revision, err := s.policy.write(ctx, func(st *intent.State) (*intent.Result, []intent.Violation) {
		// The body of a request may come long after its head was let in.
		if err := isCurrent(st, host); err != nil {
			return nil, []intent.Violation{{Key: hostKey(host.Name), Message: err.Error(), Reason: intent.Conflict}}
		}
		return admit(st, port, host.Name)
	})
	if err != nil || len(res.Puts) == 0 {
		return 0, err
	}
	return revision, nil
}

// autoLabel marks Provider Addresses that follow a host's facts.
const autoLabel = "weft/from-host"

// takeFacts makes the Provider Addresses that host says it has, and takes those away
// that it had said before and does not any more. Addresses that people wrote stay. It
// records the state of each.
func (s *Server) takeFacts(ctx context.Context, host string, f *hostv1.Facts) {
	var problems, foreign []string
	var addrs []netip.Addr
	for _, text := range f.GetProviderAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil || !intent.ValidPA(a.Unmap()) {
			problems = append(problems, fmt.Sprintf("%.60q cannot be a Provider Address: not a usable IPv4 address", text))
			continue
		}
		addrs = append(addrs, a.Unmap())
	}
	reports, wrong := addressReports(f)
	problems = append(problems, wrong...)
	err := s.policy.writeWhenPossible(ctx, func(st *intent.State) (*intent.Result, []intent.Violation) {
		var puts []model.Resource
		var deletes []intent.Deletion
		puts, deletes, foreign = reconcilePAs(st, host, addrs)
		for _, r := range puts {
			pa := r.(*model.ProviderAddress)
			report := reports[pa.Spec.Address]
			pa.State, pa.Owner = report.State, report.Owner
		}
		return intent.Admit(st, puts, deletes, allocator())
	})
	if err == nil {
		err = s.policy.writeWhenPossible(ctx, func(st *intent.State) (*intent.Result, []intent.Violation) {
			return intent.AdmitAddressStates(st, host, slices.Collect(maps.Values(reports))), nil
		})
	}
	if err != nil {
		problems = append(problems, "its Provider Addresses could not be recorded: "+err.Error())
	}
	problems = append(problems, foreign...)
	for _, p := range problems {
		s.log.Warn("host facts", "host", host, "problem", p)
	}
	s.problems.set(host, problems)
}

// addressReports reads what a host says of its addresses, one report of each.
func addressReports(f *hostv1.Facts) (reports map[netip.Addr]intent.AddressReport, problems []string) {
	reports = map[netip.Addr]intent.AddressReport{}
	for _, w := range f.GetAddresses() {
		a, err := netip.ParseAddr(w.GetAddress())
		r := intent.AddressReport{Address: a.Unmap(), State: model.AddressState(w.GetState())}
		if err != nil || !r.State.Known() {
			problems = append(problems, fmt.Sprintf("it says that %.60q is %.60q, which is no address or no state", w.GetAddress(), w.GetState()))
			continue
		}
		if r.State == model.AddressDuplicate {
			r.Owner, _ = model.ParseMAC(w.GetOwner()) // it is not always known
		}
		reports[r.Address] = r
	}
	return reports, problems
}

// reconcilePAs says what to write so that host has addrs.
func reconcilePAs(st *intent.State, host string, addrs []netip.Addr) (puts []model.Resource, deletes []intent.Deletion, problems []string) {
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	for _, a := range addrs {
		if owner, ok := st.ProviderAddressOf(a); ok {
			if owner.Spec.Host != host {
				problems = append(problems, fmt.Sprintf("it says it has %s, which is %s of host %q; one of them is configured wrongly", a, model.KeyOf(owner), owner.Spec.Host))
			}
			continue
		}
		name, free := nameOfPA(st, host, a)
		if !free {
			problems = append(problems, fmt.Sprintf("it says it has %s, and the names for that are taken by other addresses; apply a ProviderAddress of another name for it", a))
			continue
		}
		puts = append(puts, &model.ProviderAddress{
			Metadata: model.Metadata{Name: name, Labels: map[string]string{autoLabel: host}},
			Spec:     model.ProviderAddressSpec{Host: host, Address: a}})
	}
	if len(addrs) == 0 {
		return puts, nil, problems // a host that cannot see its underlay for a moment keeps its addresses
	}
	for _, pa := range st.PAsOf(host) {
		if pa.Metadata.Labels[autoLabel] == host && !slices.Contains(addrs, pa.Spec.Address) {
			deletes = append(deletes, intent.Deletion{Key: model.KeyOf(pa)})
		}
	}
	return puts, deletes, problems
}

// asName makes an address fit for a name; what is then alike gets the other of two names.
var asName = strings.NewReplacer("::", "-0-", ":", "-", ".", "-")

// nameOfPA finds a name that nothing has yet; false if there is none.
func nameOfPA(st *intent.State, host string, a netip.Addr) (name string, free bool) {
	suffix := strings.Trim(asName.Replace(a.String()), "-")
	for _, name := range []string{host + "-" + suffix, "pa-" + suffix} {
		_, taken := st.Get(model.Key{Kind: model.KindProviderAddress, Ref: model.Ref{Name: name}})
		if !taken && intent.ValidName(name) {
			return name, true
		}
	}
	return "", false
}
