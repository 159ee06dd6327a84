/*
 * Unit tests of the migration policy, on made-up and recorded migrations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/base/policy.h"

#define MIB_ (1024.0 * 1024)
#define GIB_ (1024 * MIB_)
#define MS_ 1000000ull
#define SEC_ 1000000000ull
#define MAX_PASSES 200

static const PolicyLimits plain = {
    .downtime_ns = 300 * MS_,
    .throttle_initial = 20,
    .throttle_increment = 10,
    .throttle_max = 99,
    .throttle_trigger = 50,
};

/*
 * A guest for the policy to migrate.  It dirties a working set at a rate: what
 * a sync finds is what was dirtied in the interval, at most the working set.
 */
typedef struct Sim {
    Policy policy;
    PolicyLimits limits;
    double bandwidth;           /* bytes/s */
    double dirty_rate;          /* bytes/s unthrottled */
    double working_set;         /* bytes */
    double noise;               /* share by which bandwidth varies */
    GRand *rand;
    double remaining;
    uint64_t now;               /* ns */
    unsigned passes;
    uint8_t throttle;
    uint64_t downtime;          /* of the switchover, by the true bandwidth */
    PolicyDecision last;
} Sim;

static void sim_pass(Sim *s)
{
    double bytes = s->remaining, pass_ns = 0;

    while (bytes > 0) {
        double bw = s->bandwidth * (1 + s->noise *
                                    g_rand_double_range(s->rand, -1, 1));
        double slice = MIN(bytes, bw / 50);

        policy_sent(&s->policy, slice, slice * 1e9 / bw);
        pass_ns += slice * 1e9 / bw;
        bytes -= slice;
    }
    pass_ns = MAX(pass_ns, MS_);
    s->now += pass_ns;
    s->remaining = MIN(s->working_set, s->dirty_rate * pass_ns / 1e9 *
                                       (100 - s->throttle) / 100);
    policy_synced(&s->policy, s->remaining, pass_ns);
    s->passes++;
}

/* Runs until the policy switches over; returns false if it never does. */
static bool sim_run(Sim *s, double total)
{
    bool done = false;

    s->rand = g_rand_new_with_seed(1);
    s->remaining = total;
    policy_init(&s->policy, total);
    while (!done && s->passes < MAX_PASSES) {
        sim_pass(s);
        s->last = policy_decide(&s->policy, &s->limits, s->remaining, true);
        s->throttle = s->last.throttle;
        done = s->last.action == POLICY_SWITCH_OVER;
    }
    s->downtime = s->remaining * 1e9 / s->bandwidth;
    g_rand_free(s->rand);
    return done;
}

static void test_idle(void)
{
    Sim s = { .limits = plain, .bandwidth = GIB_, .working_set = MIB_ };

    g_assert_true(sim_run(&s, 4 * GIB_));
    g_assert_cmpuint(s.passes, ==, 1);
    g_assert_cmpuint(s.downtime, ==, 0);
}

static void test_converges_within_limit(void)
{
    for (int percent = 5; percent <= 90; percent += 5) {
        Sim s = {
            .limits = plain, .bandwidth = GIB_, .noise = 0.1,
            .dirty_rate = GIB_ * percent / 100, .working_set = GIB_,
        };

        g_assert_true(sim_run(&s, 4 * GIB_));
        g_assert_cmpuint(s.downtime, <=, plain.downtime_ns * 1.2);
    }
}

/* It would fit at once, but a short pass makes the blackout much shorter. */
static void test_polishes(void)
{
    Sim s = {
        .limits = plain, .bandwidth = GIB_,
        .dirty_rate = GIB_ / 20, .working_set = 200 * MIB_,
    };

    g_assert_true(sim_run(&s, 4 * GIB_));
    g_assert_cmpuint(s.passes, >, 1);
    g_assert_cmpuint(s.downtime, <, 20 * MS_);
}

/*
 * As the migration thread does it: asks after each slice, and collects the
 * log as soon as it is told to.
 */
