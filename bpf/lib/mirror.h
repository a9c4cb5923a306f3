/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_MIRROR_H
#define WEFT_LIB_MIRROR_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/checksum.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/finish.h"
#include "lib/offload.h"
#include "maps/local_pa.h"
#include "maps/mirror.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* Mirroring, by programs of their own on the devices of mirrored ports: others pay nothing. A copy
 * is made on the port's device and goes by a device of its own, where it is cut, and given outer
 * headers when it is for another host: the original is never touched. A copy carries MIRROR_MARK into
 * the port that gets it, and what has that mark is not mirrored: there can be no loop. */

#define MIRROR_BURST_NS 100000000ull /* of its rate, so much may come at once */
#define MIRROR_GRE_TYPE 0x88be       /* ERSPAN type I; the key is the port's that gets the copy */
#define MIRROR_FLAGS                                                                                                   \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_ENCAP_L4_GRE | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
#define MIRROR_TAG 4 /* bytes that a tag takes in a frame */

/* The generic cell rate algorithm; two CPUs that meet here may let one more through. */
static __always_inline bool mirror_in_rate(struct mirror *m)
{
	__u64 now, from;

	if (!m->interval)
		return true;
	now = bpf_ktime_get_ns();
	from = m->used > now ? m->used : now;
	if (from - now > MIRROR_BURST_NS)
		return false;
	m->used = from + m->interval;
	return true;
}

static __always_inline bool mirror_within(const struct mirror *m, const union addr *a)
{
	return (a->d[0] & m->mask.d[0]) == m->prefix.d[0] && (a->d[1] & m->mask.d[1]) == m->prefix.d[1];
}

/* What filters look at. Of IPv6 with extension headers the protocol is the first of them. */
struct mirror_view {
	union addr src, dst;
	__u32 l4; /* 0: no ports */
	__u8 proto;
};

static __always_inline bool mirror_look(struct __sk_buff *skb, struct mirror_view *w)
{
	__u32 at = sizeof(struct eth);
	struct ipv4 ip4;
	struct ipv6 ip6;
	__be16 type;

	if (!load(skb, 2 * MAC_LEN, &type, sizeof(type)))
		return false;
	if (type == bpf_htons(TYPE_VLAN)) {
		at += 4;
		if (!load(skb, at - 2, &type, sizeof(type)))
			return false;
	}
	if (type == bpf_htons(TYPE_IPV4)) {
		if (!load(skb, at, &ip4, sizeof(ip4)))
			return false;
		addr_set4(&w->src, ip4.src);
		addr_set4(&w->dst, ip4.dst);
		w->proto = ip4.proto;
		w->l4 = ip4.frag & bpf_htons(IPV4_OFFSET) ? 0 : at + (ip4.version_ihl & 15) * 4;
		return true;
	}
	if (type != bpf_htons(TYPE_IPV6) || !load(skb, at, &ip6, sizeof(ip6)))
		return false;
	addr_set6(&w->src, ip6.src);
	addr_set6(&w->dst, ip6.dst);
	w->proto = ip6.next;
	w->l4 = at + sizeof(ip6);
	return true;
}

static __always_inline bool mirror_has_port(struct __sk_buff *skb, const struct mirror_view *w, __u16 port)
{
	__be16 ports[2];

	if (!w->l4 || (w->proto != PROTO_TCP && w->proto != PROTO_UDP) || !load(skb, w->l4, ports, sizeof(ports)))
		return false;
	return ports[0] == bpf_htons(port) || ports[1] == bpf_htons(port);
}

static __noinline bool mirror_wants(struct __sk_buff *skb, const struct mirror *m)
{
	struct mirror_view w = {};

	if (!skb || !m)
		return false;
	if (!(m->flags & (MIRROR_PROTO | MIRROR_PREFIX)) && !m->l4_port)
		return true;
	if (!mirror_look(skb, &w))
		return false;
	if (m->flags & MIRROR_PROTO && w.proto != m->proto)
		return false;
	if (m->flags & MIRROR_PREFIX && !mirror_within(m, &w.src) && !mirror_within(m, &w.dst))
		return false;
	return !m->l4_port || mirror_has_port(skb, &w, m->l4_port);
}

