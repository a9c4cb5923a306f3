/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_PARSE_H
#define WEFT_STAGE_PARSE_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/offload.h"
#include "lib/share.h"
#include "lib/udpsum.h"
#include "maps/local_pa.h"
#include "maps/port.h"
#include "maps/rewrite_in.h"
#include "maps/setting.h"
#include "maps/shape.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* Find the port and the headers; drop what is not a whole frame. */

#define MAX_EXTENSIONS 6
#define MAX_ND_OPTIONS 4

static __always_inline enum verdict parse_arp(struct __sk_buff *skb, struct pkt *p, __u32 at)
{
	struct arp a;
	__be32 sender, target;

	if (p->end - at < sizeof(a) || !load(skb, at, &a, sizeof(a)))
		return V_FRAME_TRUNCATED;
	if (a.htype != bpf_htons(1) || a.ptype != bpf_htons(TYPE_IPV4) || a.hlen != MAC_LEN || a.plen != 4)
		return V_ARP_MALFORMED;
	if (a.op != bpf_htons(ARP_REQUEST) && a.op != bpf_htons(ARP_REPLY))
		return V_ARP_MALFORMED;
	p->arp_op = bpf_ntohs(a.op);
	__builtin_memcpy(&sender, a.sender, sizeof(sender));
	__builtin_memcpy(&target, a.target, sizeof(target));
	addr_set4(&p->src, sender);
	addr_set4(&p->dst, target);
	__builtin_memcpy(p->claim, a.sender_mac, MAC_LEN);
	p->has_claim = 1;
	return V_CONTINUE;
}

#define CLAIM_FOUND (1ull << 62)
#define CLAIM_MALFORMED (1ull << 63)

/* The options of RS, NS and NA, and the MAC that the one of the wanted type claims: in the low 48 bits, with
 * one of the above. A global function, so that the verifier walks it once. */
__noinline __u64 parse_nd_options(struct __sk_buff *skb, __u32 at, __u32 left, __u32 wanted)
{
	__u64 claim = 0;

	for (int i = 0; i < MAX_ND_OPTIONS; i++) {
		struct {
			__u8 type, len;
			__be16 mac[3];
		} o;

		if (left == 0)
			return claim;
		if (left < sizeof(o) || !load(skb, at, &o, sizeof(o)))
			return CLAIM_MALFORMED;
		if (o.len == 0 || o.len * 8u > left)
			return CLAIM_MALFORMED;
		if (o.type == wanted) {
			if (o.len != 1 || claim)
				return CLAIM_MALFORMED;
			claim = CLAIM_FOUND | (__u64)o.mac[2] << 32 | (__u64)o.mac[1] << 16 | o.mac[0];
		}
		at += o.len * 8u;
		left -= o.len * 8u;
	}
	return left == 0 ? claim : CLAIM_MALFORMED;
}

static __always_inline enum verdict parse_nd_claim(struct __sk_buff *skb, struct pkt *p, __u32 fixed)
{
	__u64 claim = parse_nd_options(skb, p->l4 + fixed, p->l4_len - fixed, p->icmp_type == ND_NA ? ND_OPT_TARGET : ND_OPT_SOURCE);

	if (claim & CLAIM_MALFORMED)
		return V_ND_MALFORMED;
	p->has_claim = claim >> 62;
	__builtin_memcpy(p->claim, &claim, MAC_LEN);
	return V_CONTINUE;
}

static __always_inline enum verdict parse_nd(struct __sk_buff *skb, struct pkt *p)
{
	__be32 target[4];
	__u32 least;

	p->nd = 1;
	/* Behind extension headers (a fragment's is one) it would only be hiding. */
	if (p->l4 != p->base + sizeof(struct eth) + sizeof(struct ipv6) || p->ttl != 255 || p->icmp_code != 0)
		return V_ND_MALFORMED;
	switch (p->icmp_type) {
	case ND_RS:
		least = 8;
		break;
	case ND_RA:
		least = 16;
		break;
	case ND_REDIRECT:
		least = 40;
		break;
	default:
		least = 24;
	}
	if (p->l4_len < least)
		return V_ND_MALFORMED;
	if (p->icmp_type == ND_RS)
		return parse_nd_claim(skb, p, 8);
	if (p->icmp_type != ND_NS && p->icmp_type != ND_NA)
		return V_CONTINUE;
	if (!load(skb, p->l4 + 8, target, sizeof(target)))
		return V_ND_MALFORMED;
	addr_set6(&p->hop, target);
	if (addr6_multicast(&p->hop) || addr_unspecified(&p->hop) || addr_is4(&p->hop))
		return V_ND_MALFORMED;
	return parse_nd_claim(skb, p, 24);
}

