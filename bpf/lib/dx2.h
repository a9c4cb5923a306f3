/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_DX2_H
#define WEFT_LIB_DX2_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/detour.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* The detour through segment routing. The kernel forgets a tunnel itself where it
 * decapsulates, and one such place takes a whole Ethernet frame: the segment routing
 * action End.DX2 (RFC 8986 section 4.9). So decap puts IPv6 in the place of the outer
 * headers, addressed to a segment that only this host knows; the kernel strips it and sends
 * the frame out of a device that leads nowhere, and there from_dx2 hands it to its port. */

/* Must be as in internal/datapath/dx2.go: fd77:6566:7400::1. */
#define DX2_SEGMENT {bpf_htonl(0xfd776566), bpf_htonl(0x74000000), 0, bpf_htonl(1)}
#define PROTO_ETHERNET 143

#define DX2_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
#define DX2_TO_IPV6 (1ull << 8) /* BPF_F_ADJ_ROOM_DECAP_L3_IPV6 */

#define DX2_TO_IPV4 (1ull << 7)

/* What stands before the guest's packet on the detour. */
struct dx2_outer {
	struct eth eth;
	struct ipv6 ip;
	struct eth inner;
} __attribute__((packed, aligned(2)));

_Static_assert(sizeof(struct dx2_outer) == 68, "headers of the detour");

/* The outer IP, GRE or UDP and VXLAN become IPv6 alone. */
static __always_inline enum verdict dx2_wrap(struct __sk_buff *skb, struct pkt *p)
{
	/* Hop limit 1: should the route be lost, a host that forwards sends no tenant's bytes away.
	 * And no source: nobody sends an ICMP error, which would quote them, about such a packet
	 * (RFC 4443 section 2.4 e). */
	struct ipv6 ip = {.next = PROTO_ETHERNET, .hop_limit = 1, .dst = DX2_SEGMENT};
	struct dx2_outer o = {};

	if (!load(skb, 0, &o.eth, sizeof(o.eth)))
		return V_DECAP_FAILED;
	/* To the kernel the guest's Ethernet header is the L4 header now, and since Linux 7.1 it
	 * drops a super-packet whose TCP header is too short: the high half of byte 12 must be
	 * 5 or more. IPv6 it is, until from_dx2 has seen what it really is. */
	o.inner = p->eth;
	o.inner.type = bpf_htons(TYPE_IPV6);
	if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC, DX2_FLAGS) ||
	    bpf_skb_adjust_room(skb, -(int)(p->base - sizeof(struct eth)), BPF_ADJ_ROOM_MAC, DX2_FLAGS | DX2_TO_IPV6))
		return V_DECAP_FAILED;
	o.eth.type = bpf_htons(TYPE_IPV6);
	ip.version_class_flow = bpf_htonl(6u << 28);
	ip.payload_len = bpf_htons((__u16)(p->end - p->base));
	o.ip = ip;
	if (bpf_skb_store_bytes(skb, 0, &o, sizeof(o), BPF_F_RECOMPUTE_CSUM))
		return V_DECAP_FAILED;
	detour_sent(p);
	return V_CONTINUE;
}

/* End.DX2 leaves the network header where the Ethernet header is, and no redirect takes
 * that: a second Ethernet header in front, and the removal of the first, puts it right. */
static __always_inline bool dx2_unwrap(struct __sk_buff *skb)
{
	__u64 flags = DX2_FLAGS;
	struct eth eth;
	__u8 version;

	detour_came();
	if (!load(skb, 0, &eth, sizeof(eth)) || !load(skb, sizeof(eth), &version, sizeof(version)))
		return false;
	if (version >> 4 == 4) {
		eth.type = bpf_htons(TYPE_IPV4);
		flags |= DX2_TO_IPV4;
	}
	return bpf_skb_change_head(skb, sizeof(eth), 0) == 0 &&
	       bpf_skb_adjust_room(skb, -(int)sizeof(eth), BPF_ADJ_ROOM_MAC, flags) == 0 &&
	       bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) == 0;
}

#endif
