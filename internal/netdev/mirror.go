package netdev

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// The pair by which copies for mirrors go; nothing ever crosses it.
const (
	mirrorDevice = "weft-mi0"
	mirrorPeer   = "weft-mi1"
	mirrorMTU    = 65535
)

// PrepareMirror makes the device that copies are sent out of, whose egress belongs to the switch, and returns its
// index. It may be called again and again.
func PrepareMirror() (uint32, error) {
	l, err := byName(mirrorDevice)
	if err == nil {
		return uint32(l.Attrs().Index), nil
	}
	if !errors.Is(err, ErrNoDevice) {
		return 0, err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: mirrorPeer, PeerMTU: mirrorMTU, PeerTxQLen: -1}
	veth.Name, veth.MTU = mirrorDevice, mirrorMTU
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, fmt.Errorf("create veth %s: %w", mirrorDevice, err)
	}
	for _, name := range []string{mirrorPeer, mirrorDevice} {
		if err := silentUp(name); err != nil {
			return 0, errors.Join(err, RemoveMirror())
		}
	}
	if l, err = byName(mirrorDevice); err != nil {
		return 0, err
	}
	return uint32(l.Attrs().Index), nil
}

// RemoveMirror undoes PrepareMirror. It is no error when there is nothing to undo.
func RemoveMirror() error { return DeleteLink(mirrorDevice) }
