/*
 * A pass that takes long, for a shorter downtime: when it is taken, what it
 * costs, and that nobody has to wait for it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "migration/base/policy.h"

#define MIB_ (1024.0 * 1024)
#define MS_ 1000000ull
#define SEC_ 1000000000ull
#define STEP_MS 10
#define STEPS_MAX 20000

static const PolicyLimits large = {
    .downtime_ns = 4 * SEC_,
    .throttle_trigger = 50,
    .guest_runs = true,
};

/*
 * A guest that writes at @rate to a set of @set bytes, at random; of what it
 * writes to, what is dirty already is not new.
 */
typedef struct Guest {
    PolicyLimits limits;
    double memory, link, set, rate;
    uint64_t sync_ns;
    void (*meanwhile)(struct Guest *g);

    Policy policy;
    double rest, known, unknown;    /* of all but the set; of the set */
    uint64_t now, synced, first_fit, sent_ns;
    bool stopped;
    unsigned looks;
    double fitted;                  /* what remained then */
    PolicyDecision last;
} Guest;

static double remaining(const Guest *g)
{
    return g->rest + g->known;
}

static double downtime(const Guest *g)
{
    return (g->rest + g->known) / g->link;
}

/* As if the policy had switched over when it first could */
static double plain_total(const Guest *g)
{
    return g->first_fit / 1e9 + g->fitted / g->link;
}

static double total(const Guest *g)
{
    return g->now / 1e9 + downtime(g);
}

static void write_memory(Guest *g, uint64_t ns)
{
    double clean = g->set - g->unknown;

    if (!g->stopped && g->set) {
        g->unknown = g->set - clean * exp(-g->rate * ns / 1e9 / g->set);
    }
}

static void collect(Guest *g)
{
    double found = g->unknown;

    policy_synced(&g->policy, found, g->now - g->synced);
    policy_measured(&g->policy, DOWNTIME_PART_SYNC, g->sync_ns);
    g->known += found * (1 - g->known / MAX(g->set, 1));
    g->unknown = 0;
    g->synced = g->now;
    write_memory(g, g->sync_ns);
    g->now += g->sync_ns;
    g->looks++;
}

static void send_some(Guest *g)
{
    double bytes = MIN(g->link * STEP_MS / 1e3, remaining(g));
    double rest = MIN(g->rest, bytes);

    write_memory(g, STEP_MS * MS_);
    g->rest -= rest;
    g->known -= bytes - rest;
    policy_sent(&g->policy, bytes, STEP_MS * MS_);
    g->now += STEP_MS * MS_;
}

static void decide(Guest *g)
{
    Policy *p = &g->policy;

    g->last = policy_decide(p, &g->limits, remaining(g), false);
    if (g->last.action != POLICY_SYNC) {
        return;
    }
    collect(g);
    if (!g->first_fit && remaining(g) <= policy_threshold(p, &g->limits)) {
        g->first_fit = g->now;
        g->fitted = remaining(g);
    }
    g->last = policy_decide(p, &g->limits, remaining(g), true);
}

/* Until the policy switches over; false if it does not. */
static bool run(Guest *g)
{
    g->rest = g->memory - g->set;
    g->known = g->set;
    policy_init(&g->policy, g->memory);
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        decide(g);
        if (g->last.action == POLICY_SWITCH_OVER) {
            return true;
        }
        if (g->meanwhile) {
            g->meanwhile(g);
        }
        send_some(g);
    }
    return false;
}

static Guest make(double set, double rate)
{
    return (Guest) {
        .limits = large, .memory = 1024 * MIB_, .link = 100 * MIB_,
        .set = set * MIB_, .rate = rate * MIB_, .sync_ns = MS_,
    };
}

static void tell(const Guest *g)
{
    g_test_message("%.2f s instead of %.2f s, downtime %.3f s instead of "
                   "%.3f s, %u looks: %s", total(g), plain_total(g),
                   downtime(g), g->fitted / g->link, g->looks, g->last.reason);
}

/* The downtime is what a pass leaves, not what the limit allows. */
static void test_taken(void)
{
    for (int percent = 0; percent <= 60; percent += 5) {
        Guest g = make(400, percent);

        g_assert_true(run(&g));
        tell(&g);
        g_assert_cmpfloat(total(&g), <=, plain_total(&g) * 1.1);
        g_assert_cmpfloat(downtime(&g), <=, g.fitted / g.link + 0.01);
        if (percent <= 15) {
            g_assert_cmpfloat(downtime(&g), <=, 1);
        }
        if (percent <= 5) {
            g_assert_cmpfloat(downtime(&g), <=, 0.1);
        }
    }
}

/*
 * What is written to again and again is dirtied once: also where all memory
 * fits the limit as soon as the bandwidth is known, so that the guest seems to
 * dirty more than is sent.
 */
static void test_small_set(void)
{
    Guest g = make(8, 800);

    g_assert_true(run(&g));
    tell(&g);
    g_assert_cmpfloat(downtime(&g), <=, 0.1);
    g_assert_cmpfloat(total(&g), <=, plain_total(&g) * 1.1);

    g = make(2, 100);
    g.memory = 64 * MIB_;
    g.link = 30 * MIB_;
    g_assert_true(run(&g));
    tell(&g);
    g_assert_cmpfloat(plain_total(&g) - g.fitted / g.link, <=, 0.1);
    g_assert_cmpfloat(downtime(&g), <=, 0.1);
    g_assert_cmpfloat(total(&g), <=, plain_total(&g) * 1.1);
}

