/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_SCRATCH_H
#define WEFT_MAPS_SCRATCH_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* scratch: room for what does not fit on the stack, for the time of one call.
 * key     0
 * writer  lib/udpsum.h, flood, rewrite, exchange
 * readers the same
 * miss    cannot be: an array
 * full    cannot be */
#define SCRATCH_LEN 512 /* as much as bpf_csum_diff takes at once */

struct scratch {
	__be32 w[SCRATCH_LEN / 4 + 1];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

#endif
