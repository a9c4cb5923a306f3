/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_SHAPE_H
#define WEFT_MAPS_SHAPE_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* shape: what a port may send or get, and how much of that it has used.
 * key     device of the port, and direction
 * writer  datapath.Apply, but for `used`, which is lib/shape.h's
 * readers lib/shape.h, in programs that only limited ports have
 * miss    the row comes or goes: not limited
 * full    Apply refuses before it writes anything */
struct shape_key {
	__u32 ifindex;
	__u32 direction; /* OUTBOUND or INBOUND */
};

struct shape {
	__u64 cost;  /* ns that a byte takes, times 2^20; 0: no maximum */
	__u64 limit; /* ns that a packet may wait at most, with what may come at once */
	__u64 used;  /* monotonic ns: when all that was let through will have kept to the rate */
	__u64 rate;  /* bit/s, and */
	__u64 burst; /* bytes: what cost and limit were made from, for datapath.ReadBack */
	__u32 port_id;
	__u32 class; /* of the shaper, outbound */
};

_Static_assert(sizeof(struct shape) == 48, "shape");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct shape_key);
	__type(value, struct shape);
	__uint(max_entries, 8192);
} shape SEC(".maps");

/* shaper: the devices between which what guests send waits for its turn.
 * key     0
 * writer  datapath.SetShaper
 * readers lib/shape.h; parse, of what no port has sent
 * miss    cannot be: an array. Without devices nothing waits: what is too much is dropped at once */
struct shaper {
	__u32 entry; /* the device whose queue delays */
	__u32 exit;  /* the device below it, whose egress is from_port's once more */
};

_Static_assert(sizeof(struct shaper) == 8, "shaper");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct shaper);
	__uint(max_entries, 1);
} shaper SEC(".maps");

static __always_inline const struct shaper *shaper_devices(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&shaper, &zero);
}

#endif