/* Ports of TCP and UDP; type and code of ICMP. */
static __always_inline enum verdict parse_l4(struct __sk_buff *skb, struct pkt *p)
{
	bool icmp6 = p->type == TYPE_IPV6 && p->proto == PROTO_ICMPV6;
	bool icmp = icmp6 || (p->type == TYPE_IPV4 && p->proto == PROTO_ICMP);
	bool ports = p->proto == PROTO_TCP || p->proto == PROTO_UDP;
	__be16 head[2];

	if (p->later || !(icmp || (ports && !p->fragment)))
		return V_CONTINUE;
	if (p->l4_len < sizeof(head))
		return V_CONTINUE;
	if (!load_head(skb, p->l4, head, sizeof(head)))
		return V_IP_MALFORMED;
	if (ports) {
		p->sport = bpf_ntohs(head[0]);
		p->dport_l4 = bpf_ntohs(head[1]);
		return V_CONTINUE;
	}
	p->icmp_type = bpf_ntohs(head[0]) >> 8;
	p->icmp_code = bpf_ntohs(head[0]);
	if (icmp6 && p->icmp_type >= ND_RS && p->icmp_type <= ND_REDIRECT)
		return parse_nd(skb, p);
	return V_CONTINUE;
}

/* All fragments but the last are of whole 8 bytes. With less, one could show other ports than those
 * that receivers put together (RFC 1858). */
static __always_inline bool parse_is_part(__u32 len)
{
	return len != 0 && len % 8 == 0;
}

static __always_inline enum verdict parse_ipv4(struct __sk_buff *skb, struct pkt *p, __u32 at)
{
	struct ipv4 h;
	__u32 ihl, total, frag;

	if (p->end - at < sizeof(h) || !load_head(skb, at, &h, sizeof(h)))
		return V_FRAME_TRUNCATED;
	ihl = (h.version_ihl & 15) * 4;
	total = bpf_ntohs(h.total_len);
	if (h.version_ihl >> 4 != 4 || ihl < sizeof(h) || total < ihl || total > p->end - at)
		return V_IP_MALFORMED;
	addr_set4(&p->src, h.src);
	addr_set4(&p->dst, h.dst);
	frag = bpf_ntohs(h.frag);
	p->later = (frag & IPV4_OFFSET) != 0;
	p->fragment = (frag & (IPV4_OFFSET | IPV4_MF)) != 0;
	p->proto = h.proto;
	p->ttl = h.ttl;
	p->tos = h.tos;
	p->id = h.id;
	p->l3_len = total;
	p->l4 = at + ihl;
	p->l4_len = total - ihl;
	if (frag & IPV4_MF && !parse_is_part(p->l4_len))
		return V_IP_MALFORMED;
	return parse_l4(skb, p);
}

#define EXTENSIONS_MALFORMED (1ull << 63)
#define EXTENSIONS_FRAGMENT (1ull << 62)
#define EXTENSIONS_LATER (1ull << 61)

static __always_inline bool parse_is_extension(__u8 next)
{
	return next == PROTO_HOP_BY_HOP || next == PROTO_ROUTING || next == PROTO_DEST_OPTIONS || next == PROTO_FRAGMENT;
}

/* Walks the extension headers from at on, of left bytes, the first being next. Returns how long they are, in
 * the low 32 bits, and behind that the protocol that follows, with the above. A global function, so that the
 * verifier walks it once, and not all that comes after it for each number of headers. */
