/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_VXDEV_H
#define WEFT_LIB_VXDEV_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "lib/detour.h"
#include "lib/tos.h"
#include "wire/ethernet.h"

/* The detour through the kernel's vxlan device, for VXLAN alone: from_uplink has judged the packet and leaves it
 * as it is; the device, which takes every VNI, strips it, and from_vxlan hands the frame to its port. */

#define VXDEV_CHECK 10 /* the UDP checksum, counted back from the inner frame */

/* Of the outer header, which has had its say. */
static __always_inline bool vxdev_forget_ecn(struct __sk_buff *skb, const struct pkt *p)
{
	__u8 tos = p->outer_tos & ~ECN_MASK;

	if (tos == p->outer_tos)
		return true;
	return p->outer6 ? tos_store6(skb, sizeof(struct eth), tos) : tos_store4(skb, sizeof(struct eth), tos);
}

/* The kernel shall judge no more: a UDP checksum was right, but what it covers may have changed since. */
static __always_inline enum verdict vxdev_leave(struct __sk_buff *skb, struct pkt *p)
{
	__u32 at = p->base - VXDEV_CHECK;
	__be16 check, none = 0;

	if (!load(skb, at, &check, sizeof(check)))
		return V_DECAP_FAILED;
	if (check && bpf_skb_store_bytes(skb, at, &none, sizeof(none), BPF_F_RECOMPUTE_CSUM))
		return V_DECAP_FAILED;
	if (!vxdev_forget_ecn(skb, p))
		return V_DECAP_FAILED;
	detour_sent(p);
	return V_CONTINUE;
}

#endif
