/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_DROP_H
#define WEFT_MAPS_DROP_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* drop: how often a port met a drop reason.
 * key     reason, direction, port id (0: none known)
 * writer  lib/finish.h; datapath fills the rows of port 0 at start and deletes those of
 *         ports that are gone
 * readers datapath.Drops
 * miss    the row is made
 * full    the packet is counted in the row of port 0: no count is ever lost */
#define OUTBOUND 0 /* as the VM sees it */
#define INBOUND 1

struct drop_key {
	__u8 reason;
	__u8 direction;
	__u16 zero;
	__u32 port_id;
};

struct drop {
	__u64 packets;
	__u64 bytes;
	__u64 last_event; /* monotonic ns; limits the rate of events */
};

_Static_assert(sizeof(struct drop_key) == 8, "drop key");
_Static_assert(sizeof(struct drop) == 24, "drop");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct drop_key);
	__type(value, struct drop);
	__uint(max_entries, 16384);
} drop SEC(".maps");

#endif
