package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/client"
	"github.com/weft-sdn/weft/internal/identity"
)

// The sockets that weftd opens by default.
const (
	ServerSocket = "/run/weft/server.sock"
	AgentSocket  = "/run/weft/agent.sock"
)

// dialer finds the server and the agent. Its fields are the flags.
type dialer struct{ server, agent, context string }

// contextFile says where the server is and who we are. Relative paths start at
// the file's own directory.
type contextFile struct {
	Server      string `yaml:"server"`
	CA          string `yaml:"ca"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

func (d dialer) policy() (weftv1connect.PolicyServiceClient, error) {
	e, err := d.serverEndpoint()
	if err != nil {
		return nil, err
	}
	return e.Policy(), nil
}

func (d dialer) operate() (weftv1connect.OperateServiceClient, error) {
	e, err := d.serverEndpoint()
	if err != nil {
		return nil, err
	}
	return e.Operate(), nil
}

func (d dialer) agentService() weftv1connect.AgentServiceClient {
	return client.Unix(d.agentSocket()).Agent()
}

func (d dialer) agentSocket() string {
	return strings.TrimPrefix(first(d.agent, os.Getenv("WEFT_AGENT"), AgentSocket), "unix://")
}

// agentOnly reports whether this host has an agent and nothing names a server:
// then what the agent alone can tell is asked of it.
func (d dialer) agentOnly() bool {
	if first(d.server, os.Getenv("WEFT_SERVER")) != "" || exists(ServerSocket) {
		return false
	}
	c, err := d.contextFile()
	return err == nil && c.Server == "" && exists(d.agentSocket())
}

func (d dialer) serverEndpoint() (client.Endpoint, error) {
	c, err := d.contextFile()
	if err != nil {
		return client.Endpoint{}, err
	}
	address := first(d.server, os.Getenv("WEFT_SERVER"), c.Server, ServerSocket)
	if path, ok := socketPath(address); ok {
		return client.Unix(path), nil
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return client.Endpoint{}, usagef("server %q: write https://HOST:PORT, or the path of a socket", address)
	}
	settings, err := c.tls()
	if err != nil {
		return client.Endpoint{}, err
	}
	return client.TLS(u.String(), settings), nil
}

func socketPath(address string) (string, bool) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return path, true
	}
	return address, strings.HasPrefix(address, "/") || strings.HasPrefix(address, ".")
}

// contextFile reads the file that --context or WEFT_CONTEXT names, which must
// exist, or the user's own, which may be absent.
func (d dialer) contextFile() (contextFile, error) {
	path := first(d.context, os.Getenv("WEFT_CONTEXT"))
	named := path != ""
	if !named {
		dir, err := os.UserConfigDir()
		if err != nil {
			return contextFile{}, nil
		}
		path = filepath.Join(dir, "weft", "context.yaml")
	}
	file, err := os.Open(path)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return contextFile{}, nil
	}
	if err != nil {
		return contextFile{}, fmt.Errorf("context file: %w", err)
	}
	defer file.Close()
	var c contextFile
	strict := yaml.NewDecoder(file)
	strict.KnownFields(true)
	if err := strict.Decode(&c); err != nil {
		return contextFile{}, fmt.Errorf("context file %s: %w", path, err)
	}
	for _, p := range []*string{&c.CA, &c.Certificate, &c.Key} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return c, nil
}

func (c contextFile) tls() (*tls.Config, error) {
	if c.CA == "" || c.Certificate == "" || c.Key == "" {
		return nil, errors.New("a server over the network needs mutual TLS: name ca, certificate and key in a context file (weft help)")
	}
	var pem [3][]byte
	for i, path := range []string{c.CA, c.Certificate, c.Key} {
		var err error
		if pem[i], err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("context file: %w", err)
		}
	}
	settings, err := identity.ClientTLS(pem[0], pem[1], pem[2])
	if err != nil {
		return nil, fmt.Errorf("context file: %w", err)
	}
	return settings, nil
}

func first(candidates ...string) string {
	for _, c := range candidates {
		if c != "" {
			return c
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
