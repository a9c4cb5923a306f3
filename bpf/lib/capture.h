/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_CAPTURE_H
#define WEFT_LIB_CAPTURE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/offload.h"
#include "maps/capture.h"
#include "maps/drop.h"

/* Shows packets to captures. The switch runs without any of this: while a capture is on,
 * datapath has the same programs in their place, loaded with capture_on. */

#define CAPTURE_WINDOW 100000000 /* ns */

/* The port whose guest this is about. */
static __always_inline bool capture_wants_port(const struct capture_filter *f, const struct capture_event *e)
{
	if (!f->port_id)
		return true;
	if (e->point == POINT_TO_GUEST && e->to_port_id)
		return e->to_port_id == f->port_id;
	return e->port_id == f->port_id;
}

static __always_inline bool capture_wants_addr(const union addr *a, const struct capture_view *w)
{
	return (!a->d[0] && !a->d[1]) || same_addr(a, &w->src) || same_addr(a, &w->dst);
}

static __always_inline bool capture_wants_packet(const struct capture_filter *f, const struct capture_view *w)
{
	if (f->type && f->type != w->type)
		return false;
	if (f->proto[0] && f->proto[0] != w->proto && f->proto[1] != w->proto)
		return false;
	if (f->l4_port && f->l4_port != w->sport && f->l4_port != w->dport)
		return false;
	return capture_wants_addr(&f->host[0], w) && capture_wants_addr(&f->host[1], w);
}

/* The point that the capture sees this as: an ICMP error is a drop for some, and for
 * others what the guest gets. None: it does not want it. */
static __always_inline __u32 capture_point(const struct capture_filter *f, const struct capture_event *e)
{
	if (f->points & 1u << (e->point & 7) && (e->point != POINT_DROPPED || !f->reason || f->reason == e->verdict))
		return e->point;
	if (e->point == POINT_DROPPED && e->quote && f->points & 1u << POINT_TO_GUEST)
		return POINT_TO_GUEST;
	return POINT_NONE;
}

/* The rates hold but for what several CPUs do within the same nanoseconds. */
static __always_inline bool capture_in_rate(const struct capture_filter *f, __u32 slot, __u64 now, __u32 len)
{
	struct capture_rate *r = bpf_map_lookup_elem(&capture_rate, &slot);

	if (!r)
		return false;
	if (now - r->begin >= CAPTURE_WINDOW) {
		r->begin = now;
		r->packets = 0;
		r->bytes = 0;
	}
	__sync_fetch_and_add(&r->packets, 1);
	__sync_fetch_and_add(&r->bytes, len);
	return r->packets <= f->rate_packets && r->bytes <= f->rate_bytes;
}

static __always_inline struct capture_count *capture_count_of(__u32 slot, __u32 point)
{
	__u32 key = slot * 8 + point;

	return bpf_map_lookup_elem(&capture_count, &key);
}

/* Whether the capture of one slot takes the packet. */
static __always_inline bool capture_takes(__u32 slot, struct capture_view *w)
{
	struct capture_filter *f = bpf_map_lookup_elem(&capture_filter, &slot);
	struct capture_event *e = &w->event;
	struct capture_count *c;
	__u32 len = e->len, point;

	if (!f || f->until < e->time)
		return false;
	point = capture_point(f, e);
	if (point == POINT_NONE || !capture_wants_port(f, e) || !capture_wants_packet(f, w))
		return false;
	c = capture_count_of(slot, point);
	if (!c)
		return false;
	__sync_fetch_and_add(&c->seen, 1);
	if (len > f->snaplen)
		len = f->snaplen;
	if (!capture_in_rate(f, slot, e->time, len)) {
		__sync_fetch_and_add(&c->lost_rate, 1);
		return false;
	}
	if (len > e->caplen)
		e->caplen = len;
	return true;
}

static __always_inline void capture_lost(__u32 slot, const struct capture_event *e)
{
	struct capture_filter *f = bpf_map_lookup_elem(&capture_filter, &slot);
	struct capture_count *c = f ? capture_count_of(slot, capture_point(f, e)) : NULL;

	if (c)
		__sync_fetch_and_add(&c->lost_full, 1);
}

static __always_inline struct capture_view *capture_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&capture_view, &zero);
}

static __always_inline void capture_flags(struct __sk_buff *skb, struct capture_view *w)
{
	struct capture_event *e = &w->event;
	__u32 start, field;

	if (csum_pending(skb, &start, &field))
		e->flags |= CAPTURE_CSUM;
	if (skb->vlan_present) {
		e->flags |= CAPTURE_VLAN;
		e->tci = skb->vlan_tci;
	}
	if (e->point == POINT_FROM_UNDERLAY && w->came > e->len)
		e->flags |= CAPTURE_XDP;
}

