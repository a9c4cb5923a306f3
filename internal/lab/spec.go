package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Spec is what a LAB.yaml says.
type Spec struct {
	// Hosts by name. Empty: h1 and h2.
	Hosts []string `yaml:"hosts"`
	// Manifests to apply once the hosts are connected; relative to the LAB.yaml.
	Manifests []string `yaml:"manifests"`
	// ProviderAddresses are the families that hosts reach each other by: ipv4 (when
	// empty), ipv6, or both.
	ProviderAddresses []string `yaml:"providerAddresses"`
	// Guests to make and plug.
	Guests []GuestSpec `yaml:"guests"`
}

// GuestSpec is one guest: TENANT/PORT, or a mapping when the port itself does
// not say its host.
type GuestSpec struct {
	Port string `yaml:"port" json:"port"`
	Host string `yaml:"host" json:"host"`
}

// UnmarshalYAML accepts the short form.
func (g *GuestSpec) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		g.Port = n.Value
		return nil
	}
	type plain GuestSpec
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i].Value; k != "port" && k != "host" {
			return fmt.Errorf("line %d: guest: unknown field %q; known here: port, host", n.Content[i].Line, k)
		}
	}
	return n.Decode((*plain)(g))
}

// A host's name becomes part of a file name and of a namespace's name.
var validHost = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// LoadSpec reads a LAB.yaml. Unknown fields are errors.
func LoadSpec(path string) (Spec, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Spec{}, fmt.Errorf("lab: %w", err)
	}
	var s Spec
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Spec{}, fmt.Errorf("%s: %w", path, err)
	}
	for i, m := range s.Manifests {
		if !filepath.IsAbs(m) {
			s.Manifests[i] = filepath.Join(filepath.Dir(path), m)
		}
	}
	if len(s.Hosts) == 0 {
		s.Hosts = HostNames(2)
	}
	if err := s.check(); err != nil {
		return Spec{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// HostNames are h1 … hN.
func HostNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "h" + strconv.Itoa(i+1)
	}
	return names
}

func (s Spec) check() error {
	if len(s.Hosts) == 0 || len(s.Hosts) > maxHosts {
		return fmt.Errorf("%d hosts: a lab has 1 to %d", len(s.Hosts), maxHosts)
	}
	hosts := make(map[string]bool)
	for _, h := range s.Hosts {
		if !validHost.MatchString(h) {
			return fmt.Errorf("host %q: write lower-case letters, digits and dashes", h)
		}
		if hosts[h] {
			return fmt.Errorf("host %s is there twice", h)
		}
		hosts[h] = true
	}
	for _, f := range s.ProviderAddresses {
		if f != "ipv4" && f != "ipv6" {
			return fmt.Errorf("providerAddresses: %q: write ipv4, ipv6 or both", f)
		}
	}
	guests := make(map[string]bool)
	for _, g := range s.Guests {
		if _, err := parsePortRef(g.Port); err != nil {
			return err
		}
		if g.Host != "" && !hosts[g.Host] {
			return fmt.Errorf("guest %s: no host %s in this lab", g.Port, g.Host)
		}
		if guests[g.Port] {
			return fmt.Errorf("guest %s is there twice", g.Port)
		}
		guests[g.Port] = true
	}
	return nil
}

// providerAddresses of the i-th node, as its agent is told them.
func (s Spec) providerAddresses(i int) (out []string) {
	for _, f := range s.ProviderAddresses {
		a := nodeOf(i)
		if f == "ipv6" {
			a = node6Of(i)
		}
		out = append(out, a.String())
	}
	return out
}

// state is what a lab remembers of itself, for exec and status.
type state struct {
	Hosts  []string    `json:"hosts"`
	Guests []GuestSpec `json:"guests"` // with their hosts
}

func (l Lab) writeState(s state) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	// Whole or not at all: exec and status may read at any moment.
	next := l.stateFile() + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return os.Rename(next, l.stateFile())
}

func (l Lab) readState() (state, error) {
	if err := l.mustBeUp(); err != nil {
		return state{}, err
	}
	text, err := os.ReadFile(l.stateFile())
	if err != nil {
		return state{}, fmt.Errorf("lab %s: %w", l.name, err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return state{}, fmt.Errorf("lab %s: %s is damaged: %w; weftd lab down removes the lab all the same", l.name, l.stateFile(), err)
	}
	return s, nil
}
