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
    { WIRE_PEER_REPORT, "report" },
    { WIRE_PEER_STRICT, "strict-downtime" },
    { WIRE_PEER_URGENT_COPY, "urgent-copy" },
    { WIRE_PEER_ERROR, "error" },
    { WIRE_PEER_CHANNEL_RECORDS, "channel-records" },
    { WIRE_PEER_POSTCOPY_CHANNELS, "postcopy-channels" },
    { WIRE_PEER_INVENTORY, "inventory" },
    { WIRE_PEER_CHECKPOINT, "checkpoint" },
    { WIRE_PEER_CHANNELS_AGAIN, "channels-again" },
#ifdef CONFIG_REPLICATION
    { WIRE_PEER_CHECKPOINT_DISKS, "checkpoint-disks" },
#endif
#ifdef CONFIG_ZSTD
    { WIRE_PEER_ANY_METHOD, "any-method" },
#endif
};

static uint32_t known_features(void)
{
    uint32_t all = 0;

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        all |= features[i].bit;
    }
    return all;
}

static uint32_t present(uint32_t mark)
{
    return mark | PEER_VERSION << WIRE_PEER_VERSION_SHIFT | known_features();
}

uint32_t peer_introduction(void)
{
    return present(WIRE_PEER_MARK);
}

uint32_t peer_offer(void)
{
    return present(WIRE_PEER_OFFER);
}

static bool recognize(uint32_t value, uint32_t mark, Peer *peer)
{
    if ((value & WIRE_PEER_MARK_MASK) != mark) {
        return false;
    }
    *peer = (Peer) {
        .version = value >> WIRE_PEER_VERSION_SHIFT,
        .features = value & WIRE_PEER_FEATURES_MASK & known_features(),
    };
    return peer->version;
}

bool peer_recognize(uint32_t value, Peer *peer)
{
    return recognize(value, WIRE_PEER_MARK, peer);
}

bool peer_recognize_offer(uint32_t value, Peer *peer)
{
    return recognize(value, WIRE_PEER_OFFER, peer);
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
