/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_LEARN_H
#define WEFT_LIB_LEARN_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/guard.h"
#include "maps/learn.h"
#include "maps/port.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Tells the agent what is said of addresses: docs/design/learning.md. It changes no verdict
 * and no packet. */

#define LEARN_INTERVAL_NS 50000000ull /* between two samples of a port, in the long run */
#define LEARN_BURST_NS 1000000000ull  /* what may come at once, in the same measure */

/* What a DHCP server says to a client. */
static __always_inline bool learn_is_lease(__u32 type, __u32 proto, __u32 ports)
{
	return type == TYPE_IPV4 && proto == PROTO_UDP && ports == (DHCP_SERVER << 16 | DHCP_CLIENT);
}

static __always_inline __u32 learn_ports(const struct pkt *p)
{
	return (__u32)p->sport << 16 | p->dport_l4;
}

/* What is asked of learn_heard. */
enum learn_kind {
	LEARN_SAID,     /* by a guest that may learn addresses: is it about one that it has not? */
	LEARN_DEFENDED, /* to a guest that looked whether an address is free: the switch's answer, whose it is */
	LEARN_LEASED,   /* to a guest that may learn addresses: by a DHCP server? */
	LEARN_SOUGHT,   /* by a guest: an address that nobody has */
	LEARN_TEAMED,   /* by a guest that teams its ports: anything, as another one of them */
	LEARN_TOO_BIG   /* to a guest: more than it takes */
};

#define LEARN_NO_SLOT ~0u /* not held to a pace */

/* A port may say 20 things at once and 20 each second: the generic cell rate algorithm. */
static __always_inline bool learn_in_pace(__u32 slot, bool big, __u64 now)
{
	__u32 at = slot << 1 | big;
	__u64 *used = bpf_map_lookup_elem(&learn_pace, &at), from;

	if (!used)
		return false;
	from = *used > now ? *used : now;
	if (from - now > LEARN_BURST_NS)
		return false;
	*used = from + LEARN_INTERVAL_NS;
	return true;
}

static __always_inline bool learn_zero(const struct __sk_buff *skb, __u32 at, __u32 words)
{
	__be32 a[4] = {};

	return load(skb, at, a, words * 4) && (a[0] | a[1] | a[2] | a[3]) == 0;
}

/* A guest looks whether a global address is free. */
static __always_inline bool learn_is_dad(const struct __sk_buff *skb, __u32 base)
{
	__u8 target[2];

	return learn_zero(skb, base + 14 + 8, 4) && load(skb, base + 14 + 40 + 8, target, sizeof(target)) &&
	       !(target[0] == 0xfe && (target[1] & 0xc0) == 0x80);
}

/* The switch's own answer to such a look. */
static __always_inline bool learn_to_anonymous(const struct __sk_buff *skb, __u16 type)
{
	__u8 first;

	if (type == TYPE_ARP)
		return learn_zero(skb, 14 + 24, 1);
	return load(skb, 14 + 24, &first, 1) && first == 0xff;
}

/* What of a packet learn_heard looks at, in one word. */
static __always_inline __u64 learn_word(const struct pkt *p, enum learn_kind kind, __u32 v)
{
	return (__u64)kind << 60 | (__u64)p->nd << 59 | (__u64)p->direction << 56 | (__u64)p->icmp_type << 48 |
	       (__u64)p->proto << 40 | (__u64)v << 32 | p->type;
}

static __always_inline bool learn_matters(const struct __sk_buff *skb, __u64 word, __u32 ports, __u32 base)
{
	__u8 kind = word >> 60, icmp_type = word >> 48, proto = word >> 40, v = word >> 32;
	__u16 type = word;
	bool udp = type == TYPE_IPV4 && proto == PROTO_UDP;

	if (kind == LEARN_SOUGHT || kind == LEARN_TEAMED || kind == LEARN_TOO_BIG)
		return true;
	if (kind == LEARN_DEFENDED)
		return learn_to_anonymous(skb, type);
	if (kind == LEARN_LEASED)
		return learn_is_lease(type, proto, ports);
	if (v == V_SPOOFED_ARP || v == V_SPOOFED_ND)
		return true;
	if (word >> 59 & 1 && icmp_type == ND_NS)
		return v == V_SPOOFED_CA || (!v && learn_is_dad(skb, base));
	return udp && ports == (DHCP_CLIENT << 16 | DHCP_SERVER) && (!v || v == V_MULTICAST || v == V_SPOOFED_CA);
}

/* Tells the agent, if it matters. A global function, with no pointer to what is ours: so the verifier
 * walks it once, by itself, and not again on every way that leads here. whom is slot and port id,
 * where VSID and offset of the guest's frame. */