static void test_polish_is_finished(void)
{
    Sim s = {
        .limits = plain, .bandwidth = 128 * MIB_, .dirty_rate = 8 * MIB_,
        .working_set = 32 * MIB_,
    };
    Policy *p = &s.policy;
    double dirty = 0, slice = s.bandwidth / 100;
    uint64_t since_sync = 0;

    s.remaining = 512 * MIB_;
    policy_init(p, s.remaining);
    for (int i = 0; i < 10000; i++) {
        s.last = policy_decide(p, &s.limits, s.remaining, false);
        if (s.last.action == POLICY_SYNC) {
            s.remaining += dirty;
            policy_synced(p, dirty, since_sync);
            dirty = since_sync = 0;
            s.last = policy_decide(p, &s.limits, s.remaining, true);
        }
        if (s.last.action == POLICY_SWITCH_OVER) {
            break;
        }
        policy_sent(p, MIN(slice, s.remaining), 10 * MS_);
        since_sync += 10 * MS_;
        s.remaining -= MIN(slice, s.remaining);
        dirty = MIN(s.working_set, dirty + s.dirty_rate / 100);
    }
    g_assert_cmpint(s.last.action, ==, POLICY_SWITCH_OVER);
    /* not what the limit allows, 38 MiB, but what a pass leaves */
    g_assert_cmpuint(s.remaining, <, 2 * MIB_);
}

/*
 * A link behind a buffer that takes what it has room for at once.  The guest is
 * stopped when the buffer is empty, as the source waits for that: what it
 * dirties meanwhile is sent after the stop.
 */
typedef struct Buffered {
    const PolicyLimits *limits;
    double link, room, rate;    /* bytes/s, bytes, bytes/s */
    bool settles;
    Policy policy;
    double known, unknown, held;
    double taken;               /* of the buffer, since policy_sent() */
    uint64_t now, synced;
    uint64_t predicted, downtime;
} Buffered;

static void buffered_run(Buffered *b, uint64_t ns)
{
    double gone = MIN(b->held, b->link * ns / 1e9);

    b->held -= gone;
    b->taken += gone;
    b->unknown = MIN(64 * MIB_, b->unknown + b->rate * ns / 1e9);
    b->now += ns;
}

static double buffered_taken(Buffered *b)
{
    double taken = b->taken;

    b->taken = 0;
    return taken;
}

/* Up to 10 ms of a pass, and at least the time of a few system calls */
static void buffered_send(Buffered *b)
{
    uint64_t ns = MS_ / 10;

    buffered_taken(b);
    for (uint64_t spent = 0; spent < 10 * MS_ && b->known > 0; spent += ns) {
        double piece = MIN(b->known, b->room - b->held);

        b->known -= piece;
        b->held += piece;
        buffered_run(b, ns);
        policy_sent(&b->policy, buffered_taken(b), ns);
    }
    if (b->known <= 0) {
        buffered_run(b, ns);
        policy_sent(&b->policy, buffered_taken(b), ns);
    }
}

static void buffered_settle(Buffered *b)
{
    uint64_t ns;

    while (b->settles &&
           (ns = policy_settle_ns(&b->policy, b->limits, b->known, b->held))) {
        ns = DIV_ROUND_UP(ns, MS_) * MS_;
        buffered_taken(b);
        buffered_run(b, ns);
        policy_settled(&b->policy, buffered_taken(b), ns);
    }
}

static PolicyDecision buffered_look(Buffered *b)
{
    PolicyDecision d = policy_decide(&b->policy, b->limits, b->known, false);

    if (d.action == POLICY_SYNC) {
        buffered_settle(b);
        policy_synced(&b->policy, b->unknown, b->now - b->synced);
        b->known += b->unknown;
        b->unknown = 0;
        b->synced = b->now;
        d = policy_decide(&b->policy, b->limits, b->known, true);
    }
    return d;
}

