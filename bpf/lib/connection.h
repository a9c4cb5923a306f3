/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_CONNECTION_H
#define WEFT_LIB_CONNECTION_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/classify.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "maps/connection.h"
#include "maps/query.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Packets of a connection that rules have allowed need not be searched for in the rules:
 * docs/design/acl.md, "Connections". Readers take no lock: a way is emptied before it changes,
 * and whoever read it looks afterwards whether it still is what it was. */

#define CONN_USED (1ull << 63)
#define CONN_FRAGMENT (1ull << 62)
#define CONN_INBOUND (1ull << 61) /* of a fragment alone */
#define CONN_IS6 (1ull << 60)

#define CONN_SLACK (1ull << 27) /* ns */
#define CONN_FRAGMENT_IDLE 30   /* s */
#define CONN_SECOND 1000000000ull

#define CONN_TRIES 64 /* to be the only one at a bucket; then nothing is noted, and the next packet is judged again */

static __always_inline __u64 conn_now(const struct conn_secret *s)
{
	if (rehearse && s->now)
		return s->now;
	return bpf_ktime_get_coarse_ns();
}

static __always_inline __u64 conn_hash(const struct conn_secret *s, const __u64 *key)
{
	__u64 h = s->factor[5];

#pragma clang loop unroll(full)
	for (int i = 0; i < 5; i++)
		h += (key[i] ^ key[i] >> 32) * s->factor[i];
	h ^= h >> 29;
	return h * 0x9e3779b97f4a7c15;
}

static __always_inline bool conn_same(const struct connection *c, const __u64 *key)
{
	return c->key[4] == key[4] && c->key[0] == key[0] && c->key[1] == key[1] && c->key[2] == key[2] && c->key[3] == key[3];
}

static __always_inline bool conn_expired(const struct connection *c, __u64 now)
{
	return (__s64)(now - c->seen) > (__s64)(c->idle * CONN_SECOND + CONN_SLACK);
}

/* The way of a key in its bucket; CONN_WAYS: it has none. Two keys with one tag are as good as never. */
static __always_inline __u32 conn_way(const struct conn_bucket *b, __u32 tag, const __u64 *key)
{
	__u32 found = 0, i;

#pragma clang loop unroll(full)
	for (int w = 0; w < CONN_WAYS; w++)
		found |= (__u32)(((__u64)(b->tag[w] ^ tag) - 1) >> 63) << w; /* no branch: the verifier would walk them all */
	if (!found)
		return CONN_WAYS;
	i = count_bits((found & -found) - 1);
	if (i >= CONN_WAYS || !conn_same(&b->way[i], key))
		return CONN_WAYS;
	return i;
}

/* The bucket of q->key, with q->way its way there. Null: the port has no table. */
static __always_inline struct conn_bucket *conn_find(struct query *q)
{
	__u32 at = 0;
	const struct conn_secret *s = bpf_map_lookup_elem(&conn_secret, &at);
	const struct conn_port *port;
	struct conn_bucket *b;
	void *table;
	__u64 h;

	at = q->slot;
	port = bpf_map_lookup_elem(&conn_port, &at);
	table = bpf_map_lookup_elem(&connection, &at);
	if (!s || !port || !table)
		return NULL;
	h = conn_hash(s, q->key);
	at = h >> 32 & (port->buckets - 1);
	b = bpf_map_lookup_elem(table, &at);
	if (!b)
		return NULL;
	q->now = conn_now(s);
	q->tag = (__u32)h | 1;
	q->way = conn_way(b, q->tag, q->key);
	return b;
}

/* Copies the connection that conn_find has found into q->held. Null: nothing that is still good. */
static __always_inline struct connection *conn_held(struct conn_bucket *b, struct query *q)
{
	struct connection *c;
	__u32 i = q->way;

	if (i >= CONN_WAYS)
		return NULL;
	c = &b->way[i];
	q->held.seen = c->seen;
	q->held.rule = c->rule;
	q->held.version = c->version;
	q->held.terms = c->terms;
	barrier();
	return conn_same(c, q->key) && b->tag[i] == q->tag && !conn_expired(&q->held, q->now) ? c : NULL;
}

/* Looks q->key up. */
static __always_inline struct connection *conn_read(struct query *q)
{
	struct conn_bucket *b = conn_find(q);

	return b ? conn_held(b, q) : NULL;
}

/* The same as a global function, as are others here: the verifier walks each once. */
__noinline int conn_look(struct query *q)
{
	return q && conn_read(q);
}

