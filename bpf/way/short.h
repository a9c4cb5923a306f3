/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WAY_SHORT_H
#define WEFT_WAY_SHORT_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/acl.h"
#include "lib/capture.h"
#include "lib/config.h"
#include "lib/connection.h"
#include "lib/ctx.h"
#include "lib/finish.h"
#include "lib/flow.h"
#include "lib/guard.h"
#include "lib/rows.h"
#include "maps/own.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/query.h"
#include "maps/record.h"
#include "maps/route.h"
#include "stage/10_parse.h"
#include "stage/20_admit.h"
#include "stage/60_lookup.h"
#include "stage/65_isolate.h"
#include "stage/70_encap.h"
#include "stage/80_underlay.h"
#include "stage/90_deliver.h"
#include "way/judge.h"
#include "way/known.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* The short way of from_port: what nearly every packet is and nearly every port wants, in a
 * program that is small. It decides nothing by itself: it does what the walk would do, byte for
 * byte, or it leaves the packet to the walk, untouched. So each function here answers whether
 * the packet is still on the short way. struct pkt stays in registers, because no function
 * that is not inlined sees it. */

/* Of a sender or a receiver. A flag that is not here says that its port's packets are walked:
 * whoever adds one need not know of this page. */
#define SHORT_PORT (PORT_SPOOF | PORT_PEER | PORT_FLOOD | PORT_VXLAN | PORT_REWRITE | PORT_DHCP_GUARD | PORT_ROUTER_GUARD | \
		    PORT_TEAMING | PORT_PRIORITY_TAG | PORT_ALLOWED | PORT_RULES)

static __always_inline bool short_l4(struct pkt *p, __be32 head)
{
	__u32 h = bpf_ntohl(head);

	if (p->proto == PROTO_TCP || p->proto == PROTO_UDP) {
		p->sport = h >> 16;
		p->dport_l4 = h;
		return p->proto == PROTO_TCP || !guard_may_ask(h >> 16, h & 0xffff);
	}
	if (p->type == TYPE_IPV4)
		return p->proto == PROTO_ICMP && (h >> 24 == ICMP_ECHO || h >> 24 == ICMP_ECHO_REPLY);
	return p->proto == PROTO_ICMPV6 && (h >> 24 == ICMPV6_ECHO || h >> 24 == ICMPV6_ECHO_REPLY);
}

/* IPv4 without options, not a fragment, with four bytes of L4. */
static __always_inline bool short_ipv4(struct pkt *p, const void *at)
{
	struct {
		struct ipv4 ip;
		__be32 l4;
	} h;
	__u32 total;

	__builtin_memcpy(&h, __builtin_assume_aligned(at, 8), sizeof(h));
	total = bpf_ntohs(h.ip.total_len);
	if (h.ip.version_ihl != 0x45 || total < sizeof(h) || total > p->len - sizeof(struct eth) ||
	    h.ip.frag & bpf_htons(IPV4_MF | IPV4_OFFSET))
		return false;
	addr_set4(&p->src, h.ip.src);
	addr_set4(&p->dst, h.ip.dst);
	p->proto = h.ip.proto;
	p->ttl = h.ip.ttl;
	p->tos = h.ip.tos;
	p->id = h.ip.id;
	p->l4 = sizeof(struct eth) + sizeof(h.ip);
	return short_l4(p, h.l4);
}

/* IPv6 without extension headers, with four bytes of L4, between global addresses. */
static __always_inline bool short_ipv6(struct pkt *p, const void *at)
{
	struct {
		struct ipv6 ip;
		__be32 l4;
	} h;
	__u32 first, total;

	__builtin_memcpy(&h, __builtin_assume_aligned(at, 8), sizeof(h));
	first = bpf_ntohl(h.ip.version_class_flow);
	total = sizeof(h.ip) + bpf_ntohs(h.ip.payload_len);
	if (first >> 28 != 6 || total < sizeof(h) || total > p->len - sizeof(struct eth))
		return false;
	addr_set6(&p->src, h.ip.src);
	addr_set6(&p->dst, h.ip.dst);
	if (addr_is4(&p->src) || addr_is4(&p->dst) || admit_unusable(&p->src, false))
		return false;
	p->proto = h.ip.next;
	p->ttl = h.ip.hop_limit;
	p->tos = first >> 20;
	p->l4 = sizeof(struct eth) + sizeof(h.ip);
	return short_l4(p, h.l4);
}

