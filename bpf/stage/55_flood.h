/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_STAGE_FLOOD_H
#define WEFT_STAGE_FLOOD_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gen/verdict.h"
#include "lib/acl.h"
#include "lib/capture.h"
#include "lib/copy.h"
#include "lib/ctx.h"
#include "lib/finish.h"
#include "lib/isolation.h"
#include "lib/learn.h"
#include "maps/flood.h"
#include "maps/group.h"
#include "maps/peer.h"
#include "maps/port.h"
#include "maps/record.h"
#include "maps/scratch.h"
#include "stage/20_admit.h"
#include "stage/70_encap.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

/* Copy broadcast and multicast to the members of the subnet, where policy says so.
 *
 * The stage is two programs of its own. Other packets never come here: from_port turns
 * aside what it would otherwise drop, from_uplink what is for a group. They parse the
 * packet anew, which is as it came, a VLAN tag apart. */

#define STORM_BURST_NS 100000000ull /* of its rate, so much may come at once */

enum flood_scope {
	FLOOD_NOBODY,
	FLOOD_L2ONLY, /* members with a port whose addresses are yet to be learned */
	FLOOD_ALL
};

/* One frame on its way to many. The verifier remembers numbers at multiples of eight bytes: if
 * copies were one, it would walk each round of a loop anew. */
struct flooding {
	struct __sk_buff *skb;
	struct pkt *p;
	const struct flood *row;
	__u32 scope;
	bool snooped; /* only ports that have joined the group get a copy */
	bool found;   /* the sender's host has members */
	__u32 size;   /* as encap_size counts it */
	__u32 copies; /* made so far */
	__u32 pushed; /* outer headers have their room */
	__u32 from;   /* the sender's isolation */
};

/* Whether what ends as v may be one for many. */
static __always_inline bool flood_turns_aside(const struct pkt *p, enum verdict v)
{
	if (!p->port || !(p->port->flags & PORT_FLOOD) || !is_group(p->eth.dst))
		return false;
	return v == V_MULTICAST || v == V_ARP_QUIET || v == V_ARP_NO_RECORD || v == V_ND_QUIET ||
	       v == V_ND_NO_RECORD || v == V_NO_RECORD || v == V_NO_ROUTE;
}

static __always_inline bool flood_is_dhcp(const struct pkt *p, __u16 to)
{
	return p->type == TYPE_IPV4 && p->proto == PROTO_UDP && p->dst.w[3] == 0xffffffff && p->dport_l4 == to;
}

/* Without L2, only members with L2Only ports get what they need for others to find them, and
 * their search for a DHCP server reaches all. */
static __always_inline enum flood_scope flood_for_l2only(const struct pkt *p)
{
	if (p->type == TYPE_ARP)
		return p->arp_op == ARP_REQUEST ? FLOOD_L2ONLY : FLOOD_NOBODY;
	if (p->nd)
		return p->icmp_type == ND_NS ? FLOOD_L2ONLY : FLOOD_NOBODY;
	if (flood_is_dhcp(p, DHCP_CLIENT))
		return FLOOD_L2ONLY;
	return flood_is_dhcp(p, DHCP_SERVER) ? FLOOD_ALL : FLOOD_NOBODY;
}

static __always_inline enum flood_scope flood_out_scope(const struct pkt *p, const struct flood *row, enum verdict was)
{
	bool l2 = row->flags & FLOOD_L2;

	switch (was) {
	case V_ARP_QUIET: /* an announcement: somebody may have taken the address over */
		return l2 && same_addr(&p->src, &p->dst) && p->src.w[3] ? FLOOD_ALL : FLOOD_NOBODY;
	case V_ND_QUIET:
		return l2 && p->icmp_type == ND_NA && addr6_multicast(&p->dst) ? FLOOD_ALL : FLOOD_NOBODY;
	case V_ARP_NO_RECORD:
		return l2 && p->arp_op == ARP_REQUEST ? FLOOD_ALL : flood_for_l2only(p);
	case V_ND_NO_RECORD:
		if (!addr6_multicast(&p->dst) || addr6_link_local(&p->hop))
			return FLOOD_NOBODY;
		return l2 ? FLOOD_ALL : FLOOD_L2ONLY;
	case V_MULTICAST:
		return l2 ? FLOOD_ALL : flood_for_l2only(p);
	default: /* the broadcast address of a prefix is no address of policy's */
		return l2 && p->type == TYPE_IPV4 && is_broadcast(p->eth.dst) ? FLOOD_ALL : FLOOD_NOBODY;
	}
}

/* The generic cell rate algorithm: each packet moves the time that the port has used up.
 * Two CPUs that meet here may let one packet more through. */
static __always_inline bool flood_within_rate(const struct pkt *p, __u32 rate)
{
	__u32 slot = p->port->slot;
	struct storm *s = bpf_map_lookup_elem(&storm, &slot);
	__u64 now = bpf_ktime_get_ns(), from;

	if (s && s->limit)
		rate = s->limit;
	if (!s || !rate)
		return false;
	from = s->used > now ? s->used : now;
	if (from - now > STORM_BURST_NS)
		return false;
	s->used = from + 1000000000u / rate;
	return true;
}

