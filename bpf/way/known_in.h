/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WAY_KNOWN_IN_H
#define WEFT_WAY_KNOWN_IN_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/checksum.h"
#include "lib/config.h"
#include "lib/ctx.h"
#include "lib/offload.h"
#include "maps/known.h"
#include "maps/port.h"
#include "stage/70_encap.h"
#include "way/known.h"
#include "way/short.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/outer.h"

/* The known way of packets from the underlay. */

/* What a frame from the underlay is, as far as its outcome depends on it. */
struct known_frame {
	__u64 key[KNOWN_IN_KEY];
	__u32 at; /* of the guest's Ethernet header; 0: it may be rewritten */
	__u32 len;
	__be16 port; /* of VXLAN */
	__u8 proto, tos;
};

static __always_inline bool known_outer4(const struct __sk_buff *skb, struct known_frame *f)
{
	struct ipv4 ip;

	if (!known_peek(skb, sizeof(struct eth), &ip, sizeof(ip)) || ip.version_ihl != 0x45 || ip.frag & bpf_htons(IPV4_MF | IPV4_OFFSET) ||
	    bpf_ntohs(ip.total_len) + sizeof(struct eth) != f->len || csum_fold(csum_ipv4(&ip)))
		return false;
	f->key[0] = (__u64)ip.src << 32 | ip.dst;
	f->key[1] = f->key[2] = f->key[3] = 0;
	f->proto = ip.proto;
	f->tos = ip.tos;
	f->at = sizeof(struct eth) + sizeof(ip);
	return true;
}

static __always_inline bool known_outer6(const struct __sk_buff *skb, struct known_frame *f)
{
	struct ipv6 ip;
	__u32 first;

	if (!known_peek(skb, sizeof(struct eth), &ip, sizeof(ip)))
		return false;
	first = bpf_ntohl(ip.version_class_flow);
	if (first >> 28 != 6 || bpf_ntohs(ip.payload_len) + sizeof(ip) + sizeof(struct eth) != f->len)
		return false;
	f->key[0] = (__u64)ip.src[0] << 32 | ip.src[1];
	f->key[1] = (__u64)ip.src[2] << 32 | ip.src[3];
	f->key[2] = (__u64)ip.dst[0] << 32 | ip.dst[1];
	f->key[3] = (__u64)ip.dst[2] << 32 | ip.dst[3];
	f->proto = ip.next;
	f->tos = first >> 20;
	f->at = sizeof(struct eth) + sizeof(ip);
	return true;
}

/* Of what is not to a tunnel's port there are no outer headers: it may be a guest's packet that is rewritten. */
static __always_inline bool known_rewritten(const struct __sk_buff *skb, struct known_frame *f)
{
	const struct setting *s;
	struct udp udp;

	if (f->proto == PROTO_GRE)
		return false;
	if (f->proto == PROTO_UDP) {
		s = settings();
		if (!s || !known_peek(skb, f->at, &udp, sizeof(udp)) || udp.dport == s->vxlan_port)
			return false;
	}
	f->at = 0;
	return true;
}

/* A frame to this host that the tunnel alone has wrapped: not what uplink_xdp has stripped. */
static __always_inline bool known_outer(const struct __sk_buff *skb, struct known_frame *f)
{
	struct {
		struct udp udp;
		__u64 vxlan;
	} h;
	__be16 type;

	if ((void *)(long)skb->data_meta + sizeof(struct meta) <= (void *)(long)skb->data || skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return false;
	f->len = skb->len;
	if (!known_peek(skb, 2 * MAC_LEN, &type, sizeof(type)))
		return false;
	if (type == bpf_htons(TYPE_IPV4) ? !known_outer4(skb, f) : type != bpf_htons(TYPE_IPV6) || !known_outer6(skb, f))
		return false;
	f->port = 0;
	if (known_rewritten(skb, f))
		return true;
	if (f->proto == PROTO_GRE) {
		if (!known_peek(skb, f->at, &f->key[4], sizeof(f->key[4])))
			return false;
		f->at += sizeof(struct nvgre);
		return true;
	}
	if (f->proto != PROTO_UDP || !known_peek(skb, f->at, &h, sizeof(h)) || h.udp.check || bpf_ntohs(h.udp.len) + f->at != f->len)
		return false;
	f->key[4] = h.vxlan;
	f->port = h.udp.dport;
	f->at += sizeof(h);
	return true;
}

/* The guest's packet, as if there were nothing before it. */
static __always_inline bool known_inner(const struct __sk_buff *skb, const struct known_frame *f, struct pkt *p)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;
	const void *ip = data + f->at + sizeof(struct eth);

	p->len = f->len - f->at;
	if (ip + sizeof(struct ipv4) + 4 > end)
		return false;
	__builtin_memcpy(&p->eth, __builtin_assume_aligned(data + f->at, 2), sizeof(p->eth));
	p->type = bpf_ntohs(p->eth.type);
	if (p->type == TYPE_IPV4)
		return short_ipv4(p, ip);
	if (p->type != TYPE_IPV6 || ip + sizeof(struct ipv6) + 4 > end)
		return false;
	return short_ipv6(p, ip);
}

