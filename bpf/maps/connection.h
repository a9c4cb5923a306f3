/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_CONNECTION_H
#define WEFT_MAPS_CONNECTION_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* connection: what a port remembers of packets that its rules allowed, in a table of its own: buckets
 * by hash, and in each some ways for what is half open and others for what is confirmed. What finds
 * its ways full takes the place of the one that has been idle the longest, so what one port
 * or one half of it is flooded with costs no other anything.
 * key     the port's slot; then the bucket
 * writer  lib/connection.h; datapath.Apply makes the table of a port that gets rules, and takes it away
 * readers lib/connection.h; datapath.Connections
 * miss    packets are judged by rules alone
 * full    see above */
#define CONN_WAYS 12
#define CONN_HALF 4 /* the first of them are for what is half open, and for fragments */

struct connection {
	__u64 key[5];  /* local, remote; CONN_USED, protocol, ports */
	__u64 seen;    /* last packet, ns; written down when it is CONN_SLACK old */
	__u32 rule;    /* number of the one that opened it; of a fragment, of one that counts it; RULE_NONE */
	__u32 version; /* of the port's rule sets, when it was judged */
	union {
		struct {
			__u64 idle : 16, /* s */
				inbound : 1,  /* the direction that opened it */
				answered : 1, /* a packet of the other direction has come */
				zero : 6,
				second : 20, third : 20; /* numbers of other rules that count its packets, and 1; 0: none */
		};
		__u64 terms;
	};
};

#define CONN_RULES 3               /* that are remembered of a connection */
#define CONN_MANY ((1u << 20) - 1) /* as the third: there are more. Then each packet is judged */

_Static_assert(sizeof(struct connection) == 64, "connection: a cache line");

struct conn_bucket {
	__u32 busy; /* somebody puts or takes one */
	__u32 zero[3];
	__u32 tag[CONN_WAYS]; /* 31 bits of the hash and 1; 0: nothing is there */
	struct connection way[CONN_WAYS];
};

_Static_assert(sizeof(struct conn_bucket) == 64 + 64 * CONN_WAYS, "connection bucket");

struct conn_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP); /* of any size */
	__uint(key_size, sizeof(__u32));    /* clang tells the types of an inner map only in part */
	__uint(value_size, sizeof(struct conn_bucket));
	__uint(max_entries, 1);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__array(values, struct conn_table);
} connection SEC(".maps");

/* conn_port: the size of a port's table, and what it has lost.
 * key     the port's slot
 * writer  datapath.Apply; lib/connection.h counts
 * readers the same
 * miss    cannot be: an array. Without buckets there is no table
 * full    cannot be: as many slots as ports */
struct conn_port {
	__u32 buckets; /* a power of two */
	__u32 limit;   /* what policy says, for datapath.ReadBack; 0: DefaultConnections */
	__u64 lost[2]; /* half open, confirmed: gave way to another though they were not idle for too long */
};

_Static_assert(sizeof(struct conn_port) == 24, "conn_port");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct conn_port);
	__uint(max_entries, 4096);
} conn_port SEC(".maps");

/* conn_secret: what nobody outside can know, so that nobody can aim at a bucket.
 * key     0
 * writer  datapath.Open, once
 * readers lib/connection.h
 * miss    cannot be: an array
 * full    cannot be */
struct conn_secret {
	__u64 factor[6]; /* odd */
	__u64 now;       /* the time of rehearsals; 0: the kernel's */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct conn_secret);
	__uint(max_entries, 1);
} conn_secret SEC(".maps");

#endif
