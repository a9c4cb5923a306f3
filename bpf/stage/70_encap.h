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
#include "lib/offload.h"
#include "lib/detour.h"
#include "lib/dx2.h"
#include "lib/flow.h"
#include "lib/gro.h"
#include "lib/icmp.h"
#include "lib/mss.h"
#include "lib/tos.h"
#include "lib/vxdev.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/record.h"
#include "maps/setting.h"
#include "maps/vouch.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* Size check, inner Ethernet, outer headers; and the other way around, decap. */

/* The inner Ethernet header belongs to the outer headers as far as GSO is concerned. */
#define ENCAP_FLAGS                                                                                                    \
	(BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(struct eth)) | BPF_F_ADJ_ROOM_FIXED_GSO |        \
	 BPF_F_ADJ_ROOM_NO_CSUM_RESET)

#define EALREADY 114

/* What a packet to a multicast PA may cross: a site's routers (RFC 2365 section 8 has the
 * tradition of thresholds that this goes by). */
#define GROUP_TTL 16

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
	__u32 limit = p->peer ? p->peer->mtu : p->dport->mtu, room = outer_len(p->vxlan, p->outer6);

	if (p->exchange)
		room = p->type == TYPE_IPV4 ? EXCHANGE_OVERHEAD : 0;
	if (p->peer && (!p->rewrite || p->exchange))
		limit = limit > room ? limit - room : 0;
	if (encap_size(skb, p) <= limit) {
		mss_outbound(skb, p, limit);
		return V_CONTINUE;
	}
	icmp_error(skb, p, true, limit);
	return V_TOO_BIG;
}

static __always_inline bool encap_ttl(struct __sk_buff *skb, const struct pkt *p, __u32 base)
{
	const __u32 at = base + sizeof(struct eth);
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

static __always_inline __u64 encap_flags(const struct pkt *p)
{
	return ENCAP_FLAGS | (p->outer6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) |
	       (p->vxlan ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP : BPF_F_ADJ_ROOM_ENCAP_L4_GRE);
}

/* Makes room for the outer headers. What bpf_skb_adjust_room refuses goes bare: the kernel
 * learns nothing of the outer headers, so that its neighbour code cannot be used and GSO
 * packets cannot be cut. That is ARP, and what counts as encapsulated already: a veth guest
 * tunnels by itself, or passes on what came out of a tunnel. */
static __always_inline enum verdict encap_room(struct __sk_buff *skb, struct pkt *p)
{
	__u32 room = outer_len(p->vxlan, p->outer6);
	__u8 none[MAC_LEN] = {};
	long err = -EALREADY;

	if (p->type != TYPE_ARP)
		err = bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, encap_flags(p));
	if (!err) {
		p->bare = vouched(p->peer);
		return V_CONTINUE;
	}
	if (err != -EALREADY || skb->gso_size)
		return V_ENCAP_FAILED;
	if (same_mac(p->peer->next_hop, none))
		return V_NEIGHBOUR_UNRESOLVED;
	p->bare = 1;
	return bpf_skb_change_head(skb, room, 0) ? V_ENCAP_FAILED : V_CONTINUE;
}

static __always_inline struct eth outer_eth(const struct pkt *p)
{
	struct eth eth = {.type = p->outer6 ? bpf_htons(TYPE_IPV6) : bpf_htons(TYPE_IPV4)};

	if (p->bare) {
		__builtin_memcpy(eth.dst, p->peer->next_hop, MAC_LEN);
		__builtin_memcpy(eth.src, p->peer->source, MAC_LEN);
	}
	return eth;
}

/* The identification of the guest's IPv4 packet is the outer one, too: GRO merges what a flow's packets carry only if
 * both count alike. Nothing else asks for it (RFC 6864). */
static __always_inline __be16 outer_id(const struct pkt *p)
{
	return p->type == TYPE_IPV4 ? p->id : 0;
}

static __always_inline struct ipv4 outer_ipv4(struct __sk_buff *skb, const struct pkt *p, __u8 proto, __u8 tos)
{
	struct ipv4 ip = {
		.version_ihl = 0x45,
		.tos = tos,
		.total_len = bpf_htons((__u16)(skb->len - sizeof(struct eth))),
		.id = outer_id(p),
		.frag = bpf_htons(IPV4_DF),
		.ttl = p->to_group ? GROUP_TTL : 64,
		.proto = proto,
		.src = outer_from(p->port, p->peer)->w[3],
		.dst = p->peer->remote.w[3],
	};

	ip.check = csum_fold(csum_ipv4(&ip));
	return ip;
}

