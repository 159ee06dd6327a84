/*
 * Unit tests of the rate limit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/base/rate.h"

#define MB (1000 * 1000ULL)
#define MS (1000 * 1000LL)
#define S  (1000 * MS)

/* Whoever sends: how fast if nothing holds it up, and how late it wakes up */
typedef struct Sender {
    uint64_t chunk;
    uint64_t link_bytes_per_s;
    int64_t late_ns;
} Sender;

typedef struct Outcome {
    double bytes_per_s;
    double waits_per_s;
    uint64_t most_at_once;  /* bytes between two waits */
} Outcome;

/* Send until the waits are worth @least_ns; everything is as it would be. */
static Outcome simulate(uint64_t limit, Sender sender, int64_t least_ns)
{
    const int64_t begin = 3 * S;
    int64_t now = begin;
    uint64_t sent = 0, at_once = 0, waits = 0;
    Outcome outcome = { 0 };
    GRand *rand = g_rand_new_with_seed(7);
    Rate rate;

    rate_set(&rate, limit);
    while (now - begin < least_ns || waits < 100) {
        uint64_t wait = rate_wait_ns(&rate, now);

        if (wait) {
            now += wait + g_rand_double_range(rand, 0, sender.late_ns + 1);
            waits++;
            at_once = 0;
            continue;
        }
        now += (double)sender.chunk * S / sender.link_bytes_per_s;
        sent += sender.chunk;
        at_once += sender.chunk;
        outcome.most_at_once = MAX(outcome.most_at_once, at_once);
        rate_spend(&rate, sender.chunk, now);
    }
    /* What was sent last is paid for when it would be another's turn. */
    now += rate_wait_ns(&rate, now);
    outcome.bytes_per_s = (double)sent * S / (now - begin);
    outcome.waits_per_s = (double)waits * S / (now - begin);
    g_rand_free(rand);
    return outcome;
}

static void test_average(void)
{
    static const uint64_t limits[] = {
        MB, 10 * MB, 125 * MB, 1250 * MB,
        10000 * MB
    };
    static const uint64_t chunks[] = {
        512, 4 * KiB, 128 * KiB, 1 * MiB, 2 * MiB, 16 * MiB
    };

    for (int i = 0; i < ARRAY_SIZE(limits); i++) {
        for (int j = 0; j < ARRAY_SIZE(chunks); j++) {
            for (int late = 0; late <= 5; late += 5) {
                Sender sender = { chunks[j], 25000 * MB, late * MS };
                Outcome outcome = simulate(limits[i], sender, 2 * S);

                g_test_message("limit %" PRIu64 " chunk %" PRIu64 " late %d: "
                               "%.0f bytes/s, %.1f waits/s", limits[i],
                               chunks[j], late, outcome.bytes_per_s,
                               outcome.waits_per_s);
                g_assert_cmpfloat(outcome.bytes_per_s, <, limits[i] * 1.02);
                g_assert_cmpfloat(outcome.bytes_per_s, >, limits[i] * 0.98);
                g_assert_cmpfloat(outcome.waits_per_s, <, 101);
            }
        }
    }
}

/* Nothing is sent in bursts that a network would notice. */
static void test_smooth(void)
{
    Sender sender = { 4 * KiB, 25000 * MB, 0 };
    Outcome outcome = simulate(100 * MB, sender, 5 * S);

    g_assert_cmpuint(outcome.most_at_once, <, 1200 * 1000);
}

/* A limit above what the link gives never makes anyone wait. */
static void test_slow_link(void)
{
    Rate rate;
    int64_t now = 0;

    rate_set(&rate, 100 * MB);
    for (int i = 0; i < 10000; i++) {
        now += 2 * MS;                          /* 64 kB in 2 ms: 32 MB/s */
        rate_spend(&rate, 64000, now);
        g_assert_cmpuint(rate_wait_ns(&rate, now), ==, 0);
    }
}

