/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_ROUTE_H
#define WEFT_MAPS_ROUTE_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* route: the longest prefix of a routing domain that covers an address.
 * key     network, address family, address; prefixlen counts from the network on, and
 *         the family keeps IPv4 (::ffff:0:0/96) from matching the default route of IPv6
 * writer  datapath.Apply
 * readers route; admit, for packets that a remote host has routed
 * miss    NO_ROUTE or SOURCE_NOT_IN_POLICY
 * full    Apply refuses before it writes anything */
#define ROUTE_ON_LINK 1 /* the next hop is the destination */

#define ROUTE_FIXED_BITS 64

/* In the network of a key: its routes without those that lead through a guest. */
#define ROUTE_DIRECT 0x80000000

struct route_key {
	__u32 prefixlen;
	__be32 network;
	__be32 family; /* 4 or 6 */
	union addr addr;
} __attribute__((packed, aligned(4)));

struct route {
	__u32 vsid;
	__u32 flags;
	union addr next_hop;
};

_Static_assert(sizeof(struct route_key) == 28, "route key");
_Static_assert(sizeof(struct route) == 24, "route");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct route_key);
	__type(value, struct route);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} route SEC(".maps");

static __always_inline const struct route *route_find(__u32 network, __u32 family, const union addr *to)
{
	struct route_key k = {
		.prefixlen = ROUTE_FIXED_BITS + 128,
		.network = bpf_htonl(network),
		.family = bpf_htonl(family),
	};

	__builtin_memcpy(&k.addr, to, sizeof(k.addr));
	return bpf_map_lookup_elem(&route, &k);
}

#endif
