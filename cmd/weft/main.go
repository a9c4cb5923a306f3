// Command weft is the command line of weft.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/weft-sdn/weft/internal/cli"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Main(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
