/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_GROUP_H
#define WEFT_MAPS_GROUP_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/addr.h"

/* group: the multicast groups that ports of this host have joined.
 * key     VSID, device of the port, group
 * writer  datapath.SetGroups
 * readers flood
 * miss    the port gets no copy of what is sent to the group
 * full    SetGroups refuses; the agent bounds what one port may join */
struct group_key {
	__u32 vsid;
	__u32 ifindex;
	union addr group;
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct group_key) == 24, "group key");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct group_key);
	__type(value, __u32); /* 1 */
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} group SEC(".maps");

/* group_report: what guests say of the groups that they listen to (IGMP, MLD).
 * writer  flood, within the storm limit of the port
 * readers datapath.GroupReports
 * full    the report is lost; guests repeat them when asked */
#define REPORT_MAX 1500

struct group_report {
	__u32 ifindex;
	__u32 vsid;
	__u32 len; /* of the IP packet, or of as much as there is room for */
	__u8 packet[REPORT_MAX];
};

_Static_assert(sizeof(struct group_report) == 1512, "group report");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} group_report SEC(".maps");

static __always_inline bool group_joined(__u32 vsid, __u32 ifindex, const union addr *to)
{
	struct group_key k = {.vsid = vsid, .ifindex = ifindex};

	__builtin_memcpy(&k.group, to, sizeof(k.group));
	return bpf_map_lookup_elem(&group, &k) != NULL;
}

#endif