static void test_no_limit(void)
{
    Rate rate;

    rate_set(&rate, 0);
    g_assert_cmpuint(rate_wait_ns(&rate, 0), ==, 0);
    rate_spend(&rate, UINT64_MAX, 1 * S);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S), ==, 0);
}

/* Who does nothing for a while may make up for a little of it, not for all. */
static void test_idle(void)
{
    const uint64_t limit = 100 * MB;
    int64_t now = 1 * S;
    uint64_t burst = 0;
    Rate rate;

    rate_set(&rate, limit);
    rate_spend(&rate, 1000, now);
    now += 100 * S;
    while (!rate_wait_ns(&rate, now)) {
        burst += 1000;
        rate_spend(&rate, 1000, now);
    }
    g_assert_cmpuint(burst, >=, limit / 1000 * 59);
    g_assert_cmpuint(burst, <=, limit / 1000 * 61);
}

static void test_new_limit(void)
{
    Rate rate;

    rate_set(&rate, 1 * MB);
    rate_spend(&rate, 1000 * MB, 1 * S);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S), ==, 1000 * S);

    rate_set(&rate, 100 * MB);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S), ==, 0);
    rate_spend(&rate, 100 * MB, 1 * S);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S), ==, 1 * S);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S + 400 * MS), ==, 600 * MS);

    rate_set(&rate, 0);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S), ==, 0);
}

/* What may be sent without a look at the clock */
static void test_room(void)
{
    Rate rate;

    rate_set(&rate, 0);
    g_assert_cmpuint(rate_room(&rate, 0, S), ==, UINT64_MAX);
    rate_set(&rate, 1000);
    g_assert_cmpuint(rate_room(&rate, 7 * S, S), ==, 1010);
    rate_spend(&rate, 500, 7 * S);
    g_assert_cmpuint(rate_room(&rate, 7 * S, S), ==, 510);
    g_assert_cmpuint(rate_room(&rate, 7 * S + S / 4, S), ==, 760);
    rate_spend(&rate, 5000, 7 * S);
    g_assert_cmpuint(rate_room(&rate, 7 * S, S), ==, 0);
    /* what was missed before the last 50 ms is not made up for */
    g_assert_cmpuint(rate_room(&rate, 100 * S, S), ==, 1060);
    rate_set(&rate, UINT64_MAX);
    g_assert_cmpuint(rate_room(&rate, 0, S), ==, UINT64_MAX);
}

/* Clocks that go back, and sums that no link ever carries */
static void test_extremes(void)
{
    Rate rate;
    uint64_t wait;

    rate_set(&rate, 1000);
    rate_spend(&rate, 1000, 5 * S);
    g_assert_cmpuint(rate_wait_ns(&rate, 1 * S), ==, 1 * S);
    rate_spend(&rate, 1000, 1 * S);
    g_assert_cmpuint(rate_wait_ns(&rate, 5 * S), ==, 2 * S);

    rate_set(&rate, 1);
    rate_spend(&rate, UINT64_MAX, 0);
    wait = rate_wait_ns(&rate, 0);
    g_assert_cmpuint(wait, >, 0);
    g_assert_cmpuint(wait, <=, INT64_MAX);

    rate_set(&rate, UINT64_MAX);
    rate_spend(&rate, 1, 0);
    g_assert_cmpuint(rate_wait_ns(&rate, 0), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/rate/average", test_average);
    g_test_add_func("/migration/rate/smooth", test_smooth);
    g_test_add_func("/migration/rate/slow-link", test_slow_link);
    g_test_add_func("/migration/rate/no-limit", test_no_limit);
    g_test_add_func("/migration/rate/idle", test_idle);
    g_test_add_func("/migration/rate/new-limit", test_new_limit);
    g_test_add_func("/migration/rate/room", test_room);
    g_test_add_func("/migration/rate/extremes", test_extremes);
    return g_test_run();
}