/* And with that the connection has been seen. */
static __always_inline bool conn_touch(struct connection *c, struct query *q)
{
	if (!c)
		return false;
	if (q->now - c->seen >= CONN_SLACK)
		c->seen = q->held.seen = q->now;
	return true;
}

__noinline int conn_see(struct query *q)
{
	return q && conn_touch(conn_read(q), q);
}

/* A global function, else what follows would be walked for each try. */
__noinline int conn_wait(struct conn_bucket *b)
{
	if (!b)
		return false;
	for (int i = 0; i < CONN_TRIES; i++)
		if (!__sync_val_compare_and_swap(&b->busy, 0, 1))
			return true;
	return false;
}

static __always_inline bool conn_lock(struct conn_bucket *b)
{
	return !__sync_val_compare_and_swap(&b->busy, 0, 1) || conn_wait(b);
}

static __always_inline void conn_unlock(struct conn_bucket *b)
{
	__sync_lock_test_and_set(&b->busy, 0);
}

#define CONN_EMPTY (1ull << 62) /* longer than any is idle */
#define CONN_OLD (1ull << 61)

/* The way to take for another one, from first to last: an empty one, or that of the longest idle. What is chosen is
 * kept where the verifier does not follow it: it would walk the rest of the ways once for each choice. */
static __always_inline __u32 conn_choose(const struct conn_bucket *b, struct query *q, __u32 first, __u32 last)
{
	__u32 slot = q->slot;
	__u64 now = q->now;
	struct conn_port *port;

	q->most = 0;
	q->way = first;
#pragma clang loop unroll(disable)
	for (__u32 w = first; w < last && w < CONN_WAYS; w++) {
		__u64 age = now - b->way[w].seen + 1;

		if (!b->tag[w])
			age = CONN_EMPTY;
		else if (conn_expired(&b->way[w], now))
			age = CONN_OLD;
		if ((__s64)age > (__s64)q->most) { /* one that another CPU has put just now may be below 0 */
			q->most = age;
			q->way = w;
		}
		barrier();
	}
	port = bpf_map_lookup_elem(&conn_port, &slot);
	if (port && q->most < CONN_OLD)
		__sync_fetch_and_add(&port->lost[first != 0], 1);
	return q->way;
}

/* Which rules count what is held: of q->hit those that there is room for, the opener first. If there are more, the opener. */
static __always_inline void conn_counting(struct query *q)
{
	__u64 others = 0, at = 0;
	bool first = false;

	q->held.rule = RULE_NONE;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < JUDGED_HITS; i++) {
		__u32 n = q->hit[i] & ~RULE_LOGS;

		if (i >= q->hits)
			break;
		if (!first && (n == q->opener || q->opener == RULE_NONE)) {
			q->held.rule = n;
			first = true;
			continue;
		}
		others |= (__u64)(n + 1) << at;
		at += 20;
	}
	q->held.second = others;
	q->held.third = others >> 20;
	if (q->hits <= JUDGED_HITS && at <= 40)
		return;
	q->held.rule = q->opener;
	q->held.second = 0;
	q->held.third = CONN_MANY;
}

#define CONN_NEW 1       /* it is seen now */
#define CONN_CONFIRMED 2
#define CONN_ANSWERED 4
#define CONN_SAME 8 /* the rules that count it are those that are held */

/* Puts what q says into the bucket of q->key, in the place of another with the same key. */
static __always_inline void conn_note(struct conn_bucket *b, struct query *q, __u32 inbound, __u32 how)
{
	bool confirmed = how & CONN_CONFIRMED;
	__u32 was, w;

	if (!conn_lock(b))
		return;
	for (int i = 0; i < 5; i++)
		q->held.key[i] = q->key[i];
	if (how & CONN_NEW) {
		q->held.seen = q->now;
		q->held.answered = 0;
	}
	if (!(how & CONN_SAME))
		conn_counting(q);
	barrier();
	q->held.version = q->version;
	q->held.idle = q->idle;
	q->held.inbound = inbound;
	barrier();
	was = conn_way(b, q->tag, q->key);
	w = was;
	if (w >= CONN_WAYS || confirmed != (w >= CONN_HALF))
		w = confirmed ? conn_choose(b, q, CONN_HALF, CONN_WAYS) : conn_choose(b, q, 0, CONN_HALF);
	if (w < CONN_WAYS) {
		if (w != was)
			b->tag[w] = 0; /* else nothing changes that tells them apart, and nobody may miss it meanwhile */
		barrier();
		b->way[w] = q->held;
		barrier();
		b->tag[w] = q->tag;
	}
	if (was < CONN_WAYS && was != w) {
		barrier();
		b->tag[was] = 0; /* whoever looks finds one of the two */
	}
	conn_unlock(b);
}

