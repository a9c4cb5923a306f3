/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_PORT_H
#define WEFT_MAPS_PORT_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* port: one device of this host where a VM NIC meets the switch.
 * key     ifindex of the device
 * writer  datapath.Apply
 * readers parse (who sent this?), deliver (who gets it?)
 * miss    the device is being attached or detached: PORT_UNKNOWN or PORT_DOWN
 * full    Apply refuses before it writes anything */
#define PORT_SPOOF 1 /* the guest may speak for others */
#define PORT_PEER 2  /* veth whose other end is in another namespace */
#define PORT_FLOOD 4 /* something is flooded in its subnet: there is a row of `flood` */
#define PORT_LEARN 32 /* the guest may have addresses that policy does not know yet */
#define PORT_FORWARD 64   /* the guest forwards what others send */
#define PORT_MSS 256      /* the MSS of its TCP connections is lowered to what the path carries */
#define PORT_EXTERNAL 128 /* nothing but customer routes leads out of its subnet */
#define PORT_DHCP_GUARD 512    /* the guest may not answer as a DHCP server */
#define PORT_ROUTER_GUARD 1024 /* the guest may not announce itself as a router */
#define PORT_TEAMING 2048      /* it may send with the MAC of another port of its VM */
#define PORT_PRIORITY_TAG 4096 /* its 802.1p priorities pass */
#define PORT_RULES 8192        /* it has a rule set, in one direction at least */
#define PORT_ALLOWED (1 << 20)   /* it has sources beside its own: `allowed` */
#define PORT_VXLAN 8 /* the transport of its subnet; without, NVGRE */
#define PORT_REWRITE 16 /* or this */

struct port {
	__u32 ifindex; /* repeats the key, for local_mac */
	__u32 id;      /* model.PortID */
	__u32 vsid;
	__u32 network;
	__u32 slot; /* index into traffic */
	__u16 mtu;  /* largest IP packet */
	__u8 mac[6];
	__u32 flags;
	union addr pa;
	union addr gateway4; /* all zero: none */
	union addr gateway6;
	__u32 isolation; /* model.IsolationID */
	__u32 inbound, outbound; /* rule sets: where in `rule`, in blocks; 0: none */
	__u32 version;           /* changes with them */
};

_Static_assert(sizeof(struct port) == 96, "port");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct port);
	__uint(max_entries, 4096);
} port SEC(".maps");

#endif
