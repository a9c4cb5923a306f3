/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_ADMIT_H
#define WEFT_STAGE_ADMIT_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/ctx.h"
#include "lib/guard.h"
#include "lib/isolation.h"
#include "maps/allowed.h"
#include "maps/forwarder.h"
#include "maps/own.h"
#include "maps/path.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/record.h"
#include "maps/route.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"

/* Nobody speaks for another: MAC, address, ARP and ND of the port, or of the remote host. */

static __always_inline bool admit_own(const struct port *port, const union addr *ca)
{
	const struct record *r;

	if (own_has(port, ca))
		return true;
	r = record_find(port->vsid, ca);
	return r && !(r->flags & RECORD_ROUTER) && r->ifindex == port->ifindex;
}

/* A source that no packet may come from, wherever it is. */
static __always_inline bool admit_unusable(const union addr *a, bool is4)
{
	__u32 first = bpf_ntohl(a->w[3]) >> 24;

	if (is4)
		return first == 0 || first == 127 || first >= 224;
	return addr6_multicast(a) || addr6_link_local(a) ||
	       (a->d[0] == 0 && a->w[2] == 0 && (a->w[3] & ~bpf_htonl(1)) == 0); /* :: and ::1 */
}

/* Whether a source without a record in its subnet has none in the network either. */
static __noinline bool admit_outside(const struct pkt *p, __u32 network)
{
	bool is4 = p->type == TYPE_IPV4;
	const struct route *to;

	if (admit_unusable(&p->src, is4))
		return false;
	to = route_find(network, is4 ? 4 : 6, &p->src);
	return !to || !record_find(to->vsid, &p->src);
}

/* The guest is its subnet's gateway and speaks for somebody outside policy. */
static __noinline bool admit_gateway(const struct pkt *p)
{
	const struct record *g = record_wildcard(p->port->vsid, p->type == TYPE_IPV4);

	if (!g || g->ifindex != p->port->ifindex || record_find(p->port->vsid, &p->src))
		return false;
	return admit_outside(p, p->port->network);
}

/* Its own, or one that policy lets it use, too. */
static __always_inline bool admit_usable(const struct port *port, const union addr *ca)
{
	return admit_own(port, ca) || (port->flags & PORT_ALLOWED && allowed_source(port->ifindex, ca));
}

static __always_inline bool admit_mac(const struct port *port, const __u8 *mac)
{
	__u64 m = 0;

	if (same_mac(mac, port->mac))
		return true;
	__builtin_memcpy(&m, mac, MAC_LEN);
	return port->flags & PORT_ALLOWED && allowed_mac(port->ifindex, m);
}

static __always_inline bool admit_source(const struct pkt *p)
{
	if (admit_usable(p->port, &p->src))
		return true;
	if (p->port->flags & PORT_FORWARD)
		return !admit_unusable(&p->src, p->type == TYPE_IPV4);
	return admit_gateway(p);
}

static __always_inline enum verdict admit_arp(const struct pkt *p)
{
	if (!same_mac(p->claim, p->eth.src))
		return V_SPOOFED_ARP;
	if (p->arp_op == ARP_REQUEST && p->src.w[3] == 0)
		return V_CONTINUE;
	return admit_usable(p->port, &p->src) ? V_CONTINUE : V_SPOOFED_ARP;
}

static __always_inline enum verdict admit_ipv4(const struct pkt *p)
{
	if (p->src.w[3] == 0 && p->dst.w[3] == 0xffffffff)
		return V_MULTICAST;
	return admit_source(p) ? V_CONTINUE : V_SPOOFED_CA;
}

static __always_inline enum verdict admit_nd(const struct pkt *p)
{
	if (p->icmp_type == ND_NA && !addr6_link_local(&p->hop) && !admit_usable(p->port, &p->hop))
		return V_SPOOFED_ND;
	if (!p->has_claim)
		return V_CONTINUE;
	if (!same_mac(p->claim, p->eth.src))
		return V_SPOOFED_ND;
	if (p->icmp_type != ND_NA && addr_unspecified(&p->src))
		return V_SPOOFED_ND;
	return V_CONTINUE;
}

static __always_inline bool admit_source6(const struct pkt *p)
{
	if (addr_unspecified(&p->src))
		return (p->nd && p->icmp_type == ND_NS) || addr6_multicast(&p->dst);
	if (addr6_link_local(&p->src))
		return p->nd || addr6_multicast(&p->dst);
	return admit_source(p);
}

static __always_inline enum verdict admit_self(const struct pkt *p)
{
	if (!admit_mac(p->port, p->eth.src))
		return V_SPOOFED_MAC;
	if (p->type == TYPE_ARP)
		return admit_arp(p);
	if (p->type == TYPE_IPV4)
		return admit_ipv4(p);
	if (!admit_source6(p))
		return V_SPOOFED_CA;
	return p->nd ? admit_nd(p) : V_CONTINUE;
}

/* The guards come first: what 20.3 takes for a client's broadcast may be flooded. */
static __always_inline enum verdict admit_port(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 flags = p->port->flags, asks = guard_of(skb, p);

	if (flags & asks)
		return asks == PORT_DHCP_GUARD ? V_DHCP_SERVER_MESSAGE : V_ROUTER_MESSAGE;
	return flags & PORT_SPOOF ? V_CONTINUE : admit_self(p);
}

static __noinline bool admit_listed(const struct pkt *p, __u32 idx)
{
	struct source_key k = {.peer = idx, .pa = p->outer_src};

	return bpf_map_lookup_elem(&source, &k) != NULL;
}

