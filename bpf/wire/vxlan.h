/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_VXLAN_H
#define WEFT_WIRE_VXLAN_H

#include <linux/types.h>

/* UDP (RFC 768) and, inside it, VXLAN (RFC 7348): a VNI, which is our VSID, in front of an
 * untagged Ethernet frame. */
#define VXLAN_VNI 0x08     /* the I flag: the VNI counts */
#define VXLAN_SPORT 0xc000 /* source ports are 49152 to 65535: 14 bits of entropy */

struct udp {
	__be16 sport;
	__be16 dport;
	__be16 len; /* of header and payload */
	__be16 check;
};

struct vxlan {
	__u8 flags;
	__u8 reserved[3];
	__be32 vni; /* VNI << 8 | reserved */
};

_Static_assert(sizeof(struct udp) == 8, "UDP header");
_Static_assert(sizeof(struct vxlan) == 8, "VXLAN header");

#endif
