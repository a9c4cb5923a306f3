/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_LOCAL_PA_H
#define WEFT_MAPS_LOCAL_PA_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* local_pa: the Provider Addresses of this host.
 * key     PA
 * writer  datapath.Apply
 * readers parse of from_uplink and uplink_xdp
 * miss    PASS: not virtualized traffic of ours
 * full    Apply refuses before it writes anything */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union addr);
	__type(value, __u32); /* 1 */
	__uint(max_entries, 256);
} local_pa SEC(".maps");

/* first_pa: one of the addresses in local_pa of each family, so that most packets need no search.
 * key     0: IPv4, 1: IPv6; zero: none
 * writer  datapath.Apply
 * readers parse of from_uplink
 * miss    local_pa is searched
 * full    cannot be: an array */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, union addr);
	__uint(max_entries, 2);
} first_pa SEC(".maps");

static __always_inline bool is_local_pa(const union addr *pa, __u32 six)
{
	const union addr *first = bpf_map_lookup_elem(&first_pa, &six);

	if (first && first->d[0] == pa->d[0] && first->d[1] == pa->d[1])
		return true;
	return bpf_map_lookup_elem(&local_pa, pa) != NULL;
}

#endif
