/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_CLASSIFY_H
#define WEFT_LIB_CLASSIFY_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lib/config.h"
#include "maps/query.h"
#include "maps/rule.h"

/* Finds the rules of a set that a packet matches, and what they make of it. The tables are
 * those of internal/classify, whose lookup.go does the same step by step;
 * docs/adr/0040-classifier.md says why they are as they are. */

/* Layout of a set, in words. Must be as in internal/classify/compile.go. */
#define AT_HEAD 0
#define AT_PLACES 1
#define AT_FREE 2
#define AT_TREES 8
#define AT_KINDS 24
#define AT_UNNAMED 26
#define AT_MARK 31

#define HEAD_COUNTS (1 << 0)
#define HEAD_MACS (1 << 2)

#define UNNAMED_FRAMES 6
#define UNNAMED_COUNTS 7

#define SECTION_AUDIT 0x80
#define SECTION_ADMINISTRATOR 0
#define SECTION_DEFAULT 4

#define RULE_ALLOW 0
#define RULE_DENY 1
#define RULE_PASS 2
#define RULE_LOG (1 << 2)
#define RULE_STATEFUL (1 << 3)
#define RULE_REAL (1 << 4)

#define QUERY_SHOWN 0
#define QUERY_HIDDEN (1u << 24)
#define QUERY_OPAQUE (2u << 24) /* of a protocol without ports and types */

enum rule_dim { DIM_REMOTE, DIM_LOCAL, DIM_LOCAL_PORT, DIM_REMOTE_PORT, DIM_LOCAL_MAC, DIM_REMOTE_MAC };

enum rule_tree {
	TREE_REMOTE4,
	TREE_LOCAL4,
	TREE_LOCAL_PORT,
	TREE_REMOTE_PORT,
	TREE_REMOTE6,
	TREE_LOCAL6,
	TREE_LOCAL_MAC,
	TREE_REMOTE_MAC
};

#define NARROW_TREES 4 /* the first, each of the dimension of its number */

#define NOT_IP (1u << 31) /* in a row: ARP, which other rules judge */

#define NARROW_LEVELS 6 /* of a tree with 16 keys to a block */
#define WIDE_LEVELS 11  /* with 4 */
#define CLASSIFY_STEPS (1 << 13) /* more than a set has chunks, aggregate words and rules that count */

/* A word of the set that begins at the word `set` of t. */
static __always_inline __u64 rule_word(const __u64 *t, __u64 set, __u64 at)
{
	return t[(set + at) & (RULE_WORDS - 1)];
}

static __always_inline const __u64 *rule_block(const __u64 *t, __u64 at)
{
	return t + (at & (RULE_WORDS - 1) & ~(__u64)(RULE_BLOCK - 1));
}

static __always_inline const __u64 *rule_pair(const __u64 *t, __u64 at)
{
	return t + (at & (RULE_WORDS - 1) & ~1ull);
}

/* Keeps clang from loading all that it will need at once, for which there are no registers. */
#define in_turn(x, sum)                                                                                                \
	do {                                                                                                           \
		x;                                                                                                     \
		asm volatile("" : "+r"(sum));                                                                          \
	} while (0)

#define EACH_HALF ((1ull << 32) | 1)

static __always_inline __u32 count_pairs(__u32 x)
{
	x -= x >> 1 & 0x55555555;
	x = (x & 0x33333333) + (x >> 2 & 0x33333333);
	return (x + (x >> 4)) & 0x0f0f0f0f;
}

/* In halves: constants of 64 bits would each take a register. */
static __always_inline __u32 count_bits(__u64 x)
{
	return (count_pairs(x) + count_pairs(x >> 32)) * 0x01010101 >> 24;
}

/* The smaller of two, without a branch: the verifier would walk both. */
static __always_inline __u64 least(__u64 a, __u64 b)
{
	__s64 below = (__s64)(a - b) >> 63;

	asm volatile("" : "+r"(below));
	return b + ((a - b) & below);
}

/* The rows of the classes that the packet's keys of 32 bits are in: found without a branch that
 * depends on them, by halves of keys, two at once: each has a bit above it from which nothing is borrowed if it is
 * no larger than the packet's. A global function, as are others here: the verifier walks each once, not once for each call; and
 * one for all trees, since a call takes as long as a search. */
