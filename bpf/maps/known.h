/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_KNOWN_H
#define WEFT_MAPS_KNOWN_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/connection.h"
#include "wire/addr.h"
#include "wire/ethernet.h"
#include "wire/outer.h"

/* policy_turn: changes with everything that Apply writes: odd while it writes, another even number after.
 * key     0
 * writer  datapath
 * readers way/known.h
 * miss    cannot be: an array
 * full    cannot be */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} policy_turn SEC(".maps");

/* known_out, known_in: what came of the packets of a flow the last time that all was looked up: of those
 * from a guest, and of those from the underlay.
 * key     some bits of a hash of what the outcome depends on
 * writer  way/known.h, each CPU its own
 * readers the same
 * miss    everything is looked up
 * full    cannot be: another flow takes the place, when it is seen twice in a row */
#define KNOWN_BITS 12
#define KNOWN_ROWS (1 << KNOWN_BITS)
#define KNOWN_SPARE KNOWN_ROWS /* room for the headers of what is not to be known: the stack has none */
#define KNOWN_OUT_KEY 7
#define KNOWN_IN_KEY 12

#define KNOWN_PEER 1      /* its receiver is at the other end of a veth */
#define KNOWN_REMOTE 2    /* it goes to another host, by head */
#define KNOWN_ROUTED 4
#define KNOWN_REMADE 8    /* its Ethernet header changes */
#define KNOWN_FOLLOWS 16  /* a connection of the sender's rules */
#define KNOWN_ENTERS 32   /* and of the receiver's */
#define KNOWN_OUTER6 64
#define KNOWN_VXLAN 128
#define KNOWN_REWRITE 256 /* no outer headers: addresses are replaced */

/* What the packets of a flow begin with that are rewritten, or were: Ethernet, addresses, and room for what differs. */
struct known_new {
	__u16 sum; /* of the new addresses less that of the old ones (RFC 1624) */
	struct eth eth;
	union {
		struct {
			struct ipv4 ip;
			__be16 l4[9]; /* as far as TCP's checksum */
		} v4;
		struct {
			struct ipv6 ip;
			__be16 l4[9];
		} v6;
	};
} __attribute__((aligned(8)));

_Static_assert(__builtin_offsetof(struct known_new, v4) == 16 && sizeof(struct known_new) == 80, "known_new");

struct known_out {
	__u64 turn;  /* of policy, when it was looked up */
	__u64 until; /* when its connections must be seen to be in use, ns */
	__u64 key[KNOWN_OUT_KEY];
	__u32 out;
	__u32 slot, to_slot; /* of the sender's and the receiver's ports */
	__u32 port_id;       /* of the sender's */
	__u32 lost;          /* connections that had given way to others */
	__u16 limit;         /* the largest IP packet */
	__u16 flags;
	__u16 sum;              /* of the words of the outer IPv4 header that do not change */
	__u8 tos_keep, tos_set; /* of the guest's type of service, for the outer header */
	__u8 head_len;
	__u8 zero[3];
	union {
		struct outer_frame head;
		struct known_new rewrite;
	};
	__u32 follows[CONN_RULES], enters[CONN_RULES]; /* rules that count its packets: numbers and 1; 0: no more */
};

_Static_assert(sizeof(struct known_out) == 216, "known_out");

struct known_in {
	__u64 turn, until;
	__u64 key[KNOWN_IN_KEY];
	__u32 out, slot;
	__u32 port_id; /* of the receiver's */
	__u32 lost;
	__u32 flags;
	__u32 enters[CONN_RULES];
	__u32 limit; /* the largest IP packet */
	__u32 zero;
	struct known_new rewrite;
};

_Static_assert(sizeof(struct known_in) == 232, "known_in");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct known_out);
	__uint(max_entries, KNOWN_ROWS + 1);
} known_out SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct known_in);
	__uint(max_entries, KNOWN_ROWS);
} known_in SEC(".maps");

/* known_tag: bits of the hash of the last flow that was seen at each row: so a flow of one packet costs no row,
 * and no miss of the cache.
 * key     KNOWN_FROM_GUEST, KNOWN_FROM_UNDERLAY */
#define KNOWN_FROM_GUEST 0
#define KNOWN_FROM_UNDERLAY 1

struct known_tags {
	__u32 tag[KNOWN_ROWS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct known_tags);
	__uint(max_entries, 2);
} known_tag SEC(".maps");

/* known_spot: where the flow of the packet in hand may be put, while from_uplink leaves it to the walk.
 * key     0
 * writer  from_uplink
 * readers walk_uplink */
struct known {
	__u64 turn; /* odd: it must not be put */
	__u32 at;
	__u32 tag; /* of a packet that may be rewritten; 0: its key is in the row already */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct known);
	__uint(max_entries, 1);
} known_spot SEC(".maps");

static __always_inline struct known *known_spot_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&known_spot, &zero);
}

#endif