__noinline int conn_put(struct query *q, __u32 inbound, __u32 how)
{
	struct conn_bucket *b = q ? conn_find(q) : NULL;

	if (b)
		conn_note(b, q, inbound, how);
	return 0;
}

__noinline int conn_forget(struct query *q)
{
	struct conn_bucket *b = q ? conn_find(q) : NULL;
	__u32 w;

	if (!b || !conn_lock(b))
		return 0;
	w = conn_way(b, q->tag, q->key);
	if (w < CONN_WAYS)
		b->tag[w] = 0;
	conn_unlock(b);
	return 0;
}

static __always_inline __u64 conn_word_of(bool is6, __u8 proto, __u32 local_port, __u32 remote_port)
{
	return CONN_USED | (is6 ? CONN_IS6 : 0) | (__u64)proto << 32 | local_port << 16 | remote_port;
}

static __always_inline void conn_key_of(struct query *q)
{
	q->key[0] = q->local[0];
	q->key[1] = q->local[1];
	q->key[2] = q->remote[0];
	q->key[3] = q->remote[1];
	q->key[4] = conn_word_of(q->is6, q->proto, 0, 0);
}

static __always_inline bool conn_is_icmp(const struct query *q, __u8 proto)
{
	return proto == (q->is6 ? PROTO_ICMPV6 : PROTO_ICMP);
}

static __always_inline bool conn_is_echo(const struct query *q, __u8 type)
{
	if (q->is6)
		return type == ICMPV6_ECHO || type == ICMPV6_ECHO_REPLY;
	return type == ICMP_ECHO || type == ICMP_ECHO_REPLY;
}

/* The key of the connection that the packet belongs to or may begin. False: to none. */
static __always_inline bool conn_key(struct __sk_buff *skb, struct query *q)
{
	conn_key_of(q);
	if (conn_is_icmp(q, q->proto)) {
		if (q->later || q->l4_len < sizeof(struct icmp) || !conn_is_echo(q, q->icmp_type) || !load(skb, q->l4 + 4, &q->id, sizeof(q->id)))
			return false;
		q->key[4] |= (__u32)bpf_ntohs(q->id) << 16;
		return true;
	}
	if (q->proto != PROTO_TCP && q->proto != PROTO_UDP)
		return true;
	q->key[4] |= (q->local_port & 0xffff) << 16 | (q->remote_port & 0xffff);
	return q->local_port >> 24 == 0; /* QUERY_SHOWN */
}

/* The key of all fragments of a packet. */
__noinline int conn_fragment_key(struct __sk_buff *skb, struct query *q)
{
	struct ipv6_frag h = {};
	__u32 at = q->l3 + sizeof(struct ipv6);
	__be16 id;
	__u8 next;

	if (!skb || !q)
		return false;
	conn_key_of(q);
	q->key[4] |= CONN_FRAGMENT | (q->inbound ? CONN_INBOUND : 0);
	if (!q->is6) {
		if (!load(skb, q->l3 + 4, &id, sizeof(id)))
			return false;
		q->key[4] |= bpf_ntohs(id);
		return true;
	}
	if (!load(skb, q->l3 + 6, &next, sizeof(next)))
		return false;
	for (int i = 0; i < 6; i++) {
		if (!load(skb, at, &h, sizeof(h)))
			return false;
		if (next == PROTO_FRAGMENT)
			break;
		next = h.next;
		at += 8 * (h.reserved + 1u);
	}
	q->key[4] |= bpf_ntohl(h.id);
	return true;
}

static __always_inline __u64 conn_word(const __be32 *w)
{
	return (__u64)bpf_ntohl(w[0]) << 32 | bpf_ntohl(w[1]);
}

