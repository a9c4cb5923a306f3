/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_ICMP_H
#define WEFT_LIB_ICMP_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/offload.h"
#include "maps/port.h"
#include "maps/scratch.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* ICMP errors of the distributed router, made in place of the offending packet:
 * its tail is cut, new headers go in front, and it returns to its port. */

#define QUOTE_MAX 128
#define CHUNK 32

struct error4 {
	struct eth eth;
	struct ipv4 ip;
	struct icmp icmp;
} __attribute__((packed, aligned(2)));

struct error6 {
	struct eth eth;
	struct ipv6 ip;
	struct icmp icmp;
} __attribute__((packed, aligned(2)));

_Static_assert(sizeof(struct error4) == 42, "ICMP error headers");
_Static_assert(sizeof(struct error6) == 62, "ICMPv6 error headers");

/* Whether an error may be sent about the packet (RFC 1122 3.2.2, RFC 4443 2.4 e). */
static __always_inline bool error_allowed(const struct pkt *p)
{
	if (p->type == TYPE_ARP || p->later || p->nd)
		return false;
	if (p->l4 > sizeof(struct eth) + QUOTE_MAX) /* the kernel does not cut a packet inside its headers */
		return false;
	if (p->type == TYPE_IPV4 && p->proto == PROTO_ICMP)
		return p->icmp_type == ICMP_ECHO_REPLY || p->icmp_type == ICMP_ECHO ||
		       p->icmp_type == ICMP_TIMESTAMP || p->icmp_type == ICMP_TIMESTAMP_REPLY;
	if (p->type == TYPE_IPV6 && p->proto == PROTO_ICMPV6)
		return p->icmp_type >= ICMPV6_FIRST_INFO;
	return true;
}

/* The sum of the first len bytes of the IP packet, len at most QUOTE_MAX. */
static __always_inline __u32 sum_quoted(struct __sk_buff *skb, __u32 len)
{
	__u32 sum = 0;

	for (__u32 at = 0; at < QUOTE_MAX; at += CHUNK) {
		__be32 chunk[CHUNK / 4] = {};
		__u32 n;

		if (at >= len)
			break;
		n = len - at;
		if (n > CHUNK)
			n = CHUNK;
		asm volatile("" : "+r"(n));
		if (n == 0 || n > CHUNK)
			break;
		if (!load(skb, sizeof(struct eth) + at, chunk, n))
			break;
		sum = csum_bytes(chunk, CHUNK, sum);
	}
	return sum;
}

/* The sum of what is quoted. Where the guest left its checksum to the device, it
 * stays pending inside the quote: the device will make the L4 bytes sum up to the
 * complement of what their checksum field holds now (local checksum offload). */
static __always_inline bool sum_quote(struct __sk_buff *skb, __u32 quoted, __u32 *sum)
{
	__u32 start, field;
	__be16 seed;

	if (!csum_pending(skb, &start, &field)) {
		*sum = sum_quoted(skb, quoted);
		return true;
	}
	start -= sizeof(struct eth);
	field -= sizeof(struct eth);
	if (start > quoted || field > quoted - sizeof(seed) || start & 1)
		return false;
	if (!load(skb, sizeof(struct eth) + field, &seed, sizeof(seed)))
		return false;
	*sum = csum_add(sum_quoted(skb, start), (__u16)~seed);
	return true;
}

static __always_inline bool error4(struct __sk_buff *skb, const struct pkt *p, const struct port *from, struct error4 *e,
				   __u32 quoted, __u32 sum, __u16 what, __u32 rest)
{
	struct ipv4 ip = {};

	__builtin_memset(e, 0, sizeof(*e));
	__builtin_memcpy(e->eth.dst, p->eth.src, MAC_LEN);
	router_mac(e->eth.src, from->vsid);
	e->eth.type = bpf_htons(TYPE_IPV4);
	ip.version_ihl = 0x45;
	ip.total_len = bpf_htons(sizeof(ip) + sizeof(e->icmp) + quoted);
	ip.ttl = 64;
	ip.proto = PROTO_ICMP;
	ip.src = from->gateway4.w[3];
	ip.dst = p->src.w[3];
	ip.check = csum_fold(csum_ipv4(&ip));
	e->ip = ip;
	e->icmp.type = what >> 8;
	e->icmp.code = what;
	e->icmp.rest = bpf_htonl(rest & 0xffff);
	sum = csum_add(sum, bpf_htons(what));
	sum = csum_add(sum, e->icmp.rest);
	e->icmp.check = csum_fold(sum);
	return bpf_skb_store_bytes(skb, 0, e, sizeof(*e), 0) == 0;
}

