/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_ISOLATION_H
#define WEFT_LIB_ISOLATION_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "maps/isolation.h"
#include "maps/port.h"
#include "maps/record.h"
#include "wire/ethernet.h"

/* Whom a port reaches within its subnet: docs/design/pipeline.md, 65. */

/* Ports that are all of the same community, as where nothing is isolated, cost one comparison. */
static __always_inline bool isolate_apart(__u32 a, __u32 b)
{
	if (a == b)
		return a == ISOLATION_ISOLATED;
	return a != ISOLATION_PROMISCUOUS && b != ISOLATION_PROMISCUOUS;
}

/* Whether a record of the port's own subnet is not for it to reach. */
static __always_inline bool isolate_hides(const struct port *port, const struct record *r)
{
	return !(r->flags & RECORD_ROUTER) && isolate_apart(port->isolation, r->isolation);
}

/* The isolation of a port of another host, by its MAC. */
static __noinline __u32 isolate_by_mac(const struct pkt *p)
{
	struct isolation_key k = {.vsid = p->vsid};
	const __u32 *found;

	__builtin_memcpy(k.mac, p->eth.src, MAC_LEN);
	found = bpf_map_lookup_elem(&isolation, &k);
	return found ? *found : 0;
}

/* The same, of what the underlay brought; r is the record of its source. */
static __noinline bool isolate_stranger(const struct pkt *p)
{
	__u8 router[MAC_LEN];

	router_mac(router, p->vsid);
	if (same_mac(p->eth.src, router))
		return false; /* routed: it is from another subnet */
	return isolate_apart(isolate_by_mac(p), p->dport->isolation);
}

static __always_inline enum verdict isolate_remote(const struct pkt *p, const struct record *r)
{
	if (r ? isolate_apart(r->isolation, p->dport->isolation) : isolate_stranger(p))
		return V_ISOLATED;
	return V_CONTINUE;
}

#endif
