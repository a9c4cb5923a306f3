/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_UNDERLAY_H
#define WEFT_STAGE_UNDERLAY_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "maps/peer.h"

/* Send toward the Provider Address. */

static __always_inline enum verdict underlay(struct pkt *p)
{
	if (!p->peer)
		return V_CONTINUE;
	p->out = p->peer->ifindex;
	/* A bare frame carries its addresses already. (The kernel's neighbour code goes by
	 * skb->protocol, which is wrong for those that had to be bare.) */
	p->action = p->bare ? ACT_DEVICE : ACT_NEIGHBOUR;
	return V_ENCAPSULATED;
}

#endif
