package lab

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// ill lists what is not well, "SEVERITY HOST CHECK".
func ill(findings []*weftv1.Finding) (out []string) {
	for _, f := range findings {
		if f.GetSeverity() != "ok" {
			out = append(out, f.GetSeverity()+" "+f.GetHost()+" "+f.GetCheck())
		}
	}
	return out
}

// examined is what the doctor says now; every finding that is not well says what to do.
func (l Lab) examined(t *testing.T) []*weftv1.Finding {
	t.Helper()
	answer, err := l.server().Operate().Doctor(t.Context(), connect.NewRequest(&weftv1.DoctorRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range answer.Msg.GetFindings() {
		if f.GetText() == "" || (f.GetSeverity() == "ok") != (f.GetAction() == "") {
			t.Errorf("finding %v", f)
		}
	}
	return answer.Msg.GetFindings()
}

func TestDoctor(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "d")
	if err := l.Up(ctx, options(t, demoSpec(t))); err != nil {
		t.Fatal(err)
	}
	well := l.examined(t)
	if bad := ill(well); len(bad) > 0 {
		t.Errorf("a fresh lab is ill: %v\n%v", bad, well)
	}
	seen := map[string]int{}
	for _, f := range well {
		seen[f.GetCheck()]++
	}
	for _, check := range []string{"kernel", "uplink", "guest mtu", "provider address", "certificate", "offload", "room", "path", "drift", "clock", "revision"} {
		if seen[check] < 2 {
			t.Errorf("%s was checked on %d hosts", check, seen[check])
		}
	}
	if out, code := l.in("h1", "", "weft", "doctor"); code != 0 || !strings.Contains(out, "answer full-size packets with DF") {
		t.Errorf("doctor: code %d\n%s", code, out)
	}

	// The underlay carries less than the hosts believe, in both directions.
	if out, code := l.in("router", "", "ip", "link", "set", "n2", "mtu", "1400"); code != 0 {
		t.Fatal(out)
	}
	out, code := l.in("h1", "", "weft", "doctor")
	for _, pair := range []string{"h1", "h2"} {
		if !regexp.MustCompile(`fail +` + pair + ` +path +packets of 1500 bytes from \S+ to \S+ are lost, 1400 bytes pass`).MatchString(out) {
			t.Errorf("a path that is too small, seen from %s:\n%s", pair, out)
		}
	}
	if code != exitFailed || !strings.Contains(out, "What to do:") {
		t.Errorf("code %d", code)
	}
	// From the router's answer to its probe the kernel of h1 has learnt what the path
	// carries; nobody told h2.
	if out, code := l.in("h1", "", "weft", "doctor", "--host", "h1"); code != 0 || !regexp.MustCompile(`warn +h1 +route +.* carries 1400 bytes, the uplinks 1500`).MatchString(out) || strings.Contains(out, " h2 ") {
		t.Errorf("doctor of h1: code %d\n%s", code, out)
	}
	if out, code := l.in("h2", "", "weft", "doctor", "--host", "h2", "-o", "json"); code != exitFailed || strings.Contains(out, `"h1"`) {
		t.Errorf("doctor of h2: code %d\n%s", code, out)
	}
	l.in("router", "", "ip", "link", "set", "n2", "mtu", "1500")
	l.in("h1", "", "ip", "route", "flush", "cache")
	l.becomes(t, "")

	// Nothing comes back at all.
	l.in("router", "", "ip", "link", "set", "n1", "down") // the host h1
	local, err := l.agent("h2").Agent().LocalDoctor(t.Context(), connect.NewRequest(&weftv1.LocalDoctorRequest{}))
	if err != nil || strings.Join(ill(local.Msg.GetFindings()), "; ") != "fail h2 path" {
		t.Errorf("a peer that is gone: %v %v", err, local)
	}
	l.in("router", "", "ip", "link", "set", "n1", "up")
	l.becomes(t, "")

	// A row is gone from a kernel.
	if out, code := l.in("h2", "", "sh", "-c", "bpftool map delete pinned $(ls "+l.pins()+"/h2/maps-*/record) key hex 89 13 00 00 00 00 00 00 00 00 00 00 00 00 ff ff 0a 00 00 05"); code != 0 {
		t.Fatal(out)
	}
	if got := strings.Join(ill(l.examined(t)), "; "); got != "fail h2 drift" {
		t.Errorf("a row is gone: %s", got)
	}
	// A host and a port that are only on paper.
	const paper = "kind: Host\nmetadata: {name: h9}\n---\nkind: Port\nmetadata: {tenant: red, name: spare}\nspec: {subnet: web}\n"
	if out, code := l.in("server", paper, "weft", "apply", "-f", "-"); code != 0 {
		t.Fatal(out)
	}
	out, _ = l.in("h1", "", "weft", "doctor")
	for _, want := range []string{`fail +h9 +provider address`, `fail +h9 +connection`, `warn +- +ports +1 of 9 ports are on no host: red/spare`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}

	// A host without its address.
	l.in("h2", "", "ip", "address", "flush", "dev", "eth0")
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = poll(short, func() error {
		local, err := l.agent("h2").Agent().LocalDoctor(t.Context(), connect.NewRequest(&weftv1.LocalDoctorRequest{}))
		if err != nil {
			return err
		}
		got := strings.Join(ill(local.Msg.GetFindings()), "; ")
		if !strings.Contains(got, "fail h2 provider address") {
			return &unlike{got, "fail h2 provider address"}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// becomes waits until that is all that is not well.
func (l Lab) becomes(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := poll(ctx, func() error {
		if got := strings.Join(ill(l.examined(t)), "; "); got != want {
			return &unlike{got, want}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

type unlike struct{ got, want string }

func (u *unlike) Error() string { return "have " + u.got + "\nwant " + u.want }