/* One copy. The clone keeps mark and priority, which say whose it is. */
static __always_inline enum verdict mirror_copy(struct __sk_buff *skb, struct mirror *m, __u32 n)
{
	__u32 zero = 0, mark = skb->mark, priority = skb->priority;
	const __u32 *device = bpf_map_lookup_elem(&mirror_device, &zero);
	long err;

	if (!mirror_in_rate(m))
		return V_MIRROR_LIMITED;
	if (!device || !*device)
		return V_MIRROR_FAILED;
	skb->mark = skb->ifindex;
	skb->priority = n;
	err = bpf_clone_redirect(skb, *device, 0);
	skb->mark = mark;
	skb->priority = priority;
	return err < 0 ? V_MIRROR_FAILED : V_CONTINUE;
}

/* Copies a frame for all that want it, and leaves it as it is. */
static __always_inline int mirror_all(struct __sk_buff *skb, __u32 wanted)
{
	struct pkt p = {.len = skb->len, .direction = wanted == MIRROR_INBOUND ? INBOUND : OUTBOUND};
	struct mirror_key k = {.ifindex = skb->ifindex};

	for (__u32 n = 0; n < MIRROR_MAX; n++) {
		struct mirror *m;
		enum verdict v;

		k.n = n;
		m = bpf_map_lookup_elem(&mirror, &k);
		if (!m)
			break;
		if (!(m->flags & wanted) || !mirror_wants(skb, m))
			continue;
		v = mirror_copy(skb, m, n);
		if (!v)
			continue;
		p.port_id = m->port_id;
		report(skb, &p, v);
	}
	return TC_ACT_UNSPEC;
}

struct mirror_outer4 {
	struct eth eth;
	struct ipv4 ip;
	struct nvgre gre;
} __attribute__((packed, aligned(2)));

struct mirror_outer6 {
	struct eth eth;
	struct ipv6 ip;
	struct nvgre gre;
} __attribute__((packed, aligned(2)));

union mirror_outer {
	struct mirror_outer4 v4;
	struct mirror_outer6 v6;
};

static __always_inline struct nvgre mirror_gre(const struct mirror *m)
{
	return (struct nvgre){.flags = bpf_htons(GRE_KEY), .type = bpf_htons(MIRROR_GRE_TYPE), .key = bpf_htonl(m->to_id)};
}

static __always_inline struct eth mirror_eth(const struct mirror *m, __u16 type)
{
	struct eth eth = {.type = bpf_htons(type)};

	__builtin_memcpy(eth.dst, m->way.next_hop, MAC_LEN);
	__builtin_memcpy(eth.src, m->way.source, MAC_LEN);
	return eth;
}

static __always_inline __u32 mirror_write4(const struct __sk_buff *skb, const struct mirror *m, struct mirror_outer4 *o)
{
	struct ipv4 ip = {
		.version_ihl = 0x45,
		.total_len = bpf_htons((__u16)(skb->len - sizeof(struct eth))),
		.frag = bpf_htons(IPV4_DF),
		.ttl = 64,
		.proto = PROTO_GRE,
		.src = m->way.local.w[3],
		.dst = m->way.remote.w[3],
	};

	ip.check = csum_fold(csum_ipv4(&ip));
	o->eth = mirror_eth(m, TYPE_IPV4);
	o->ip = ip;
	o->gre = mirror_gre(m);
	return sizeof(*o);
}

static __always_inline __u32 mirror_write6(const struct __sk_buff *skb, const struct mirror *m, struct mirror_outer6 *o)
{
	struct ipv6 ip = {
		.version_class_flow = bpf_htonl(6u << 28),
		.payload_len = bpf_htons((__u16)(skb->len - sizeof(struct eth) - sizeof(struct ipv6))),
		.next = PROTO_GRE,
		.hop_limit = 64,
	};

	__builtin_memcpy(ip.src, &m->way.local, sizeof(ip.src));
	__builtin_memcpy(ip.dst, &m->way.remote, sizeof(ip.dst));
	o->eth = mirror_eth(m, TYPE_IPV6);
	o->ip = ip;
	o->gre = mirror_gre(m);
	return sizeof(*o);
}

/* Room for outer headers; where the kernel knows no encapsulation of such a frame it need not. */
static __always_inline bool mirror_room(struct __sk_buff *skb, __u32 room, __u64 flags)
{
	__be16 type;

	if (!load(skb, 2 * MAC_LEN, &type, sizeof(type)))
		return false;
	if ((type == bpf_htons(TYPE_IPV4) || type == bpf_htons(TYPE_IPV6)) &&
	    !bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags))
		return true;
	return !skb->gso_size && !bpf_skb_change_head(skb, room, 0);
}

