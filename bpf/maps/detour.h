/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_DETOUR_H
#define WEFT_MAPS_DETOUR_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* detour: whether the host has a detour for decapsulation, and which (lib/detour.h).
 * key     0
 * writer  datapath.AttachDX2, AttachVeth and AttachVXLAN, after the program at its end is in place;
 *         decap and that program count
 * readers decap, act
 * miss    cannot be: an array
 * full    cannot be */
#define DETOUR_MAX_LOST 256 /* more than a driver hands over at once */

enum detour_by {
	DETOUR_DX2,   /* lib/dx2.h */
	DETOUR_VETH,  /* lib/gro.h */
	DETOUR_VXLAN, /* lib/vxdev.h */
};

struct detour {
	__u32 ifindex; /* device it leads by; 0: there is none */
	__u32 lost;    /* packets in a row that this CPU sent and did not see again */
	__u32 proven;  /* 1: one came back */
	__u32 by;      /* enum detour_by */
};

_Static_assert(sizeof(struct detour) == 16, "detour");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct detour);
	__uint(max_entries, 1);
} detour SEC(".maps");

#endif
