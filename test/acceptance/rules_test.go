package acceptance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// guarded judges red/web-2 and red/db-1 by one list, in which two rules deny and one is stateful.
const guarded = `kind: AccessList
metadata: {tenant: red, name: guard}
spec:
  default: {inbound: deny}
  rules:
  - {name: no-dns, direction: inbound, action: deny, protocol: udp, localPorts: ["53"], weight: 10}
  - {name: no-web, direction: inbound, action: deny, protocol: udp, localPorts: ["80"], weight: 10}
  - {name: ping, direction: inbound, action: allow, protocol: icmp, stateful: true}
---
kind: Port
metadata: {tenant: red, name: web-2}
spec: {subnet: web, host: h2, accessLists: [guard]}
---
kind: Port
metadata: {tenant: red, name: db-1}
spec: {subnet: db, host: h2, accessLists: [guard]}
`

// Every drop of a rule is counted by port and rule, also where ports share their rules; a connection names the rule that
// opened it, and the line that this was written in.
func rulesAreNamed(w *world) {
	file := filepath.Join(w.t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(guarded), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.Must("apply", "-f", file, "--wait")
	send := func(times int, to, port string) {
		w.t.Helper()
		for range times {
			if r := w.On("red/web-1", "bash", "-c", "echo x > /dev/udp/"+to+"/"+port); r.Code != 0 {
				w.t.Fatalf("%s: %s", r.Line, r.Words)
			}
		}
	}
	send(3, "10.0.0.6", "53")
	send(2, "10.0.0.6", "80")
	send(1, "10.0.0.6", "99")
	send(4, "10.0.1.5", "53")
	denied := func(port string) map[string]int {
		w.t.Helper()
		var all struct {
			Drops []struct{ ReasonName, List, Rule, Source, Packets, Last string }
		}
		if err := json.Unmarshal([]byte(w.Must("drops", "--port", port, "-o", "json")), &all); err != nil {
			w.t.Fatal(err)
		}
		out := map[string]int{}
		for _, d := range all.Drops {
			if d.ReasonName == "ACL_DENIED" {
				out[d.List+" "+d.Rule+" "+strings.TrimPrefix(d.Source, file)], _ = strconv.Atoi(d.Packets)
			}
		}
		return out
	}
	for port, want := range map[string]map[string]int{
		"red/web-2": {"red/guard no-dns :6": 3, "red/guard no-web :7": 2, "red/guard default inbound ": 1},
		"red/db-1":  {"red/guard no-dns :6": 4},
	} {
		got := denied(port)
		for rule, n := range want {
			if got[rule] != n {
				w.t.Errorf("%s: %d drops by %s, want %d: %v", port, got[rule], rule, n, got)
			}
		}
	}
	if r := w.On("red/web-1", "ping", "-n", "-c2", "-i0.2", "-W2", "10.0.0.6"); r.Code != 0 {
		w.t.Errorf("%s: %s", r.Line, r.Out)
	}
	shown := w.Must("get", "connections", "-p", "red/web-2")
	if words := []string{"h2", "red/web-2", "inbound", "icmp", "10.0.0.6", "10.0.0.5", "confirmed", "red/guard ping (" + file + ":8)"}; !hasLine(shown, words) {
		w.t.Errorf("no line with %v:\n%s", words, shown)
	}
	// Under other rules it is not yet known whether the connection holds.
	w.done(w.Apply(strings.Replace(guarded, "10}", "11}", 1), "--wait"))
	if shown := w.Must("get", "connections", "-n", "red", "-o", "wide"); !strings.Contains(shown, "confirmed,stale") || !strings.Contains(shown, "LOST-HALF-OPEN") {
		w.t.Errorf("a connection of before is not stale:\n%s", shown)
	}
	w.done(w.Apply(demo(w.t), "--wait"))
	w.Must("delete", "acl", "red/guard")
	w.Verified()
}
