/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_REWRITE_H
#define WEFT_STAGE_REWRITE_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/acl.h"
#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/isolation.h"
#include "lib/offload.h"
#include "lib/rewrite.h"
#include "maps/port.h"
#include "maps/rewrite_in.h"
#include "maps/vouch.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Put Provider Addresses in the place of Customer Addresses; on receive, the other way around. */

static __always_inline bool rewrite_addresses(struct __sk_buff *skb, const struct pkt *p, const union addr *to, __u32 diff)
{
	struct {
		__be16 check;
		__be32 src, dst;
	} __attribute__((packed, aligned(2))) h;

	if (p->type == TYPE_IPV6)
		return rewrite_store(skb, sizeof(struct eth) + 8, to, 2 * sizeof(*to));
	if (!load_head(skb, sizeof(struct eth) + 10, &h, sizeof(h)))
		return false;
	h.check = rewrite_sum(h.check, diff);
	h.src = to[0].w[3];
	h.dst = to[1].w[3];
	return rewrite_store(skb, sizeof(struct eth) + 10, &h, sizeof(h));
}

static __always_inline bool rewrite_l4(struct __sk_buff *skb, const struct pkt *p, __u32 diff)
{
	__u32 offset = rewrite_check_offset(p->type, p->proto);

	if (!offset || p->later || p->l4_len < offset + sizeof(__be16))
		return true;
	return rewrite_check(skb, p->l4 + offset, p->proto, diff);
}

/* The checksum of the quoted L4 header, where that much is quoted; adds to *sum what it changes. */
static __always_inline bool rewrite_quoted_l4(struct __sk_buff *skb, const struct pkt *p, __u32 l4, __u8 proto, __u32 diff,
					      __u32 *sum)
{
	__u32 offset = rewrite_check_offset(p->type, proto), at = l4 + offset;
	__be16 was, check;

	if (!offset || at + sizeof(check) > p->l4 + p->l4_len)
		return true;
	if (!load(skb, at, &was, sizeof(was)))
		return false;
	check = rewrite_l4_sum(was, diff, proto);
	*sum = csum_add(*sum, csum_add((__u16)~was, check));
	return rewrite_store(skb, at, &check, sizeof(check));
}

static __always_inline bool rewrite_quoted4(struct __sk_buff *skb, const struct pkt *p, struct rewrite *r, __u32 *sum)
{
	const __u32 at = p->l4 + sizeof(struct icmp);
	struct ipv4 *was = &r->ip[0], *is = &r->ip[1];
	__u32 diff, ihl;

	if (p->l4_len < sizeof(struct icmp) + sizeof(*was) || !load(skb, at, was, sizeof(*was)))
		return false;
	ihl = (was->version_ihl & 15) * 4;
	if (was->version_ihl >> 4 != 4 || ihl < sizeof(*was) || was->src != p->dst.w[3] || was->dst != r->quoted_from.w[3])
		return false;
	*is = *was;
	is->src = r->to[1].w[3];
	is->dst = r->quoted_to.w[3];
	diff = rewrite_diff(&was->src, &is->src, 8);
	is->check = rewrite_sum(was->check, diff);
	*sum = rewrite_diff(was, is, sizeof(*was));
	if (!(was->frag & bpf_htons(IPV4_OFFSET)) && !rewrite_quoted_l4(skb, p, at + ihl, was->proto, diff, sum))
		return false;
	return rewrite_store(skb, at, is, sizeof(*is));
}

static __always_inline bool rewrite_quoted6(struct __sk_buff *skb, const struct pkt *p, struct rewrite *r, __u32 *sum)
{
	const __u32 at = p->l4 + sizeof(struct icmp);
	union addr *was = r->addr[0], *is = r->addr[1];
	__be32 first;
	__u8 next;

	if (p->l4_len < sizeof(struct icmp) + sizeof(struct ipv6) || !load(skb, at, &first, sizeof(first)) ||
	    !load(skb, at + 6, &next, sizeof(next)) || !load(skb, at + 8, was, sizeof(r->addr[0])))
		return false;
	if (bpf_ntohl(first) >> 28 != 6 || !same_addr(&was[0], &p->dst) || !same_addr(&was[1], &r->quoted_from))
		return false;
	is[0] = r->to[1];
	is[1] = r->quoted_to;
	*sum = rewrite_diff(was, is, sizeof(r->addr[0]));
	if (!rewrite_quoted_l4(skb, p, at + sizeof(struct ipv6), next, *sum, sum))
		return false;
	return rewrite_store(skb, at + 8, is, sizeof(r->addr[1]));
}

