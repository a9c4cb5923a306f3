/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_DENIED_H
#define WEFT_MAPS_DENIED_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* denied: which rules a port's drops by ACL_DENIED are by. `drop` counts them, too: what is there and not here is by
 * rules that are gone.
 * key     port id, number of the rule, direction
 * writer  lib/finish.h; datapath.Apply deletes the rows of rules and ports that are gone
 * readers datapath.Drops
 * miss    the row is made
 * full    the packet is only in `drop` */
struct denied_key {
	__u32 port_id;
	__u32 rule;
	__u32 direction;
};

struct denied {
	__u64 packets;
	__u64 bytes;
};

_Static_assert(sizeof(struct denied_key) == 12, "denied key");
_Static_assert(sizeof(struct denied) == 16, "denied");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* few are ever used */
	__type(key, struct denied_key);
	__type(value, struct denied);
	__uint(max_entries, 1 << 16);
} denied SEC(".maps");

#endif
