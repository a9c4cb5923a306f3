package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/client"
	"github.com/weft-sdn/weft/internal/manifest"
)

// Times that Up allows, on a machine with other things to do.
const (
	serverWait = 60 * time.Second
	hostWait   = 3 * time.Minute // and as much again for every 20 hosts; an emulated machine takes one to verify the programs
	policyWait = 60 * time.Second
	lookAgain  = 50 * time.Millisecond
)

// hostsPort is where the lab's server listens for agents, in its own namespace.
const hostsPort = 7443

// Options of Up.
type Options struct {
	Spec  Spec
	Weftd string                           // program to run
	Say   func(format string, args ...any) // progress, in words

	// Settings of the server and of every agent over those that the lab gives them.
	Server, Agent map[string]any
}

// Up brings the lab up and returns when every host is connected, the manifests
// are programmed and the guests plugged. When it fails it leaves nothing.
func (l Lab) Up(ctx context.Context, o Options) (err error) {
	if err := o.Spec.check(); err != nil {
		return err
	}
	unlock, err := l.claim(ctx, o)
	if err != nil {
		return err
	}
	defer unlock()
	defer func() {
		if err == nil {
			return
		}
		o.Say("lab %s failed; cleaning up", l.name)
		// The caller's context may be what failed.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), downWait)
		defer cancel()
		err = errors.Join(err, l.remove(clean))
	}()
	return l.bringUp(ctx, o)
}

