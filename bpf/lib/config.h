/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_CONFIG_H
#define WEFT_LIB_CONFIG_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Settings that datapath writes before it loads the programs. The verifier knows
 * their values and removes what they switch off. */

/* More flags for bpf_skb_adjust_room when it strips outer headers, by transport:
 * ADJ_ROOM_DECAP_L4_GRE and _UDP where the kernel has them. */
const volatile __u64 decap_nvgre SEC(".rodata.config") = 0;
const volatile __u64 decap_vxlan SEC(".rodata.config") = 0;

/* Least time between two events of the same drop row, in ns. */
const volatile __u64 event_interval SEC(".rodata.config") = 100000000;

/* Set where programs are only run for what they would do: copies of flooded frames are
 * then recorded in `copy` and not sent. */
const volatile __u8 rehearse SEC(".rodata.config") = 0;

/* 0: packets are judged by rules alone, as the first of their connections. */
const volatile __u8 connections_on SEC(".rodata.config") = 1;

/* 1: packets are shown to captures (lib/capture.h). */
const volatile __u32 capture_on SEC(".rodata.config") = 0;

/* Marks what the switch itself sends into a port's device; to_port drops all else. */
#define SWITCH_MARK 0x77656674

/* Marks a copy on its way into a port's device: it is the switch's, too, and never copied again. */
#define MIRROR_MARK 0x77656d69

/* Tells metadata that uplink_xdp left in front of a frame. */
#define META_MAGIC 0x77656678

struct meta {
	__u32 magic;
	__u32 vsid;
	__u32 outer_len; /* of what was stripped */
	__u32 outer_tos;
	__be32 outer_src[4];
};

_Static_assert(sizeof(struct meta) == 32, "metadata: at most 32, a multiple of 4");

#endif
