package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// mirrored is a tenant whose port talk, on h1, is mirrored to near and far, on h1 and h2, while it talks with peer, on h2, and
// with stranger, on h1. All tenants have the same addresses.
type mirrored struct {
	name   string
	subnet string // spec of the subnet; "": the ports are on VLANs, and talk on a trunk
}

var allMirrored = []mirrored{{"nvgre", "transport: nvgre"}, {"vxlan", "transport: vxlan"}, {"rewrite", "transport: rewrite"}, {name: "vlan"}}

var mirrorGuests = []struct{ name, host string }{{"talk", "h1"}, {"stranger", "h1"}, {"near", "h1"}, {"peer", "h2"}, {"far", "h2"}}

func (m mirrored) onVLAN() bool { return m.subnet == "" }

// world is the manifest of all but talk.
func (m mirrored) world(w *bytes.Buffer) (guests []GuestSpec) {
	fmt.Fprintf(w, "---\nkind: Tenant\nmetadata: {name: %s}\n", m.name)
	if m.onVLAN() {
		fmt.Fprintf(w, "---\nkind: ExternalNetwork\nmetadata: {name: lan}\nspec: {interfaces: [{interface: lan0}], tenants: [%s]}\n", m.name)
	} else {
		fmt.Fprintf(w, "---\nkind: VirtualNetwork\nmetadata: {tenant: %[1]s, name: prod}\n---\nkind: VirtualSubnet\nmetadata: {tenant: %[1]s, name: web}\nspec: {network: prod, prefixes: [10.0.0.0/24], %[2]s}\n", m.name, m.subnet)
	}
	for i, g := range mirrorGuests {
		guests = append(guests, GuestSpec{Port: m.name + "/" + g.name})
		if g.name != "talk" {
			m.port(w, g.name, g.host, i, "")
		}
	}
	m.port(w, "off", "h1", len(mirrorGuests), "") // never plugged
	m.talk(w, "[]")
	return guests
}

func (m mirrored) port(w *bytes.Buffer, name, host string, i int, more string) {
	where := fmt.Sprintf("subnet: web, addresses: [10.0.0.%d]", 5+i)
	if m.onVLAN() {
		where = "vlan: {network: lan, mode: access, id: 10}"
		if name == "talk" {
			where = "vlan: {network: lan, mode: trunk, allowed: [\"20\"], native: 10}"
		}
	}
	fmt.Fprintf(w, "---\nkind: Port\nmetadata: {tenant: %s, name: %s}\nspec: {host: %s, %s%s}\n", m.name, name, host, where, more)
}

func (m mirrored) talk(w *bytes.Buffer, mirrors string) {
	m.port(w, "talk", "h1", 0, ", mirrors: "+mirrors)
}

// Mirrors of both directions, to the same host and another, with filters, cut and limited.
const talkMirrors = `[
  {destination: near, direction: outbound, protocol: udp, port: 17001, snapLength: 90},
  {destination: near, protocol: icmp},
  {destination: far, direction: inbound, protocol: icmp, prefix: 10.0.0.8/32},
  {destination: far, direction: outbound, protocol: udp, port: 17002, snapLength: 80, rateLimit: 20}]`

// dump is a tcpdump in a guest.
type dump struct {
	guest string
	mu    sync.Mutex
	lines []string
}

// tcpdump runs in a guest until the test ends.
func (l Lab) tcpdump(t *testing.T, ctx context.Context, g portRef) *dump {
	t.Helper()
	d := &dump{guest: g.String()}
	c := exec.CommandContext(ctx, "ip", "netns", "exec", l.guestSpace(g), "tcpdump", "-l", "--immediate-mode", "-s", "512", "-B", "8192", "-nn", "-e", "-i", "eth0")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	for s := bufio.NewScanner(says); ; {
		if !s.Scan() {
			t.Fatalf("tcpdump in %s does not listen: %v", g, s.Err())
		}
		if strings.HasPrefix(s.Text(), "listening on") {
			break
		}
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			d.mu.Unlock()
		}
	}()
	return d
}

// heard gives the lines that match all of the expressions.
func (d *dump) heard(expressions ...string) (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, line := range d.lines {
		all := true
		for _, e := range expressions {
			all = all && regexp.MustCompile(e).MatchString(line)
		}
		if all {
			out = append(out, line)
		}
	}
	return out
}

