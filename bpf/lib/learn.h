/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_LEARN_H
#define WEFT_LIB_LEARN_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "maps/learn.h"
#include "maps/port.h"
#include "wire/arp.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Tells the agent what is said of addresses: docs/design/learning.md. It changes no verdict
 * and no packet. */

#define LEARN_INTERVAL_NS 50000000ull /* between two samples of a port, in the long run */
#define LEARN_BURST_NS 1000000000ull  /* what may come at once, in the same measure */

#define DHCP_SERVER 67
#define DHCP_CLIENT 68

static __always_inline bool learn_is_dhcp(const struct pkt *p, __u16 from, __u16 to)
{
	return p->type == TYPE_IPV4 && p->proto == PROTO_UDP && p->sport == from && p->dport_l4 == to;
}

/* A port may say 20 things at once and 20 each second: the generic cell rate algorithm. */
static __always_inline bool learn_in_pace(const struct port *of, __u64 now)
{
	__u32 slot = of->slot;
	__u64 *used = bpf_map_lookup_elem(&learn_pace, &slot), from;

	if (!used)
		return false;
	from = *used > now ? *used : now;
	if (from - now > LEARN_BURST_NS)
		return false;
	*used = from + LEARN_INTERVAL_NS;
	return true;
}

/* The guest's frame from p->base on. */
static __noinline void learn_sample(struct __sk_buff *skb, const struct pkt *p, __u32 v, const struct port *pace, __u32 id)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 n = skb->len - p->base;
	struct learn *l;

	if (event_interval == ~0ull || skb->len <= p->base) /* a trace tells nobody */
		return;
	if (pace && !learn_in_pace(pace, now))
		return;
	l = bpf_ringbuf_reserve(&learn, sizeof(*l), 0);
	if (!l)
		return;
	l->time = now;
	l->vsid = p->vsid;
	l->port_id = id;
	l->verdict = v;
	l->direction = p->direction;
	l->zero = 0;
	__builtin_memset(l->head, 0, sizeof(l->head));
	if (n > LEARN_HEAD)
		n = LEARN_HEAD;
	if (n == 0 || n > LEARN_HEAD || !load(skb, p->base, l->head, n))
		n = 0;
	l->head_len = n;
	bpf_ringbuf_submit(l, 0);
}

/* Whether what a guest that may learn addresses says is about one that it has not. */
static __always_inline bool learn_is_claim(const struct pkt *p, enum verdict v)
{
	if (v == V_SPOOFED_ARP || v == V_SPOOFED_ND)
		return true;
	if (p->nd && p->icmp_type == ND_NS)
		return v == V_SPOOFED_CA || (!v && addr_unspecified(&p->src) && !addr6_link_local(&p->hop));
	return learn_is_dhcp(p, DHCP_CLIENT, DHCP_SERVER) && (!v || v == V_MULTICAST || v == V_SPOOFED_CA);
}

/* After admit: what the guest claims, or asks of a DHCP server. */
static __always_inline enum verdict learn_said(struct __sk_buff *skb, struct pkt *p, enum verdict v)
{
	if (p->port->flags & PORT_LEARN && learn_is_claim(p, v)) {
		p->vsid = p->port->vsid;
		learn_sample(skb, p, v, p->port, p->port->id);
	}
	return v;
}

/* After respond: the guest looked whether an address is free, and the switch told it whose it is. */
static __always_inline enum verdict learn_defended(struct __sk_buff *skb, struct pkt *p, enum verdict v)
{
	bool anonymous = p->type == TYPE_ARP ? p->src.w[3] == 0 : addr_unspecified(&p->src);

	if (v == V_ANSWERED && anonymous) {
		p->vsid = p->port->vsid;
		learn_sample(skb, p, v, p->port, p->port->id);
	}
	return v;
}

/* After lookup: what a DHCP server says to a guest that may learn addresses. */
static __always_inline enum verdict learn_leased(struct __sk_buff *skb, const struct pkt *p)
{
	if (p->dport && p->dport->flags & PORT_LEARN && learn_is_dhcp(p, DHCP_SERVER, DHCP_CLIENT))
		learn_sample(skb, p, V_CONTINUE, p->dport, p->dport->id);
	return V_CONTINUE;
}

/* In flood: the same, to all. Only the client's MAC inside tells whom it is for. */
static __always_inline void learn_flooded(struct __sk_buff *skb, const struct pkt *p)
{
	if (learn_is_dhcp(p, DHCP_SERVER, DHCP_CLIENT))
		learn_sample(skb, p, V_CONTINUE, p->port, 0);
}

#endif
