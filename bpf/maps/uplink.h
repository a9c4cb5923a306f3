/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_UPLINK_H
#define WEFT_MAPS_UPLINK_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* uplink: devices where uplink_xdp may strip outer headers. XDP runs before the
 * kernel knows whether a frame is for this host, so it compares with the MAC here.
 * key     ifindex
 * writer  datapath.AttachUplink
 * readers uplink_xdp
 * miss    the frame is left to from_uplink, whole
 * full    cannot be in practice; AttachUplink fails */
struct uplink {
	__u8 mac[6];
	__u16 zero;
};

_Static_assert(sizeof(struct uplink) == 8, "uplink");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct uplink);
	__uint(max_entries, 256);
} uplink SEC(".maps");

#endif
