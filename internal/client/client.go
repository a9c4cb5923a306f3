// Package client speaks to weft's daemons as their users do: to the server and
// to a host's agent, over a local socket or over mutual TLS.
//
// Invariants: it holds no state beyond connections; a server over the network
// is believed only with the certificate of our own authority.
//
// It must never link the store, netlink or eBPF, and never print.
package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

// Endpoint is a way to one daemon.
type Endpoint struct {
	http *http.Client
	url  string
}

// Unix is the daemon behind a local socket.
func Unix(path string) Endpoint {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	return Endpoint{&http.Client{Transport: transport}, "http://localhost"}
}

// TLS is the server at https://HOST:PORT.
func TLS(url string, settings *tls.Config) Endpoint {
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	return Endpoint{&http.Client{Transport: transport}, strings.TrimSuffix(url, "/")}
}

// Policy is the resources' service of a server.
func (e Endpoint) Policy() weftv1connect.PolicyServiceClient {
	return weftv1connect.NewPolicyServiceClient(e.http, e.url)
}

// Operate is the operators' service of a server.
func (e Endpoint) Operate() weftv1connect.OperateServiceClient {
	return weftv1connect.NewOperateServiceClient(e.http, e.url)
}

// Agent is the service of a host's agent.
func (e Endpoint) Agent() weftv1connect.AgentServiceClient {
	return weftv1connect.NewAgentServiceClient(e.http, e.url)
}

// Close ends idle connections.
func (e Endpoint) Close() { e.http.CloseIdleConnections() }

// lookAgain is how often a wait looks at what is missing.
const lookAgain = 200 * time.Millisecond

// NotProgrammed is the error of a wait that ran out of time.
type NotProgrammed struct {
	Missing []string // "Port red/web-1: Programmed is False: …", one per resource
	Wanted  int      // resources waited for
}

func (e *NotProgrammed) Error() string {
	return fmt.Sprintf("%d of %d resources are not programmed", len(e.Missing), e.Wanted)
}

// WaitProgrammed waits until every changed resource is programmed in the
// generation that the change made. When ctx runs out first the error is a
// *NotProgrammed.
func WaitProgrammed(ctx context.Context, policy weftv1connect.PolicyServiceClient, changes []*weftv1.Change) error {
	wanted := make(map[string]int64, len(changes))
	kinds := make(map[model.Kind]bool)
	for _, c := range changes {
		wanted[manifest.KeyString(c.GetKey())] = manifest.Meta(c.GetAfter()).GetGeneration()
		kinds[model.Kind(c.GetKey().GetKind())] = true
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var missing []string
	for {
		now, err := unprogrammed(ctx, policy, kinds, wanted)
		switch {
		case err == nil && len(now) == 0:
			return nil
		case err == nil:
			missing = now
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			return &NotProgrammed{missing, len(wanted)}
		case <-tick.C:
		}
	}
}

// unprogrammed lists what is not yet programmed, with the reason.
func unprogrammed(ctx context.Context, policy weftv1connect.PolicyServiceClient, kinds map[model.Kind]bool, wanted map[string]int64) ([]string, error) {
	var missing []string
	for _, kind := range model.Kinds {
		if !kinds[kind] {
			continue
		}
		all, err := policy.List(ctx, connect.NewRequest(&weftv1.ListRequest{Kind: string(kind)}))
		if err != nil {
			return nil, err
		}
		for _, r := range all.Msg.GetResources() {
			key := manifest.KeyString(manifest.Key(r))
			generation, ok := wanted[key]
			if !ok || kind == model.KindHost {
				continue // a host may join long after it was named
			}
			if why := whyNot(r, generation); why != "" {
				missing = append(missing, key+": "+why)
			}
		}
	}
	return missing, nil
}

// whyNot says why r is not programmed in the generation, or "".
func whyNot(r *weftv1.Resource, generation int64) string {
	c := manifest.Condition(r, "Programmed")
	switch {
	case c == nil:
		return "nothing is known yet"
	case c.GetObservedGeneration() < generation:
		return "the change has not been looked at yet"
	case c.GetStatus() != "True":
		return fmt.Sprintf("%s is %s: %s: %s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage())
	}
	return ""
}
