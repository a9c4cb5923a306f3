/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The switch: where packets enter, and the stages that they walk through. Each stage
 * returns V_CONTINUE, or the verdict that ends the walk; docs/design/pipeline.md says
 * what each does, check by check. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "stage/10_parse.h"
#include "stage/20_admit.h"
#include "stage/25_acl.h"
#include "stage/30_respond.h"
#include "stage/50_route.h"
#include "stage/55_flood.h"
#include "stage/60_lookup.h"
#include "stage/65_isolate.h"
#include "stage/70_encap.h"
#include "stage/75_rewrite.h"
#include "stage/75_exchange.h"
#include "stage/80_underlay.h"
#include "stage/90_deliver.h"
#include "stage/95_vlan.h"
#include "way/known_in.h"
#include "way/short.h"
#include "lib/capture.h"
#include "lib/detour.h"
#include "lib/dx2.h"
#include "lib/finish.h"
#include "lib/forget.h"
#include "lib/gro.h"
#include "lib/learn.h"
#include "lib/mirror.h"
#include "lib/mss.h"
#include "lib/rows.h"
#include "lib/sample.h"
#include "lib/shape.h"
#include "lib/share.h"
#include "lib/strip.h"
#include "maps/walk.h"

/* A frame from a guest. */
SEC("tcx/ingress")
int from_port(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = OUTBOUND};

	int answer = TC_ACT_SHOT;
	enum verdict v = short_way(skb, &p, &answer);

	if (v && v < V_FIRST_DROP)
		return answer;
	if (!v) {
		bpf_tail_call(skb, &walk, WALK_PORT);
		v = V_PORT_UNKNOWN;
		p.port_id = 0;
	}
	return short_drop(skb, &p, v);
}

/* The same, by all stages. */
SEC("tcx/ingress")
int walk_port(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = OUTBOUND};
	enum verdict v;

	(v = settled(&p, parse_port(skb, &p)))
	|| (v = capture_arrival(skb, &p))
	|| (v = acl_outbound(skb, &p, learn_said(skb, &p, admit_port(skb, &p))))
	|| (v = learn_defended(skb, &p, respond(skb, &p)))
	|| (v = route_packet(skb, &p))
	|| (v = lookup(skb, &p))
	|| (v = isolate(&p))
	|| (v = acl_local(skb, &p))
	|| (v = learn_leased(skb, &p))
	|| (v = encap(skb, &p))
	|| (v = rewrite(skb, &p))
	|| (v = exchange(skb, &p))
	|| (v = underlay(&p))
	|| (v = deliver(&p));
	if (flood_turns_aside(&p, v)) {
		skb->cb[0] = v;
		skb->cb[1] = p.len;
		bpf_tail_call(skb, &flood_prog, FLOOD_PORT);
	}
	return finish_walk(skb, &p, rows_checked(skb, &p, v));
}

/* A look at what one of these has sent, of ports that want it. */
SEC("tcx/ingress")
int look(struct __sk_buff *skb)
{
	return sample(skb);
}

/* What from_port turned aside, with the verdict it would have had. */
SEC("tcx/ingress")
int flood_port(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->cb[1], .direction = OUTBOUND};
	struct flooding f = {.skb = skb, .p = &p};
	enum verdict v, was = skb->cb[0];

	(v = settled(&p, parse_port(skb, &p)))
	|| (v = flood_from_port(&f, was));
	skb->cb[2] = f.copies;
	return finish(skb, &p, rows_checked(skb, &p, v));
}

/* A frame from the underlay. */
SEC("tcx/ingress")
int from_uplink(struct __sk_buff *skb)
{
	struct pkt p = {.direction = INBOUND};
	struct known *k = known_spot_room();
	int answer = TC_ACT_UNSPEC;
	enum verdict v = k ? known_way(skb, k, &p, &answer) : V_CONTINUE;

	if (v >= V_FIRST_DROP)
		return short_drop(skb, &p, v);
	if (!v)
		bpf_tail_call(skb, &walk, WALK_UPLINK);
	return answer;
}

