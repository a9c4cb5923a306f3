/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_SETTING_H
#define WEFT_MAPS_SETTING_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* setting: what all hosts of a fleet agree on.
 * key     0
 * writer  datapath.Apply
 * readers parse of from_uplink and uplink_xdp; encap, decap
 * miss    cannot be: an array
 * full    cannot be */
#define SETTING_PIPE 1 /* the DSCP of outer headers is the fleet's, not the guest's (RFC 2983) */

struct setting {
	__be16 vxlan_port; /* UDP destination port; 0: none */
	__u8 flags;
	__u8 dscp; /* of outer headers with SETTING_PIPE, in place */
	__u8 zero[12];
};

_Static_assert(sizeof(struct setting) == 16, "setting");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct setting);
	__uint(max_entries, 1);
} setting SEC(".maps");

static __always_inline const struct setting *settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&setting, &zero);
}

#endif