/* Shows the packet in the view to every capture that takes it. What ends a walk that was
 * shown before is told in any case: its verdict belongs to what was shown. A function of
 * its own for the verifier, which looks at it once. */
__noinline int capture_show(struct __sk_buff *skb)
{
	struct capture_view *w = capture_scratch();
	struct capture_event *e;
	__u32 walk;

	if (!w || !skb)
		return 0;
	e = &w->event;
	walk = w->walk;
	if (!(e->flags & CAPTURE_COPY))
		w->walk = 0;
	e->time = bpf_ktime_get_ns();
	e->ifindex = skb->ifindex;
	e->len = skb->len;
	e->gso_size = skb->gso_size;
	e->gso_segs = skb->gso_segs;
	e->slots = 0;
	e->caplen = 0;
	for (__u32 i = 0; i < CAPTURE_SLOTS; i++)
		if (capture_takes(i, w))
			e->slots |= 1u << i;
	if (e->point <= POINT_FROM_UNDERLAY)
		walk = e->slots ? bpf_get_prandom_u32() | 1 : 0;
	if (!e->slots && (e->point <= POINT_FROM_UNDERLAY || e->flags & CAPTURE_COPY || !walk))
		return 0;
	e->walk = walk;
	if (e->point <= POINT_FROM_UNDERLAY)
		w->walk = walk;
	capture_flags(skb, w);
	if (!bpf_perf_event_output(skb, &capture, BPF_F_CURRENT_CPU | (__u64)e->caplen << 32, e, sizeof(*e)))
		return 0;
	for (__u32 i = 0; i < CAPTURE_SLOTS; i++)
		if (e->slots & 1u << i)
			capture_lost(i, e);
	return 0;
}

/* Describes the packet in the CPU's view, so that capture_show needs nothing else. Above CAPTURE_TCI, flags are a tag. */
static __noinline void capture_describe(const struct pkt *p, __u32 point, __u32 v, __u32 flags, __u32 to_port_id)
{
	struct capture_view *w = capture_scratch();
	struct capture_event *e;

	if (!w)
		return;
	e = &w->event;
	w->src = p->src;
	w->dst = p->dst;
	w->type = p->type;
	w->sport = p->sport;
	w->dport = p->dport_l4;
	w->proto = p->proto;
	w->came = p->len;
	e->port_id = p->port_id;
	e->to_port_id = point == POINT_TO_GUEST ? to_port_id : 0;
	e->vsid = p->vsid;
	e->out = p->action == ACT_NONE ? 0 : p->out;
	e->quote = p->quote;
	e->base = p->base;
	e->point = point;
	e->verdict = v;
	e->direction = p->direction;
	e->tci = flags >> CAPTURE_TCI;
	e->flags = flags | (p->detour ? CAPTURE_DETOUR : 0) | (p->bare ? CAPTURE_BARE : 0);
	__builtin_memcpy(e->eth, &p->eth, sizeof(e->eth));
}

static __always_inline void capture_look(const struct pkt *p, __u32 point, __u32 v, __u32 flags)
{
	capture_describe(p, point, v, flags, p->dport ? p->dport->id : 0);
}

/* The packet as it came, as soon as it is known whose it is. */
static __always_inline enum verdict capture_arrival(struct __sk_buff *skb, const struct pkt *p)
{
	if (!capture_on)
		return V_CONTINUE;
	capture_look(p, p->direction == OUTBOUND ? POINT_FROM_GUEST : POINT_FROM_UNDERLAY, V_CONTINUE, 0);
	capture_show(skb);
	return V_CONTINUE;
}

/* One copy of a packet, before what ends its walk. */
static __always_inline void capture_copy(struct __sk_buff *skb, const struct pkt *p)
{
	if (!capture_on)
		return;
	capture_look(p, p->dport ? POINT_TO_GUEST : POINT_TO_UNDERLAY, V_FLOODED, CAPTURE_COPY);
	capture_show(skb);
}

/* The packet as it leaves, or what is left of it. */
static __always_inline void capture_end(struct __sk_buff *skb, const struct pkt *p, enum verdict v)
{
	__u32 point = POINT_TO_GUEST;

	if (!capture_on)
		return;
	if (v >= V_FIRST_DROP || v == V_CONTINUE)
		point = POINT_DROPPED;
	else if (v == V_ENCAPSULATED)
		point = POINT_TO_UNDERLAY;
	else if (v == V_FLOODED)
		point = POINT_NONE; /* its copies were shown */
	capture_look(p, point, v, 0);
	capture_show(skb);
}

#endif
