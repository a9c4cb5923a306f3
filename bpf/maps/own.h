/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_MAPS_OWN_H
#define WEFT_MAPS_OWN_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps/port.h"
#include "wire/addr.h"

/* own: one address of each family that a port's guest owns, so that admit need not search
 * `record` for most packets. It never says more than `record` does.
 * key     the port's slot
 * writer  datapath.Apply: cleared before the record of an address changes, filled after
 * readers admit
 * miss    the record is looked up
 * full    cannot be: as many slots as ports */
struct own {
	__u32 ifindex; /* of the port; 0: nothing is known */
	__u32 vsid;
	union addr ca[2]; /* IPv4, IPv6; zero: none */
};

_Static_assert(sizeof(struct own) == 40, "own");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct own);
	__uint(max_entries, 4096);
} own SEC(".maps");

/* A slot may go to another port meanwhile: its row is cleared first, so when it still
 * names this port after the address was read, the address was this port's. */
static __always_inline bool own_has(const struct port *port, const union addr *ca)
{
	__u32 slot = port->slot;
	const struct own *o = bpf_map_lookup_elem(&own, &slot);
	bool same;

	if (!o)
		return false;
	same = (o->ca[0].d[0] == ca->d[0] && o->ca[0].d[1] == ca->d[1]) ||
	       (o->ca[1].d[0] == ca->d[0] && o->ca[1].d[1] == ca->d[1]);
	barrier();
	return same && o->ifindex == port->ifindex && o->vsid == port->vsid;
}

#endif