static void buffered_migrate(Buffered *b)
{
    b->known = 512 * MIB_;
    policy_init(&b->policy, b->known);
    while (buffered_look(b).action != POLICY_SWITCH_OVER) {
        g_assert_cmpuint(b->now, <, 60 * SEC_);
        buffered_send(b);
    }
    b->predicted = policy_view(&b->policy, b->limits, b->known,
                               b->known).downtime.likely;
    buffered_run(b, b->held * 1e9 / b->link);
    b->downtime = (b->known + b->unknown) * 1e9 / b->link;
}

/*
 * A buffer that is emptied before the log is collected: the downtime is
 * shorter, and as predicted; and the migration takes no longer.
 */
static void test_settles(void)
{
    PolicyLimits limits = plain;

    limits.guest_runs = true;
    for (int percent = 10; percent <= 60; percent += 10) {
        Buffered with = {
            .limits = &limits, .link = 64 * MIB_, .room = 4 * MIB_,
            .rate = 64 * MIB_ * percent / 100, .settles = true,
        };
        Buffered without = with;

        without.settles = false;
        buffered_migrate(&with);
        buffered_migrate(&without);
        g_test_message("%d %%: downtime %.1f ms, predicted %.1f, total %.0f; "
                       "without %.1f, %.1f, %.0f", percent,
                       with.downtime / 1e6, with.predicted / 1e6,
                       (with.now + with.downtime) / 1e6,
                       without.downtime / 1e6, without.predicted / 1e6,
                       (without.now + without.downtime) / 1e6);
        g_assert_cmpuint(with.downtime, <=, without.downtime);
        g_assert_cmpuint(with.downtime, <=, with.predicted + 3 * MS_);
        g_assert_cmpuint(with.downtime, >=, with.predicted - MIN(3 * MS_,
                                                          with.predicted));
        g_assert_cmpuint(with.now + with.downtime, <=,
                         (without.now + without.downtime) * 1.02);
    }
}

/* When the buffers are not waited for, and for how long */
static void test_settle_limits(void)
{
    PolicyLimits limits = plain;
    Policy p;

    limits.guest_runs = true;
    policy_init(&p, GIB_);
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, MIB_), ==, 0);
    policy_sent(&p, GIB_ / 2, SEC_ / 2);
    policy_synced(&p, 10 * MIB_, SEC_);
    /* 100 MiB fit, and so does what the link takes in a millisecond */
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 100 * MIB_, MIB_), ==, 0);
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 100 * MIB_, 16 * MIB_), ==,
                     13625000);
    g_assert_cmpuint(policy_settle_ns(&p, &limits, GIB_, 16 * MIB_), ==, 0);
    /* no longer than a downtime, all in all */
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, GIB_), ==, 300 * MS_);
    policy_settled(&p, 0, 250 * MS_);
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, GIB_), ==, 50 * MS_);
    policy_settled(&p, 0, 60 * MS_);
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, GIB_), ==, 0);
    policy_synced(&p, 10 * MIB_, SEC_);
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, GIB_), ==, 300 * MS_);
    limits.downtime_ns = 60 * SEC_;
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, 10 * GIB_), ==, SEC_);
    /* who waits for something else, or has nobody to wait for */
    limits.postcopy_asked = true;
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, GIB_), ==, 0);
    limits.postcopy_asked = limits.guest_runs = false;
    g_assert_cmpuint(policy_settle_ns(&p, &limits, 0, GIB_), ==, 0);
}

/* Something remains that no pass takes away. */
static void test_polish_has_an_end(void)
{
    Policy p;
    PolicyDecision d;
    unsigned i;

    policy_init(&p, GIB_);
    policy_sent(&p, GIB_, SEC_);
    policy_synced(&p, 100 * MIB_, SEC_);
    d = policy_decide(&p, &plain, 100 * MIB_, true);
    g_assert_cmpint(d.action, ==, POLICY_SEND);
    for (i = 0; i < 100 && d.action == POLICY_SEND; i++) {
        policy_sent(&p, 10 * MIB_, 10 * MS_);
        d = policy_decide(&p, &plain, 100 * MIB_, false);
    }
    g_assert_cmpint(d.action, ==, POLICY_SYNC);
}

