package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

func (e *examination) only(t *testing.T, severity, text string) {
	t.Helper()
	if len(e.findings) != 1 || e.findings[0].GetSeverity() != severity || !strings.Contains(e.findings[0].GetText(), text) ||
		(severity == severityOK) != (e.findings[0].GetAction() == "") {
		t.Errorf("want %s %q, have %v", severity, text, e.findings)
	}
}

func TestCertificateFindings(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		until          time.Time
		severity, text string
	}{
		{time.Time{}, severityFail, "has not joined"},
		{now.Add(-time.Hour), severityFail, "ended at 2025-12-31T23:00:00Z"},
		{now.Add(6 * 24 * time.Hour), severityFail, "ends in 144h"},
		{now.Add(30 * 24 * time.Hour), severityWarn, "ends in 30 days"},
		{now.Add(90 * 24 * time.Hour), severityOK, "90 days"},
	} {
		e := &examination{host: "h1"}
		e.certificate(c.until, now)
		e.only(t, c.severity, c.text)
	}
}

func TestKernelFindings(t *testing.T) {
	for release, severity := range map[string]string{"6.5.0-1": severityFail, "5.15.0": severityFail, "6.6": severityOK, "6.18.3-amd64": severityOK, "7.3.0": severityOK, "": severityFail} {
		e := &examination{}
		e.kernel(release)
		e.only(t, severity, release)
	}
}

func TestUplinkFindings(t *testing.T) {
	tap, veth := table.NewSet(), table.NewSet()
	tap.Ports[3], veth.Ports[3] = table.Port{IfIndex: 3}, table.Port{IfIndex: 3, Peer: true}
	for _, c := range []struct {
		decap          string
		want           table.Set
		severity, text string
	}{
		{"", veth, severityFail, "on no uplink"},
		{"eth0=tcx", tap, severityWarn, "taps get large TCP segments cut"},
		{"eth0=tcx", veth, severityOK, "veth"},
		{"eth0=tcx+dx2", tap, severityOK, "detour"},
		{"eth0=tcx+veth", tap, severityOK, "veth pair"},
		{"eth0=tcx+vxlan", tap, severityOK, "vxlan device"},
		{"eth0=tcx+gre", tap, severityOK, "nothing is better"},
		{"eth0=xdp", tap, severityOK, "before GRO"},
	} {
		e := &examination{}
		e.decap(&view{want: c.want, facts: facts{decap: c.decap}})
		e.only(t, c.severity, c.text)
	}
}

func TestPathFindings(t *testing.T) {
	from, to := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for got, want := range map[int]string{0: "does not answer", 1400: "1500 bytes from 192.0.2.1 to 192.0.2.2 are lost, 1400 bytes pass"} {
		e := &examination{}
		if good := e.judge(from, map[netip.Addr]int{to: 1500}, map[netip.Addr]int{to: got}); good != 0 {
			t.Errorf("%d of 1500 bytes are well", got)
		}
		e.only(t, severityFail, want)
	}
	e := &examination{}
	if good := e.judge(from, map[netip.Addr]int{to: 1500}, map[netip.Addr]int{to: 1500}); good != 1 || len(e.findings) != 0 {
		t.Errorf("a good path: %v", e.findings)
	}
}

func TestNextHopFindings(t *testing.T) {
	pa := netip.MustParseAddr("192.0.2.2")
	e := &examination{}
	e.nextHops(map[netip.Addr]table.Peer{pa: {PA: pa}}, 1500)
	e.only(t, severityFail, "no route")
	e = &examination{}
	e.nextHops(map[netip.Addr]table.Peer{pa: {PA: pa, IfIndex: 2}}, 1500)
	e.only(t, severityWarn, "no link-layer address")
	e = &examination{}
	e.nextHops(map[netip.Addr]table.Peer{pa: {PA: pa, IfIndex: 2, NextHop: [6]byte{2}, MTU: 1400}}, 1500)
	if n := len(e.findings); n != 2 || e.findings[1].GetSeverity() != severityOK {
		t.Errorf("a narrow path is a way: %v", e.findings)
	}
	e.findings = e.findings[:1]
	e.only(t, severityWarn, "carries 1400 bytes, the uplinks 1500")
}

func TestCanaryFindings(t *testing.T) {
	from, to := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for c, want := range map[netdev.Canary]string{
		{Software: true, Device: true, Corrupt: true}: "taken for right",
		{Software: true}: "arrives wrong",
	} {
		e := &examination{}
		if known, well := e.canary(from, to, c); !known || well {
			t.Errorf("%+v: known %v, well %v", c, known, well)
		}
		e.only(t, severityFail, want)
	}
	for c, want := range map[netdev.Canary]bool{{Software: true, Device: true}: true, {Device: true}: false, {}: false} {
		e := &examination{}
		if known, well := e.canary(from, to, c); known != want || !well || len(e.findings) != 0 {
			t.Errorf("%+v: known %v, well %v, %v", c, known, well, e.findings)
		}
	}
}

func TestProbesStayInTheirFamily(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fd00::2")
	all := map[netip.Addr]int{four: 1500, six: 1500}
	if got := ofFamily(all, netip.MustParseAddr("fd00::1")); len(got) != 1 || got[six] != 1500 || len(all) != 2 {
		t.Errorf("%v of %v", got, all)
	}
}
