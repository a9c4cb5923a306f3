/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_FLOOD_H
#define WEFT_MAPS_FLOOD_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* flood: who gets a copy of what is flooded in a subnet.
 * key     VSID
 * writer  datapath.Apply
 * readers flood
 * miss    nothing is flooded in the subnet
 * full    Apply refuses before it writes anything */
#define FLOOD_L2 1          /* broadcast and multicast reach every member */
#define FLOOD_VXLAN 2       /* the subnet's transport; without, NVGRE */
#define FLOOD_MAX_LOCALS 256
#define FLOOD_MAX_HOSTS 128

#define MEMBER_L2ONLY 1 /* has a port whose addresses are yet to be learned */

struct member {
	__u32 at; /* ifindex of a local port, or index into peer */
	__u32 flags;
};

struct flood {
	__u32 vsid; /* repeats the key: rows.h says why */
	__u32 flags;
	__u32 rate;   /* packets per second that one port may have flooded */
	__u32 group;  /* index into peer of the multicast PA; 0: one copy for each host */
	__u32 locals; /* how many there are below */
	__u32 hosts;
	struct member local[FLOOD_MAX_LOCALS];
	struct member host[FLOOD_MAX_HOSTS];
};

_Static_assert(sizeof(struct flood) == 3096, "flood");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct flood);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} flood SEC(".maps");

/* storm: what a port may have flooded, and what it has.
 * key     the port's slot
 * writer  flood; datapath.Apply of limit
 * readers flood
 * miss    cannot be: an array
 * full    cannot be: as many slots as ports */
struct storm {
	__u64 used;  /* when the flooded packets so far will have kept to the rate; monotonic ns */
	__u32 limit; /* packets per second; 0: the subnet's */
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct storm);
	__uint(max_entries, 4096);
} storm SEC(".maps");

/* flood_prog: the programs that flood, by tail call, so that other packets do not carry them.
 * key     FLOOD_PORT or FLOOD_UPLINK
 * writer  datapath
 * readers from_port, from_uplink
 * miss    the packet is dropped as if its subnet were not flooded
 * full    cannot be */
#define FLOOD_PORT 0
#define FLOOD_UPLINK 1

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 2);
} flood_prog SEC(".maps");

/* copy: what a rehearsal would have sent, in order; cb[2] says how many.
 * key     0, 1, ...
 * writer  flood, where `rehearse` is set
 * readers datapath.Run, datapath.Trace
 * miss    the copy is not recorded
 * full    likewise */
#define COPY_MAX 4096

struct copy {
	__u32 ifindex;
	__u32 len;
	__u8 frame[COPY_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct copy);
	__uint(max_entries, 1);
} copy SEC(".maps");

#endif
