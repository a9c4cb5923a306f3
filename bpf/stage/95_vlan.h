/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_VLAN_H
#define WEFT_STAGE_VLAN_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/acl.h"
#include "lib/capture.h"
#include "lib/config.h"
#include "lib/copy.h"
#include "lib/ctx.h"
#include "lib/finish.h"
#include "lib/guard.h"
#include "lib/learn.h"
#include "maps/flood.h"
#include "maps/scratch.h"
#include "maps/shape.h"
#include "maps/traffic.h"
#include "maps/vlan.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"

/* Switch frames between ports without a VSID and an external interface, by VLAN.
 *
 * The stage is two programs of its own: vlan_guest for what ports send, vlan_uplink for what
 * the external interface receives. They share nothing with the virtual subnets but counters. */

#define VLAN_ID 0x0fff
#define VLAN_STORM_BURST_NS 100000000ull /* of its rate, so much may come at once */
#define VLAN_TOLD 0x10000                /* in cb[4] of a test run: the frame has a tag besides its bytes */

/* One frame. As in struct flooding, what changes with each copy must not be at a multiple of eight bytes. */
struct vlaned {
	struct __sk_buff *skb;
	struct pkt *p; /* what is behind the tag; in scratch, because the stack has no room for it */
	const struct vlan_port *from;     /* null: it came from the uplink */
	const struct vlan_member *members;
	struct eth eth;
	__u16 vid;    /* its VLAN; 0: none */
	__u16 tci;    /* what its tag is to be */
	__u32 uplink;
	__u32 size;   /* without Ethernet header and tag */
	__u8 tagged;  /* it came with a tag */
	__u8 doubled; /* and with another one, or one of a service provider */
	__u8 with_tag; /* the round of copies: those that have one */
	__u8 bare;     /* its tag is off, and p is read */
	__u16 came;    /* its tag as it came */
	enum verdict read; /* what is wrong with what is behind the tag, for ports that look */
	__u32 to;      /* id of the port that it is delivered to */
	__u32 copies;
	__u32 device;  /* of the port that sent it */
};

_Static_assert(offsetof(struct vlaned, copies) % 8 == 4, "the verifier would walk each round of a loop anew");

static __always_inline bool vlan_has(const __u64 *set, __u16 vid)
{
	return set[(vid & VLAN_ID) >> 6] >> (vid & 63) & 1;
}

static __always_inline bool vlan_is_tag(__be16 type)
{
	return type == bpf_htons(TYPE_VLAN) || type == bpf_htons(TYPE_QINQ);
}

/* Whether a port gets its frames of the VLAN with a tag. */
static __always_inline bool vlan_keeps_tag(const struct vlan_port *to, __u16 vid)
{
	return to->trunk && vid && vid != to->native;
}

/* Reads addresses and tag. The kernel has taken an outer 802.1Q tag off before, but not in a test run. */
static __always_inline enum verdict vlan_parse(struct vlaned *f)
{
	struct __sk_buff *skb = f->skb;
	struct vlan tag;

	if (!load(skb, 0, &f->eth, sizeof(f->eth)))
		return V_FRAME_TRUNCATED;
	f->size = skb->gso_size ? 0 : skb->len - sizeof(struct eth);
	if (skb->vlan_present) {
		f->tagged = 1;
		f->tci = skb->vlan_tci;
		f->doubled = skb->vlan_proto != bpf_htons(TYPE_VLAN) || vlan_is_tag(f->eth.type);
	} else if (vlan_is_tag(f->eth.type)) {
		if (!load(skb, 2 * MAC_LEN, &tag, sizeof(tag)))
			return V_FRAME_TRUNCATED;
		f->tagged = 1;
		f->tci = bpf_ntohs(tag.tci);
		f->doubled = tag.tpid != bpf_htons(TYPE_VLAN) || vlan_is_tag(tag.type);
		if (f->size)
			f->size -= 4;
	}
	f->came = f->tci;
	f->vid = f->tci & VLAN_ID;
	return V_CONTINUE;
}

static __always_inline const struct vlan_port *vlan_find(__u32 uplink, const __u8 *mac, __u32 *ifindex)
{
	struct vlan_mac_key k = {.uplink = uplink};
	const __u32 *found;

	__builtin_memcpy(k.mac, mac, MAC_LEN);
	found = bpf_map_lookup_elem(&vlan_mac, &k);
	if (!found)
		return NULL;
	*ifindex = *found;
	return bpf_map_lookup_elem(&vlan_port, ifindex);
}

