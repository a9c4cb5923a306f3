/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_FLOW_H
#define WEFT_MAPS_FLOW_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* What the agent is told of which flows there are, so that rules can be tried on them: docs/design/flows.md.
 * A flow is a port, a direction, both ends but for the port of the one that has one only for a while, and whether it was denied. */

/* flow: a packet of a flow.
 * writer  lib/observe.h: when a flow is new on its CPU, and again every FLOW_TURN; at the pace of its port
 * readers datapath.Flows
 * full    it is tried again with the flow's next packet */
struct flow {
	__u64 id;      /* of the flow, as in flow_seen */
	__u64 packets; /* that this CPU has seen and not told of, with this one */
	__u64 remote[2], local[2], remote_mac, local_mac; /* these as in struct query */
	__u32 remote_port, local_port;
	__u32 port_id, len;
	__u8 is6, inbound, denied;
	__u8 sampled; /* its packets are seen now and then */
	__u32 zero;
};

_Static_assert(sizeof(struct flow) == 88, "flow");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} flow SEC(".maps");

/* flow_seen: flows that each CPU has seen, and how many packets of them it has not told of.
 * key     a hash of the flow
 * writer  lib/observe.h
 * readers the same, datapath.Flows
 * miss    cannot be: an array
 * full    cannot be: the newest takes the place of another, whose packets go to flow_pace */
#define FLOW_SEEN_BITS 11
#define FLOW_TURN 33 /* log2 of ns: 8.6 s */

struct flow_seen {
	__u64 id;
	__u32 turn;    /* in which it was told of */
	__u32 packets; /* since */
	__u32 slot;    /* of its port */
	__u32 zero;
};

_Static_assert(sizeof(struct flow_seen) == 24, "flow_seen");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct flow_seen);
	__uint(max_entries, 1 << FLOW_SEEN_BITS);
} flow_seen SEC(".maps");

/* flow_pace: how far ahead of its pace a port is, and how many of its packets nobody will be told of.
 * key     the port's slot
 * writer  lib/observe.h; datapath.Apply zeroes that of a new port
 * readers lib/observe.h, datapath.FlowsMissed
 * miss    cannot be: an array
 * full    cannot be: as many slots as ports */
struct flow_pace {
	__u64 used; /* monotonic ns */
	__u64 missed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow_pace);
	__uint(max_entries, 4096);
} flow_pace SEC(".maps");

#endif
