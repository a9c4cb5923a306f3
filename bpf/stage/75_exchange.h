/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_EXCHANGE_H
#define WEFT_STAGE_EXCHANGE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/icmp.h"
#include "lib/isolation.h"
#include "lib/offload.h"
#include "lib/rewrite.h"
#include "maps/port.h"
#include "maps/rewrite_in.h"
#include "maps/scratch.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* Rewriting where Provider Addresses are of the other family: the IP header is exchanged for one of that family, and
 * on receive for the guest's again. Both ends are ours, so nothing behind it is translated: protocol numbers stay, ICMP
 * travels as it is, and only the checksums that the underlay can check follow the addresses. */

#define PROTO_MOBILITY 135
#define PROTO_HIP 139
#define PROTO_SHIM6 140

#define EXCHANGE_MORE ((int)(sizeof(struct ipv6) - sizeof(struct ipv4)))

/* IPv6 as the underlay sees a packet of IPv4: what an IPv4 header has beyond an atomic datagram's (RFC 6864) is in a
 * Fragment header. */
struct exchanged {
	struct ipv6 ip;
	struct ipv6_frag fragment;
};

_Static_assert(sizeof(struct exchanged) == 48, "exchanged");

/* What is to be done, in the second half of scratch: the first is of whoever asks. */
struct exchange {
	union addr was[2], to[2]; /* source, destination */
	struct ipv4 ip4;
	struct exchanged ip6;
	__u32 l4, l4_len; /* where L4 is before */
	__u32 flow;       /* IPv6's label to be */
	__u8 proto;       /* of L4 */
	__u8 later;       /* there is none */
	__u8 is4;         /* the guest's packet is IPv4 */
};

_Static_assert(sizeof(struct exchange) <= SCRATCH_LEN / 2, "too large for scratch");

static __always_inline struct exchange *exchange_room(void)
{
	struct scratch *s = scratch_room();

	return s ? (struct exchange *)&s->w[SCRATCH_LEN / 8] : NULL;
}

/* The checksum of TCP or UDP, whose header now is at l4. That of ICMPv6 nobody on the way knows for one, nor what is behind
 * the Fragment header of a guest: these stay. */
static __always_inline bool exchange_l4(struct __sk_buff *skb, const struct exchange *x, __u32 l4)
{
	__u32 offset = rewrite_check_offset(0, x->proto), diff = rewrite_diff(x->was, x->to, sizeof(x->to));

	if (!offset || x->later || x->l4_len < offset + sizeof(__be16))
		return true;
	return rewrite_check(skb, l4 + offset, x->proto, diff);
}

static __always_inline bool exchange_type(struct __sk_buff *skb, __u16 type)
{
	__be16 to = bpf_htons(type);

	return bpf_skb_store_bytes(skb, 2 * MAC_LEN, &to, sizeof(to), 0) == 0;
}

/* Room for a Fragment header behind that of IPv6, or none. */
static __always_inline bool exchange_fragment(struct __sk_buff *skb, int room)
{
	return bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET) == 0;
}

