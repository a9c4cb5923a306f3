/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_SHARE_H
#define WEFT_MAPS_SHARE_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* share: ports that have a minimum of the uplinks.
 * key     device of the port
 * writer  datapath.Apply
 * readers lib/share.h, in programs that only such ports have; parse, of what waited in the shaper
 * miss    no minimum
 * full    Apply refuses before it writes anything */
struct share {
	__u64 minimum; /* bit/s, or */
	__u32 weight;  /* instead: for datapath.ReadBack, as the minimum is */
	__u32 class;   /* of the queues of uplinks */
	__u32 port_id;
	__u32 zero;
};

_Static_assert(sizeof(struct share) == 24, "share");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct share);
	__uint(max_entries, 4096);
} share SEC(".maps");

/* turn: where what leaves by a device goes instead: of an uplink to the device that has its queue,
 * and of the device below that, when its turn has come, back to the uplink.
 * key     ifindex
 * writer  datapath.ShareUplinks
 * readers lib/share.h
 * miss    it just leaves */
struct turn {
	__u32 to;
	__u32 waited; /* 1: it comes out of the queue */
};

_Static_assert(sizeof(struct turn) == 8, "turn");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct turn);
	__uint(max_entries, 64);
} turn SEC(".maps");

#endif
