// Command guest is the whole user space of the test's virtual machine: it runs
// as process 1, loads the modules of the virtio NIC, configures the NIC as it is
// told, serves exchanges, and takes commands on the serial console.
//
// Each line that it reads is a Command in JSON, each answer a line of Prefix and
// an Answer in JSON; anything else on the console is the kernel talking.
// It must never decide what is right: the test does.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/test/vm/console"
	"github.com/weft-sdn/weft/test/vm/exchange"
)

func main() {
	if err := boot(); err != nil {
		say(console.Answer{Error: err.Error()})
		idle()
	}
	say(console.Answer{})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var c console.Command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			continue // noise on the line; the test waits for its id
		}
		text, err := run(c)
		a := console.Answer{ID: c.ID, Text: text}
		if err != nil {
			a.Error = err.Error()
		}
		say(a)
	}
	idle()
}

func say(a console.Answer) {
	b, _ := json.Marshal(a) // three plain fields cannot fail
	fmt.Printf("\n%s%s\n", console.Prefix, b)
}

// boot makes the machine ready for commands.
func boot() error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	if err := loadAll(modules); err != nil {
		return err
	}
	return serve()
}

// loadAll loads modules in the order that their symbols allow: which of them
// needs which has changed between kernels.
func loadAll(modules []string) error {
	for len(modules) > 0 {
		var waiting []string
		for _, m := range modules {
			err := load(m)
			if errors.Is(err, unix.ENOENT) { // a symbol that another module will bring
				waiting = append(waiting, m)
			} else if err != nil {
				return fmt.Errorf("load %s: %w", m, err)
			}
		}
		if len(waiting) == len(modules) {
			return fmt.Errorf("modules %q need another one that is not here", waiting)
		}
		modules = waiting
	}
	return nil
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

func serve() error {
	at := fmt.Sprintf(":%d", console.Port)
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	go func() { _ = exchange.Serve(l) }()
	go func() { _ = exchange.Echo(u) }()
	return nil
}

func run(c console.Command) (string, error) {
	to := netip.AddrPortFrom(c.To, console.Port)
	switch c.Do {
	case "configure":
		return "", configure(c)
	case "features":
		b, err := os.ReadFile("/sys/class/net/eth0/device/features")
		return strings.TrimSpace(string(b)), err
	case "counters":
		return counters()
	case "ping":
		return ping(c.To)
	case "exchange":
		return "", exchange.Dial(netip.Addr{}, to, c.Bytes)
	case "datagrams":
		return "", exchange.Datagrams(to, c.Count, int(c.Bytes), 3)
	}
	return "", fmt.Errorf("%q: no such command", c.Do)
}

// configure brings up the loopback and eth0; the MTU is what the NIC says.
func configure(c console.Command) error {
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		if err := address(link, c); err != nil {
			return err
		}
	}
	return nil
}

func address(link netlink.Link, c console.Command) error {
	for _, p := range c.Addresses {
		a := netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, &a); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	for _, g := range c.Gateways {
		r := netlink.Route{LinkIndex: link.Attrs().Index, Gw: g.AsSlice()}
		if err := netlink.RouteAdd(&r); err != nil {
			return fmt.Errorf("gateway %s: %w", g, err)
		}
	}
	return nil
}

// counters says what eth0 and the stack above it have seen: name=value words.
func counters() (string, error) {
	var words []string
	for _, name := range []string{"rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "mtu"} {
		dir := "/sys/class/net/eth0/statistics/"
		if name == "mtu" {
			dir = "/sys/class/net/eth0/"
		}
		b, err := os.ReadFile(dir + name)
		if err != nil {
			return "", err
		}
		words = append(words, name+"="+strings.TrimSpace(string(b)))
	}
	bad, err := badChecksums()
	return strings.Join(append(words, "checksum_errors="+strconv.Itoa(bad)), " "), err
}

// badChecksums adds up the InCsumErrors of all protocols. TCP counts both
// families in /proc/net/snmp.
func badChecksums() (int, error) {
	v4, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	v6, err := os.ReadFile("/proc/net/snmp6")
	if err != nil {
		return 0, err
	}
	return sumCounters(pairs(string(v4))+string(v6), "InCsumErrors")
}

// pairs turns the table of /proc/net/snmp (a line of names, a line of values)
// into the form of snmp6: a name and a value per line.
func pairs(snmp string) string {
	var b strings.Builder
	lines := strings.Split(strings.TrimSpace(snmp), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := range min(len(names), len(values)) {
			fmt.Fprintf(&b, "%s %s\n", names[j], values[j])
		}
	}
	return b.String()
}

// sumCounters adds the values whose names end so; none at all is an error.
func sumCounters(lines, suffix string) (int, error) {
	total, found := 0, false
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasSuffix(strings.TrimSpace(name), suffix) {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		total, found = total+n, true
	}
	if !found {
		return 0, fmt.Errorf("the kernel counts no %s", suffix)
	}
	return total, nil
}

// idle never returns: the kernel panics when process 1 ends.
func idle() {
	for {
		_ = unix.Pause()
	}
}