/* IPv4 for IPv6. Global, as the one below: the verifier walks it once. */
__noinline int exchange_to6(struct __sk_buff *skb)
{
	struct exchange *x = exchange_room();
	bool fragment;
	__u16 frag;

	if (!x || !load_head(skb, sizeof(struct eth), &x->ip4, sizeof(x->ip4)))
		return V_ENCAP_FAILED;
	frag = bpf_ntohs(x->ip4.frag);
	fragment = x->is4 && frag != IPV4_DF && !skb->gso_size;
	x->ip6.ip.version_class_flow = bpf_htonl(6u << 28 | (__u32)x->ip4.tos << 20 | x->flow);
	x->ip6.ip.payload_len = bpf_htons(bpf_ntohs(x->ip4.total_len) - sizeof(x->ip4) + (fragment ? sizeof(x->ip6.fragment) : 0));
	x->ip6.ip.next = fragment ? PROTO_FRAGMENT : x->ip4.proto;
	x->ip6.ip.hop_limit = x->ip4.ttl;
	__builtin_memcpy(x->ip6.ip.src, x->to, sizeof(x->to)); /* and dst */
	x->ip6.fragment.next = x->ip4.proto;
	x->ip6.fragment.reserved = 0;
	x->ip6.fragment.offset_more = bpf_htons((__u16)(frag << 3) | (frag & IPV4_MF ? 1 : 0));
	x->ip6.fragment.id = bpf_htonl((__u32)(frag & ~(IPV4_MF | IPV4_OFFSET)) << 16 | bpf_ntohs(x->ip4.id));
	if (bpf_skb_change_proto(skb, bpf_htons(TYPE_IPV6), 0) || !exchange_type(skb, TYPE_IPV6))
		return V_ENCAP_FAILED;
	if (!fragment)
		return rewrite_store(skb, sizeof(struct eth), &x->ip6, sizeof(x->ip6.ip)) && exchange_l4(skb, x, x->l4 + EXCHANGE_MORE) ? V_CONTINUE : V_ENCAP_FAILED;
	if (!exchange_fragment(skb, sizeof(x->ip6.fragment)) || !rewrite_store(skb, sizeof(struct eth), &x->ip6, sizeof(x->ip6)))
		return V_ENCAP_FAILED;
	return exchange_l4(skb, x, x->l4 + EXCHANGE_MORE + sizeof(x->ip6.fragment)) ? V_CONTINUE : V_ENCAP_FAILED;
}

/* The guest's Fragment header stays, as what IPv4 carries; one that was made of IPv4 goes back into its header. */
__noinline int exchange_to4(struct __sk_buff *skb)
{
	struct exchange *x = exchange_room();
	__u32 len, frag = IPV4_DF, id = 0;
	bool fragment;

	if (!x || !load_head(skb, sizeof(struct eth), &x->ip6.ip, sizeof(x->ip6.ip)))
		return V_ENCAP_FAILED;
	fragment = x->is4 && x->ip6.ip.next == PROTO_FRAGMENT;
	len = bpf_ntohs(x->ip6.ip.payload_len) + sizeof(x->ip4);
	if (fragment) {
		if (!load(skb, sizeof(struct eth) + sizeof(x->ip6.ip), &x->ip6.fragment, sizeof(x->ip6.fragment)) ||
		    !exchange_fragment(skb, -(int)sizeof(x->ip6.fragment)))
			return V_ENCAP_FAILED;
		len -= sizeof(x->ip6.fragment);
		x->l4 -= sizeof(x->ip6.fragment);
		x->ip6.ip.next = x->ip6.fragment.next;
		id = bpf_ntohl(x->ip6.fragment.id);
		frag = bpf_ntohs(x->ip6.fragment.offset_more);
		frag = frag >> 3 | (frag & 1 ? IPV4_MF : 0) | (id >> 16 & ~(IPV4_MF | IPV4_OFFSET));
	}
	if (len > 0xffff)
		return V_REWRITE_NOT_CARRIED;
	x->ip4.version_ihl = 0x45;
	x->ip4.tos = bpf_ntohl(x->ip6.ip.version_class_flow) >> 20;
	x->ip4.total_len = bpf_htons((__u16)len);
	x->ip4.id = bpf_htons((__u16)id);
	x->ip4.frag = bpf_htons((__u16)frag);
	x->ip4.ttl = x->ip6.ip.hop_limit;
	x->ip4.proto = x->ip6.ip.next;
	x->ip4.check = 0;
	x->ip4.src = x->to[0].w[3];
	x->ip4.dst = x->to[1].w[3];
	x->ip4.check = csum_fold(csum_ipv4(&x->ip4));
	if (bpf_skb_change_proto(skb, bpf_htons(TYPE_IPV4), 0) || !exchange_type(skb, TYPE_IPV4) ||
	    !rewrite_store(skb, sizeof(struct eth), &x->ip4, sizeof(x->ip4)))
		return V_ENCAP_FAILED;
	return exchange_l4(skb, x, x->l4 - EXCHANGE_MORE) ? V_CONTINUE : V_ENCAP_FAILED;
}

/* Not protocols that would be something else in the other family's header: what speaks to hosts and routers on the way, and
 * extension headers. A guest could make routers of the underlay hear it. */
