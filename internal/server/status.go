package server

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/dist"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server/convert"
)

// Reasons of conditions; scripts may rely on them.
const (
	reasonAdmitted   = "Admitted"
	reasonAllHosts   = "AllHostsCurrent"
	reasonNoHost     = "NoHostConcerned"
	reasonNothing    = "NothingToProgram"
	reasonRollingOut = "RollingOut"
	reasonHostsFail  = "HostsFailing"
	reasonHealthy    = "Healthy"
	reasonNotPlaced  = "NotPlaced"
	reasonNotPlugged = "NotPlugged"
	reasonNoPA       = "HostHasNoProviderAddress"
	reasonHostAway   = "HostNotConnected"
	reasonHostFacts  = "HostFactsContradictPolicy"
	reasonDuplicate  = "DuplicateAddress"
	reasonUnusable   = "AddressNotUsable"
	statusTrue       = "True"
	statusFalse      = "False"
	statusUnknown    = "Unknown"
	maxFailuresNamed = 5
)

// factProblems is what is wrong with what hosts say of themselves.
type factProblems struct {
	mu    sync.Mutex
	hosts map[string][]string
}

func (f *factProblems) set(host string, problems []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts[host] = problems
}

func (f *factProblems) of(host string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[host]
}

// viewer shows resources as people see them, with their status. It asks for the
// hosts' state once: use one per request.
type viewer struct {
	*Server
	hosts map[string]dist.HostState
}

func (s *Server) viewer() *viewer { return &viewer{Server: s} }

func (s *viewer) view(r model.Resource) *weftv1.Resource {
	return convert.WriteResource(r, s.statusOf(r))
}

func (s *viewer) host(name string) dist.HostState {
	if s.hosts == nil {
		s.hosts = map[string]dist.HostState{}
		for _, h := range s.dist.Hosts() {
			s.hosts[h.Name] = h
		}
	}
	return s.hosts[name]
}

func (s *viewer) statusOf(r model.Resource) *weftv1.Status {
	st := &weftv1.Status{}
	generation := r.Meta().Generation
	accepted := &weftv1.Condition{Type: "Accepted", Status: statusTrue, Reason: reasonAdmitted,
		Message: "The resource is part of policy.", ObservedGeneration: generation}
	if at := r.Meta().CreatedAt; !at.IsZero() {
		accepted.ChangedAt = timestamppb.New(at) // and never again: what is not admitted is not stored
	}
	st.Conditions = []*weftv1.Condition{accepted}
	roll := s.dist.Status(s.rolloutKey(r))
	var kernels *weftv1.Condition
	switch r := r.(type) {
	case *model.Tenant:
		kernels = &weftv1.Condition{Type: "Programmed", Status: statusTrue, Reason: reasonNothing,
			Message: "No kernel holds a Tenant as such.", ObservedGeneration: generation}
	case *model.Host:
		kernels = hostProgrammed(s.host(r.Metadata.Name), generation)
	default:
		st.Rollout = &weftv1.Rollout{Desired: int32(roll.Desired), Current: int32(roll.Current), Failing: int32(failing(roll)), OldestLag: lagText(roll.OldestLag)}
		kernels = programmed(roll, generation)
	}
	st.Conditions = append(st.Conditions, kernels)
	degraded := &weftv1.Condition{Type: "Degraded", Status: statusFalse, Reason: reasonHealthy, ObservedGeneration: generation}
	if len(roll.Failures) > 0 {
		degraded.Status, degraded.Reason, degraded.Message = statusTrue, reasonHostsFail, failureText(texts(roll.Failures))
	}
	switch r := r.(type) {
	case *model.Host:
		s.hostView(r, st, degraded)
	case *model.Port:
		s.portView(r, st, kernels, degraded)
		st.Conditions = append(st.Conditions, s.guestCondition(r))
	case *model.ProviderAddress:
		addressView(r, st, degraded)
	case *model.VirtualNetwork:
		st.Index = uint32(r.Index)
	case *model.LookupRecord:
		st.Derived, st.Rule = r.Derived, "Encap"
		if r.Rewrite {
			st.Rule = "Rewrite"
		}
	}
	st.Conditions = append(st.Conditions, degraded)
	if !st.Derived { // what it follows from has them
		s.changes.note(model.KeyOf(r), []*weftv1.Condition{kernels, degraded}, time.Now())
	}
	return st
}