/* The flow label is entropy, too (RFC 6438). */
static __always_inline struct ipv6 outer_ipv6(struct __sk_buff *skb, const struct pkt *p, __u8 proto, __u8 tos,
						      __u32 hash)
{
	struct ipv6 ip = {
		.version_class_flow = bpf_htonl(6u << 28 | (__u32)tos << 20 | hash >> 12),
		.payload_len = bpf_htons((__u16)(skb->len - sizeof(struct eth) - sizeof(struct ipv6))),
		.next = proto,
		.hop_limit = p->to_group ? GROUP_TTL : 64,
	};

	__builtin_memcpy(ip.src, outer_from(p->port, p->peer), sizeof(ip.src));
	__builtin_memcpy(ip.dst, &p->peer->remote, sizeof(ip.dst));
	return ip;
}

/* FlowID (RFC 7637 section 3.2): 0 says that there is none. */
static __always_inline struct nvgre outer_nvgre(const struct pkt *p, __u32 hash)
{
	__u32 id = hash >> 24;

	if (!id && p->type != TYPE_ARP)
		id = 1;
	return (struct nvgre){
		.flags = bpf_htons(GRE_KEY),
		.type = bpf_htons(GRE_TYPE_ETHERNET),
		.key = bpf_htonl(p->vsid << 8 | id),
	};
}

static __always_inline struct udp outer_udp(__u32 len, __be16 port, __u32 hash)
{
	return (struct udp){
		.sport = bpf_htons((__u16)(VXLAN_SPORT | hash >> 18)),
		.dport = port,
		.len = bpf_htons((__u16)len),
	};
}

static __always_inline struct vxlan outer_vxlan(const struct pkt *p)
{
	return (struct vxlan){.flags = VXLAN_VNI, .vni = bpf_htonl(p->vsid << 8)};
}

/* Writes the outer headers, and the inner Ethernet header with them; returns their length. */
static __always_inline __u32 outer_write(struct __sk_buff *skb, const struct pkt *p, const struct eth *inner,
					 struct outer_frame *f)
{
	const struct setting *s = settings();
	__u32 hash = flow_hash(p);
	__u8 proto = p->vxlan ? PROTO_UDP : PROTO_GRE, tos = tos_out(p, s);

	f->nvgre4.eth = outer_eth(p);
	if (p->outer6)
		f->nvgre6.ip = outer_ipv6(skb, p, proto, tos, hash);
	else
		f->nvgre4.ip = outer_ipv4(skb, p, proto, tos);
	if (!p->vxlan && !p->outer6) {
		f->nvgre4.gre = outer_nvgre(p, hash);
		f->nvgre4.inner = *inner;
		return sizeof(f->nvgre4);
	}
	if (!p->vxlan) {
		f->nvgre6.gre = outer_nvgre(p, hash);
		f->nvgre6.inner = *inner;
		return sizeof(f->nvgre6);
	}
	if (!s)
		return 0;
	if (!p->outer6) {
		f->vxlan4.udp = outer_udp(skb->len - offsetof(struct vxlan4_frame, udp), s->vxlan_port, hash);
		f->vxlan4.vxlan = outer_vxlan(p);
		f->vxlan4.inner = *inner;
		return sizeof(f->vxlan4);
	}
	f->vxlan6.udp = outer_udp(skb->len - offsetof(struct vxlan6_frame, udp), s->vxlan_port, hash);
	f->vxlan6.vxlan = outer_vxlan(p);
	f->vxlan6.inner = *inner;
	return sizeof(f->vxlan6);
}

/* Writes the outer headers into the room made for them, and the inner Ethernet header. */
static __always_inline enum verdict encap_write(struct __sk_buff *skb, const struct pkt *p, const struct eth *inner,
						struct outer_frame *f)
{
	__u32 len = outer_write(skb, p, inner, f);

	if (!len || len > OUTER_FRAME_MAX || bpf_skb_store_bytes(skb, 0, &f->nvgre4, len, 0))
		return V_ENCAP_FAILED;
	return V_CONTINUE;
}

