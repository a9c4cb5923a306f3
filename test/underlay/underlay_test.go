// Package underlay looks at the switch from outside: it captures what two hosts
// send each other and lets tshark, which knows nothing of weft, say what it is.
package underlay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/test/twohosts"
)

const (
	redVSID  = model.VSID(5001)
	redDB    = model.VSID(5002)
	blueVSID = model.VSID(6001)
	blueDB   = model.VSID(6002)

	// flows per tenant and target: enough that their FlowIDs cannot all agree by chance.
	flows = 12
	// payload of one TCP flow: several super-packets.
	payload = 60_000
	port    = "7009"
)

// subnet of a tenant; both tenants have the same addresses.
func subnet(vsid model.VSID, network model.NetworkIndex, v4, v6 string) twohosts.Subnet {
	return twohosts.Subnet{VSID: vsid, Network: network, Prefixes: []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}}
}

// guest of a tenant; the other tenant has one with the same MAC and addresses.
func guest(name string, host int, s twohosts.Subnet, mac byte, v4, v6 string) *twohosts.Guest {
	return &twohosts.Guest{Name: name, Host: host, Subnet: s, MAC: model.MAC{2, 0, 0, 0, 0, mac},
		CAs: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}}
}

// tenant is three guests: the first talks to the second (same subnet) and the
// third (other subnet), both across hosts.
func tenant(name string, web, db model.VSID, network model.NetworkIndex) []*twohosts.Guest {
	webNet := subnet(web, network, "10.0.0.0/24", "fd00:a::/64")
	dbNet := subnet(db, network, "10.0.1.0/24", "fd00:b::/64")
	return []*twohosts.Guest{
		guest(name+"-web-1", 0, webNet, 1, "10.0.0.5", "fd00:a::5"),
		guest(name+"-web-2", 1, webNet, 2, "10.0.0.6", "fd00:a::6"),
		guest(name+"-db-1", 1, dbNet, 4, "10.0.1.5", "fd00:b::5"),
	}
}

func TestUnderlayReadsClean(t *testing.T) {
	for _, c := range []twohosts.Carrier{{}, {V6: true}, {Transport: model.VXLAN}, {Transport: model.VXLAN, V6: true}} {
		t.Run(c.String(), func(t *testing.T) { underlayReadsClean(t, c) })
	}
}

func underlayReadsClean(t *testing.T, c twohosts.Carrier) {
	red, blue := tenant("red", redVSID, redDB, 1), tenant("blue", blueVSID, blueDB, 2)
	w := twohosts.NewOver(t, "wu-", datapath.DecapAuto, c, slices.Concat(red, blue))
	// What a wire carries is MTU-size frames with whole checksums; tshark shall judge those.
	for _, h := range w.Hosts {
		offload(t, h.NS, "tso off gso off tx off gro off")
	}
	for _, g := range slices.Concat(red, blue) {
		serve(t, w, g)
	}
	file := capture(t, w, func() {
		for _, guests := range [][]*twohosts.Guest{red, blue} {
			for _, target := range guests[1:] {
				talk(t, w, guests[0], target)
			}
		}
	})
	frames := read(t, file)
	t.Logf("%d frames on the underlay", len(frames))
	check(t, w, frames)
}

func offload(t *testing.T, ns, knobs string) {
	t.Helper()
	args := append([]string{"--net=/run/netns/" + ns, "ethtool", "-K", twohosts.Underlay}, strings.Fields(knobs)...)
	if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
		t.Fatalf("ethtool -K %s: %v: %s", knobs, err, out)
	}
}

// serve says on every address of the guest who it is: the guest's name, then
// everything back that comes in.
func serve(t *testing.T, w *twohosts.World, g *twohosts.Guest) {
	t.Helper()
	for _, ca := range g.CAs {
		w.In(w.GuestNS(g), func() error {
			l, err := net.Listen("tcp", net.JoinHostPort(ca.String(), port))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go answer(l, g.Name)
			return nil
		})
	}
}

func answer(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			fmt.Fprintln(c, name)
			_, _ = io.Copy(c, c) // the client sees what is missing
		}()
	}
}

// talk opens flows to both addresses of a guest and moves a payload each way.
func talk(t *testing.T, w *twohosts.World, from, to *twohosts.Guest) {
	t.Helper()
	for _, ca := range to.CAs {
		for range flows {
			w.In(w.GuestNS(from), func() error { return flow(ca, to.Name) })
		}
	}
}

func flow(to netip.Addr, name string) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(to.String(), port), 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte(name[:3]), payload/3)
	go func() {
		_, _ = c.Write(sent) // what does not arrive, does not come back
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if want := append([]byte(name+"\n"), sent...); !bytes.Equal(got, want) {
		return fmt.Errorf("%s answered %d bytes that begin %.20q, want %d that begin %.20q", to, len(got), got, len(want), want)
	}
	return nil
}

