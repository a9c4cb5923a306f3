package netdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Change says what kinds of things changed in the namespace.
type Change uint8

// The kinds of a Change.
const (
	ChangeLinks Change = 1 << iota
	ChangeAddresses
	ChangeRoutes
	ChangeNeighbours
	// ChangeAll is what a lost message could have been.
	ChangeAll = ChangeLinks | ChangeAddresses | ChangeRoutes | ChangeNeighbours
)

// Watch calls changed, from one goroutine, for every change of links,
// addresses, routes and neighbours until ctx ends. changed must be quick.
// When the kernel had to drop messages (ENOBUFS), it reports ChangeAll.
// The subscription stands when Watch returns: a listing made after it misses nothing.
func Watch(ctx context.Context, changed func(Change)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("subscribe to device changes: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	go func() {
		defer stop()
		for {
			messages, _, err := s.Receive()
			if errors.Is(err, os.ErrClosed) || ctx.Err() != nil {
				return
			}
			if err != nil {
				changed(ChangeAll)
				continue
			}
			if c := kinds(messages); c != 0 {
				changed(c)
			}
		}
	}()
	return nil
}

func kinds(messages []syscall.NetlinkMessage) Change {
	var c Change
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			c |= ChangeLinks
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			c |= ChangeAddresses
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWRULE, unix.RTM_DELRULE:
			c |= ChangeRoutes
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			c |= ChangeNeighbours
		}
	}
	return c
}