static __always_inline bool flood_send(struct flooding *f, __u32 ifindex)
{
	if (!copy_send(f->skb, f->copies, ifindex))
		return false;
	f->copies++;
	return true;
}

/* What guests say of groups stays between them and the switch. */
static __always_inline bool flood_is_report(struct __sk_buff *skb, const struct pkt *p)
{
	__u8 type;

	if (p->type == TYPE_IPV6)
		return p->proto == PROTO_ICMPV6 &&
		       (p->icmp_type == MLD_REPORT || p->icmp_type == MLD_DONE || p->icmp_type == MLD_REPORT2);
	if (p->type != TYPE_IPV4 || p->proto != PROTO_IGMP || p->fragment || p->l4_len < IGMP_LEN)
		return false;
	if (!load(skb, p->l4, &type, sizeof(type)))
		return false;
	return type == IGMP_REPORT1 || type == IGMP_REPORT2 || type == IGMP_LEAVE || type == IGMP_REPORT3;
}

static __always_inline void flood_tell(struct __sk_buff *skb, const struct pkt *p)
{
	struct group_report *r;
	__u32 n = p->l3_len;

	if (rehearse)
		return;
	r = bpf_ringbuf_reserve(&group_report, sizeof(*r), 0);
	if (!r)
		return;
	if (n > REPORT_MAX)
		n = REPORT_MAX;
	r->ifindex = p->port->ifindex;
	r->vsid = p->vsid;
	r->len = n;
	if (!n || bpf_skb_load_bytes(skb, sizeof(struct eth), r->packet, n))
		r->len = 0;
	bpf_ringbuf_submit(r, 0);
}

/* Link-local groups are for all, joined or not (RFC 4541 section 2.1.2, here of IPv6 too). */
static __always_inline bool flood_is_snooped(const struct pkt *p, const struct flood *row)
{
	if (!(row->flags & FLOOD_L2) || p->type == TYPE_ARP)
		return false;
	if (p->type == TYPE_IPV6)
		return addr6_multicast(&p->dst) && (p->dst.b[1] & 15) > 2;
	return p->dst.b[12] >> 4 == 0xe && (p->dst.w[3] & bpf_htonl(0xffffff00)) != bpf_htonl(0xe0000000);
}

/* A copy that the rules of its receiver refuse is a drop of that one's. */
static __always_inline void flood_denied(struct flooding *f, __u32 port_id)
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

/* A copy for a port of this host. */
static __always_inline enum verdict flood_local(struct flooding *f, const struct member *m)
{
	__u32 ifindex = m->at;
	struct pkt *p = f->p;
	const struct port *to;

	if (p->port && ifindex == p->port->ifindex)
		return V_CONTINUE;
	if (f->snooped && !group_joined(p->vsid, ifindex, &p->dst))
		return V_CONTINUE;
	to = bpf_map_lookup_elem(&port, &ifindex);
	if (!to)
		return V_PORT_DOWN;
	if (to->vsid != p->vsid || to->ifindex != ifindex)
		return V_VSID_MISMATCH;
	if (isolate_apart(f->from, to->isolation))
		return V_CONTINUE;
	if (p->direction == OUTBOUND && f->size > to->mtu)
		return V_TOO_BIG;
	if (acl_inbound(f->skb, p, to, &p->src, &p->dst)) {
		flood_denied(f, to->id);
		return V_CONTINUE;
	}
	f->skb->mark = SWITCH_MARK;
	p->dport = to;
	count_in(p, f->skb->len);
	capture_copy(f->skb, p);
	p->dport = NULL;
	return flood_send(f, ifindex) ? V_CONTINUE : V_COPY_FAILED;
}

/* A copy for the members of another host: the first one makes room for the outer headers,
 * and the others change them. */
static __always_inline enum verdict flood_remote(struct flooding *f, __u32 idx)
{
	struct pkt *p = f->p;
	__u8 none[MAC_LEN] = {};
	const struct peer *to = bpf_map_lookup_elem(&peer, &idx);
	struct scratch *s = scratch_room(); /* the stack has no room for outer headers here */

	if (!to || !p->port || !reaches(p->port, to) || addr_is4(&to->remote) != addr_is4(&p->port->pa))
		return V_NO_UNDERLAY_ROUTE;
	p->vxlan = (f->row->flags & FLOOD_VXLAN) != 0;
	p->to_group = addr_multicast(&to->pa);
	p->outer6 = !addr_is4(&to->remote); /* the same for all: it is the port's family */
	if (f->size + outer_len(p->vxlan, p->outer6) > to->mtu)
		return V_TOO_BIG;
	if (same_mac(to->next_hop, none))
		return V_NEIGHBOUR_UNRESOLVED;
	p->peer = to;
	if (!f->pushed && encap_room(f->skb, p))
		return V_ENCAP_FAILED;
	f->pushed = 1;
	p->bare = 1; /* a copy goes out as it is: with its Ethernet header */
	if (!s || encap_write(f->skb, p, &p->eth, (struct outer_frame *)s->w))
		return V_ENCAP_FAILED;
	f->skb->mark = 0;
	capture_copy(f->skb, p);
	return flood_send(f, to->ifindex) ? V_CONTINUE : V_COPY_FAILED;
}

