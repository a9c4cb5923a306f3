/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_ADDR_H
#define WEFT_WIRE_ADDR_H

#include <stdbool.h>

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* A Customer or Provider Address as every table keys it: IPv6 as it is, IPv4 as
 * ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). Network order. */
union addr {
	__u8 b[16];
	__be32 w[4];
	__u64 d[2];
};

_Static_assert(sizeof(union addr) == 16, "address");

static __always_inline void addr_set4(union addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline void addr_set6(union addr *a, const __be32 *v6)
{
	a->w[0] = v6[0];
	a->w[1] = v6[1];
	a->w[2] = v6[2];
	a->w[3] = v6[3];
}

static __always_inline bool addr_is4(const union addr *a)
{
	return a->d[0] == 0 && a->w[2] == bpf_htonl(0xffff);
}

/* 0.0.0.0 or :: */
static __always_inline bool addr_unspecified(const union addr *a)
{
	return a->d[0] == 0 && a->w[3] == 0 && (a->w[2] == 0 || a->w[2] == bpf_htonl(0xffff));
}

static __always_inline bool addr6_multicast(const union addr *a)
{
	return a->b[0] == 0xff;
}

/* Of either family. */
static __always_inline bool addr_multicast(const union addr *a)
{
	return addr_is4(a) ? a->b[12] >> 4 == 0xe : addr6_multicast(a);
}

static __always_inline bool addr6_link_local(const union addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

#endif
