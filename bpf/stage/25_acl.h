/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_ACL_H
#define WEFT_STAGE_ACL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/acl.h"
#include "lib/ctx.h"
#include "maps/port.h"
#include "maps/query.h"

/* Judge by the rules of a port: what its guest sends, and what it is to get. */

/* Whether the short way has asked the sender's rules, which let the packet through. An older from_port, during an update, leaves
 * anything there. */
static __always_inline bool acl_asked(struct __sk_buff *skb)
{
	bool asked = skb->cb[2] == ACL_ASKED;

	skb->cb[2] = 0;
	return asked;
}

/* What a guest sends, once admit lets it: before respond, so that it is asked of ARP and ND too, and also of what
 * flood may make of a DHCP client's search. */
static __always_inline enum verdict acl_outbound(struct __sk_buff *skb, const struct pkt *p, enum verdict v)
{
	struct query *q;

	if (acl_asked(skb))
		return v;
	if ((v && v != V_MULTICAST) || !(p->port->flags & PORT_RULES))
		return v;
	q = query_room();
	if (!q)
		return V_ACL_DENIED;
	q->local_mac = acl_mac(p->eth.src);
	q->remote_mac = acl_mac(p->eth.dst);
	return acl_judge(skb, p, q, p->port, 0, &p->src, &p->dst) ?: v;
}

/* From another port of this host: as encap will make it. The drop is the receiver's. */
static __always_inline enum verdict acl_local(struct __sk_buff *skb, struct pkt *p)
{
	struct query *q;

	if (!p->dport || !(p->dport->flags & PORT_RULES))
		return V_CONTINUE;
	q = query_room();
	if (!q)
		return V_ACL_DENIED;
	q->remote_mac = p->routed ? ROUTER_MAC | p->vsid : acl_mac(p->eth.src);
	q->local_mac = acl_mac(p->rec->mac);
	if (!acl_judge(skb, p, q, p->dport, ACL_INBOUND, &p->src, &p->dst))
		return V_CONTINUE;
	p->direction = INBOUND;
	p->port_id = p->dport->id;
	return V_ACL_DENIED;
}

#endif
