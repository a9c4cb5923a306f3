/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_UDPSUM_H
#define WEFT_LIB_UDPSUM_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/checksum.h"
#include "lib/ctx.h"
#include "lib/offload.h"
#include "maps/scratch.h"
#include "wire/addr.h"
#include "wire/ip.h"

/* The checksum of the outer UDP of VXLAN, where the sender gives one: weft sends zero
 * (RFC 7348 section 5, RFC 6935), other implementations need not. */

#define CHECKSUM_UNNECESSARY 1
#define UDPSUM_CHUNKS 128 /* 65536 bytes */

/* Whether somebody has vouched for it: a NIC or GRO that has looked (a packet that GRO
 * made has no single checksum any more), or a sender on this machine, whose NIC would
 * still have to write it. */
static __always_inline bool udpsum_vouched(struct __sk_buff *skb)
{
	struct sk_buff___weft *k = bpf_cast_to_kern_ctx(skb);
	__u8 summed = BPF_CORE_READ_BITFIELD(k, ip_summed);

	return skb->gso_size || summed == CHECKSUM_UNNECESSARY || summed == CHECKSUM_PARTIAL;
}

struct udpsum {
	struct __sk_buff *skb;
	__u32 at;
	__u32 end;
	__u32 sum;
	__u32 broken; /* the frame is not as long */
};

/* Adds the next bytes; 1 when that is the end. */
static long udpsum_chunk(__u32 i, struct udpsum *u)
{
	__u32 n = u->end - u->at;
	struct scratch *s = scratch_room();

	if (!s || u->at >= u->end)
		return 1;
	if (n > SCRATCH_LEN)
		n = SCRATCH_LEN;
	s->w[n / 4 & (SCRATCH_LEN / 4 - 1)] = 0; /* an odd end counts as padded with zero */
	if (n == 0 || bpf_skb_load_bytes(u->skb, u->at, s->w, n)) {
		u->broken = 1;
		return 1;
	}
	u->sum = csum_bytes(s->w, (n + 3) & ~3u, u->sum);
	u->at += n;
	return 0;
}

/* Whether the datagram from `at` to the end of the packet has the checksum that is right
 * between two addresses. IPv4 ones are mapped, which adds 0xffff twice, and that is 0. */
static __noinline bool udpsum_right(struct __sk_buff *skb, const struct pkt *p, const union addr *dst, __u32 at)
{
	__u32 len = p->end - at;
	struct udpsum u = {.skb = skb, .at = at, .end = p->end, .sum = bpf_htons(PROTO_UDP) + bpf_htons((__u16)len)};

	if (udpsum_vouched(skb))
		return true;
	for (int i = 0; i < 4; i++)
		u.sum = csum_add(u.sum, csum_add(p->outer_src.w[i], dst->w[i]));
	bpf_loop(UDPSUM_CHUNKS, udpsum_chunk, &u, 0);
	return !u.broken && u.at >= u.end && csum_fold(u.sum) == 0;
}

#endif
