/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_LEARN_H
#define WEFT_MAPS_LEARN_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* learn: what guests and DHCP servers say of addresses that policy may not know, and what arrived larger than a port takes.
 * writer  lib/learn.h, at the pace of learn_pace
 * readers datapath.Learned
 * full    the sample is lost; a guest says it again */
#define LEARN_HEAD 400 /* DHCP's fixed fields and the options that matter */

struct learn {
	__u64 time; /* monotonic ns */
	__u32 vsid;
	__u32 port_id; /* whose word it is, or whom it is for; 0: flooded, and yet to be told by what it says */
	__u8 verdict;
	__u8 direction;
	__u16 head_len;
	__u32 zero;
	__u8 head[LEARN_HEAD];
};

_Static_assert(sizeof(struct learn) == 424, "learn");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} learn SEC(".maps");

/* learn_pace: until when the samples of a port so far have used its pace.
 * key     twice the port's slot; of what was too big for it, 1 more
 * writer  lib/learn.h
 * readers lib/learn.h
 * miss    cannot be: an array
 * full    cannot be: twice as many as ports */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64); /* monotonic ns */
	__uint(max_entries, 8192);
} learn_pace SEC(".maps");

#endif
