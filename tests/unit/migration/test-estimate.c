/*
 * migrate-estimate in virtual time: what is estimated from a second of a guest,
 * beside what its migration then takes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "migration/base/convergence.h"
#include "migration/base/estimate.h"
#include "virtual-guest.h"

#define NS 1e9
#define GUESTS 40
#define FIXED 0.01

/* A guest whose working set is dirtied at @share of what the link carries */
static Workload guest(unsigned seed, double least, double most)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    double link = pow(10, g_rand_double_range(rand, 7, 10));
    double share = g_rand_double_range(rand, least, most);

    return (Workload) {
        .seed = seed, .link = link, .latency = 0.001, .limit = 0.3,
        .memory = link * g_rand_double_range(rand, 4, 30),
        .link_noise = 0.05,
        .set = { { link * g_rand_double_range(rand, 0.5, 3), link * share } },
    };
}

/* As the command measures: nothing is sent, and the log is looked at */
static EstimateInput measure(const Workload *w, double seconds)
{
    EstimateInput in = {
        .memory = w->memory, .points = ESTIMATE_POINTS,
        .bandwidth = w->link, .bandwidth_off = 0.1,
        .downtime_ns = w->limit * NS, .throttle_max = 99,
        .fixed = { FIXED * NS, FIXED * NS, FIXED * NS },
    };
    Workload idle = *w;
    VirtualGuest g;

    idle.link = 0.001;          /* nothing is sent */
    virtual_begin(&g, &idle);
    for (int i = 0; i < ESTIMATE_POINTS; i++) {
        double at = seconds / (8 >> i), dirtied = 0;

        while (g.now < at) {
            virtual_run(&g, seconds / 64);
        }
        for (int set = 0; set < VIRTUAL_SETS; set++) {
            dirtied += g.unknown[set];
        }
        in.point[i] = (EstimatePoint) { g.now * NS, dirtied };
    }
    virtual_end(&g);
    return in;
}

/* What it takes, with means if they are @automatic */
static Outcome migrate(const Workload *w, bool automatic)
{
    PolicyLimits limits = {
        .downtime_ns = w->limit * NS, .throttle_max = 99,
        .auto_converge = automatic, .automatic = automatic,
    };
    PolicyLimits plain = policy_limits_without_means(&limits);
    PolicyDecision d = { 0 };
    VirtualGuest g;
    Convergence c;
    Policy p;
    Outcome o;

    virtual_begin(&g, w);
    policy_init(&p, virtual_remaining(&g));
    policy_measured(&p, DOWNTIME_PART_DEVICE_LOAD, FIXED * NS);
    convergence_init(&c);
    while (d.action != POLICY_SWITCH_OVER && g.now < 2000) {
        ConvergenceLook look = { .remaining = virtual_remaining(&g) };
        double step = virtual_step(&g);

        d = policy_decide(&p, &plain, look.remaining, false);
        if (d.action == POLICY_SYNC) {
            virtual_sync(&g);
            policy_synced(&p, g.found, g.interval * NS);
            look.remaining = virtual_remaining(&g);
            look.exact = true;
            d = policy_decide(&p, &plain, look.remaining, true);
        }
        look.elapsed_ns = g.now * NS;
        if (automatic) {
            convergence_decide(&c, &p, &limits, &look, &d);
            g.keep = 1 - d.throttle / 100.0;
        }
        if (d.action != POLICY_SWITCH_OVER) {
            policy_sent(&p, virtual_run(&g, step), step * NS);
        }
    }
    o = virtual_switch_over(&g);
    virtual_end(&g);
    return o;
}

typedef struct Score {
    unsigned total_right, downtime_right, all;
} Score;

static void compare(const Workload *w, const Estimate *e, const Outcome *o,
                    Score *score)
{
    double total = e->total.likely / NS;
    bool right = e->total.likely != POLICY_NEVER &&
                 fabs(total - o->total) <= 0.25 * o->total;
    bool within = o->downtime >= e->downtime.low / NS * 0.9 - 0.002 &&
                  (e->downtime.high == POLICY_NEVER ||
                   o->downtime <= e->downtime.high / NS * 1.1 + 0.005);

    score->all++;
    score->total_right += right;
    score->downtime_right += within;
    if (!right || !within) {
        g_test_message("%u: dirties %.2f of the link: %.1f s, estimated %.1f; "
                       "downtime %.3f, estimated %.3f to %.3f", w->seed,
                       w->set[0].rate / w->link, o->total, total, o->downtime,
                       e->downtime.low / NS, e->downtime.high / NS);
    }
}

