/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_ARP_H
#define WEFT_WIRE_ARP_H

#include <linux/types.h>

/* ARP for IPv4 over Ethernet (RFC 826). */
#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp {
	__be16 htype;
	__be16 ptype;
	__u8 hlen;
	__u8 plen;
	__be16 op;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};

_Static_assert(sizeof(struct arp) == 28, "ARP packet");

#endif