__noinline int learn_heard(struct __sk_buff *skb, __u64 word, __u64 whom, __u64 where, __u32 ports)
{
	__u32 base = where & 0xffff, slot = whom >> 32, n = skb->len - base;
	__u64 now = bpf_ktime_get_ns();
	struct learn *l;

	if (event_interval == ~0ull || skb->len <= base) /* a trace tells nobody */
		return 0;
	if (!learn_matters(skb, word, ports, base) || (slot != LEARN_NO_SLOT && !learn_in_pace(slot, word >> 60 == LEARN_TOO_BIG, now)))
		return 0;
	l = bpf_ringbuf_reserve(&learn, sizeof(*l), 0);
	if (!l)
		return 0;
	l->time = now;
	l->vsid = where >> 32;
	l->port_id = whom;
	l->verdict = word >> 32;
	l->direction = word >> 56 & 1;
	l->zero = 0;
	__builtin_memset(l->head, 0, sizeof(l->head));
	if (n > LEARN_HEAD)
		n = LEARN_HEAD;
	if (n == 0 || n > LEARN_HEAD || !load(skb, base, l->head, n))
		n = 0;
	l->head_len = n;
	bpf_ringbuf_submit(l, 0);
	return 0;
}

static __always_inline void learn_tell(struct __sk_buff *skb, const struct pkt *p, __u64 word, __u32 slot, __u32 id, __u32 vsid)
{
	learn_heard(skb, word, (__u64)slot << 32 | id, (__u64)vsid << 32 | p->base, learn_ports(p));
}

/* A port speaks as another one of its team. */
static __always_inline bool learn_is_teamed(const struct port *port, const __u8 *mac, enum verdict v)
{
	return !v && port->flags & PORT_TEAMING && !same_mac(mac, port->mac);
}

/* After admit. */
static __always_inline enum verdict learn_said(struct __sk_buff *skb, struct pkt *p, enum verdict v)
{
	bool teamed = learn_is_teamed(p->port, p->eth.src, v);

	if (teamed || p->port->flags & PORT_LEARN)
		learn_tell(skb, p, learn_word(p, teamed ? LEARN_TEAMED : LEARN_SAID, v), p->port->slot, p->port->id, p->port->vsid);
	return v;
}

/* After what admits a guest on a VLAN. */
static __always_inline enum verdict learn_teamed(struct __sk_buff *skb, const struct pkt *p, const struct port *port, const __u8 *mac)
{
	if (learn_is_teamed(port, mac, V_CONTINUE))
		learn_tell(skb, p, learn_word(p, LEARN_TEAMED, V_CONTINUE), port->slot, port->id, 0);
	return V_CONTINUE;
}

/* After respond. */
static __always_inline enum verdict learn_defended(struct __sk_buff *skb, struct pkt *p, enum verdict v)
{
	if (v == V_ANSWERED)
		learn_tell(skb, p, learn_word(p, LEARN_DEFENDED, v), p->port->slot, p->port->id, p->port->vsid);
	return v;
}

/* After lookup. */
static __always_inline enum verdict learn_leased(struct __sk_buff *skb, const struct pkt *p)
{
	if (p->dport && p->dport->flags & PORT_LEARN)
		learn_tell(skb, p, learn_word(p, LEARN_LEASED, V_CONTINUE), p->dport->slot, p->dport->id, p->vsid);
	return V_CONTINUE;
}

/* In flood: the same, to all. Only the client's MAC inside tells whom it is for. */
static __always_inline void learn_flooded(struct __sk_buff *skb, const struct pkt *p)
{
	learn_tell(skb, p, learn_word(p, LEARN_LEASED, V_CONTINUE), p->port ? p->port->slot : LEARN_NO_SLOT, 0, p->vsid);
}

/* Of what is larger than the port takes. It has a pace of its own, or who sends such would keep the agent from learning. */
static __always_inline void learn_too_big(struct __sk_buff *skb, const struct pkt *p)
{
	learn_tell(skb, p, learn_word(p, LEARN_TOO_BIG, V_TOO_BIG), p->dport->slot, p->dport->id, p->vsid);
}

/* In flood, from a guest: it looks for an address that nobody has. */
static __always_inline void learn_sought(struct __sk_buff *skb, const struct pkt *p, enum verdict was)
{
	if (was == V_ARP_NO_RECORD || was == V_ND_NO_RECORD)
		learn_tell(skb, p, learn_word(p, LEARN_SOUGHT, was), p->port->slot, p->port->id, p->vsid);
}

#endif
