package datapath

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// makes tells whether the kernel has a type of device.
func makes(t *testing.T, kind ...string) bool {
	t.Helper()
	ns := namespace(t, "try-"+kind[0])
	ip(t, "-n", ns, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1")
	err := exec.Command("ip", append([]string{"-n", ns, "link", "add", "link", "v0", "name", "x", "type"}, kind...)...).Run()
	return err == nil
}

// Provider Addresses on VLANs and on bonds: the switch is on the device that has them. When one
// link of a bond dies, packets go by the other, and nobody needs to tell the switch.
func TestBondsAndVLANs(t *testing.T) {
	for kind, args := range map[string][]string{"vlan": {"vlan", "id", "7"}, "bond": {"bond"}} {
		if makes(t, args...) {
			continue
		}
		if os.Getenv("WEFT_EMULATED") != "" {
			t.Fatalf("a kernel that distributions have makes no %s", kind)
		}
		t.Skipf("this kernel makes no %s; make test-kernels has one that does", kind)
	}
	for _, by := range []carriage{
		{transport: model.NVGRE, vlan: true}, {transport: model.VXLAN, vlan: true}, {transport: model.NVGRE, v6: true, bond: true},
		{transport: model.NVGRE, vlan: true, bond: true}, {transport: model.VXLAN, v6: true, vlan: true, bond: true},
	} {
		t.Run(by.String(), func(t *testing.T) {
			f := newFabricBy(t, by, Options{}, &guest{name: "web0"}, &guest{name: "web1"}, &guest{name: "db2"})
			f.ping("web0", f.guests["web1"].v4, "-s", "1400")
			f.ping("web1", f.guests["db2"].v6, "-s", "1300")
			f.send("web0", "web1", f.guests["web1"].v4, 100<<10)
			f.send("web1", "db2", f.guests["db2"].v6, 100<<10)
			t.Logf("strips by %v", f.hosts[0].sw.Strategies())
			if by.bond {
				f.loseLeg(t)
			}
		})
	}
}

var lostOf = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// loseLeg cuts the link of host 1 that is used, while guests talk.
func (f *fabric) loseLeg(t *testing.T) {
	t.Helper()
	h := f.hosts[0]
	router := h.ns[:len(h.ns)-len("h1")] + "rt"
	for _, leg := range []int{0, 1} {
		const n, pause = 100, 20 * time.Millisecond
		cut := time.AfterFunc(n/3*pause, func() {
			_ = exec.Command("ip", "-n", router, "link", "set", "dev", fmt.Sprintf("far0-%d", leg), "down").Run()
		})
		out, _ := f.guests["web1"].run(t, "ping", "-n", "-q", "-c", fmt.Sprint(n), "-i", fmt.Sprint(pause.Seconds()), "-W", "1", f.guests["web0"].v4.String())
		cut.Stop()
		m := lostOf.FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("ping said: %s", out)
		}
		sent, _ := strconv.Atoi(m[1]) // digits
		came, _ := strconv.Atoi(m[2])
		t.Logf("link %d of the bond dies: %d of %d packets lost, every %s", leg, sent-came, sent, pause)
		if came < sent/2 {
			t.Errorf("link %d of the bond dies, and %d of %d packets are lost:\n%s", leg, sent-came, sent, f.drops())
		}
		ip(t, "-n", router, "link", "set", "dev", fmt.Sprintf("far0-%d", leg), "up")
		for end := time.Now().Add(time.Minute); ; {
			slave, _ := exec.Command("ip", "-n", h.ns, "-d", "link", "show", "dev", fmt.Sprintf("leg%d", leg)).CombinedOutput()
			if strings.Contains(string(slave), "mii_status UP") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("link %d stays away:\n%s", leg, slave)
			}
		}
	}
}
