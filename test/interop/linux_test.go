package interop

import (
	"fmt"

	"github.com/weft-sdn/weft/test/twohosts"
)

func tunnelName(flow int) string { return fmt.Sprintf("g%d", flow) }

// gretap makes a bridge of Linux's with one gretap for each key that the switch may send:
// such a device knows one key, and NVGRE keeps the flow in its last eight bits.
func gretap(w *world) {
	host, local, remote := w.Hosts[1].NS, w.Hosts[1].PA, w.Hosts[0].PA
	w.lacks("gretap", "link", "add", "probe0", "type", "gretap", "local", local.String(), "remote", remote.String(), "key", "1")
	w.IP("-n %s link del probe0", host)
	w.bridge()
	for flow := range 256 {
		name := tunnelName(flow)
		w.IP("-n %s link add %s mtu %d type gretap local %s remote %s key %d", host, name, twohosts.GuestMTU, local, remote, int(vsid)<<8|flow)
		w.IP("-n %s link set %s master br0 up", host, name)
		w.IP("-n %s link set %s type bridge_slave flood off mcast_flood off bcast_flood off learning off", host, name)
	}
	// What goes back has one FlowID, which is anybody's choice.
	w.must(host, "bridge fdb add %s dev %s master static", vmMAC, tunnelName(0))
}

// bridge joins the peer's device with what will come.
func (w *world) bridge() {
	host := w.Hosts[1].NS
	w.IP("-n %s link add br0 mtu %d type bridge mcast_snooping 0", host, twohosts.GuestMTU)
	w.IP("-n %s link set br0 up", host)
	w.IP("-n %s link set %s master br0", host, w.port)
}
