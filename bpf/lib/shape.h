/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_SHAPE_H
#define WEFT_LIB_SHAPE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/ctx.h"
#include "lib/finish.h"
#include "maps/shape.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* Bandwidth: programs of their own on the devices of ports that have a limit, in front of
 * from_port and behind to_port, so that others pay nothing. They decide what is let through, and
 * a queue of the kernel behind them delays it: docs/adr/0031 says why it takes both. */

#define SHAPE_SHIFT 20
#define SHAPE_TRIES 8
#define SHAPE_TCP_DOFF 12 /* offset of the header's length */

/* Headers that each segment of a super-packet repeats. */
static __always_inline __u32 shape_headers(const struct __sk_buff *skb)
{
	__u32 at = sizeof(struct eth);
	__u8 first, proto, doff;
	__be16 type;

	if (!load(skb, 2 * MAC_LEN, &type, sizeof(type)))
		return at;
	if (type == bpf_htons(TYPE_VLAN)) {
		at += 4;
		if (!load(skb, at - 2, &type, sizeof(type)))
			return at;
	}
	if (!load(skb, at, &first, 1))
		return at;
	if (type == bpf_htons(TYPE_IPV6)) {
		if (!load(skb, at + 6, &proto, 1))
			return at;
		at += sizeof(struct ipv6);
	} else {
		if (!load(skb, at + 9, &proto, 1))
			return at;
		at += (first & 15) * 4;
	}
	if (proto != PROTO_TCP)
		return at + 8;
	return load(skb, at + SHAPE_TCP_DOFF, &doff, 1) ? at + (doff >> 4) * 4 : at;
}

/* Bytes on the wire: a super-packet counts as what it will be cut into. */
static __always_inline __u64 shape_bytes(const struct __sk_buff *skb)
{
	__u32 len = skb->len, size = skb->gso_size, head;

	if (!size)
		return len;
	head = shape_headers(skb);
	if (len <= head + size)
		return len;
	return len + (__u64)((len - head - 1) / size) * head;
}

/* A virtual queue: each packet moves the time at which all before it will be through. What would
 * wait longer than the limit is too much. */
static __noinline bool shape_admits(const struct __sk_buff *skb, struct shape *s)
{
	__u64 cost, now, old, from;

	if (!skb || !s)
		return true;
	if (!s->cost)
		return true;
	cost = shape_bytes(skb) * s->cost >> SHAPE_SHIFT;
	now = bpf_ktime_get_ns();
	for (int i = 0; i < SHAPE_TRIES; i++) {
		old = *(volatile __u64 *)&s->used;
		from = old > now ? old : now;
		if (from - now > s->limit)
			return false;
		if (__sync_val_compare_and_swap(&s->used, old, from + cost) == old)
			return true;
	}
	__sync_fetch_and_add(&s->used, cost); /* others were quicker each time, and each was let through */
	return true;
}

static __always_inline struct shape *shape_of(const struct __sk_buff *skb, __u32 direction)
{
	struct shape_key k = {.ifindex = skb->ifindex, .direction = direction};

	return bpf_map_lookup_elem(&shape, &k);
}

static __always_inline int shape_drop(struct __sk_buff *skb, const struct shape *s, __u32 direction)
{
	struct pkt p = {.len = skb->len, .direction = direction, .port_id = s->port_id};

	load(skb, 0, &p.eth, sizeof(p.eth));
	return finish(skb, &p, V_BANDWIDTH_LIMITED);
}

/* What a guest sends, before anything else looks at it. It goes round by the shaper, and comes
 * back to from_port with the port's device as its mark. */
static __always_inline int shape_outbound(struct __sk_buff *skb)
{
	const struct shaper *way = shaper_devices();
	struct shape *s = shape_of(skb, OUTBOUND);

	if (!s)
		return TC_ACT_UNSPEC;
	if (!shape_admits(skb, s))
		return shape_drop(skb, s, OUTBOUND);
	if (!way || !way->entry || !s->class)
		return TC_ACT_UNSPEC;
	skb->mark = skb->ifindex;
	skb->priority = s->class;
	return bpf_redirect(way->entry, 0);
}

/* What a guest is to get: the device's own queue comes next. */
static __always_inline int shape_inbound(struct __sk_buff *skb)
{
	struct shape *s = shape_of(skb, INBOUND);

	if (!s || shape_admits(skb, s))
		return TC_ACT_UNSPEC;
	return shape_drop(skb, s, INBOUND);
}

#endif
