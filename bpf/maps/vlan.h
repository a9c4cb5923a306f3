/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_VLAN_H
#define WEFT_MAPS_VLAN_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/port.h"

/* vlan_port: one device of this host where a VM NIC meets the VLAN switch. A VLAN is a bit of
 * what the port sends and receives; bit 0 is for frames without a tag.
 * key     ifindex of the device
 * writer  datapath.Apply
 * readers vlan
 * miss    the device is being attached or detached: PORT_UNKNOWN or PORT_DOWN
 * full    Apply refuses before it writes anything */
struct vlan_port {
	struct port port; /* what all ports have; no VSID, network and PA */
	__u32 uplink;     /* the external interface; 0: none */
	__u32 storm;      /* packets per second that the port may have flooded */
	__u16 native;     /* VLAN of what the guest sends without a tag; 0: no tag there either */
	__u16 trunk;      /* 1: frames have tags but in the native VLAN */
	__u32 held;       /* 1: to the addresses that `allowed` has of it */
	__u64 sends[64];
	__u64 receives[64];
};

_Static_assert(sizeof(struct vlan_port) == 1136, "vlan_port");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct vlan_port);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} vlan_port SEC(".maps");

static __always_inline bool vlan_has_port(__u32 ifindex)
{
	return bpf_map_lookup_elem(&vlan_port, &ifindex) != NULL;
}

/* vlan_mac: the port behind an external interface that has a MAC.
 * key     external interface and MAC
 * value   ifindex of the port
 * writer  datapath.Apply, from vlan_port
 * readers vlan
 * miss    the MAC is somewhere outside, or the frame is not for a port
 * full    cannot be: as many rows as ports */
struct vlan_mac_key {
	__u32 uplink;
	__u8 mac[6];
	__u16 zero;
};

_Static_assert(sizeof(struct vlan_mac_key) == 12, "vlan_mac key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct vlan_mac_key);
	__type(value, __u32);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} vlan_mac SEC(".maps");

/* vlan_member: the ports behind an external interface, by device, for what is for many.
 * key     external interface
 * writer  datapath.Apply, from vlan_port
 * readers vlan
 * miss    no port
 * full    Apply refuses before it writes anything */
#define VLAN_MAX_MEMBERS 256

struct vlan_member {
	__u32 uplink; /* repeats the key: rows.h says why */
	__u32 n;
	__u32 ifindex[VLAN_MAX_MEMBERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct vlan_member);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} vlan_member SEC(".maps");

#endif