/* The key of the connection of the packet that an ICMP error quotes. */
__noinline int conn_quoted_key(struct __sk_buff *skb, struct query *q)
{
	__u32 at, left, upper = sizeof(struct ipv6), local, remote;
	const struct ipv4 *v4;
	const struct ipv6 *v6;
	__be16 l4[4];
	__u8 proto;

	if (!skb || !q)
		return false;
	at = q->l4 + sizeof(struct icmp);
	left = q->l4_len - sizeof(struct icmp);
	v4 = &q->quoted4;
	v6 = &q->quoted6;
	local = q->inbound ? 0 : 2;
	remote = 2 - local;
	if (q->is6) {
		if (left < sizeof(*v6) || !load(skb, at, &q->quoted6, sizeof(*v6)) || bpf_ntohl(v6->version_class_flow) >> 28 != 6)
			return false;
		q->key[local & 2] = conn_word(v6->src);
		q->key[(local & 2) + 1] = conn_word(v6->src + 2);
		q->key[remote & 2] = conn_word(v6->dst);
		q->key[(remote & 2) + 1] = conn_word(v6->dst + 2);
		proto = v6->next;
	} else {
		if (left < sizeof(*v4) || !load(skb, at, &q->quoted4, sizeof(*v4)) || v4->version_ihl >> 4 != 4 ||
		    (v4->version_ihl & 15) < 5 || v4->frag & bpf_htons(IPV4_OFFSET))
			return false;
		q->key[0] = q->key[2] = 0;
		q->key[(local & 2) + 1] = bpf_ntohl(v4->src);
		q->key[(remote & 2) + 1] = bpf_ntohl(v4->dst);
		proto = v4->proto;
		upper = (v4->version_ihl & 15) * 4;
	}
	if (left < upper + sizeof(l4) || !load(skb, at + upper, l4, sizeof(l4)))
		return false;
	if (q->key[0] != q->local[0] || q->key[1] != q->local[1])
		return false;
	q->key[4] = conn_word_of(q->is6, proto, 0, 0);
	if (proto == PROTO_TCP || proto == PROTO_UDP) {
		__u32 src = bpf_ntohs(l4[0]), dst = bpf_ntohs(l4[1]);

		q->key[4] |= q->inbound ? src << 16 | dst : dst << 16 | src;
		return true;
	}
	if (!conn_is_icmp(q, proto))
		return true;
	q->key[4] |= (__u32)bpf_ntohs(l4[2]) << 16;
	return conn_is_echo(q, bpf_ntohs(l4[0]) >> 8);
}

static __always_inline bool conn_is_error(const struct query *q)
{
	if (q->fragment || q->l4_len < sizeof(struct icmp) || !conn_is_icmp(q, q->proto))
		return false;
	if (q->is6)
		return q->icmp_type < ICMPV6_FIRST_INFO;
	return q->icmp_type == ICMP_UNREACHABLE || q->icmp_type == ICMP_TIME_EXCEEDED || q->icmp_type == ICMP_PARAMETER;
}

/* What is told of a packet. */
enum conn_answer {
	CONN_ALLOWED,
	CONN_DENIED,
	CONN_SEARCH /* the rules in q->set: then ask again, with what they say in q->denied */
};

/* What the rules are searched for. */
enum conn_phase {
	CONN_AGAIN,   /* whether a connection of other rules still holds */
	CONN_OWN      /* what they say of the packet itself */
};

static __always_inline int conn_search(struct query *q, bool inbound, enum conn_phase phase)
{
	q->phase = phase;
	q->set = inbound ? q->sets[1] : q->sets[0];
	q->opener = RULE_NONE;
	q->denied = 0;
	q->hits = 0;
	return CONN_SEARCH;
}

/* The rules that count what is held, as rules_count takes them. */
static __always_inline void conn_rules(const struct query *q, __u32 *rules)
{
	rules[0] = q->held.rule + 1;
	rules[1] = q->held.second;
	rules[2] = q->held.third == CONN_MANY ? 0 : q->held.third;
}

/* Counts the packet for the rules that what is held is counted by, as if they had been asked. A global function: the
 * verifier walks it once. */
__noinline int conn_count(struct query *q)
{
	__u32 n = 0;

	if (!q)
		return 0;
	conn_rules(q, q->counts[0]);
	rules_count(q->counts[0], q->len);
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < CONN_RULES; i++) {
		q->hit[i] = q->counts[0][i] - 1;
		n += q->hit[i] != RULE_NONE && n == i;
	}
	q->hits = q->held.third == CONN_MANY ? JUDGED_HITS + 1 : n;
	return 0;
}

/* What is let through by what came before it: a later fragment, or an error about a connection. */
static __always_inline bool conn_follows(struct __sk_buff *skb, struct query *q)
{
	if (!q->ip || !(q->later ? conn_fragment_key(skb, q) : conn_is_error(q) && conn_quoted_key(skb, q)))
		return false;
	if (!conn_look(q) || q->held.version != q->version)
		return false;
	conn_count(q);
	return true;
}

