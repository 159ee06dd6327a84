/*
 * Whether the other side is a Ferry, and what it understands
 *
 * The source sends two PINGs once the return path is open: WIRE_PEER_HELLO
 * and then a fence.  Every destination answers each with a PONG of the same
 * value.  A Ferry answers the first with one PONG more, whose value says who
 * it is.  When the fence is answered the source knows, whoever it is.
 *
 * All of this is pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_PEER_H
#define MIGRATION_CORE_PEER_H

#include "qapi/qapi-builtin-types.h"

typedef struct Peer {
    uint8_t version;        /* of the peer protocol; 0: not a Ferry */
    uint32_t features;      /* WIRE_PEER_*: that both sides have */
} Peer;

#define PEER_VERSION 1

/* The value with which this side presents itself. */
uint32_t peer_introduction(void);

/*
 * Is @value the introduction of a peer?  Features that we do not know are
 * left out of @peer, so that versions mix.
 */
bool peer_recognize(uint32_t value, Peer *peer);

/* Names of the features in @features, in a list that is the caller's. */
strList *peer_feature_names(uint32_t features);

#endif