static __always_inline bool exchange_carries(bool is4, __u8 proto)
{
	if (!is4)
		return proto != PROTO_ICMP;
	switch (proto) {
	case PROTO_HOP_BY_HOP:
	case PROTO_ROUTING:
	case PROTO_FRAGMENT:
	case PROTO_ICMPV6:
	case PROTO_DEST_OPTIONS:
	case PROTO_MOBILITY:
	case PROTO_HIP:
	case PROTO_SHIM6:
		return false;
	}
	return true;
}

/* What exchange_to4 and exchange_to6 need to know of a packet beside its new addresses. */
static __always_inline void exchange_of(struct exchange *x, const struct pkt *p)
{
	x->was[0] = p->src;
	x->was[1] = p->dst;
	x->l4 = p->l4;
	x->l4_len = p->l4_len;
	x->proto = p->type == TYPE_IPV6 && !x->is4 && p->l4 != sizeof(struct eth) + sizeof(struct ipv6) ? PROTO_FRAGMENT : p->proto;
	x->later = p->later;
}

static __always_inline int exchange_header(struct __sk_buff *skb, struct pkt *p)
{
	if (p->type == TYPE_IPV4) {
		p->type = TYPE_IPV6;
		return exchange_to6(skb);
	}
	p->type = TYPE_IPV4;
	return exchange_to4(skb);
}

/* Toward a Customer Address of another host. */
static __noinline int exchange_send(struct __sk_buff *skb, struct pkt *p)
{
	struct exchange *x = exchange_room();
	struct rewrite *r = rewrite_room();
	int v = rewrite_ends(skb, p, r);

	if (v)
		return v;
	if (!x || !r || !exchange_carries(p->type == TYPE_IPV4, p->proto))
		return V_REWRITE_NOT_CARRIED;
	x->is4 = p->type == TYPE_IPV4;
	if (addr_is4(&r->to[0]) == x->is4 || addr_is4(&r->to[1]) == x->is4)
		return V_REWRITE_NO_PA;
	x->to[0] = r->to[0];
	x->to[1] = r->to[1];
	x->flow = flow_hash(p) >> 12;
	exchange_of(x, p);
	/* The kernel's neighbour code takes no group MAC, even where it writes another. */
	if (is_group(p->eth.dst) && bpf_skb_store_bytes(skb, 0, p->rec->mac, MAC_LEN, 0))
		return V_ENCAP_FAILED;
	return exchange_header(skb, p);
}

static __always_inline enum verdict exchange(struct __sk_buff *skb, struct pkt *p)
{
	return p->exchange ? exchange_send(skb, p) : V_CONTINUE;
}

/* What an ICMPv6 error of the underlay says, as ICMP (RFC 7915 section 5.2): type and code, and the word behind
 * the checksum. 0: nothing that concerns the guest. */
static __always_inline __u32 exchange_error4(__u8 type, __u8 code, __u32 *rest)
{
	__u32 mtu = *rest;

	*rest = 0;
	switch (type) {
	case 1:
		if (code == 1)
			return ICMP_UNREACHABLE << 8 | 10;
		if (code == 4)
			return ICMP_UNREACHABLE << 8 | 3;
		return code > 4 ? 0 : ICMP_UNREACHABLE << 8 | 1;
	case ICMPV6_TOO_BIG:
		if (mtu <= EXCHANGE_OVERHEAD || mtu > 0xffff)
			return 0;
		*rest = mtu - EXCHANGE_OVERHEAD;
		return ICMP_UNREACHABLE << 8 | ICMP_FRAG_NEEDED;
	case ICMPV6_TIME_EXCEEDED:
		return code > 1 ? 0 : ICMP_TIME_EXCEEDED << 8 | code;
	case 4:
		return code == 1 ? ICMP_UNREACHABLE << 8 | 2 : 0;
	}
	return 0;
}

