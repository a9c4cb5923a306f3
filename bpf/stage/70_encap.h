/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_ENCAP_H
#define WEFT_STAGE_ENCAP_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/dx2.h"
#include "lib/icmp.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/record.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/nvgre.h"

/* Size check, inner Ethernet, outer headers; and the other way around, decap. */

/* The inner Ethernet header belongs to the outer headers as far as GSO is concerned. */
#define ENCAP_FLAGS                                                                                                    \
	(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_GRE | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |                    \
	 BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(struct eth)) | BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

#define ADJ_ROOM_DECAP_L3_IPV6 (1ull << 8)

#define EALREADY 114

/* Two bytes in front make the headers of IP and GRE lie at multiples of 4, to be written in words. */
struct encap_frame {
	__u16 shift;
	struct nvgre_outer outer;
	struct eth inner;
} __attribute__((packed, aligned(8)));

#define ENCAP_FRAME (OUTER_LEN + sizeof(struct eth))

_Static_assert(__builtin_offsetof(struct encap_frame, outer.ip) == 16, "aligned outer IP header");

/* The size of the IP packet; of a GSO packet, the largest that it will be cut into. */
static __always_inline __u32 encap_size(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 l3 = p->l4 - sizeof(struct eth), l4 = 0;
	__u8 offset;

	if (!skb->gso_size || p->type == TYPE_ARP)
		return skb->len - sizeof(struct eth);
	if (p->proto == PROTO_UDP)
		l4 = 8;
	if (p->proto == PROTO_TCP && load(skb, p->l4 + 12, &offset, sizeof(offset)))
		l4 = (offset >> 4) * 4;
	return l3 + l4 + skb->gso_size;
}

static __always_inline enum verdict encap_check_size(struct __sk_buff *skb, struct pkt *p)
{
	__u32 limit = p->peer ? p->peer->mtu : p->dport->mtu;

	if (p->peer)
		limit = limit > OUTER_LEN ? limit - OUTER_LEN : 0;
	if (encap_size(skb, p) <= limit)
		return V_CONTINUE;
	icmp_error(skb, p, true, limit);
	return V_TOO_BIG;
}

static __always_inline bool encap_ttl(struct __sk_buff *skb, const struct pkt *p)
{
	const __u32 at = sizeof(struct eth);
	struct {
		__u8 ttl, proto;
		__be16 check;
	} h;
	__be16 was;
	__u8 hop_limit = p->ttl - 1;

	if (p->type == TYPE_IPV6)
		return bpf_skb_store_bytes(skb, at + 7, &hop_limit, sizeof(hop_limit), 0) == 0;
	if (!load(skb, at + 8, &h, sizeof(h)))
		return false;
	was = bpf_htons((__u16)(h.ttl << 8 | h.proto));
	h.ttl = hop_limit;
	h.check = csum_replace(h.check, was, bpf_htons((__u16)(h.ttl << 8 | h.proto)));
	return bpf_skb_store_bytes(skb, at + 8, &h, sizeof(h), 0) == 0;
}

static __always_inline __u32 encap_fold(const union addr *a)
{
	return bpf_ntohl(a->w[0] ^ a->w[1] ^ a->w[2] ^ a->w[3]);
}

/* FlowID (RFC 7637 section 3.2): entropy for the underlay, the same for a whole flow. */
static __always_inline __u8 encap_flow_id(const struct pkt *p)
{
	__u32 h, id;

	if (p->type == TYPE_ARP)
		return 0;
	h = encap_fold(&p->src) ^ encap_fold(&p->dst) ^ (__u32)(p->sport ^ p->dport_l4) ^ ((__u32)p->proto << 16);
	id = (h * 0x9e3779b1u) >> 24;
	return id ? id : 1;
}

/* Makes room for the outer headers. What bpf_skb_adjust_room refuses goes bare: the kernel
 * learns nothing of the outer headers, so that its neighbour code cannot be used and GSO
 * packets cannot be cut. That is ARP, and what counts as encapsulated already: a veth guest
 * tunnels by itself, or passes on what came out of a tunnel. */