static void check_score(const Score *score)
{
    g_test_message("of %u: total right for %u, downtime for %u", score->all,
                   score->total_right, score->downtime_right);
    g_assert_cmpuint(score->total_right * 10, >=, score->all * 9);
    g_assert_cmpuint(score->downtime_right * 10, >=, score->all * 9);
}

static void test_precopy(void)
{
    Score score = { 0 };

    for (unsigned seed = 0; seed < GUESTS; seed++) {
        Workload w = guest(seed, 0, 0.7);
        EstimateInput in = measure(&w, 1);
        Estimate all[ESTIMATE__COUNT];
        Outcome o = migrate(&w, false);

        estimate_all(&in, all);
        compare(&w, &all[ESTIMATE_PRECOPY], &o, &score);
    }
    check_score(&score);
}

static void test_throttle(void)
{
    Score score = { 0 };

    for (unsigned seed = 0; seed < GUESTS; seed++) {
        Workload w = guest(seed, 1.2, 4);
        EstimateInput in = measure(&w, 1);
        Estimate all[ESTIMATE__COUNT];
        Outcome o = migrate(&w, true);

        estimate_all(&in, all);
        compare(&w, &all[ESTIMATE_THROTTLE], &o, &score);
    }
    check_score(&score);
}

/*
 * A working set that is not much more than what the limit allows: throttling
 * need only be so hard that this little is missed no more.
 */
static void test_throttle_near_limit(void)
{
    Score score = { 0 };

    for (unsigned seed = 0; seed < GUESTS; seed++) {
        Workload w = guest(seed, 1.2, 3);
        EstimateInput in;
        Estimate all[ESTIMATE__COUNT];
        Outcome o;

        w.memory = w.link * (2.5 + seed % 7 / 2.0);
        w.set[0].size = w.link * (0.5 + seed % 5 / 10.0);
        in = measure(&w, 1);
        o = migrate(&w, true);
        estimate_all(&in, all);
        compare(&w, &all[ESTIMATE_THROTTLE], &o, &score);
    }
    check_score(&score);
}

/*
 * Throttled vCPUs run for a slice and sleep for many: a pass in their sleep
 * leaves nothing, however much another would.  And they make up for the delay.
 */
static void test_throttle_slices(void)
{
    Score score = { 0 };

    for (unsigned seed = 0; seed < GUESTS; seed++) {
        Workload w = guest(seed, 1.2, 4);
        Estimate all[ESTIMATE__COUNT];
        EstimateInput in;
        Outcome o;

        w.slice = 0.01;
        w.catch_up = 5;
        in = measure(&w, 1);
        o = migrate(&w, true);
        estimate_all(&in, all);
        compare(&w, &all[ESTIMATE_THROTTLE], &o, &score);
    }
    check_score(&score);
}

/* Twice as fast as the link for more than the limit allows */
static const EstimateInput hog = {
    .memory = 4000000000, .points = 1, .point = { { NS, 200000000 } },
    .bandwidth = 100000000, .bandwidth_off = 0.1, .downtime_ns = 0.3 * NS,
    .fixed = { 0, 0.02 * NS, 0.04 * NS }, .throttle_max = 99,
};

static EstimateMethod pick(const EstimateInput *in, bool throttle,
                           bool compression, bool postcopy, const char *word)
{
    bool enabled[ESTIMATE__COUNT] = {
        [ESTIMATE_PRECOPY] = true,
        [ESTIMATE_THROTTLE] = throttle,
        [ESTIMATE_COMPRESSION] = compression,
        [ESTIMATE_POSTCOPY] = postcopy,
    };
    Estimate all[ESTIMATE__COUNT];
    char why[POLICY_REASON_MAX];
    EstimateMethod method;

    estimate_all(in, all);
    method = estimate_pick(in, all, enabled, why);
    g_assert_nonnull(strstr(why, word));
    return method;
}

static void test_pick(void)
{
    EstimateInput in = hog;

    g_assert_cmpint(pick(&in, false, false, false, "nothing that is enabled"),
                    ==, ESTIMATE_PRECOPY);
    g_assert_cmpint(pick(&in, true, true, true, "throttling"), ==,
                    ESTIMATE_THROTTLE);
    g_assert_cmpint(pick(&in, false, true, true, "nothing else"), ==,
                    ESTIMATE_POSTCOPY);
    in.ratio = 400;
    in.compress_speed = 1000000000;
    g_assert_cmpint(pick(&in, true, true, true, "compressed"), ==,
                    ESTIMATE_COMPRESSION);
    /* compression that is slower than the link is of no use */
    in.compress_speed = 50000000;
    g_assert_cmpint(pick(&in, true, true, true, "throttling"), ==,
                    ESTIMATE_THROTTLE);
    in.point[0].dirtied = 1000000;
    g_assert_cmpint(pick(&in, true, true, true, "by itself"), ==,
                    ESTIMATE_PRECOPY);
}

