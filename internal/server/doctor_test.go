package server

import (
	"strings"
	"testing"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/dist"
)

func TestFindingsOfTheServer(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		found          *weftv1.Finding
		severity, text string
	}{
		{authorityFinding(later(-time.Hour), now), severityFail, "ended at 2025-12-31T23:00:00Z"},
		{authorityFinding(later(100*24*time.Hour), now), severityWarn, "100 days"},
		{authorityFinding(later(1000*24*time.Hour), now), severityOK, "2028-09-27"},
		{skewFinding("h1", later(50*time.Millisecond), now, later(100*time.Millisecond)), severityOK, "0s"},
		{skewFinding("h1", later(-3*time.Second), now, now), severityWarn, "3s"},
		{skewFinding("h1", later(time.Hour), now, now), severityFail, "1h0m0s"},
		{behindFinding("h1", dist.HostState{Lag: time.Minute, Acknowledged: 3, Sent: 7}), severityWarn, "revision 3 of 7"},
		{behindFinding("h1", dist.HostState{Lag: time.Second, Sent: 7}), severityOK, "on its way"},
		{behindFinding("h1", dist.HostState{}), severityOK, "up to date"},
	} {
		if c.found.GetSeverity() != c.severity || !strings.Contains(c.found.GetText(), c.text) || (c.severity == severityOK) != (c.found.GetAction() == "") {
			t.Errorf("want %s %q, have %v", c.severity, c.text, c.found)
		}
	}
}

func TestUnderlaysOfDifferentSizeAreTold(t *testing.T) {
	host := func(name string, mtu uint32) dist.HostState {
		return dist.HostState{Name: name, Facts: &hostv1.Facts{UnderlayMtu: mtu}}
	}
	if f := mtuFinding([]dist.HostState{host("h1", 9000), host("h2", 9000), {Name: "h3"}}); f.GetSeverity() != severityOK {
		t.Errorf("alike: %v", f)
	}
	f := mtuFinding([]dist.HostState{host("h2", 9000), host("h1", 9000), host("h3", 1500)})
	if f.GetSeverity() != severityWarn || !strings.Contains(f.GetText(), "1500 on 1 hosts (h3); 9000 on 2 hosts (h1, h2)") {
		t.Errorf("different: %v", f)
	}
}