/* A pass that would not help is not taken, however cheap it is. */
static void test_does_not_polish_in_vain(void)
{
    Sim s = {
        .limits = plain, .bandwidth = GIB_,
        .dirty_rate = 10 * GIB_, .working_set = 100 * MIB_,
    };

    g_assert_true(sim_run(&s, 4 * GIB_));
    g_assert_cmpuint(s.passes, <=, 2);
}

static void test_never_converges(void)
{
    Sim s = {
        .limits = plain, .bandwidth = GIB_,
        .dirty_rate = 2 * GIB_, .working_set = 2 * GIB_,
    };
    PolicyView v;

    g_assert_false(sim_run(&s, 4 * GIB_));
    v = policy_view(&s.policy, &s.limits, s.remaining, s.remaining);
    g_assert_cmpuint(v.remaining.likely, ==, POLICY_NEVER);
    g_assert_cmpuint(v.passes, ==, MAX_PASSES);
    g_assert_cmpint(v.percent, <, 100);
    g_assert_true(g_str_has_prefix(s.last.reason, "sending"));
}

static void test_auto_converge(void)
{
    Sim s = {
        .limits = plain, .bandwidth = GIB_,
        .dirty_rate = 3 * GIB_, .working_set = 2 * GIB_,
    };

    s.limits.auto_converge = true;
    g_assert_true(sim_run(&s, 4 * GIB_));
    g_assert_cmpint(s.throttle, >=, 60);
    g_assert_cmpuint(s.downtime, <=, plain.downtime_ns);

    s = (Sim) {
        .limits = s.limits, .bandwidth = GIB_,
        .dirty_rate = 3 * GIB_, .working_set = 2 * GIB_,
    };
    s.limits.throttle_max = 40;
    g_assert_false(sim_run(&s, 4 * GIB_));
    g_assert_cmpint(s.throttle, ==, 40);
}

/* First the initial step, then increments, each after two overrun passes. */
static void test_throttle_steps(void)
{
    Policy p;
    PolicyLimits limits = plain;
    static const uint8_t expected[] = { 0, 20, 20, 30, 30, 40, 40, 50 };

    limits.auto_converge = true;
    limits.downtime_ns = MS_;
    policy_init(&p, GIB_);
    for (int i = 0; i < ARRAY_SIZE(expected); i++) {
        PolicyDecision d;

        policy_sent(&p, GIB_, SEC_);
        policy_synced(&p, GIB_, SEC_);
        d = policy_decide(&p, &limits, GIB_, true);
        g_assert_cmpint(d.throttle, ==, expected[i]);
    }
    limits.auto_converge = false;
    g_assert_cmpint(policy_decide(&p, &limits, GIB_, true).throttle, ==, 0);
}

static void test_tailslow_steps_are_no_larger(void)
{
    uint8_t last = 0;
    Policy p;
    PolicyLimits limits = plain;

    limits.auto_converge = limits.throttle_tailslow = true;
    limits.downtime_ns = MS_;
    policy_init(&p, GIB_);
    for (int i = 0; i < 60; i++) {
        uint64_t dirtied = GIB_ * 0.7 * (100 - last) / 100;
        PolicyDecision d;

        policy_sent(&p, GIB_, SEC_);
        policy_synced(&p, dirtied, SEC_);
        d = policy_decide(&p, &limits, dirtied, true);
        g_assert_cmpint(d.throttle, >=, last);
        g_assert_cmpint(d.throttle - last, <=, 20);
        last = d.throttle;
    }
    /* 0.7 has to come down to 0.5: about 29 percent are enough */
    g_assert_cmpint(last, >=, 28);
    g_assert_cmpint(last, <=, 40);
}

