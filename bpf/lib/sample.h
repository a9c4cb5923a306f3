/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_SAMPLE_H
#define WEFT_LIB_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/acl.h"
#include "lib/ctx.h"
#include "lib/observe.h"
#include "maps/port.h"
#include "maps/query.h"
#include "maps/traffic.h"
#include "maps/walk.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* Ports without rules: nobody judges their packets, so that a look is taken at one now and then, at each of a port
 * that is quiet and at about a hundred a second of one that is not. By a program of its own, when all else is done: the
 * short way has neither room nor time for it. */

#define SAMPLE_OFTEN 4 /* 2^20 ns between two: look at fewer */
#define SAMPLE_SELDOM 20
#define SAMPLE_MOST 65535 /* packets that come between two */

static __always_inline bool sample_due(const struct port *port, const struct sampling *s, __u64 packets)
{
	return packets >= s->due && !(port->flags & PORT_RULES);
}

#define SAMPLE_AT 8 /* in cb[4], behind what is to be done */

/* Goes on with the program `look`, which takes a look at the packet as it is about to go, and does with it what was to be
 * done. from is the device of the port that sent it, at where the guest's frame is in one that is delivered. The short way has no room
 * to say more: `look` finds the rest out. */
static __always_inline int sample_leave(struct __sk_buff *skb, __u32 from, __u32 at, int action)
{
	skb->cb[2] = from;
	skb->cb[4] = at << SAMPLE_AT | action;
	bpf_tail_call(skb, &walk, WALK_LOOK);
	skb->cb[2] = skb->cb[4] = 0;
	return action;
}

/* Where the guest's frame is behind what it was encapsulated with. 0: it is not. */
static __always_inline __u32 sample_inner(struct __sk_buff *skb)
{
	bool v6;
	__be16 type;
	__u8 proto;

	if (!load(skb, offsetof(struct eth, type), &type, sizeof(type)))
		return 0;
	v6 = type == bpf_htons(TYPE_IPV6);
	if (!load(skb, sizeof(struct eth) + (v6 ? offsetof(struct ipv6, next) : offsetof(struct ipv4, proto)), &proto, sizeof(proto)))
		return 0;
	return proto == PROTO_GRE || proto == PROTO_UDP ? outer_len(proto == PROTO_UDP, v6) : 0;
}

/* When the next is due, from when the last was. */
static __always_inline void sample_next(struct sampling *s, __u64 packets)
{
	__u32 now = bpf_ktime_get_coarse_ns() >> 20, since = now - s->at;

	if (since < SAMPLE_OFTEN && s->step < SAMPLE_MOST)
		s->step = s->step * 2 + 1;
	else if (since > SAMPLE_SELDOM)
		s->step /= 2;
	s->at = now;
	s->due = packets + s->step;
}

/* What the IP header says, as the sender's rules see it: in src, dst, proto, l4 and later of q. On a detour IPv4 is
 * called IPv6, too. */
static __always_inline bool sample_ip(struct __sk_buff *skb, struct query *q, const struct eth *eth)
{
	__u32 at = q->l3 + sizeof(*eth);
	__u8 version;

	if ((eth->type != bpf_htons(TYPE_IPV4) && eth->type != bpf_htons(TYPE_IPV6)) || !load(skb, at, &version, sizeof(version)))
		return false;
	q->is6 = version >> 4 == 6;
	if (q->is6) {
		if (!load(skb, at, &q->quoted6, sizeof(q->quoted6)))
			return false;
		addr_set6(&q->src, q->quoted6.src);
		addr_set6(&q->dst, q->quoted6.dst);
		q->proto = q->quoted6.next;
		q->later = q->proto == PROTO_FRAGMENT;
		q->l4 = at + sizeof(q->quoted6);
		return true;
	}
	if (!load(skb, at, &q->quoted4, sizeof(q->quoted4)))
		return false;
	addr_set4(&q->src, q->quoted4.src);
	addr_set4(&q->dst, q->quoted4.dst);
	q->proto = q->quoted4.proto;
	q->later = (q->quoted4.frag & bpf_htons(IPV4_MF | IPV4_OFFSET)) != 0;
	q->l4 = at + (q->quoted4.version_ihl & 15) * 4;
	return true;
}

