// Package lab runs several hosts on one machine: each host is a network
// namespace with a real agent in it, joined by a routed underlay to the others
// and to a real server; guests are namespaces plugged into the hosts' switches.
//
// Invariants: everything of a lab carries its name: namespaces weft-NAME-…,
// files in /run/weft/lab/NAME, pins in /sys/fs/bpf/weft/lab-NAME; so that two
// labs never meet, and Down finds all of a lab even when whoever made it was
// killed. Up either brings the whole lab up or leaves nothing.
//
// It must never touch a namespace, process, pin or file of another name, and
// never the machine's own network.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/weft-sdn/weft/internal/client"
)

// Where the labs of this machine are.
const (
	filesRoot = "/run/weft/lab"
	bpffs     = "/sys/fs/bpf"
	netnsRoot = "/run/netns"
)

// Names of the namespaces that are neither a host nor a guest. No host can be
// called so: names of hosts have no underscore.
const (
	routerSpace = "_router"
	serverSpace = "_server"
)

// DefaultName is the lab's name when nobody says.
const DefaultName = "lab"

// A name has no dash, so that "weft-a-b…" is of one lab only.
var validName = regexp.MustCompile(`^[a-z0-9]{1,12}$`)

// Lab is one lab by its name, whether it is up or not.
type Lab struct{ name string }

// New checks the name. Nothing is made.
func New(name string) (Lab, error) {
	if !validName.MatchString(name) {
		return Lab{}, fmt.Errorf("lab name %q: write 1 to 12 lower-case letters and digits", name)
	}
	return Lab{name}, nil
}

func (l Lab) dir() string                    { return filepath.Join(filesRoot, l.name) }
func (l Lab) hostDir(host string) string     { return filepath.Join(l.dir(), "hosts", host) }
func (l Lab) serverDir() string              { return filepath.Join(l.dir(), "server") }
func (l Lab) pins() string                   { return filepath.Join(bpffs, "weft", "lab-"+l.name) }
func (l Lab) prefix() string                 { return "weft-" + l.name + "-" }
func (l Lab) space(part string) string       { return l.prefix() + part }
func (l Lab) guestSpace(g portRef) string    { return l.space(g.tenant + "." + g.port) }
func (l Lab) stateFile() string              { return filepath.Join(l.dir(), "lab.json") }
func (l Lab) agentSocket(host string) string { return filepath.Join(l.hostDir(host), "agent.sock") }
func (l Lab) serverSocket() string           { return filepath.Join(l.dir(), "server.sock") }

func (l Lab) server() client.Endpoint           { return client.Unix(l.serverSocket()) }
func (l Lab) agent(host string) client.Endpoint { return client.Unix(l.agentSocket(host)) }

// portRef is TENANT/PORT.
type portRef struct{ tenant, port string }

func (p portRef) String() string { return p.tenant + "/" + p.port }

func parsePortRef(s string) (portRef, error) {
	tenant, port, ok := strings.Cut(s, "/")
	if !ok || tenant == "" || port == "" || strings.ContainsAny(port, "/") {
		return portRef{}, fmt.Errorf("guest %q: write TENANT/PORT", s)
	}
	return portRef{tenant, port}, nil
}

// The underlay is in the range that RFC 2544 sets aside for tests: the server in
// the first /24, each host in one of its own.
const (
	underlay = "198.18.0.0/15"
	maxHosts = 500
)

// address n of the i-th subnet; the server's is the 0th, the first host's the 1st.
func address(i, n int) netip.Addr {
	base := netip.MustParsePrefix(underlay).Addr().As4()
	base[1] += byte(i / 256)
	base[2] = byte(i % 256)
	base[3] = byte(n)
	return netip.AddrFrom4(base)
}

// address6 is the same in the range that RFC 5180 sets aside.
func address6(i, n int) netip.Addr {
	a := [16]byte{0x20, 0x01, 0x00, 0x02}
	a[6], a[7], a[15] = byte(i>>8), byte(i), byte(n)
	return netip.AddrFrom16(a)
}

func gatewayOf(i int) netip.Addr { return address(i, 1) }
func nodeOf(i int) netip.Addr    { return address(i, 2) }

func gateway6Of(i int) netip.Addr { return address6(i, 1) }
func node6Of(i int) netip.Addr    { return address6(i, 2) }

// poolsOf the i-th node are the halves of its subnets that the underlay leads to it; a host gives
// them to Customer Addresses of rewrite subnets.
func poolsOf(i int) []netip.Prefix {
	half := address6(i, 0).As16()
	half[8] = 0x80
	return []netip.Prefix{netip.PrefixFrom(address(i, 128), 25), netip.PrefixFrom(netip.AddrFrom16(half), 65)}
}

// errNotUp is returned for a lab that is not there.
var errNotUp = errors.New("is not up")

func (l Lab) mustBeUp() error {
	if _, err := os.Stat(l.stateFile()); err != nil {
		return fmt.Errorf("lab %s %w: weftd lab up --name %s", l.name, errNotUp, l.name)
	}
	return nil
}