__noinline int classify_narrow(struct query *q)
{
	const __u64 *t = rule_words();

	if (!t || !q)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 tree = 0; tree < NARROW_TREES; tree++) {
		__u64 set = (__u64)q->set * RULE_BLOCK, key, i = 0, at, last;
		const __u64 *d = rule_pair(t, set + AT_TREES + 2 * tree); /* keys; rows */
		__u32 level = d[1] >> 32;

		if (tree < TREE_LOCAL_PORT && q->is6)
			continue;
		key = (q->narrow[tree] >> 1 | 1u << 31) * EACH_HALF;
		at = set + (__u32)d[0];
		last = (d[0] >> 32) - 1;
		q->row[tree] = 0;
		if (!level)
			continue;
#pragma clang loop unroll(disable)
		for (int l = 0; l < NARROW_LEVELS && level; l++) {
			const __u64 *b = rule_block(t, at + i * RULE_BLOCK);
			__u64 less = 0;

#pragma clang loop unroll(full)
			for (int j = 0; j < RULE_BLOCK; j++)
				in_turn(less += (key - b[j]) >> 31 & EACH_HALF, less);
			level--;
			i = i * 16 + (__u32)(less + (less >> 32)) - 1;
			at += ((last >> (4 * level + 4)) + 1) * RULE_BLOCK;
		}
		q->row[tree] = rule_word(t, at, i) >> (32 * (q->narrow[tree] & 1)); /* rows are behind the last level */
	}
	return 0;
}

/* Whether a < b, as a number, without a branch. */
static __always_inline __u64 borrow(__u64 a, __u64 b, __u64 d)
{
	return ((~a & b) | ((~a | b) & d)) >> 63;
}

/* The same for one tree with keys of 128 bits. A global function: the verifier walks it once, not once for each call. */
__noinline __u32 classify_wide(__u64 set, __u32 tree, __u64 hi, __u64 lo)
{
	const __u64 *t = rule_words(), *d;
	__u64 at, i = 0, last;

	if (!t)
		return 0;
	d = rule_pair(t, set + AT_TREES + 2 * tree);
	at = set + (__u32)d[0];
	if (!d[0])
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 l = 1; l <= WIDE_LEVELS && l <= d[1] >> 32; l++) {
		const __u64 *b = rule_block(t, at + i * RULE_BLOCK);
		__u64 more = 0, c;

#pragma clang loop unroll(disable)
		for (int j = 0; j < RULE_BLOCK; j += 2) {
			c = borrow(lo, b[j + 1], lo - b[j + 1]);
			in_turn(more += borrow(hi, b[j], hi - b[j] - c), more);
		}
		barrier();
		last = ((d[0] >> 32) - 1) >> (2 * ((d[1] >> 32) - l));
		i = least(i * 4 + 3 - more, last);
		at += ((last >> 2) + 1) * RULE_BLOCK;
	}
	return rule_word(t, at, i / 2) >> (32 * (i & 1)); /* rows are behind the last level */
}

/* The packet's class in each dimension: where its row is; 0: no rule that names the dimension matches. */
static __always_inline void classify_rows(__u64 set, struct query *q, __u64 head)
{
	q->row[DIM_LOCAL_MAC] = 0;
	q->row[DIM_REMOTE_MAC] = q->ip ? 0 : NOT_IP;
	if (head >> 16 & HEAD_MACS) {
		q->row[DIM_LOCAL_MAC] = classify_wide(set, TREE_LOCAL_MAC, 0, q->local_mac);
		q->row[DIM_REMOTE_MAC] |= classify_wide(set, TREE_REMOTE_MAC, 0, q->remote_mac);
	}
	if (!q->ip) {
		q->rows[0] = 0;
		q->rows[1] = 0;
		return;
	}
	classify_narrow(q);
	if (!q->is6)
		return;
	q->row[DIM_REMOTE] = classify_wide(set, TREE_REMOTE6, q->remote[0], q->remote[1]);
	q->row[DIM_LOCAL] = classify_wide(set, TREE_LOCAL6, q->local[0], q->local[1]);
}

