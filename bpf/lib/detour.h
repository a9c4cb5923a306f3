/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_DETOUR_H
#define WEFT_LIB_DETOUR_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lib/ctx.h"
#include "maps/detour.h"
#include "maps/port.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* The detour for decapsulation. Without ADJ_ROOM_DECAP_L4_GRE a stripped super-packet still
 * counts as a tunnel's, and a tap gets it cut to pieces. So it goes once through a part of the
 * kernel that forgets the tunnel: dx2.h, vxdev.h, or gro.h. A host has one at most. All TCP to such
 * a port goes this way, whole or not: what did not would overtake it. */

static __always_inline struct detour *detour_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&detour, &zero);
}

/* Two ways lead through the host's own stack, where a packet filter, a lost route or IPv6
 * switched off on the underlay device would swallow it. What was sent comes back on the same
 * CPU, so each CPU sends one packet and waits; when that has come back it sends all, until
 * many in a row stay away. Where the detour is broken a tap gets pieces, as without it. */
static __always_inline const struct detour *detour_wanted(const struct pkt *p)
{
	const struct detour *d;

	if (p->proto != PROTO_TCP || p->type == TYPE_ARP)
		return NULL;
	/* A veth takes what counts as a tunnel's; but whoever sends it on puts it into one. */
	if ((p->dport->flags & (PORT_PEER | PORT_FORWARD)) == PORT_PEER)
		return NULL;
	d = detour_state();
	if (!d || !d->ifindex || d->lost >= (d->proven ? DETOUR_MAX_LOST : 1))
		return NULL;
	return d->by == DETOUR_VXLAN && !p->vxlan ? NULL : d;
}

static __always_inline void detour_sent(struct pkt *p)
{
	struct detour *d = detour_state();

	if (d)
		d->lost++;
	p->detour = 1;
}

static __always_inline void detour_came(void)
{
	struct detour *d = detour_state();

	if (!d)
		return;
	d->lost = 0;
	d->proven = 1;
}

#endif
