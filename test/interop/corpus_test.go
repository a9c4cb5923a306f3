package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/test/twohosts"
)

// envCorpus names a directory where TestCorpus leaves real traffic of two guests over each
// carrier; test/packet mutates it (testdata/real).
const envCorpus = "WEFT_CORPUS"

func TestCorpus(t *testing.T) {
	dir := os.Getenv(envCorpus)
	if dir == "" {
		t.Skip("only with " + envCorpus + ", to write the corpus of test/packet anew")
	}
	for _, c := range []twohosts.Carrier{nvgre4, nvgre6, vxlan4, vxlan6} {
		vm := &twohosts.Guest{Name: "vm", Host: 0, Subnet: web, MAC: vmMAC, CAs: vmCAs}
		peer := &twohosts.Guest{Name: "peer", Host: 1, Subnet: web, MAC: peerMAC, CAs: peerCAs}
		w := &world{World: twohosts.NewOver(t, "wi-", datapath.DecapAuto, c, []*twohosts.Guest{vm, peer}), t: t, vm: vm, peer: peer}
		for _, g := range []*twohosts.Guest{vm, peer} {
			w.knobs(w.GuestNS(g), "eth0", "tso off gso off tx off") // whole checksums, and frames as long as a wire's
		}
		name := strings.ReplaceAll(c.String(), " ", "-")
		w.save(filepath.Join(dir, name+".pcap"), twohosts.Underlay)
		if c == nvgre4 {
			w.save(filepath.Join(dir, "guest.pcap"), twohosts.Device(vm))
		}
	}
}

// save captures all kinds of traffic on a device of the first host.
func (w *world) save(file, device string) {
	pcap := w.recordOn(device, 3<<10, func() {
		for i := range w.vm.CAs {
			w.family(i)
			w.recorder.part()
			w.oddities(w.peer.CAs[i].String())
		}
	})
	if err := os.WriteFile(file, pcap, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("%s: %d bytes", file, len(pcap))
}

// oddities are what guests send beside their streams; most of it gets no answer.
func (w *world) oddities(peer string) {
	gateway, group := web.Gateway(0).String(), "224.0.0.251"
	if strings.Contains(peer, ":") {
		gateway, group = web.Gateway(1).String(), "ff02::fb%eth0"
	}
	for _, words := range []string{
		"ping -n -c 1 -W 1 -s 4000 " + peer, // fragments
		"ping -n -c 1 -W 1 -t 1 " + peer,
		"ping -n -c 1 -W 1 " + gateway,
		"ping -n -c 1 -W 1 " + group,
		"ping -n -c 1 -W 1 -Q 0xb9 " + peer,
		"ip neigh flush dev eth0",
		"ping -n -c 1 -W 1 " + strings.TrimSuffix(strings.TrimSuffix(peer, "6"), "::") + "99",
		"ip maddr add 01:00:5e:00:00:fb dev eth0",
	} {
		_, _ = w.command(w.GuestNS(w.vm), "%s", words)
	}
}