/* The aggregate words in which every dimension has a chunk that matches, or that does not name it. */
static __noinline int classify_tops(const __u64 *t, __u64 set, struct query *q, __u64 head)
{
	__u64 n = head >> 32, candidates = n >= 64 ? ~0ull : (1ull << n) - 1;

#pragma clang loop unroll(disable)
	for (__u32 d = 0; d < RULE_DIMS; d++) {
		__u32 row = q->row[d] & ~NOT_IP;
		__u64 top = row ? rule_word(t, set, row) : 0;

		q->top[d] = top;
		candidates &= top | rule_word(t, set, AT_FREE + d);
	}
	q->candidates = candidates;
	q->chunks = 0;
	return 0;
}

/* Takes the next aggregate word. */
static __noinline int classify_aggregate(const __u64 *t, __u64 set, struct query *q)
{
	__u64 low = q->candidates & -q->candidates, chunks, i, part;
	__u32 a = count_bits(low - 1);
	const __u64 *unnamed = rule_block(t, set + (__u32)rule_word(t, set, AT_UNNAMED) + a * RULE_BLOCK);

	q->candidates ^= low;
	q->aggregate = a;
	chunks = q->counting ? unnamed[UNNAMED_COUNTS] : ~unnamed[UNNAMED_COUNTS];
	if (!q->ip)
		chunks &= unnamed[UNNAMED_FRAMES];
#pragma clang loop unroll(disable)
	for (__u32 d = 0; d < RULE_DIMS; d++) {
		__u64 agg = 0;

		if (q->top[d] & low) {
			i = count_bits(q->top[d] & (low - 1));
			part = rule_word(t, set, (q->row[d] & ~NOT_IP) + 1 + i / 2) >> (32 * (i & 1));
			agg = rule_word(t, set, (__u32)part);
			q->entry[d] = part + 1;
		}
		q->agg[d] = agg;
		chunks &= agg | unnamed[d];
	}
	q->chunks = chunks;
	return 0;
}

static __always_inline void rule_count(__u32 number, __u32 len)
{
	struct rule_hit *h = bpf_map_lookup_elem(&rule_hit, &number);

	if (!h)
		return;
	h->packets++;
	h->bytes += len;
}

#define LOG_INTERVAL_NS 100000000ull /* between two packets that a rule logs, in the long run */
#define LOG_BURST_NS 1000000000ull   /* what may come at once, in the same measure */

static __noinline int rule_log_packet(const struct query *q, __u32 number)
{
	struct rule_pace *p = bpf_map_lookup_elem(&rule_pace, &number);
	__u64 now = bpf_ktime_get_ns(), from;
	struct rule_log *l;

	if (!p || event_interval == ~0ull) /* a trace tells nobody */
		return 0;
	from = p->used > now ? p->used : now;
	l = from - now > LOG_BURST_NS ? NULL : bpf_ringbuf_reserve(&rule_log, sizeof(*l), 0);
	if (!l) {
		__sync_fetch_and_add(&p->suppressed, 1);
		return 0;
	}
	p->used = from + LOG_INTERVAL_NS;
	l->time = now;
	l->suppressed = __sync_lock_test_and_set(&p->suppressed, 0);
	l->remote[0] = q->remote[0];
	l->remote[1] = q->remote[1];
	l->local[0] = q->local[0];
	l->local[1] = q->local[1];
	l->remote_mac = q->remote_mac;
	l->local_mac = q->local_mac;
	l->remote_port = q->remote_port;
	l->local_port = q->local_port;
	l->rule = number;
	l->port_id = q->port_id;
	l->len = q->len;
	l->ip = q->ip;
	l->is6 = q->is6;
	l->inbound = q->inbound;
	l->zero = 0;
	bpf_ringbuf_submit(l, 0);
	return 0;
}

/* Counts a packet for rules that are not asked of it: their numbers and 1, until 0. */
static __always_inline void rules_count(const __u32 *rules, __u32 len)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < CONN_RULES; i++) {
		if (!rules[i])
			break;
		rule_count(rules[i] - 1, len);
	}
}

/* Counts, and logs. */
static __always_inline void rule_matched(const struct query *q, __u32 number)
{
	rule_count(number & ~RULE_LOGS, q->len);
	if (number & RULE_LOGS)
		rule_log_packet(q, number & ~RULE_LOGS);
}

/* Counts, and remembers what is to be logged, and for others like it. flags are the rule's second word. Of one
 * packet no more is logged than is remembered. */