static void test_dirty_limit(void)
{
    PolicyLimits limits = plain;
    PolicyDecision d = { };
    Policy p;

    limits.dirty_limit = true;
    limits.downtime_ns = MS_;
    policy_init(&p, GIB_);
    for (int i = 0; i < 2; i++) {
        g_assert_false(d.dirty_limited);
        policy_sent(&p, GIB_, SEC_);
        policy_synced(&p, GIB_, SEC_);
        d = policy_decide(&p, &limits, GIB_, true);
    }
    g_assert_true(d.dirty_limited);
    g_assert_cmpint(d.throttle, ==, 0);
}

/* Switching over is decided on exact figures only. */
static void test_inexact_asks_for_a_sync(void)
{
    Policy p;

    policy_init(&p, GIB_);
    policy_sent(&p, GIB_, SEC_);
    g_assert_cmpint(policy_decide(&p, &plain, MIB_, false).action, ==,
                    POLICY_SYNC);
    g_assert_cmpint(policy_decide(&p, &plain, 2 * GIB_, false).action, ==,
                    POLICY_SEND);
    policy_synced(&p, 0, SEC_);
    g_assert_cmpint(policy_decide(&p, &plain, 0, true).action, ==,
                    POLICY_SWITCH_OVER);
}

static void test_unknown_bandwidth(void)
{
    PolicyView v;
    Policy p;

    policy_init(&p, GIB_);
    g_assert_cmpint(policy_decide(&p, &plain, GIB_, true).action, ==,
                    POLICY_SEND);
    v = policy_view(&p, &plain, GIB_, GIB_);
    g_assert_cmpuint(v.downtime.likely, ==, POLICY_NEVER);
    g_assert_cmpuint(v.remaining.likely, ==, POLICY_NEVER);
    g_assert_cmpuint(v.bandwidth, ==, 0);
    g_assert_cmpuint(policy_threshold(&p, &plain), ==, 0);
}

static void test_switchover_bandwidth(void)
{
    PolicyLimits limits = plain;
    Policy p;

    policy_init(&p, GIB_);
    policy_sent(&p, 100 * MIB_, SEC_);
    limits.switchover_bandwidth = 1000 * MIB_;
    g_assert_cmpfloat_with_epsilon(policy_threshold(&p, &limits),
                                   300 * MIB_, MIB_);
    limits.switchover_bandwidth = 0;
    g_assert_cmpfloat_with_epsilon(policy_threshold(&p, &limits),
                                   30 * MIB_, MIB_);
}

/* What other parts cost is taken off the limit, but never more than half. */
static void test_costs(void)
{
    PolicyView v, later;
    Policy p;

    policy_init(&p, GIB_);
    policy_sent(&p, 1000 * MIB_, SEC_);
    policy_measured(&p, DOWNTIME_PART_DEVICE_SAVE, 60 * MS_);
    policy_measured(&p, DOWNTIME_PART_START, 40 * MS_);
    g_assert_cmpfloat_with_epsilon(policy_threshold(&p, &plain),
                                   200 * MIB_, MIB_);
    v = policy_view(&p, &plain, 100 * MIB_, 100 * MIB_);
    g_assert_cmpuint(v.downtime.likely / MS_, ==, 200);
    g_assert_cmpuint(v.downtime_part[DOWNTIME_PART_RAM].likely / MS_, ==, 100);
    g_assert_cmpuint(v.downtime_part[DOWNTIME_PART_START].likely / MS_, ==, 40);

    /* If memory follows the guest, only the rest is in its downtime. */
    later = policy_view(&p, &plain, 100 * MIB_, 2 * MIB_);
    g_assert_cmpuint(later.downtime.likely / MS_, ==, 102);
    g_assert_cmpuint(later.downtime_part[DOWNTIME_PART_RAM].likely / MS_, ==,
                     2);
    g_assert_cmpuint(later.remaining.likely, ==, v.remaining.likely);
    g_assert_cmpuint(later.percent, ==, v.percent);

    policy_measured(&p, DOWNTIME_PART_STOP, 10 * SEC_);
    g_assert_cmpfloat_with_epsilon(policy_threshold(&p, &plain),
                                   150 * MIB_, MIB_);
}