__noinline __u64 parse_extensions(struct __sk_buff *skb, __u32 at, __u32 left, __u32 next)
{
	__u32 all = left;
	__u64 found = 0;

	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		struct ipv6_frag h;
		__u32 len;

		if (!parse_is_extension(next))
			return found | (__u64)(next & 0xff) << 32 | (all - left);
		if (i == MAX_EXTENSIONS || left < sizeof(h) || !load(skb, at, &h, sizeof(h)))
			return EXTENSIONS_MALFORMED;
		if (found & EXTENSIONS_FRAGMENT) /* behind it, an overlapping fragment could reach what follows */
			return EXTENSIONS_MALFORMED;
		len = next == PROTO_FRAGMENT ? sizeof(h) : 8 * (h.reserved + 1u);
		if (len > left)
			return EXTENSIONS_MALFORMED;
		at += len;
		left -= len;
		if (next == PROTO_FRAGMENT) {
			__u16 offset_more = bpf_ntohs(h.offset_more);

			if (offset_more & 1 && !parse_is_part(left))
				return EXTENSIONS_MALFORMED;
			if (offset_more & 0xfff9)
				found |= EXTENSIONS_FRAGMENT;
			if (offset_more & 0xfff8)
				return found | EXTENSIONS_LATER | (__u64)h.next << 32 | (all - left);
		}
		next = h.next;
	}
	return EXTENSIONS_MALFORMED;
}

static __always_inline enum verdict parse_ipv6(struct __sk_buff *skb, struct pkt *p, __u32 at)
{
	struct ipv6 h;
	__u32 first, total;
	__u64 found;

	if (p->end - at < sizeof(h) || !load_head(skb, at, &h, sizeof(h)))
		return V_FRAME_TRUNCATED;
	first = bpf_ntohl(h.version_class_flow);
	total = sizeof(h) + bpf_ntohs(h.payload_len);
	if (first >> 28 != 6 || total > p->end - at)
		return V_IP_MALFORMED;
	addr_set6(&p->src, h.src);
	addr_set6(&p->dst, h.dst);
	if (addr6_multicast(&p->src) || addr_is4(&p->src) || addr_is4(&p->dst))
		return V_IP_MALFORMED;
	p->proto = h.next;
	p->ttl = h.hop_limit;
	p->tos = first >> 20;
	p->l3_len = total;
	p->l4 = at + sizeof(h);
	p->l4_len = total - sizeof(h);
	if (!parse_is_extension(p->proto))
		return parse_l4(skb, p);
	found = parse_extensions(skb, p->l4, p->l4_len, p->proto);
	if (found & EXTENSIONS_MALFORMED)
		return V_IPV6_EXTENSIONS;
	p->fragment = (found & EXTENSIONS_FRAGMENT) != 0;
	p->later = (found & EXTENSIONS_LATER) != 0;
	p->proto = found >> 32;
	p->l4 += (__u32)found;
	p->l4_len -= (__u32)found;
	return parse_l4(skb, p);
}

/* What the guest's Ethernet header, already in p->eth, carries. */
static __always_inline enum verdict parse_payload(struct __sk_buff *skb, struct pkt *p)
{
	__u32 at = p->base + sizeof(struct eth);

	p->type = bpf_ntohs(p->eth.type);
	switch (p->type) {
	case TYPE_ARP:
		return parse_arp(skb, p, at);
	case TYPE_IPV4:
		return parse_ipv4(skb, p, at);
	case TYPE_IPV6:
		return parse_ipv6(skb, p, at);
	}
	return V_NON_IP;
}

/* Removes a priority tag (VID 0), wherever the kernel keeps it. Of a port that may, its priority becomes the
 * packet's, which queues read on the way out; nothing else has one here. */