// capture records the underlay of the first host while f runs, and returns the file.
func capture(t *testing.T, w *twohosts.World, f func()) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "underlay.pcap")
	var stderr bytes.Buffer
	cmd := exec.Command("nsenter", "--net=/run/netns/"+w.Hosts[0].NS, "dumpcap", "-q", "-P", "-i", twohosts.Underlay, "-B", "64", "-w", file)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("dumpcap: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	// It records when the file has its header and a first frame; frames of our own
	// that no switch touches tell when.
	beacon := func() int64 {
		w.In(w.Hosts[0].NS, func() error {
			c, err := net.Dial("udp", net.JoinHostPort(w.Hosts[1].PA.String(), "47009"))
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("beacon"))
			return errors.Join(ignoreRefused(err), c.Close())
		})
		info, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	grows(t, ended, &stderr, beacon, 24+1) // beyond the header of the file
	f()
	size := beacon()
	grows(t, ended, &stderr, beacon, size+1) // the last beacon is behind all of f
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("dumpcap: %v: %s", err, stderr.Bytes())
	}
	return file
}

// ignoreRefused forgives the port unreachable that answers a beacon.
func ignoreRefused(err error) error {
	if err != nil && strings.Contains(err.Error(), "refused") {
		return nil
	}
	return err
}

// grows waits until size is at least want.
func grows(t *testing.T, ended <-chan error, stderr *bytes.Buffer, size func() int64, want int64) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for size() < want {
		select {
		case err := <-ended:
			t.Fatalf("dumpcap ended: %v: %s", err, stderr.Bytes())
		case <-deadline:
			t.Fatalf("the capture stays at %d bytes", size())
		case <-tick.C:
		}
	}
}

// frame is what tshark says of one captured frame: values by field, in order of
// the layers, outermost first.
type frame map[string][]string

var fields = []string{"frame.number", "frame.protocols", "eth.type", "ip.src", "ip.dst", "ip.proto", "ip.flags.df", "ip.flags.mf",
	"ip.frag_offset", "gre.proto", "gre.flags_and_version", "gre.key", "ipv6.src", "ipv6.dst", "eth.src", "eth.dst",
	"ipv6.nxt", "ipv6.hlim", "ipv6.flow", "udp.srcport", "udp.dstport", "udp.checksum", "vxlan.flags", "vxlan.vni",
	"tcp.srcport", "tcp.dstport", "ip.checksum.status", "tcp.checksum", "tcp.checksum.status", "_ws.malformed", "tcp.payload"}

// read lets tshark dissect the capture, with checksums verified.
func read(t *testing.T, file string) []frame {
	t.Helper()
	args := []string{"-r", file, "-T", "json", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-o", "tcp.desegment_tcp_streams:FALSE"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	var packets []struct {
		Source struct{ Layers frame } `json:"_source"`
	}
	if err := json.Unmarshal(out, &packets); err != nil {
		t.Fatalf("tshark: %v", err)
	}
	frames := make([]frame, len(packets))
	for i, p := range packets {
		frames[i] = p.Source.Layers
	}
	return frames
}

// flowKey is an inner flow in one direction.
type flowKey struct {
	vsid         uint32 // VSID
	src, dst     string
	sport, dport string
}

// check goes through all frames.
func check(t *testing.T, w *twohosts.World, frames []frame) {
	t.Helper()
	flowIDs := map[flowKey]map[uint32]bool{}
	seen, spoken := map[uint32]int{}, map[uint32]int{} // frames by VSID: all, and those with a tenant's words
	for _, f := range frames {
		if len(f["_ws.malformed"]) > 0 {
			t.Fatalf("malformed: %v", f)
		}
		if !carries(w, f) {
			continue
		}
		outerIP(t, w, f)
		vsid, flowID := header(t, w, f)
		seen[vsid]++
		if inner(t, f, vsid) {
			spoken[vsid]++
		}
		k := key(f, vsid, w.Carrier.V6)
		if flowIDs[k] == nil {
			flowIDs[k] = map[uint32]bool{}
		}
		flowIDs[k][flowID] = true
	}
	t.Logf("frames by VSID %v, with a tenant's words %v, %d flows", seen, spoken, len(flowIDs))
	distinct := map[uint32]bool{}
	for k, ids := range flowIDs {
		if len(ids) != 1 {
			t.Errorf("flow %+v has %d FlowIDs or ports", k, len(ids))
		}
		for id := range ids {
			distinct[id] = true
		}
	}
	// Replies of a routed flow carry the VSID of web, requests that of db.
	for _, v := range []model.VSID{redVSID, redDB, blueVSID, blueDB} {
		if spoken[uint32(v)] < flows {
			t.Errorf("%d frames with VSID %d, %d of them with its tenant's words", seen[uint32(v)], v, spoken[uint32(v)])
		}
		delete(seen, uint32(v))
	}
	if len(seen) > 0 {
		t.Errorf("VSIDs that nobody has: %v", seen)
	}
	// 8 flow groups of 12 in two directions: a third of 192 being distinct is far below what a fair hash gives.
	if len(distinct) < 64 {
		t.Errorf("%d flows share %d FlowIDs or ports", len(flowIDs), len(distinct))
	}
}