/* A guess counts until there is something better. */
static void test_expected_costs(void)
{
    PolicyView v;
    Policy p;

    policy_init(&p, GIB_);
    policy_sent(&p, 1000 * MIB_, SEC_);
    policy_expect(&p, DOWNTIME_PART_DEVICE_LOAD, 60 * MS_);
    v = policy_view(&p, &plain, 0, 0);
    g_assert_cmpuint(v.downtime.likely / MS_, ==, 60);
    g_assert_cmpuint(v.downtime.low, ==, 0);
    g_assert_cmpuint(v.downtime.high / MS_, ==, 120);
    g_assert_cmpfloat_with_epsilon(policy_threshold(&p, &plain),
                                   240 * MIB_, MIB_);

    policy_measured(&p, DOWNTIME_PART_DEVICE_LOAD, 20 * MS_);
    policy_expect(&p, DOWNTIME_PART_DEVICE_LOAD, 90 * MS_);
    g_assert_cmpuint(policy_cost(&p, DOWNTIME_PART_DEVICE_LOAD), ==, 20 * MS_);
}

/* While the guest is being stopped it goes on writing. */
static void test_lead(void)
{
    PolicyView v;
    Policy p;

    policy_init(&p, GIB_);
    policy_sent(&p, 1000 * MIB_, SEC_);
    policy_synced(&p, 500 * MIB_, SEC_);
    v = policy_view(&p, &plain, 10 * MIB_, 10 * MIB_);
    g_assert_cmpuint(v.downtime.likely / MS_, ==, 10);
    policy_lead(&p, 20 * MS_);
    v = policy_view(&p, &plain, 10 * MIB_, 10 * MIB_);
    g_assert_cmpuint(v.downtime.likely / MS_, ==, 20);
    g_assert_cmpint(policy_decide(&p, &plain, 295 * MIB_, true).action, ==,
                    POLICY_SEND);
}

/* However much that is: there is no standing still with nothing to send. */
static void test_lead_too_long(void)
{
    PolicyDecision d;
    Policy p;
    int syncs = 0;

    policy_init(&p, GIB_);
    policy_sent(&p, 1000 * MIB_, SEC_);
    policy_synced(&p, 800 * MIB_, SEC_);
    policy_lead(&p, SEC_);
    d = policy_decide(&p, &plain, 2 * MIB_, false);
    g_assert_cmpint(d.action, ==, POLICY_SEND);
    d = policy_decide(&p, &plain, 0, false);
    g_assert_cmpint(d.action, ==, POLICY_SYNC);
    policy_synced(&p, 80 * MIB_, SEC_ / 10);
    d = policy_decide(&p, &plain, 80 * MIB_, true);
    g_assert_cmpint(d.action, ==, POLICY_SEND);

    /* The guest calms down, which only passes can tell. */
    do {
        g_assert_cmpint(policy_decide(&p, &plain, 0, false).action, ==,
                        POLICY_SYNC);
        policy_synced(&p, 0, SEC_ / 10);
        d = policy_decide(&p, &plain, 0, true);
    } while (d.action == POLICY_SEND && ++syncs < 20);
    g_assert_cmpint(d.action, ==, POLICY_SWITCH_OVER);
}

static void test_ranges_are_ordered(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);

    for (int round = 0; round < 2000; round++) {
        PolicyLimits limits = plain;
        uint64_t remaining;
        PolicyView v;
        Policy p;

        limits.downtime_ns = g_rand_double_range(rand, 0, 2e9);
        policy_init(&p, 4 * GIB_);
        for (int i = g_rand_int_range(rand, 0, 20); i > 0; i--) {
            policy_sent(&p, g_rand_double_range(rand, 0, GIB_),
                        g_rand_double_range(rand, 0, 2e9));
            policy_synced(&p, g_rand_double_range(rand, 0, GIB_),
                          g_rand_double_range(rand, 0, 2e9));
            policy_measured(&p, DOWNTIME_PART_STOP,
                            g_rand_double_range(rand, 0, 1e8));
        }
        remaining = g_rand_double_range(rand, 0, 4 * GIB_);
        v = policy_view(&p, &limits, remaining, remaining);
        g_assert_cmpuint(v.downtime.low, <=, v.downtime.likely);
        g_assert_cmpuint(v.downtime.likely, <=, v.downtime.high);
        g_assert_cmpuint(v.remaining.low, <=, v.remaining.likely);
        g_assert_cmpuint(v.remaining.likely, <=, v.remaining.high);
        g_assert_cmpint(v.percent, <=, 99);
    }
}

