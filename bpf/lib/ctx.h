/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_CTX_H
#define WEFT_LIB_CTX_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "maps/drop.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/record.h"
#include "maps/rewrite_in.h"
#include "wire/addr.h"
#include "wire/ethernet.h"

/* Whom the link layer addressed, as skb->pkt_type. */
#define PACKET_HOST 0
#define PACKET_MULTICAST 2

/* What finish does with a packet that is not dropped. */
enum action {
	ACT_NONE,     /* leave it to the kernel (PASS) or drop it */
	ACT_DEVICE,   /* send it out of a device as it is */
	ACT_PORT,     /* send it into a port's device, marked as ours */
	ACT_PEER,     /* receive it at the other end of a port's veth */
	ACT_DETOUR,   /* leave it to the kernel, which brings it to from_dx2 or from_vxlan */
	ACT_MERGE,    /* send it to from_gro by way of GRO */
	ACT_NEIGHBOUR /* send it to an IP neighbour; the kernel writes the Ethernet header */
};

/* All that is known about the packet in hand. Parse fills most of it; each stage
 * reads what earlier ones left. Offsets count from the start of the frame. */
struct pkt {
	union addr src; /* IP source; ARP sender */
	union addr dst; /* IP destination; ARP target */
	union addr hop; /* next hop; before routing, the target of NS and NA */
	union addr outer_src;

	const struct port *port;  /* that sent it */
	const struct port *dport; /* of this host, that it goes to */
	union {
		const struct record *rec; /* of the next hop */
		const struct rewrite_in *rewritten; /* on receive: whom the destination stands for */
	};
	const struct peer *peer;  /* the host it goes to; null: this one */

	struct eth eth; /* the guest's Ethernet header */
	__u16 type;     /* its ethertype, host order */
	union {
		__u8 claim[6]; /* MAC that ARP or ND speaks of as the sender's */
		__be16 id;     /* identification of an IPv4 packet */
	};

	__u32 len;     /* of the frame as it came */
	__u32 base;    /* where the guest's frame starts: 0, or behind outer headers */
	__u32 end;     /* where it ends */
	__u32 quote;   /* where the offending packet is inside an ICMP error; 0: no error */
	__u32 l3_len;  /* of the IP packet */
	__u32 l4;      /* offset of the L4 header */
	__u32 l4_len;  /* of all behind the IP headers */
	__u32 vsid;    /* of the next hop; on receive, the wire's */
	__u32 port_id; /* that drops are counted for */
	__u32 out;     /* device it leaves by */

	__u16 sport, dport_l4; /* host order; 0 where not read */
	__u8 proto;
	__u8 icmp_type, icmp_code;
	__u8 arp_op;
	__u8 ttl;
	__u8 tos;       /* DSCP and ECN; 0 for ARP */
	__u8 outer_tos; /* on receive */
	__u8 direction;
	__u8 action;

	__u8 fragment : 1;
	__u8 later : 1;     /* a fragment without the L4 header */
	__u8 nd : 1;        /* Neighbour Discovery */
	__u8 has_claim : 1; /* claim is set */
	__u8 routed : 1;
	__u8 bare : 1;     /* its outer Ethernet header is ours, not the kernel's neighbour code's */
	__u8 stripped : 1; /* outer headers were removed at tcx */
	__u8 detour : 1;   /* lib/dx2.h, lib/vxdev.h */
	__u8 merge : 1;    /* lib/gro.h */
	__u8 to_group : 1; /* the outer destination is a multicast PA */
	__u8 vxlan : 1;    /* the transport; else NVGRE */
	__u8 outer6 : 1;   /* its outer IP is IPv6 */
	__u8 rewrite : 1;  /* no outer headers: addresses are replaced */
	__u8 exchange : 1; /* by those of the other family */
	__u8 shaped : 1;   /* it comes from the shaper: this is the egress of its device (lib/shape.h) */
};

static __always_inline bool load(const struct __sk_buff *skb, __u32 at, void *to, __u32 len)
{
	return bpf_skb_load_bytes(skb, at, to, len) == 0;
}

/* The same for what every packet has; len is a constant. Headers mostly are in the
 * linear part, and reading them there saves a call of 17 ns. A packet may be read at any
 * address, but clang knows no alignment and would read it byte by byte. */
static __always_inline bool load_head(const struct __sk_buff *skb, __u32 at, void *to, __u32 len)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;

	if (at < 256 && data + at + len <= end) {
		__builtin_memcpy(to, __builtin_assume_aligned(data + at, 8), len);
		return true;
	}
	return load(skb, at, to, len);
}

static __always_inline bool same_addr(const union addr *a, const union addr *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

static __always_inline const union addr *outer_from(const struct port *from, const struct peer *to)
{
	return to->local.w[3] ? &to->local : &from->pa;
}

/* Whether there is a device toward the peer, and an address of its family to send from. */
static __always_inline bool reaches(const struct port *from, const struct peer *to)
{
	const union addr *local = outer_from(from, to);

	return to->ifindex && local->w[3] && addr_is4(local) == addr_is4(&to->remote);
}

#define ROUTER_MAC 0x027766000000ull /* and the VSID, as a number */

/* The MAC of the distributed router in a subnet: 02:77:66 and the VSID. */
static __always_inline void router_mac(__u8 *mac, __u32 vsid)
{
	mac[0] = 0x02;
	mac[1] = 0x77;
	mac[2] = 0x66;
	mac[3] = vsid >> 16;
	mac[4] = vsid >> 8;
	mac[5] = vsid;
}

#endif
