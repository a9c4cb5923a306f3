/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_OBSERVE_H
#define WEFT_LIB_OBSERVE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lib/config.h"
#include "maps/connection.h"
#include "maps/flow.h"
#include "maps/query.h"
#include "wire/ip.h"

/* Notes which flows there are, for those who want to try rules on them. */

#define FLOW_INTERVAL_NS 10000000ull /* between two flows that are told of one port, in the long run */
#define FLOW_BURST_NS 2000000000ull  /* what may come at once, in the same measure */

#define FLOW_PASSING 32768 /* ports from here on are had for a while */

/* The ports that name the flow: not the one that its side has for a while only. As in internal/agent/flow.go. */
static __always_inline __u32 flow_ports(const struct query *q)
{
	__u32 local = q->local_port & 0xffff, remote = q->remote_port & 0xffff;
	bool local_passes = local >= FLOW_PASSING, remote_passes = remote >= FLOW_PASSING;

	if (q->proto != PROTO_TCP && q->proto != PROTO_UDP)
		return remote; /* a type and a code */
	if (local_passes == remote_passes)
		return local << 16 | remote; /* nobody can tell */
	return (local_passes ? 0 : local << 16) | (remote_passes ? 0 : remote);
}

/* One after the other, through memory: the stack has no room for all at once. */
#define flow_add(q, s, n, x)                                                                                           \
	do {                                                                                                           \
		__u64 part = (x);                                                                                      \
                                                                                                                       \
		(q)->flow += (part ^ part >> 32) * (s)->factor[n];                                                     \
		asm volatile("" : "+r"(q), "+r"(s) : : "memory");                                                      \
	} while (0)

static __always_inline __u64 flow_id(const struct conn_secret *s, struct query *q)
{
	__u64 h;

	q->flow = s->factor[5];
	flow_add(q, s, 0, q->local[0]);
	flow_add(q, s, 1, q->local[1]);
	flow_add(q, s, 2, q->remote[0]);
	flow_add(q, s, 3, q->remote[1]);
	h = q->flow + ((__u64)q->port_id << 32 | flow_ports(q)) * s->factor[4];
	h ^= h >> 29;
	h ^= (q->remote_port >> 16) | (__u64)q->inbound << 16 | (__u64)(q->denied != 0) << 17;
	return (h * 0x9e3779b97f4a7c15) | 1;
}

/* Tells of a flow. False: not now. */
static __noinline bool flow_tell(const struct query *q, __u32 packets)
{
	__u32 slot = q->slot;
	struct flow_pace *p = bpf_map_lookup_elem(&flow_pace, &slot);
	struct flow *f;

	if (!p)
		return false;
	if (p->used > q->now + FLOW_BURST_NS)
		return false;
	f = bpf_ringbuf_reserve(&flow, sizeof(*f), 0);
	if (!f)
		return false;
	p->used = (p->used > q->now ? p->used : q->now) + FLOW_INTERVAL_NS;
	f->id = q->flow;
	f->packets = packets;
	f->remote[0] = q->remote[0];
	f->remote[1] = q->remote[1];
	f->local[0] = q->local[0];
	f->local[1] = q->local[1];
	f->remote_mac = q->remote_mac;
	f->local_mac = q->local_mac;
	f->remote_port = q->remote_port;
	f->local_port = q->local_port;
	f->port_id = q->port_id;
	f->len = q->len;
	f->is6 = q->is6;
	f->inbound = q->inbound;
	f->denied = q->denied != 0;
	f->sampled = q->sampled;
	f->zero = 0;
	bpf_ringbuf_submit(f, 0);
	return true;
}

/* Another flow takes the place. */
static __noinline int flow_replace(const struct query *q, struct flow_seen *seen)
{
	__u32 slot = seen->slot;
	struct flow_pace *p = bpf_map_lookup_elem(&flow_pace, &slot);

	if (p && seen->packets)
		__sync_fetch_and_add(&p->missed, seen->packets);
	seen->id = q->flow;
	seen->turn = (__u32)(q->now >> FLOW_TURN) - 1;
	seen->packets = 0;
	seen->slot = q->slot;
	return 0;
}

/* The packet of q has been seen. What it needs is kept in q: the stack is full. */
static __always_inline void flow_note(struct query *q)
{
	__u32 zero = 0, at;
	const struct conn_secret *s = bpf_map_lookup_elem(&conn_secret, &zero);
	struct flow_seen *seen;

	if (!s || event_interval == ~0ull) /* a trace is no packet */
		return;
	q->flow = flow_id(s, q);
	if (!q->now) /* connections have not asked */
		q->now = bpf_ktime_get_coarse_ns();
	at = q->flow >> (64 - FLOW_SEEN_BITS);
	seen = bpf_map_lookup_elem(&flow_seen, &at);
	if (!seen)
		return;
	if (seen->id != q->flow)
		flow_replace(q, seen);
	seen->packets++;
	if (seen->turn == (__u32)(q->now >> FLOW_TURN) || !flow_tell(q, seen->packets))
		return;
	seen->turn = q->now >> FLOW_TURN;
	seen->packets = 0;
}

/* The same as a global function: the verifier walks it once, by itself. */
__noinline int observe(struct query *q)
{
	if (q)
		flow_note(q);
	return 0;
}

#endif