/* The packet that an ICMP error quotes. What does not speak of the two ends stays as it is: false. */
static __noinline bool rewrite_quoted(struct __sk_buff *skb, const struct pkt *p, struct rewrite *r)
{
	__u32 start, field, sum = 0;
	__be16 check;

	if (csum_pending(skb, &start, &field))
		return false;
	if (!(p->type == TYPE_IPV6 ? rewrite_quoted6(skb, p, r, &sum) : rewrite_quoted4(skb, p, r, &sum)))
		return false;
	if (!load(skb, p->l4 + 2, &check, sizeof(check)))
		return false;
	check = rewrite_sum(check, sum);
	return rewrite_store(skb, p->l4 + 2, &check, sizeof(check));
}

/* Neighbours in the underlay ask for a Provider Address itself, or answer: no guest's packet is like that. */
static __always_inline bool rewrite_of_link(const struct pkt *p)
{
	return p->rewrite && p->nd && (p->icmp_type == ND_NS || p->icmp_type == ND_NA);
}

static __always_inline bool rewrite_apply(struct __sk_buff *skb, const struct pkt *p, const struct rewrite *r)
{
	__u32 diff = rewrite_diff(&p->src, r->to, sizeof(r->to)); /* of src, and dst behind it */

	return rewrite_addresses(skb, p, r->to, diff) && rewrite_l4(skb, p, diff);
}

_Static_assert(offsetof(struct pkt, dst) == offsetof(struct pkt, src) + sizeof(union addr), "rewrite_apply reads both");

/* Whether the way to the host is the packet's own, and known without the kernel. */
static __always_inline bool rewrite_bare(const struct pkt *p)
{
	const struct peer *to = p->peer;

	return to && to->via.w[3] && addr_is4(&to->via) == (p->type == TYPE_IPV4) && vouched(to);
}

/* The Ethernet header of what goes bare. */
static __always_inline void rewrite_eth(const struct peer *to, __be16 type, struct eth *eth)
{
	__builtin_memcpy(eth->dst, to->next_hop, MAC_LEN);
	__builtin_memcpy(eth->src, to->source, MAC_LEN);
	eth->type = type;
}

/* The kernel's neighbour code takes no group MAC, even where it writes another. */
static __always_inline bool rewrite_mac(struct __sk_buff *skb, struct pkt *p, struct rewrite *r)
{
	p->bare = rewrite_bare(p);
	if (!p->bare)
		return !is_group(p->eth.dst) || !bpf_skb_store_bytes(skb, 0, p->rec->mac, MAC_LEN, 0);
	rewrite_eth(p->peer, p->eth.type, &r->eth);
	return !bpf_skb_store_bytes(skb, 0, &r->eth, sizeof(r->eth), 0);
}

static __noinline int rewrite_send(struct __sk_buff *skb, struct pkt *p)
{
	struct rewrite *r = rewrite_room();
	enum verdict v = rewrite_ends(skb, p, r);

	if (v)
		return v;
	if (!r || addr_is4(&r->to[0]) != (p->type == TYPE_IPV4) || addr_is4(&r->to[1]) != (p->type == TYPE_IPV4))
		return V_REWRITE_NO_PA;
	r->quoted_to = r->to[0];
	r->quoted_from = p->src;
	if (rewrite_is_error(p))
		rewrite_quoted(skb, p, r);
	return rewrite_apply(skb, p, r) && rewrite_mac(skb, p, r) ? V_CONTINUE : V_ENCAP_FAILED;
}

static __always_inline enum verdict rewrite(struct __sk_buff *skb, struct pkt *p)
{
	return p->rewrite && !p->exchange ? rewrite_send(skb, p) : V_CONTINUE;
}

