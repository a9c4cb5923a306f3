/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_MSS_H
#define WEFT_LIB_MSS_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "maps/port.h"
#include "wire/ip.h"

/* What a TCP connection says at its start of the largest segment it takes is lowered to
 * what the path carries: then no segment meets TOO_BIG, even where ICMP is filtered. */

#define TCP_LEN 20
#define TCP_CHECK 16
#define TCP_SYN 2
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTION_MSS_LEN 4

/* Options that are looked at; MSS is the first of every stack that is known. */
#define MSS_OPTIONS 8

/* Lowers the MSS at an offset to most, and the checksum of the TCP header at l4 with it. */
static __always_inline int mss_lower(struct __sk_buff *skb, __u32 l4, __u32 at, __u32 most)
{
	__be16 was, now = bpf_htons((__u16)most);

	if (!load(skb, at, &was, sizeof(was)) || bpf_ntohs(was) <= most)
		return 0;
	if (bpf_skb_store_bytes(skb, at, &now, sizeof(now), 0))
		return 0;
	/* At an odd place its bytes stand in two words of the sum. */
	if ((at - l4) & 1) {
		was = (__be16)(was << 8 | was >> 8);
		now = (__be16)(now << 8 | now >> 8);
	}
	/* The helper leaves a sum alone that the device is to finish. */
	bpf_l4_csum_replace(skb, l4 + TCP_CHECK, was, now, sizeof(now));
	return 0;
}

/* Lowers the MSS of the TCP packet whose header, of at most len bytes with all behind it, is at
 * l4. Not static: so the verifier walks it once, and not once for each way that leads here. */
__noinline int mss_clamp(struct __sk_buff *skb, __u32 l4, __u32 len, __u32 most)
{
	struct {
		__u8 offset, flags;
	} tcp;
	struct {
		__u8 kind, len;
	} option;
	__u32 at, end;

	if (!load(skb, l4 + 12, &tcp, sizeof(tcp)))
		return 0;
	end = (tcp.offset >> 4) * 4;
	if (!(tcp.flags & TCP_SYN) || end > len)
		return 0;
	end += l4;
	at = l4 + TCP_LEN;
	for (int i = 0; i < MSS_OPTIONS && at + 2 <= end; i++) {
		if (!load(skb, at, &option, sizeof(option)) || option.kind == TCP_OPTION_END)
			return 0;
		if (option.kind == TCP_OPTION_NOP) {
			at++;
			continue;
		}
		if (option.len < 2 || at + option.len > end)
			return 0;
		if (option.kind == TCP_OPTION_MSS)
			return option.len == TCP_OPTION_MSS_LEN ? mss_lower(skb, l4, at + 2, most) : 0;
		at += option.len;
	}
	return 0;
}

/* Lowers the MSS to what fits into IP packets of limit bytes. */
static __always_inline void mss_fit(struct __sk_buff *skb, const struct pkt *p, __u32 limit)
{
	__u32 headers = (p->type == TYPE_IPV4 ? 20 : 40) + TCP_LEN;

	if (p->proto == PROTO_TCP && p->type != TYPE_ARP && !p->fragment && p->l4_len >= TCP_LEN && limit > headers)
		mss_clamp(skb, p->l4, p->l4_len, limit - headers);
}

/* A guest's packet, before outer headers are in front of it. */
static __always_inline void mss_outbound(struct __sk_buff *skb, const struct pkt *p, __u32 limit)
{
	__u32 flags = p->port->flags;

	if (p->dport)
		flags |= p->dport->flags;
	if (flags & PORT_MSS)
		mss_fit(skb, p, limit < p->port->mtu ? limit : p->port->mtu);
}

/* A packet from the underlay, outer headers or not. */
static __always_inline enum verdict mss_inbound(struct __sk_buff *skb, const struct pkt *p)
{
	if (p->dport->flags & PORT_MSS)
		mss_fit(skb, p, p->dport->mtu);
	return V_CONTINUE;
}

#endif
