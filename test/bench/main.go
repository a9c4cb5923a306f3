// Package main of test/bench measures weft against what the same kernel does
// without it: a bare veth, plain routing, and a Linux bridge with the kernel's
// vxlan. One run alternates the contenders round-robin and compares them within
// each round, so that what the machine does meanwhile hits all of them alike.
//
// Invariants: every figure comes from packets that crossed the kernel; a cell
// whose underlay does not behave as its name says is an error, not a row. All
// namespaces are called wb-*, and none outlives the run.
// It must never touch another namespace, a pin or a sysctl of the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags of a run.
type options struct {
	rounds  int
	seconds float64
	cells   string
	only    string
	metrics string
	json    string
	into    string
	micro   bool
}

func main() {
	if spec := os.Getenv(workerEnv); spec != "" {
		workerMain(spec)
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; every contender is measured once in each")
	flag.Float64Var(&o.seconds, "seconds", 0.7, "length of one measurement")
	flag.StringVar(&o.cells, "cells", cellNames(), "port kind / underlay, or how many records; comma separated")
	flag.StringVar(&o.only, "contenders", "", "only these contenders, comma separated (default all)")
	flag.StringVar(&o.metrics, "metrics", "", "only these metrics: tcp1,tcp1c,tcp4,rr1c,crr1c,udp,udp-hot,udp-random,cps (default all)")
	flag.StringVar(&o.json, "json", "", "also write every single result as JSON to this file")
	flag.StringVar(&o.into, "into", "", "also write the tables into this page, in the place of those that it has")
	flag.BoolVar(&o.micro, "micro", true, "also time the program alone (BPF_PROG_TEST_RUN)")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures all cells and prints the report.
func run(ctx context.Context, o options) error {
	if os.Getuid() != 0 {
		return errors.New("needs root: it makes network namespaces and loads eBPF")
	}
	unlock, err := exclusive()
	if err != nil {
		return err
	}
	defer unlock()
	cells, err := selectCells(o)
	if err != nil {
		return err
	}
	defer sweep()
	sweep()
	r := newReport(o)
	failed := measureAll(ctx, cells, o, r)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	// What was measured before a failure is still worth reading.
	fmt.Print(r.markdown())
	if o.json != "" {
		failed = errors.Join(failed, r.writeJSON(o.json))
	}
	if o.into != "" && failed == nil { // a page shows whole runs
		return r.writeInto(o.into)
	}
	return failed
}

func measureAll(ctx context.Context, cells []cell, o options, r *report) error {
	for _, c := range cells {
		if err := measureCell(ctx, c, o, r); err != nil {
			return fmt.Errorf("cell %s: %w", c.name(), err)
		}
	}
	if !o.micro {
		return nil
	}
	if err := errors.Join(hurryAll(), r.addMicro(), r.addFill(), r.addRuleCost(), r.addEstablished()); err != nil {
		return fmt.Errorf("micro: %w", err)
	}
	return nil
}

// measureCell builds the contenders of a cell side by side and measures them in turn.
func measureCell(ctx context.Context, c cell, o options, r *report) error {
	var sites []*site
	defer func() {
		for _, s := range sites {
			s.close()
		}
	}()
	for _, name := range c.contenders {
		if name == forced(r.Chosen[c.name()]) {
			continue // weft has chosen it: the same row twice
		}
		began := time.Now()
		s, err := build(ctx, c, name)
		if s != nil {
			sites = append(sites, s)
		}
		if err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
		if err := s.check(ctx); err != nil {
			return fmt.Errorf("checking %s: %w", name, err)
		}
		fmt.Fprintf(os.Stderr, "%-10s %s stands (%.1fs)\n", c.name(), name, time.Since(began).Seconds())
		if name == weft {
			r.Chosen[c.name()] = s.decapsulation()
		}
	}
	for round := range o.rounds {
		for _, m := range c.metrics {
			for _, s := range sites {
				began := time.Now()
				v, err := s.measured(ctx, m, o.seconds)
				if err != nil {
					return fmt.Errorf("%s of %s in round %d: %w", m, s.name, round+1, err)
				}
				r.add(c, s.name, round, m, v)
				fmt.Fprintf(os.Stderr, "%-10s round %d %-10s %-6s %s (%.1fs)\n", c.name(), round+1, s.name, m, v.line(m), time.Since(began).Seconds())
			}
		}
	}
	return nil
}

// forced is the contender that is told to decapsulate as weft has chosen to.
func forced(chosen string) string {
	return weft + "-" + chosen
}

func selected(list, name string) bool {
	if list == "" {
		return true
	}
	for item := range strings.SplitSeq(list, ",") {
		if item == name {
			return true
		}
	}
	return false
}