static __always_inline void classify_hit(struct query *q, __u32 number, __u32 flags)
{
	struct rule_pace *p;

	rule_count(number, q->len);
	if (q->hits < JUDGED_HITS)
		q->hit[q->hits] = number | (flags & RULE_LOG ? RULE_LOGS : 0);
	else if (flags & RULE_LOG && (p = bpf_map_lookup_elem(&rule_pace, &number)))
		__sync_fetch_and_add(&p->suppressed, 1);
	q->hits++;
}

/* Counts the next rule of a chunk that matches, if the search came by it. */
static __noinline int classify_count(const __u64 *t, __u64 set, struct query *q)
{
	__u64 low = q->match & -q->match, rule = q->matched + 2 * count_bits(low - 1);
	__u64 first = rule_word(t, set, rule), flags = rule_word(t, set, rule + 1);
	__u32 section = flags >> 8 & (RULE_SECTIONS - 1);

	q->match ^= low;
	if (flags & RULE_REAL && q->asked >> section & 1 && (__u32)first < q->best[section] >> 32)
		classify_hit(q, first >> 32, flags);
	return 0;
}

/* One chunk: of rules that decide, the first that matches. */
static __noinline int classify_chunk(const __u64 *t, __u64 set, struct query *q)
{
	__u64 low = q->chunks & -q->chunks, below = low - 1, of, match = ~0ull, at;
	__u32 section, chunk = q->aggregate * 64 + count_bits(below);

	q->chunks ^= low;
	of = rule_word(t, set, (__u32)rule_word(t, set, AT_PLACES) + chunk);
	section = of & (RULE_SECTIONS - 1);
	if (q->best[section] >> 32 <= of >> 32 && !q->counting)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 d = 0; d < RULE_DIMS; d++)
		if (of >> (8 + d) & 1)
			match &= rule_word(t, set, q->entry[d] + count_bits(q->agg[d] & below));
	if (!match)
		return 0;
	at = (rule_word(t, set, AT_PLACES) >> 32) + 2 * 64 * (__u64)chunk;
	if (q->counting) {
		q->match = match;
		q->matched = at;
		return 0;
	}
	at += 2 * count_bits((match & -match) - 1);
	at |= rule_word(t, set, at) << 32;
	if (at < q->best[section])
		q->best[section] = at;
	return 0;
}

/* What the loops below go on with. */
struct search {
	const __u64 *t;
	struct query *q;
};

/* A rule that counts, a chunk, or the next aggregate word. The verifier walks a loop of these once; one
 * within each would be walked as often as it may turn. */
static long classify_step(__u32 i, struct search *s)
{
	struct query *q = s->q;
	__u64 set = (__u64)q->set * RULE_BLOCK;

	if (q->match)
		classify_count(s->t, set, q);
	else if (q->chunks)
		classify_chunk(s->t, set, q);
	else if (q->candidates)
		classify_aggregate(s->t, set, q);
	else
		return 1;
	return 0;
}

/* The next section: 1 when none is to be asked after it. */
static long classify_section(__u32 section, struct search *s)
{
	const __u64 *t = s->t;
	struct query *q = s->q;
	__u64 set = (__u64)q->set * RULE_BLOCK, rule;
	__u32 kind = rule_word(t, set, AT_KINDS + section / 8) >> (8 * (section & 7)) & 0xff, flags;

	if (q->said && (kind & ~SECTION_AUDIT) == SECTION_DEFAULT)
		return 0;
	q->asked |= 1u << (section & (RULE_SECTIONS - 1));
	rule = q->best[section & (RULE_SECTIONS - 1)];
	if (rule == ~0ull)
		return 0;
	flags = rule_word(t, set, (__u32)rule + 1);
	rule = rule_word(t, set, (__u32)rule) >> 32;
	classify_hit(q, rule, flags);
	if (kind & SECTION_AUDIT || (flags & 3) == RULE_PASS)
		return 0;
	q->rule = rule;
	if ((flags & 3) == RULE_DENY) {
		q->denied = 1;
		return 1;
	}
	if (flags & RULE_STATEFUL) {
		if (q->opener == RULE_NONE)
			q->opener = rule;
		if (flags >> 16 < q->idle)
			q->idle = flags >> 16;
	}
	if (kind != SECTION_DEFAULT)
		q->said = 1; /* by a tenant or basic section */
	return kind == SECTION_ADMINISTRATOR;
}

