package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/identity"
)

//go:embed default.yaml
var defaultConfig string

// DefaultConfig is the annotated text of the default settings.
func DefaultConfig() string { return defaultConfig }

// Config is the settings of a server; default.yaml says what they mean.
type Config struct {
	DataDir   string          `yaml:"dataDir"`
	Listen    ListenConfig    `yaml:"listen"`
	Socket    string          `yaml:"socket"`
	Names     []string        `yaml:"names"`
	Authority AuthorityConfig `yaml:"authority"`
	Store     StoreConfig     `yaml:"store"`
	Metrics   string          `yaml:"metrics"`
	Fleet     FleetConfig     `yaml:"fleet"`

	// Ready is called once, when policy was read and all listeners serve. For
	// programs that run a server inside themselves.
	Ready func(Addresses) `yaml:"-"`
	// Version is shown to people and agents.
	Version string `yaml:"-"`
}

// ListenConfig says on which TCP addresses the two faces of the server are.
type ListenConfig struct {
	API   string `yaml:"api"`
	Hosts string `yaml:"hosts"`
}

// AuthorityConfig names a certificate authority that people bring.
type AuthorityConfig struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// FleetConfig is what all hosts must agree on. Servers that share a store must agree on it too.
type FleetConfig struct {
	VXLANPort uint16 `yaml:"vxlanPort"`
	DSCP      string `yaml:"dscp"` // uniform, or a number
}

// settings of the fleet, as Goals carry them.
func (c FleetConfig) settings() goal.Settings {
	s := goal.Settings{VXLANPort: c.VXLANPort}
	if n, err := strconv.ParseUint(c.DSCP, 10, 8); err == nil {
		s.Pipe, s.DSCP = true, uint8(n)
	}
	return s
}

// StoreConfig says where policy is kept.
type StoreConfig struct {
	Endpoints    []string       `yaml:"endpoints"`
	TLS          StoreTLSConfig `yaml:"tls"`
	Username     string         `yaml:"username"`
	PasswordFile string         `yaml:"passwordFile"`
}

// StoreTLSConfig holds PEM files for the way to an etcd cluster.
type StoreTLSConfig struct {
	CA          string `yaml:"ca"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// Addresses says where a running server listens, with the ports that were chosen.
// Empty where it does not.
type Addresses struct {
	API, Hosts, Metrics string
	Socket              string
}

// ParseConfig reads YAML over the defaults. Unknown settings are errors.
func ParseConfig(text []byte) (Config, error) {
	var cfg Config
	for _, layer := range [][]byte{[]byte(defaultConfig), text} {
		d := yaml.NewDecoder(bytes.NewReader(layer))
		d.KnownFields(true)
		if err := d.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
			return Config{}, fmt.Errorf("server settings: %w", err)
		}
		if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
			return Config{}, errors.New("server settings: more than one document")
		}
	}
	return cfg, cfg.check()
}

// LoadConfig reads a file of settings.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("server settings: %w", err)
	}
	return ParseConfig(text)
}

func (c Config) check() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("dataDir: is required"))
	}
	for name, addr := range map[string]string{"listen.api": c.Listen.API, "listen.hosts": c.Listen.Hosts, "metrics": c.Metrics} {
		if addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not ADDRESS:PORT", name, addr))
		}
	}
	if (c.Authority.Certificate == "") != (c.Authority.Key == "") {
		errs = append(errs, errors.New("authority: certificate and key go together"))
	}
	if (c.Store.TLS.Certificate == "") != (c.Store.TLS.Key == "") {
		errs = append(errs, errors.New("store.tls: certificate and key go together"))
	}
	if len(c.Store.Endpoints) == 0 && (c.Store.TLS != StoreTLSConfig{} || c.Store.Username != "") {
		errs = append(errs, errors.New("store: tls and username need endpoints"))
	}
	if c.Fleet.VXLANPort == 0 {
		errs = append(errs, errors.New("fleet.vxlanPort: must be 1 to 65535; 4789 is the standard"))
	}
	if n, err := strconv.ParseUint(c.Fleet.DSCP, 10, 8); c.Fleet.DSCP != "uniform" && (err != nil || n > goal.MaxDSCP) {
		errs = append(errs, fmt.Errorf("fleet.dscp: %q is neither uniform nor a number from 0 to 63", c.Fleet.DSCP))
	}
	if c.Socket == "" && c.Listen.API == "" {
		errs = append(errs, errors.New("socket, listen.api: one of them is needed to reach the server"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("server settings: %w", err)
	}
	return nil
}

// names of the server's certificate.
func (c Config) certNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	return append(names, c.Names...)
}

func (c Config) authority() (*identity.Authority, error) {
	if c.Authority.Certificate != "" {
		return identity.LoadAuthority(c.Authority.Certificate, c.Authority.Key)
	}
	return identity.OpenAuthority(c.DataDir + "/ca")
}

func (c StoreConfig) tls() (*tls.Config, error) {
	if c.TLS == (StoreTLSConfig{}) {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS.CA != "" {
		text, err := os.ReadFile(c.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("store.tls.ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("store.tls.ca: %s holds no PEM certificate", c.TLS.CA)
		}
	}
	if c.TLS.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.Certificate, c.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("store.tls: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (c StoreConfig) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("store.passwordFile: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
