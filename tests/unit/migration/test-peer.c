/*
 * Unit tests of how two Ferrys recognise each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "migration/core/peer.h"
#include "migration/wire/wire.h"

#ifdef CONFIG_ZSTD
#define METHODS WIRE_PEER_ANY_METHOD
#else
#define METHODS 0
#endif
#ifdef CONFIG_REPLICATION
#define DISKS WIRE_PEER_CHECKPOINT_DISKS
#else
#define DISKS 0
#endif
#define ALL (WIRE_PEER_ZERO_RANGE | WIRE_PEER_PAGE_RUN | WIRE_PEER_REPORT | \
             WIRE_PEER_STRICT | WIRE_PEER_URGENT_COPY | WIRE_PEER_ERROR | \
             WIRE_PEER_CHANNEL_RECORDS | WIRE_PEER_POSTCOPY_CHANNELS | \
             WIRE_PEER_INVENTORY | WIRE_PEER_CHECKPOINT | \
             WIRE_PEER_CHANNELS_AGAIN | METHODS | DISKS)

static void test_introduction(void)
{
    Peer peer;

    g_assert(peer_recognize(peer_introduction(), &peer));
    g_assert_cmpuint(peer.version, ==, PEER_VERSION);
    g_assert_cmpuint(peer.features, ==, ALL);
}

/* Whatever a PONG of any QEMU may carry */
static void test_others(void)
{
    static const uint32_t values[] = {
        0, WIRE_PING_START, WIRE_PING_POSTCOPY, WIRE_PING_DEVICES_LOADED,
        WIRE_PING_PACKAGE_SENT, WIRE_PING_ROUND_TRIP, WIRE_PING_DRAIN,
        WIRE_PING_PACE, WIRE_PEER_HELLO, 0xffffffff, 0xfd010003,
        /* a peer of version 0 is none */
        WIRE_PEER_MARK, WIRE_PEER_MARK | WIRE_PEER_FEATURES_MASK,
    };

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        Peer peer;

        g_assert_false(peer_recognize(values[i], &peer));
    }
}

/* Versions mix: what is not known is left out, what is missing stays so. */
static void test_features(void)
{
    uint32_t future = WIRE_PEER_MARK | 200u << WIRE_PEER_VERSION_SHIFT;
    Peer peer;

    g_assert(peer_recognize(future | WIRE_PEER_FEATURES_MASK, &peer));
    g_assert_cmpuint(peer.version, ==, 200);
    g_assert_cmpuint(peer.features, ==, ALL);
    g_assert(peer_recognize(future | WIRE_PEER_PAGE_RUN, &peer));
    g_assert_cmpuint(peer.features, ==, WIRE_PEER_PAGE_RUN);
    g_assert(peer_recognize(future, &peer));
    g_assert_cmpuint(peer.features, ==, 0);
}

static const char *const all_names[] = {
    "zero-range", "page-run", "report", "strict-downtime", "urgent-copy",
    "error", "channel-records", "postcopy-channels", "inventory", "checkpoint",
    "channels-again",
#ifdef CONFIG_REPLICATION
    "checkpoint-disks",
#endif
#ifdef CONFIG_ZSTD
    "any-method",
#endif
};

static void test_names(void)
{
    g_autoptr(strList) names = peer_feature_names(ALL);
    const strList *name = names;

    for (int i = 0; i < ARRAY_SIZE(all_names); i++, name = name->next) {
        g_assert_nonnull(name);
        g_assert_cmpstr(name->value, ==, all_names[i]);
    }
    g_assert_null(name);
    g_assert_null(peer_feature_names(0));
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/peer/introduction", test_introduction);
    g_test_add_func("/peer/others", test_others);
    g_test_add_func("/peer/features", test_features);
    g_test_add_func("/peer/names", test_names);
    return g_test_run();
}