/* Whether the host that the index into peer names may send from the outer source. */
static __always_inline bool admit_at(const struct pkt *p, __u32 idx)
{
	const struct peer *host;

	if (idx == 0)
		return false;
	host = bpf_map_lookup_elem(&peer, &idx);
	if (!host)
		return false;
	if (host->flags & PEER_LISTED)
		return admit_listed(p, idx);
	return same_addr(&host->pa, &p->outer_src);
}

/* Whether a record's address lives behind the outer source. */
static __always_inline bool admit_behind(const struct pkt *p, const struct record *r)
{
	return admit_at(p, r->peer);
}

/* A source in another subnet of the network, whose packet the sender's host routed. */
static __always_inline bool admit_routed(const struct pkt *p)
{
	bool is4 = p->type == TYPE_IPV4;
	const struct route *to;
	const struct record *r;

	to = route_find(p->dport->network, is4 ? 4 : 6, &p->src);
	if (!to)
		return false;
	r = record_find(to->vsid, &p->src);
	if (r)
		return to->flags & ROUTE_ON_LINK && admit_behind(p, r);
	r = record_wildcard(to->vsid, is4);
	return r && !admit_unusable(&p->src, is4) && admit_behind(p, r);
}

/* A source whose way back leads through a guest: it is where its own subnet says. */
static __always_inline bool admit_led(const struct pkt *p)
{
	const struct route *to = route_find(p->dport->network | ROUTE_DIRECT, p->type == TYPE_IPV4 ? 4 : 6, &p->src);
	const struct record *r;

	if (!to)
		return false;
	r = record_find(to->vsid, &p->src);
	return r && admit_behind(p, r);
}

/* What policy trusts the guest with that may have sent the packet. */
static __noinline __u32 admit_trust(const struct pkt *p, __u32 network)
{
	struct forwarder_key k = {.network = network};
	__u8 router[MAC_LEN];
	const __u32 *trust;

	router_mac(router, p->vsid);
	if (!same_mac(p->eth.src, router))
		__builtin_memcpy(k.mac, p->eth.src, MAC_LEN);
	__builtin_memcpy(&k.pa, &p->outer_src, sizeof(k.pa));
	trust = bpf_map_lookup_elem(&forwarder, &k);
	return trust ? *trust : 0;
}

/* A guest of that host uses a source that it may use beside its own. */
static __always_inline bool admit_allowed(const struct pkt *p, __u32 network)
{
	return !admit_unusable(&p->src, p->type != TYPE_IPV6) && admit_trust(p, network) & TRUST_ALLOWED;
}

/* A guest of that host forwards, or may use other sources, and has sent what is not its own. */
static __always_inline bool admit_forwarded(const struct pkt *p)
{
	if (admit_unusable(&p->src, p->type != TYPE_IPV6))
		return false;
	return admit_trust(p, p->dport->network) & (p->type == TYPE_ARP ? TRUST_ALLOWED : TRUST_FORWARD | TRUST_ALLOWED);
}

/* The guards again: the sender's host has let through only what its guest may say. */
static __always_inline enum verdict admit_said(struct __sk_buff *skb, const struct pkt *p, __u32 network)
{
	__u32 asks = guard_of(skb, p);

	if (!asks || admit_trust(p, network) & (asks == PORT_DHCP_GUARD ? TRUST_DHCP : TRUST_ROUTER))
		return V_CONTINUE;
	return asks == PORT_DHCP_GUARD ? V_DHCP_SERVER_MESSAGE : V_ROUTER_MESSAGE;
}

/* Routers speak from link-local addresses, which policy does not know: admit_said judges. */
static __always_inline bool admit_router_speaks(const struct pkt *p)
{
	return p->nd && (p->icmp_type == ND_RA || p->icmp_type == ND_REDIRECT) && addr6_link_local(&p->src);
}

/* A source that the subnet has no record of: routed, or let in by a gateway. */
static __noinline bool admit_stranger(const struct pkt *p)
{
	__u8 router[MAC_LEN];
	const struct record *g;

	if (p->type == TYPE_ARP)
		return false;
	router_mac(router, p->vsid);
	if (same_mac(p->eth.src, router))
		return admit_routed(p) || admit_led(p);
	g = record_wildcard(p->vsid, p->type == TYPE_IPV4);
	return g && admit_behind(p, g) && same_mac(g->mac, p->eth.src) && admit_outside(p, p->dport->network);
}

/* ARP and ND from the underlay speak for nobody but the guest that sent them. */
static __always_inline enum verdict admit_claims(const struct pkt *p, __u32 network)
{
	const struct record *r;

	if (p->has_claim && !same_mac(p->claim, p->eth.src))
		return p->nd ? V_SPOOFED_ND : V_SPOOFED_ARP;
	if (!p->nd || p->icmp_type != ND_NA || addr6_link_local(&p->hop))
		return V_CONTINUE;
	r = record_find(p->vsid, &p->hop);
	if (r && admit_behind(p, r) && same_mac(r->mac, p->eth.src))
		return V_CONTINUE;
	return admit_trust(p, network) & TRUST_ALLOWED ? V_CONTINUE : V_SPOOFED_ND;
}

static __always_inline enum verdict admit_remote(struct __sk_buff *skb, const struct pkt *p)
{
	const struct record *r = record_find(p->vsid, &p->src);
	enum verdict v;

	if (!(r ? admit_behind(p, r) && same_mac(r->mac, p->eth.src) : admit_stranger(p)) && !admit_forwarded(p) && !admit_router_speaks(p))
		return V_SOURCE_NOT_IN_POLICY;
	v = admit_claims(p, p->dport->network);
	v || (v = admit_said(skb, p, p->dport->network));
	return v ? v : isolate_remote(p, r);
}

#endif
