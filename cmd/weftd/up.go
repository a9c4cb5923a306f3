package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/agent"
	"github.com/weft-sdn/weft/internal/client"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/server"
)

// joinSeconds is how long the token of a host that joins itself is good.
const joinSeconds = 300

func upCommand() *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "up [--data-dir DIR]",
		Short: "Run server and agent in one process, for one machine",
		Long: `Run the server, with its store inside, and this host's agent in one process. The
agent joins by itself. More hosts may join later: weft token create HOST.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return up(c.Context(), dataDir) },
	}
	c.Flags().StringVar(&dataDir, "data-dir", "/var/lib/weft", "directory for everything that both roles keep")
	return c
}

func up(ctx context.Context, dataDir string) error {
	serverSettings, err := serverConfig("")
	if err != nil {
		return err
	}
	agentSettings, err := agentConfig("")
	if err != nil {
		return err
	}
	serverSettings.DataDir = filepath.Join(dataDir, "server")
	agentSettings.StateDir = filepath.Join(dataDir, "agent")
	agentSettings.TokenFile = filepath.Join(dataDir, "agent", "token")
	ready := make(chan server.Addresses, 1)
	serverSettings.Ready = func(a server.Addresses) { ready <- a }

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ended(ctx, "server", runServer(ctx, serverSettings)) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case at := <-ready:
			if agentSettings.Server, err = localURL(at.Hosts); err != nil {
				return err
			}
			if err := joinSelf(ctx, at.Socket, agentSettings); err != nil {
				return err
			}
			return ended(ctx, "agent", runAgent(ctx, agentSettings))
		}
	})
	return group.Wait()
}

// ended makes an error of a role that ends though nobody asked it to: the other
// must not go on alone.
func ended(ctx context.Context, role string, err error) error {
	if err == nil && ctx.Err() == nil {
		return fmt.Errorf("the %s ended", role)
	}
	return err
}

// localURL is how this machine reaches an address that the server listens on.
func localURL(listening string) (string, error) {
	host, port, err := net.SplitHostPort(listening)
	if err != nil {
		return "", fmt.Errorf("the server listens for hosts on %q: %w", listening, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port), nil
}

// joinSelf writes a token for this machine's agent. At every start: a certificate that it
// holds may have expired, or be of an authority or of a Host that is no more.
func joinSelf(ctx context.Context, socket string, cfg agent.Config) error {
	request := connect.NewRequest(&weftv1.CreateTokenRequest{Host: cfg.Host, TtlSeconds: joinSeconds})
	token, err := client.Unix(socket).Operate().CreateToken(ctx, request)
	if err != nil {
		return fmt.Errorf("let this host in: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.TokenFile), 0o700); err != nil {
		return fmt.Errorf("let this host in: %w", err)
	}
	return identity.WriteFile(cfg.TokenFile, []byte(token.Msg.GetToken()+"\n"))
}
