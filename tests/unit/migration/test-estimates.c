/*
 * What query-migrate estimates, on links of 10 kB/s to 10 GB/s, with and
 * without a limit: speeds, the time that is left, the downtime, percent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "migration/base/policy.h"
#include "migration/base/rate.h"
#include "migration/base/speed-meter.h"
#include "virtual-guest.h"

#define NS 1e9
#define PAGE 4096
#define PIECE (128 * 1024)
#define LIMIT_POLL 50000000ull  /* ns */
#define LINK_FIRST 1e4
#define LINK_LAST 1e10

static double off_by(double is, double should)
{
    return fabs(is - should) / should;
}

/*
 * Speeds
 */

typedef struct Metered {
    SpeedMeter meter;
    Rate rate;
    uint64_t limit, sent;
    double link;
    double worst;               /* of a period, after the first ones */
    unsigned periods;
} Metered;

static int64_t send_piece(Metered *m, int64_t now)
{
    now += PIECE * NS / m->link;
    m->sent += PIECE;
    rate_spend(&m->rate, PIECE, now);
    return now;
}

/* As the migration thread does: a piece, then up to 50 ms of waiting */
static void meter_run(Metered *m, double seconds)
{
    double speed = m->limit ? MIN(m->limit, m->link) : m->link;
    int64_t now = 5 * NS, end = now + seconds * NS;

    rate_set(&m->rate, m->limit);
    speed_meter_begin(&m->meter, now, 0, 0);
    while (now < end || m->periods < 10) {
        uint64_t wait = rate_wait_ns(&m->rate, now);

        now = wait ? now + MIN(wait, 50000000) : send_piece(m, now);
        if (speed_meter_measure(&m->meter, now, m->sent, m->sent / PAGE,
                                m->limit, PIECE) && ++m->periods > 2) {
            double off = off_by(m->meter.mbps, speed * 8 / 1e6);

            g_assert_cmpfloat(off_by(m->meter.pages_per_second * PAGE * 8 /
                                     1e6, m->meter.mbps), <, 0.1);
            m->worst = MAX(m->worst, off);
        }
    }
}

static void check_speed(double link, uint64_t limit, double tolerance)
{
    Metered m = { .link = link, .limit = limit };

    meter_run(&m, 10);
    g_test_message("link %.0e, limit %.0e: off by %.1f %% at worst", link,
                   (double)limit, m.worst * 100);
    g_assert_cmpuint(m.periods, >=, 10);
    g_assert_cmpfloat(m.worst, <, tolerance);
}

static void test_speed(void)
{
    for (double link = LINK_FIRST; link <= LINK_LAST; link *= 10) {
        check_speed(link, 0, 0.1);
    }
}

static void test_speed_limited(void)
{
    for (double limit = LINK_FIRST; limit <= LINK_LAST / 10; limit *= 10) {
        check_speed(LINK_LAST, limit, 0.1);
    }
}

/* Nothing is sent any more: that is told, too. */
static void test_speed_silence(void)
{
    SpeedMeter m = { 0 };

    speed_meter_begin(&m, 0, 0, 0);
    g_assert_true(speed_meter_measure(&m, NS, 1000000, 244, 0, PIECE));
    g_assert_cmpfloat_with_epsilon(m.mbps, 8, 0.001);
    g_assert_false(speed_meter_measure(&m, 1.05 * NS, 1000000, 244, 0, PIECE));
    g_assert_true(speed_meter_measure(&m, 1.2 * NS, 1000000, 244, 0, PIECE));
    g_assert_cmpfloat(m.mbps, ==, 0);
    /* at a limit it may be the pause after a piece */
    speed_meter_begin(&m, 2 * NS, 1000000, 244);
    g_assert_true(speed_meter_measure(&m, 3 * NS, 2000000, 488, PIECE, PIECE));
    g_assert_false(speed_meter_measure(&m, 4 * NS, 2000000, 488, PIECE, PIECE));
    g_assert_true(speed_meter_measure(&m, 5 * NS, 2000000, 488, PIECE, PIECE));
}

/*
 * What the policy expects
 */

#define LOOKS_MAX 100000