static __always_inline bool short_parse(struct __sk_buff *skb, struct pkt *p)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;
	const void *ip = data + sizeof(struct eth);

	if (skb->vlan_present)
		return false;
	if (ip + sizeof(struct ipv4) + 4 > end)
		return false;
	__builtin_memcpy(&p->eth, __builtin_assume_aligned(data, 8), sizeof(p->eth));
	p->type = bpf_ntohs(p->eth.type);
	if (p->type == TYPE_IPV4)
		return short_ipv4(p, ip);
	if (p->type != TYPE_IPV6 || ip + sizeof(struct ipv6) + 4 > end)
		return false;
	return short_ipv6(p, ip);
}

static __always_inline bool short_port(const struct __sk_buff *skb, struct pkt *p)
{
	__u32 ifindex = skb->ifindex;

	p->port = bpf_map_lookup_elem(&port, &ifindex);
	if (!p->port || p->port->flags & ~SHORT_PORT)
		return false;
	p->port_id = p->port->id;
	return true;
}

static __always_inline bool short_admit(const struct pkt *p)
{
	if (p->port->flags & PORT_SPOOF)
		return true;
	return same_mac(p->eth.src, p->port->mac) && admit_own(p->port, &p->src);
}

/* What the rules of its ports say of a packet. */
struct follows {
	__u64 until; /* when the first of its connections must be seen to be in use */
	__u32 lost;  /* how many others had given way before */
	__u32 asked; /* ACL_ASKED: the sender's have been, and all that is done about them has been done */
};

/* Asks connections about a packet of TCP or UDP. */
static __always_inline void short_ask(const struct pkt *p, struct query *q, const struct port *port, bool inbound)
{
	__u32 local = inbound ? p->dport_l4 : p->sport, remote = inbound ? p->sport : p->dport_l4;
	bool is6 = p->type == TYPE_IPV6;

	q->slot = port->slot;
	q->version = port->version;
	q->inbound = inbound;
	acl_number(q->key, inbound ? &p->dst : &p->src, is6);
	acl_number(q->key + 2, inbound ? &p->src : &p->dst, is6);
	q->key[4] = conn_word_of(is6, p->proto, local, remote);
}

/* A port without rules, or a packet of a connection that they have allowed. */
static __always_inline bool short_allowed(const struct pkt *p, const struct port *port, bool inbound, struct follows *f)
{
	struct query *q;

	if (!(port->flags & PORT_RULES))
		return true;
	q = query_room();
	if (!q || !connections_on || (p->proto != PROTO_TCP && p->proto != PROTO_UDP))
		return false;
	short_ask(p, q, port, inbound);
	f->lost += known_lost(port->slot);
	if (!conn_see(q) || q->held.version != port->version || q->held.third == CONN_MANY)
		return false;
	conn_rules(q, q->counts[inbound]);
	if (q->held.seen + CONN_SLACK < f->until)
		f->until = q->held.seen + CONN_SLACK;
	return true;
}

/* The same of a port, or a packet like one that its rules have allowed before: then this is done as the walk does it. */
static __always_inline bool short_judged(const struct pkt *p, const struct port *port, bool inbound, struct follows *f)
{
	__u32 proto = (__u32)p->proto << 16;
	struct query *q;

	if (!(port->flags & PORT_RULES))
		return true;
	q = query_room();
	if (!q || !connections_on || (p->proto != PROTO_TCP && p->proto != PROTO_UDP))
		return false;
	short_ask(p, q, port, inbound);
	q->set = inbound ? port->inbound : port->outbound;
	q->remote_mac = !inbound ? acl_mac(p->eth.dst) : p->routed ? ROUTER_MAC | p->vsid : acl_mac(p->eth.src);
	q->local_mac = acl_mac(inbound ? p->rec->mac : p->eth.src);
	q->local_port = QUERY_SHOWN | proto | (inbound ? p->dport_l4 : p->sport);
	q->remote_port = QUERY_SHOWN | proto | (inbound ? p->sport : p->dport_l4);
	q->is6 = p->type == TYPE_IPV6;
	q->proto = p->proto;
	q->len = p->len;
	q->port_id = port->id;
	f->lost += known_lost(port->slot);
	if (!judge(q))
		return false;
	f->until = least(f->until, q->held.seen + CONN_SLACK);
	return true;
}