/* The Ethernet header of a copy, with the tag that the kernel keeps beside the frame. */
struct mirror_inner {
	struct eth eth; /* to the tag, if there is one */
	__be16 tci, type;
} __attribute__((packed, aligned(2)));

/* Reads it, and takes the tag from beside the frame: on the wire it belongs to the copy, and not before it. Where another
 * tag takes its place there, the frame had two. */
static __always_inline __u32 mirror_read(struct __sk_buff *skb, struct mirror_inner *in)
{
	if (!load(skb, 0, &in->eth, sizeof(in->eth)))
		return 0;
	if (!skb->vlan_present)
		return sizeof(in->eth);
	in->type = in->eth.type;
	in->eth.type = (__be16)skb->vlan_proto;
	in->tci = bpf_htons((__u16)skb->vlan_tci);
	return bpf_skb_vlan_pop(skb) || skb->vlan_present ? 0 : sizeof(*in);
}

static __always_inline bool mirror_store(struct __sk_buff *skb, __u32 at, const struct mirror_inner *in, __u32 len)
{
	if (len == sizeof(in->eth))
		return !bpf_skb_store_bytes(skb, at, in, sizeof(in->eth), 0);
	return !bpf_skb_store_bytes(skb, at, in, sizeof(*in), 0);
}

static __always_inline bool mirror_encap(struct __sk_buff *skb, const struct mirror *m)
{
	struct mirror_inner inner = {};
	union mirror_outer o;
	bool six = !addr_is4(&m->way.remote);
	__u32 room = outer_len(false, six), len, head;
	__u64 flags = MIRROR_FLAGS | (six ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);

	if (!m->way.ifindex || !m->way.local.w[3] || addr_is4(&m->way.local) == six)
		return false;
	if (!(m->way.next_hop[0] | m->way.next_hop[1] | m->way.next_hop[2] | m->way.next_hop[3] | m->way.next_hop[4] |
	      m->way.next_hop[5]))
		return false;
	head = mirror_read(skb, &inner);
	if (!head || !mirror_room(skb, room + head - sizeof(struct eth), flags | BPF_F_ADJ_ROOM_ENCAP_L2((__u64)head)))
		return false;
	if (!mirror_store(skb, room, &inner, head))
		return false;
	if (six) {
		len = mirror_write6(skb, m, &o.v6);
		return !bpf_skb_store_bytes(skb, 0, &o.v6, sizeof(o.v6), 0) && len;
	}
	len = mirror_write4(skb, m, &o.v4);
	return !bpf_skb_store_bytes(skb, 0, &o.v4, sizeof(o.v4), 0) && len;
}

/* How much of a frame is copied: what the mirror wants, and what the underlay carries in one piece. */
static __always_inline __u32 mirror_snap(const struct __sk_buff *skb, const struct mirror *m)
{
	__u32 most, over = outer_len(false, !addr_is4(&m->way.remote)) - sizeof(struct eth);
	__u32 snap = m->snap, tag = skb->vlan_present ? MIRROR_TAG : 0;

	if (!m->to && !skb->gso_size) {
		most = m->way.mtu > over ? m->way.mtu - over : 0;
		snap = snap < most ? snap : most;
	}
	return snap > tag ? snap - tag : 0;
}

static __always_inline int mirror_lost(struct __sk_buff *skb, const struct mirror *m)
{
	struct pkt p = {.len = skb->len, .direction = OUTBOUND, .port_id = m->port_id};

	report(skb, &p, V_MIRROR_FAILED);
	return TC_ACT_SHOT;
}

/* A copy, on the device that is there for it. */
static __always_inline int mirror_forward(struct __sk_buff *skb)
{
	struct mirror_key k = {.ifindex = skb->mark, .n = skb->priority};
	struct mirror *m = bpf_map_lookup_elem(&mirror, &k);
	__u32 snap;

	if (!m)
		return TC_ACT_SHOT;
	skb->mark = 0;
	skb->priority = 0;
	snap = mirror_snap(skb, m);
	if (skb->len > snap && bpf_skb_change_tail(skb, snap, 0))
		return mirror_lost(skb, m);
	if (m->to) {
		skb->mark = MIRROR_MARK;
		return bpf_redirect(m->to, 0);
	}
	return mirror_encap(skb, m) ? bpf_redirect(m->way.ifindex, 0) : mirror_lost(skb, m);
}

