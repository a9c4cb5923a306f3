/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_ROUTE_H
#define WEFT_STAGE_ROUTE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "lib/icmp.h"
#include "lib/learn.h"
#include "maps/port.h"
#include "maps/record.h"
#include "maps/route.h"
#include "wire/ethernet.h"

/* Choose the subnet and the next hop inside the routing domain; TTL. */

static __always_inline enum verdict route_destination(const struct pkt *p)
{
	if (p->type == TYPE_IPV4) {
		__u32 dst = bpf_ntohl(p->dst.w[3]);

		if (dst >> 28 == 0xe || dst == 0xffffffff)
			return V_MULTICAST;
		return dst >> 24 == 0 || dst >> 24 == 127 ? V_IP_MALFORMED : V_CONTINUE;
	}
	if (addr6_multicast(&p->dst))
		return V_MULTICAST;
	if (p->dst.d[0] == 0 && p->dst.w[2] == 0 && (p->dst.w[3] & ~bpf_htonl(1)) == 0)
		return V_IP_MALFORMED; /* :: and ::1 */
	return addr6_link_local(&p->dst) ? V_LINK_LOCAL : V_CONTINUE;
}

/* What a DHCP server says to a client that has no address yet goes by the client's MAC. */
static __always_inline const struct record *route_lease(const struct pkt *p)
{
	if (p->vsid != p->port->vsid || !learn_is_lease(p->type, p->proto, learn_ports(p)))
		return NULL;
	return record_l2only(p->vsid, p->eth.dst);
}

/* Takes the route to its next hop's record. */
static __always_inline void route_take(struct pkt *p, const struct route *to)
{
	p->vsid = to->vsid;
	p->hop = p->dst;
	if (!(to->flags & ROUTE_ON_LINK))
		__builtin_memcpy(&p->hop, &to->next_hop, sizeof(p->hop));
	p->rec = record_find(p->vsid, &p->hop);
	if (!p->rec && to->flags & ROUTE_ON_LINK)
		p->rec = route_lease(p);
	if (!p->rec)
		p->rec = record_wildcard(p->vsid, p->type == TYPE_IPV4);
}

static __always_inline const struct route *route_direct(const struct pkt *p)
{
	return route_find(p->port->network | ROUTE_DIRECT, p->type == TYPE_IPV4 ? 4 : 6, &p->dst);
}

/* The guest is what the route leads through: behind it, the packet goes where it is on-link. */
static __noinline void route_behind(struct pkt *p)
{
	const struct route *to = route_direct(p);

	if (to)
		route_take(p, to);
}

/* The route out of the port's subnet. What is on-link there is so also where external routers lead out of it. */
static __always_inline const struct route *route_choose(const struct pkt *p)
{
	const struct route *to;

	if (p->port->flags & PORT_EXTERNAL) {
		to = route_direct(p);
		if (to && to->vsid == p->port->vsid)
			return to;
	}
	return route_find(p->port->network, p->type == TYPE_IPV4 ? 4 : 6, &p->dst);
}

static __always_inline enum verdict route_next_hop(struct pkt *p)
{
	const struct route *to;

	p->vsid = p->port->vsid;
	p->hop = p->dst;
	p->rec = record_find(p->vsid, &p->dst);
	if (p->rec)
		return V_CONTINUE;
	to = route_choose(p);
	if (!to)
		return V_NO_ROUTE;
	route_take(p, to);
	if (p->rec && p->port->flags & PORT_FORWARD && p->rec->ifindex == p->port->ifindex && !(to->flags & ROUTE_ON_LINK))
		route_behind(p);
	return p->rec ? V_CONTINUE : V_NO_RECORD;
}

static __always_inline enum verdict route_packet(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v;

	if (p->type == TYPE_ARP)
		return V_CONTINUE;
	v = route_destination(p);
	if (v)
		return v;
	v = route_next_hop(p);
	if (v || p->vsid == p->port->vsid)
		return v;
	p->routed = 1;
	if (p->ttl > 1 || (p->rec->flags & RECORD_ROUTER && same_addr(&p->hop, &p->dst)))
		return V_CONTINUE;
	icmp_error(skb, p, false, 0);
	return V_TTL_EXCEEDED;
}

#endif