static __always_inline enum verdict encap_remote(struct __sk_buff *skb, struct pkt *p, const struct eth *inner)
{
	enum verdict v = encap_room(skb, p);
	struct outer_frame f = {};

	return v ? v : encap_write(skb, p, inner, &f);
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
		if (!encap_ttl(skb, p, 0))
			return V_ENCAP_FAILED;
	}
	if (p->rewrite)
		return V_CONTINUE; /* the kernel writes the Ethernet header */
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

#define DECAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

/* Whether the kernel can be told where the L4 header is: right behind an IP header without options. */
static __always_inline bool decap_plain(const struct pkt *p)
{
	return p->l4 - p->base == sizeof(struct eth) + (p->type == TYPE_IPV6 ? sizeof(struct ipv6) : sizeof(struct ipv4));
}

/* Takes len bytes from behind the Ethernet header as what a tunnel was, and puts them back. */
static __always_inline bool decap_again(struct __sk_buff *skb, void *bytes, __u32 len)
{
	return load(skb, sizeof(struct eth), bytes, len) &&
	       !bpf_skb_adjust_room(skb, -(int)len, BPF_ADJ_ROOM_MAC, DECAP_FLAGS | decap_nvgre) &&
	       !bpf_skb_adjust_room(skb, len, BPF_ADJ_ROOM_MAC, DECAP_FLAGS) &&
	       !bpf_skb_store_bytes(skb, sizeof(struct eth), bytes, len, BPF_F_RECOMPUTE_CSUM);
}

/* Tells the kernel where the L4 header of a super-packet is. To it that still is where the transport's was, before
 * the packet; with the tunnel forgotten it looks there when the packet goes out of a device with a queue, and
 * Linux 7.1 to 7.3 panics or drops it. Only a tunnel's headers put in front set the place: so here come
 * some of no length at all, and then the kernel is made to forget these: it wants at least IP and 4 bytes of GRE. */
static __always_inline bool decap_point(struct __sk_buff *skb, const struct pkt *p)
{
	__u64 flags = DECAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	__u8 bytes[sizeof(struct ipv6) + 4];

	if (p->type == TYPE_IPV6)
		return !bpf_skb_adjust_room(skb, 0, BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) &&
		       decap_again(skb, bytes, sizeof(struct ipv6) + 4);
	return !bpf_skb_adjust_room(skb, 0, BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) &&
	       decap_again(skb, bytes, sizeof(struct ipv4) + 4);
}

/* The same for what the kernel's vxlan device has stripped. */
static __always_inline bool decap_arrived(struct __sk_buff *skb)
{
	struct pkt p = {};
	struct eth eth;

	if (!decap_nvgre || !skb->gso_size)
		return true;
	if (!load(skb, 0, &eth, sizeof(eth)))
		return false;
	p.type = bpf_ntohs(eth.type);
	return decap_point(skb, &p);
}

static __always_inline enum verdict decap_strip(struct __sk_buff *skb, struct pkt *p)
{
	bool forget = decap_nvgre && (!skb->gso_size || decap_plain(p));
	__u64 flags = DECAP_FLAGS;

	if (forget)
		flags |= p->vxlan ? decap_vxlan : decap_nvgre;
	if ((p->type == TYPE_IPV6) != p->outer6)
		flags |= p->outer6 ? ADJ_ROOM_DECAP_L3_IPV4 : ADJ_ROOM_DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(int)p->base, BPF_ADJ_ROOM_MAC, flags))
		return V_DECAP_FAILED;
	if (forget && skb->gso_size && !decap_point(skb, p))
		return V_DECAP_FAILED;
	if (bpf_skb_store_bytes(skb, 0, &p->eth, sizeof(p->eth), 0))
		return V_DECAP_FAILED;
	p->stripped = 1;
	return V_CONTINUE;
}

/* Removes the outer headers and what pads the frame; p->base 0: uplink_xdp has done it. */
static __always_inline enum verdict decap(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v = tos_arrive(skb, p);
	const struct detour *d;

	if (v || p->base == 0)
		return v;
	v = decap_cut(skb, p);
	if (v)
		return v;
	d = detour_wanted(p);
	if (d && d->by == DETOUR_DX2)
		return dx2_wrap(skb, p);
	if (d && d->by == DETOUR_VXLAN && (!decap_nvgre || decap_plain(p)))
		return vxdev_leave(skb, p);
	p->merge = d && d->by == DETOUR_VETH && gro_reaches(p->dport->slot);
	return decap_strip(skb, p);
}

#endif
