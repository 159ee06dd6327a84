/*
 * Unit tests of the pure parts of checkpoints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "setup.h"
#include "migration/checkpoint/epoch.h"
#include "migration/checkpoint/pauses.h"

static void test_head(void)
{
    static const uint8_t want[] = {
        0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
        0x00, 0x00, 0x10, 0x01, 0x40, 0x00, 0x00, 0x00,
    };
    EpochHead head = {
        .number = 0x0102030405060708, .memory = 0x1001,
        .devices = WIRE_PACKAGED_MAX,
    };
    EpochHead read = { 0 };
    WireCheckpoint wire;

    epoch_head_encode(&head, &wire);
    g_assert_cmpmem(&wire, sizeof(wire), want, sizeof(want));
    g_assert_true(epoch_head_decode(&read, &wire, head.number, &error_abort));
    g_assert_cmphex(read.number, ==, head.number);
    g_assert_cmphex(read.memory, ==, head.memory);
    g_assert_cmphex(read.devices, ==, head.devices);
}

/* A head that lies: what is said of it contains @text. */
static void check_lie(const EpochHead *head, uint64_t expected,
                      const char *text)
{
    WireCheckpoint wire;
    EpochHead read;
    Error *err = NULL;

    epoch_head_encode(head, &wire);
    g_assert_false(epoch_head_decode(&read, &wire, expected, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
}

static void test_lies(void)
{
    /* repeated, left out, from the beginning again */
    check_lie(&(EpochHead) { 6, 1, 1 }, 7, "epoch 6 received, epoch 7");
    check_lie(&(EpochHead) { 8, 1, 1 }, 7, "epoch 8 received, epoch 7");
    check_lie(&(EpochHead) { 0, 1, 1 }, 1, "epoch 0 received, epoch 1");
    check_lie(&(EpochHead) { UINT64_MAX, 1, 1 }, 1, "expected");
    /* sizes */
    check_lie(&(EpochHead) { 1, 0, 1 }, 1, "the memory of an epoch is missing");
    check_lie(&(EpochHead) { 1, 1, 0 }, 1, "the device state of an epoch is");
    check_lie(&(EpochHead) { 1, WIRE_PACKAGED_MAX + 1, 1 }, 1, "the limit");
    check_lie(&(EpochHead) { 1, 1, UINT32_MAX }, 1, "the limit");
}

static void test_no_pauses(void)
{
    Pauses p = { 0 };

    g_assert_cmpuint(pauses_percentile(&p, 50), ==, 0);
    g_assert_cmpuint(pauses_percentile(&p, 100), ==, 0);
}

static void test_percentiles(void)
{
    Pauses p = { 0 };

    pauses_add(&p, 7);
    g_assert_cmpuint(pauses_percentile(&p, 1), ==, 7);
    g_assert_cmpuint(pauses_percentile(&p, 50), ==, 7);
    g_assert_cmpuint(pauses_percentile(&p, 100), ==, 7);

    /* 1 to 100, not in order */
    memset(&p, 0, sizeof(p));
    for (unsigned i = 0; i < 100; i++) {
        pauses_add(&p, i * 37 % 100 + 1);
    }
    g_assert_cmpuint(pauses_percentile(&p, 1), ==, 1);
    g_assert_cmpuint(pauses_percentile(&p, 50), ==, 50);
    g_assert_cmpuint(pauses_percentile(&p, 99), ==, 99);
    g_assert_cmpuint(pauses_percentile(&p, 100), ==, 100);
    g_assert_cmpuint(p.max_us, ==, 100);
}

/* What is older than the last ones counts for the longest alone. */
static void test_ring(void)
{
    Pauses p = { 0 };

    for (unsigned i = 0; i < PAUSES_KEPT; i++) {
        pauses_add(&p, 9000);
    }
    for (unsigned i = 0; i < PAUSES_KEPT / 2; i++) {
        pauses_add(&p, 10);
    }
    g_assert_cmpuint(pauses_percentile(&p, 50), ==, 10);
    g_assert_cmpuint(pauses_percentile(&p, 51), ==, 9000);
    for (unsigned i = 0; i < PAUSES_KEPT; i++) {
        pauses_add(&p, 20);
    }
    g_assert_cmpuint(pauses_percentile(&p, 1), ==, 20);
    g_assert_cmpuint(pauses_percentile(&p, 100), ==, 20);
    g_assert_cmpuint(p.max_us, ==, 9000);
    g_assert_cmpuint(p.count, ==, PAUSES_KEPT * 5 / 2);
    pauses_add(&p, UINT64_MAX);
    g_assert_cmpuint(pauses_percentile(&p, 100), ==, UINT32_MAX);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/checkpoint/head", test_head);
    g_test_add_func("/checkpoint/lies", test_lies);
    g_test_add_func("/checkpoint/pauses/none", test_no_pauses);
    g_test_add_func("/checkpoint/pauses/percentiles", test_percentiles);
    g_test_add_func("/checkpoint/pauses/ring", test_ring);
    return g_test_run();
}
