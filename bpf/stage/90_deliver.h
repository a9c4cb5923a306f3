/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_DELIVER_H
#define WEFT_STAGE_DELIVER_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "lib/learn.h"
#include "maps/port.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* Hand to a port of this host. */

/* The size of the IP packet that arrived; of a GSO packet, the largest that it will be cut into. */
static __always_inline __u32 fit_size(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 l3 = p->l4 - p->base - sizeof(struct eth), l4 = 0;
	__u8 offset;

	if (!skb->gso_size && p->rewrite)
		return p->l3_len; /* what trailed is cut */
	if (!skb->gso_size || p->type == TYPE_ARP)
		return p->end - p->base - sizeof(struct eth);
	if (p->proto == PROTO_UDP)
		l4 = 8;
	if (p->proto == PROTO_TCP && load(skb, p->l4 + 12, &offset, sizeof(offset)))
		l4 = (offset >> 4) * 4;
	return l3 + l4 + skb->gso_size;
}

/* What has arrived must be no larger than the port takes. The agent tells the sender. */
static __always_inline enum verdict fit(struct __sk_buff *skb, const struct pkt *p)
{
	if (fit_size(skb, p) <= p->dport->mtu)
		return V_CONTINUE;
	learn_too_big(skb, p);
	return V_TOO_BIG;
}

static __always_inline enum verdict deliver(struct pkt *p)
{
	/* ARP that was stripped of an IP header still has skb->protocol IP, and only the
	 * transmission over the device corrects that. */
	int by_device = (p->stripped && p->type == TYPE_ARP) || p->shaped; /* nobody is received at egress */

	if (p->detour) {
		p->action = ACT_DETOUR;
		return V_DELIVERED;
	}
	if (p->merge) {
		p->action = ACT_MERGE;
		return V_DELIVERED;
	}
	p->action = p->dport->flags & PORT_PEER && !by_device ? ACT_PEER : ACT_PORT;
	return V_DELIVERED;
}

#endif