// until waits for so many.
func (d *dump) until(t *testing.T, n int, expressions ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(d.heard(expressions...)) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%s hears %d of %q, want %d:\n%s", d.guest, len(d.heard(expressions...)), expressions, n, strings.Join(d.heard(), "\n"))
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (d *dump) want(t *testing.T, n int, expressions ...string) {
	t.Helper()
	if got := d.heard(expressions...); len(got) != n {
		t.Errorf("%s hears %d of %q, want %d:\n%s", d.guest, len(got), expressions, n, strings.Join(got, "\n"))
	}
}

// TestMirrors goes from what an operator writes to what tcpdump shows in the guests that get copies, on the same host and on
// another: of each transport and of a trunk, both directions, filtered, cut and limited. Nobody else sees any of it.
func TestMirrors(t *testing.T) {
	ctx := patience(t)
	policy := &bytes.Buffer{}
	spec := Spec{Hosts: HostNames(2), ProviderAddresses: []string{"ipv4"}, Manifests: []string{filepath.Join(t.TempDir(), "mirrors.yaml")}}
	for _, m := range allMirrored {
		spec.Guests = append(spec.Guests, m.world(policy)...)
	}
	if err := os.WriteFile(spec.Manifests[0], policy.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, "mi")
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	run(t, l.space("h1"), "link add lan0 type veth peer name lan0 netns "+l.space("h2"))
	run(t, l.space("h1"), "link set lan0 up")
	run(t, l.space("h2"), "link set lan0 up")
	l.addressVLAN(t)
	for _, m := range allMirrored {
		t.Run(m.name, func(t *testing.T) { l.mirrors(t, ctx, m) })
	}
	if out, err := l.weft(ctx, "verify").CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

func (l Lab) addressVLAN(t *testing.T) {
	t.Helper()
	for i, g := range mirrorGuests {
		run(t, l.guestSpace(portRef{"vlan", g.name}), fmt.Sprintf("addr add 10.0.0.%d/24 dev eth0", 5+i))
	}
}

const stranger, peer = "10.0.0.6", "10.0.0.8"

func (l Lab) mirrors(t *testing.T, ctx context.Context, m mirrored) {
	l.remirror(t, m, talkMirrors)
	for _, to := range []string{stranger, peer} { // until everybody knows everybody
		l.echo(t, m, to, 1)
	}
	dumps := map[string]*dump{}
	for _, g := range mirrorGuests {
		dumps[g.name] = l.tcpdump(t, ctx, portRef{m.name, g.name})
	}
	l.send(t, m, 17001, 5)
	l.send(t, m, 17003, 5)
	began := time.Now()
	l.send(t, m, 17002, 300)
	span := time.Since(began)
	l.echo(t, m, stranger, 3)
	l.echo(t, m, peer, 3)
	for _, s := range []string{"near", "far"} {
		dumps[s].until(t, 3, `10.0.0.8 > 10.0.0.5: ICMP echo reply`)
	}

	near, far := dumps["near"], dumps["far"]
	near.want(t, 5, `> 10.0.0.8.17001: UDP`)
	near.want(t, 5, `> 10.0.0.8.17001: UDP`, `, length 90: `)
	near.want(t, 12, `ICMP echo`)
	near.want(t, 3, `10.0.0.8 > 10.0.0.5: ICMP echo reply`, `, length 98: `)
	near.want(t, 0, `UDP`, `1700[23]`)
	far.want(t, 3, `ICMP echo`)
	far.want(t, 3, `10.0.0.8 > 10.0.0.5: ICMP echo reply`, `, length 98: `)
	far.want(t, 0, `UDP`, `1700[13]`)
	copies := len(far.heard(`> 10.0.0.8.17002: UDP`, `, length 80: `))
	if most := 4 + int(20*span.Seconds()); copies == 0 || copies > most {
		t.Errorf("%d copies within %s, want at most %d, and some", copies, span, most)
	}
	if lost := l.dropped(t, ctx, m, "MIRROR_LIMITED"); copies+lost != 300 {
		t.Errorf("%d copies and %d lost to the limit, of 300", copies, lost)
	}

	l.echo(t, m, stranger, 1) // behind all else
	dumps["stranger"].until(t, 4, `10.0.0.5 > 10.0.0.6: ICMP echo request`)
	dumps["stranger"].want(t, 8, `ICMP`)
	dumps["stranger"].want(t, 0, `UDP`, `1700`)
	for _, g := range []string{"talk", "peer"} {
		for port, n := range map[int]int{17001: 5, 17002: 300, 17003: 5} {
			dumps[g].until(t, n, fmt.Sprintf(`> 10.0.0.8.%d: UDP`, port))
			dumps[g].want(t, n, fmt.Sprintf(`> 10.0.0.8.%d: UDP`, port))
		}
		dumps[g].until(t, 6, `10.0.0.8`, `ICMP echo`)
		dumps[g].want(t, 6, `10.0.0.8`, `ICMP echo`)
	}
	for _, d := range dumps {
		d.want(t, 0, `GRE|ERSPAN`)
	}
	if m.onVLAN() {
		l.tagged(t, near, far)
	}

	l.remirror(t, m, "[{destination: off}]")
	before := len(near.heard(`ICMP`))
	l.echo(t, m, peer, 3)
	if failed := l.dropped(t, ctx, m, "MIRROR_FAILED"); failed != 6 {
		t.Errorf("%d copies for a port that is not plugged are MIRROR_FAILED, want 6", failed)
	}
	if now := len(near.heard(`ICMP`)); now != before {
		t.Errorf("near still gets copies: %d, and %d before", now, before)
	}
	l.remirror(t, m, "[]")
}

// tagged sends frames with a tag both ways by the trunk. Copies have the tag, and it counts.
func (l Lab) tagged(t *testing.T, near, far *dump) {
	t.Helper()
	talk, outside := l.tap(t, portRef{"vlan", "talk"}), listen(t, l.space("h2"), "lan0")
	tag := func(payload []byte) []byte { return append([]byte{0x81, 0, 0, 20}, payload...) }
	for _, port := range []uint16{17001, 17002} {
		b := append(udp4([4]byte{10, 0, 0, 5}, [4]byte{10, 0, 0, 8}), make([]byte, 100)...)
		binary.BigEndian.PutUint16(b[24:], port)
		talk.send(t, talk.frame(outside.mac, tag(b), 0))
	}
	reply := append(udp4([4]byte{10, 0, 0, 8}, [4]byte{10, 0, 0, 5}), make([]byte, 100)...)
	reply[11], reply[22], reply[23], reply[4], reply[5] = 1, 0, 0, 0, 132 // ICMP
	outside.send(t, outside.frame(talk.mac, tag(reply), 0))
	for _, d := range []*dump{near, far} {
		d.until(t, 1, `vlan 20, `, `10.0.0.8 > 10.0.0.5: ICMP`)
		d.until(t, 1, `vlan 20, `, `> 10.0.0.8.1700[12]: UDP`)
		d.want(t, 2, `vlan 20, `)
	}
	near.want(t, 1, `vlan 20, `, `17001: UDP`, `, length 90: `)
	far.want(t, 1, `vlan 20, `, `17002: UDP`, `, length 80: `)
}

func (l Lab) remirror(t *testing.T, m mirrored, mirrors string) {
	t.Helper()
	var w bytes.Buffer
	m.talk(&w, mirrors)
	l.applied(t, w.String())
}

func (l Lab) echo(t *testing.T, m mirrored, to string, n int) {
	t.Helper()
	if out, code := l.in(m.name+"/talk", "", "ping", "-n", "-c", fmt.Sprint(n), "-i", "0.02", "-W", "5", to); code != 0 {
		t.Fatalf("ping %s: code %d\n%s", to, code, out)
	}
}

// send sends datagrams of 200 bytes to peer.
func (l Lab) send(t *testing.T, m mirrored, port, n int) {
	t.Helper()
	err := within(l.guestSpace(portRef{m.name, "talk"}), func() error {
		c, err := net.ListenUDP("udp4", nil) // not connected: nobody listens at the peer, which says so
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.WriteTo(make([]byte, 200), &net.UDPAddr{IP: net.ParseIP(peer), Port: port}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dropped counts the drops of talk for a reason.
func (l Lab) dropped(t *testing.T, ctx context.Context, m mirrored, reason string) (packets int) {
	t.Helper()
	answer, err := l.server().Operate().Drops(ctx, connect.NewRequest(&weftv1.DropsRequest{Port: m.name + "/talk"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range answer.Msg.GetDrops() {
		if d.GetReasonName() == reason {
			packets += int(d.GetPackets())
		}
	}
	return packets
}