static void test_never(void)
{
    Estimate all[ESTIMATE__COUNT];

    estimate_all(&hog, all);
    g_assert_cmpuint(all[ESTIMATE_PRECOPY].total.likely, ==, POLICY_NEVER);
    g_assert_false(all[ESTIMATE_COMPRESSION].known);
    g_assert_cmpuint(all[ESTIMATE_THROTTLE].lost.likely, >, 0);
    g_assert_cmpuint(all[ESTIMATE_POSTCOPY].downtime.likely, ==, 0.02 * NS);
    /* all of the memory is written to in 20 s, and sent in 40 */
    g_assert_cmpuint(all[ESTIMATE_POSTCOPY].bytes.likely, ==, 8000000000);
}

/* A small set that is written to at random, before it was looked at first */
static void test_small_set(void)
{
    for (double filled = 0.1; filled < 4; filled += 0.3) {
        double set = 40e6, first_ns = NS / 8, rate = filled / first_ns;
        EstimateInput in = { .memory = 1e9, .points = ESTIMATE_POINTS };

        for (int i = 0; i < ESTIMATE_POINTS; i++) {
            double ns = first_ns * (1 << i);

            in.point[i] = (EstimatePoint) { ns, set * (1 - exp(-rate * ns)) };
        }
        for (double ns = first_ns; ns > first_ns / 20; ns -= first_ns / 20) {
            double dirtied = set * (1 - exp(-rate * ns));

            g_assert_cmpfloat(fabs(estimate_dirtied(&in, ns) - dirtied), <,
                              dirtied * 0.01);
        }
        g_assert_cmpfloat(estimate_dirtied(&in, 0), ==, 0);
    }
}

/* A small set, twice as fast as the link: each pass takes 0.15 s. */
static void test_short_passes(void)
{
    Workload w = {
        .seed = 1, .link = 80e6, .latency = 0.001, .limit = 0.1,
        .memory = 160e6, .set = { { 12e6, 160e6 } },
    };
    EstimateInput in = measure(&w, 1);
    Outcome o = migrate(&w, true);
    Estimate all[ESTIMATE__COUNT];
    Score score = { 0 };

    estimate_all(&in, all);
    compare(&w, &all[ESTIMATE_THROTTLE], &o, &score);
    g_assert_cmpuint(score.total_right, ==, 1);
    g_assert_cmpuint(score.downtime_right, ==, 1);
}

static void test_ordered(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);

    for (int i = 0; i < 2000; i++) {
        EstimateInput in = {
            .memory = g_rand_double_range(rand, 0, 1e13), .points = 2,
            .bandwidth = pow(10, g_rand_double_range(rand, 0, 11)),
            .bandwidth_off = g_rand_double_range(rand, 0, 0.9),
            .downtime_ns = g_rand_double_range(rand, 0, 2e12),
            .fixed = { 0, 1e6, 1e8 }, .throttle_max = 99,
            .ratio = g_rand_int_range(rand, 0, 500),
            .compress_speed = g_rand_double_range(rand, 0, 1e10),
        };
        Estimate all[ESTIMATE__COUNT];

        in.point[0] = (EstimatePoint) { 0.5 * NS,
                                        g_rand_double_range(rand, 0, 1e11) };
        in.point[1] = (EstimatePoint) { NS, in.point[0].dirtied +
                                        g_rand_double_range(rand, 0, 1e11) };
        estimate_all(&in, all);
        for (int m = 0; m < ESTIMATE__COUNT; m++) {
            const PolicyRange *ranges[] = { &all[m].total, &all[m].downtime,
                                            &all[m].bytes, &all[m].lost };

            for (int r = 0; r < ARRAY_SIZE(ranges); r++) {
                g_assert_cmpuint(ranges[r]->low, <=, ranges[r]->likely);
                g_assert_cmpuint(ranges[r]->likely, <=, ranges[r]->high);
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/migration/estimate/" name, func)
    ADD("precopy", test_precopy);
    ADD("throttle", test_throttle);
    ADD("throttle-near-limit", test_throttle_near_limit);
    ADD("throttle-slices", test_throttle_slices);
    ADD("pick", test_pick);
    ADD("never", test_never);
    ADD("short-passes", test_short_passes);
    ADD("small-set", test_small_set);
    ADD("ordered", test_ordered);
#undef ADD
    return g_test_run();
}
