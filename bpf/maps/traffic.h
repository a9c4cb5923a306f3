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
struct traffic {
	__u64 out_packets;
	__u64 out_bytes;
	__u64 in_packets;
	__u64 in_bytes;
};

_Static_assert(sizeof(struct traffic) == 32, "traffic");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(max_entries, 4096);
} traffic SEC(".maps");

#endif
