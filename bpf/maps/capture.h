/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_CAPTURE_H
#define WEFT_MAPS_CAPTURE_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* Where a captured packet was seen. Must be as in internal/datapath/capture.go. */
enum capture_point {
	POINT_FROM_GUEST,    /* as the guest sent it */
	POINT_FROM_UNDERLAY, /* before decapsulation */
	POINT_TO_GUEST,      /* as handed over, or the switch's own word to the guest */
	POINT_TO_UNDERLAY,   /* after encapsulation */
	POINT_DROPPED,
	POINT_NONE, /* only tells how a walk ended */
};

#define CAPTURE_SLOTS 8

/* capture_filter: what the captures under way want to see; fields that are 0 let all pass.
 * key     slot
 * writer  datapath.Capture, which also moves `until` forward as long as it lives: a capture
 *         whose reader died ends by itself
 * readers lib/capture.h, in programs that were loaded with capture_on
 * miss    cannot be: an array
 * full    datapath.Capture refuses */
struct capture_filter {
	__u64 until; /* monotonic ns */
	__u64 rate_bytes; /* per capture window */
	union addr host[2]; /* each must be source or destination */
	__u32 rate_packets; /* per capture window */
	__u32 points; /* bit set of capture_point */
	__u32 port_id; /* whose guest sends or gets it */
	__u32 snaplen;
	__u16 type; /* ethertype, host order */
	__u16 l4_port; /* source or destination, host order */
	__u8 proto[2]; /* either of them */
	__u8 reason; /* of drops */
	__u8 zero;
};

_Static_assert(sizeof(struct capture_filter) == 72, "capture filter");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct capture_filter);
	__uint(max_entries, CAPTURE_SLOTS);
} capture_filter SEC(".maps");

/* capture_count: what a capture has seen and lost at each point, exactly, in packets.
 * key     slot * 8 + point
 * writer  lib/capture.h; datapath.Capture clears it first
 * readers datapath.Capture
 * miss    cannot be: an array
 * full    cannot be */
struct capture_count {
	__u64 seen;
	__u64 lost_full; /* the reader was too slow */
	__u64 lost_rate; /* more than the filter's rates */
};

_Static_assert(sizeof(struct capture_count) == 24, "capture count");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct capture_count);
	__uint(max_entries, CAPTURE_SLOTS * 8);
} capture_count SEC(".maps");

/* capture_rate: what a capture has taken in the present window.
 * key     slot
 * writer  lib/capture.h
 * readers lib/capture.h
 * miss    cannot be: an array
 * full    cannot be */
struct capture_rate {
	__u64 begin; /* monotonic ns */
	__u64 bytes;
	__u64 packets;
};

_Static_assert(sizeof(struct capture_rate) == 24, "capture rate");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct capture_rate);
	__uint(max_entries, CAPTURE_SLOTS);
} capture_rate SEC(".maps");

/* capture: the captured packets, each a capture_event and the first bytes of the frame.
 * writer  lib/capture.h
 * readers datapath.Capture
 * full    the packet is counted as lost */
#define CAPTURE_CSUM 1   /* a checksum was left to the device */
#define CAPTURE_VLAN 2   /* the VLAN tag is not in the frame */
#define CAPTURE_XDP 4    /* outer headers were stripped before GRO */
#define CAPTURE_DETOUR 8 /* 54 bytes of lib/dx2.h come before the frame */
#define CAPTURE_BARE 16  /* the frame has its own outer Ethernet header */
#define CAPTURE_COPY 32  /* the walk goes on */

#define CAPTURE_TCI 16 /* bits from which on flags within lib/capture.h are a tag */

struct capture_event {
	__u64 time; /* monotonic ns */
	__u32 walk; /* the same for what was seen of one packet on one walk; 0: seen once */
	__u32 slots; /* bit set; 0: only tells how the walk ended */
	__u32 port_id; /* that the packet counts for */
	__u32 to_port_id; /* of this host, that gets it; 0: none */
	__u32 vsid; /* of the next hop; on receive, the wire's */
	__u32 ifindex; /* where the walk began */
	__u32 out; /* device it leaves by; 0: none */
	__u32 len; /* of the frame, with what comes before it */
	__u32 caplen; /* bytes that follow */
	__u16 quote; /* where the offending packet is inside an ICMP error; 0: no error */
	__u16 tci;   /* with CAPTURE_VLAN */
	__u16 gso_size;
	__u16 gso_segs;
	__u8 point;
	__u8 verdict; /* 0: not known yet */
	__u8 direction;
	__u8 flags;
	__u8 eth[14]; /* of the frame as it came */
	__u16 base;   /* where the guest's frame starts: 0, or behind outer headers */
};

_Static_assert(sizeof(struct capture_event) == 72, "capture event");

/* capture_view: the packet in hand, as filters see it.
 * key     0
 * writer  lib/capture.h
 * readers lib/capture.h
 * miss    cannot be: an array
 * full    cannot be */
struct capture_view {
	union addr src;
	union addr dst;
	struct capture_event event;
	__u32 walk; /* of what was shown last and has not ended */
	__u32 came; /* length of the frame as it came */
	__u16 type;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 zero;
};

_Static_assert(sizeof(struct capture_view) == 120, "capture view");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct capture_view);
	__uint(max_entries, 1);
} capture_view SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} capture SEC(".maps");

#endif
