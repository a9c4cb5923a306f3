package netdev

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
)

// The pair through which stripped packets are merged once more: what goes out of the first is cut, and GRO
// merges what comes in by the second.
const (
	mergeDevice = "weft-gr0"
	mergePeer   = "weft-gr1"
	mergeMTU    = 65535
	mergeQueue  = 1000 // super-packets that wait while the veth's ring of 256 frames is full
)

// superPackets are the features by which a device says that it takes TCP in super-packets. A veth's receiving
// end merges only what the sending end did not take so.
var superPackets = []string{"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation"}

// PrepareMerge makes the pair and returns the indices of the ends that packets go out of and come in by.
// It may be called again and again.
func PrepareMerge() (out, in uint32, err error) {
	l, err := byName(mergeDevice)
	if errors.Is(err, ErrNoDevice) {
		l, err = createMerge()
	}
	if err != nil {
		return 0, 0, err
	}
	peer, err := byName(mergePeer)
	if err != nil {
		return 0, 0, err
	}
	return uint32(l.Attrs().Index), uint32(peer.Attrs().Index), nil
}

func createMerge() (netlink.Link, error) {
	queues := runtime.NumCPU() // so that each CPU has a ring
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: mergePeer, PeerMTU: mergeMTU, PeerTxQLen: -1,
		PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues)}
	veth.Name, veth.MTU, veth.TxQLen, veth.NumTxQueues, veth.NumRxQueues = mergeDevice, mergeMTU, mergeQueue, queues, queues
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", mergeDevice, err)
	}
	l, err := byName(mergeDevice)
	if err == nil {
		err = setFeatures(mergeDevice, superPackets, false)
	}
	if err == nil {
		err = setFeatures(mergePeer, []string{"rx-gro"}, true)
	}
	if err == nil {
		err = queueMerge(l)
	}
	for _, name := range []string{mergePeer, mergeDevice} {
		if err == nil {
			err = silentUp(name)
		}
	}
	if err != nil {
		return nil, errors.Join(err, RemoveMerge())
	}
	return l, nil
}

// queueMerge gives the device a queue, so that what finds the ring full waits (Linux 6.16 and newer) and is not lost.
func queueMerge(l netlink.Link) error {
	q := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}, QdiscType: "mq"}
	if l.Attrs().NumTxQueues < 2 {
		q.QdiscType = "pfifo"
	}
	if err := netlink.QdiscReplace(q); err != nil {
		return fmt.Errorf("queue of %s: %w", mergeDevice, err)
	}
	return nil
}

// RemoveMerge undoes PrepareMerge. It is no error when there is nothing to undo.
func RemoveMerge() error { return DeleteLink(mergeDevice) }
