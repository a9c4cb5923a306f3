/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_ICMP_H
#define WEFT_WIRE_ICMP_H

#include <linux/types.h>

/* ICMP (RFC 792, 1191), ICMPv6 (RFC 4443) and Neighbour Discovery (RFC 4861). */
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_FRAG_NEEDED 4 /* code of ICMP_UNREACHABLE */
#define ICMP_REDIRECT 5
#define ICMP_ECHO 8
#define ICMP_ROUTER 9 /* advertisement, RFC 1256 */
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_TIMESTAMP 13
#define ICMP_TIMESTAMP_REPLY 14

#define ICMPV6_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_FIRST_INFO 128 /* types below it are errors */
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_REPLY 129

/* Multicast Listener Discovery (RFC 2710, RFC 9777), and IGMP (RFC 1112, RFC 2236, RFC 9776). */
#define MLD_REPORT 131
#define MLD_DONE 132
#define MLD_REPORT2 143

#define IGMP_REPORT1 0x12
#define IGMP_REPORT2 0x16
#define IGMP_LEAVE 0x17
#define IGMP_REPORT3 0x22
#define IGMP_LEN 8 /* at least */

#define ND_RS 133
#define ND_RA 134
#define ND_NS 135
#define ND_NA 136
#define ND_REDIRECT 137

#define ND_OPT_SOURCE 1
#define ND_OPT_TARGET 2

#define NA_ROUTER 0x80
#define NA_SOLICITED 0x40
#define NA_OVERRIDE 0x20

struct icmp {
	__u8 type;
	__u8 code;
	__be16 check;
	__be32 rest; /* identifier and sequence, MTU, or zero */
};

/* A neighbour advertisement with one target link-layer address option. */
struct nd_advert {
	__u8 type;
	__u8 code;
	__be16 check;
	__u8 flags;
	__u8 reserved[3];
	__be32 target[4];
	__u8 opt_type;
	__u8 opt_len; /* in 8 bytes */
	__u8 opt_mac[6];
};

_Static_assert(sizeof(struct icmp) == 8, "ICMP header");
_Static_assert(sizeof(struct nd_advert) == 32, "neighbour advertisement");

#endif