/* The same, by all stages. */
SEC("tcx/ingress")
int walk_uplink(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND};
	enum verdict v;

	(v = settled(&p, parse_outer(skb, &p)))
	|| (v = settled(&p, parse_inner(skb, &p)));
	if (!v && is_group(p.eth.dst) && !p.rewrite) {
		bpf_tail_call(skb, &flood_prog, FLOOD_UPLINK);
		v = V_NO_MEMBER; /* that program is loaded with the first subnet that floods */
	}
	if (!v && rewrite_of_link(&p))
		v = V_PASS;
	if (v)
		return finish(skb, &p, rows_checked(skb, &p, v));
	if (p.exchange) {
		bpf_tail_call(skb, &walk, WALK_EXCHANGED);
		return TC_ACT_SHOT; /* the switch is being taken away */
	}
	if (p.rewrite)
		(v = rewrite_local(&p))
		|| (v = capture_arrival(skb, &p))
		|| (v = unrewrite(skb, &p))
		|| (v = acl_rewritten(skb, &p))
		|| (v = fit(skb, &p))
		|| (v = mss_inbound(skb, &p))
		|| (v = deliver(&p));
	else
		(v = lookup_local(&p))
		|| (v = capture_arrival(skb, &p))
		|| (v = admit_remote(skb, &p))
		|| (v = acl_inbound(skb, &p, p.dport, &p.src, &p.dst))
		|| (v = learn_leased(skb, &p))
		|| (v = fit(skb, &p))
		|| (v = mss_inbound(skb, &p))
		|| (v = decap(skb, &p))
		|| (v = deliver(&p));
	v = rows_checked(skb, &p, v);
	known_in_put(&p, v);
	return finish_walk(skb, &p, v);
}

/* A rewritten packet from the underlay whose Customer Addresses are of the other family. */
SEC("tcx/ingress")
int walk_exchanged(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND};
	enum verdict v;

	(v = settled(&p, parse_outer(skb, &p)))
	|| (v = settled(&p, parse_inner(skb, &p)))
	|| (v = rewrite_local(&p))
	|| (v = capture_arrival(skb, &p))
	|| (v = unexchange(skb, &p))
	|| (v = parse_exchanged(skb, &p))
	|| (v = acl_inbound(skb, &p, p.dport, &p.src, &p.dst))
	|| (v = fit(skb, &p))
	|| (v = mss_inbound(skb, &p))
	|| (v = deliver(&p));
	return finish(skb, &p, rows_checked(skb, &p, v));
}

/* A frame from the underlay for a group. */
SEC("tcx/ingress")
int flood_uplink(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND};
	struct flooding f = {.skb = skb, .p = &p};
	enum verdict v;

	(v = settled(&p, parse_outer(skb, &p)))
	|| (v = settled(&p, parse_inner(skb, &p)))
	|| (v = capture_arrival(skb, &p))
	|| (v = flood_from_uplink(&f));
	skb->cb[2] = f.copies;
	return finish(skb, &p, v);
}

/* A frame that the host sends into a port's device: only the switch may. */
SEC("tcx/egress")
int to_port(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND};
	__u32 ifindex = skb->ifindex;
	const struct port *to;

	if (skb->mark == SWITCH_MARK || skb->mark == MIRROR_MARK) {
		skb->mark = 0;
		return finish(skb, &p, V_PASS);
	}
	to = bpf_map_lookup_elem(&port, &ifindex);
	if (to)
		p.port_id = to->id;
	return finish(skb, &p, V_NOT_FROM_SWITCH);
}

/* A frame from the guest of a port that is mirrored, before all else. */
SEC("tcx/ingress")
int mirror_out(struct __sk_buff *skb)
{
	return mirror_all(skb, MIRROR_OUTBOUND);
}

/* A frame to such a guest, before to_port takes its mark. */
SEC("tcx/egress")
int mirror_in(struct __sk_buff *skb)
{
	return skb->mark == SWITCH_MARK ? mirror_all(skb, MIRROR_INBOUND) : TC_ACT_UNSPEC;
}