/* What a router of the underlay says about a packet of the guest, as the guest's own router says it. */
static __always_inline bool rewrite_told(struct __sk_buff *skb, struct pkt *p, const struct rewrite_in *to, struct rewrite *r)
{
	const union addr *gateway = p->type == TYPE_IPV4 ? &p->dport->gateway4 : &p->dport->gateway6;
	const __u32 at = p->l4 + sizeof(struct icmp);
	const struct rewrite_in *far;

	if (!rewrite_is_error(p) || addr_unspecified(gateway))
		return false;
	if (p->type == TYPE_IPV4)
		addr_set4(&r->quoted_from, 0);
	if (!(p->type == TYPE_IPV4 ? load(skb, at + 16, &r->quoted_from.w[3], 4) : load(skb, at + 24, &r->quoted_from, 16)))
		return false;
	far = bpf_map_lookup_elem(&rewrite_in, &r->quoted_from);
	if (!far || far->network != to->network || addr_is4(&far->ca) != addr_is4(&to->ca))
		return false;
	r->to[0] = *gateway;
	r->quoted_to = far->ca;
	router_mac(p->eth.src, p->vsid);
	return rewrite_quoted(skb, p, r);
}

static __always_inline enum verdict rewrite_from(struct __sk_buff *skb, struct pkt *p, const struct rewrite_in *to, struct rewrite *r)
{
	const struct rewrite_in *from = bpf_map_lookup_elem(&rewrite_in, &p->src);

	if (!from)
		return rewrite_told(skb, p, to, r) ? V_CONTINUE : V_SOURCE_NOT_IN_POLICY;
	if (!(from->flags & REWRITE_REMOTE) || from->network != to->network || addr_is4(&from->ca) != addr_is4(&to->ca))
		return V_SOURCE_NOT_IN_POLICY;
	if (from->vsid == p->vsid && isolate_apart(from->isolation, p->dport->isolation))
		return V_ISOLATED;
	r->to[0] = r->quoted_to = from->ca;
	r->quoted_from = p->src;
	if (from->vsid == p->vsid)
		__builtin_memcpy(p->eth.src, from->mac, MAC_LEN);
	else
		router_mac(p->eth.src, p->vsid);
	if (rewrite_is_error(p))
		rewrite_quoted(skb, p, r);
	return V_CONTINUE;
}

/* The port of the Customer Address that the destination stands for: p->rewritten. */
static __always_inline enum verdict rewrite_local(struct pkt *p)
{
	const struct rewrite_in *to = p->rewritten;
	const struct port *dport;
	__u32 ifindex;

	if (!to)
		return V_NOT_LOCAL;
	ifindex = to->ifindex;
	dport = bpf_map_lookup_elem(&port, &ifindex);
	if (!dport || dport->vsid != to->vsid)
		return V_NOT_LOCAL;
	p->vsid = dport->vsid;
	p->out = ifindex;
	p->port_id = dport->id;
	p->dport = dport;
	return V_CONTINUE;
}

/* What a rewritten packet is from and to, now that it has its Customer Addresses back. */
static __always_inline enum verdict acl_rewritten(struct __sk_buff *skb, struct pkt *p)
{
	const struct rewrite *r = rewrite_room();

	return r ? acl_inbound(skb, p, p->dport, &r->to[0], &r->to[1]) : V_ACL_DENIED;
}

/* From a Provider Address to one that stands for a Customer Address here. */
static __noinline int unrewrite(struct __sk_buff *skb, struct pkt *p)
{
	const struct rewrite_in *to = p->rewritten;
	struct rewrite *r = rewrite_room();
	__u32 end = sizeof(struct eth) + p->l3_len;
	enum verdict v;

	if (!to || !r || !p->dport)
		return V_NOT_LOCAL;
	if (!rewrite_plain(skb, p))
		return V_REWRITE_NOT_CARRIED;
	r->to[1] = to->ca;
	__builtin_memcpy(p->eth.dst, p->dport->mac, MAC_LEN);
	v = rewrite_from(skb, p, to, r);
	if (v)
		return v;
	if (skb->len > end && bpf_skb_change_tail(skb, end, 0))
		return V_DECAP_FAILED;
	if (!rewrite_apply(skb, p, r) || bpf_skb_store_bytes(skb, 0, &p->eth, sizeof(p->eth), 0))
		return V_DECAP_FAILED;
	return V_CONTINUE;
}

#endif
