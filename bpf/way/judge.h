/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WAY_JUDGE_H
#define WEFT_WAY_JUDGE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lib/classify.h"
#include "lib/connection.h"
#include "lib/observe.h"
#include "maps/query.h"

/* What the rules of a port say of a packet on the short way: of a connection that they have allowed, or of the first packet of one like
 * which they have allowed others. All else is for the walk, and nothing has been done about it. */

/* Beside CONN_NEW and so on. */
#define JUDGE_ALLOWED 16
#define JUDGE_COUNTS 32 /* for the rules that its connection is counted by: nobody else does */

static __always_inline __u32 judge_follows(struct query *q)
{
	if (q->held.version != q->version || q->held.third == CONN_MANY)
		return 0;
	q->idle = q->held.idle;
	return JUDGE_ALLOWED | JUDGE_COUNTS | conn_changes(q);
}

static __always_inline __u32 judge_first(struct query *q)
{
	const struct judged *j;

	q->local[0] = q->key[0];
	q->local[1] = q->key[1];
	q->remote[0] = q->key[2];
	q->remote[1] = q->key[3];
	q->local4 = q->key[1];
	q->remote4 = q->key[3];
	q->ip = 1;
	q->denied = 0;
	q->sampled = 0;
	q->opener = RULE_NONE;
	q->held.seen = -CONN_SLACK; /* it is not known for any time */
	q->held.inbound = q->inbound;
	if (q->set) {
		j = classify_like(q);
		if (!j || j->denied)
			return 0;
		judged_again(q, j);
	}
	flow_note(q);
	return JUDGE_ALLOWED | (q->opener == RULE_NONE ? 0 : CONN_NEW);
}

/* One global function, which the verifier walks by itself: each call more would cost a packet as much as a lookup. */
__noinline int judge(struct query *q)
{
	struct conn_bucket *b = q ? conn_find(q) : NULL;
	__u32 how, *counts;

	if (!b)
		return false;
	how = conn_touch(conn_held(b, q), q) ? judge_follows(q) : judge_first(q);
	if (how & (CONN_NEW | CONN_SAME))
		conn_note(b, q, q->held.inbound, how);
	counts = q->counts[q->inbound & 1];
	conn_rules(q, counts);
	if (how & JUDGE_COUNTS)
		rules_count(counts, q->len);
	else if (q->held.third == CONN_MANY)
		q->held.seen = -CONN_SLACK; /* each packet is judged */
	return how & JUDGE_ALLOWED;
}

#endif
