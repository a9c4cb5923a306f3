package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What a change of rules would mean for the flows of the last hour is said before it is applied: at ports without rules
// and with them, for what was allowed and for what was denied.
func flowsAreTried(w *world) {
	file := filepath.Join(w.t.TempDir(), "policy.yaml")
	send := func(times int, to, port string) {
		w.t.Helper()
		for range times {
			if r := w.On("red/web-1", "bash", "-c", "echo x > /dev/udp/"+to+"/"+port); r.Code != 0 {
				w.t.Fatalf("%s: %s", r.Line, r.Words)
			}
		}
	}
	// says waits until the difference to a manifest has lines with all these words, and as many as these.
	says := func(text string, lines ...[]string) {
		w.t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.Poll("the flows", func() error {
			r := w.Weft("diff", "-f", file)
			if r.Code != 3 {
				return fmt.Errorf("%s: exit %d: %s", r.Line, r.Code, r.Words)
			}
			_, flows, _ := strings.Cut(r.Out, "flows of the last hour")
			for _, words := range lines {
				if !hasLine(flows, words) {
					return fmt.Errorf("no line with %v:\n%s%s", words, flows, r.Words)
				}
			}
			if n := strings.Count(flows, "red/web-2 ") + strings.Count(flows, "red/db-1 "); n != len(lines) && text != alone {
				return fmt.Errorf("%d flows, want %d:\n%s", n, len(lines), flows)
			}
			return nil
		})
	}
	send(2, "10.0.0.6", "5353")
	send(1, "10.0.1.5", "53")
	if r := w.On("red/web-1", "ping", "-n", "-c1", "-W2", "10.0.0.6"); r.Code != 0 {
		w.t.Errorf("%s: %s", r.Line, r.Out)
	}
	// The ports have no rules yet. A ping stays allowed, its answer too.
	before := w.Policy()
	says(alone,
		[]string{"h1", "red/web-1", "outbound", "udp", "10.0.0.6:5353", "allowed", "denied: ISOLATED"},
		[]string{"h2", "red/web-2", "inbound", "udp", "10.0.0.5:*", "10.0.0.6:5353", "allowed", "denied: ISOLATED"})
	says(guarded,
		[]string{"h2", "red/web-2", "inbound", "udp", "10.0.0.6:5353", "10.0.0.5:*", "2+", "allowed", "denied by red/guard default inbound"},
		[]string{"h2", "red/db-1", "inbound", "udp", "10.0.1.5:53", "10.0.0.5:*", "1+", "allowed", "denied by red/guard no-dns (" + file + ":6)"})
	w.Same("policy, after a difference", before, w.Policy())

	w.Must("apply", "-f", file, "--wait")
	send(5, "10.0.0.6", "80")
	// Rules are there: what they have denied is counted to the packet.
	says(strings.Replace(guarded, "name: no-web, direction: inbound, action: deny", "name: web, direction: inbound, action: allow", 1),
		[]string{"red/web-2", "inbound", "udp", "10.0.0.6:80", "10.0.0.5:*", "5 ", "denied by red/guard no-web (" + file + ":7)", "allowed by red/guard web (" + file + ":7)"})
	w.done(w.Apply(demo(w.t), "--wait"))
	w.Must("delete", "acl", "red/guard")
	w.Verified()
}

// alone makes a port that others have talked to reach nobody of its subnet.
const alone = `kind: Port
metadata: {tenant: red, name: web-2}
spec:
  subnet: web
  mac: "02:00:00:00:00:02"
  addresses: [10.0.0.6, "fd00:a::6"]
  host: h2
  isolation: {mode: isolated}
`

// hasLine finds a line with all words.
func hasLine(text string, words []string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}
