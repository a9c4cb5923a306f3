/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_SHARE_H
#define WEFT_LIB_SHARE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "maps/share.h"

/* Minimum bandwidth: a packet's priority names its port's class, and what leaves by an uplink goes round by a
 * queue that gives each class its share. Hosts without such ports have none of these programs: docs/adr/0047. */

#define SHARE_MAJOR 0x7767
#define SHARE_OTHERS (SHARE_MAJOR << 16 | 2) /* what came by some device, of no such port */
#define SHARE_WAITED 0x7767                  /* tc_index of what comes from the queue */

static __always_inline __u32 share_class(__u32 ifindex)
{
	const struct share *s = bpf_map_lookup_elem(&share, &ifindex);

	return s ? s->class : 0;
}

static __always_inline bool share_is_ours(const struct __sk_buff *skb)
{
	return skb->priority >> 16 == SHARE_MAJOR;
}

/* What leaves by an uplink. The host's own packets keep their priority, and are what the queue takes those to be that name no class. */
static __always_inline int share_enter(struct __sk_buff *skb, const struct turn *t)
{
	if (skb->ingress_ifindex && !share_is_ours(skb))
		skb->priority = SHARE_OTHERS;
	return bpf_redirect(t->to, 0);
}

static __always_inline int share_leave(struct __sk_buff *skb, const struct turn *t)
{
	if (share_is_ours(skb))
		skb->priority = 0;
	skb->tc_index = SHARE_WAITED;
	return bpf_redirect(t->to, 0);
}

static __always_inline int share_take_turn(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	const struct turn *t;

	if (skb->tc_index == SHARE_WAITED) {
		skb->tc_index = 0;
		return TC_ACT_UNSPEC;
	}
	t = bpf_map_lookup_elem(&turn, &ifindex);
	if (!t)
		return TC_ACT_UNSPEC;
	return t->waited ? share_leave(skb, t) : share_enter(skb, t);
}

#endif
