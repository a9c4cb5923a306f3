/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef WEFT_WIRE_NVGRE_H
#define WEFT_WIRE_NVGRE_H

#include <linux/types.h>

/* NVGRE (RFC 7637): GRE with a key of VSID and FlowID in front of an untagged
 * Ethernet frame. */
#define GRE_KEY 0x2000
#define GRE_MUST_MATCH 0xfc07 /* C, reserved 1, K, S, reserved 4 and 5; version */
#define GRE_TYPE_ETHERNET 0x6558

struct nvgre {
	__be16 flags;
	__be16 type;
	__be32 key; /* VSID << 8 | FlowID */
};

_Static_assert(sizeof(struct nvgre) == 8, "NVGRE header");

#endif