/* The ports, or type and code, as in struct query; left in shown for both directions. False: Neighbour Discovery. */
static __always_inline bool sample_upper(struct __sk_buff *skb, struct query *q)
{
	bool icmp = q->proto == (q->is6 ? PROTO_ICMPV6 : PROTO_ICMP);
	__be16 w[2];

	q->shown = 0;
	if (!icmp && q->proto != PROTO_TCP && q->proto != PROTO_UDP)
		q->tag = QUERY_OPAQUE | (__u32)q->proto << 16;
	else if (q->later || !load(skb, q->l4, w, sizeof(w)))
		q->tag = QUERY_HIDDEN | (__u32)q->proto << 16;
	else {
		q->tag = QUERY_SHOWN | (__u32)q->proto << 16;
		q->shown = (__u32)bpf_ntohs(w[0]) << 16 | (icmp ? 0 : bpf_ntohs(w[1]));
	}
	return !(icmp && q->is6 && q->shown >> 24 >= 133 && q->shown >> 24 <= 137);
}

static __always_inline void sample_side(struct query *q, const struct port *port, bool inbound, const struct eth *eth)
{
	bool icmp = q->proto == (q->is6 ? PROTO_ICMPV6 : PROTO_ICMP);
	__u32 src = q->shown >> 16, dst = q->shown & 0xffff;
	__u64 router = ROUTER_MAC | port->vsid, other = acl_mac(inbound ? eth->src : eth->dst);

	q->inbound = inbound;
	q->port_id = port->id;
	q->slot = port->slot;
	q->local_mac = acl_mac(port->mac);
	q->remote_mac = !inbound && (acl_mac(eth->src) >> 24) == ROUTER_MAC >> 24 ? router : other; /* it was routed */
	acl_number(q->remote, inbound ? &q->src : &q->dst, q->is6);
	acl_number(q->local, inbound ? &q->dst : &q->src, q->is6);
	q->local_port = q->tag | (icmp ? 0 : inbound ? dst : src);
	q->remote_port = q->tag | (icmp || !inbound ? (icmp ? src : dst) : src);
	observe(q);
}

static __always_inline void sample_port(struct query *q, __u32 ifindex, bool inbound, const struct eth *eth)
{
	const struct port *of = bpf_map_lookup_elem(&port, &ifindex);
	struct sampling *s;
	struct traffic *t;
	__u64 packets;
	__u32 slot;

	if (!of)
		return;
	slot = of->slot;
	t = bpf_map_lookup_elem(&traffic, &slot);
	if (!t)
		return;
	s = inbound ? &t->in : &t->out;
	packets = inbound ? t->in_packets : t->out_packets;
	if (!sample_due(of, s, packets))
		return;
	sample_next(s, packets);
	sample_side(q, of, inbound, eth);
}

static __always_inline void sample_packet(struct __sk_buff *skb, bool delivered, __u32 at)
{
	struct query *q = query_room();
	struct eth eth;

	if (!delivered)
		at = sample_inner(skb);
	if (!q || (!delivered && !at))
		return;
	q->l3 = at;
	q->now = 0;
	q->denied = 0;
	q->sampled = 1;
	if (!load(skb, at, &eth, sizeof(eth)) || !sample_ip(skb, q, &eth) || !sample_upper(skb, q))
		return;
	if (skb->cb[2])
		sample_port(q, skb->cb[2], false, &eth);
	if (delivered)
		sample_port(q, skb->cb[1], true, &eth);
}

/* Takes a look at a packet that is about to go, for the ports that want one. */
static __always_inline int sample(struct __sk_buff *skb)
{
	__u32 told = skb->cb[4], v = skb->cb[0];

	if (v == V_DELIVERED || v == V_ENCAPSULATED)
		sample_packet(skb, v == V_DELIVERED, told >> SAMPLE_AT);
	skb->cb[2] = skb->cb[4] = 0;
	return told & ((1 << SAMPLE_AT) - 1);
}

#endif
