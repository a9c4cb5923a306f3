/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_RECORD_H
#define WEFT_MAPS_RECORD_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* record: where a Customer Address of a subnet is.
 * key     VSID and CA; with RECORD_WILDCARD in the VSID and no CA, the gateway that stands
 *         for every address of a family that the subnet has no record of; see record_l2only, too
 * writer  datapath.Apply
 * readers admit (is this source its own?), respond, route, lookup
 * miss    policy holds no such address: SPOOFED_CA, ARP_NO_RECORD, NO_RECORD,
 *         SOURCE_NOT_IN_POLICY, as the stage says
 * full    Apply refuses before it writes anything */
#define RECORD_ROUTER 1 /* the distributed router's own address */
#define RECORD_VXLAN 2  /* the subnet's transport; without, NVGRE */
#define RECORD_REWRITE 4 /* or this */
#define RECORD_EXCHANGE 8 /* and its Provider Address is of the other family */

/* A bit that no VSID has, so that no packet can name the row. */
#define RECORD_WILDCARD 0x80000000

struct record_key {
	__u32 vsid;
	union addr ca;
} __attribute__((packed, aligned(4)));

struct record {
	__u8 mac[6];
	__u16 flags;
	__u32 peer;    /* index into peer; 0: local or router */
	__u32 ifindex; /* 0: remote, router, or not plugged */
	__u32 port_id;
	__u32 isolation; /* model.IsolationID of the port that has the address */
};

_Static_assert(sizeof(struct record_key) == 20, "record key");
_Static_assert(sizeof(struct record) == 24, "record");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct record_key);
	__type(value, struct record);
	__uint(max_entries, 262144);
} record SEC(".maps");

static __always_inline const struct record *record_find(__u32 vsid, const union addr *ca)
{
	struct record_key k = {.vsid = vsid};

	__builtin_memcpy(&k.ca, ca, sizeof(k.ca));
	return bpf_map_lookup_elem(&record, &k);
}

/* The record of a MAC whose addresses are yet to be learned stands under a multicast
 * address, ff0f:: and the MAC, that no packet is from and no route leads to. */
static __noinline const struct record *record_l2only(__u32 vsid, const __u8 *mac)
{
	struct record_key k = {.vsid = vsid};

	k.ca.w[0] = bpf_htonl(0xff0f0000);
	k.ca.w[2] = bpf_htonl((__u32)mac[0] << 8 | mac[1]);
	k.ca.w[3] = bpf_htonl((__u32)mac[2] << 24 | (__u32)mac[3] << 16 | (__u32)mac[4] << 8 | mac[5]);
	return bpf_map_lookup_elem(&record, &k);
}

/* Not inlined: only what policy does not know comes here. */
static __noinline const struct record *record_wildcard(__u32 vsid, bool is4)
{
	struct record_key k = {.vsid = vsid | RECORD_WILDCARD};

	if (is4)
		k.ca.w[2] = bpf_htonl(0xffff);
	return bpf_map_lookup_elem(&record, &k);
}

#endif
