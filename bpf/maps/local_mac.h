/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_LOCAL_MAC_H
#define WEFT_MAPS_LOCAL_MAC_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/port.h"

/* local_mac: the port of this host that a decapsulated frame is for. Its value is
 * the row of `port`, so that one lookup finds everything.
 * key     VSID and inner destination MAC
 * writer  datapath.Apply, together with `port`
 * readers the receive half of lookup
 * miss    NOT_LOCAL: the sender's policy is behind
 * full    cannot be: as large as `port`, and never more rows */
struct local_mac_key {
	__u32 vsid;
	__u8 mac[6];
	__u16 zero;
};

_Static_assert(sizeof(struct local_mac_key) == 12, "local_mac key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct local_mac_key);
	__type(value, struct port);
	__uint(max_entries, 4096);
} local_mac SEC(".maps");

#endif
