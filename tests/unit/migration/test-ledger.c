/*
 * Unit tests of the downtime and stall ledgers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/base/ledger.h"

static void test_empty(void)
{
    DowntimeLedger l = { 0 };

    g_assert_cmpuint(ledger_total_ns(&l), ==, 0);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 0);
    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        g_assert_false(ledger_knows(&l, i));
    }
}

/* Each row of downtime-parts.def has what others count on. */
static void test_parts(void)
{
    for (DowntimePart i = 0; i < DOWNTIME_PART__COUNT; i++) {
        const char *name = downtime_part_name(i);
        uint64_t none = downtime_part_guess_us(i, 0);

        g_assert_nonnull(name);
        g_assert_cmpstr(name, !=, "");
        g_assert_cmpuint(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), ==,
                         strlen(name));
        g_assert_cmpstr(name, !=, "other");     /* that of ledger_downtime() */
        for (DowntimePart j = 0; j < i; j++) {
            g_assert_cmpstr(name, !=, downtime_part_name(j));
        }
        /* A guess grows with the machine, and has no room to overflow. */
        g_assert_cmpuint(downtime_part_guess_us(i, 2) - none, ==,
                         2 * (downtime_part_guess_us(i, 1) - none));
        g_assert_cmpuint(downtime_part_guess_us(i, UINT_MAX), >=, none);
    }
    /* A DowntimeLedger has one bit for each. */
    g_assert_cmpuint(DOWNTIME_PART__COUNT, <=, 32);
}

/* Clocks begin anywhere, below zero as well. */
static void test_total(void)
{
    static const int64_t origins[] = { 0, 1, -50, 1000000, INT64_MIN,
                                       INT64_MAX - 100 };

    for (int i = 0; i < ARRAY_SIZE(origins); i++) {
        int64_t t = origins[i];
        DowntimeLedger l = { 0 };

        ledger_mark(&l, DOWNTIME_PART_STOP, t, t + 10);
        ledger_mark(&l, DOWNTIME_PART_SYNC, t + 10, t + 40);
        ledger_mark(&l, DOWNTIME_PART_RAM, t + 45, t + 100);
        g_assert_cmpuint(l.part_ns[DOWNTIME_PART_STOP], ==, 10);
        g_assert_cmpuint(l.part_ns[DOWNTIME_PART_SYNC], ==, 30);
        g_assert_cmpuint(l.part_ns[DOWNTIME_PART_RAM], ==, 55);
        g_assert_cmpuint(ledger_total_ns(&l), ==, 100);
        g_assert_cmpuint(ledger_gap_ns(&l), ==, 5);
    }
}

static void test_order_does_not_matter(void)
{
    DowntimeLedger l = { 0 };

    ledger_mark(&l, DOWNTIME_PART_START, 300, 310);
    ledger_mark(&l, DOWNTIME_PART_STOP, 100, 120);
    ledger_mark(&l, DOWNTIME_PART_RAM, 120, 290);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 210);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 10);
}

static void test_part_in_pieces(void)
{
    DowntimeLedger l = { 0 };

    ledger_mark(&l, DOWNTIME_PART_RAM, 0, 10);
    ledger_mark(&l, DOWNTIME_PART_FLUSH, 10, 15);
    ledger_mark(&l, DOWNTIME_PART_RAM, 15, 40);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_RAM], ==, 35);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 40);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 0);
}

static void test_overlap(void)
{
    DowntimeLedger l = { 0 };

    ledger_mark(&l, DOWNTIME_PART_RAM, 0, 100);
    ledger_mark(&l, DOWNTIME_PART_DEVICE_SAVE, 50, 150);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 150);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 0);
}

static void test_backwards(void)
{
    DowntimeLedger l = { 0 };

    ledger_mark(&l, DOWNTIME_PART_STOP, 100, 90);
    g_assert_true(ledger_knows(&l, DOWNTIME_PART_STOP));
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_STOP], ==, 0);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 0);
    ledger_mark(&l, DOWNTIME_PART_RAM, 100, 130);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 30);
}

