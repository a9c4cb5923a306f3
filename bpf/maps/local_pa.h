/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_LOCAL_PA_H
#define WEFT_MAPS_LOCAL_PA_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* local_pa: the Provider Addresses of this host.
 * key     PA
 * writer  datapath.Apply
 * readers parse of from_uplink and uplink_xdp
 * miss    PASS: not virtualized traffic of ours
 * full    Apply refuses before it writes anything */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union addr);
	__type(value, __u32); /* 1 */
	__uint(max_entries, 256);
} local_pa SEC(".maps");

#endif