static __always_inline void known_in_key(struct known_frame *f, const struct pkt *p)
{
	__u64 mac = 0;

	__builtin_memcpy(&mac, p->eth.dst, MAC_LEN);
	f->key[9] = mac << 16 | f->port;
	mac = 0;
	__builtin_memcpy(&mac, p->eth.src, MAC_LEN);
	f->key[10] = mac << 16 | p->type;
	f->key[11] = (__u64)(p->proto | (__u32)f->proto << 8) << 32 | (__u32)p->sport << 16 | p->dport_l4;
	f->key[5] = p->src.d[0];
	f->key[6] = p->src.d[1];
	f->key[7] = p->dst.d[0];
	f->key[8] = p->dst.d[1];
}

/* Of what is rewritten, all but the packet itself is zero, and Ethernet addresses say nothing. */
static __always_inline void known_in_key_rewritten(__u64 *key, const struct pkt *p)
{
	key[0] = key[1] = key[2] = key[3] = key[4] = key[9] = 0;
	key[5] = p->src.d[0];
	key[6] = p->src.d[1];
	key[7] = p->dst.d[0];
	key[8] = p->dst.d[1];
	key[10] = p->type;
	key[11] = (__u64)p->proto << 32 | (__u32)p->sport << 16 | p->dport_l4;
}

static __always_inline __u64 known_in_hash(const __u64 *key)
{
	__u64 h = (key[5] ^ key[6] ^ key[4]) * 0x9e3779b97f4a7c15ull + (key[7] ^ key[8]) * 0xc2b2ae3d27d4eb4full + key[11] * 0x165667b19e3779f9ull;

	h ^= h >> 32;
	return h * 0x9e3779b97f4a7c15ull;
}

static __always_inline bool known_in_fresh(const struct known_in *e)
{
	return !(e->flags & KNOWN_ENTERS) || (known_lost(e->slot) == e->lost && known_follows(known_now(), e->until));
}

/* What may be rewritten may as well be the host's own: it leaves no trace here before the walk knows. */
static __always_inline struct known_in *known_in_find(const struct known_frame *f, struct known *k)
{
	__u64 turn = known_turn(), differs = turn & 1, hash = known_in_hash(f->key);
	bool seen = known_seen(k, KNOWN_FROM_UNDERLAY, hash, f->at != 0);
	struct known_in *e;

	k->tag = f->at ? 0 : known_tag_of(hash);
	if (!f->at)
		known_begin(k, &k->turn);
	if (!seen)
		return NULL;
	e = bpf_map_lookup_elem(&known_in, &k->at);
	if (!e)
		return NULL;
	differs |= e->turn ^ turn;
#pragma clang loop unroll(full)
	for (int i = 0; i < KNOWN_IN_KEY; i++)
		differs |= e->key[i] ^ f->key[i];
	if (!differs && known_in_fresh(e))
		return e;
	if (!f->at)
		return NULL;
	known_begin(k, &e->turn);
	e->turn = 1; /* nobody's, until it is put */
#pragma clang loop unroll(full)
	for (int i = 0; i < KNOWN_IN_KEY; i++)
		e->key[i] = f->key[i];
	return NULL;
}

static __always_inline bool known_strip(struct __sk_buff *skb, const struct known_frame *f, const struct pkt *p)
{
	bool outer6 = f->key[1] | f->key[3], inner6 = p->type == TYPE_IPV6;
	__u64 flags = DECAP_FLAGS | (f->proto == PROTO_UDP ? decap_vxlan : decap_nvgre);

	if (inner6 != outer6)
		flags |= outer6 ? ADJ_ROOM_DECAP_L3_IPV4 : ADJ_ROOM_DECAP_L3_IPV6;
	return bpf_skb_adjust_room(skb, -(int)f->at, BPF_ADJ_ROOM_MAC, flags) == 0;
}

/* The size of what a super-packet will be cut into, with its L4 header at l4 behind an IP header. A global function: the verifier walks it once. */
__noinline int known_segment(struct __sk_buff *skb, __u32 ip_len, __u32 proto, __u32 l4)
{
	__u8 offset = 0;

	if (proto != PROTO_TCP)
		return ip_len + sizeof(struct udp) + skb->gso_size;
	load(skb, l4 + 12, &offset, sizeof(offset));
	return ip_len + (offset >> 4) * 4 + skb->gso_size;
}