static __always_inline enum verdict parse_tag(struct __sk_buff *skb, struct pkt *p)
{
	struct vlan tag;
	__u32 tci;

	if (skb->vlan_present) {
		if ((skb->vlan_tci & 0xfff) != 0 || skb->vlan_proto != bpf_htons(TYPE_VLAN))
			return V_VLAN_TAGGED;
		if (p->eth.type == bpf_htons(TYPE_VLAN) || p->eth.type == bpf_htons(TYPE_QINQ))
			return V_VLAN_TAGGED;
		tci = skb->vlan_tci;
	} else {
		if (p->eth.type != bpf_htons(TYPE_VLAN) && p->eth.type != bpf_htons(TYPE_QINQ))
			return V_CONTINUE;
		if (!load(skb, 2 * MAC_LEN, &tag, sizeof(tag)))
			return V_FRAME_TRUNCATED;
		if (tag.tpid != bpf_htons(TYPE_VLAN) || tag.tci & bpf_htons(0xfff))
			return V_VLAN_TAGGED;
		if (tag.type == bpf_htons(TYPE_VLAN) || tag.type == bpf_htons(TYPE_QINQ))
			return V_VLAN_TAGGED;
		tci = bpf_ntohs(tag.tci);
	}
	if (p->port->flags & PORT_PRIORITY_TAG && !skb->priority) /* but a minimum's class */
		skb->priority = tci >> 13;
	if (bpf_skb_vlan_pop(skb) || !load(skb, 0, &p->eth, sizeof(p->eth)))
		return V_FRAME_TRUNCATED;
	p->end = skb->len;
	return V_CONTINUE;
}

/* A checksum that the guest leaves to the device is written after all our checks: it
 * may only ever be part of the L4 header, behind what parse_l4 reads there, and in ND
 * only the checksum itself, or it could forge what they looked at. */
static __always_inline enum verdict parse_pending(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 start, field;

	if (!csum_pending(skb, &start, &field))
		return V_CONTINUE;
	if (p->type == TYPE_ARP)
		return V_ARP_MALFORMED;
	if (p->nd)
		return start == p->l4 && field == p->l4 + 2 ? V_CONTINUE : V_ND_MALFORMED;
	if (start < p->l4)
		return V_IP_MALFORMED;
	if (p->proto == PROTO_TCP || p->proto == PROTO_UDP)
		return field >= p->l4 + 4 ? V_CONTINUE : V_IP_MALFORMED;
	return field >= p->l4 + 2 ? V_CONTINUE : V_IP_MALFORMED;
}

/* A frame that has waited in the shaper carries the device that it came from as its mark. */
static __always_inline const struct port *parse_shaped(struct __sk_buff *skb, struct pkt *p)
{
	const struct shaper *s = shaper_devices();
	__u32 ifindex = skb->mark;

	if (!s || !s->exit || s->exit != skb->ifindex)
		return NULL;
	p->shaped = 1;
	skb->priority = share_class(ifindex); /* the shaper went by it */
	return bpf_map_lookup_elem(&port, &ifindex);
}

static __always_inline enum verdict parse_port(struct __sk_buff *skb, struct pkt *p)
{
	__u32 ifindex = skb->ifindex;
	enum verdict v;

	p->port = bpf_map_lookup_elem(&port, &ifindex);
	if (!p->port)
		p->port = parse_shaped(skb, p);
	if (!p->port)
		return V_PORT_UNKNOWN;
	p->port_id = p->port->id;
	p->end = skb->len;
	if (!load_head(skb, 0, &p->eth, sizeof(p->eth)))
		return V_FRAME_TRUNCATED;
	v = parse_tag(skb, p);
	if (v)
		return v;
	v = parse_payload(skb, p);
	return v ? v : parse_pending(skb, p);
}

/* What uplink_xdp stripped arrives with metadata in front and is never passed on. */
static __always_inline bool parse_meta(struct __sk_buff *skb, struct pkt *p)
{
	void *data = (void *)(long)skb->data;
	struct meta *m = (void *)(long)skb->data_meta;

	if ((void *)(m + 1) > data || m->magic != META_MAGIC)
		return false;
	p->vsid = m->vsid;
	__builtin_memcpy(&p->outer_src, m->outer_src, sizeof(p->outer_src));
	p->len = skb->len + m->outer_len;
	p->outer_tos = m->outer_tos;
	p->end = skb->len;
	return true;
}

static __always_inline enum verdict parse_vsid(struct pkt *p, __be32 key)
{
	p->vsid = bpf_ntohl(key) >> 8;
	return p->vsid < VSID_MIN || p->vsid > VSID_MAX ? V_VSID_RESERVED : V_CONTINUE;
}

