/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_OUTER_H
#define WEFT_WIRE_OUTER_H

#include <stdbool.h>

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/nvgre.h"
#include "wire/vxlan.h"

/* What IPv4 that goes as IPv6 may grow by: the larger header, and a Fragment header. */
#define EXCHANGE_OVERHEAD 28

/* All that precedes the inner frame, for each transport over each family, and the inner
 * Ethernet header, which is written together with it. */
struct nvgre4_frame {
	struct eth eth;
	struct ipv4 ip;
	struct nvgre gre;
	struct eth inner;
} __attribute__((packed, aligned(2)));

struct nvgre6_frame {
	struct eth eth;
	struct ipv6 ip;
	struct nvgre gre;
	struct eth inner;
} __attribute__((packed, aligned(2)));

struct vxlan4_frame {
	struct eth eth;
	struct ipv4 ip;
	struct udp udp;
	struct vxlan vxlan;
	struct eth inner;
} __attribute__((packed, aligned(2)));

struct vxlan6_frame {
	struct eth eth;
	struct ipv6 ip;
	struct udp udp;
	struct vxlan vxlan;
	struct eth inner;
} __attribute__((packed, aligned(2)));

/* Two bytes in front make the headers behind Ethernet lie at multiples of 4, to be written in words. */
struct outer_frame {
	__u16 shift;
	union {
		struct nvgre4_frame nvgre4;
		struct nvgre6_frame nvgre6;
		struct vxlan4_frame vxlan4;
		struct vxlan6_frame vxlan6;
	};
} __attribute__((packed, aligned(8)));

#define OUTER_FRAME_MAX sizeof(struct vxlan6_frame)

_Static_assert(__builtin_offsetof(struct outer_frame, nvgre4.ip) == 16, "aligned outer IP header");

#define VSID_MIN 0x1000
#define VSID_MAX 0xfffffe

/* The length of what precedes the inner frame. What a transport takes from the underlay's IP
 * MTU is as much: the inner Ethernet header counts there, the outer one does not. */
static __always_inline __u32 outer_len(bool vxlan, bool v6)
{
	return sizeof(struct eth) + (v6 ? sizeof(struct ipv6) : sizeof(struct ipv4)) +
	       (vxlan ? sizeof(struct udp) + sizeof(struct vxlan) : sizeof(struct nvgre));
}

_Static_assert(sizeof(struct nvgre4_frame) == 42 + 14, "NVGRE over IPv4");
_Static_assert(sizeof(struct nvgre6_frame) == 62 + 14, "NVGRE over IPv6");
_Static_assert(sizeof(struct vxlan4_frame) == 50 + 14, "VXLAN over IPv4");
_Static_assert(sizeof(struct vxlan6_frame) == 70 + 14, "VXLAN over IPv6");

#endif
