/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_GRO_H
#define WEFT_LIB_GRO_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/ctx.h"
#include "lib/detour.h"
#include "maps/port.h"

/* The detour through a veth pair of this host. Its sending end cuts super-packets, its receiving
 * end merges the pieces again, and what GRO makes has no tunnel's GSO state. GRO merges only what has the same VLAN
 * tag, so that says which port a packet is for, and tenants stay apart; the mark says it, too, and from_gro
 * believes neither without the other. */

#define GRO_TAGS 0x10000 /* of one VLAN protocol */

/* Ports that the tags of both protocols suffice for. */
static __always_inline bool gro_reaches(__u32 slot)
{
	return slot < 2 * GRO_TAGS;
}

static __always_inline __be16 gro_proto(__u32 slot)
{
	return slot < GRO_TAGS ? bpf_htons(TYPE_VLAN) : bpf_htons(TYPE_QINQ);
}

static __always_inline int gro_send(struct __sk_buff *skb, const struct pkt *p)
{
	const struct detour *d = detour_state();

	if (!d || !p->dport || bpf_skb_vlan_push(skb, gro_proto(p->dport->slot), p->dport->slot % GRO_TAGS))
		return TC_ACT_SHOT;
	skb->mark = p->out;
	return bpf_redirect(d->ifindex, 0);
}

/* The port's device; 0: the frame is none of the switch's. */
static __always_inline __u32 gro_arrive(struct __sk_buff *skb)
{
	__u32 ifindex = skb->mark;
	const struct port *to = bpf_map_lookup_elem(&port, &ifindex);

	if (!to || !skb->vlan_present || skb->vlan_proto != gro_proto(to->slot) || skb->vlan_tci != to->slot % GRO_TAGS)
		return 0;
	return bpf_skb_vlan_pop(skb) ? 0 : ifindex;
}

#endif
