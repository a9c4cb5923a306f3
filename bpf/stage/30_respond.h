/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_RESPOND_H
#define WEFT_STAGE_RESPOND_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/isolation.h"
#include "maps/port.h"
#include "maps/record.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Answer ARP and Neighbour Discovery from policy. */

static __always_inline enum verdict respond_back(struct pkt *p)
{
	p->action = ACT_PORT;
	p->out = p->port->ifindex;
	return V_ANSWERED;
}

static __always_inline bool respond_own(const struct pkt *p, const struct record *r)
{
	return r && !(r->flags & RECORD_ROUTER) && r->ifindex == p->port->ifindex;
}

/* Rewriting cannot carry a probe to another host: policy answers for the guest there. */
static __always_inline bool respond_beyond(const struct record *r)
{
	return r->flags & RECORD_REWRITE && r->peer;
}

static __always_inline enum verdict respond_arp_answer(struct __sk_buff *skb, struct pkt *p, const struct record *r)
{
	struct {
		struct eth eth;
		struct arp arp;
	} __attribute__((packed, aligned(2))) a = {};

	__builtin_memcpy(a.eth.dst, p->claim, MAC_LEN);
	__builtin_memcpy(a.eth.src, r->mac, MAC_LEN);
	a.eth.type = bpf_htons(TYPE_ARP);
	a.arp.htype = bpf_htons(1);
	a.arp.ptype = bpf_htons(TYPE_IPV4);
	a.arp.hlen = MAC_LEN;
	a.arp.plen = 4;
	a.arp.op = bpf_htons(ARP_REPLY);
	__builtin_memcpy(a.arp.sender_mac, r->mac, MAC_LEN);
	__builtin_memcpy(a.arp.sender, &p->dst.w[3], 4);
	__builtin_memcpy(a.arp.target_mac, p->claim, MAC_LEN);
	__builtin_memcpy(a.arp.target, &p->src.w[3], 4);
	if (skb->len > sizeof(a) && bpf_skb_change_tail(skb, sizeof(a), 0))
		return V_ENCAP_FAILED;
	if (bpf_skb_store_bytes(skb, 0, &a, sizeof(a), 0))
		return V_ENCAP_FAILED;
	return respond_back(p);
}

/* A probe or its reply crosses the subnet as it is, so that guests see each other live or die. */
static __always_inline enum verdict respond_forward(struct pkt *p, const struct record *r)
{
	p->hop = p->dst;
	p->vsid = p->port->vsid;
	p->rec = r;
	return V_CONTINUE;
}

static __always_inline enum verdict respond_arp(struct __sk_buff *skb, struct pkt *p)
{
	const struct record *r = record_find(p->port->vsid, &p->dst);
	bool request = p->arp_op == ARP_REQUEST;
	bool anonymous = p->src.w[3] == 0;

	if (respond_own(p, r) || same_addr(&p->src, &p->dst))
		return V_ARP_QUIET;
	if (!request && (is_group(p->eth.dst) || anonymous))
		return V_ARP_QUIET;
	if (!r)
		return V_ARP_NO_RECORD;
	if (request && isolate_hides(p->port, r))
		return V_ISOLATED;
	if (!request)
		return r->flags & RECORD_ROUTER || respond_beyond(r) ? V_ARP_QUIET : respond_forward(p, r);
	if (r->flags & RECORD_ROUTER || is_group(p->eth.dst) || anonymous || respond_beyond(r))
		return respond_arp_answer(skb, p, r);
	return respond_forward(p, r);
}

