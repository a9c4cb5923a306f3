package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/dist"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// Limits of the doctor. A host probes its peers with real packets, which takes
// seconds where they are lost.
const (
	examineTimeout  = 50 * time.Second
	skewWarn        = 2 * time.Second
	skewFail        = 2 * time.Minute // certificates are dated back by 5
	lagWarn         = 10 * time.Second
	authorityWarn   = 365 * 24 * time.Hour // hosts' certificates never outlive it
	maxPortsNamed   = 5
	severityOK      = "ok"
	severityWarn    = "warn"
	severityFail    = "fail"
	checkConnection = "connection"
)

// severities in the order in which people want them.
var severities = map[string]int{severityFail: 0, severityWarn: 1, severityOK: 2}

// Doctor examines the hosts, each by its own agent, and without a host named also
// the server and policy.
func (s operateService) Doctor(ctx context.Context, req *connect.Request[weftv1.DoctorRequest]) (*connect.Response[weftv1.DoctorResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	hosts, err := s.hostsAsked(req.Msg.GetHost())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	var findings []*weftv1.Finding
	if req.Msg.GetHost() == "" {
		findings = s.serverFindings(time.Now())
	}
	if req.Msg.GetHost() == "" {
		findings = append(findings, mtuFinding(s.dist.Hosts()))
	}
	findings = append(findings, s.hostFindings(ctx, hosts)...)
	slices.SortStableFunc(findings, func(a, b *weftv1.Finding) int { return severities[a.Severity] - severities[b.Severity] })
	return connect.NewResponse(&weftv1.DoctorResponse{Findings: findings}), nil
}

func finding(host, check, severity, action, format string, args ...any) *weftv1.Finding {
	return &weftv1.Finding{Host: host, Check: check, Severity: severity, Action: action, Text: fmt.Sprintf(format, args...)}
}

// serverFindings are about the store, the authority and ports that are nowhere.
func (s operateService) serverFindings(now time.Time) []*weftv1.Finding {
	out := []*weftv1.Finding{s.storeFinding(), authorityFinding(s.authority.Until(), now)}
	var nowhere []string
	ports := 0
	s.policy.read(func(st *intent.State) {
		for _, r := range st.List(model.KindPort, "") {
			ports++
			if r.(*model.Port).Host() == "" {
				nowhere = append(nowhere, r.Meta().Ref().String())
			}
		}
	})
	if len(nowhere) == 0 {
		return append(out, finding("", "ports", severityOK, "", "all %d ports have a host", ports))
	}
	names := strings.Join(nowhere[:min(len(nowhere), maxPortsNamed)], ", ")
	return append(out, finding("", "ports", severityWarn, "weft plug places a port; delete those that nobody needs",
		"%d of %d ports are on no host: %s", len(nowhere), ports, names))
}

// mtuFinding compares the underlays of all hosts. Guests get what their own host's carries;
// packets to a host with less are refused with an ICMP error, or lost where nobody tells.
func mtuFinding(hosts []dist.HostState) *weftv1.Finding {
	of := map[uint32][]string{}
	for _, h := range hosts {
		if mtu := h.Facts.GetUnderlayMtu(); mtu != 0 {
			of[mtu] = append(of[mtu], h.Name)
		}
	}
	if len(of) <= 1 {
		return finding("", "mtu", severityOK, "", "all hosts that said so have the same MTU on the underlay")
	}
	var words []string
	for _, mtu := range slices.Sorted(maps.Keys(of)) {
		slices.Sort(of[mtu])
		names := strings.Join(of[mtu][:min(len(of[mtu]), maxPortsNamed)], ", ")
		words = append(words, fmt.Sprintf("%d on %d hosts (%s)", mtu, len(of[mtu]), names))
	}
	return finding("", "mtu", severityWarn, "give the underlay devices of all hosts the same MTU",
		"the underlay's MTU differs: %s", strings.Join(words, "; "))
}

func (s operateService) storeFinding() *weftv1.Finding {
	if _, err := s.policy.ready(); err != nil {
		return finding("", "store", severityFail, "bring the store back (docs/runbook/server-and-store.md); hosts forward meanwhile, nothing can be changed",
			"%s: %v", s.policy.store.Where(), err)
	}
	return finding("", "store", severityOK, "", "%s is healthy", s.policy.store.Where())
}

func authorityFinding(until, now time.Time) *weftv1.Finding {
	left := until.Sub(now)
	const action = "make a new authority and let all hosts join again before it ends"
	switch {
	case left <= 0:
		return finding("", "certificate", severityFail, action, "the certificate authority ended at %s", until.UTC().Format(time.RFC3339))
	case left < authorityWarn:
		return finding("", "certificate", severityWarn, action, "the certificate authority ends in %d days", int(left/(24*time.Hour)))
	}
	return finding("", "certificate", severityOK, "", "the certificate authority is valid until %s", until.UTC().Format(time.DateOnly))
}

// hostFindings asks the hosts, some at a time, in the order of the hosts.
func (s operateService) hostFindings(ctx context.Context, hosts []string) []*weftv1.Finding {
	states := map[string]dist.HostState{}
	for _, h := range s.dist.Hosts() {
		states[h.Name] = h
	}
	found := make([][]*weftv1.Finding, len(hosts))
	slots := make(chan struct{}, maxQueries)
	var wg sync.WaitGroup
	for i, h := range hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			found[i] = s.examineHost(ctx, h, states[h])
		})
	}
	wg.Wait()
	return slices.Concat(found...)
}

