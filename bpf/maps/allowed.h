/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_ALLOWED_H
#define WEFT_MAPS_ALLOWED_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"
#include "wire/ethernet.h"

/* allowed: what a guest may use as a source beside its own.
 * key     device, and a prefix of a family; or a MAC, as the last 6 bytes of an address
 * writer  datapath.Apply
 * readers admit, of ports with PORT_ALLOWED
 * miss    SPOOFED_*
 * full    Apply refuses before it writes anything */
#define ALLOWED_FIXED_BITS 64
#define ALLOWED_MAC 2 /* in the place of a family */

struct allowed_key {
	__u32 prefixlen;
	__be32 ifindex;
	__be32 family; /* 4, 6 or ALLOWED_MAC */
	union addr addr;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct allowed_key) == 28, "allowed key");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct allowed_key);
	__type(value, __u32); /* 1 */
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} allowed SEC(".maps");

/* Global functions, so that the verifier walks them once. */
__noinline int allowed_source(__u32 ifindex, const union addr *a)
{
	struct allowed_key k = {.prefixlen = ALLOWED_FIXED_BITS + 128, .ifindex = bpf_htonl(ifindex)};

	if (!a)
		return 0;
	k.family = bpf_htonl(addr_is4(a) ? 4 : 6);
	__builtin_memcpy(&k.addr, a, sizeof(k.addr));
	return bpf_map_lookup_elem(&allowed, &k) != NULL;
}

__noinline int allowed_mac(__u32 ifindex, __u64 mac)
{
	struct allowed_key k = {.prefixlen = ALLOWED_FIXED_BITS + 128, .ifindex = bpf_htonl(ifindex), .family = bpf_htonl(ALLOWED_MAC)};

	__builtin_memcpy(k.addr.b + 10, &mac, MAC_LEN);
	return bpf_map_lookup_elem(&allowed, &k) != NULL;
}

#endif