static __always_inline bool error6(struct __sk_buff *skb, const struct pkt *p, const struct port *from, struct error6 *e,
				   __u32 quoted, __u32 sum, __u16 what, __u32 rest)
{
	__builtin_memset(e, 0, sizeof(*e));
	__builtin_memcpy(e->eth.dst, p->eth.src, MAC_LEN);
	router_mac(e->eth.src, from->vsid);
	e->eth.type = bpf_htons(TYPE_IPV6);
	e->ip.version_class_flow = bpf_htonl(0x60000000);
	e->ip.payload_len = bpf_htons(sizeof(e->icmp) + quoted);
	e->ip.next = PROTO_ICMPV6;
	e->ip.hop_limit = 64;
	for (int i = 0; i < 4; i++) {
		e->ip.src[i] = from->gateway6.w[i];
		e->ip.dst[i] = p->src.w[i];
		sum = csum_add(sum, csum_add(e->ip.src[i], e->ip.dst[i]));
	}
	e->icmp.type = what >> 8;
	e->icmp.code = what;
	e->icmp.rest = bpf_htonl(rest);
	sum = csum_add(sum, bpf_htonl(sizeof(e->icmp) + quoted));
	sum = csum_add(sum, bpf_htonl(PROTO_ICMPV6));
	sum = csum_add(sum, bpf_htons(what));
	sum = csum_add(sum, e->icmp.rest);
	e->icmp.check = csum_fold(sum);
	return bpf_skb_store_bytes(skb, 0, e, sizeof(*e), 0) == 0;
}

/* Turns the packet into an error about itself, of that type and code and with that word behind the checksum, for the port of that device; leaves it a plain drop where none may
 * be sent or the kernel refuses. A global function: the verifier walks it once, not once for each
 * packet that has one coming. */
__noinline int icmp_error_at(struct __sk_buff *skb, struct pkt *p, __u32 ifindex, __u16 what, __u32 rest)
{
	const struct port *from = bpf_map_lookup_elem(&port, &ifindex);
	struct scratch *s = scratch_room();
	__u32 room, quoted, sum;
	void *e; /* the stack has no room for headers here */
	bool v4;

	if (!p || !from || !s)
		return 0;
	v4 = p->type == TYPE_IPV4;
	room = v4 ? sizeof(struct ipv4) + sizeof(struct icmp) : sizeof(struct ipv6) + sizeof(struct icmp);
	quoted = p->l3_len;
	if (!error_allowed(p) || addr_unspecified(v4 ? &from->gateway4 : &from->gateway6))
		return 0;
	if (quoted > QUOTE_MAX)
		quoted = QUOTE_MAX;
	quoted &= ~3u;
	if (!sum_quote(skb, quoted, &sum))
		return 0;
	/* The kernel does not cut what counts as a tunnel's still (a guest has passed it on). */
	if ((skb->gso_size || skb->len != sizeof(struct eth) + quoted) && bpf_skb_change_tail(skb, sizeof(struct eth) + quoted, 0))
		return 0;
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0))
		return 0;
	p->quote = sizeof(struct eth) + room;
	__builtin_memcpy(s->w, &p->eth, sizeof(p->eth)); /* for report */
	e = s->w + 8;
	if (!(v4 ? error4(skb, p, from, e, quoted, sum, what, rest) : error6(skb, p, from, e, quoted, sum, what, rest)))
		return 0;
	p->action = ACT_PORT;
	p->out = ifindex;
	return 0;
}

/* Too big for the MTU, or too old. */
static __always_inline __u16 error_kind(const struct pkt *p, bool too_big)
{
	if (p->type == TYPE_IPV4)
		return too_big ? ICMP_UNREACHABLE << 8 | ICMP_FRAG_NEEDED : ICMP_TIME_EXCEEDED << 8;
	return too_big ? ICMPV6_TOO_BIG << 8 : ICMPV6_TIME_EXCEEDED << 8;
}

static __always_inline void icmp_error(struct __sk_buff *skb, struct pkt *p, bool too_big, __u32 mtu)
{
	const struct port *port = p->port, *dport = p->dport;
	const struct peer *peer = p->peer;
	const struct record *rec = p->rec;

	icmp_error_at(skb, p, port->ifindex, error_kind(p, too_big), too_big ? mtu : 0);
	p->port = port; /* else they would be any numbers to the verifier */
	p->dport = dport;
	p->peer = peer;
	p->rec = rec;
}

#endif