func (s operateService) examineHost(ctx context.Context, host string, state dist.HostState) []*weftv1.Finding {
	out := s.policyFindings(host, state)
	if !state.Connected {
		return append(out, finding(host, checkConnection, severityFail, "docs/runbook/agent-restart.md: is the agent running, does it reach the server? weft doctor on the host itself examines the rest",
			"the agent is not connected; the host forwards by the last policy it received"))
	}
	out = append(out, behindFinding(host, state))
	if state.Version != s.version {
		out = append(out, finding(host, "version", severityWarn, "docs/runbook/upgrade.md", "the agent is version %q, the server %q", state.Version, s.version))
	}
	asked := time.Now()
	clock, err := s.examineBy(ctx, host, &hostv1.ExamineQuery{Clock: true})
	if err != nil {
		return append(out, unexamined(host, err))
	}
	out = append(out, skewFinding(host, time.Unix(0, clock.GetTimeUnixNano()), asked, time.Now()))
	answer, err := s.examineBy(ctx, host, &hostv1.ExamineQuery{})
	if err != nil {
		return append(out, unexamined(host, err))
	}
	for _, f := range answer.GetFindings() {
		f.Host = host // a host speaks for itself alone
		if _, known := severities[f.GetSeverity()]; !known {
			f.Severity = severityWarn
		}
		out = append(out, f)
	}
	return out
}

func unexamined(host string, err error) *weftv1.Finding {
	return finding(host, checkConnection, severityFail, "weft doctor on the host itself asks the agent directly", "the host was not examined: %v", err)
}

func (s operateService) examineBy(ctx context.Context, host string, q *hostv1.ExamineQuery) (*hostv1.ExamineAnswer, error) {
	a, err := s.dist.Query(ctx, host, &hostv1.Query{Query: &hostv1.Query_Examine{Examine: q}})
	if err != nil {
		return nil, err
	}
	if a.GetExamine() == nil {
		return nil, errors.New("its agent gave no answer to the question")
	}
	return a.GetExamine(), nil
}

// policyFindings is what policy lacks for the host.
func (s operateService) policyFindings(host string, state dist.HostState) (out []*weftv1.Finding) {
	s.policy.read(func(st *intent.State) {
		if !st.PAOf(host).IsValid() {
			out = append(out, finding(host, "provider address", severityFail, "the agent reports the host's addresses by itself when it finds one: give the uplink an IPv4 address, or apply a ProviderAddress",
				"policy has no Provider Address of the host: no other host reaches its %d ports", state.Ports))
		}
	})
	for _, problem := range s.problems.of(host) {
		out = append(out, finding(host, "provider address", severityFail, "correct the host's addresses or the ProviderAddress in policy", "%s", problem))
	}
	return out
}

func behindFinding(host string, state dist.HostState) *weftv1.Finding {
	switch {
	case state.Lag > lagWarn:
		return finding(host, "revision", severityWarn, "weft status shows what fails on the host", "the host has not acknowledged changes for %s (revision %d of %d)",
			lagText(state.Lag), state.Acknowledged, state.Sent)
	case state.Lag > 0:
		return finding(host, "revision", severityOK, "", "revision %d is on its way", state.Sent)
	}
	return finding(host, "revision", severityOK, "", "up to date")
}

// skewFinding compares the host's clock with the middle of the question and the answer.
func skewFinding(host string, theirs, asked, answered time.Time) *weftv1.Finding {
	skew := theirs.Sub(asked.Add(answered.Sub(asked) / 2)).Abs()
	const action = "let NTP keep the clocks of hosts and server"
	text := "the host's clock and the server's differ by %s"
	switch {
	case skew > skewFail:
		return finding(host, "clock", severityFail, action, text, skew.Round(time.Second))
	case skew > skewWarn:
		return finding(host, "clock", severityWarn, action, text, skew.Round(time.Millisecond))
	}
	return finding(host, "clock", severityOK, "", text, skew.Round(time.Millisecond))
}