/* A record of the subnet, or of one that is next to it. */
static __always_inline bool short_route(struct pkt *p)
{
	const struct route *to;

	if (admit_unusable(&p->dst, p->type == TYPE_IPV4))
		return false;
	p->vsid = p->port->vsid;
	p->rec = record_find(p->vsid, &p->dst);
	if (p->rec)
		return true;
	to = route_find(p->port->network, p->type == TYPE_IPV4 ? 4 : 6, &p->dst);
	if (!to || !(to->flags & ROUTE_ON_LINK) || to->vsid == p->vsid || p->ttl <= 1)
		return false;
	p->vsid = to->vsid;
	p->routed = 1;
	p->rec = record_find(p->vsid, &p->dst);
	return p->rec;
}

static __always_inline bool short_remote(struct pkt *p, __u32 idx)
{
	if (p->rec->flags & RECORD_EXCHANGE)
		return false;
	p->rewrite = p->rec->flags & RECORD_REWRITE && p->port->flags & PORT_REWRITE; /* the next hop is the destination here */
	if (!p->rewrite)
		lookup_transport(p, p->rec->flags, p->port->flags);
	p->peer = bpf_map_lookup_elem(&peer, &idx);
	if (!p->peer)
		return false;
	if (p->peer->paths)
		p->peer = path_of(p->peer, flow_hash(p));
	if (!p->peer || !reaches(p->port, p->peer))
		return false;
	if (p->rewrite) { /* where the kernel finds the way, the walk asks it to */
		p->bare = 1;
		return rewrite_bare(p);
	}
	p->outer6 = !addr_is4(&p->peer->remote);
	return true;
}

static __always_inline bool short_lookup(struct pkt *p)
{
	__u32 idx = p->rec->peer;

	p->out = p->rec->ifindex;
	if (p->rec->flags & RECORD_ROUTER || p->out == p->port->ifindex)
		return false;
	if (idx)
		return short_remote(p, idx);
	p->dport = bpf_map_lookup_elem(&port, &p->out);
	return p->dport && !(p->dport->flags & ~SHORT_PORT) && p->dport->vsid == p->vsid;
}

static __always_inline bool short_fits(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 limit = p->peer ? p->peer->mtu : p->dport->mtu, room = p->peer && !p->rewrite ? outer_len(p->vxlan, p->outer6) : 0;

	return encap_size(skb, p) + room <= limit;
}

static __always_inline bool short_room(struct __sk_buff *skb, struct pkt *p)
{
	if (!p->peer)
		return true;
	if (p->rewrite)
		return true;
	if (bpf_skb_adjust_room(skb, outer_len(p->vxlan, p->outer6), BPF_ADJ_ROOM_MAC, encap_flags(p)))
		return false;
	p->bare = vouched(p->peer);
	return true;
}

/* What no lookup is needed for. */
static __always_inline bool short_starts(struct __sk_buff *skb, struct pkt *p)
{
	return !capture_on && short_parse(skb, p) && parse_pending(skb, p) == V_CONTINUE;
}

/* All else that must hold before the packet is touched; making room is the last that may fail. What the rules of the sender have
 * said is said for the walk, too; after what those of the receiver say nothing fails. */
static __always_inline bool short_may(struct __sk_buff *skb, struct pkt *p, struct follows *f)
{
	if (!short_port(skb, p) || !short_admit(p) || !short_judged(p, p->port, false, f))
		return false;
	f->asked = ACL_ASKED;
	return short_route(p) && short_lookup(p) && isolate(p) == V_CONTINUE && short_fits(skb, p) &&
	       (!p->dport || short_judged(p, p->dport, true, f)) && short_room(skb, p);
}

