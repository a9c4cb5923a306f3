/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_ISOLATION_H
#define WEFT_MAPS_ISOLATION_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* isolation: whom ports of other hosts reach within their subnet, by MAC, for frames whose source
 * has no record.
 * key     VSID and MAC
 * value   model.IsolationID
 * writer  datapath.Apply
 * readers isolate
 * miss    none: the community of all that have no other
 * full    Apply refuses before it writes anything */
#define ISOLATION_ISOLATED 1
#define ISOLATION_PROMISCUOUS 2

struct isolation_key {
	__u32 vsid;
	__u8 mac[6];
	__u16 zero;
};

_Static_assert(sizeof(struct isolation_key) == 12, "isolation key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct isolation_key);
	__type(value, __u32);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} isolation SEC(".maps");

#endif
