/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_ACL_H
#define WEFT_LIB_ACL_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/connection.h"
#include "lib/ctx.h"
#include "lib/observe.h"
#include "maps/port.h"
#include "maps/query.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

/* Asks the rules of a port about a packet. */

#define ACL_ASKED 0x61736b64 /* in cb[2], from the short way to the walk */

#define ACL_INBOUND (1ull << 48)
#define ACL_ND (1ull << 49)
#define ACL_FRAGMENT (1ull << 50)
#define ACL_LATER (1ull << 51)

/* What of a packet the search looks at, but for what is in the query. */
static __always_inline __u64 acl_word(const struct pkt *p, __u64 flags)
{
	return flags | (__u64)p->nd << 49 | (__u64)p->fragment << 50 | (__u64)p->later << 51 | (__u64)p->icmp_type << 40 |
	       (__u64)p->icmp_code << 32 | (__u64)p->proto << 16 | p->type;
}

static __always_inline __u64 acl_mac(const __u8 *m)
{
	return (__u64)m[0] << 40 | (__u64)m[1] << 32 | (__u64)m[2] << 24 | (__u64)m[3] << 16 | (__u64)m[4] << 8 | m[5];
}

static __always_inline void acl_number(__u64 *to, const union addr *a, bool is6)
{
	to[0] = is6 ? bpf_be64_to_cpu(a->d[0]) : 0;
	to[1] = is6 ? bpf_be64_to_cpu(a->d[1]) : bpf_ntohl(a->w[3]);
}

/* The packet in the trees of ports: of ICMP, type and code are looked up where the remote port is. */
static __always_inline void acl_ports(struct __sk_buff *skb, struct query *q, __u64 word, __u32 ports)
{
	__u8 proto = word >> 16;
	bool has_ports = proto == PROTO_TCP || proto == PROTO_UDP;
	bool icmp = proto == ((__u16)word == TYPE_IPV4 ? PROTO_ICMP : PROTO_ICMPV6);
	__u32 key = (__u32)proto << 16, src = ports >> 16, dst = ports & 0xffff;
	__be16 shown[2];

	if (!has_ports && !icmp) {
		q->local_port = q->remote_port = QUERY_OPAQUE | key;
		return;
	}
	if (word & ACL_LATER || q->l4_len < sizeof(shown)) {
		q->local_port = q->remote_port = QUERY_HIDDEN | key;
		return;
	}
	if (icmp) {
		q->local_port = QUERY_SHOWN | key;
		q->remote_port = QUERY_SHOWN | key | (word >> 32 & 0xffff);
		return;
	}
	if (word & ACL_FRAGMENT && load(skb, q->l4, shown, sizeof(shown))) { /* parse does not read them of the first */
		src = bpf_ntohs(shown[0]);
		dst = bpf_ntohs(shown[1]);
	}
	q->local_port = QUERY_SHOWN | key | (word & ACL_INBOUND ? dst : src);
	q->remote_port = QUERY_SHOWN | key | (word & ACL_INBOUND ? src : dst);
}

/* Makes the query whole and answers it if no search is needed. One global function for all that nearly every packet needs:
 * the verifier walks it once, by itself, and each call more would cost a packet as much as a lookup. */
__noinline int acl(struct __sk_buff *skb, __u64 word, __u32 ports)
{
	struct query *q = query_room();
	bool inbound = word & ACL_INBOUND, is6 = (__u16)word == TYPE_IPV6;

	if (!q)
		return CONN_DENIED;
	q->inbound = inbound;
	q->proto = word >> 16;
	q->icmp_type = word >> 40;
	q->fragment = word >> 50 & 1;
	q->later = word >> 51 & 1;
	q->ip = (__u16)word != TYPE_ARP && !(word & ACL_ND);
	q->is6 = is6;
	if (q->ip) {
		acl_number(q->remote, inbound ? &q->src : &q->dst, is6);
		acl_number(q->local, inbound ? &q->dst : &q->src, is6);
		q->remote4 = q->remote[1];
		q->local4 = q->local[1];
		acl_ports(skb, q, word, ports);
	}
	return conn_judge(skb, q);
}

static __always_inline enum verdict acl_judge(struct __sk_buff *skb, const struct pkt *p, struct query *q, const struct port *port, __u64 flags,
					       const union addr *src, const union addr *dst)
{
	__u32 base = p->stripped ? 0 : p->base; /* flood strips before it copies */
	int answer;

	q->src = *src;
	q->dst = *dst;
	q->port_id = port->id;
	q->slot = port->slot;
	q->version = port->version;
	q->sets[0] = port->outbound;
	q->sets[1] = port->inbound;
	q->sampled = 0;
	q->now = 0;
	q->len = p->len;
	q->l3 = base + sizeof(struct eth);
	q->l4 = p->l4 - p->base + base;
	q->l4_len = p->l4_len;
	answer = acl(skb, acl_word(p, flags), (__u32)p->sport << 16 | p->dport_l4);
	if (answer == CONN_SEARCH) {
		conn_ask_rules(q);
		answer = conn_said(skb, q);
	}
	if (answer == CONN_SEARCH) {
		conn_ask_rules(q);
		answer = conn_said(skb, q);
	}
	if (q->phase == CONN_OWN && q->ip)
		observe(q);
	return answer == CONN_ALLOWED ? V_CONTINUE : V_ACL_DENIED;
}

/* Into a port, from the underlay or as a copy; src and dst are the Customer Addresses, and eth is as the guest gets it. */
static __always_inline enum verdict acl_inbound(struct __sk_buff *skb, const struct pkt *p, const struct port *to, const union addr *src, const union addr *dst)
{
	struct query *q;

	if (!(to->flags & PORT_RULES))
		return V_CONTINUE;
	q = query_room();
	if (!q)
		return V_ACL_DENIED;
	q->remote_mac = acl_mac(p->eth.src);
	q->local_mac = acl_mac(p->eth.dst);
	return acl_judge(skb, p, q, to, ACL_INBOUND, src, dst);
}

#endif
