/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_WALK_H
#define WEFT_MAPS_WALK_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* walk: the programs that walk all stages, by tail call from those that take the short way, and what comes after all.
 * key     WALK_PORT and so on
 * writer  datapath, before the programs that need it are attached
 * readers from_port, from_uplink, from_shaper; lib/sample.h
 * miss    cannot be; a guest's packet is dropped as PORT_UNKNOWN, another is left to the host, and nobody looks
 * full    cannot be */
#define WALK_PORT 0
#define WALK_UPLINK 1
#define WALK_LOOK 2
#define WALK_VLAN 3
#define WALK_EXCHANGED 4

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 5);
} walk SEC(".maps");

#endif
