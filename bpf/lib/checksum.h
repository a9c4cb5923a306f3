/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_LIB_CHECKSUM_H
#define WEFT_LIB_CHECKSUM_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "wire/ip.h"

/* Internet checksum (RFC 1071). A sum is 32 bits of unfolded 16-bit words; it does
 * not matter in which byte order they are added as long as all are in the same. */
static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A checksum after one 16-bit word of what it covers changed (RFC 1624, eqn. 3). */
static __always_inline __be16 csum_replace(__be16 check, __be16 from, __be16 to)
{
	return csum_fold((__u32)(__u16)~check + (__u16)~from + to);
}

/* The sum of an IPv4 header without options. */
static __always_inline __u32 csum_ipv4(const struct ipv4 *h)
{
	const __u16 *w = (const __u16 *)h;

	return (__u32)w[0] + w[1] + w[2] + w[3] + w[4] + w[5] + w[6] + w[7] + w[8] + w[9];
}

/* The sum of len bytes at from, 4-byte aligned, len a multiple of 4. */
static __always_inline __u32 csum_bytes(const void *from, __u32 len, __u32 seed)
{
	return bpf_csum_diff(0, 0, (__be32 *)from, len, seed);
}

/* Makes a seed fit to be added to. */
static __always_inline __u32 csum_add(__u32 a, __u32 b)
{
	__u64 sum = (__u64)a + b;

	return (__u32)sum + (__u32)(sum >> 32);
}

#endif