typedef struct Told {
    double at, eta, low, high;
    bool in_first_pass;
} Told;

typedef struct Run {
    Told *told;
    unsigned looks;
    double downtime;            /* expected, when it switched over */
    double downtime_low, downtime_high;
    uint8_t percent;
} Run;

static void look(Run *run, Policy *p, const PolicyLimits *limits,
                 const VirtualGuest *g)
{
    uint64_t remaining = virtual_remaining(g);
    PolicyView v = policy_view(p, limits, remaining, remaining);

    g_assert_cmpuint(v.percent, >=, run->percent);
    run->percent = v.percent;
    run->downtime = v.downtime.likely / NS;
    run->downtime_low = v.downtime.low / NS;
    run->downtime_high = v.downtime.high / NS;
    if (v.remaining.likely != POLICY_NEVER && run->looks < LOOKS_MAX) {
        run->told[run->looks++] = (Told) {
            g->now, v.remaining.likely / NS, v.remaining.low / NS,
            v.remaining.high == POLICY_NEVER ? INFINITY
                                             : v.remaining.high / NS,
            !p->passes,
        };
    }
}

/* One decision, with a sync if it takes one, and what is told then */
static PolicyAction decide_and_look(Run *run, Policy *p,
                                    const PolicyLimits *limits,
                                    VirtualGuest *g)
{
    PolicyDecision d = policy_decide(p, limits, virtual_remaining(g), false);

    if (d.action == POLICY_SYNC) {
        virtual_sync(g);
        policy_synced(p, g->found, g->interval * NS);
        d = policy_decide(p, limits, virtual_remaining(g), true);
    }
    look(run, p, limits, g);
    return d.action;
}

static Outcome run_guest(const Workload *load, Run *run)
{
    PolicyLimits limits = { .downtime_ns = load->limit * NS };
    VirtualGuest g;
    Policy p;
    PolicyAction action = POLICY_SEND;
    Outcome o;

    virtual_begin(&g, load);
    policy_init(&p, virtual_remaining(&g));
    policy_measured(&p, DOWNTIME_PART_TRANSIT, load->latency * NS);
    policy_measured(&p, DOWNTIME_PART_DEVICE_LOAD, 0.01 * NS);
    while (action != POLICY_SWITCH_OVER) {
        double step = virtual_step(&g), sent;

        action = decide_and_look(run, &p, &limits, &g);
        if (action != POLICY_SWITCH_OVER) {
            sent = virtual_run(&g, step);
            policy_sent(&p, sent, step * NS);
        }
        g_assert_cmpfloat(g.now, <, 1e6);
    }
    o = virtual_switch_over(&g);
    virtual_end(&g);
    return o;
}

/*
 * The share of looks, after the first pass, at which what was left is within
 * @off of what was expected, or half a second
 */
static double share_right(const Run *run, const Outcome *o, double off)
{
    unsigned right = 0, all = 0;

    for (unsigned i = 0; i < run->looks; i++) {
        const Told *told = &run->told[i];
        double left = o->total - told->at;

        if (!told->in_first_pass) {
            all++;
            right += fabs(told->eta - left) <= MAX(off * left, 0.5);
        }
    }
    return all ? right / (double)all : 1;
}

static void check_estimates(double link, double noise, double share)
{
    Workload w = {
        .seed = 3, .memory = link * 20, .link = link, .link_noise = noise,
        .set = { { link * 15, link * share } }, .latency = 0.001,
        .limit = 0.3,
    };
    Run run = { .told = g_new(Told, LOOKS_MAX) };
    Outcome o = run_guest(&w, &run);
    double right = share_right(&run, &o, 0.25);

    g_test_message("link %.0e, noise %.1f, dirties %.1f: %.1f s, eta right in "
                   "%.0f %%, downtime %.3f s of %.3f s (%.3f to %.3f), "
                   "%u %%", link, noise, share, o.total, right * 100,
                   o.downtime, run.downtime, run.downtime_low,
                   run.downtime_high, run.percent);
    /* In long passes a guest writes to the same pages again: it looks slow. */
    g_assert_cmpfloat(right, >=, share > 0.5 ? 0.5 : 0.9);
    g_assert_cmpfloat(fabs(run.downtime - o.downtime), <,
                      MAX(0.3 * o.downtime, 0.03));
    g_assert_cmpuint(run.percent, >=, 90);
    g_free(run.told);
}

