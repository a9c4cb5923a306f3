/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_ETHERNET_H
#define WEFT_WIRE_ETHERNET_H

#include <stdbool.h>

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* IEEE 802.3 header and the ethertypes that the switch tells apart. Types are in
 * network order on the wire; the constants are in host order. */
#define MAC_LEN 6

#define TYPE_IPV4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_VLAN 0x8100
#define TYPE_IPV6 0x86dd
#define TYPE_QINQ 0x88a8

struct eth {
	__u8 dst[MAC_LEN];
	__u8 src[MAC_LEN];
	__be16 type;
} __attribute__((packed, aligned(2)));

/* What follows the addresses of a tagged frame, from its ethertype on (802.1Q). */
struct vlan {
	__be16 tpid;
	__be16 tci;
	__be16 type;
};

_Static_assert(sizeof(struct eth) == 14, "Ethernet header");
_Static_assert(sizeof(struct vlan) == 6, "802.1Q tag and the ethertype behind it");

/* Both at even addresses, as in all our rows and headers. */
static __always_inline bool same_mac(const void *a, const void *b)
{
	const __u16 *x = a, *y = b;

	return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2])) == 0;
}

static __always_inline bool is_broadcast(const __u8 *mac)
{
	return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

static __always_inline bool is_group(const __u8 *mac)
{
	return mac[0] & 1;
}

#endif
