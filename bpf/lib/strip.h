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
#include "maps/setting.h"
#include "maps/uplink.h"
#include "wire/outer.h"

/* Strips the outer headers at XDP, so that GRO sees the inner packets, and hands
 * VSID and outer source to from_uplink in metadata. GRO merges only packets with the
 * same metadata, so tenants stay apart. Only perfect NVGRE and VXLAN without a UDP checksum
 * are touched; from_uplink judges the rest, and counts it. */

/* What is known of the outer headers. */
struct strip_outer {
	union addr src, dst;
	__u32 vsid;
	__u32 len; /* of all that precedes the inner frame */
	__u32 end; /* where the outer packet ends */
	__u32 tos;
};

struct strip_nvgre {
	struct nvgre gre;
	struct eth inner;
} __attribute__((packed, aligned(2)));

struct strip_vxlan {
	struct udp udp;
	struct vxlan vxlan;
	struct eth inner;
} __attribute__((packed, aligned(2)));

static __always_inline bool strip_carries(__be16 type, __be32 key, struct strip_outer *o)
{
	o->vsid = bpf_ntohl(key) >> 8;
	if (o->vsid < VSID_MIN || o->vsid > VSID_MAX)
		return false;
	return type == bpf_htons(TYPE_IPV4) || type == bpf_htons(TYPE_IPV6) || type == bpf_htons(TYPE_ARP);
}

static __always_inline bool strip_is_nvgre(const struct strip_nvgre *n, const void *end, struct strip_outer *o)
{
	if ((const void *)(n + 1) > end || (n->gre.flags & bpf_htons(GRE_MUST_MATCH)) != bpf_htons(GRE_KEY) ||
	    n->gre.type != bpf_htons(GRE_TYPE_ETHERNET))
		return false;
	o->len += sizeof(n->gre);
	return strip_carries(n->inner.type, n->gre.key, o);
}

static __always_inline bool strip_is_vxlan(const struct strip_vxlan *v, const void *end, struct strip_outer *o)
{
	const struct setting *s = settings();

	if (!s || (const void *)(v + 1) > end || !s->vxlan_port || v->udp.dport != s->vxlan_port || v->udp.check ||
	    bpf_ntohs(v->udp.len) != o->end - o->len || !(v->vxlan.flags & VXLAN_VNI))
		return false;
	o->len += sizeof(v->udp) + sizeof(v->vxlan);
	return strip_carries(v->inner.type, v->vxlan.vni, o);
}

static __always_inline bool strip_is_tunnel(__u8 proto, const void *at, const void *end, struct strip_outer *o)
{
	if (proto == PROTO_GRE)
		return strip_is_nvgre(at, end, o);
	return proto == PROTO_UDP && strip_is_vxlan(at, end, o);
}

static __always_inline bool strip_ipv4(const struct ipv4 *h, const void *end, struct strip_outer *o)
{
	struct ipv4 ip; /* aligned */

	if ((const void *)(h + 1) > end)
		return false;
	__builtin_memcpy(&ip, h, sizeof(ip));
	if (ip.version_ihl != 0x45 || ip.frag & bpf_htons(IPV4_MF | IPV4_OFFSET) || csum_fold(csum_ipv4(&ip)))
		return false;
	o->tos = ip.tos;
	addr_set4(&o->src, ip.src);
	addr_set4(&o->dst, ip.dst);
	o->end = o->len + bpf_ntohs(ip.total_len);
	o->len += sizeof(ip);
	return strip_is_tunnel(ip.proto, h + 1, end, o);
}

static __always_inline bool strip_ipv6(const struct ipv6 *h, const void *end, struct strip_outer *o)
{
	struct ipv6 ip; /* aligned */

	if ((const void *)(h + 1) > end)
		return false;
	__builtin_memcpy(&ip, h, sizeof(ip));
	o->tos = bpf_ntohl(ip.version_class_flow) >> 20 & 0xff;
	addr_set6(&o->src, ip.src);
	addr_set6(&o->dst, ip.dst);
	if (bpf_ntohl(ip.version_class_flow) >> 28 != 6 || addr_is4(&o->src) || addr_is4(&o->dst) || addr6_multicast(&o->src))
		return false;
	o->len += sizeof(ip);
	o->end = o->len + bpf_ntohs(ip.payload_len);
	return strip_is_tunnel(ip.next, h + 1, end, o);
}

static __always_inline bool strip_is_ours(struct xdp_md *xdp, struct strip_outer *o)
{
	const void *end = (const void *)(long)xdp->data_end;
	const struct eth *eth = (const void *)(long)xdp->data;
	__u32 ifindex = xdp->ingress_ifindex;
	const struct uplink *u;
	bool whole = false;

	if ((const void *)(eth + 1) > end)
		return false;
	u = bpf_map_lookup_elem(&uplink, &ifindex);
	if (!u || !same_mac(u->mac, eth->dst))
		return false;
	if (eth->type == bpf_htons(TYPE_IPV4))
		whole = strip_ipv4((const void *)(eth + 1), end, o);
	else if (eth->type == bpf_htons(TYPE_IPV6))
		whole = strip_ipv6((const void *)(eth + 1), end, o);
	/* The inner Ethernet header, and no more than there is. */
	if (!whole || o->end < o->len + sizeof(*eth) || o->end > bpf_xdp_get_buff_len(xdp))
		return false;
	return bpf_map_lookup_elem(&local_pa, &o->dst) != NULL;
}

static __always_inline int strip(struct xdp_md *xdp)
{
	struct strip_outer o = {.len = sizeof(struct eth)};
	struct meta m = {.magic = META_MAGIC};
	struct meta *to;
	int padding;

	if (!strip_is_ours(xdp, &o))
		return XDP_PASS;
	m.vsid = o.vsid;
	m.outer_len = o.len;
	m.outer_tos = o.tos;
	__builtin_memcpy(m.outer_src, &o.src, sizeof(m.outer_src));
	padding = (int)bpf_xdp_get_buff_len(xdp) - (int)o.end;
	if (bpf_xdp_adjust_meta(xdp, -(int)sizeof(m)))
		return XDP_PASS;
	to = (void *)(long)xdp->data_meta;
	if ((void *)(to + 1) > (void *)(long)xdp->data)
		return XDP_DROP;
	*to = m;
	if (padding && bpf_xdp_adjust_tail(xdp, -padding))
		return XDP_DROP;
	if (bpf_xdp_adjust_head(xdp, (int)o.len))
		return XDP_DROP;
	return XDP_PASS;
}

#endif