/* The other way around (section 4.2). */
static __always_inline __u32 exchange_error6(__u8 type, __u8 code, __u32 *rest)
{
	__u32 mtu = *rest & 0xffff;

	*rest = 0;
	if (type == ICMP_TIME_EXCEEDED)
		return code > 1 ? 0 : ICMPV6_TIME_EXCEEDED << 8 | code;
	if (type != ICMP_UNREACHABLE || code > 15)
		return 0;
	switch (code) {
	case 2:
		*rest = 6; /* the Next Header field */
		return 4 << 8 | 1;
	case 3:
		return 1 << 8 | 4;
	case ICMP_FRAG_NEEDED:
		*rest = mtu + EXCHANGE_MORE;
		return mtu ? ICMPV6_TOO_BIG << 8 : 0;
	case 9:
	case 10:
	case 13:
	case 15:
		return 1 << 8 | 1;
	case 14:
		return 0;
	}
	return 1 << 8;
}

/* Whether what is quoted at `at` is a packet from p->dst, of which so much is there that it can be told; to whom, and
 * what L4 it has. */
static __always_inline bool exchange_quoted(struct __sk_buff *skb, const struct pkt *p, struct exchange *x, __u32 at)
{
	__u32 len = p->l4_len - sizeof(struct icmp), header = sizeof(struct ipv4);

	if (p->type == TYPE_IPV4) {
		if (len < header || !load(skb, at, &x->ip4, header) || x->ip4.version_ihl != 0x45 || x->ip4.frag & bpf_htons(IPV4_OFFSET))
			return false;
		addr_set4(&x->was[0], x->ip4.src);
		addr_set4(&x->was[1], x->ip4.dst);
		x->proto = x->ip4.proto;
	} else {
		header = sizeof(struct ipv6);
		if (len < header || !load(skb, at, &x->ip6.ip, header) || bpf_ntohl(x->ip6.ip.version_class_flow) >> 28 != 6)
			return false;
		__builtin_memcpy(x->was, x->ip6.ip.src, sizeof(x->was));
		x->proto = x->ip6.ip.next;
		if (x->proto == PROTO_FRAGMENT) {
			if (len < sizeof(x->ip6) || !load(skb, at + header, &x->ip6.fragment, sizeof(x->ip6.fragment)) ||
			    bpf_ntohs(x->ip6.fragment.offset_more) >> 3)
				return false;
			x->proto = x->ip6.fragment.next;
			header = sizeof(x->ip6);
		}
	}
	x->later = 0;
	x->l4 = sizeof(struct eth) + header;
	x->l4_len = len - header;
	/* A mapped address would be taken for IPv4 in the tables. */
	return same_addr(&x->was[0], &p->dst) && addr_is4(&x->was[1]) == (p->type == TYPE_IPV4);
}

/* Makes the frame the packet that the error in it speaks of, as the guest sent it, or its beginning. */
static __always_inline bool exchange_unpack(struct __sk_buff *skb, struct pkt *p, struct exchange *x)
{
	bool icmp = x->proto == (x->is4 ? PROTO_ICMP : PROTO_ICMPV6);

	if (bpf_skb_change_tail(skb, sizeof(struct eth) + p->l3_len, 0) ||
	    bpf_skb_adjust_room(skb, -(int)(p->l4 + sizeof(struct icmp) - sizeof(struct eth)), BPF_ADJ_ROOM_MAC, 0) ||
	    exchange_header(skb, p))
		return false;
	p->src = x->to[0];
	p->l4 = sizeof(struct eth) + (p->type == TYPE_IPV4 ? sizeof(struct ipv4) : sizeof(struct ipv6));
	p->l3_len = skb->len - sizeof(struct eth);
	p->proto = x->proto;
	return !icmp || (x->l4_len && load(skb, p->l4, &p->icmp_type, sizeof(p->icmp_type)));
}

