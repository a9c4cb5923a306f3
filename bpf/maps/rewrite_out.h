/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_REWRITE_OUT_H
#define WEFT_MAPS_REWRITE_OUT_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/record.h"
#include "wire/addr.h"

/* rewrite_out: the Provider Address that stands for a Customer Address in the underlay.
 * key     VSID and CA, of a rewrite subnet
 * value   PA, of the other family where the record says RECORD_EXCHANGE
 * writer  datapath.Apply
 * readers rewrite, exchange
 * miss    REWRITE_NO_PA
 * full    Apply refuses before it writes anything */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct record_key);
	__type(value, union addr);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} rewrite_out SEC(".maps");

static __always_inline const union addr *rewrite_pa(__u32 vsid, const union addr *ca)
{
	struct record_key k = {.vsid = vsid};

	__builtin_memcpy(&k.ca, ca, sizeof(k.ca));
	return bpf_map_lookup_elem(&rewrite_out, &k);
}

#endif