// claim makes the lab's directory ours, after removing what a crash left in it.
func (l Lab) claim(ctx context.Context, o Options) (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab makes network namespaces and loads eBPF: run it as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, errors.New("a lab needs the program ip: install the package iproute2")
	}
	if err := os.MkdirAll(l.dir(), 0o711); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	unlock, err = l.lock()
	if err != nil {
		return nil, err
	}
	spaces, err := l.spaces()
	if err != nil {
		unlock()
		return nil, err
	}
	pids, err := processes(spaces)
	switch {
	case err != nil:
	case l.mustBeUp() == nil && len(pids) > 0:
		err = fmt.Errorf("lab %s is up already: weftd lab down --name %s removes it", l.name, l.name)
	case len(spaces) > 0 || exists(l.pins()) || exists(l.serverDir()):
		o.Say("removing what an earlier lab %s left behind", l.name)
		if err = l.remove(ctx); err == nil {
			unlock()
			return l.claim(ctx, o)
		}
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

func (l Lab) bringUp(ctx context.Context, o Options) error {
	if err := needBPFFS(); err != nil {
		return err
	}
	hosts := o.Spec.Hosts
	if err := l.buildUnderlay(ctx, hosts); err != nil {
		return err
	}
	o.Say("lab %s: %d hosts on a routed underlay", l.name, len(hosts))
	server, err := l.startServer(ctx, o)
	if err != nil {
		return err
	}
	daemons := []*daemon{server}
	for i, h := range hosts {
		agent, err := l.startAgent(ctx, o, h, o.Spec.providerAddresses(i+1))
		if err != nil {
			return err
		}
		daemons = append(daemons, agent)
	}
	ctx, stop := watch(ctx, daemons)
	defer stop()
	if err := l.waitConnected(ctx, hosts); err != nil {
		return cause(ctx, err)
	}
	o.Say("server and agents are up and connected")
	if err := l.populate(ctx, o); err != nil {
		return cause(ctx, err)
	}
	return nil
}

// cause prefers why a context ended over what ended because of it.
func cause(ctx context.Context, err error) error {
	c := context.Cause(ctx)
	if c != nil && !errors.Is(c, context.Canceled) && !errors.Is(c, context.DeadlineExceeded) {
		return c
	}
	return err
}

// startServer runs the server and waits until it answers.
func (l Lab) startServer(ctx context.Context, o Options) (*daemon, error) {
	config := map[string]any{
		"dataDir": filepath.Join(l.serverDir(), "data"),
		"listen":  map[string]any{"hosts": fmt.Sprintf("%s:%d", nodeOf(0), hostsPort)},
		"socket":  l.serverSocket(),
		"names":   []string{nodeOf(0).String()},
	}
	maps.Copy(config, o.Server)
	path, err := writeConfig(l.serverDir(), config)
	if err != nil {
		return nil, err
	}
	d, err := l.start(o.Weftd, "server", l.space(serverSpace), l.serverDir(), "server", "--config", path)
	if err != nil {
		return nil, err
	}
	ctx, stop := watch(ctx, []*daemon{d})
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	err = poll(ctx, func() error {
		_, err := l.server().Operate().FleetStatus(ctx, connect.NewRequest(&weftv1.FleetStatusRequest{}))
		return err
	})
	if err != nil {
		return nil, cause(ctx, fmt.Errorf("the server does not answer: %w; the end of its log:\n%s", err, tail(d.log)))
	}
	return d, nil
}

// startAgent lets one host in with a token of its own and starts its agent.
func (l Lab) startAgent(ctx context.Context, o Options, host string, pas []string) (*daemon, error) {
	token, err := l.server().Operate().CreateToken(ctx, connect.NewRequest(&weftv1.CreateTokenRequest{Host: host, TtlSeconds: 600}))
	if err != nil {
		return nil, fmt.Errorf("token of %s: %w", host, err)
	}
	dir := l.hostDir(host)
	tokenFile := filepath.Join(dir, "token")
	config := map[string]any{
		"host":      host,
		"server":    fmt.Sprintf("https://%s:%d", nodeOf(0), hostsPort),
		"tokenFile": tokenFile,
		"stateDir":  filepath.Join(dir, "state"),
		"socket":    l.agentSocket(host),
		"pinDir":    filepath.Join(l.pins(), host),
		"underlay":  "eth0",
	}
	if len(pas) > 0 {
		config["providerAddresses"] = pas
	}
	maps.Copy(config, o.Agent)
	path, err := writeConfig(dir, config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(tokenFile, []byte(token.Msg.GetToken()+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("token of %s: %w", host, err)
	}
	return l.start(o.Weftd, "agent of "+host, l.space(host), dir, "agent", "--config", path)
}

// writeConfig writes a daemon's settings into dir, which it makes.
func writeConfig(dir string, config map[string]any) (string, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	path := filepath.Join(dir, "config.yaml")
	return path, os.WriteFile(path, text, 0o600)
}

// waitConnected waits until every host has a session with the server.
func (l Lab) waitConnected(ctx context.Context, hosts []string) error {
	ctx, cancel := context.WithTimeout(ctx, hostWait+hostWait*time.Duration(len(hosts)/20))
	defer cancel()
	err := poll(ctx, func() error {
		status, err := l.server().Operate().FleetStatus(ctx, connect.NewRequest(&weftv1.FleetStatusRequest{}))
		if err != nil {
			return err
		}
		connected := make(map[string]bool)
		for _, h := range status.Msg.GetHosts() {
			connected[h.GetName()] = h.GetConnected() && len(h.GetProviderAddresses()) > 0
		}
		for _, h := range hosts {
			if !connected[h] {
				return fmt.Errorf("host %s is not connected; the end of its log:\n%s", h, tail(filepath.Join(l.hostDir(h), "log")))
			}
		}
		return nil
	})
	return cause(ctx, err)
}

// populate applies the manifests and plugs the guests.
func (l Lab) populate(ctx context.Context, o Options) error {
	if err := l.givePools(ctx, o.Spec.Hosts); err != nil {
		return err
	}
	for _, path := range o.Spec.Manifests {
		if err := l.apply(ctx, path); err != nil {
			return err
		}
		o.Say("applied %s: programmed on every host", path)
	}
	guests, err := l.placeGuests(ctx, o.Spec)
	if err != nil {
		return err
	}
	if err := l.writeState(state{o.Spec.Hosts, guests}); err != nil {
		return err
	}
	perHost := make(map[string][]portRef)
	for _, g := range guests {
		ref, _ := parsePortRef(g.Port) // checked with the spec
		perHost[g.Host] = append(perHost[g.Host], ref)
	}
	var group errgroup.Group
	for host, refs := range perHost {
		group.Go(func() error {
			for _, ref := range refs {
				if err := l.plug(ctx, host, ref); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil || len(guests) == 0 {
		return err
	}
	o.Say("%d guests are plugged", len(guests))
	return nil
}

// givePools tells policy what the underlay leads to each host.
func (l Lab) givePools(ctx context.Context, hosts []string) error {
	var resources []*weftv1.Resource
	for i, name := range hosts {
		h := &weftv1.Host{Metadata: &weftv1.Metadata{Name: name}, Spec: &weftv1.HostSpec{}}
		for _, p := range poolsOf(i + 1) {
			h.Spec.RewritePrefixes = append(h.Spec.RewritePrefixes, p.String())
		}
		resources = append(resources, &weftv1.Resource{Kind: &weftv1.Resource_Host{Host: h}})
	}
	_, err := l.server().Policy().Apply(ctx, connect.NewRequest(&weftv1.ApplyRequest{Resources: resources}))
	if err != nil {
		return fmt.Errorf("rewrite prefixes of the hosts: %w", err)
	}
	return nil
}

func (l Lab) apply(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer file.Close()
	resources, err := manifest.ReadFile(file.Name(), file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	policy := l.server().Policy()
	answer, err := policy.Apply(ctx, connect.NewRequest(&weftv1.ApplyRequest{Resources: resources}))
	if err != nil {
		return fmt.Errorf("apply %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, policyWait)
	defer cancel()
	err = client.WaitProgrammed(ctx, policy, answer.Msg.GetChanges())
	var late *client.NotProgrammed
	if errors.As(err, &late) && len(late.Missing) > 0 {
		return fmt.Errorf("apply %s: %w, %s first", path, err, late.Missing[0])
	}
	return err
}

// placeGuests gives every guest its host: that of its port, or the one written
// beside it.
func (l Lab) placeGuests(ctx context.Context, s Spec) ([]GuestSpec, error) {
	guests := make([]GuestSpec, len(s.Guests))
	for i, g := range s.Guests {
		ref, err := parsePortRef(g.Port)
		if err != nil {
			return nil, err
		}
		port, err := l.port(ctx, ref)
		if err != nil {
			return nil, err
		}
		guests[i] = g
		if h := port.GetSpec().GetHost(); h != "" {
			guests[i].Host = h
		}
		if guests[i].Host == "" {
			return nil, fmt.Errorf("guest %s: neither its port nor the lab says its host: write {port: %s, host: HOST}", ref, ref)
		}
	}
	return guests, nil
}

func (l Lab) port(ctx context.Context, ref portRef) (*weftv1.Port, error) {
	key := &weftv1.Key{Kind: "Port", Tenant: ref.tenant, Name: ref.port}
	answer, err := l.server().Policy().Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: key}))
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", ref, err)
	}
	return answer.Msg.GetResource().GetPort(), nil
}

// plug makes a guest's namespace and plugs it in on its host.
func (l Lab) plug(ctx context.Context, host string, ref portRef) error {
	space := l.guestSpace(ref)
	if err := batch(ctx, "", []string{"netns add " + space}); err != nil {
		return err
	}
	_, err := l.agent(host).Agent().Plug(ctx, connect.NewRequest(&weftv1.PlugRequest{Tenant: ref.tenant, Port: ref.port, Netns: space}))
	if err != nil {
		return fmt.Errorf("plug %s on %s: %w", ref, host, err)
	}
	return nil
}

// poll tries until try succeeds or ctx ends; then the last failure is told.
func poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