static __always_inline enum verdict respond_ns_answer(struct __sk_buff *skb, struct pkt *p, const struct record *r)
{
	struct {
		struct eth eth;
		struct ipv6 ip;
		struct nd_advert na;
	} __attribute__((packed, aligned(2))) a = {};
	bool anonymous = addr_unspecified(&p->src);
	__u32 sum = 0;

	__builtin_memcpy(a.eth.dst, p->eth.src, MAC_LEN);
	__builtin_memcpy(a.eth.src, r->mac, MAC_LEN);
	a.eth.type = bpf_htons(TYPE_IPV6);
	a.ip.version_class_flow = bpf_htonl(0x60000000);
	a.ip.payload_len = bpf_htons(sizeof(a.na));
	a.ip.next = PROTO_ICMPV6;
	a.ip.hop_limit = 255;
	for (int i = 0; i < 4; i++) {
		a.ip.src[i] = p->hop.w[i];
		a.ip.dst[i] = p->src.w[i];
		a.na.target[i] = p->hop.w[i];
	}
	if (anonymous) {
		a.ip.dst[0] = bpf_htonl(0xff020000);
		a.ip.dst[3] = bpf_htonl(1);
	}
	a.na.type = ND_NA;
	a.na.flags = NA_OVERRIDE | (anonymous ? 0 : NA_SOLICITED) | (r->flags & RECORD_ROUTER ? NA_ROUTER : 0);
	a.na.opt_type = ND_OPT_TARGET;
	a.na.opt_len = 1;
	__builtin_memcpy(a.na.opt_mac, r->mac, MAC_LEN);
	for (int i = 0; i < 4; i++)
		sum = csum_add(sum, csum_add(a.ip.src[i], csum_add(a.ip.dst[i], a.na.target[i])));
	sum = csum_add(sum, bpf_htonl(sizeof(a.na)));
	sum = csum_add(sum, bpf_htonl(PROTO_ICMPV6));
	sum = csum_add(sum, bpf_htons((__u16)(ND_NA << 8)));
	sum = csum_add(sum, bpf_htons((__u16)(a.na.flags << 8)));
	sum = csum_add(sum, bpf_htons((__u16)(ND_OPT_TARGET << 8 | 1)));
	for (int i = 0; i < MAC_LEN; i += 2)
		sum = csum_add(sum, bpf_htons((__u16)(r->mac[i] << 8 | r->mac[i + 1])));
	a.na.check = csum_fold(sum);
	if (skb->len != sizeof(a) && bpf_skb_change_tail(skb, sizeof(a), 0))
		return V_ENCAP_FAILED;
	if (bpf_skb_store_bytes(skb, 0, &a, sizeof(a), 0))
		return V_ENCAP_FAILED;
	return respond_back(p);
}

static __always_inline enum verdict respond_ns(struct __sk_buff *skb, struct pkt *p)
{
	const struct record *r = record_find(p->port->vsid, &p->hop);

	if (respond_own(p, r))
		return V_ND_QUIET;
	if (!r)
		return addr_unspecified(&p->src) && addr6_link_local(&p->hop) ? V_ND_QUIET : V_ND_NO_RECORD;
	if (isolate_hides(p->port, r))
		return V_ISOLATED;
	if (r->flags & RECORD_ROUTER || addr6_multicast(&p->dst) || addr_unspecified(&p->src) ||
	    addr6_link_local(&p->src) || respond_beyond(r))
		return respond_ns_answer(skb, p, r);
	return V_CONTINUE;
}

static __always_inline enum verdict respond_na(const struct pkt *p)
{
	const struct record *r;

	if (addr6_multicast(&p->dst) || addr6_link_local(&p->dst))
		return V_ND_QUIET;
	r = record_find(p->port->vsid, &p->dst);
	return r && (r->flags & RECORD_ROUTER || respond_beyond(r)) ? V_ND_QUIET : V_CONTINUE;
}

static __always_inline enum verdict respond(struct __sk_buff *skb, struct pkt *p)
{
	if (p->type == TYPE_ARP)
		return respond_arp(skb, p);
	if (!p->nd)
		return V_CONTINUE;
	switch (p->icmp_type) {
	case ND_RS:
		return V_ND_QUIET;
	case ND_NS:
		return respond_ns(skb, p);
	case ND_NA:
		return respond_na(p);
	}
	return V_CONTINUE;
}

#endif