static __always_inline enum verdict parse_nvgre(struct __sk_buff *skb, struct pkt *p, __u32 at)
{
	struct nvgre gre;

	if (!load_head(skb, at, &gre, sizeof(gre)))
		return V_OUTER_MALFORMED;
	if ((gre.flags & bpf_htons(GRE_MUST_MATCH)) != bpf_htons(GRE_KEY))
		return V_OUTER_MALFORMED;
	if (gre.type != bpf_htons(GRE_TYPE_ETHERNET))
		return V_OUTER_MALFORMED;
	return parse_vsid(p, gre.key);
}

static __always_inline enum verdict parse_vxlan(struct __sk_buff *skb, struct pkt *p, const union addr *dst, __u32 at)
{
	struct udp udp;
	struct vxlan vxlan;

	if (!load_head(skb, at, &udp, sizeof(udp)) || !load_head(skb, at + sizeof(udp), &vxlan, sizeof(vxlan)))
		return V_OUTER_MALFORMED;
	if (bpf_ntohs(udp.len) != p->end - at)
		return V_OUTER_MALFORMED;
	if (udp.check && !udpsum_right(skb, p, dst, at))
		return V_OUTER_CHECKSUM;
	if (!(vxlan.flags & VXLAN_VNI))
		return V_OUTER_MALFORMED;
	return parse_vsid(p, vxlan.vni);
}

/* Whether an outer packet says that it is for us; of UDP, by its port. */
static __always_inline bool parse_is_ours(struct __sk_buff *skb, struct pkt *p, __u8 proto, __u32 at)
{
	const struct setting *s;
	struct udp udp;

	if (proto == PROTO_GRE)
		return true;
	if (proto != PROTO_UDP || !load_head(skb, at, &udp, sizeof(udp)))
		return false;
	s = settings();
	p->vxlan = 1;
	return s && s->vxlan_port && udp.dport == s->vxlan_port;
}

static __always_inline enum verdict parse_tunnel(struct __sk_buff *skb, struct pkt *p, const union addr *dst, __u32 at)
{
	p->base = outer_len(p->vxlan, p->outer6);
	return p->vxlan ? parse_vxlan(skb, p, dst, at) : parse_nvgre(skb, p, at);
}

/* A PA of ours in a frame to us, or one that we listen to in a frame to its group. */
static __always_inline bool parse_is_local(const struct __sk_buff *skb, const union addr *pa, __u32 six)
{
	if (skb->pkt_type != PACKET_HOST && !addr_multicast(pa))
		return false;
	return is_local_pa(pa, six);
}

static __always_inline enum verdict parse_outer4(struct __sk_buff *skb, struct pkt *p)
{
	struct ipv4 ip;
	const __u32 at = sizeof(struct eth) + sizeof(ip);
	__be16 type;
	union addr pa;
	__u32 total;

	if (!load_head(skb, 2 * MAC_LEN, &type, sizeof(type)) || type != bpf_htons(TYPE_IPV4))
		return V_PASS;
	if (!load_head(skb, sizeof(struct eth), &ip, sizeof(ip)))
		return V_PASS;
	if (ip.proto == PROTO_UDP && (ip.version_ihl != 0x45 || ip.frag & bpf_htons(IPV4_OFFSET)))
		return V_PASS; /* the port is elsewhere */
	if (!parse_is_ours(skb, p, ip.proto, at))
		return V_PASS;
	addr_set4(&pa, ip.dst);
	if (!parse_is_local(skb, &pa, 0))
		return V_PASS;
	total = bpf_ntohs(ip.total_len);
	if (ip.version_ihl != 0x45 || total < outer_len(p->vxlan, false) || total > p->len - sizeof(struct eth) ||
	    csum_fold(csum_ipv4(&ip)))
		return V_OUTER_MALFORMED;
	if (ip.frag & bpf_htons(IPV4_MF | IPV4_OFFSET))
		return V_OUTER_FRAGMENT;
	addr_set4(&p->outer_src, ip.src);
	p->outer_tos = ip.tos;
	p->end = sizeof(struct eth) + total;
	return parse_tunnel(skb, p, &pa, at);
}

