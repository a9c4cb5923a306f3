package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/weft-sdn/weft/internal/lab"
)

func labCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "lab",
		Short: "Run several hosts on this machine, to try, learn and test",
		Long: `Run several hosts on this machine: each is a network namespace with a real agent,
joined by a routed underlay to the others and to a real server; guests are
namespaces plugged into the hosts' switches. Several labs can run at once (--name).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&name, "name", lab.DefaultName, "name of the lab")
	c.AddCommand(labUpCommand(&name), labDemoCommand(&name), labDownCommand(&name), labStatusCommand(&name), labExecCommand(&name))
	return c
}

func labUpCommand(name *string) *cobra.Command {
	var file string
	var hosts int
	c := &cobra.Command{
		Use:   "up [-f LAB.yaml] [--hosts N]",
		Short: "Bring the lab up, and leave it running",
		Long: `Bring the lab up: hosts, server and agents; then what the LAB.yaml says:

  hosts: [h1, h2]            # names
  manifests: [demo.yaml]     # applied once the hosts are connected
  guests:                    # ports to make a guest for and plug
    - red/web-1
    - {port: red/web-2, host: h2}   # where the port does not say its host

Returns when every host is connected and every guest plugged. When it fails,
nothing is left.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, spec, err := labSpec(c, *name, file, hosts)
			if err != nil {
				return err
			}
			if err := labUp(c, l, spec); err != nil {
				return err
			}
			return l.Suggest(c.OutOrStdout())
		},
	}
	labSpecFlags(c, &file, &hosts)
	return c
}

func labDemoCommand(name *string) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "demo -f LAB.yaml",
		Short: "Bring the lab up anew, and prove who can and who cannot talk",
		Long:  "Bring the lab up anew, probe every pair of its guests, print what is expected and what\nis observed, and leave the lab running. The exit code is 1 when they differ.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("say which lab: -f LAB.yaml, such as examples/demo-lab.yaml")
			}
			l, spec, err := labSpec(c, *name, file, 0)
			if err != nil {
				return err
			}
			if found, err := l.Down(c.Context()); err != nil {
				return err
			} else if found {
				say(c, "removed the lab that was running")
			}
			if err := labUp(c, l, spec); err != nil {
				return err
			}
			holds, err := l.Demo(c.Context(), c.OutOrStdout())
			if err != nil {
				return err
			}
			if err := l.Suggest(c.OutOrStdout()); err != nil {
				return err
			}
			if !holds {
				return fmt.Errorf("not everything is as expected: see WRONG above")
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "LAB.yaml")
	return c
}

func labSpecFlags(c *cobra.Command, file *string, hosts *int) {
	c.Flags().StringVarP(file, "filename", "f", "", "LAB.yaml")
	c.Flags().IntVar(hosts, "hosts", 2, "number of hosts, h1 to hN, without a LAB.yaml")
}

// labSpec reads the LAB.yaml, or makes one of a number of hosts.
func labSpec(c *cobra.Command, name, file string, hosts int) (lab.Lab, lab.Spec, error) {
	l, err := lab.New(name)
	if err != nil {
		return lab.Lab{}, lab.Spec{}, usagef("%w", err)
	}
	if file == "" {
		return l, lab.Spec{Hosts: lab.HostNames(max(0, hosts))}, nil
	}
	if f := c.Flags().Lookup("hosts"); f != nil && f.Changed {
		return lab.Lab{}, lab.Spec{}, usagef("-f says which hosts there are; leave --hosts out")
	}
	spec, err := lab.LoadSpec(file)
	return l, spec, err
}

func labUp(c *cobra.Command, l lab.Lab, spec lab.Spec) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return l.Up(c.Context(), lab.Options{Spec: spec, Weftd: self, Say: func(format string, args ...any) { say(c, format, args...) }})
}

// say writes one line of words, never data.
func say(c *cobra.Command, format string, args ...any) {
	fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...)
}

func labDownCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove the lab: processes, pins, namespaces and files",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.New(*name)
			if err != nil {
				return usagef("%w", err)
			}
			found, err := l.Down(c.Context())
			if err != nil {
				return err
			}
			if !found {
				say(c, "lab %s is not there", *name)
				return nil
			}
			say(c, "lab %s is removed", *name)
			return nil
		},
	}
}

func labStatusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the lab's hosts and guests (exit code 1 when one of its daemons is not well)",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.New(*name)
			if err != nil {
				return usagef("%w", err)
			}
			healthy, err := l.Status(c.Context(), c.OutOrStdout())
			if err == nil && !healthy {
				err = errTold
			}
			return err
		},
	}
}

func labExecCommand(name *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "exec HOST|TENANT/PORT -- COMMAND...",
		Short: "Run a command on a host of the lab or in a guest",
		Long: `Run a command in the network namespace of a host of the lab (its name, or server
or router) or of a guest (TENANT/PORT), with terminal, input and exit code passed
through, and with weft pointed at the lab's server and the host's agent.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.New(*name)
			if err != nil {
				return usagef("%w", err)
			}
			command := args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 {
				return usagef("say which command: HOST|TENANT/PORT -- COMMAND...")
			}
			return l.Exec(args[0], command)
		},
	}
	// What follows the place belongs to the command, flags and all.
	c.Flags().SetInterspersed(false)
	return c
}