/* What a router of the underlay says about a packet of the guest, as the guest's own router says it. */
static __always_inline bool exchange_told(struct __sk_buff *skb, struct pkt *p, const struct rewrite_in *to, struct exchange *x)
{
	const struct port *dport = p->dport;
	const struct rewrite_in *far;
	struct icmp icmp;
	__u32 start, field, what, rest;

	if (!rewrite_is_error(p) || csum_pending(skb, &start, &field) || !load(skb, p->l4, &icmp, sizeof(icmp)))
		return false;
	rest = bpf_ntohl(icmp.rest);
	what = p->type == TYPE_IPV4 ? exchange_error6(icmp.type, icmp.code, &rest) : exchange_error4(icmp.type, icmp.code, &rest);
	if (!what || !exchange_quoted(skb, p, x, p->l4 + sizeof(icmp)))
		return false;
	far = bpf_map_lookup_elem(&rewrite_in, &x->was[1]);
	if (!far || far->network != to->network || addr_is4(&far->ca) != x->is4)
		return false;
	x->to[0] = to->ca;
	x->to[1] = far->ca;
	if (!exchange_unpack(skb, p, x))
		return false;
	__builtin_memcpy(p->eth.src, dport->mac, MAC_LEN);
	icmp_error_at(skb, p, dport->ifindex, what, rest);
	start = p->quote;
	p->dport = dport; /* else it would be any number to the verifier */
	p->rewritten = to;
	p->port = NULL;
	p->peer = NULL;
	p->action = ACT_NONE;
	p->quote = 0;
	return start != 0;
}

/* From a host that rewrites. */
static __always_inline enum verdict exchange_back(struct __sk_buff *skb, struct pkt *p, const struct rewrite_in *from,
						  const struct rewrite_in *to, struct exchange *x)
{
	const __u32 end = sizeof(struct eth) + p->l3_len;
	struct eth eth;

	if (!(from->flags & REWRITE_REMOTE) || from->network != to->network || addr_is4(&from->ca) != x->is4)
		return V_SOURCE_NOT_IN_POLICY;
	if (from->vsid == p->vsid && isolate_apart(from->isolation, p->dport->isolation))
		return V_ISOLATED;
	if (skb->len > end && bpf_skb_change_tail(skb, end, 0))
		return V_DECAP_FAILED;
	x->to[0] = from->ca;
	x->to[1] = to->ca;
	exchange_of(x, p);
	if (exchange_header(skb, p))
		return V_DECAP_FAILED;
	__builtin_memcpy(eth.dst, p->dport->mac, MAC_LEN);
	if (from->vsid == p->vsid)
		__builtin_memcpy(eth.src, from->mac, MAC_LEN);
	else
		router_mac(eth.src, p->vsid);
	return bpf_skb_store_bytes(skb, 0, &eth, 2 * MAC_LEN, 0) ? V_DECAP_FAILED : V_CONTINUE;
}

/* No header has a checksum any more that would show what went wrong on the way. */
static __always_inline bool exchange_whole(struct __sk_buff *skb, const struct pkt *p, struct exchange *x)
{
	if (p->type == TYPE_IPV6)
		return true;
	return !p->fragment && load_head(skb, sizeof(struct eth), &x->ip4, sizeof(x->ip4)) && csum_fold(csum_ipv4(&x->ip4)) == 0;
}

/* From a Provider Address to one that stands for a Customer Address of the other family here. */
static __noinline int unexchange(struct __sk_buff *skb, struct pkt *p)
{
	const struct rewrite_in *to = p->rewritten, *from;
	struct exchange *x = exchange_room();

	if (!to || !x || !p->dport)
		return V_NOT_LOCAL;
	if (!rewrite_plain(skb, p) || !exchange_whole(skb, p, x))
		return V_REWRITE_NOT_CARRIED;
	x->is4 = addr_is4(&to->ca);
	x->flow = 0;
	from = bpf_map_lookup_elem(&rewrite_in, &p->src);
	if (!from)
		return exchange_told(skb, p, to, x) ? V_CONTINUE : V_SOURCE_NOT_IN_POLICY;
	if (!exchange_carries(x->is4, p->proto))
		return V_REWRITE_NOT_CARRIED;
	return exchange_back(skb, p, from, to, x);
}

/* Reads the packet again that the guest is to get, which is one that a host sends. */
static __always_inline enum verdict parse_exchanged(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v;

	p->fragment = p->later = p->nd = p->has_claim = 0;
	p->sport = p->dport_l4 = 0;
	p->icmp_type = p->icmp_code = 0;
	p->end = skb->len;
	v = parse_inner(skb, p);
	if (v)
		return v;
	return rewrite_plain(skb, p) ? V_CONTINUE : V_REWRITE_NOT_CARRIED;
}

#endif