static __always_inline enum verdict parse_outer6(struct __sk_buff *skb, struct pkt *p)
{
	struct ipv6 ip;
	const __u32 at = sizeof(struct eth) + sizeof(ip);
	__be16 type;
	union addr pa;
	__u32 total;

	if (!load_head(skb, 2 * MAC_LEN, &type, sizeof(type)) || type != bpf_htons(TYPE_IPV6))
		return V_PASS;
	if (!load_head(skb, sizeof(struct eth), &ip, sizeof(ip)))
		return V_PASS;
	if (!parse_is_ours(skb, p, ip.next, at))
		return V_PASS;
	addr_set6(&pa, ip.dst);
	addr_set6(&p->outer_src, ip.src);
	p->outer_tos = bpf_ntohl(ip.version_class_flow) >> 20;
	/* A mapped address would be taken for IPv4 in the tables. */
	if (addr_is4(&pa) || addr_unspecified(&pa) || !parse_is_local(skb, &pa, 1))
		return V_PASS;
	p->outer6 = 1;
	total = sizeof(ip) + bpf_ntohs(ip.payload_len);
	if (bpf_ntohl(ip.version_class_flow) >> 28 != 6 || total < outer_len(p->vxlan, true) || total > p->len - sizeof(struct eth) ||
	    addr_is4(&p->outer_src) || addr6_multicast(&p->outer_src))
		return V_OUTER_MALFORMED;
	p->end = sizeof(struct eth) + total;
	return parse_tunnel(skb, p, &pa, at);
}

/* A packet to a Provider Address that stands for a Customer Address on this host. */
static __noinline int parse_rewritten(struct __sk_buff *skb, struct pkt *p)
{
	const __u32 ip = sizeof(struct eth);
	const struct rewrite_in *to;
	union addr pa;

	if (skb->pkt_type != PACKET_HOST)
		return V_PASS;
	if (skb->protocol == bpf_htons(TYPE_IPV4)) {
		addr_set4(&pa, 0);
		if (!load_head(skb, ip + 16, &pa.w[3], sizeof(pa.w[3])))
			return V_PASS;
	} else if (!load_head(skb, ip + 24, &pa, sizeof(pa)) || addr_is4(&pa)) {
		return V_PASS;
	}
	to = bpf_map_lookup_elem(&rewrite_in, &pa);
	if (!to || to->flags & REWRITE_REMOTE)
		return V_PASS;
	p->rewritten = to;
	p->rewrite = 1;
	if (addr_is4(&to->ca) != (skb->protocol == bpf_htons(TYPE_IPV4)))
		p->exchange = 1;
	p->vxlan = 0;
	p->outer6 = 0;
	p->end = skb->len;
	return V_CONTINUE;
}

static __always_inline enum verdict parse_outer(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v = V_PASS;

	if (parse_meta(skb, p))
		return V_CONTINUE;
	if ((skb->pkt_type != PACKET_HOST && skb->pkt_type != PACKET_MULTICAST) || skb->vlan_present)
		return V_PASS;
	if (skb->protocol == bpf_htons(TYPE_IPV4))
		v = parse_outer4(skb, p);
	else if (skb->protocol == bpf_htons(TYPE_IPV6))
		v = parse_outer6(skb, p);
	else
		return V_PASS;
	return v == V_PASS ? parse_rewritten(skb, p) : v;
}

static __always_inline enum verdict parse_inner(struct __sk_buff *skb, struct pkt *p)
{
	if (p->base == 0 && skb->vlan_present)
		return V_INNER_VLAN;
	if (p->end - p->base < sizeof(p->eth) || !load_head(skb, p->base, &p->eth, sizeof(p->eth)))
		return V_FRAME_TRUNCATED;
	if (p->eth.type == bpf_htons(TYPE_VLAN) || p->eth.type == bpf_htons(TYPE_QINQ))
		return V_INNER_VLAN;
	return parse_payload(skb, p);
}

#endif
