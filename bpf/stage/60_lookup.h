/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_LOOKUP_H
#define WEFT_STAGE_LOOKUP_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/flow.h"
#include "maps/local_mac.h"
#include "maps/path.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/record.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Find the record of the next hop: its MAC and Provider Address. */

static __always_inline bool lookup_is_echo(const struct pkt *p)
{
	if (p->type == TYPE_ARP || p->fragment || p->l4_len < sizeof(struct icmp) || p->icmp_code != 0)
		return false;
	if (!same_addr(&p->hop, &p->dst))
		return false;
	if (p->type == TYPE_IPV4)
		return p->proto == PROTO_ICMP && p->icmp_type == ICMP_ECHO;
	return p->proto == PROTO_ICMPV6 && p->icmp_type == ICMPV6_ECHO;
}

static __always_inline bool lookup_swap4(struct __sk_buff *skb, const struct pkt *p)
{
	const __u32 at = sizeof(struct eth);
	struct ipv4 h;
	__be16 was;
	__be32 src;

	if (!load(skb, at, &h, sizeof(h)))
		return false;
	was = bpf_htons((__u16)(h.ttl << 8 | h.proto));
	h.ttl = 64;
	h.check = csum_replace(h.check, was, bpf_htons((__u16)(h.ttl << 8 | h.proto)));
	src = h.src;
	h.src = h.dst;
	h.dst = src;
	return bpf_skb_store_bytes(skb, at, &h, sizeof(h), 0) == 0;
}

static __always_inline bool lookup_swap6(struct __sk_buff *skb, const struct pkt *p)
{
	const __u32 at = sizeof(struct eth) + 7; /* hop limit, source, destination */
	struct {
		__u8 hop_limit;
		__u8 src[16];
		__u8 dst[16];
	} h = {.hop_limit = 64};

	__builtin_memcpy(h.src, &p->dst, sizeof(h.src));
	__builtin_memcpy(h.dst, &p->src, sizeof(h.dst));
	return bpf_skb_store_bytes(skb, at, &h, sizeof(h), 0) == 0;
}

/* Answers an echo request to the distributed router, in place. */
static __always_inline enum verdict lookup_echo(struct __sk_buff *skb, struct pkt *p)
{
	__u8 reply = p->type == TYPE_IPV4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
	struct eth eth = p->eth;
	struct icmp icmp;

	__builtin_memcpy(eth.dst, p->eth.src, MAC_LEN);
	router_mac(eth.src, p->port->vsid);
	if (!load(skb, p->l4, &icmp, sizeof(icmp)))
		return V_ENCAP_FAILED;
	icmp.check = csum_replace(icmp.check, bpf_htons((__u16)(icmp.type << 8)), bpf_htons((__u16)(reply << 8)));
	icmp.type = reply;
	if (bpf_skb_store_bytes(skb, p->l4, &icmp, sizeof(icmp), 0))
		return V_ENCAP_FAILED;
	if (!(p->type == TYPE_IPV4 ? lookup_swap4(skb, p) : lookup_swap6(skb, p)))
		return V_ENCAP_FAILED;
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return V_ENCAP_FAILED;
	p->action = ACT_PORT;
	p->out = p->port->ifindex;
	return V_ANSWERED;
}

/* Not inlined: the verifier would walk all that follows for each way. */
static __noinline int lookup_path(struct pkt *p)
{
	p->peer = path_of(p->peer, flow_hash(p));
	return 0;
}

/* What a guest sends for another: its address is at home elsewhere. */
static __noinline bool lookup_is_passed_on(const struct pkt *p)
{
	const struct record *r = record_find(p->port->vsid, &p->src);

	return !r || r->ifindex != p->port->ifindex;
}

/* A rewritten packet names its source and its destination and nobody between. */
static __always_inline bool lookup_end_to_end(const struct pkt *p, __u32 port)
{
	return same_addr(&p->hop, &p->dst) && !(port & PORT_FORWARD && lookup_is_passed_on(p));
}

/* A rewritten packet needs an address of its own for each end, so it can only go between rewrite
 * subnets. Between one and another subnet a packet goes by the other's transport, and through a guest by NVGRE. */
static __always_inline void lookup_transport(struct pkt *p, __u32 record, __u32 port)
{
	if (!(record & RECORD_REWRITE)) {
		p->vxlan = (record & RECORD_VXLAN) != 0;
		return;
	}
	p->rewrite = port & PORT_REWRITE && lookup_end_to_end(p, port);
	p->exchange = p->rewrite && record & RECORD_EXCHANGE;
	p->vxlan = (port & PORT_VXLAN) != 0;
}

/* Where a guest's packet goes: into p->peer, or into p->dport. */
static __always_inline enum verdict lookup(struct __sk_buff *skb, struct pkt *p)
{
	const struct record *r = p->rec;
	__u32 idx, ifindex;

	if (!r)
		return V_NO_RECORD;
	if (r->flags & RECORD_ROUTER)
		return lookup_is_echo(p) ? lookup_echo(skb, p) : V_ROUTER_NO_SERVICE;
	idx = r->peer;
	ifindex = r->ifindex;
	if (ifindex == p->port->ifindex)
		return V_ROUTE_TO_SELF;
	if (idx) {
		lookup_transport(p, r->flags, p->port->flags);
		p->peer = bpf_map_lookup_elem(&peer, &idx);
		if (p->peer && p->peer->paths)
			lookup_path(p);
		if (!p->peer || !reaches(p->port, p->peer))
			return V_NO_UNDERLAY_ROUTE;
		p->outer6 = !addr_is4(&p->peer->remote);
		return V_CONTINUE;
	}
	if (!ifindex)
		return V_PORT_DOWN;
	p->out = ifindex;
	p->dport = bpf_map_lookup_elem(&port, &ifindex);
	if (!p->dport)
		return V_PORT_DOWN;
	return p->dport->vsid == p->vsid ? V_CONTINUE : V_VSID_MISMATCH;
}

/* The port that a frame from the underlay is for. */
static __always_inline enum verdict lookup_local(struct pkt *p)
{
	struct local_mac_key k = {.vsid = p->vsid};

	__builtin_memcpy(k.mac, p->eth.dst, MAC_LEN);
	p->dport = bpf_map_lookup_elem(&local_mac, &k);
	if (!p->dport)
		return V_NOT_LOCAL;
	p->out = p->dport->ifindex;
	p->port_id = p->dport->id;
	return V_CONTINUE;
}

#endif