/*
 * With a limit on a link that is faster: pieces go out at the speed of the link
 * and are waited for, as source/thread.c does it.
 */

typedef struct Limited {
    Rate rate;
    uint64_t bytes, ns;         /* since the limit was last kept */
} Limited;

static void send_limited(Limited *l, VirtualGuest *g, Policy *p)
{
    int64_t start = g->now * NS;
    uint64_t wait, idle;

    if (!rate_wait_ns(&l->rate, start)) {
        uint64_t sent = virtual_run(g, PIECE / g->load->link);

        l->bytes += sent;
        rate_spend(&l->rate, sent, g->now * NS);
    }
    wait = rate_wait_ns(&l->rate, g->now * NS);
    idle = MIN(wait, LIMIT_POLL);
    virtual_idle(g, idle / NS);
    l->ns += g->now * NS - start;
    if (wait <= LIMIT_POLL) {
        policy_sent(p, l->bytes, l->ns);
        l->bytes = l->ns = 0;
    }
}

static double run_limited(const Workload *load, uint64_t limit, Run *run)
{
    PolicyLimits limits = { .downtime_ns = load->limit * NS };
    Limited l = { .bytes = 0 };
    VirtualGuest g;
    Policy p;
    PolicyAction action = POLICY_SEND;
    double end;

    rate_set(&l.rate, limit);
    virtual_begin(&g, load);
    policy_init(&p, virtual_remaining(&g));
    while (action != POLICY_SWITCH_OVER) {
        action = decide_and_look(run, &p, &limits, &g);
        if (action != POLICY_SWITCH_OVER) {
            send_limited(&l, &g, &p);
        }
        g_assert_cmpfloat(g.now, <, 1e6);
    }
    end = g.now;
    g_assert_cmpfloat(off_by(p.bandwidth.mean, limit), <, 0.2);
    virtual_end(&g);
    return end;
}

static void check_limited(double limit, double share)
{
    Workload w = {
        .seed = 5, .memory = MAX(limit * 20, 200 * PIECE), .link = LINK_LAST,
        .set = { { MAX(limit * 15, 150 * PIECE), limit * share } },
        .limit = 0.3,
    };
    Run run = { .told = g_new(Told, LOOKS_MAX) };
    Outcome o = { .total = run_limited(&w, limit, &run) };
    double right = share_right(&run, &o, 0.25);

    g_test_message("limit %.0e, dirties %.1f: %.1f s, eta right in %.0f %%, "
                   "%u %%", limit, share, o.total, right * 100, run.percent);
    g_assert_cmpfloat(right, >=, 0.8);
    g_assert_cmpuint(run.percent, >=, 90);
    g_free(run.told);
}

static void test_estimates_limited(void)
{
    for (double limit = LINK_FIRST; limit <= LINK_LAST / 10; limit *= 10) {
        check_limited(limit, 0);
    }
    for (double limit = LINK_FIRST * 100; limit <= LINK_LAST / 10;
         limit *= 10) {
        check_limited(limit, 0.2);
        check_limited(limit, 0.4);
    }
}

static void test_estimates(void)
{
    /* a page or two a second is no working set */
    for (double link = LINK_FIRST * 100; link <= LINK_LAST; link *= 10) {
        for (int tenths = 0; tenths <= 6; tenths += 2) {
            check_estimates(link, 0, tenths / 10.0);
            check_estimates(link, 0.1, tenths / 10.0);
        }
    }
}

static void test_estimates_slow(void)
{
    check_estimates(1e4, 0, 0);
    check_estimates(1e5, 0, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/migration/estimates/" name, func)
    ADD("speed", test_speed);
    ADD("speed-limited", test_speed_limited);
    ADD("speed-silence", test_speed_silence);
    ADD("eta", test_estimates);
    ADD("eta-slow", test_estimates_slow);
    ADD("eta-limited", test_estimates_limited);
#undef ADD
    return g_test_run();
}
