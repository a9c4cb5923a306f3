/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_RULE_H
#define WEFT_MAPS_RULE_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* rule: the rule sets of the ports, as internal/classify lays them out: one value, in which
 * each set has whole blocks of its own. A row of `port` says where.
 * key     0
 * writer  datapath.Apply: beside what is in use; a row of `port` then changes to it
 * readers lib/classify.h
 * miss    cannot be: an array
 * full    Apply refuses the set, and its ports keep the one they have */
#define RULE_BLOCK 8 /* words: a cache line */
#define RULE_WORDS (1u << 23)

struct rule_words {
	__u64 w[RULE_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct rule_words);
	__uint(max_entries, 1);
} rule SEC(".maps");

static __always_inline const __u64 *rule_words(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rule, &zero);
}

/* rule_hit: how often each rule matched, as the first of its section that decides or as one that counts.
 * key     the number that datapath gives a rule, the same as long as any set has it
 * writer  lib/classify.h; datapath.Apply zeroes one that it gives to another rule
 * readers datapath.RuleHits
 * miss    cannot be: an array
 * full    Apply refuses the set */
struct rule_hit {
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct rule_hit) == 16, "rule hit");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct rule_hit);
	__uint(max_entries, 1 << 17);
} rule_hit SEC(".maps");

/* rule_log: packets that matched rules which log. Numbers are as in struct query.
 * writer  lib/classify.h, a rule's at its pace
 * readers datapath.RuleLog
 * full    the packet is suppressed, and counted as that */
struct rule_log {
	__u64 time; /* monotonic ns */
	__u64 remote[2], local[2], remote_mac, local_mac;
	__u64 suppressed; /* packets of the rule since the last that was told */
	__u32 remote_port, local_port;
	__u32 rule; /* its number */
	__u32 port_id, len;
	__u8 ip, is6, inbound, zero;
};

_Static_assert(sizeof(struct rule_log) == 88, "rule log");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} rule_log SEC(".maps");

/* rule_pace: how far ahead of its pace a rule that logs is, and what it could not tell.
 * key     the number of the rule
 * writer  lib/classify.h; datapath.Apply zeroes one that it gives to another rule
 * readers lib/classify.h, datapath.RuleSuppressed
 * miss    cannot be: an array
 * full    cannot be */
struct rule_pace {
	__u64 used; /* monotonic ns */
	__u64 suppressed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct rule_pace);
	__uint(max_entries, 1 << 17);
} rule_pace SEC(".maps");

/* rule_name: whose number it is, for a datapath that starts anew.
 * key     the number
 * writer  datapath.Apply
 * readers datapath.Open */
struct rule_name {
	__u8 hash[16]; /* of the rule's list and name; zero: nobody's */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct rule_name);
	__uint(max_entries, 1 << 17);
} rule_name SEC(".maps");

#endif
