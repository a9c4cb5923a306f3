package interop

import (
	"fmt"
	"strings"
)

func tunnelName(flow int) string { return fmt.Sprintf("g%d", flow) }

// gretap makes a bridge of Linux's with one gretap for each key that the switch may send:
// such a device knows one key, and NVGRE keeps the flow in its last eight bits.
func gretap(w *world) {
	host, local, remote := w.Hosts[1].NS, w.Hosts[1].PA, w.Hosts[0].PA
	kind := "gretap"
	if w.Carrier.V6 {
		kind = "ip6gretap encaplimit none"
	}
	w.lacks("gretap", "link", "add", "probe0", "type", strings.Fields(kind)[0], "local", local.String(), "remote", remote.String(), "key", "1")
	w.IP("-n %s link del probe0", host)
	w.bridge()
	for flow := range 256 {
		name := tunnelName(flow)
		w.IP("-n %s link add %s mtu %d type %s local %s remote %s key %d", host, name, w.Carrier.MTU(), kind, local, remote, int(vsid)<<8|flow)
		w.IP("-n %s link set %s master br0 up", host, name)
		w.IP("-n %s link set %s type bridge_slave flood off mcast_flood off bcast_flood off learning off", host, name)
	}
	// What goes back has one FlowID, which is anybody's choice.
	w.must(host, "bridge fdb add %s dev %s master static", vmMAC, tunnelName(0))
}

// bridge joins the peer's device with what will come.
func (w *world) bridge() {
	host := w.Hosts[1].NS
	w.IP("-n %s link add br0 mtu %d type bridge mcast_snooping 0", host, w.Carrier.MTU())
	w.IP("-n %s link set br0 up", host)
	w.IP("-n %s link set %s master br0", host, w.port)
}

// vxlan makes a bridge of Linux's with a vxlan device; extra says how it does UDP checksums.
func vxlan(extra string) func(*world) {
	return func(w *world) {
		host := w.Hosts[1].NS
		w.bridge()
		w.IP("-n %s link add vx0 mtu %d type vxlan id %d local %s remote %s dstport 4789 nolearning %s", host, w.Carrier.MTU(), vsid, w.Hosts[1].PA, w.Hosts[0].PA, extra)
		w.IP("-n %s link set vx0 master br0 up", host)
	}
}
