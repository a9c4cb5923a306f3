/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_IP_H
#define WEFT_WIRE_IP_H

#include <linux/types.h>

/* IPv4 (RFC 791) and IPv6 (RFC 8200) headers. */
#define PROTO_HOP_BY_HOP 0
#define PROTO_ICMP 1
#define PROTO_IGMP 2
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_ICMPV6 58
#define PROTO_DEST_OPTIONS 60

#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__be16 check;
	__be32 src;
	__be32 dst;
};

struct ipv6 {
	__be32 version_class_flow;
	__be16 payload_len;
	__u8 next;
	__u8 hop_limit;
	__be32 src[4];
	__be32 dst[4];
};

/* Of every extension header but the fragment header; length is in 8 bytes less one. */
struct ipv6_ext {
	__u8 next;
	__u8 len;
};

struct ipv6_frag {
	__u8 next;
	__u8 reserved;
	__be16 offset_more; /* offset in 8 bytes << 3 | M */
	__be32 id;
};

_Static_assert(sizeof(struct ipv4) == 20, "IPv4 header");
_Static_assert(sizeof(struct ipv6) == 40, "IPv6 header");
_Static_assert(sizeof(struct ipv6_frag) == 8, "IPv6 fragment header");

#endif