/* Allowed: the later fragments of a first one will follow it. */
static __always_inline int conn_allow(struct __sk_buff *skb, struct query *q)
{
	if (!connections_on || !q->fragment || q->later || !q->ip || !(q->inbound ? q->sets[1] : q->sets[0]) || !conn_fragment_key(skb, q))
		return CONN_ALLOWED;
	q->idle = CONN_FRAGMENT_IDLE;
	conn_put(q, q->inbound, CONN_NEW);
	return CONN_ALLOWED;
}

/* What the packet changes of the connection that it belongs to: that is confirmed when who opened it sends again after an
 * answer, which nobody can with a forged address. 0: nothing. */
static __always_inline __u32 conn_changes(struct query *q)
{
	bool back = q->held.inbound != q->inbound;

	if (q->way >= CONN_HALF || q->held.answered == back)
		return 0;
	q->held.answered = 1;
	return CONN_SAME | (back ? CONN_ANSWERED : CONN_CONFIRMED);
}

/* A packet of a connection. */
static __always_inline int conn_take(struct __sk_buff *skb, struct query *q)
{
	__u32 changes = conn_changes(q);

	q->confirmed = changes & CONN_CONFIRMED || q->way >= CONN_HALF;
	if (q->held.version != q->version || q->held.third == CONN_MANY) {
		if (conn_is_icmp(q, q->proto)) {
			q->shown = q->remote_port;
			q->remote_port = QUERY_SHOWN | (__u32)q->proto << 16 | (q->is6 ? ICMPV6_ECHO : ICMP_ECHO) << 8;
		}
		return conn_search(q, q->held.inbound, CONN_AGAIN);
	}
	q->opener = q->held.rule;
	conn_count(q);
	if (changes) {
		q->idle = q->held.idle;
		conn_put(q, q->held.inbound, changes);
	}
	return conn_allow(skb, q);
}

static __always_inline int conn_arrived(struct __sk_buff *skb, struct query *q)
{
	q->keyed = connections_on && q->ip && conn_key(skb, q);
	if (q->keyed && conn_touch(conn_read(q), q))
		return conn_take(skb, q);
	if (connections_on && conn_follows(skb, q))
		return conn_allow(skb, q);
	return conn_search(q, q->inbound, CONN_OWN);
}

/* Judged as a packet of the direction that opened the connection. If that is no more allowed, this one is judged for
 * itself, unless it has been. */
static __always_inline int conn_again(struct __sk_buff *skb, struct query *q)
{
	bool inbound = q->held.inbound, itself = inbound == q->inbound;

	if (conn_is_icmp(q, q->proto)) {
		itself = itself && (!q->denied || q->remote_port == q->shown);
		q->remote_port = q->shown;
	}
	if (!q->denied && q->opener != RULE_NONE) {
		conn_put(q, inbound, q->confirmed ? CONN_CONFIRMED : 0);
		return conn_allow(skb, q);
	}
	conn_forget(q);
	if (itself)
		return q->denied ? CONN_DENIED : conn_allow(skb, q);
	if (conn_follows(skb, q))
		return conn_allow(skb, q);
	return conn_search(q, q->inbound, CONN_OWN);
}

/* What the rules say of the packet is what becomes of it. */
static __always_inline int conn_own(struct __sk_buff *skb, struct query *q)
{
	if (q->denied)
		return CONN_DENIED;
	if (q->opener != RULE_NONE && q->keyed && conn_key(skb, q))
		conn_put(q, q->inbound, CONN_NEW);
	return conn_allow(skb, q);
}

/* What becomes of a packet about whose search there is an answer. A global function: the verifier walks it once, by itself. */
__noinline int conn_said(struct __sk_buff *skb, struct query *q)
{
	if (!skb || !q)
		return CONN_DENIED;
	return q->phase == CONN_AGAIN ? conn_again(skb, q) : conn_own(skb, q);
}

__noinline int conn_ask_rules(struct query *q)
{
	if (q && q->set && !classify_known(q))
		classify(q);
	return 0;
}

/* What becomes of a packet, as far as connections and what is remembered of rules can tell; CONN_SEARCH: ask the
 * rules, then conn_said. */
static __always_inline int conn_judge(struct __sk_buff *skb, struct query *q)
{
	int answer = conn_arrived(skb, q);

	if (answer != CONN_SEARCH || q->phase != CONN_OWN || (q->set && !classify_known(q)))
		return answer;
	return conn_own(skb, q);
}

#endif
