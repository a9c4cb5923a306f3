/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_REWRITE_IN_H
#define WEFT_MAPS_REWRITE_IN_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* rewrite_in: the Customer Address that a Provider Address stands for.
 * key     PA
 * writer  datapath.Apply
 * readers parse of from_uplink (is this for a guest here?), rewrite (who sent it?)
 * miss    PASS of a destination, SOURCE_NOT_IN_POLICY of a source
 * full    Apply refuses before it writes anything */
#define REWRITE_REMOTE 1 /* it lives on another host */

struct rewrite_in {
	union addr ca;
	__u32 vsid;
	__u32 network;
	__u32 ifindex; /* 0: remote, or not plugged */
	__u8 mac[6];
	__u16 flags;
	__u32 isolation; /* model.IsolationID of the port that has the address */
};

_Static_assert(sizeof(struct rewrite_in) == 40, "rewrite_in");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union addr);
	__type(value, struct rewrite_in);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} rewrite_in SEC(".maps");

#endif