/* Looks at the rules. */
static __noinline int classify_search(const __u64 *t, __u64 set, struct query *q, __u64 head)
{
	struct search s = {.t = t, .q = q};

	q->asked = 0;
	q->counting = 0;
	q->hits = 0;
	q->match = 0;
	q->said = 0;
	q->denied = 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < RULE_SECTIONS; i++)
		q->best[i] = ~0ull;
	classify_tops(t, set, q, head);
	bpf_loop(CLASSIFY_STEPS, classify_step, &s, 0);
	bpf_loop(head >> 8 & 0xff, classify_section, &s, 0);
	if (head >> 16 & HEAD_COUNTS) {
		q->counting = 1;
		classify_tops(t, set, q, head);
		bpf_loop(CLASSIFY_STEPS, classify_step, &s, 0);
	}
	return 0;
}

/* Where what is said of the packet's classes may be: there, or in the place beside. */
static __always_inline __u32 judged_at(const struct query *q)
{
	__u64 h = q->mark;

	h = (h ^ q->rows[0]) * 0x9e3779b97f4a7c15;
	h = (h ^ h >> 32 ^ q->rows[1]) * 0xc2b2ae3d27d4eb4f;
	h = (h ^ h >> 32 ^ q->rows[2]) * 0x9e3779b97f4a7c15;
	return h >> 40 & (JUDGED_ROWS - 1);
}

static __always_inline struct judged *judged_find(const struct query *q, __u32 at)
{
	struct judged *j = bpf_map_lookup_elem(&judged, &at);

	if (j && j->set == q->mark && j->rows[0] == q->rows[0] && j->rows[1] == q->rows[1] && j->rows[2] == q->rows[2])
		return j;
	return NULL;
}

static __always_inline void judged_again(struct query *q, const struct judged *j)
{
	q->denied = j->denied;
	q->rule = j->rule;
	q->opener = j->opener;
	q->idle = j->idle;
	q->hits = 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < JUDGED_HITS; i++) {
		if (j->hit[i] == RULE_NONE)
			break;
		q->hit[i] = j->hit[i];
		q->hits = i + 1;
		rule_matched(q, j->hit[i]);
	}
}

static __noinline int judged_note(struct query *q)
{
	__u32 at;
	struct judged *j;

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < JUDGED_HITS; i++)
		if (i < q->hits && q->hit[i] & RULE_LOGS)
			rule_log_packet(q, q->hit[i] & ~RULE_LOGS);
	if (q->hits > JUDGED_HITS)
		return 0;
	at = (q->at ^ (q->turn++ & 1)) & (JUDGED_ROWS - 1);
	j = bpf_map_lookup_elem(&judged, &at);
	if (!j)
		return 0;
	j->set = q->mark;
	j->rows[0] = q->rows[0];
	j->rows[1] = q->rows[1];
	j->rows[2] = q->rows[2];
	j->denied = q->denied;
	j->rule = q->rule;
	j->opener = q->opener;
	j->idle = q->idle;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < JUDGED_HITS; i++)
		j->hit[i] = i < q->hits ? q->hit[i] : RULE_NONE;
	return 0;
}

/* What is remembered of packets like this one in q->set. Null: nothing. */
static __always_inline const struct judged *classify_like(struct query *q)
{
	const __u64 *t = rule_words();
	const struct judged *j;
	__u64 set;

	if (!t)
		return NULL;
	set = (__u64)q->set * RULE_BLOCK;
	q->mark = rule_word(t, set, AT_MARK);
	classify_rows(set, q, rule_word(t, set, AT_HEAD));
	q->at = judged_at(q);
	j = judged_find(q, q->at);
	return j ? j : judged_find(q, q->at ^ 1);
}

/* The same is said of this one, if there is anything. */
static __always_inline bool classify_known(struct query *q)
{
	const struct judged *j = classify_like(q);

	if (j)
		judged_again(q, j);
	return j;
}

/* Judges by q->set what nothing is remembered of. */
static __always_inline void classify(struct query *q)
{
	const __u64 *t = rule_words();
	__u64 set = (__u64)q->set * RULE_BLOCK;

	q->denied = 1;
	q->rule = RULE_NONE;
	q->opener = RULE_NONE;
	q->idle = RULE_NONE;
	if (!t)
		return;
	classify_search(t, set, q, rule_word(t, set, AT_HEAD));
	judged_note(q);
}

#endif
