/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_FORGET_H
#define WEFT_LIB_FORGET_H

#include "lib/ctx.h"

/* The verifier walks what follows once for each thing that it knows of a packet. There are
 * hundreds of ways through parse, and what they have left in pkt no later stage needs to
 * be proved. A global function might have written anything, so behind a call of one they
 * are all the same. It costs a call. */
__noinline int forget(struct pkt *p)
{
	asm volatile("" : : "r"(p) : "memory"); /* else clang takes the call away */
	return 0;
}

/* What a stage has left behind: what points to rows stays known. */
static __always_inline int settled(struct pkt *p, int v)
{
	const struct port *port = p->port, *dport = p->dport;
	const struct record *rec = p->rec;
	const struct peer *peer = p->peer;

	if (v)
		return v;
	forget(p);
	p->port = port;
	p->dport = dport;
	p->rec = rec;
	p->peer = peer;
	return 0;
}

#endif
