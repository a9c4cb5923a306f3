/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_STRIP_H
#define WEFT_LIB_STRIP_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/checksum.h"
#include "lib/config.h"
#include "maps/local_pa.h"
#include "maps/uplink.h"
#include "wire/outer.h"

/* Strips the outer headers at XDP, so that GRO sees the inner packets, and hands
 * VSID and outer source to from_uplink in metadata. GRO merges only packets with the
 * same metadata, so tenants stay apart. Only perfect NVGRE is touched; from_uplink
 * judges the rest, and counts it. */

static __always_inline bool strip_carries(__be16 type)
{
	return type == bpf_htons(TYPE_IPV4) || type == bpf_htons(TYPE_IPV6) || type == bpf_htons(TYPE_ARP);
}

/* The padding behind the outer packet; negative if the packet is longer than the frame. */
static __always_inline int strip_padding(struct xdp_md *xdp, const struct nvgre4_frame *o)
{
	return (int)bpf_xdp_get_buff_len(xdp) - (int)(sizeof(struct eth) + bpf_ntohs(o->ip.total_len));
}

static __always_inline bool strip_is_ours(struct xdp_md *xdp, const struct nvgre4_frame *o)
{
	__u32 ifindex = xdp->ingress_ifindex, vsid = bpf_ntohl(o->gre.key) >> 8;
	struct uplink *u = bpf_map_lookup_elem(&uplink, &ifindex);
	struct ipv4 ip;
	union addr pa;

	if (!u || !same_mac(u->mac, o->eth.dst) || o->eth.type != bpf_htons(TYPE_IPV4))
		return false;
	__builtin_memcpy(&ip, &o->ip, sizeof(ip));
	if (ip.version_ihl != 0x45 || ip.proto != PROTO_GRE || ip.frag & bpf_htons(IPV4_MF | IPV4_OFFSET))
		return false;
	if (bpf_ntohs(ip.total_len) < outer_len(false, false) || csum_fold(csum_ipv4(&ip)))
		return false;
	if ((o->gre.flags & bpf_htons(GRE_MUST_MATCH)) != bpf_htons(GRE_KEY) ||
	    o->gre.type != bpf_htons(GRE_TYPE_ETHERNET))
		return false;
	if (vsid < VSID_MIN || vsid > VSID_MAX || !strip_carries(o->inner.type))
		return false;
	addr_set4(&pa, ip.dst);
	return bpf_map_lookup_elem(&local_pa, &pa) != NULL;
}

static __always_inline int strip(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	struct nvgre4_frame *o = data;
	struct meta m = {.magic = META_MAGIC, .outer_len = outer_len(false, false)};
	union addr src;
	struct meta *to;
	int padding;

	if ((void *)(o + 1) > end || !strip_is_ours(xdp, o))
		return XDP_PASS;
	padding = strip_padding(xdp, o);
	if (padding < 0)
		return XDP_PASS;
	m.vsid = bpf_ntohl(o->gre.key) >> 8;
	addr_set4(&src, o->ip.src);
	__builtin_memcpy(m.outer_src, &src, sizeof(src));
	if (bpf_xdp_adjust_meta(xdp, -(int)sizeof(m)))
		return XDP_PASS;
	to = (void *)(long)xdp->data_meta;
	if ((void *)(to + 1) > (void *)(long)xdp->data)
		return XDP_DROP;
	*to = m;
	if (padding && bpf_xdp_adjust_tail(xdp, -padding))
		return XDP_DROP;
	if (bpf_xdp_adjust_head(xdp, outer_len(false, false)))
		return XDP_DROP;
	return XDP_PASS;
}

#endif