/* Whether the port takes the packet. */
static __always_inline bool known_fits(struct __sk_buff *skb, const struct known_frame *f, const struct pkt *p, __u32 limit)
{
	__u32 ip_len = p->type == TYPE_IPV4 ? sizeof(struct ipv4) : sizeof(struct ipv6);
	__u32 size = p->len - sizeof(struct eth);

	if (skb->gso_size)
		size = known_segment(skb, ip_len, p->proto, f->at + sizeof(struct eth) + ip_len);
	return size <= limit;
}

/* Delivers a packet whose flow is known. V_CONTINUE: it is as it was, and k says where its flow may be put. */
static __always_inline enum verdict known_way(struct __sk_buff *skb, struct known *k, struct pkt *p, int *answer)
{
	struct known_frame f;
	struct known_in *e;

	k->turn = 1;
	if (!known_on() || !known_outer(skb, &f) || !known_inner(skb, &f, p) || p->tos != f.tos)
		return V_CONTINUE;
	if (decap_nvgre && skb->gso_size && f.at)
		return V_CONTINUE; /* the kernel must be told more of it: stage/70_encap.h */
	if (f.at)
		known_in_key(&f, p);
	else
		known_in_key_rewritten(f.key, p);
	e = known_in_find(&f, k);
	if (!e || !known_fits(skb, &f, p, e->limit) || !(f.at ? known_strip(skb, &f, p) : known_rewrite(skb, p, &e->rewrite, 0)))
		return V_CONTINUE;
	p->len = f.len;
	p->port_id = e->port_id;
	skb->cb[0] = V_DELIVERED;
	skb->cb[1] = e->out;
	skb->cb[3] = KNOWN_SENT;
	if (e->flags & KNOWN_ENTERS)
		rules_count(e->enters, f.len);
	if (f.at && bpf_skb_store_bytes(skb, 0, &p->eth, sizeof(p->eth), 0))
		return V_DECAP_FAILED;
	known_count_in(e->slot, skb->len);
	*answer = known_deliver(skb, e->flags, e->out);
	return V_DELIVERED;
}

/* Whether nothing of a packet that the walk is about to deliver is looked at but what known_way looks at. */
static __always_inline bool known_in_plain(const struct pkt *p)
{
	__u32 flags = p->dport->flags;

	if (flags & ~SHORT_PORT || p->detour)
		return false;
	if (p->rewrite)
		return true;
	return p->stripped && (p->proto != PROTO_TCP || flags & PORT_PEER); /* a tap may want the detour */
}

/* Begins the row of a rewritten flow, if a packet of it was seen before; what is rewritten is from and to Customer Addresses now. */
static __always_inline bool known_in_begin_rewritten(const struct known *k, struct pkt *p, struct known_in *e)
{
	const struct rewrite *r = rewrite_room();
	__u32 table = KNOWN_FROM_UNDERLAY, at = k->at;
	struct known_tags *t = bpf_map_lookup_elem(&known_tag, &table);

	if (!k->tag || !r || !t || at >= KNOWN_ROWS)
		return false;
	if (t->tag[at] != k->tag) {
		t->tag[at] = k->tag;
		return false;
	}
	e->turn = 1;
	known_in_key_rewritten(e->key, p);
	e->rewrite.eth = p->eth;
	if (!known_replaces(&e->rewrite, p, &r->to[0], &r->to[1]))
		return false;
	p->src = r->to[0];
	p->dst = r->to[1];
	return true;
}

/* Puts what the walk has found out of a packet that is about to be delivered. */
static __always_inline void known_in_put(struct pkt *p, enum verdict v)
{
	struct follows follows = {.until = ~0ull >> 1};
	const struct known *k = known_spot_room();
	struct known_in *e;

	if (!k || k->turn & 1 || v != V_DELIVERED || !p->dport || !known_in_plain(p))
		return;
	e = bpf_map_lookup_elem(&known_in, &k->at);
	if (!e || (p->rewrite ? !known_in_begin_rewritten(k, p, e) : k->tag) || !short_allowed(p, p->dport, true, &follows))
		return;
	e->out = p->out;
	e->limit = p->dport->mtu;
	e->slot = p->dport->slot;
	e->port_id = p->port_id;
	e->until = follows.until;
	e->lost = follows.lost;
	e->flags = (p->dport->flags & PORT_PEER ? KNOWN_PEER : 0) | (p->dport->flags & PORT_RULES ? KNOWN_ENTERS : 0);
	known_note_rules(e->flags & KNOWN_ENTERS, e->enters, 1);
	barrier();
	e->turn = k->turn;
}

#endif
