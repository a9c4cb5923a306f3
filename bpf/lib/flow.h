/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_FLOW_H
#define WEFT_LIB_FLOW_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/ctx.h"
#include "wire/addr.h"

/* Entropy for the underlay: the same for a whole flow, in both directions. */

static __always_inline __u32 flow_fold(const union addr *a)
{
	return bpf_ntohl(a->w[0] ^ a->w[1] ^ a->w[2] ^ a->w[3]);
}

/* 32 bits whose upper ones are the better; 0 for ARP. */
static __always_inline __u32 flow_hash(const struct pkt *p)
{
	__u32 h;

	if (p->type == TYPE_ARP)
		return 0;
	h = flow_fold(&p->src) ^ flow_fold(&p->dst) ^ (__u32)(p->sport ^ p->dport_l4) ^ ((__u32)p->proto << 16);
	return h * 0x9e3779b1u;
}

#endif
