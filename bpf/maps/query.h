/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_QUERY_H
#define WEFT_MAPS_QUERY_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/connection.h"
#include "wire/addr.h"
#include "wire/ip.h"

/* query: what is asked of a rule set, what it answers, and room for the search: the stack has none.
 * key     0
 * writer  stage/25_acl.h, lib/classify.h
 * readers the same; lib/finish.h, for the rule of a drop
 * miss    cannot be: an array
 * full    cannot be */
#define RULE_DIMS 6
#define JUDGED_HITS 4
#define RULE_SECTIONS 16

struct query {
	/* Asked. Numbers are in host order; local is the guest's side. */
	union addr src, dst;           /* from these stage/25_acl.h makes the next */
	__u64 remote[2], local[2]; /* an IPv4 address is in [1] */
	__u64 remote_mac, local_mac;
	union {
		__u32 narrow[4]; /* by tree */
		struct {
			__u32 remote4, local4;
			__u32 local_port, remote_port; /* and protocol: QUERY_SHOWN and so on */
		};
	};
	__u32 set;                     /* where in `rule` it is, in blocks */
	__u32 len;                     /* of the frame, for counters */
	__u8 ip;                       /* and not ND: else only MACs count */
	__u8 is6;
	__u8 zero[2];
	__u32 port_id; /* whose rules these are */

	/* Asked of connections. */
	__u32 slot, version; /* of the port */
	__u32 sets[2];       /* outbound, inbound */
	__u32 l3, l4, l4_len;
	__u8 inbound, proto, icmp_type;
	__u8 fragment, later;
	__u8 zero2[7];

	/* Answered. */
	__u32 rule;   /* number of the one that decided last; RULE_NONE */
	__u32 opener; /* number of the first stateful one that allowed; RULE_NONE */
	__u32 idle;   /* the smallest of such, in seconds */
	__u32 asked;  /* bit set of sections */

	/* Room. */
	__u64 key[5];           /* of a connection */
	struct connection held; /* and what is noted of it */
	__u64 now;
	__u64 most;     /* idle, of the ways that another may take */
	__u32 tag, way; /* in its bucket */
	__u32 shown;    /* remote_port, while another is asked for */
	__u32 denied;
	__u8 phase, keyed, confirmed;
	__u8 sampled;
	__u8 zero3[2];
	__be16 id; /* of an echo */
	union {
		struct ipv4 quoted4;
		struct ipv6 quoted6;
	};
	__u64 best[RULE_SECTIONS]; /* position and number within the set of the first rule that decides */
	__u64 candidates;          /* aggregate words to look at */
	__u64 chunks;              /* of the present one */
	__u32 aggregate, counting, said;
	union {
		__u32 row[RULE_DIMS]; /* of the packet's classes */
		__u64 rows[RULE_DIMS / 2];
	};
	__u32 entry[RULE_DIMS];
	__u64 top[RULE_DIMS], agg[RULE_DIMS];
	__u64 match, matched; /* rules of a chunk that count: bits, and where the words of the first are */
	__u64 mark; /* of the set */
	__u32 at;   /* in `judged` */
	__u32 turn;
	__u32 hits;                   /* rules that were counted; of these the first */
	__u32 hit[JUDGED_HITS];
	__u64 flow; /* lib/observe.h */
	__u32 counts[2][CONN_RULES]; /* way/short.h: rules that count the packet, outbound and inbound: numbers and 1 */
};

#define RULE_NONE ~0u
#define RULE_LOGS (1u << 31) /* in a number: the rule logs */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct query);
	__uint(max_entries, 1);
} query SEC(".maps");

/* judged: what a set said of packets of the same classes. There are few of these, whatever the packets: whoever
 * sends from many ports, or to many addresses, still meets the same rules.
 * key     a hash of set and classes, and one of two places
 * writer  lib/classify.h
 * readers the same
 * miss    the rules are searched
 * full    cannot be: the newest takes the place of another */
#define JUDGED_ROWS 8192

struct judged {
	__u64 set; /* its mark, that no other has had */
	__u64 rows[RULE_DIMS / 2];
	__u32 denied, rule, opener, idle;
	__u32 hit[JUDGED_HITS]; /* numbers of the rules that count it, with RULE_LOGS; RULE_NONE: no more */
};

_Static_assert(sizeof(struct judged) == 64, "judged");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct judged);
	__uint(max_entries, JUDGED_ROWS);
} judged SEC(".maps");

static __always_inline struct query *query_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&query, &zero);
}

#endif
