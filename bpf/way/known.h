/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WAY_KNOWN_H
#define WEFT_WAY_KNOWN_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/checksum.h"
#include "lib/config.h"
#include "lib/connection.h"
#include "lib/ctx.h"
#include "lib/finish.h"
#include "lib/tos.h"
#include "maps/connection.h"
#include "maps/known.h"
#include "maps/port.h"
#include "maps/setting.h"
#include "maps/traffic.h"
#include "maps/vouch.h"
#include "stage/70_encap.h"
#include "way/known_rewrite.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* The known way: packets of a flow that all has been looked up for before, with nothing changed since. What is the
 * same for all packets of a flow is in its key, what differs between them is looked at each time, and what policy
 * says is good for one turn of it. It takes a packet only if the short way, or the walk of from_uplink,
 * would do the same with it. */

/* Ports whose packets may be known. What such a port has beside is in the key or is said by its flags. */
static __always_inline bool known_on(void)
{
	return connections_on && !capture_on; /* a trace, too, looks everything up */
}

static __always_inline __u64 known_turn(void)
{
	__u32 zero = 0;
	const volatile __u64 *turn = bpf_map_lookup_elem(&policy_turn, &zero);

	return turn ? *turn : 1;
}

static __always_inline __u32 known_tag_of(__u64 hash)
{
	return (__u32)(hash >> 16) | 1;
}

/* Whether the flow is the one last seen at its row, which it is from now on if it is to leave a trace. */
static __always_inline bool known_seen(struct known *k, __u32 table, __u64 hash, bool trace)
{
	struct known_tags *t = bpf_map_lookup_elem(&known_tag, &table);
	__u32 at = hash >> (64 - KNOWN_BITS), tag = known_tag_of(hash);

	k->turn = 1;
	k->at = at;
	if (!t || at >= KNOWN_ROWS)
		return false;
	if (t->tag[at] == tag)
		return true;
	if (trace)
		t->tag[at] = tag;
	return false;
}

/* Begins to look up what is to be known: all is read after the turn of policy. */
static __always_inline void known_begin(struct known *k, __u64 *any)
{
	k->turn = known_turn();
	__sync_fetch_and_add(any, 0); /* a full barrier, on every processor */
}

/* How many connections of the ports have had to give way. */
static __always_inline __u32 known_lost(__u32 slot)
{
	const volatile struct conn_port *c = bpf_map_lookup_elem(&conn_port, &slot);

	return c ? (__u32)(c->lost[0] + c->lost[1]) : 0;
}

static __always_inline __u64 known_now(void)
{
	__u32 zero = 0;
	const struct conn_secret *s;

	if (!rehearse)
		return bpf_ktime_get_coarse_ns();
	s = bpf_map_lookup_elem(&conn_secret, &zero);
	return s ? conn_now(s) : ~0ull;
}

/* Whether connections need not be looked at yet: their last packet was written down only just now. */
static __always_inline bool known_follows(__u64 now, __u64 until)
{
	return (__s64)(now - until) < 0;
}

/* From guests. */

static __always_inline void known_out_key(const struct pkt *p, __u32 ifindex, __u64 *key)
{
	__u64 mac = 0;

	__builtin_memcpy(&mac, p->eth.src, MAC_LEN);
	key[0] = (__u64)ifindex << 32 | (__u32)p->sport << 16 | p->dport_l4;
	key[1] = mac << 16 | p->proto;
	mac = 0;
	__builtin_memcpy(&mac, p->eth.dst, MAC_LEN);
	key[2] = mac << 16 | p->type;
	key[3] = p->src.d[0];
	key[4] = p->src.d[1];
	key[5] = p->dst.d[0];
	key[6] = p->dst.d[1];
}

static __always_inline __u64 known_out_hash(const __u64 *key)
{
	__u64 h = key[0] * 0x9e3779b97f4a7c15ull + (key[3] ^ key[4]) * 0xc2b2ae3d27d4eb4full + (key[5] ^ key[6]) * 0x165667b19e3779f9ull;

	h ^= h >> 32;
	return h * 0x9e3779b97f4a7c15ull;
}

/* Whether what a row says still holds, but for policy. */
static __always_inline bool known_out_fresh(const struct known_out *e)
{
	__u32 zero = 0, lost = 0;
	const __u64 *until;

	if (e->flags & (KNOWN_FOLLOWS | KNOWN_ENTERS)) {
		if (e->flags & KNOWN_FOLLOWS)
			lost = known_lost(e->slot);
		if (e->flags & KNOWN_ENTERS)
			lost += known_lost(e->to_slot);
		if (lost != e->lost || !known_follows(known_now(), e->until))
			return false;
	}
	if (!(e->flags & KNOWN_REMOTE))
		return true;
	until = bpf_map_lookup_elem(&vouch, &zero);
	return until && *until > bpf_ktime_get_coarse_ns();
}

