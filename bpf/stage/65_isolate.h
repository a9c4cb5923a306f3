/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_ISOLATE_H
#define WEFT_STAGE_ISOLATE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "lib/isolation.h"
#include "maps/port.h"
#include "maps/record.h"

/* Keep ports of a subnet apart that are isolated, or of another community. */

/* Who speaks for others does not bring those together that are kept apart. */
static __noinline bool isolate_source(const struct pkt *p)
{
	const struct record *from = record_find(p->vsid, &p->src);

	return from && p->rec && isolate_apart(from->isolation, p->rec->isolation) && !(from->flags & RECORD_ROUTER);
}

static __always_inline enum verdict isolate(const struct pkt *p)
{
	const struct port *port = p->port;

	if (p->vsid == port->vsid && isolate_apart(port->isolation, p->rec->isolation))
		return V_ISOLATED;
	if (port->flags & (PORT_FORWARD | PORT_SPOOF) && isolate_source(p))
		return V_ISOLATED;
	return V_CONTINUE;
}

#endif
