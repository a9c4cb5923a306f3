/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_COPY_H
#define WEFT_LIB_COPY_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/config.h"
#include "maps/flood.h"
#include "wire/ethernet.h"

/* Sends copies of a frame for many, or notes them where programs only rehearse. */

#define COPY_TAG 4 /* bytes that a tag takes in a frame */

/* Notes copy i, with the tag that the kernel keeps beside the frame. A global function: the verifier walks it once. */
__noinline int copy_record(struct __sk_buff *skb, __u32 i, __u32 ifindex)
{
	const __u32 head = 2 * MAC_LEN;
	struct copy *c = bpf_map_lookup_elem(&copy, &i);
	__u32 n = skb->len, at = head;

	if (!c || n < sizeof(struct eth))
		return 0;
	c->ifindex = ifindex;
	c->len = n;
	bpf_skb_load_bytes(skb, 0, c->frame, head);
	if (skb->vlan_present) {
		__be16 tag[2] = {bpf_htons(TYPE_VLAN), bpf_htons(skb->vlan_tci)};

		__builtin_memcpy(c->frame + head, tag, sizeof(tag));
		c->len += COPY_TAG;
		at += COPY_TAG;
	}
	n -= head;
	asm volatile("" : "+r"(n)); /* clang knows that it is not 0; Linux 6.12 does not */
	if (n > COPY_MAX - COPY_TAG - head)
		n = COPY_MAX - COPY_TAG - head;
	if (n)
		bpf_skb_load_bytes(skb, head, c->frame + at, n);
	return 0;
}

/* False: the kernel refuses. */
static __always_inline bool copy_send(struct __sk_buff *skb, __u32 i, __u32 ifindex)
{
	if (!rehearse)
		return bpf_clone_redirect(skb, ifindex, 0) >= 0;
	copy_record(skb, i, ifindex);
	return true;
}

#endif
