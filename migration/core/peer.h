/*
 * Whether the other side is a Ferry, and what it understands
 *
 * The source sends three PINGs once the return path is open: WIRE_PEER_HELLO,
 * an offer that says who it is itself, and then a fence.  Every destination
 * answers each with a PONG of the same value.  A Ferry answers the first with
 * one PONG more, whose value says who it is.  When the fence is answered the
 * source knows, whoever it is.
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

/* The value with which a destination presents itself, and a source. */
uint32_t peer_introduction(void);
uint32_t peer_offer(void);

/*
 * Is @value the introduction of a destination, the offer of a source?
 * Features that we do not know are left out of @peer, so that versions mix.
 */
bool peer_recognize(uint32_t value, Peer *peer);
bool peer_recognize_offer(uint32_t value, Peer *peer);

/* Names of the features in @features, in a list that is the caller's. */
strList *peer_feature_names(uint32_t features);

#endif