/* A copy. */
SEC("tcx/egress")
int mirror_send(struct __sk_buff *skb)
{
	return mirror_forward(skb);
}

/* A frame from the underlay, before from_uplink, of a host that copies are sent to. */
SEC("tcx/ingress")
int mirror_uplink(struct __sk_buff *skb)
{
	return mirror_arrive(skb);
}

/* A frame from the guest of a port whose bandwidth is limited, before from_port. */
SEC("tcx/ingress")
int shape_out(struct __sk_buff *skb)
{
	return shape_outbound(skb);
}

/* The same frame when its turn has come, on its way out of the shaper. */
SEC("tcx/ingress")
int from_shaper(struct __sk_buff *skb)
{
	skb->cb[2] = 0;
	bpf_tail_call(skb, &walk, vlan_has_port(skb->mark) ? WALK_VLAN : WALK_PORT);
	return TC_ACT_SHOT; /* the switch is being taken away */
}

/* A frame to such a guest, behind to_port. */
SEC("tcx/egress")
int shape_in(struct __sk_buff *skb)
{
	return shape_inbound(skb);
}

/* A frame from the guest of a port that has a minimum, before from_port. */
SEC("tcx/ingress")
int share_out(struct __sk_buff *skb)
{
	skb->priority = share_class(skb->ifindex);
	return TC_ACT_UNSPEC;
}

/* What leaves by an uplink, before it waits for its turn and when that has come. */
SEC("tcx/egress")
int share_turn(struct __sk_buff *skb)
{
	return share_take_turn(skb);
}

/* A frame that comes back from the detour of decap: see lib/dx2.h. */
SEC("tcx/egress")
int from_dx2(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND, .out = skb->priority, .action = ACT_PORT};

	if (skb->mark != SWITCH_MARK)
		return TC_ACT_SHOT; /* somebody else's: it was never a guest's frame */
	skb->priority = 0;
	if (!dx2_unwrap(skb)) {
		p.action = ACT_NONE;
		return finish(skb, &p, V_DECAP_FAILED);
	}
	return act(skb, &p);
}

/* A frame that comes back from the detour by GRO: see lib/gro.h. */
SEC("tcx/ingress")
int from_gro(struct __sk_buff *skb)
{
	struct pkt p = {.direction = INBOUND, .out = gro_arrive(skb), .action = ACT_PORT};

	return p.out ? act(skb, &p) : TC_ACT_SHOT;
}

/* A frame that the kernel's vxlan device has stripped: see lib/vxdev.h. */
SEC("tcx/ingress")
int from_vxlan(struct __sk_buff *skb)
{
	struct pkt p = {.len = skb->len, .direction = INBOUND, .out = skb->priority, .action = ACT_PORT};

	if (skb->mark != SWITCH_MARK)
		return TC_ACT_SHOT; /* it came by an address that is none of ours */
	detour_came();
	skb->priority = 0;
	if (!decap_arrived(skb)) {
		p.action = ACT_NONE;
		return finish(skb, &p, V_DECAP_FAILED);
	}
	return act(skb, &p);
}

/* The same stripping as decap, before GRO: see lib/strip.h. */
SEC("xdp.frags")
int uplink_xdp(struct xdp_md *xdp)
{
	return strip(xdp);
}

/* A frame that a device receives which only exists so that its socket listens. */
SEC("tcx/ingress")
int discard(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

/* A frame from a guest that is on a VLAN. */
SEC("tcx/ingress")
int vlan_guest(struct __sk_buff *skb)
{
	struct vlaned f = {.skb = skb, .p = vlan_room(skb, OUTBOUND)};

	return f.p ? vlan_finish(&f, vlan_from_port(&f)) : TC_ACT_SHOT;
}

/* A frame from an external interface. */
SEC("tcx/ingress")
int vlan_uplink(struct __sk_buff *skb)
{
	struct vlaned f = {.skb = skb, .p = vlan_room(skb, INBOUND)};

	return f.p ? vlan_finish(&f, vlan_from_uplink(&f)) : TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
