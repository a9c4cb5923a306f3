/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_PATH_H
#define WEFT_MAPS_PATH_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/peer.h"
#include "wire/addr.h"

/* path: the further ways to a remote host, next to each other.
 * key     peer.path and on, peer.paths of them
 * writer  datapath.Apply; a host keeps its place as long as it has further ways
 * readers lookup
 * miss    cannot be: an array. A row of another host is passed over
 * full    Apply refuses before it writes anything */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct peer);
	__uint(max_entries, 28672);
} path SEC(".maps");

/* source: the outer sources that packets of a host may have, where that is not just
 * the address that records name it by (PEER_LISTED).
 * key     index into peer, and address
 * writer  datapath.Apply
 * readers admit of from_uplink
 * miss    SOURCE_NOT_IN_POLICY
 * full    Apply refuses before it writes anything */
struct source_key {
	__u32 peer;
	union addr pa;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct source_key) == 20, "source_key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct source_key);
	__type(value, __u32); /* 1 */
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} source SEC(".maps");

/* Of several ways to a host, the flow's own: a flow is never reordered by this. */
static __always_inline const struct peer *path_of(const struct peer *first, __u32 hash)
{
	__u32 n = (hash >> 8) % (first->paths + 1), at = first->path + n - 1;
	const struct peer *way;

	if (n == 0)
		return first;
	way = bpf_map_lookup_elem(&path, &at);
	return way && way->pa.d[0] == first->pa.d[0] && way->pa.d[1] == first->pa.d[1] ? way : first;
}

#endif
