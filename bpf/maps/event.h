/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_EVENT_H
#define WEFT_MAPS_EVENT_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* event: samples of dropped packets.
 * writer  lib/finish.h, at most one per drop row and event interval
 * readers datapath.Events
 * full    the sample is lost; `drop` still counts the packet */
#define EVENT_HEAD 96 /* a neighbour solicitation with its target */

struct event {
	__u64 time; /* monotonic ns */
	__u8 reason;
	__u8 direction;
	__u16 head_len;
	__u32 port_id;
	__u32 ifindex;
	__u32 len;
	__u32 rule; /* number of the one that ACL_DENIED is by; else RULE_NONE */
	__u32 zero;
	__u8 head[EVENT_HEAD];
};

_Static_assert(sizeof(struct event) == 128, "event");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} event SEC(".maps");

#endif
