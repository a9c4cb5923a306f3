package intent

import (
	"fmt"

	"github.com/weft-sdn/weft/internal/model"
)

// AdmitBinding judges that a device for the port ref appeared on host. Where
// spec.host says where the port is, nothing changes; elsewhere the first plug decides.
func AdmitBinding(s *State, ref model.Ref, host string) (*Result, []Violation) {
	p, v := bindable(s, ref)
	if p == nil {
		return nil, v
	}
	k := model.KeyOf(p)
	if _, ok := s.Get(hostKey(host)); !ok {
		return nil, conflict(k, "", "host %q does not exist in policy", host)
	}
	switch {
	case p.Host() == host:
		return unchanged(s, p), nil
	case p.Spec.Host != "":
		return nil, conflict(k, "spec.host", "is %q; the port cannot be plugged on %q: plug it there, or change spec.host to %q first", p.Spec.Host, host, host)
	case p.BoundHost != "":
		return nil, conflict(k, "boundHost", "is %q; unplug the port there before plugging it on %q, or set spec.host to %q", p.BoundHost, host, host)
	}
	return bind(s, p, host)
}

// AdmitUnbinding judges that the device for the port ref left host for good.
// A port that is nowhere, or that spec.host keeps there, stays as it is; a port of
// another host is not host's to give back.
func AdmitUnbinding(s *State, ref model.Ref, host string) (*Result, []Violation) {
	p, v := bindable(s, ref)
	if p == nil {
		return nil, v
	}
	if at := p.Host(); at != "" && at != host {
		return nil, conflict(model.KeyOf(p), "", "is on host %q and not on %q, which cannot unbind it", at, host)
	}
	switch {
	case p.BoundHost == host:
		return bind(s, p, "")
	case p.Host() == host && len(p.Learned) > 0:
		return bind(s, p, p.BoundHost) // the guest is gone, and what was learned of it
	}
	return unchanged(s, p), nil
}

func bindable(s *State, ref model.Ref) (*model.Port, []Violation) {
	k := model.Key{Kind: model.KindPort, Ref: ref}
	p, ok := s.get(k).(*model.Port)
	if !ok {
		return nil, []Violation{{Key: k, Message: "does not exist; apply it first", Reason: Missing}}
	}
	return p, nil
}

func conflict(k model.Key, field, format string, args ...any) []Violation {
	return []Violation{{k, field, fmt.Sprintf(format, args...), Conflict}}
}

func unchanged(s *State, p *model.Port) *Result {
	return &Result{Changes: []Change{{Unchanged, model.KeyOf(p), p, p}}, Cursors: s.cursors}
}

func bind(s *State, p *model.Port, host string) (*Result, []Violation) {
	next, k := portRules{}.clone(p).(*model.Port), model.KeyOf(p)
	next.BoundHost = host
	if host == "" {
		next.Learned = nil
	}
	a := newAdmission(s, Allocator{})
	a.puts[k] = next
	if subnet, ok := s.get(subnetKey(p.Metadata.Tenant, p.Spec.Subnet)).(*model.VirtualSubnet); ok {
		a.keepRewrites(next, subnet)
		a.allocateRewrites(next, subnet)
	}
	if host != "" {
		a.children[hostKey(host)] = append(a.children[hostKey(host)], k)
		a.checkMinimum(next)
	}
	if len(a.violations) > 0 {
		return nil, a.report()
	}
	return &Result{Changes: []Change{{Updated, k, p, next}}, Puts: []model.Resource{next}, Cursors: s.cursors}, nil
}
