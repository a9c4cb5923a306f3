/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_REWRITE_H
#define WEFT_LIB_REWRITE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/guard.h"
#include "lib/offload.h"
#include "maps/rewrite_out.h"
#include "maps/scratch.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* What rewriting is made of, within a family of addresses and across. */

/* A packet's new addresses, and what the packet that an ICMP error quotes names besides. The
 * quoted source is the destination of the error, so only the far end needs to be said. */
struct rewrite {
	union addr to[2]; /* source, destination */
	union addr quoted_from, quoted_to;
	union { /* room for the quoted header, before and after; then for what goes before the packet */
		struct ipv4 ip[2];
		union addr addr[2][2];
		struct eth eth;
	};
};

_Static_assert(sizeof(struct rewrite) <= sizeof(struct scratch), "too large for the stack");

/* The stack is full. */
static __always_inline struct rewrite *rewrite_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

/* The sum of new bytes less that of the old ones. */
static __always_inline __u32 rewrite_diff(const void *from, const void *to, __u32 len)
{
	return bpf_csum_diff((__be32 *)from, len, (__be32 *)to, len, 0);
}

static __always_inline __be16 rewrite_sum(__be16 check, __u32 diff)
{
	return csum_fold(csum_add(diff, (__u16)~check));
}

/* UDP says by 0 that there is no checksum, and 0xffff for one that comes to 0. */
static __always_inline __be16 rewrite_l4_sum(__be16 check, __u32 diff, __u8 proto)
{
	if (proto != PROTO_UDP)
		return rewrite_sum(check, diff);
	if (check == 0)
		return 0;
	check = rewrite_sum(check, diff);
	return check ? check : 0xffff;
}

/* Where in the L4 header the checksum is that covers the IP addresses; 0: there is none. */
static __always_inline __u32 rewrite_check_offset(__u16 type, __u8 proto)
{
	if (proto == PROTO_TCP)
		return 16;
	if (proto == PROTO_UDP)
		return 6;
	return type == TYPE_IPV6 && proto == PROTO_ICMPV6 ? 2 : 0;
}

/* The checksum complete of a device that has one is carried along. */
static __always_inline bool rewrite_store(struct __sk_buff *skb, __u32 at, const void *from, __u32 len)
{
	return bpf_skb_store_bytes(skb, at, from, len, BPF_F_RECOMPUTE_CSUM) == 0;
}

/* The checksum at an offset. */
static __always_inline bool rewrite_check(struct __sk_buff *skb, __u32 at, __u8 proto, __u32 diff)
{
	__u32 start, field;
	__be16 check;

	if (!load_head(skb, at, &check, sizeof(check)))
		return false;
	/* What the device is to finish is the sum of the pseudo header, not its complement. */
	if (csum_pending(skb, &start, &field) && field == at)
		check = ~rewrite_sum(~check, diff);
	else
		check = rewrite_l4_sum(check, diff, proto);
	return rewrite_store(skb, at, &check, sizeof(check));
}

static __always_inline bool rewrite_is_error(const struct pkt *p)
{
	if (p->fragment || p->l4_len < sizeof(struct icmp))
		return false;
	if (p->type == TYPE_IPV6)
		return p->proto == PROTO_ICMPV6 && p->icmp_type < ICMPV6_FIRST_INFO;
	return p->proto == PROTO_ICMP && (p->icmp_type == ICMP_UNREACHABLE || p->icmp_type == ICMP_TIME_EXCEEDED ||
					  p->icmp_type == ICMP_PARAMETER);
}

/* Options and extension headers speak to the routers on the way, which here are the underlay's. */
static __always_inline bool rewrite_plain(struct __sk_buff *skb, const struct pkt *p)
{
	const __u32 ip = sizeof(struct eth);
	__u8 next;

	if (p->nd)
		return false;
	if (p->type == TYPE_IPV4)
		return p->l4 == ip + sizeof(struct ipv4) && guard_of(skb, p) != PORT_ROUTER_GUARD;
	if (p->type != TYPE_IPV6)
		return false;
	if (p->l4 == ip + sizeof(struct ipv6))
		return true;
	return p->l4 == ip + sizeof(struct ipv6) + sizeof(struct ipv6_frag) && load_head(skb, ip + 6, &next, sizeof(next)) &&
	       next == PROTO_FRAGMENT;
}

/* The Provider Addresses that a packet toward a Customer Address of another host gets. */
static __always_inline enum verdict rewrite_ends(struct __sk_buff *skb, const struct pkt *p, struct rewrite *r)
{
	const union addr *src, *dst;

	if (!rewrite_plain(skb, p))
		return V_REWRITE_NOT_CARRIED;
	src = rewrite_pa(p->port->vsid, &p->src);
	dst = rewrite_pa(p->vsid, &p->dst);
	if (!src || !dst || !r)
		return V_REWRITE_NO_PA;
	r->to[0] = *src;
	r->to[1] = *dst;
	return V_CONTINUE;
}

#endif