/* Writes what the packet needs in front, and leaves it in e. */
static __always_inline enum verdict short_write(struct __sk_buff *skb, struct pkt *p, struct known_out *e)
{
	__u32 at = p->peer ? outer_len(p->vxlan, p->outer6) : 0;
	struct eth inner = p->eth;

	e->head_len = 0;
	__builtin_memcpy(inner.dst, p->rec->mac, MAC_LEN);
	if (p->routed) {
		router_mac(inner.src, p->vsid);
		if (!encap_ttl(skb, p, at))
			return V_ENCAP_FAILED;
	}
	if (!p->peer && !p->routed && same_mac(inner.dst, p->eth.dst))
		return V_CONTINUE;
	e->head_len = at + sizeof(inner);
	if (p->peer)
		return encap_write(skb, p, &inner, &e->head);
	e->head.nvgre4.eth = inner;
	return bpf_skb_store_bytes(skb, 0, &inner, sizeof(inner), 0) ? V_ENCAP_FAILED : V_CONTINUE;
}

/* known_rewrite. A global function: the verifier walks it once, not with all that comes before and behind it. */
__noinline int short_replace(struct __sk_buff *skb, struct known_new *to, __u32 l3, __u32 routed)
{
	struct pkt p = {.type = l3 >> 16, .proto = l3};

	if (!skb || !to)
		return false;
	p.l4 = sizeof(struct eth) + (p.type == TYPE_IPV4 ? sizeof(struct ipv4) : sizeof(struct ipv6));
	return known_rewrite(skb, &p, to, routed & 1);
}

/* Puts what a rewritten packet gets into `to`, and writes it. False: the packet is as it was. */
static __always_inline bool short_rewrite(struct __sk_buff *skb, const struct pkt *p, struct known_new *to)
{
	const union addr *src = rewrite_pa(p->port->vsid, &p->src), *dst = rewrite_pa(p->vsid, &p->dst);

	if (!src || !dst || !p->peer)
		return false;
	rewrite_eth(p->peer, p->eth.type, &to->eth);
	return known_replaces(to, p, src, dst) && short_replace(skb, to, (__u32)p->type << 16 | p->proto, p->routed);
}

/* The largest IP packet that fits. */
static __always_inline __u32 short_limit(const struct pkt *p)
{
	__u32 room = p->rewrite ? 0 : outer_len(p->vxlan, p->outer6);

	if (!p->peer)
		return p->dport ? p->dport->mtu : 0;
	return p->peer->mtu > room ? p->peer->mtu - room : 0;
}

/* Sends what short_may has let through. */
static __always_inline enum verdict short_send(struct __sk_buff *skb, struct pkt *p, const struct known *k, const struct follows *f, int *answer)
{
	struct known_out *e = known_out_row(k);
	enum verdict v = V_ENCAP_FAILED;

	if (p->rewrite && (!e || !short_rewrite(skb, p, &e->rewrite)))
		return V_CONTINUE;
	if (e)
		(v = p->rewrite ? V_CONTINUE : short_write(skb, p, e))
		|| (v = underlay(p))
		|| (v = deliver(p));
	v = rows_checked(skb, p, v);
	skb->cb[3] = 1; /* tells a test run */
	if (v >= V_FIRST_DROP)
		return v;
	if (e)
		known_out_put(k, p, e, short_limit(p), f->until, f->lost);
	*answer = finish_sent(skb, p, v);
	return v;
}

/* The known way, or the short one. V_CONTINUE: neither, and the packet is as it was. A drop is left to the caller. */
static __always_inline enum verdict short_way(struct __sk_buff *skb, struct pkt *p, int *answer)
{
	struct follows f = {.until = ~0ull >> 1};
	struct known k = {.turn = 1};
	struct known_out *e;
	enum verdict v;

	skb->cb[2] = 0;
	if (!short_starts(skb, p))
		return V_CONTINUE;
	e = known_on() ? known_out_find(p, skb->ifindex, &k) : NULL;
	if (e && known_out_may(skb, p, e))
		return known_out_send(skb, p, e, answer);
	v = short_may(skb, p, &f) ? short_send(skb, p, &k, &f, answer) : V_CONTINUE;
	if (!v)
		skb->cb[2] = f.asked;
	return v;
}

/* What cannot be made after all, or has lost its port meanwhile. */
static __always_inline int short_drop(struct __sk_buff *skb, struct pkt *p, enum verdict v)
{
	p->action = ACT_NONE;
	p->quote = 0;
	return finish(skb, p, v);
}

#endif
