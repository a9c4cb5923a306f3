/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_GUARD_H
#define WEFT_LIB_GUARD_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/ctx.h"
#include "lib/offload.h"
#include "maps/port.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* What only servers and routers say. */

#define DHCP_SERVER 67
#define DHCP_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

#define BOOTREPLY 2
#define DHCP6_ADVERTISE 2
#define DHCP6_REPLY 7
#define DHCP6_RECONFIGURE 10
#define DHCP6_RELAY_REPLY 13

/* Whether a datagram is a DHCP server's. Clients take what comes to their port, from whichever port it
 * comes; what comes to a server's or a relay's, or from there, tells by its first byte. In a fragment, or
 * when a checksum is yet to be written over it, that byte may become another. */
static __always_inline bool guard_is_server(struct __sk_buff *skb, __u32 l4, __u32 len, bool is4, bool fragment, __u32 ports)
{
	__u16 server = is4 ? DHCP_SERVER : DHCP6_SERVER, client = is4 ? DHCP_CLIENT : DHCP6_CLIENT;
	__u16 from = ports >> 16, to = ports;
	__u32 start, field;
	__u8 type;

	if (to == client)
		return true;
	if (from != server && to != server)
		return false;
	if (fragment || (csum_pending(skb, &start, &field) && field != l4 + 6))
		return true;
	if (len <= 8 || !load(skb, l4 + 8, &type, sizeof(type)))
		return false;
	if (is4)
		return type == BOOTREPLY;
	return type == DHCP6_ADVERTISE || type == DHCP6_REPLY || type == DHCP6_RECONFIGURE || type == DHCP6_RELAY_REPLY;
}

/* Whether datagrams between these ports may be a matter for a guard, of either family. */
static __always_inline bool guard_may_ask(__u32 from, __u32 to)
{
	return from == DHCP_SERVER || from == DHCP6_SERVER || to - DHCP_SERVER <= 1 || to - DHCP6_CLIENT <= 1;
}

#define GUARD_IPV6 (1 << 16)
#define GUARD_FIRST (1 << 17) /* fragment, with the L4 header; parse reads no ports of it */

/* The guard that a packet is a matter for, as a flag of port; 0: none. A global function, so that the verifier
 * walks it once; what holds L4 protocol, ICMP type and the flags above. */
__noinline int guard_asks(struct __sk_buff *skb, __u32 l4, __u32 len, __u32 what, __u32 ports)
{
	bool is4 = !(what & GUARD_IPV6), fragment = what & GUARD_FIRST;
	__u8 proto = what >> 8, type = what;

	if (proto == PROTO_UDP) {
		if (fragment && load(skb, l4, &ports, sizeof(ports)))
			ports = bpf_ntohl(ports);
		return guard_is_server(skb, l4, len, is4, fragment, ports) ? PORT_DHCP_GUARD : 0;
	}
	if (is4)
		return proto == PROTO_ICMP && (type == ICMP_REDIRECT || type == ICMP_ROUTER) ? PORT_ROUTER_GUARD : 0;
	return proto == PROTO_ICMPV6 && (type == ND_RA || type == ND_REDIRECT) ? PORT_ROUTER_GUARD : 0;
}

/* The same. Parse has told these protocols apart, too: a finer look here would double what the verifier walks. */
static __always_inline __u32 guard_of(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 what = p->icmp_type | (__u32)p->proto << 8 | (__u32)(p->type >> 15) << 16 | (__u32)(p->fragment & ~p->later) << 17;

	if (p->proto != PROTO_UDP && p->proto != PROTO_ICMP && p->proto != PROTO_ICMPV6)
		return 0;
	return guard_asks(skb, p->l4, p->l4_len, what, (__u32)p->sport << 16 | p->dport_l4);
}

#endif
