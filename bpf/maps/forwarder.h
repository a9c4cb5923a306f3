/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_FORWARDER_H
#define WEFT_MAPS_FORWARDER_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* forwarder: remote hosts with a guest that may do more than speak for itself.
 * key     network, the guest's MAC or, for what its host routed, none, and the PA
 * writer  datapath.Apply
 * readers admit, for sources that are not at home at the outer source, and for what a guard looks for
 * miss    SOURCE_NOT_IN_POLICY, DHCP_SERVER_MESSAGE, ROUTER_MESSAGE
 * full    Apply refuses before it writes anything */
#define TRUST_FORWARD 1 /* forwards what others send */
#define TRUST_DHCP 2    /* no DHCP guard */
#define TRUST_ROUTER 4  /* no router guard */
#define TRUST_ALLOWED 8 /* uses sources beside its own, which its host has checked */

struct forwarder_key {
	__u32 network;
	__u8 mac[6];
	__u16 zero;
	union addr pa;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct forwarder_key) == 28, "forwarder key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct forwarder_key);
	__type(value, __u32);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} forwarder SEC(".maps");

#endif