// rolloutKey is what the hosts' acknowledgements are counted by: a derived record is
// programmed when what it follows from is.
func (s *viewer) rolloutKey(r model.Resource) model.Key {
	k := model.KeyOf(r)
	if l, ok := r.(*model.LookupRecord); ok && l.Derived {
		kind, rest, _ := strings.Cut(k.Name, ":")
		source, _, _ := strings.Cut(rest, ":")
		k.Kind, k.Name = model.KindPort, source
		if kind == "gateway" {
			k.Kind = model.KindVirtualSubnet
		}
	}
	return k
}

// programmed is true only when every host concerned has acknowledged.
func programmed(roll dist.Status, generation int64) *weftv1.Condition {
	c := &weftv1.Condition{Type: "Programmed", Status: statusFalse, ObservedGeneration: generation}
	switch {
	case len(roll.Failures) > 0:
		c.Reason, c.Message = reasonHostsFail, failureText(texts(roll.Failures))
	case roll.Desired == 0:
		c.Status, c.Reason, c.Message = statusTrue, reasonNoHost, "No host needs this now."
	case roll.Current < roll.Desired:
		c.Reason = reasonRollingOut
		c.Message = fmt.Sprintf("%d of %d hosts have it.", roll.Current, roll.Desired)
	default:
		c.Status, c.Reason, c.Message = statusTrue, reasonAllHosts, "Every host concerned has acknowledged it."
	}
	return c
}

// hostProgrammed is true only when the host has acknowledged all that concerns it.
func hostProgrammed(h dist.HostState, generation int64) *weftv1.Condition {
	c := &weftv1.Condition{Type: "Programmed", Status: statusFalse, ObservedGeneration: generation}
	switch {
	case h.Owes && !h.Connected:
		c.Reason, c.Message = reasonHostAway, "The host has not acknowledged all that concerns it, and its agent is not connected."
	case h.Owes:
		c.Reason, c.Message = reasonRollingOut, "The host has not acknowledged all that concerns it yet."
	case len(h.Failures) > 0:
		c.Reason, c.Message = reasonHostsFail, failureText(texts(h.Failures))
	default:
		c.Status, c.Reason, c.Message = statusTrue, reasonAllHosts, "The host has acknowledged all that concerns it."
	}
	return c
}

func failureText(failures []string) string {
	text := strings.Join(failures[:min(len(failures), maxFailuresNamed)], "; ")
	if n := len(failures) - maxFailuresNamed; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return text
}

// texts of failures for people.
func texts(failures []dist.Failure) []string {
	out := make([]string, 0, len(failures))
	for _, f := range failures {
		out = append(out, fmt.Sprintf("host %s: %s: %s: %s", f.Host, f.Key, f.Reason, f.Message))
	}
	return out
}

// failing counts the hosts that said they could not.
func failing(roll dist.Status) int {
	hosts := map[string]struct{}{}
	for _, f := range roll.Failures {
		hosts[f.Host] = struct{}{}
	}
	return len(hosts)
}

func lagText(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return d.Round(time.Millisecond).String()
}

func degrade(c *weftv1.Condition, reason, message string) {
	c.Status, c.Reason, c.Message = statusTrue, reason, message
}

// networkOf gives the index of the network that a port is in; 0: none.
func networkOf(state *intent.State, p *model.Port) model.NetworkIndex {
	r, _ := state.Get(model.Key{Kind: model.KindVirtualSubnet, Ref: model.Ref{Tenant: p.Metadata.Tenant, Name: p.Spec.Subnet}})
	subnet, ok := r.(*model.VirtualSubnet)
	if !ok {
		return 0
	}
	r, _ = state.Get(model.Key{Kind: model.KindVirtualNetwork, Ref: model.Ref{Tenant: p.Metadata.Tenant, Name: subnet.Spec.Network}})
	if n, ok := r.(*model.VirtualNetwork); ok {
		return n.Index
	}
	return 0
}