/* What of the outer headers of a copy matters. */
struct mirror_arrival {
	union addr src;
	__u32 base; /* where the frame begins */
	__u32 end;  /* where the IP packet ends */
	bool six;
};

static __always_inline bool mirror_parse4(struct __sk_buff *skb, struct mirror_arrival *a)
{
	union addr dst;
	struct ipv4 ip;

	if (!load(skb, sizeof(struct eth), &ip, sizeof(ip)) || ip.proto != PROTO_GRE || ip.version_ihl != 0x45 ||
	    ip.frag & bpf_htons(IPV4_MF | IPV4_OFFSET) || csum_fold(csum_ipv4(&ip)))
		return false;
	addr_set4(&a->src, ip.src);
	addr_set4(&dst, ip.dst);
	a->base = sizeof(struct mirror_outer4);
	a->end = sizeof(struct eth) + bpf_ntohs(ip.total_len);
	return is_local_pa(&dst, 0);
}

static __always_inline bool mirror_parse6(struct __sk_buff *skb, struct mirror_arrival *a)
{
	union addr dst;
	struct ipv6 ip;

	if (!load(skb, sizeof(struct eth), &ip, sizeof(ip)) || ip.next != PROTO_GRE)
		return false;
	addr_set6(&a->src, ip.src);
	addr_set6(&dst, ip.dst);
	a->base = sizeof(struct mirror_outer6);
	a->end = sizeof(struct eth) + sizeof(ip) + bpf_ntohs(ip.payload_len);
	a->six = true;
	return !addr_is4(&a->src) && is_local_pa(&dst, 1);
}

/* Whether a frame from the underlay is a copy for this host. All else is from_uplink's. */
static __always_inline bool mirror_is_copy(struct __sk_buff *skb, struct mirror_arrival *a, struct nvgre *gre)
{
	__be16 type;

	if (skb->pkt_type != PACKET_HOST || !load(skb, 2 * MAC_LEN, &type, sizeof(type)))
		return false;
	if (type == bpf_htons(TYPE_IPV4) ? !mirror_parse4(skb, a) : type != bpf_htons(TYPE_IPV6) || !mirror_parse6(skb, a))
		return false;
	if (a->end > skb->len || a->end < a->base + sizeof(struct eth))
		return false;
	if (!load(skb, a->base - sizeof(*gre), gre, sizeof(*gre)))
		return false;
	return gre->flags == bpf_htons(GRE_KEY) && gre->type == bpf_htons(MIRROR_GRE_TYPE);
}

static __always_inline bool mirror_strip(struct __sk_buff *skb, const struct mirror_arrival *a)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	struct eth inner;

	if (skb->len > a->end && bpf_skb_change_tail(skb, a->end, 0))
		return false;
	if (!load(skb, a->base, &inner, sizeof(inner)))
		return false;
	if ((inner.type == bpf_htons(TYPE_IPV6)) != a->six)
		flags |= a->six ? ADJ_ROOM_DECAP_L3_IPV4 : ADJ_ROOM_DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(int)a->base, BPF_ADJ_ROOM_MAC, flags))
		return false;
	return !bpf_skb_store_bytes(skb, 0, &inner, sizeof(inner), 0);
}

/* A copy from another host, for a port of this one. */
static __always_inline int mirror_arrive(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND};
	struct mirror_arrival a = {};
	struct mirror_from_key k;
	struct nvgre gre;
	__u32 *to, device;

	if (!mirror_is_copy(skb, &a, &gre))
		return TC_ACT_UNSPEC;
	k.port_id = bpf_ntohl(gre.key);
	k.pa = a.src;
	to = bpf_map_lookup_elem(&mirror_from, &k);
	if (!to) {
		report(skb, &p, V_MIRROR_NOT_IN_POLICY);
		return TC_ACT_SHOT;
	}
	device = *to;
	if (!mirror_strip(skb, &a)) {
		p.port_id = k.port_id;
		report(skb, &p, V_MIRROR_FAILED);
		return TC_ACT_SHOT;
	}
	skb->mark = MIRROR_MARK;
	return bpf_redirect(device, 0);
}

#endif
