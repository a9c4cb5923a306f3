/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_VOUCH_H
#define WEFT_MAPS_VOUCH_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/peer.h"

/* vouch: until when the agent answers for the next hops of peers. While it does, packets go
 * where the rows say; the kernel's own neighbour entries, which lose what they meet when they
 * are deleted, are for hosts whose agent has gone.
 * key     0
 * writer  datapath.Vouch, every second or so
 * readers encap
 * miss    cannot be: an array
 * full    cannot be */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64); /* monotonic ns, by the coarse clock */
	__uint(max_entries, 1);
} vouch SEC(".maps");

static __always_inline bool vouched(const struct peer *to)
{
	__u32 zero = 0;
	const __u64 *until = bpf_map_lookup_elem(&vouch, &zero);

	if (!(to->next_hop[0] | to->next_hop[1] | to->next_hop[2] | to->next_hop[3] | to->next_hop[4] | to->next_hop[5]))
		return false;
	return until && *until > bpf_ktime_get_coarse_ns();
}

#endif
