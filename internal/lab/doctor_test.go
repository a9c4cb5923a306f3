package lab

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The doctor measures what the underlay really carries, and hears the canary, when the
// router of the lab is made a bad one.
func TestDoctorExaminesTheUnderlay(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "d")
	if err := l.Up(ctx, options(t, demoSpec(t))); err != nil {
		t.Fatal(err)
	}
	doctor := func(wrong ...string) {
		t.Helper()
		out, err := l.weft(ctx, "doctor").CombinedOutput()
		if (err == nil) != (len(wrong) == 0) {
			t.Errorf("weft doctor: %v\n%s", err, out)
		}
		for _, w := range wrong {
			if !regexp.MustCompile(w).Match(out) {
				t.Errorf("want %q in\n%s", w, out)
			}
		}
	}
	doctor()
	if out, code := l.in("router", "", "ip", "link", "set", "dev", "n1", "mtu", "1400"); code != 0 {
		t.Fatal(out)
	}
	// 4 bytes more, which a veth leaves for a VLAN tag; away from the router all of h2's are refused.
	doctor(`fail +h1 +path +packets of 1500 bytes from 198.18.1.2 to 198.18.2.2 are lost, 1404 bytes pass`,
		`fail +h2 +path +packets of 1500 bytes from 198.18.2.2 to 198.18.1.2 are lost, 1400 bytes pass`)
	l.in("router", "", "ip", "link", "set", "dev", "n1", "mtu", "1500")
	repair := exec.CommandContext(ctx, weftd, "lab", "exec", "--name", l.name, "router", "--", "nft", "-f", "-")
	repair.Stdin = strings.NewReader("table ip t { chain f { type filter hook forward priority 0; udp dport 33433 udp checksum set 0; }; }")
	if out, err := repair.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	doctor(`fail +h1 +checksum +a datagram with a wrong checksum from 198.18.1.2 was taken for right at 198.18.2.2`)
}
