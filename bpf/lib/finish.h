/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_FINISH_H
#define WEFT_LIB_FINISH_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/capture.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/gro.h"
#include "lib/sample.h"
#include "maps/denied.h"
#include "maps/drop.h"
#include "maps/event.h"
#include "maps/query.h"
#include "maps/scratch.h"
#include "maps/traffic.h"

/* The one place that turns a verdict into what happens: it counts, reports and
 * tells the kernel. cb[0] and cb[1] show verdict and device to a test run. */

#define FAMILY_INET 2
#define FAMILY_INET6 10

/* Counts. True: a look is to be taken at the packet. */
static __always_inline bool count_out(const struct pkt *p)
{
	__u32 slot = p->port->slot;
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return false;
	t->out_packets++;
	t->out_bytes += p->len;
	return sample_due(p->port, &t->out, t->out_packets);
}

static __always_inline bool count_in(const struct pkt *p, __u32 len)
{
	__u32 slot = p->dport->slot;
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return false;
	t->in_packets++;
	t->in_bytes += len;
	return sample_due(p->dport, &t->in, t->in_packets);
}

/* The row of a drop, made if it is new; the row of port 0 when the map is full. */
static __always_inline struct drop *drop_row(struct drop_key k)
{
	static const struct drop zero;
	struct drop *d = bpf_map_lookup_elem(&drop, &k);

	if (d)
		return d;
	bpf_map_update_elem(&drop, &k, &zero, BPF_NOEXIST);
	d = bpf_map_lookup_elem(&drop, &k);
	if (d)
		return d;
	k.port_id = 0;
	return bpf_map_lookup_elem(&drop, &k);
}

/* Fills head with the frame as it came, even where it now is an ICMP error, which quotes all but its Ethernet header. */
static __always_inline __u32 event_head(struct __sk_buff *skb, struct event *e, __u32 quote)
{
	const struct scratch *s = scratch_room();
	__u32 n = skb->len;

	__builtin_memset(e->head, 0, sizeof(e->head));
	if (quote && s) {
		__builtin_memcpy(e->head, s->w, sizeof(struct eth)); /* icmp_error left it there */
		n -= quote;
		if (n > EVENT_HEAD - sizeof(struct eth))
			n = EVENT_HEAD - sizeof(struct eth);
		if (n == 0 || n > EVENT_HEAD - sizeof(struct eth))
			return sizeof(struct eth);
		return load(skb, quote, e->head + sizeof(struct eth), n) ? sizeof(struct eth) + n : sizeof(struct eth);
	}
	if (n > EVENT_HEAD)
		n = EVENT_HEAD;
	if (n == 0)
		return 0;
	return load(skb, 0, e->head, n) ? n : 0;
}

/* The search of this CPU that ended last is that of the packet in hand. */
static __always_inline __u32 event_rule(void)
{
	const struct query *q = query_room();

	return q ? q->rule : RULE_NONE;
}

/* By which rule. A global function, too; key and row are made in the query, of which only the rule is still needed: the
 * stack has no room. */
__noinline int count_denied(__u32 port_id, __u32 direction, __u32 len)
{
	struct query *q = query_room();
	struct denied_key *k;
	struct denied *d;

	if (!q)
		return 0;
	k = (struct denied_key *)q->key;
	k->port_id = port_id;
	k->rule = q->rule;
	k->direction = direction;
	d = bpf_map_lookup_elem(&denied, k);
	if (!d) {
		q->key[2] = q->key[3] = 0;
		bpf_map_update_elem(&denied, k, &q->key[2], BPF_NOEXIST);
		d = bpf_map_lookup_elem(&denied, k);
	}
	if (!d)
		return 0;
	__sync_fetch_and_add(&d->packets, 1);
	__sync_fetch_and_add(&d->bytes, len);
	return 0;
}

/* Counts a drop and tells of it. A global function: the verifier walks it once, not once for each drop.
 * who is port and length, what the reason, direction and quote. */
