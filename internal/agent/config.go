package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weft-sdn/weft/internal/datapath"
)

// Config of an agent. DefaultConfig explains each field.
type Config struct {
	Host              string        `yaml:"host"`
	Server            string        `yaml:"server"`
	TokenFile         string        `yaml:"tokenFile"`
	StateDir          string        `yaml:"stateDir"`
	Socket            string        `yaml:"socket"`
	PinDir            string        `yaml:"pinDir"`
	Underlay          Choice        `yaml:"underlay"`
	ProviderAddresses Choice        `yaml:"providerAddresses"`
	Decap             string        `yaml:"decap"`
	Metrics           string        `yaml:"metrics"`
	Audit             time.Duration `yaml:"audit"`
	LearnedTimeout    time.Duration `yaml:"learnedTimeout"`
	Limits            Limits        `yaml:"limits"`
}

// Limits are the sizes of the switch's tables, in rows.
type Limits struct {
	Ports   uint32 `yaml:"ports"`
	Records uint32 `yaml:"records"`
	Routes  uint32 `yaml:"routes"`
	Peers   uint32 `yaml:"peers"`
}

// Choice is a list, or nil for "auto".
type Choice []string

// UnmarshalYAML accepts "auto", one word, or a list.
func (c *Choice) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*c = nil
		if n.Value != auto {
			*c = Choice{n.Value}
		}
		return nil
	}
	return n.Decode((*[]string)(c))
}

// MarshalYAML writes what UnmarshalYAML reads.
func (c Choice) MarshalYAML() (any, error) {
	if c == nil {
		return auto, nil
	}
	return []string(c), nil
}

const auto = "auto"

const defaultConfig = `# Settings of a weft agent. Every line shows its default.

# Name of this host in policy. Empty: the host name of the machine.
host: ""

# The server's address for hosts.
server: https://127.0.0.1:7443

# File with the single-use token of the first join ("weft token create HOST"). It also
# names the certificate authority to trust. Deleted once it has been used.
tokenFile: ""

# Certificate, last Goal and plugs. Losing it costs a new join, not traffic.
stateDir: /var/lib/weft/agent

# Local socket for "weft plug" and friends: root and the group weft-admins.
socket: /run/weft/agent.sock

# Where maps and links are pinned; a directory in a bpffs. What is pinned keeps
# forwarding while no agent runs.
pinDir: /sys/fs/bpf/weft

# Devices toward the other hosts. auto: those that carry the provider addresses
# given below, else those of the IPv4 default route.
underlay: auto

# Addresses under which other hosts reach this one. auto: the first global
# address of each underlay device, IPv4 before IPv6.
providerAddresses: auto

# How the outer headers are taken off. auto takes the best of what this kernel and the devices have; doctor says
# which that is. By force: tcx, xdp, and with detours that keep TCP for taps whole dx2, veth or vxlan.
decap: auto

# Prometheus metrics; empty switches them off.
metrics: 127.0.0.1:9467

# How often the kernel is read back and compared with policy.
audit: 1m

# After how long an address that was learned from a guest is forgotten when the guest does not
# answer for it (ARP, Neighbour Discovery; asked three times meanwhile). 0s: never.
learnedTimeout: 30m

# Sizes of the switch's tables, in rows. A Goal that does not fit is refused as a
# whole, with a condition, and what is there keeps forwarding.
limits:
  ports: 4096
  records: 262144
  routes: 65536
  peers: 16384
`

// DefaultConfig is the annotated text of the default configuration.
func DefaultConfig() string { return defaultConfig }

// ParseConfig reads a configuration over the defaults. Unknown fields are errors.
func ParseConfig(text []byte) (Config, error) {
	var c Config
	for _, t := range [][]byte{[]byte(defaultConfig), text} {
		d := yaml.NewDecoder(bytes.NewReader(t))
		d.KnownFields(true)
		if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
			return Config{}, fmt.Errorf("agent configuration: %w", err)
		}
	}
	if c.Host == "" {
		name, err := os.Hostname()
		if err != nil {
			return Config{}, fmt.Errorf("agent configuration: host: %w", err)
		}
		c.Host = name
	}
	return c, c.check()
}

// LoadConfig reads a configuration file.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("agent configuration: %w", err)
	}
	return ParseConfig(text)
}

func (c Config) check() error {
	for field, value := range map[string]string{"host": c.Host, "server": c.Server, "stateDir": c.StateDir,
		"socket": c.Socket, "pinDir": c.PinDir} {
		if value == "" {
			return fmt.Errorf("agent configuration: %s is empty", field)
		}
	}
	if !strings.HasPrefix(c.Server, "https://") {
		return fmt.Errorf("agent configuration: server %q must begin with https://", c.Server)
	}
	decaps := []string{datapath.DecapAuto, datapath.DecapTCX, datapath.DecapDX2, datapath.DecapXDP, datapath.DecapVeth, datapath.DecapVXLAN}
	if !slices.Contains(decaps, c.Decap) {
		return fmt.Errorf("agent configuration: decap %q is none of %s", c.Decap, strings.Join(decaps, ", "))
	}
	if c.Audit < time.Second {
		return fmt.Errorf("agent configuration: audit %s is less than a second", c.Audit)
	}
	if c.LearnedTimeout != 0 && c.LearnedTimeout < 3*time.Second {
		return fmt.Errorf("agent configuration: learnedTimeout %s is less than three seconds; 0s is never", c.LearnedTimeout)
	}
	for _, pa := range c.ProviderAddresses {
		if a, err := netip.ParseAddr(pa); err != nil || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("agent configuration: providerAddresses: %q is not an IPv4 or IPv6 address", pa)
		}
	}
	return nil
}