static __always_inline enum verdict encap_room(struct __sk_buff *skb, struct pkt *p)
{
	__u8 none[MAC_LEN] = {};
	long err = -EALREADY;

	if (p->type != TYPE_ARP)
		err = bpf_skb_adjust_room(skb, OUTER_LEN, BPF_ADJ_ROOM_MAC, ENCAP_FLAGS);
	if (!err)
		return V_CONTINUE;
	if (err != -EALREADY || skb->gso_size)
		return V_ENCAP_FAILED;
	if (same_mac(p->peer->next_hop, none))
		return V_NEIGHBOUR_UNRESOLVED;
	p->bare = 1;
	return bpf_skb_change_head(skb, OUTER_LEN, 0) ? V_ENCAP_FAILED : V_CONTINUE;
}

/* Writes the outer headers into the room made for them, and the inner Ethernet header. */
static __always_inline enum verdict encap_write(struct __sk_buff *skb, const struct pkt *p, const struct eth *inner)
{
	struct encap_frame f = {};
	struct ipv4 ip = {};

	if (p->bare) {
		__builtin_memcpy(f.outer.eth.dst, p->peer->next_hop, MAC_LEN);
		__builtin_memcpy(f.outer.eth.src, p->peer->source, MAC_LEN);
	}
	f.outer.eth.type = bpf_htons(TYPE_IPV4);
	ip.version_ihl = 0x45;
	ip.tos = p->dscp;
	ip.total_len = bpf_htons((__u16)(skb->len - sizeof(struct eth)));
	ip.frag = bpf_htons(IPV4_DF);
	ip.ttl = 64;
	ip.proto = PROTO_GRE;
	ip.src = p->port->pa.w[3];
	ip.dst = p->peer->pa.w[3];
	ip.check = csum_fold(csum_ipv4(&ip));
	f.outer.ip = ip;
	f.outer.gre.flags = bpf_htons(GRE_KEY);
	f.outer.gre.type = bpf_htons(GRE_TYPE_ETHERNET);
	f.outer.gre.key = bpf_htonl(p->vsid << 8 | encap_flow_id(p));
	f.inner = *inner;
	if (bpf_skb_store_bytes(skb, 0, &f.outer, ENCAP_FRAME, 0))
		return V_ENCAP_FAILED;
	return V_CONTINUE;
}

static __always_inline enum verdict encap_remote(struct __sk_buff *skb, struct pkt *p, const struct eth *inner)
{
	enum verdict v = encap_room(skb, p);

	return v ? v : encap_write(skb, p, inner);
}

static __always_inline enum verdict encap(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v = encap_check_size(skb, p);
	struct eth inner = p->eth;

	if (v)
		return v;
	__builtin_memcpy(inner.dst, p->rec->mac, MAC_LEN);
	if (p->routed) {
		router_mac(inner.src, p->vsid);
		if (!encap_ttl(skb, p))
			return V_ENCAP_FAILED;
	}
	if (p->peer)
		return encap_remote(skb, p, &inner);
	/* Within a subnet the header is right already: writing would copy the packet. */
	if (!p->routed && same_mac(inner.dst, p->eth.dst))
		return V_CONTINUE;
	if (bpf_skb_store_bytes(skb, 0, &inner, sizeof(inner), 0))
		return V_ENCAP_FAILED;
	return V_CONTINUE;
}

static __always_inline enum verdict decap_cut(struct __sk_buff *skb, const struct pkt *p)
{
	return skb->len > p->end && bpf_skb_change_tail(skb, p->end, 0) ? V_DECAP_FAILED : V_CONTINUE;
}

static __always_inline enum verdict decap_strip(struct __sk_buff *skb, struct pkt *p)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | decap_flags;

	if (p->type == TYPE_IPV6)
		flags |= ADJ_ROOM_DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -OUTER_LEN, BPF_ADJ_ROOM_MAC, flags))
		return V_DECAP_FAILED;
	if (bpf_skb_store_bytes(skb, 0, &p->eth, sizeof(p->eth), 0))
		return V_DECAP_FAILED;
	p->stripped = 1;
	return V_CONTINUE;
}

/* Removes the outer headers and what pads the frame; p->base 0: uplink_xdp has done it. */
static __always_inline enum verdict decap(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v;

	if (p->base == 0)
		return V_CONTINUE;
	v = decap_cut(skb, p);
	if (v)
		return v;
	return dx2_wanted(p) ? dx2_wrap(skb, p) : decap_strip(skb, p);
}

#endif
