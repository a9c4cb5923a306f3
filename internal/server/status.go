package server

import (
	"fmt"
	"strings"
	"sync"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// Reasons of conditions; scripts may rely on them.
const (
	reasonAdmitted    = "Admitted"
	reasonAllHosts    = "AllHostsCurrent"
	reasonNoHost      = "NoHostConcerned"
	reasonRollingOut  = "RollingOut"
	reasonHostsFail   = "HostsFailing"
	reasonHealthy     = "Healthy"
	reasonNotPlugged  = "NotPlaced"
	reasonNoPA        = "HostHasNoProviderAddress"
	reasonHostAway    = "HostNotConnected"
	reasonHostFacts   = "HostFactsContradictPolicy"
	statusTrue        = "True"
	statusFalse       = "False"
	encapsulationSize = 42 // outer IPv4, GRE and inner Ethernet (RFC 7637), which a guest's MTU leaves room for
	maxFailuresNamed  = 5
)

// facts is what hosts said of themselves, and what is wrong with it.
type facts struct {
	mu    sync.Mutex
	hosts map[string]hostFacts
}

type hostFacts struct {
	*hostv1.Facts
	problems []string
}

func (f *facts) set(host string, msg *hostv1.Facts, problems []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts[host] = hostFacts{msg, problems}
}

func (f *facts) of(host string) hostFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[host]
}

// view is r as people see it, with its status.
func (s *Server) view(r model.Resource) *weftv1.Resource {
	return writeResource(r, s.statusOf(r))
}

func (s *Server) statusOf(r model.Resource) *weftv1.Status {
	st := &weftv1.Status{}
	generation := r.Meta().Generation
	st.Conditions = []*weftv1.Condition{{Type: "Accepted", Status: statusTrue, Reason: reasonAdmitted,
		Message: "The resource is part of policy.", ObservedGeneration: generation}}
	if r.Kind() == model.KindTenant {
		return st
	}
	roll := s.dist.Status(s.rolloutKey(r))
	if r.Kind() != model.KindHost {
		st.Rollout = &weftv1.Rollout{Desired: int32(roll.Desired), Current: int32(roll.Current), Failing: int32(roll.Failing), OldestLag: lagText(roll.OldestLag)}
		st.Conditions = append(st.Conditions, programmed(roll, generation))
	}
	degraded := &weftv1.Condition{Type: "Degraded", Status: statusFalse, Reason: reasonHealthy, ObservedGeneration: generation}
	if len(roll.Failures) > 0 || roll.Failing > 0 {
		degraded.Status, degraded.Reason, degraded.Message = statusTrue, reasonHostsFail, failureText(roll.Failures)
	}
	switch r := r.(type) {
	case *model.Host:
		s.hostView(r, st, degraded)
	case *model.Port:
		s.portView(r, st, degraded)
	case *model.VirtualNetwork:
		st.Index = uint32(r.Index)
	case *model.LookupRecord:
		st.Derived = r.Derived
	}
	st.Conditions = append(st.Conditions, degraded)
	return st
}

// rolloutKey is what the hosts' acknowledgements are counted by: a derived record is
// programmed when what it follows from is.
func (s *Server) rolloutKey(r model.Resource) model.Key {
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
func programmed(roll Status, generation int64) *weftv1.Condition {
	c := &weftv1.Condition{Type: "Programmed", Status: statusFalse, ObservedGeneration: generation}
	switch {
	case roll.Failing > 0:
		c.Reason, c.Message = reasonHostsFail, failureText(roll.Failures)
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

func failureText(failures []string) string {
	text := strings.Join(failures[:min(len(failures), maxFailuresNamed)], "; ")
	if n := len(failures) - maxFailuresNamed; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return text
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

func (s *Server) portView(p *model.Port, st *weftv1.Status, degraded *weftv1.Condition) {
	st.Index, st.Host = uint32(p.ID), p.Host()
	if st.Host == "" {
		degraded.Reason, degraded.Message = reasonNotPlugged, "The port is on no host yet; `weft plug` places it."
		return
	}
	if mtu := s.facts.of(st.Host).GetUnderlayMtu(); mtu > encapsulationSize {
		st.Mtu = mtu - encapsulationSize
	}
	hasPA := false
	s.policy.read(func(state *intent.State) { hasPA = state.PAOf(st.Host).IsValid() })
	if !hasPA {
		degrade(degraded, reasonNoPA, fmt.Sprintf("Host %s has no Provider Address, so no other host reaches this port.", st.Host))
	}
}

func (s *Server) hostView(h *model.Host, st *weftv1.Status, degraded *weftv1.Condition) {
	name := h.Metadata.Name
	host := s.hostState(name)
	st.Connected, st.AgentVersion, st.AcknowledgedRevision = host.Connected, host.Version, host.Acknowledged
	s.policy.read(func(state *intent.State) {
		for _, pa := range state.PAsOf(name) {
			st.ProviderAddresses = append(st.ProviderAddresses, pa.Spec.Address.String())
		}
	})
	switch problems := s.facts.of(name).problems; {
	case !host.Connected:
		degrade(degraded, reasonHostAway, "The agent is not connected; the host forwards by the last policy it received.")
	case len(problems) > 0:
		degrade(degraded, reasonHostFacts, failureText(problems))
	case len(host.Failures) > 0:
		degrade(degraded, reasonHostsFail, failureText(host.Failures))
	}
}

func (s *Server) hostState(name string) HostState {
	for _, h := range s.dist.Hosts() {
		if h.Name == name {
			return h
		}
	}
	return HostState{Name: name}
}

func (s *Server) hostStatus(st *intent.State, name string) *weftv1.HostStatus {
	h := s.hostState(name)
	out := &weftv1.HostStatus{Name: name, Connected: h.Connected, SentRevision: h.Sent, AcknowledgedRevision: h.Acknowledged,
		Ports: int32(h.Ports), Records: int32(h.Records), Lag: lagText(h.Lag), Failures: h.Failures, AgentVersion: h.Version, Decap: h.Decap}
	out.Failures = append(out.Failures, s.facts.of(name).problems...)
	for _, pa := range st.PAsOf(name) {
		out.ProviderAddresses = append(out.ProviderAddresses, pa.Spec.Address.String())
	}
	return out
}
