/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_OFFLOAD_H
#define WEFT_LIB_OFFLOAD_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* What the kernel knows about a packet's checksum and __sk_buff does not show. */
struct sk_buff___weft {
	unsigned char *head;
	unsigned char *data;
	__u8 ip_summed : 2;
	__u16 csum_start;
	__u16 csum_offset;
} __attribute__((preserve_access_index));

#define CHECKSUM_COMPLETE 2
#define CHECKSUM_PARTIAL 3

extern void *bpf_cast_to_kern_ctx(void *skb) __ksym;

/* Of bpf_skb_adjust_room, that the header which remains is of another family than the one removed. */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ull << 7)
#define ADJ_ROOM_DECAP_L3_IPV6 (1ull << 8)

/* Where the checksum that is still to be computed starts and where it goes, both
 * counted from the start of the frame; false: nothing is to be computed. */
static __always_inline bool csum_pending(struct __sk_buff *skb, __u32 *start, __u32 *field)
{
	struct sk_buff___weft *k = bpf_cast_to_kern_ctx(skb);

	if (BPF_CORE_READ_BITFIELD(k, ip_summed) != CHECKSUM_PARTIAL)
		return false;
	*start = k->csum_start - (__u32)((__u64)k->data - (__u64)k->head);
	*field = *start + k->csum_offset;
	return true;
}

#endif
