/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_TOS_H
#define WEFT_LIB_TOS_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/ctx.h"
#include "maps/setting.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* What the type of service says of the inner packet and of the outer one: congestion
 * (RFC 6040, normal mode) and, between them, differentiated services (RFC 2983). */

#define ECN_MASK 3
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

/* Of the outer header, given the inner one's. */
static __always_inline __u8 tos_out(const struct pkt *p, const struct setting *s)
{
	if (s && s->flags & SETTING_PIPE)
		return (p->tos & ECN_MASK) | s->dscp;
	return p->tos;
}

/* Of the packet that is delivered, given what the underlay made of the outer header. */
static __always_inline __u8 tos_in(const struct pkt *p, const struct setting *s)
{
	__u8 inner = p->tos & ECN_MASK, outer = p->outer_tos & ECN_MASK;
	__u8 dscp = (s && s->flags & SETTING_PIPE ? p->tos : p->outer_tos) & ~ECN_MASK;

	if (inner && outer == ECN_CE)
		return dscp | ECN_CE;
	if (inner == ECN_ECT0 && outer == ECN_ECT1)
		return dscp | ECN_ECT1;
	return dscp | inner;
}

static __always_inline bool tos_store4(struct __sk_buff *skb, __u32 at, __u8 tos)
{
	struct ipv4 h;
	__be16 was;

	if (!load(skb, at, &h, sizeof(h)))
		return false;
	was = bpf_htons((__u16)(h.version_ihl << 8 | h.tos));
	h.tos = tos;
	h.check = csum_replace(h.check, was, bpf_htons((__u16)(h.version_ihl << 8 | h.tos)));
	return bpf_skb_store_bytes(skb, at, &h, sizeof(h), 0) == 0; /* the header's sum stays what it was */
}

static __always_inline bool tos_store6(struct __sk_buff *skb, __u32 at, __u8 tos)
{
	__be32 first;

	if (!load(skb, at, &first, sizeof(first)))
		return false;
	first = bpf_htonl((bpf_ntohl(first) & 0xf00fffff) | (__u32)tos << 20);
	return bpf_skb_store_bytes(skb, at, &first, sizeof(first), BPF_F_RECOMPUTE_CSUM) == 0;
}

static __noinline int tos_change(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 at = p->base + sizeof(struct eth);
	const struct setting *s = settings();
	__u8 tos = tos_in(p, s);

	if (!(p->tos & ECN_MASK) && (p->outer_tos & ECN_MASK) == ECN_CE)
		return V_OUTER_CONGESTION;
	if (tos == p->tos)
		return V_CONTINUE;
	if (p->type == TYPE_IPV4 ? tos_store4(skb, at, tos) : tos_store6(skb, at, tos))
		return V_CONTINUE;
	return V_DECAP_FAILED;
}

/* Carries what the underlay said over to the packet that it carried; mostly it said nothing. */
static __always_inline enum verdict tos_arrive(struct __sk_buff *skb, const struct pkt *p)
{
	if (p->type == TYPE_ARP || p->outer_tos == p->tos)
		return V_CONTINUE;
	return tos_change(skb, p);
}

#endif