static __always_inline struct known_out *known_out_find(const struct pkt *p, __u32 ifindex, struct known *k)
{
	__u64 key[KNOWN_OUT_KEY], turn = known_turn(), differs = turn & 1;
	struct known_out *e;

	known_out_key(p, ifindex, key);
	if (!known_seen(k, KNOWN_FROM_GUEST, known_out_hash(key), true))
		return NULL;
	e = bpf_map_lookup_elem(&known_out, &k->at);
	if (!e)
		return NULL;
	differs |= e->turn ^ turn;
#pragma clang loop unroll(full)
	for (int i = 0; i < KNOWN_OUT_KEY; i++)
		differs |= e->key[i] ^ key[i];
	if (!differs && known_out_fresh(e))
		return e;
	known_begin(k, &e->turn);
	e->turn = 1; /* nobody's, until it is put */
#pragma clang loop unroll(full)
	for (int i = 0; i < KNOWN_OUT_KEY; i++)
		e->key[i] = key[i];
	return NULL;
}

/* The size of the IP packet; of a super-packet, the largest that it will be cut into. */
static __always_inline __u32 known_size(struct __sk_buff *skb, const struct pkt *p)
{
	__u32 l3 = p->l4 - sizeof(struct eth);
	__u8 offset;

	if (!skb->gso_size)
		return p->len - sizeof(struct eth);
	if (p->proto == PROTO_UDP)
		return l3 + 8 + skb->gso_size;
	if (p->proto != PROTO_TCP)
		return l3 + skb->gso_size;
	if (!load_head(skb, p->l4 + 12, &offset, sizeof(offset)))
		return ~0u;
	return l3 + (offset >> 4) * 4 + skb->gso_size;
}

static __always_inline bool known_out_may(struct __sk_buff *skb, const struct pkt *p, const struct known_out *e)
{
	return known_size(skb, p) <= e->limit && (!(e->flags & KNOWN_ROUTED) || p->ttl > 1);
}

/* Fills in what differs between packets. Rows are each CPU's own, and so is the packet in hand. */
static __always_inline void known_head(struct __sk_buff *skb, const struct pkt *p, struct known_out *e)
{
	__u8 tos = (p->tos & e->tos_keep) | e->tos_set;
	__u32 total = skb->len - sizeof(struct eth);
	struct outer_frame *f = &e->head;

	if (!(e->flags & KNOWN_OUTER6)) {
		struct ipv4 *ip = &f->nvgre4.ip;

		ip->tos = tos;
		ip->total_len = bpf_htons((__u16)total);
		ip->id = outer_id(p);
		ip->check = csum_fold((__u32)e->sum + bpf_htons((__u16)(0x4500 | tos)) + ip->total_len + ip->id);
		if (e->flags & KNOWN_VXLAN)
			f->vxlan4.udp.len = bpf_htons((__u16)(total - sizeof(struct ipv4)));
		return;
	}
	f->nvgre6.ip.version_class_flow = (f->nvgre6.ip.version_class_flow & bpf_htonl(0xf00fffff)) | bpf_htonl((__u32)tos << 20);
	f->nvgre6.ip.payload_len = bpf_htons((__u16)(total - sizeof(struct ipv6)));
	if (e->flags & KNOWN_VXLAN)
		f->vxlan6.udp.len = f->nvgre6.ip.payload_len;
}

static __always_inline enum verdict known_out_write(struct __sk_buff *skb, const struct pkt *p, struct known_out *e, __u32 at)
{
	__u32 len = e->head_len;

	if (e->flags & KNOWN_REMOTE)
		known_head(skb, p, e);
	if (e->flags & KNOWN_ROUTED && !encap_ttl(skb, p, at))
		return V_ENCAP_FAILED;
	if (len && (len > OUTER_FRAME_MAX || bpf_skb_store_bytes(skb, 0, &e->head.nvgre4, len, 0)))
		return V_ENCAP_FAILED;
	return V_CONTINUE;
}

static __always_inline bool known_out_room(struct __sk_buff *skb, const struct known_out *e, __u32 room)
{
	__u64 flags = ENCAP_FLAGS | (e->flags & KNOWN_OUTER6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) |
		      (e->flags & KNOWN_VXLAN ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP : BPF_F_ADJ_ROOM_ENCAP_L4_GRE);

	return bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags) == 0;
}

static __always_inline void known_count_in(__u32 slot, __u32 len)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return;
	t->in_packets++;
	t->in_bytes += len;
}

static __always_inline void known_count_out(__u32 slot, __u32 len)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return;
	t->out_packets++;
	t->out_bytes += len;
}

static __always_inline void known_count_rules(const struct known_out *e, __u32 len)
{
	if (e->flags & KNOWN_FOLLOWS)
		rules_count(e->follows, len);
	if (e->flags & KNOWN_ENTERS)
		rules_count(e->enters, len);
}

#define KNOWN_SENT 2 /* in cb[3], for a test run; 1 is the short way */

