/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_DX2_H
#define WEFT_MAPS_DX2_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* dx2: whether the host's detour for decapsulation stands (lib/dx2.h).
 * key     0
 * writer  datapath.AttachDX2, after from_dx2 is in place; decap and from_dx2 count
 * readers decap
 * miss    cannot be: an array
 * full    cannot be */
#define DX2_MAX_LOST 256 /* more than a driver hands over at once */

struct dx2 {
	__u32 ifindex; /* device that from_dx2 is on; 0: there is no detour */
	__u32 lost;    /* packets in a row that this CPU sent and did not see again */
	__u32 proven;  /* 1: one came back */
	__u32 zero;
};

_Static_assert(sizeof(struct dx2) == 16, "dx2");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct dx2);
	__uint(max_entries, 1);
} dx2 SEC(".maps");

#endif
