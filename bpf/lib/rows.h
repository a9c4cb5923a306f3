/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_ROWS_H
#define WEFT_LIB_ROWS_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "maps/port.h"
#include "wire/ethernet.h"

/* A hash map gives the memory of a replaced or deleted row to the next row at once, while
 * a program may still be reading it: a packet that began with one tenant's port would go on
 * with another's. A row is written from its start; so if, after all that was read of it, it
 * still begins as it must, then everything was read of the right one. */

static __always_inline bool rows_sender(const struct __sk_buff *skb, const struct pkt *p)
{
	/* volatile: clang would choose between two addresses, which the verifier does not allow */
	__u32 device = *(const volatile __u32 *)&skb->ifindex, mark = *(const volatile __u32 *)&skb->mark;

	return !p->port || p->port->ifindex == (p->shaped ? mark : device);
}

static __always_inline bool rows_receiver(const struct pkt *p)
{
	const struct port *to = p->dport;

	if (!to)
		return true;
	if (to->ifindex != p->out || to->vsid != p->vsid)
		return false;
	return p->direction == OUTBOUND || same_mac(to->mac, p->eth.dst);
}

/* The verdict, unless a row went away under it: then the packet came too late for its port. */
static __always_inline enum verdict rows_checked(const struct __sk_buff *skb, struct pkt *p, enum verdict v)
{
	barrier();
	if (p->action == ACT_NONE)
		return v;
	if (!rows_sender(skb, p)) {
		p->action = ACT_NONE;
		p->port_id = 0;
		return V_PORT_UNKNOWN;
	}
	if (v != V_DELIVERED || rows_receiver(p))
		return v;
	p->action = ACT_NONE;
	if (p->direction == OUTBOUND)
		return V_PORT_DOWN;
	p->port_id = 0;
	return V_NOT_LOCAL;
}

#endif