/* What bridges keep to their own wire (IEEE 802.1Q table 8-1): 01-80-c2-00-00-00 to -0f. */
static __always_inline bool vlan_is_reserved(const __u8 *mac)
{
	return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && mac[3] == 0 && mac[4] == 0 && mac[5] < 16;
}

/* Gives the frame its tag, or none: what it may have is off. */
static __always_inline bool vlan_push(struct __sk_buff *skb, __u16 tci)
{
	return bpf_skb_vlan_push(skb, bpf_htons(TYPE_VLAN), tci) == 0;
}

/* 802.2 with SNAP can carry all that an Ethernet type can, and some receivers look (CVE-2021-27853). */
static __always_inline bool vlan_is_snap(struct __sk_buff *skb, __u16 type)
{
	__be16 saps;

	return type < 0x600 && load(skb, sizeof(struct eth), &saps, sizeof(saps)) && saps == bpf_htons(0xaaaa);
}

/* What is behind the tag. There is more than IP on a VLAN, which nobody here looks into. */
static __always_inline enum verdict vlan_parse_payload(struct __sk_buff *skb, struct pkt *p)
{
	enum verdict v = parse_payload(skb, p);
	__u32 start, field;

	if (v != V_NON_IP)
		return v ? v : parse_pending(skb, p);
	if (csum_pending(skb, &start, &field) || vlan_is_snap(skb, p->type))
		return V_NON_IP;
	return V_CONTINUE;
}

/* Takes the tag off and reads what is behind it. */
static __always_inline bool vlan_read(struct vlaned *f)
{
	struct pkt *p = f->p;

	f->bare = 1;
	if ((f->tagged && bpf_skb_vlan_pop(f->skb)) || !load(f->skb, 0, &p->eth, sizeof(p->eth)))
		return false;
	p->end = f->skb->len;
	f->read = vlan_parse_payload(f->skb, p);
	return true;
}

/* Shows the frame to captures: as it came with the tag that it came with, though that is off by now. */
static __always_inline void vlan_capture(struct vlaned *f, __u32 point, __u32 v, __u32 flags, __u32 to_port_id)
{
	bool came = point != POINT_TO_GUEST && point != POINT_TO_UNDERLAY;

	if (!capture_on)
		return;
	if (came && f->bare && f->tagged)
		flags |= CAPTURE_VLAN | (__u32)f->came << CAPTURE_TCI;
	capture_describe(f->p, point, v, flags, to_port_id);
	capture_show(f->skb);
}

static __always_inline bool vlan_within_rate(const struct vlan_port *from)
{
	__u32 slot = from->port.slot;
	__u64 *used = bpf_map_lookup_elem(&storm, &slot), now = bpf_ktime_get_ns(), start;

	if (!used || !from->storm)
		return false;
	start = *used > now ? *used : now;
	if (start - now > VLAN_STORM_BURST_NS)
		return false;
	*used = start + 1000000000u / from->storm;
	return true;
}

static __always_inline void vlan_count(__u32 slot, __u32 len, bool out)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return;
	if (out) {
		t->out_packets++;
		t->out_bytes += len;
		return;
	}
	t->in_packets++;
	t->in_bytes += len;
}

/* What a guest's tag says, and whether it may. */
static __always_inline enum verdict vlan_admit(struct vlaned *f)
{
	const struct vlan_port *from = f->from;
	__u16 priority = from->port.flags & PORT_PRIORITY_TAG ? f->tci & 0xe000 : 0;

	if (f->doubled)
		return V_VLAN_DOUBLE_TAGGED;
	if (f->vid && !(from->trunk))
		return V_VLAN_TAGGED;
	if (!f->vid)
		f->vid = from->native;
	if (!vlan_has(from->sends, f->vid))
		return V_VLAN_FILTERED;
	if (is_group(f->eth.src) || (!(from->port.flags & PORT_SPOOF) && !admit_mac(&from->port, f->eth.src)))
		return V_SPOOFED_MAC;
	if (vlan_is_reserved(f->eth.dst))
		return V_VLAN_LINK_LOCAL;
	f->tci = f->vid | priority;
	return V_CONTINUE;
}

