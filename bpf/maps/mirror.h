/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_MIRROR_H
#define WEFT_MAPS_MIRROR_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/peer.h"
#include "wire/addr.h"

/* mirror: who gets copies of what a port sends and gets.
 * key     device of the port, and a number from 0 without gaps
 * writer  datapath.Apply, but for `used`, which is lib/mirror.h's
 * readers lib/mirror.h, in programs that only mirrored ports have
 * miss    there are no more
 * full    Apply refuses before it writes anything */
#define MIRROR_MAX 4

#define MIRROR_OUTBOUND 1 /* what the guest sends */
#define MIRROR_INBOUND 2  /* what it gets */
#define MIRROR_PROTO 4    /* of one protocol alone */
#define MIRROR_PREFIX 8   /* from or to some addresses alone */

struct mirror_key {
	__u32 ifindex;
	__u32 n;
};

struct mirror {
	struct peer way; /* to the host of the port that gets the copies; without a device: this one */
	__u64 interval;  /* ns between two copies, in the long run; 0: no limit */
	__u64 used;      /* monotonic ns: when all copies so far will have kept to that */
	__u32 port_id;   /* that is mirrored */
	__u32 to;        /* device of the port that gets the copies; 0: of another host */
	__u32 to_id;     /* of the port that gets the copies */
	__u32 snap;      /* bytes of each frame */
	__u32 flags;
	__u32 rate;      /* copies a second that interval was made from */
	union addr prefix; /* under mask */
	union addr mask;
	__u16 l4_port; /* source or destination, host order; 0: any */
	__u8 proto;
	__u8 zero[5];
};

_Static_assert(sizeof(struct mirror) == 176, "mirror");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct mirror_key);
	__type(value, struct mirror);
	__uint(max_entries, 16384);
} mirror SEC(".maps");

/* mirror_from: what may come from other hosts for a port of this one.
 * key     the port that gets the copies, and an outer source
 * writer  datapath.Apply
 * readers lib/mirror.h
 * miss    MIRROR_NOT_IN_POLICY
 * full    Apply refuses before it writes anything */
struct mirror_from_key {
	__u32 port_id;
	union addr pa;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct mirror_from_key) == 20, "mirror_from key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct mirror_from_key);
	__type(value, __u32); /* device of the port */
	__uint(max_entries, 16384);
} mirror_from SEC(".maps");

/* mirror_device: where copies are made into what is sent, so that the original stays as it is.
 * key     0
 * writer  datapath.SetMirrorDevice
 * readers lib/mirror.h
 * miss    cannot be: an array. Without a device: MIRROR_FAILED */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} mirror_device SEC(".maps");

#endif