static void test_percent_never_falls(void)
{
    static const double left[] = { 4, 3, 2, 3.5, 1, 2, 0.5, 3, 0.1 };
    uint8_t last = 0;
    Policy p;

    policy_init(&p, 4 * GIB_);
    for (int i = 0; i < ARRAY_SIZE(left); i++) {
        PolicyView v = policy_view(&p, &plain, left[i] * GIB_, left[i] * GIB_);

        g_assert_cmpint(v.percent, >=, last);
        last = v.percent;
    }
    g_assert_cmpint(last, ==, 97);
}

/*
 * A recorded migration: a Linux guest of 1 GiB under TCG, 400 MiB of it filled,
 * 16,000 pages a second rewritten in 96 MiB, at most 200 MiB/s, limit 50 ms.
 * Per pass what was sent, how long that took, and what was found dirty then
 * (times and page counts of QEMU's own migration_bitmap_sync_* trace events).
 */
static void test_recorded(void)
{
    static const struct {
        uint64_t sent, ms, dirty_pages;
        const char *verdict;
    } passes[] = {
        { 505700000, 2604, 20219, "sending" },
        { 20219 * 4104, 350, 5063, "sending" },
        { 5063 * 4104, 100, 1662, "one more pass" },
    };
    PolicyLimits limits = plain;
    Policy p;

    limits.downtime_ns = 50 * MS_;
    policy_init(&p, GIB_);
    for (int i = 0; i < ARRAY_SIZE(passes); i++) {
        uint64_t dirtied = passes[i].dirty_pages * 4096;
        PolicyDecision d;
        PolicyView v;

        policy_sent(&p, passes[i].sent, passes[i].ms * MS_);
        policy_synced(&p, dirtied, passes[i].ms * MS_);
        d = policy_decide(&p, &limits, dirtied, true);
        g_assert_true(g_str_has_prefix(d.reason, passes[i].verdict));

        v = policy_view(&p, &limits, dirtied, dirtied);
        g_assert_cmpuint(v.bandwidth, >=, 180 * MIB_);
        g_assert_cmpuint(v.bandwidth, <=, 250 * MIB_);
        g_assert_cmpuint(v.remaining.likely, <, 2 * SEC_);
    }
}

static void test_reasons_are_complete(void)
{
    PolicyLimits limits = plain;
    PolicyDecision d;
    Policy p;

    policy_init(&p, UINT64_MAX);
    policy_sent(&p, UINT64_MAX / 2, 1);
    policy_sent(&p, UINT64_MAX / 2, SEC_);
    policy_synced(&p, UINT64_MAX, 1);
    d = policy_decide(&p, &limits, UINT64_MAX, true);
    g_assert_cmpuint(strlen(d.reason), <, POLICY_REASON_MAX - 1);
}

/* What policy_consider_postcopy() makes of a pass that was not enough */
static PolicyAction consider_left(Policy *p, uint64_t left, bool possible,
                                  bool asked, uint64_t now_bytes,
                                  PolicyAction before)
{
    PolicyLimits limits = plain;
    PolicyDecision d = { .action = before };

    limits.postcopy = possible;
    limits.postcopy_asked = asked;
    policy_consider_postcopy(p, &limits, left, now_bytes, &d);
    g_assert_cmpint(d.action == before, ==, !*d.reason);
    return d.action;
}

static PolicyAction consider(Policy *p, bool possible, bool asked,
                             uint64_t now_bytes, PolicyAction before)
{
    return consider_left(p, GIB_, possible, asked, now_bytes, before);
}