/* The address of the link that a MAC makes (RFC 4291 appendix A). */
static __always_inline bool vlan_is_eui64(const union addr *a, const __u8 *mac)
{
	__u8 id[8] = {mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
	__u64 want;

	__builtin_memcpy(&want, id, sizeof(want));
	return a->d[0] == bpf_cpu_to_be64(0xfe80ull << 48) && a->d[1] == want;
}

/* A source that the guest may have: any that somebody can have, unless policy names its own. */
static __always_inline bool vlan_may_use(const struct vlan_port *from, const union addr *a)
{
	bool is4 = addr_is4(a), link = !is4 && addr6_link_local(a);

	if (!link && admit_unusable(a, is4))
		return false;
	if (!from->held || (link && vlan_is_eui64(a, from->port.mac)))
		return true;
	return allowed_source(from->port.ifindex, a);
}

static __always_inline enum verdict vlan_admit_arp(const struct vlan_port *from, const struct pkt *p)
{
	if (!same_mac(p->claim, p->eth.src))
		return V_SPOOFED_ARP;
	if (p->arp_op == ARP_REQUEST && p->src.w[3] == 0)
		return V_CONTINUE;
	return vlan_may_use(from, &p->src) ? V_CONTINUE : V_SPOOFED_ARP;
}

static __always_inline enum verdict vlan_admit_nd(const struct vlan_port *from, const struct pkt *p)
{
	if (p->icmp_type == ND_NA && !vlan_may_use(from, &p->hop))
		return V_SPOOFED_ND;
	if (p->has_claim && !same_mac(p->claim, p->eth.src))
		return V_SPOOFED_ND;
	if (p->has_claim && p->icmp_type != ND_NA && addr_unspecified(&p->src))
		return V_SPOOFED_ND;
	return V_CONTINUE;
}

/* Without an address yet, a guest may only speak to all. */
static __always_inline bool vlan_is_nobody(const struct pkt *p)
{
	if (p->type == TYPE_IPV4)
		return p->src.w[3] == 0 && bpf_ntohl(p->dst.w[3]) >> 28 >= 14;
	return addr_unspecified(&p->src) && ((p->nd && p->icmp_type == ND_NS) || addr6_multicast(&p->dst));
}

/* What is behind the tag: as admit does in a subnet, but that a guest without addresses in policy has any. */
static __noinline int vlan_admit_payload(struct __sk_buff *skb, const struct vlan_port *from, const struct pkt *p)
{
	__u32 asks = guard_of(skb, p);

	if (from->port.flags & asks)
		return asks == PORT_DHCP_GUARD ? V_DHCP_SERVER_MESSAGE : V_ROUTER_MESSAGE;
	if (from->port.flags & PORT_SPOOF)
		return V_CONTINUE;
	if (p->type == TYPE_ARP)
		return vlan_admit_arp(from, p);
	if (p->type != TYPE_IPV4 && p->type != TYPE_IPV6)
		return V_CONTINUE;
	if (!vlan_is_nobody(p) && !vlan_may_use(from, &p->src))
		return V_SPOOFED_CA;
	return p->nd ? vlan_admit_nd(from, p) : V_CONTINUE;
}

/* Whether anything looks at what a port sends behind the tag. */
static __always_inline bool vlan_looks(const struct vlan_port *from)
{
	return (from->port.flags & (PORT_SPOOF | PORT_DHCP_GUARD | PORT_ROUTER_GUARD | PORT_RULES)) != PORT_SPOOF;
}

static __always_inline enum verdict vlan_judge_payload(struct vlaned *f)
{
	if (!vlan_looks(f->from))
		return V_CONTINUE;
	return f->read ? f->read : vlan_admit_payload(f->skb, f->from, f->p);
}

/* Of what is neither ARP nor IP, rules see MACs. */
static __always_inline __u64 vlan_acl_flags(const struct pkt *p)
{
	return p->type == TYPE_ARP || p->type == TYPE_IPV4 || p->type == TYPE_IPV6 ? 0 : ACL_ND;
}

static __always_inline enum verdict vlan_acl_outbound(struct vlaned *f)
{
	struct pkt *p = f->p;
	struct query *q;

	if (!(f->from->port.flags & PORT_RULES))
		return V_CONTINUE;
	q = query_room();
	if (!q)
		return V_ACL_DENIED;
	q->local_mac = acl_mac(p->eth.src);
	q->remote_mac = acl_mac(p->eth.dst);
	return acl_judge(f->skb, p, q, &f->from->port, vlan_acl_flags(p), &p->src, &p->dst);
}

static __always_inline enum verdict vlan_acl_inbound(struct vlaned *f, const struct port *to)
{
	struct pkt *p = f->p;
	struct query *q;

	if (!(to->flags & PORT_RULES))
		return V_CONTINUE;
	q = query_room();
	if (!q)
		return V_ACL_DENIED;
	if (f->read)
		return f->read;
	q->remote_mac = acl_mac(p->eth.src);
	q->local_mac = acl_mac(p->eth.dst);
	return acl_judge(f->skb, p, q, to, ACL_INBOUND | vlan_acl_flags(p), &p->src, &p->dst);
}

/* Into a port of this host. */
static __always_inline enum verdict vlan_deliver(struct vlaned *f, const struct vlan_port *to, __u32 ifindex)
{
	struct pkt *p = f->p;
	enum verdict v;
	bool keep;

	if (!vlan_has(to->receives, f->vid))
		return V_VLAN_APART;
	if (f->size > to->port.mtu)
		return V_TOO_BIG;
	v = vlan_acl_inbound(f, &to->port);
	if (v == V_ACL_DENIED) {
		p->direction = INBOUND;
		p->port_id = to->port.id;
	}
	if (v)
		return v;
	keep = vlan_keeps_tag(to, f->vid);
	if (keep && !vlan_push(f->skb, f->tci))
		return V_ENCAP_FAILED;
	if (keep)
		f->skb->cb[4] = VLAN_TOLD | f->tci;
	if (to->port.ifindex != ifindex)
		return V_PORT_DOWN; /* the row went away */
	vlan_count(to->port.slot, f->skb->len, false);
	f->to = to->port.id;
	p->out = ifindex;
	p->action = to->port.flags & PORT_PEER && !p->shaped ? ACT_PEER : ACT_PORT; /* nobody is received at egress */
	return V_DELIVERED;
}

/* Out of the external interface. */
static __always_inline enum verdict vlan_send(struct vlaned *f)
{
	if (!f->uplink)
		return V_NO_UNDERLAY_ROUTE;
	if (f->size > f->from->port.mtu)
		return V_TOO_BIG;
	if (f->vid && !vlan_push(f->skb, f->tci))
		return V_ENCAP_FAILED;
	if (f->vid)
		f->skb->cb[4] = VLAN_TOLD | f->tci;
	f->p->out = f->uplink;
	f->p->action = ACT_DEVICE;
	return V_SWITCHED;
}

static __always_inline bool vlan_copy(struct vlaned *f, __u32 ifindex, __u32 to_port_id)
{
	vlan_capture(f, to_port_id ? POINT_TO_GUEST : POINT_TO_UNDERLAY, V_FLOODED, CAPTURE_COPY, to_port_id);
	if (!copy_send(f->skb, f->copies, ifindex))
		return false;
	f->copies++;
	return true;
}

/* A copy that the rules of its receiver refuse is a drop of that one's. */
static __always_inline void vlan_denied(struct vlaned *f, __u32 port_id)
{
	struct pkt *p = f->p;
	__u32 sender = p->port_id;
	__u8 direction = p->direction;

	p->port_id = port_id;
	p->direction = INBOUND;
	report(f->skb, p, V_ACL_DENIED);
	p->port_id = sender;
	p->direction = direction;
}

/* A copy for a port, in the round that its copies have a tag or not. */
static __always_inline enum verdict vlan_copy_to_port(struct vlaned *f, __u32 ifindex)
{
	const struct vlan_port *to;
	enum verdict v;

	if (f->from && ifindex == f->device)
		return V_CONTINUE;
	to = bpf_map_lookup_elem(&vlan_port, &ifindex);
	if (!to || to->port.ifindex != ifindex || to->uplink != f->uplink || !vlan_has(to->receives, f->vid))
		return V_CONTINUE;
	if (vlan_keeps_tag(to, f->vid) != f->with_tag)
		return V_CONTINUE;
	if (f->size > to->port.mtu)
		return V_TOO_BIG;
	v = vlan_acl_inbound(f, &to->port);
	if (v == V_ACL_DENIED) {
		vlan_denied(f, to->port.id);
		return V_CONTINUE;
	}
	if (v)
		return v;
	vlan_count(to->port.slot, f->skb->len, false);
	f->skb->mark = SWITCH_MARK;
	return vlan_copy(f, ifindex, to->port.id) ? V_CONTINUE : V_COPY_FAILED;
}

static __always_inline void vlan_lose(struct vlaned *f, enum verdict v)
{
	report(f->skb, f->p, v);
}

static long vlan_each_member(__u32 i, struct vlaned *f)
{
	enum verdict v;

	if (i >= VLAN_MAX_MEMBERS || i >= f->members->n || f->members->uplink != f->uplink)
		return 1;
	v = vlan_copy_to_port(f, f->members->ifindex[i]);
	if (v)
		vlan_lose(f, v);
	return 0;
}

static __always_inline void vlan_copy_to_uplink(struct vlaned *f)
{
	if (!f->uplink)
		return;
	if (f->size > f->from->port.mtu)
		return vlan_lose(f, V_TOO_BIG);
	f->skb->mark = 0;
	if (!vlan_copy(f, f->uplink, 0))
		vlan_lose(f, V_COPY_FAILED);
}

/* Copies: first those without a tag, then those with one; each frame that has no VLAN is of the first. */
static __always_inline bool vlan_flood(struct vlaned *f)
{
	if (f->members)
		bpf_loop(VLAN_MAX_MEMBERS, vlan_each_member, f, 0);
	if (f->from && !f->vid)
		vlan_copy_to_uplink(f);
	if (f->vid || f->tagged) {
		if (!vlan_push(f->skb, f->tci))
			return false;
		if (!f->from) /* which goes on to the host as it came */
			f->skb->cb[4] = VLAN_TOLD | f->tci;
		f->with_tag = 1;
		if (f->members && f->vid)
			bpf_loop(VLAN_MAX_MEMBERS, vlan_each_member, f, 0);
		if (f->from && f->vid)
			vlan_copy_to_uplink(f);
	}
	return true;
}

_Static_assert(sizeof(struct pkt) <= sizeof(struct scratch), "too large for scratch");

static __always_inline struct pkt *vlan_room(struct __sk_buff *skb, __u8 direction)
{
	struct pkt *p = (struct pkt *)scratch_room();

	if (!p)
		return NULL;
	__builtin_memset(p, 0, sizeof(*p));
	p->len = skb->len;
	p->direction = direction;
	return p;
}

/* What a guest sends to many. */
static __always_inline enum verdict vlan_flood_out(struct vlaned *f)
{
	if (!vlan_within_rate(f->from))
		return V_STORM_LIMITED;
	f->members = bpf_map_lookup_elem(&vlan_member, &f->uplink);
	return vlan_flood(f) ? V_FLOODED : V_ENCAP_FAILED;
}

/* The port that the frame is of. One that has waited in the shaper carries the device that it came from as its mark. */
static __always_inline const struct vlan_port *vlan_sender(struct vlaned *f)
{
	const struct shaper *s = shaper_devices();
	struct __sk_buff *skb = f->skb;

	f->device = skb->ifindex;
	if (s && s->exit && s->exit == skb->ifindex) {
		f->device = skb->mark;
		f->p->shaped = 1;
		skb->priority = 0; /* the shaper went by it */
	}
	return bpf_map_lookup_elem(&vlan_port, &f->device);
}

/* What a guest sends. */
static __always_inline enum verdict vlan_from_port(struct vlaned *f)
{
	struct pkt *p = f->p;
	const struct vlan_port *to;
	__u32 ifindex;
	enum verdict v;

	f->from = vlan_sender(f);
	if (!f->from)
		return V_PORT_UNKNOWN;
	f->uplink = f->from->uplink;
	p->port_id = f->from->port.id;
	(v = vlan_parse(f)) || (v = vlan_admit(f));
	if (v)
		return v;
	if (!vlan_read(f))
		return V_ENCAP_FAILED;
	vlan_capture(f, POINT_FROM_GUEST, V_CONTINUE, 0, 0);
	(v = vlan_judge_payload(f)) || (v = learn_teamed(f->skb, p, &f->from->port, f->eth.src)) || (v = vlan_acl_outbound(f));
	if (v)
		return v;
	if (is_group(f->eth.dst))
		return vlan_flood_out(f);
	to = vlan_find(f->uplink, f->eth.dst, &ifindex);
	if (!to)
		return vlan_send(f);
	if (ifindex == f->device)
		return V_ROUTE_TO_SELF;
	return vlan_deliver(f, to, ifindex);
}

/* What the external interface receives for many, which goes on to the host as it came. */
static __always_inline void vlan_flood_in(struct vlaned *f)
{
	__u32 own, mark = f->skb->mark;

	if (f->doubled || vlan_is_reserved(f->eth.dst) || vlan_find(f->uplink, f->eth.src, &own))
		return;
	f->members = bpf_map_lookup_elem(&vlan_member, &f->uplink);
	if (!f->members || !vlan_read(f))
		return;
	vlan_capture(f, POINT_FROM_UNDERLAY, V_CONTINUE, 0, 0);
	vlan_flood(f);
	vlan_capture(f, POINT_NONE, V_FLOODED, 0, 0);
	f->skb->mark = mark;
}

/* What the external interface receives. What is not for a port here is the host's own. */
static __always_inline enum verdict vlan_from_uplink(struct vlaned *f)
{
	struct pkt *p = f->p;
	const struct vlan_port *to;
	__u32 ifindex, own;

	f->uplink = f->skb->ifindex;
	if (vlan_parse(f))
		return V_PASS;
	if (is_group(f->eth.dst)) {
		vlan_flood_in(f);
		return V_PASS;
	}
	to = vlan_find(f->uplink, f->eth.dst, &ifindex);
	if (!to)
		return V_PASS;
	p->port_id = to->port.id;
	if (f->doubled)
		return V_VLAN_DOUBLE_TAGGED;
	if (is_group(f->eth.src) || vlan_find(f->uplink, f->eth.src, &own))
		return V_SPOOFED_MAC;
	if (!vlan_read(f))
		return V_ENCAP_FAILED;
	vlan_capture(f, POINT_FROM_UNDERLAY, V_CONTINUE, 0, 0);
	return vlan_deliver(f, to, ifindex);
}

/* The row of the sender went away, or became another's, while it was read. */
static __always_inline bool vlan_checked(const struct vlaned *f)
{
	barrier();
	return !f->from || f->from->port.ifindex == f->device;
}

static __always_inline int vlan_act(const struct vlaned *f)
{
	__u32 out = f->p->out;

	if (f->p->shaped)
		f->skb->mark = 0;
	switch (f->p->action) {
	case ACT_PORT:
		f->skb->mark = SWITCH_MARK;
		return bpf_redirect(out, 0);
	case ACT_PEER:
		if (f->skb->pkt_type != PACKET_HOST)
			bpf_skb_change_type(f->skb, PACKET_HOST);
		return bpf_redirect_peer(out, 0);
	case ACT_DEVICE:
		return bpf_redirect(out, 0);
	}
	return TC_ACT_SHOT;
}

/* Where a capture sees what a walk ends with; the copies of a flooded frame were shown. */
static __always_inline __u32 vlan_point(enum verdict v)
{
	if (v >= V_FIRST_DROP)
		return POINT_DROPPED;
	if (v == V_FLOODED)
		return POINT_NONE;
	return v == V_SWITCHED ? POINT_TO_UNDERLAY : POINT_TO_GUEST;
}

static __always_inline int vlan_finish(struct vlaned *f, enum verdict v)
{
	struct pkt *p = f->p;

	if (p->action != ACT_NONE && !vlan_checked(f)) {
		p->action = ACT_NONE;
		p->port_id = 0;
		v = V_PORT_UNKNOWN;
	}
	f->skb->cb[0] = v;
	f->skb->cb[1] = p->action == ACT_NONE ? 0 : p->out;
	f->skb->cb[2] = f->copies;
	if (v == V_PASS)
		return TC_ACT_UNSPEC;
	vlan_capture(f, vlan_point(v), v, 0, f->to);
	if (v >= V_FIRST_DROP) {
		report(f->skb, p, v);
		return TC_ACT_SHOT;
	}
	if (f->from)
		vlan_count(f->from->port.slot, p->len, true);
	return vlan_act(f);
}

#endif
