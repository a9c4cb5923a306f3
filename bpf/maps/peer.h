/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_PEER_H
#define WEFT_MAPS_PEER_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* peer: a remote host and the first way to it.
 * key     dense index that records carry; 0 is none
 * writer  datapath.Apply; an index lives as long as a record or a peer names its PA
 * readers admit (does the source CA live at the outer source?), lookup, underlay
 * miss    cannot be: an array. A row without a device is NO_UNDERLAY_ROUTE
 * full    Apply refuses before it writes anything */
#define PEER_PRESENT 1 /* table.Set holds a Peer; else only records name the PA */
#define PEER_LISTED 2  /* `source` says what its packets may come from; else it is pa */

struct peer {
	union addr pa;     /* that records name the host by */
	union addr local;  /* outer source; zero: the port's */
	union addr remote; /* outer destination */
	union addr via;    /* IP next hop, of remote's family; zero: the kernel looks the route up, packet by packet */
	__u32 ifindex; /* underlay device; 0: no route now */
	__u16 mtu;     /* outer IP MTU */
	__u16 flags;
	__u8 next_hop[6]; /* for bare frames: ARP always, others by `vouch`; zero: unresolved */
	__u8 source[6];
	__u32 path;  /* where further ways begin in `path` */
	__u32 paths; /* how many there are */
	__u32 zero;
};

_Static_assert(sizeof(struct peer) == 96, "peer");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct peer);
	__uint(max_entries, 16384);
} peer SEC(".maps");

#endif