// carries tells tenants' frames from the hosts' own ARP and beacons, which must
// be recognisable as such.
func carries(w *twohosts.World, f frame) bool {
	source, protocol := f["ip.src"], f["ip.proto"]
	if w.Carrier.V6 {
		source, protocol = f["ipv6.src"], f["ipv6.nxt"]
	}
	if len(source) == 0 || !slices.Contains([]string{w.Hosts[0].PA.String(), w.Hosts[1].PA.String()}, source[0]) {
		return false
	}
	if w.Carrier.Transport == model.VXLAN {
		return protocol[0] == "17" && f["udp.dstport"][0] == "4789"
	}
	return protocol[0] == "47"
}

// wants compares the first value of each field, the outermost, with what must be there.
func wants(t *testing.T, f frame, want map[string]string) {
	t.Helper()
	for field, value := range want {
		if len(f[field]) == 0 || f[field][0] != value {
			t.Fatalf("%s is %v, want %s: %v", field, f[field], value, f)
		}
	}
}

func outerIP(t *testing.T, w *twohosts.World, f frame) {
	t.Helper()
	if len(f["eth.type"]) != 2 { // outer and inner: no 802.1Q tag in either
		t.Fatalf("%d Ethernet types: %v", len(f["eth.type"]), f)
	}
	if w.Carrier.V6 {
		wants(t, f, map[string]string{"ipv6.hlim": "64", "eth.type": "0x86dd"})
		return
	}
	wants(t, f, map[string]string{"ip.frag_offset": "0", "eth.type": "0x0800"})
	for field, value := range map[string]bool{"ip.flags.df": true, "ip.flags.mf": false} {
		if len(f[field]) == 0 || truth(f[field][0]) != value {
			t.Fatalf("outer %s is %v: %v", field, f[field], f)
		}
	}
}

// header checks the transport's headers and gives the VSID and what spreads flows: FlowID or source port.
func header(t *testing.T, w *twohosts.World, f frame) (vsid, spread uint32) {
	t.Helper()
	number := func(field string) uint32 {
		n, err := strconv.ParseUint(f[field][0], 0, 32)
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		return uint32(n)
	}
	if w.Carrier.Transport == model.VXLAN {
		wants(t, f, map[string]string{"vxlan.flags": "0x0800", "udp.checksum": "0x0000"})
		port := number("udp.srcport")
		if port < 49152 || len(f["vxlan.vni"]) != 1 {
			t.Fatalf("source port %d, VNI %v: %v", port, f["vxlan.vni"], f)
		}
		return number("vxlan.vni"), port
	}
	wants(t, f, map[string]string{"gre.proto": "0x6558", "gre.flags_and_version": "0x2000"})
	if len(f["gre.key"]) != 1 {
		t.Fatalf("GRE key %v: %v", f["gre.key"], f)
	}
	k := number("gre.key")
	return k >> 8, k & 0xff
}

func truth(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// inner checks what a frame carries: checksums, and that a tenant's words stand
// under the tenant's own VSIDs alone. It reports whether there are such words.
func inner(t *testing.T, f frame, vsid uint32) bool {
	t.Helper()
	for _, field := range []string{"ip.checksum.status", "tcp.checksum.status"} {
		for _, status := range f[field] {
			// The kernel writes a checksum of zero as 0xffff, for TCP too; the two are the
			// same number in one's complement, and only tshark minds (RFC 1624).
			if ones := field == "tcp.checksum.status" && slices.Equal(f["tcp.checksum"], []string{"0xffff"}); status != "1" && !ones {
				t.Fatalf("%s is %s: %v", field, status, f)
			}
		}
	}
	if len(f["tcp.payload"]) == 0 {
		return false
	}
	text, err := hex.DecodeString(strings.ReplaceAll(f["tcp.payload"][0], ":", ""))
	if err != nil {
		t.Fatalf("tcp.payload of frame %v: %v", f["frame.number"], err)
	}
	own, foreign := "redred", "blublu"
	if model.VSID(vsid) == blueVSID || model.VSID(vsid) == blueDB {
		own, foreign = foreign, own
	}
	if bytes.Contains(text, []byte(foreign)) {
		t.Fatalf("VSID %d carries %q: frame %v", vsid, foreign, f["frame.number"])
	}
	return bytes.Contains(text, []byte(own))
}

// key names the inner flow of a frame.
func key(f frame, vsid uint32, v6 bool) flowKey {
	k := flowKey{vsid: vsid}
	outer4, outer6 := 1, 0 // addresses that are not the inner packet's
	if v6 {
		outer4, outer6 = 0, 1
	}
	switch {
	case len(f["ip.src"]) > outer4:
		k.src, k.dst = f["ip.src"][outer4], f["ip.dst"][outer4]
	case len(f["ipv6.src"]) > outer6:
		k.src, k.dst = f["ipv6.src"][outer6], f["ipv6.dst"][outer6]
	}
	if len(f["tcp.srcport"]) > 0 {
		k.sport, k.dport = f["tcp.srcport"][0], f["tcp.dstport"][0]
	}
	return k
}