static __always_inline int known_deliver(struct __sk_buff *skb, __u32 flags, __u32 out)
{
	if (flags & KNOWN_PEER) {
		if (skb->pkt_type != PACKET_HOST)
			bpf_skb_change_type(skb, PACKET_HOST);
		return bpf_redirect_peer(out, 0);
	}
	skb->mark = SWITCH_MARK;
	return bpf_redirect(out, 0);
}

static __always_inline void known_out_tell(struct __sk_buff *skb, struct pkt *p, const struct known_out *e)
{
	skb->cb[1] = e->out;
	skb->cb[3] = KNOWN_SENT;
	p->port_id = e->port_id;
	known_count_rules(e, p->len);
}

static __always_inline enum verdict known_out_leave(struct __sk_buff *skb, const struct pkt *p, const struct known_out *e, int *answer)
{
	skb->cb[0] = V_ENCAPSULATED;
	known_count_out(e->slot, p->len);
	*answer = bpf_redirect(e->out, 0);
	return V_ENCAPSULATED;
}

/* Sends a packet that known_out_may has let through. V_CONTINUE: the kernel makes no room, and it is as it was. */
static __always_inline enum verdict known_out_send(struct __sk_buff *skb, struct pkt *p, struct known_out *e, int *answer)
{
	__u32 room;

	if (e->flags & KNOWN_REWRITE) {
		if (!known_rewrite(skb, p, &e->rewrite, (e->flags & KNOWN_ROUTED) / KNOWN_ROUTED))
			return V_CONTINUE;
		known_out_tell(skb, p, e);
		return known_out_leave(skb, p, e, answer);
	}
	room = e->flags & KNOWN_REMOTE ? e->head_len - (__u32)sizeof(struct eth) : 0;
	if (room && !known_out_room(skb, e, room))
		return V_CONTINUE;
	known_out_tell(skb, p, e);
	if (known_out_write(skb, p, e, room))
		return V_ENCAP_FAILED;
	if (e->flags & KNOWN_REMOTE)
		return known_out_leave(skb, p, e, answer);
	known_count_out(e->slot, p->len);
	skb->cb[0] = V_DELIVERED;
	known_count_in(e->to_slot, skb->len);
	*answer = known_deliver(skb, e->flags, e->out);
	return V_DELIVERED;
}

/* The row to put the flow into, or the spare one. */
static __always_inline struct known_out *known_out_row(const struct known *k)
{
	__u32 at = k->turn & 1 ? KNOWN_SPARE : k->at;

	return bpf_map_lookup_elem(&known_out, &at);
}

/* Of what goes to another host: head is what it was sent with. */
static __always_inline __u32 known_out_remote(const struct pkt *p, struct known_out *e)
{
	const struct setting *s = settings();
	bool pipe = s && s->flags & SETTING_PIPE;
	struct ipv4 *ip = &e->head.nvgre4.ip;

	e->tos_keep = pipe ? ECN_MASK : 0xff;
	e->tos_set = pipe ? s->dscp : 0;
	if (!p->outer6)
		e->sum = (__u16)~csum_fold(csum_ipv4(ip) - *(__u16 *)ip - ip->total_len - ip->id - ip->check);
	return KNOWN_REMOTE | (p->outer6 ? KNOWN_OUTER6 : 0) | (p->vxlan ? KNOWN_VXLAN : 0);
}

/* Which rules count the packets of the flow: those that way/short.h has found. */
static __always_inline void known_note_rules(bool any, __u32 *rules, __u32 direction)
{
	const struct query *q = any ? query_room() : NULL;

	if (!q)
		return;
#pragma clang loop unroll(full)
	for (int i = 0; i < CONN_RULES; i++)
		rules[i] = q->counts[direction & 1][i];
}

/* Puts what the short way has found out of a packet that is about to be sent with e->head before it. */
static __always_inline void known_out_put(const struct known *k, const struct pkt *p, struct known_out *e, __u32 limit, __u64 until, __u32 lost)
{
	__u32 flags = 0;

	if (k->turn & 1 || (p->peer && !p->bare))
		return;
	e->limit = limit < 0xffff ? limit : 0xffff;
	e->out = p->out;
	e->slot = p->port->slot;
	e->port_id = p->port_id;
	e->until = until;
	e->lost = lost;
	if (p->port->flags & PORT_RULES)
		flags |= KNOWN_FOLLOWS;
	if (p->routed)
		flags |= KNOWN_ROUTED;
	if (p->rewrite) {
		flags |= KNOWN_REMOTE | KNOWN_REWRITE;
	} else if (p->peer) {
		flags |= known_out_remote(p, e);
	} else if (p->dport) {
		e->to_slot = p->dport->slot;
		flags |= (p->dport->flags & PORT_PEER ? KNOWN_PEER : 0) | (p->dport->flags & PORT_RULES ? KNOWN_ENTERS : 0);
	}
	e->flags = flags;
	known_note_rules(flags & KNOWN_FOLLOWS, e->follows, 0);
	known_note_rules(flags & KNOWN_ENTERS, e->enters, 1);
	barrier();
	e->turn = k->turn;
}

#endif