/* A pass that does not help is found out within its allowance. */
static void test_in_vain(void)
{
    for (double set = 20; set <= 400; set += 20) {
        for (double rate = 60; rate <= 900; rate *= 1.5) {
            Guest g = make(set, rate);

            if (run(&g)) {
                g_assert_cmpfloat(total(&g), <=, plain_total(&g) * 1.15);
            } else {
                g_assert_cmpuint(g.first_fit, ==, 0);
            }
        }
    }
}

static void begin_to_write(Guest *g)
{
    if (g->first_fit && g->now > g->first_fit + 300 * MS_) {
        g->rate = 2000 * MIB_;
    }
}

/* Also one whose guest begins to write in the middle of it. */
static void test_guest_changes(void)
{
    Guest g = make(60, 1);

    g.meanwhile = begin_to_write;
    g_assert_true(run(&g));
    tell(&g);
    g_assert_cmpfloat(total(&g), <=, plain_total(&g) * 1.15);
}

/* Where looking takes long it costs more than it gives. */
static void test_slow_log(void)
{
    Guest g = make(8, 1);

    g.sync_ns = 200 * MS_;
    g_assert_true(run(&g));
    tell(&g);
    g_assert_cmpuint(g.now, ==, g.first_fit);
}

/* At once, as if there were no such pass */
static void expect_at_once(Guest *g)
{
    g_assert_true(run(g));
    tell(g);
    g_assert_cmpuint(g->now, ==, g->first_fit);
    g_assert_cmpfloat(downtime(g), >, 3);
}

static void test_guest_stopped(void)
{
    Guest g = make(400, 10);

    g.stopped = true;
    g.limits.guest_runs = false;
    expect_at_once(&g);
}

static void test_hurried_before(void)
{
    Guest g = make(400, 10);

    g.limits.changes = 1;
    expect_at_once(&g);

    g = make(400, 10);
    g.limits.total_ns = 100 * SEC_;
    expect_at_once(&g);

    g = make(400, 10);
    g.limits.postcopy_asked = true;
    expect_at_once(&g);
}

/* Without the limit of the bandwidth the rest takes less time than a pass. */
static void test_limited(void)
{
    Guest g = make(400, 10);

    g.limits.max_bandwidth = 100 * MIB_;
    expect_at_once(&g);
    g = make(400, 10);
    g.limits.max_bandwidth = 1000 * MIB_;
    g_assert_true(run(&g));
    g_assert_cmpfloat(downtime(&g), <, 1);
}

/* What is changed when such a pass has gone on for some time */
static PolicyLimits changed;
static uint64_t changed_at;

static void change_limits(Guest *g)
{
    if (g->first_fit && g->now >= g->first_fit + SEC_ && !changed_at) {
        g_assert_nonnull(strstr(g->last.reason, "nearly free"));
        g->limits = changed;
        changed_at = g->now;
    }
}

static void expect_end_soon(void)
{
    Guest g = make(400, 10);

    changed_at = 0;
    g.meanwhile = change_limits;
    g_assert_true(run(&g));
    tell(&g);
    g_assert_cmpuint(changed_at, >, 0);
    g_assert_cmpuint(g.now - changed_at, <=, STEP_MS * MS_ + g.sync_ns);
    g_assert_cmpfloat(downtime(&g), >, 1);
}

/* Whoever waits for the end does not wait for the pass. */
static void test_hurried_meanwhile(void)
{
    changed = large;
    changed.changes = 1;
    changed.downtime_ns = 100 * SEC_;
    expect_end_soon();
    changed = large;
    changed.postcopy_asked = true;
    expect_end_soon();
    changed = large;
    changed.total_ns = 100 * SEC_;
    expect_end_soon();
    changed = large;
    changed.guest_runs = false;
    expect_end_soon();
}

/* A limit below half a second has only the short passes. */
static void test_small_limit(void)
{
    Guest g = make(400, 10);

    g.limits.downtime_ns = 400 * MS_;
    g_assert_true(run(&g));
    tell(&g);
    g_assert_cmpuint(g.policy.long_pass.end_ns, ==, 0);
}

/* The wall between both: an allowance that is used up stays used up. */
static void test_allowance(void)
{
    LongPassLook look = {
        .remaining = 200 * MIB_, .ram_ns = 2 * SEC_, .fixed_ns = SEC_ / 10,
        .bandwidth = 100 * MIB_,
    };
    LongPass l = { 0 };
    unsigned looks = 0;
    uint64_t slice;

    long_pass_sent(&l, 8 * SEC_);
    long_pass_known(&l, look.remaining);
    while ((slice = long_pass_next(&l, &look))) {
        g_assert_cmpuint(slice, <=, 500 * MS_);
        long_pass_sent(&l, slice);
        look.remaining -= slice * look.bandwidth / 1e9;
        long_pass_known(&l, look.remaining);
        /* the guest dirties nine twentieths of what is sent */
        look.remaining += slice * look.bandwidth / 1e9 * 0.45;
        look.ram_ns = look.remaining / look.bandwidth * 1e9;
        g_assert_cmpuint(++looks, <, 100);
    }
    g_assert_false(l.going);
    g_assert_cmpuint(l.sent_ns + look.ram_ns + look.fixed_ns, <=,
                     l.end_ns * 1.1);
    g_assert_cmpuint(long_pass_next(&l, &look), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/migration/long-pass/" name, func)
    ADD("taken", test_taken);
    ADD("small-set", test_small_set);
    ADD("in-vain", test_in_vain);
    ADD("guest-changes", test_guest_changes);
    ADD("slow-log", test_slow_log);
    ADD("stopped", test_guest_stopped);
    ADD("hurried/before", test_hurried_before);
    ADD("hurried/meanwhile", test_hurried_meanwhile);
    ADD("limited", test_limited);
    ADD("small-limit", test_small_limit);
    ADD("allowance", test_allowance);
#undef ADD
    return g_test_run();
}