/* What the other side measured makes the total longer, and leaves no gap. */
static void test_added(void)
{
    DowntimeLedger l = { 0 };

    ledger_add(&l, DOWNTIME_PART_TRANSIT, 7);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 7);
    ledger_mark(&l, DOWNTIME_PART_RAM, 1000, 1020);
    ledger_add(&l, DOWNTIME_PART_START, 3);
    ledger_add(&l, DOWNTIME_PART_START, 2);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 32);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 0);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_START], ==, 5);
    g_assert_true(ledger_knows(&l, DOWNTIME_PART_TRANSIT));
    g_assert_false(ledger_knows(&l, DOWNTIME_PART_FLUSH));
}

/* A thread that was late wrote down what the guest was not there for. */
static void test_end(void)
{
    DowntimeLedger l = { 0 };

    ledger_mark(&l, DOWNTIME_PART_STOP, 0, 10);
    ledger_mark(&l, DOWNTIME_PART_RAM, 12, 100);
    ledger_end(&l, 50);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 50);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_RAM], ==, 38);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_STOP], ==, 10);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 2);

    /* it stood still for longer than anything is known of */
    ledger_end(&l, 60);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 60);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_RAM], ==, 38);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 12);

    ledger_end(&l, -5);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 0);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_RAM], ==, 0);
}

static void test_copy(void)
{
    DowntimeLedger l = { 0 }, copy;

    ledger_mark(&l, DOWNTIME_PART_RAM, 5, 10);
    copy = l;
    ledger_mark(&copy, DOWNTIME_PART_FLUSH, 10, 12);
    ledger_mark(&l, DOWNTIME_PART_FLUSH, 10, 12);
    g_assert_cmpuint(ledger_total_ns(&copy), ==, ledger_total_ns(&l));
}

static void test_stalls(void)
{
    StallLedger l = { 0 };

    g_assert_null(l.longest_step);
    stall_record(&l, "setup", 0);
    g_assert_cmpstr(l.longest_step, ==, "setup");
    stall_record(&l, "sync", 20);
    stall_record(&l, "clear", 20);
    stall_record(&l, "sync", 5);
    g_assert_cmpstr(l.longest_step, ==, "sync");
    g_assert_cmpuint(l.longest_ns, ==, 20);
    g_assert_cmpuint(l.total_ns, ==, 45);
    g_assert_cmpuint(l.count, ==, 4);
}

static void test_stall_below_zero(void)
{
    StallLedger l = { 0 };

    stall_record(&l, "sync", -5);
    stall_record(&l, "clear", INT64_MIN);
    g_assert_cmpuint(l.count, ==, 2);
    g_assert_cmpuint(l.total_ns, ==, 0);
    g_assert_cmpuint(l.longest_ns, ==, 0);
    g_assert_cmpstr(l.longest_step, ==, "sync");
}

/* A user took 500 between two parts. */
static void test_skip(void)
{
    DowntimeLedger l = { 0 };

    ledger_mark(&l, DOWNTIME_PART_STOP, 100, 110);
    ledger_skip(&l, 500);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 10);
    ledger_mark(&l, DOWNTIME_PART_SYNC, 610, 640);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 40);
    g_assert_cmpuint(ledger_gap_ns(&l), ==, 0);
    ledger_end(&l, 630);
    g_assert_cmpuint(ledger_total_ns(&l), ==, 30);
    g_assert_cmpuint(l.part_ns[DOWNTIME_PART_SYNC], ==, 20);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ledger/empty", test_empty);
    g_test_add_func("/ledger/parts", test_parts);
    g_test_add_func("/ledger/total", test_total);
    g_test_add_func("/ledger/order", test_order_does_not_matter);
    g_test_add_func("/ledger/pieces", test_part_in_pieces);
    g_test_add_func("/ledger/overlap", test_overlap);
    g_test_add_func("/ledger/backwards", test_backwards);
    g_test_add_func("/ledger/added", test_added);
    g_test_add_func("/ledger/end", test_end);
    g_test_add_func("/ledger/skip", test_skip);
    g_test_add_func("/ledger/copy", test_copy);
    g_test_add_func("/ledger/stalls", test_stalls);
    g_test_add_func("/ledger/stall-below-zero", test_stall_below_zero);
    return g_test_run();
}