__noinline int report_drop(struct __sk_buff *skb, __u64 who, __u64 what)
{
	struct drop_key k = {.reason = (__u8)what, .direction = (__u8)(what >> 8), .port_id = who >> 32};
	__u64 now = bpf_ktime_get_ns();
	struct drop *d = drop_row(k);
	struct event *e;

	if (!d)
		return 0;
	__sync_fetch_and_add(&d->packets, 1);
	__sync_fetch_and_add(&d->bytes, (__u32)who);
	if (now - d->last_event < event_interval)
		return 0;
	d->last_event = now;
	e = bpf_ringbuf_reserve(&event, sizeof(*e), 0);
	if (!e)
		return 0;
	e->time = now;
	e->reason = k.reason;
	e->direction = k.direction;
	e->port_id = k.port_id;
	e->ifindex = skb->ifindex;
	e->len = who;
	e->rule = k.reason == V_ACL_DENIED ? event_rule() : RULE_NONE;
	e->zero = 0;
	e->head_len = event_head(skb, e, what >> 32);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline void report(struct __sk_buff *skb, const struct pkt *p, __u32 v)
{
	report_drop(skb, (__u64)p->port_id << 32 | p->len, (__u64)p->quote << 32 | p->direction << 8 | v);
	if (v == V_ACL_DENIED)
		count_denied(p->port_id, p->direction, p->len);
}

/* A known next hop saves the lookup of a route for each packet. */
static __always_inline int redirect_neighbour(const struct pkt *p)
{
	struct bpf_redir_neigh to = {};
	const union addr *via;

	if (!p->peer)
		return TC_ACT_SHOT;
	via = &p->peer->via;
	if (!via->w[3] || (p->rewrite && addr_is4(via) != (p->type == TYPE_IPV4)))
		return bpf_redirect_neigh(p->out, NULL, 0, 0);
	if (!addr_is4(via)) {
		to.nh_family = FAMILY_INET6;
		__builtin_memcpy(to.ipv6_nh, via, sizeof(to.ipv6_nh));
	} else {
		to.nh_family = FAMILY_INET;
		to.ipv4_nh = via->w[3];
	}
	return bpf_redirect_neigh(p->out, &to, sizeof(to), 0);
}

static __always_inline int act(struct __sk_buff *skb, const struct pkt *p)
{
	if (p->shaped)
		skb->mark = 0;
	switch (p->action) {
	case ACT_DEVICE:
		return bpf_redirect(p->out, 0);
	case ACT_PORT:
		skb->mark = SWITCH_MARK;
		return bpf_redirect(p->out, 0);
	case ACT_DETOUR:
		skb->mark = SWITCH_MARK;
		skb->priority = p->out;
		return TC_ACT_OK;
	case ACT_MERGE:
		return gro_send(skb, p);
	case ACT_PEER:
		if (skb->pkt_type != PACKET_HOST)
			bpf_skb_change_type(skb, PACKET_HOST);
		return bpf_redirect_peer(p->out, 0);
	case ACT_NEIGHBOUR:
		return redirect_neighbour(p);
	}
	return TC_ACT_SHOT;
}

/* Counts what is delivered, encapsulated or answered. True: a look is to be taken at it. */
static __always_inline bool finish_count(const struct pkt *p, enum verdict v, __u32 len)
{
	bool look = false;

	if (p->port)
		look |= count_out(p);
	if (v == V_DELIVERED && p->dport)
		look |= count_in(p, len);
	return look;
}

/* What the short way sends. */
static __always_inline int finish_sent(struct __sk_buff *skb, const struct pkt *p, enum verdict v)
{
	bool look;
	int action;

	skb->cb[0] = v;
	skb->cb[1] = p->out;
	look = finish_count(p, v, skb->len);
	action = act(skb, p);
	return look && !p->rewrite ? sample_leave(skb, skb->ifindex, 0, action) : action;
}

static __always_inline int finish_any(struct __sk_buff *skb, const struct pkt *p, enum verdict v, bool may_look)
{
	bool look;
	int action;

	skb->cb[0] = v;
	skb->cb[1] = p->action == ACT_NONE ? 0 : p->out;
	if (v == V_PASS)
		return TC_ACT_UNSPEC;
	capture_end(skb, p, v);
	if (v >= V_FIRST_DROP || v == V_CONTINUE) {
		report(skb, p, v);
		return act(skb, p); /* an ICMP error, if a stage made one */
	}
	look = finish_count(p, v, p->detour ? p->end - p->base : skb->len);
	action = act(skb, p);
	if (!may_look || !look || p->rewrite)
		return action;
	return sample_leave(skb, p->port ? p->port->ifindex : 0, p->detour ? skb->len - (p->end - p->base) : 0, action);
}

static __always_inline int finish(struct __sk_buff *skb, const struct pkt *p, enum verdict v)
{
	return finish_any(skb, p, v, false);
}

/* The same where all stages were walked; a look may be taken at the packet. */
static __always_inline int finish_walk(struct __sk_buff *skb, const struct pkt *p, enum verdict v)
{
	return finish_any(skb, p, v, true);
}

#endif
