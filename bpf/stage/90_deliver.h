/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_DELIVER_H
#define WEFT_STAGE_DELIVER_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "maps/port.h"
#include "wire/ethernet.h"

/* Hand to a port of this host. */

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
