/*
 * Whether the other side is a Ferry, and what it understands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-builtin-types.h"
#include "qapi/util.h"
#include "migration/wire/wire.h"
#include "peer.h"

static const struct {
    uint32_t bit;
    const char *name;
} features[] = {
    { WIRE_PEER_ZERO_RANGE, "zero-range" },
    { WIRE_PEER_PAGE_RUN, "page-run" },
};

static uint32_t known_features(void)
{
    uint32_t all = 0;

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        all |= features[i].bit;
    }
    return all;
}

uint32_t peer_introduction(void)
{
    return WIRE_PEER_MARK | PEER_VERSION << WIRE_PEER_VERSION_SHIFT |
           known_features();
}

bool peer_recognize(uint32_t value, Peer *peer)
{
    if ((value & WIRE_PEER_MARK_MASK) != WIRE_PEER_MARK) {
        return false;
    }
    *peer = (Peer) {
        .version = value >> WIRE_PEER_VERSION_SHIFT,
        .features = value & WIRE_PEER_FEATURES_MASK & known_features(),
    };
    return peer->version;
}

strList *peer_feature_names(uint32_t set)
{
    strList *names = NULL, **tail = &names;

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        if (set & features[i].bit) {
            QAPI_LIST_APPEND(tail, g_strdup(features[i].name));
        }
    }
    return names;
}