func (s *viewer) portView(p *model.Port, st *weftv1.Status, programmed, degraded *weftv1.Condition) {
	st.Index, st.Host = uint32(p.ID), p.Host()
	for _, pa := range p.RewriteAddresses {
		st.RewriteAddresses = append(st.RewriteAddresses, pa.String())
	}
	for _, ca := range p.Learned {
		st.Learned = append(st.Learned, ca.String())
	}
	if st.Host == "" {
		degraded.Reason, degraded.Message = reasonNotPlaced, "The port is on no host yet; `weft plug` places it."
		return
	}
	if plugged, known := s.dist.HasDevice(st.Host, p.ID); known && !plugged && programmed.Status == statusTrue {
		programmed.Reason = reasonNotPlugged
		programmed.Message = fmt.Sprintf("Every host concerned has acknowledged it, but no device is plugged into the port on host %s: `weft plug %s`.", st.Host, p.Metadata.Ref())
	}
	hasPA, network := false, model.NetworkIndex(0)
	s.policy.read(func(state *intent.State) {
		hasPA, network = state.PAOf(st.Host).IsValid(), networkOf(state, p)
	})
	st.Mtu = s.dist.MTU(st.Host, network)
	if !hasPA {
		degrade(degraded, reasonNoPA, fmt.Sprintf("Host %s has no Provider Address, so no other host reaches this port.", st.Host))
	}
}

// addressView shows what duplicate address detection says, and that an address is not
// used because of it.
func addressView(r *model.ProviderAddress, st *weftv1.Status, degraded *weftv1.Condition) {
	st.AddressState = string(r.State)
	switch {
	case r.State == model.AddressDuplicate:
		if !r.Owner.IsZero() {
			st.DuplicateOwner = r.Owner.String()
		}
		degrade(degraded, reasonDuplicate, duplicateText(r))
	case !r.State.Usable():
		degrade(degraded, reasonUnusable, fmt.Sprintf("The address is %s on host %s: no other host sends to it until it is Preferred.", r.State, r.Spec.Host))
	}
}

func duplicateText(r *model.ProviderAddress) string {
	who := "another machine"
	if !r.Owner.IsZero() {
		who = "the machine with MAC " + r.Owner.String()
	}
	return fmt.Sprintf("%s has %s as well as host %s: nobody uses the address until one of the two gives it up.", who, r.Spec.Address, r.Spec.Host)
}

func (s *viewer) hostView(h *model.Host, st *weftv1.Status, degraded *weftv1.Condition) {
	name := h.Metadata.Name
	host := s.host(name)
	st.Connected, st.AgentVersion, st.AcknowledgedRevision = host.Connected, host.Version, host.Acknowledged
	var duplicates []string
	s.policy.read(func(state *intent.State) {
		st.RewriteInUse = uint32(state.RewritesInUse(name))
		for _, pa := range state.PAsOf(name) {
			st.ProviderAddresses = append(st.ProviderAddresses, pa.Spec.Address.String())
			if pa.State == model.AddressDuplicate {
				duplicates = append(duplicates, duplicateText(pa))
			}
		}
	})
	switch problems := s.problems.of(name); {
	case !host.Connected:
		degrade(degraded, reasonHostAway, "The agent is not connected; the host forwards by the last policy it received.")
	case len(duplicates) > 0:
		degrade(degraded, reasonDuplicate, failureText(duplicates))
	case len(problems) > 0:
		degrade(degraded, reasonHostFacts, failureText(problems))
	case len(host.Failures) > 0:
		degrade(degraded, reasonHostsFail, failureText(texts(host.Failures)))
	}
}

func (s *viewer) hostStatus(st *intent.State, name string) *weftv1.HostStatus {
	h := s.host(name)
	out := &weftv1.HostStatus{Name: name, Connected: h.Connected, SentRevision: h.Sent, AcknowledgedRevision: h.Acknowledged,
		Ports: int32(h.Ports), Records: int32(h.Records), Lag: lagText(h.Lag), Failures: texts(h.Failures), AgentVersion: h.Version, Decap: h.Facts.GetDecap()}
	out.Failures = append(out.Failures, s.problems.of(name)...)
	for _, pa := range st.PAsOf(name) {
		out.ProviderAddresses = append(out.ProviderAddresses, pa.Spec.Address.String())
	}
	return out
}
