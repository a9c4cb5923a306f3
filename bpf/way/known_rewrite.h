/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WAY_KNOWN_REWRITE_H
#define WEFT_WAY_KNOWN_REWRITE_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/offload.h"
#include "maps/known.h"
#include "stage/75_rewrite.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* Stage 75 for flows: all packets of a flow get the same addresses, and their checksums change by the same. */

/* Reads what is in the packet's linear part. */
static __always_inline bool known_peek(const struct __sk_buff *skb, __u32 at, void *to, __u32 len)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;

	if (data + at + len > end)
		return false;
	__builtin_memcpy(to, __builtin_assume_aligned(data + at, 8), len);
	return true;
}

/* What the packets of a flow change by. False: an address of the other family takes the place of one. */
static __always_inline bool known_replaces(struct known_new *to, const struct pkt *p, const union addr *src, const union addr *dst)
{
	bool is4 = p->type == TYPE_IPV4;
	__u64 sum = 0;

	if (addr_is4(src) != is4 || addr_is4(dst) != is4)
		return false;
	if (is4) {
		to->v4.ip.src = src->w[3];
		to->v4.ip.dst = dst->w[3];
	} else {
		__builtin_memcpy(to->v6.ip.src, src, sizeof(*src));
		__builtin_memcpy(to->v6.ip.dst, dst, sizeof(*dst));
	}
#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++)
		sum += (__u64)src->w[i] + dst->w[i] + (__u32)~p->src.w[i] + (__u32)~p->dst.w[i];
	to->sum = (__u16)~csum_fold(csum_add((__u32)sum, (__u32)(sum >> 32)));
	return true;
}

/* rewrite_sum; what the device is to finish is the sum of the pseudo header, not its complement: then, pending has all bits set. */
static __always_inline __be16 known_l4_sum(__be16 check, __u16 sum, __u16 pending)
{
	return rewrite_sum(check ^ pending, sum) ^ pending;
}

/* Copies the L4 header of len bytes as far as its checksum, and changes that. How much it is; 0: it is elsewhere, or ends before. */
static __always_inline __u32 known_l4(const struct __sk_buff *skb, const struct pkt *p, __u32 at, __u32 len, __be16 *h, __u16 sum, __u16 pending)
{
	if (p->proto == PROTO_TCP) {
		if (len < 18 || !known_peek(skb, at, h, 18))
			return 0;
		h[8] = known_l4_sum(h[8], sum, pending);
		return 18;
	}
	if (p->proto == PROTO_UDP) {
		if (len < 8 || !known_peek(skb, at, h, 8))
			return 0;
		h[3] = pending ? known_l4_sum(h[3], sum, pending) : rewrite_l4_sum(h[3], sum, PROTO_UDP);
		return 8;
	}
	if (!known_peek(skb, at, h, 4))
		return 0;
	if (p->type == TYPE_IPV6)
		h[1] = known_l4_sum(h[1], sum, pending);
	return 4;
}

/* The same of all before it. */
static __always_inline __u32 known_ipv4(const struct __sk_buff *skb, const struct pkt *p, struct known_new *to, __u32 routed, __u16 pending)
{
	const __u32 at = sizeof(struct eth), l4 = at + sizeof(struct ipv4);
	struct ipv4 *ip = &to->v4.ip;
	__u32 len;

	if (!known_peek(skb, at, ip, 12))
		return 0;
	ip->check = csum_fold((__u32)(__u16)~ip->check + to->sum + routed * (0xffff - bpf_htons(0x0100)));
	ip->ttl -= routed;
	len = known_l4(skb, p, l4, bpf_ntohs(ip->total_len) - sizeof(*ip), to->v4.l4, to->sum, pending);
	return len ? l4 + len : 0;
}

static __always_inline __u32 known_ipv6(const struct __sk_buff *skb, const struct pkt *p, struct known_new *to, __u32 routed, __u16 pending)
{
	const __u32 at = sizeof(struct eth), l4 = at + sizeof(struct ipv6);
	struct ipv6 *ip = &to->v6.ip;
	__u32 len;

	if (!known_peek(skb, at, ip, 8))
		return 0;
	ip->hop_limit -= routed;
	len = known_l4(skb, p, l4, bpf_ntohs(ip->payload_len), to->v6.l4, to->sum, pending);
	return len ? l4 + len : 0;
}

/* Where a device has summed up the packet, that is carried along: of all behind the Ethernet header. */
static __always_inline bool known_store(struct __sk_buff *skb, const struct known_new *to, __u32 len)
{
	struct sk_buff___weft *k = bpf_cast_to_kern_ctx(skb);

	if (len <= sizeof(struct eth) || len > sizeof(*to) - sizeof(to->sum))
		return false;
	if (BPF_CORE_READ_BITFIELD(k, ip_summed) != CHECKSUM_COMPLETE)
		return bpf_skb_store_bytes(skb, 0, &to->eth, len, 0) == 0;
	return rewrite_store(skb, sizeof(struct eth), &to->v4, len - sizeof(struct eth)) &&
	       bpf_skb_store_bytes(skb, 0, &to->eth, sizeof(to->eth), 0) == 0;
}

/* Replaces what is to be replaced in a packet of the flow. Rows are each CPU's own. False: the packet is as it was. */
static __always_inline bool known_rewrite(struct __sk_buff *skb, const struct pkt *p, struct known_new *to, __u32 routed)
{
	__u32 offset = rewrite_check_offset(p->type, p->proto), start, field;
	__u16 pending = csum_pending(skb, &start, &field) && field == p->l4 + offset ? 0xffff : 0;

	return known_store(skb, to, p->type == TYPE_IPV4 ? known_ipv4(skb, p, to, routed, pending) : known_ipv6(skb, p, to, routed, pending));
}

#endif
