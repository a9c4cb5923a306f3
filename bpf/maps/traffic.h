/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_TRAFFIC_H
#define WEFT_MAPS_TRAFFIC_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* traffic: what each port sent and received.
 * key     the port's slot
 * writer  lib/finish.h; datapath.Apply zeroes a slot that it gives to a new port
 * readers datapath.Traffic
 * miss    cannot be: an array
 * full    cannot be: as many slots as ports */
struct sampling { /* lib/sample.h */
	__u64 due;      /* the packet that is to be looked at */
	__u32 step, at; /* how many come between two; when the last was, in 2^20 ns */
};

struct traffic {
	__u64 out_packets;
	__u64 out_bytes;
	__u64 in_packets;
	__u64 in_bytes;
	struct sampling out, in;
};

_Static_assert(sizeof(struct traffic) == 64, "traffic: a cache line");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(max_entries, 4096);
} traffic SEC(".maps");

#endif