static long flood_each_local(__u32 i, struct flooding *f)
{
	enum verdict v;

	if (i >= FLOOD_MAX_LOCALS || i >= f->row->locals || f->row->vsid != f->p->vsid)
		return 1;
	if (f->scope != FLOOD_ALL && !(f->row->local[i].flags & MEMBER_L2ONLY))
		return 0;
	v = flood_local(f, &f->row->local[i]);
	if (v)
		report(f->skb, f->p, v);
	return 0;
}

static long flood_each_host(__u32 i, struct flooding *f)
{
	enum verdict v;

	if (i >= FLOOD_MAX_HOSTS || i >= f->row->hosts || f->row->vsid != f->p->vsid)
		return 1;
	if (!f->row->group && f->scope != FLOOD_ALL && !(f->row->host[i].flags & MEMBER_L2ONLY))
		return 0;
	v = flood_remote(f, f->row->group ? f->row->group : f->row->host[i].at);
	if (v)
		report(f->skb, f->p, v);
	return f->row->group ? 1 : 0; /* one copy reaches all hosts */
}

static __always_inline enum verdict flood_from_port(struct flooding *f, enum verdict was)
{
	struct pkt *p = f->p;

	p->vsid = p->port->vsid;
	f->row = bpf_map_lookup_elem(&flood, &p->vsid);
	if (!f->row)
		return was;
	f->scope = flood_out_scope(p, f->row, was);
	if (f->scope == FLOOD_NOBODY)
		return was;
	if (!flood_within_rate(p, f->row->rate))
		return V_STORM_LIMITED;
	learn_flooded(f->skb, p);
	learn_sought(f->skb, p, was);
	if (f->row->flags & FLOOD_L2 && flood_is_report(f->skb, p)) {
		flood_tell(f->skb, p);
		return V_GROUP_REPORT;
	}
	f->snooped = flood_is_snooped(p, f->row);
	f->size = encap_size(f->skb, p);
	f->from = p->port->isolation;
	bpf_loop(FLOOD_MAX_LOCALS, flood_each_local, f, 0);
	bpf_loop(FLOOD_MAX_HOSTS, flood_each_host, f, 0);
	return V_FLOODED;
}

static long flood_each_source(__u32 i, struct flooding *f)
{
	if (i >= FLOOD_MAX_HOSTS || i >= f->row->hosts)
		return 1;
	f->found = admit_at(f->p, f->row->host[i].at);
	return f->found;
}

/* What has no address yet, or a link-local one, has no record: there the sender's host
 * answers for it, which must be one with members. */
static __always_inline bool flood_source_known(struct flooding *f)
{
	const struct pkt *p = f->p;
	const struct record *r = record_find(p->vsid, &p->src);

	if (r) {
		f->from = r->isolation;
		return admit_behind(p, r) && same_mac(r->mac, p->eth.src);
	}
	f->from = isolate_by_mac(p);
	if (!addr_unspecified(&p->src) && !(p->type == TYPE_IPV6 && addr6_link_local(&p->src)))
		return false;
	bpf_loop(FLOOD_MAX_HOSTS, flood_each_source, f, 0);
	return f->found;
}

/* The network of a subnet is that of its first port here. */
static __always_inline __u32 flood_network(const struct flood *row)
{
	const struct port *first = bpf_map_lookup_elem(&port, &row->local[0].at);

	return first ? first->network : 0;
}

/* Split horizon: what came from the underlay goes to ports only. */
static __always_inline enum verdict flood_from_uplink(struct flooding *f)
{
	struct pkt *p = f->p;
	__u32 network;
	enum verdict v;

	f->row = bpf_map_lookup_elem(&flood, &p->vsid);
	if (!f->row || !f->row->locals)
		return V_NO_MEMBER;
	f->scope = f->row->flags & FLOOD_L2 ? FLOOD_ALL : flood_for_l2only(p);
	if (f->scope == FLOOD_NOBODY)
		return V_MULTICAST;
	network = flood_network(f->row);
	if (!flood_source_known(f) && !admit_allowed(p, network))
		return V_SOURCE_NOT_IN_POLICY;
	v = admit_claims(p, network);
	v || (v = admit_said(f->skb, p, network));
	if (!v)
		learn_flooded(f->skb, p);
	v || (v = tos_arrive(f->skb, p));
	if (!v && p->base)
		(v = decap_cut(f->skb, p)) || (v = decap_strip(f->skb, p));
	if (v)
		return v;
	f->snooped = flood_is_snooped(p, f->row);
	bpf_loop(FLOOD_MAX_LOCALS, flood_each_local, f, 0);
	return V_FLOODED;
}

#endif
