package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
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

// endpoint is a way to speak HTTP with one daemon.
type endpoint struct {
	client *http.Client
	url    string
}

func (d dialer) policy() (weftv1connect.PolicyServiceClient, error) {
	e, err := d.serverEndpoint()
	if err != nil {
		return nil, err
	}
	return weftv1connect.NewPolicyServiceClient(e.client, e.url), nil
}

func (d dialer) operate() (weftv1connect.OperateServiceClient, error) {
	e, err := d.serverEndpoint()
	if err != nil {
		return nil, err
	}
	return weftv1connect.NewOperateServiceClient(e.client, e.url), nil
}

func (d dialer) agentService() weftv1connect.AgentServiceClient {
	e := unixEndpoint(d.agentSocket())
	return weftv1connect.NewAgentServiceClient(e.client, e.url)
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

func (d dialer) serverEndpoint() (endpoint, error) {
	c, err := d.contextFile()
	if err != nil {
		return endpoint{}, err
	}
	address := first(d.server, os.Getenv("WEFT_SERVER"), c.Server, ServerSocket)
	if path, ok := socketPath(address); ok {
		return unixEndpoint(path), nil
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return endpoint{}, usagef("server %q: write https://HOST:PORT, or the path of a socket", address)
	}
	settings, err := c.tls()
	if err != nil {
		return endpoint{}, err
	}
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment}
	return endpoint{&http.Client{Transport: transport}, strings.TrimSuffix(u.String(), "/")}, nil
}

func unixEndpoint(path string) endpoint {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	return endpoint{&http.Client{Transport: transport}, "http://localhost"}
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
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("context file: ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("context file: ca: %s holds no PEM certificate", c.CA)
	}
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("context file: certificate and key: %w", err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, nil
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