static void test_postcopy(void)
{
    Policy p;

    policy_init(&p, 4 * GIB_);
    /* Asked for: at once, but for what has to go before. */
    g_assert_cmpint(consider(&p, true, true, 0, POLICY_SEND), ==,
                    POLICY_POSTCOPY);
    g_assert_cmpint(consider(&p, true, true, 1, POLICY_SEND), ==, POLICY_SEND);
    policy_sent(&p, GIB_, SEC_);
    policy_synced(&p, GIB_ / 2, SEC_);
    g_assert_cmpint(consider(&p, true, true, GIB_ / 10, POLICY_SEND), ==,
                    POLICY_POSTCOPY);
    g_assert_cmpint(consider(&p, true, true, GIB_ / 2, POLICY_SEND), ==,
                    POLICY_SEND);
    /* Who can switch over does. */
    g_assert_cmpint(consider(&p, true, true, 0, POLICY_SWITCH_OVER), ==,
                    POLICY_SWITCH_OVER);
}

static void test_postcopy_auto(void)
{
    Policy p;

    policy_init(&p, 4 * GIB_);
    policy_sent(&p, GIB_, SEC_);
    g_assert_cmpint(consider(&p, true, false, 0, POLICY_SEND), ==,
                    POLICY_SEND);
    policy_synced(&p, GIB_ / 2, SEC_);
    g_assert_cmpint(consider(&p, true, false, 0, POLICY_SEND), ==,
                    POLICY_POSTCOPY);
    g_assert_cmpint(consider(&p, false, false, 0, POLICY_SEND), ==,
                    POLICY_SEND);
    g_assert_cmpint(consider(&p, true, false, 0, POLICY_SWITCH_OVER), ==,
                    POLICY_SWITCH_OVER);
    /* What fits is polished, not left behind; but who asks is obeyed. */
    g_assert_cmpint(consider_left(&p, 4096, true, false, 0, POLICY_SEND), ==,
                    POLICY_SEND);
    g_assert_cmpint(consider_left(&p, 4096, true, true, 0, POLICY_SEND), ==,
                    POLICY_POSTCOPY);
    /* Much is left, but the guest is not to blame: nothing was in vain. */
    policy_synced(&p, 4096, SEC_);
    g_assert_cmpint(consider(&p, true, false, 0, POLICY_SEND), ==,
                    POLICY_SEND);
    g_assert_cmpint(consider(&p, true, true, 0, POLICY_SEND), ==,
                    POLICY_POSTCOPY);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/migration/policy/" name, func)
    ADD("idle", test_idle);
    ADD("converges", test_converges_within_limit);
    ADD("polishes", test_polishes);
    ADD("polish-is-finished", test_polish_is_finished);
    ADD("polish-has-an-end", test_polish_has_an_end);
    ADD("settles", test_settles);
    ADD("settle-limits", test_settle_limits);
    ADD("polish-in-vain", test_does_not_polish_in_vain);
    ADD("never-converges", test_never_converges);
    ADD("auto-converge", test_auto_converge);
    ADD("throttle-steps", test_throttle_steps);
    ADD("tailslow", test_tailslow_steps_are_no_larger);
    ADD("dirty-limit", test_dirty_limit);
    ADD("inexact", test_inexact_asks_for_a_sync);
    ADD("unknown-bandwidth", test_unknown_bandwidth);
    ADD("switchover-bandwidth", test_switchover_bandwidth);
    ADD("costs", test_costs);
    ADD("expected-costs", test_expected_costs);
    ADD("lead", test_lead);
    ADD("lead-too-long", test_lead_too_long);
    ADD("ranges", test_ranges_are_ordered);
    ADD("percent", test_percent_never_falls);
    ADD("recorded", test_recorded);
    ADD("reasons", test_reasons_are_complete);
    ADD("postcopy/asked", test_postcopy);
    ADD("postcopy/auto", test_postcopy_auto);
#undef ADD
    return g_test_run();
}
