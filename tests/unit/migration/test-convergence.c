/*
 * convergence=auto in virtual time: many workloads, beside the policies that
 * other engines have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "migration/base/convergence.h"
#include "virtual-guest.h"

#define MIB_ (1024.0 * 1024)
#define GIB_ (1024 * MIB_)
#define NS 1e9
#define WORKLOADS 240
#define HORIZON 900.0

/* What is enabled, and what is to be kept */
typedef struct Means {
    bool throttle, postcopy;
    bool hurried;               /* somebody waits for the end */
    double total;               /* s; 0: no limit */
    PolicyMiss on_miss;
} Means;

static PolicyLimits limits_of(const Workload *load, const Means *means)
{
    return (PolicyLimits) {
        .downtime_ns = load->limit * NS,
        .throttle_max = 99,
        .throttle_trigger = 50,
        .auto_converge = means->throttle,
        .postcopy_enabled = means->postcopy,
        .automatic = true,
        .total_ns = means->total * NS,
        .on_miss = means->on_miss,
        .guest_runs = true,
        .changes = means->hurried,
    };
}

/* As the migration thread asks: after each piece, and after each collection */
static PolicyDecision decide(VirtualGuest *g, Policy *p, Convergence *c,
                             const PolicyLimits *limits, unsigned *passes)
{
    PolicyLimits plain = policy_limits_without_means(limits);
    ConvergenceLook look = {
        .remaining = virtual_remaining(g), .may_postcopy = true,
    };
    PolicyDecision d = policy_decide(p, &plain, look.remaining, false);

    if (d.action == POLICY_SYNC) {
        virtual_sync(g);
        policy_synced(p, g->found, g->interval * NS);
        look.remaining = virtual_remaining(g);
        look.exact = true;
        d = policy_decide(p, &plain, look.remaining, true);
        ++*passes;
    }
    look.elapsed_ns = g->now * NS;
    convergence_decide(c, p, limits, &look, &d);
    g_assert_cmpuint(strlen(d.reason), >, 0);
    g_assert_cmpuint(strlen(d.reason), <, POLICY_REASON_MAX - 1);
    return d;
}

static Outcome unfinished(const VirtualGuest *g)
{
    return (Outcome) { .total = g->now, .lost = g->lost, .sent = g->sent,
                       .longest_pass = g->longest_pass };
}

/* Memory that follows the guest delays it no more than the link does. */
static Outcome leave(VirtualGuest *g, PolicyAction how)
{
    Outcome o;
    double rest = virtual_remaining(g);

    if (how == POLICY_SWITCH_OVER) {
        return virtual_switch_over(g);
    }
    o = unfinished(g);
    o.cancelled = how == POLICY_CANCEL;
    o.postcopy = o.done = how == POLICY_POSTCOPY;
    if (o.done) {
        o.total += rest / g->link_now;
        o.sent += rest;
        o.downtime = g->load->latency + 0.01;
    }
    return o;
}

static Outcome automatic(const Workload *load, const Means *means,
                         double horizon)
{
    PolicyLimits limits = limits_of(load, means);
    bool trace = g_getenv("TRACE_WORKLOAD") &&
                 !strcmp(g_getenv("TRACE_WORKLOAD"), load->name);
    unsigned passes = 0, before = 0;
    double remained = 0;
    PolicyDecision d = { 0 };
    VirtualGuest g;
    Convergence c;
    Policy p;
    Outcome o;

    virtual_begin(&g, load);
    policy_init(&p, virtual_remaining(&g));
    convergence_init(&c);
    while (g.now < horizon) {
        double step = virtual_step(&g), sent;

        d = decide(&g, &p, &c, &limits, &passes);
        if (trace && (passes != before || d.action != POLICY_SEND)) {
            g_test_message("%.2f s: %s", g.now, d.reason);
        }
        if (passes != before) {
            remained += virtual_remaining(&g) / load->link;
            before = passes;
        }
        if (d.action != POLICY_SEND) {
            break;
        }
        g.keep = 1 - d.throttle / 100.0;
        sent = virtual_run(&g, step);
        policy_sent(&p, sent, step * NS);
    }
    o = g.now < horizon ? leave(&g, d.action) : unfinished(&g);
    o.passes = passes;
    o.usual = passes ? remained / passes : 0;
    virtual_end(&g);
    return o;
}

/*
 * Workloads
 */

/* Of 100 Mb/s to 100 Gb/s, in bytes */
static const double links[] = { 12.5e6, 30e6, 125e6, 1.25e9, 5e9, 12.5e9 };
static const double limits_s[] = { 0.05, 0.3, 0.3, 1 };

static double drawn(GRand *rand, double low, double high)
{
    return low * pow(high / low, g_rand_double(rand));
}

/* Working sets and rates are chosen against what the link carries. */
static Workload make(unsigned seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    static const char *const kinds[] = {
        "idle", "steady", "bursts", "turns", "oltp", "hog", "large-set",
        "delayed",
    };
    unsigned kind = seed % ARRAY_SIZE(kinds);
    double link = links[g_rand_int_range(rand, 0, ARRAY_SIZE(links))];
    Workload w = {
        .seed = seed, .link = link, .memory = link * drawn(rand, 4, 40),
        .link_noise = g_rand_int_range(rand, 0, 3) * 0.1,
        .latency = drawn(rand, 0.0002, 0.02),
        .limit = limits_s[g_rand_int_range(rand, 0, ARRAY_SIZE(limits_s))],
        .vcpus = g_rand_int_range(rand, 1, 17),
    };
    double set = link * drawn(rand, 0.2, 3), rate = link * drawn(rand, 0.3, 4);

    w.set[0] = (VirtualSet) { set, rate };
    w.set[1] = (VirtualSet) { w.memory * 0.2, link * 0.02 };
    switch (kind) {
    case 0:
        w.set[0].rate = link * 0.01;
        break;
    case 2:
        w.rhythm = RHYTHM_BURSTS;
        w.period = drawn(rand, 4, 60);
        w.on = w.period * g_rand_double_range(rand, 0.3, 0.9);
        break;
    case 3:
        w.rhythm = RHYTHM_TURNS;
        w.period = drawn(rand, 2, 20);
        w.set[1] = w.set[2] = w.set[0];
        break;
    case 4:
        w.rhythm = RHYTHM_NOISE;
        w.set[0].rate = link * drawn(rand, 0.3, 1.5);
        break;
    case 5:
        w.set[0].rate = link * drawn(rand, 4, 60);
        break;
    case 6:
        w.set[0].size = w.memory * 0.6;
        break;
    case 7:
        w.catch_up = drawn(rand, 2, 50);
        w.set[0].rate = link * drawn(rand, 0.8, 3);
        break;
    default:
        break;
    }
    if (w.set[0].size + w.set[1].size + w.set[2].size > w.memory) {
        w.memory = w.set[0].size + w.set[1].size + w.set[2].size;
    }
    snprintf(w.name, sizeof(w.name), "%s-%u", kinds[kind], seed);
    return w;
}

/* Every change is small, and what throttling delays is caught up. */
static const Workload measured = {
    .name = "measured", .seed = 1, .memory = 96 * MIB_,
    .set = { { 64 * MIB_, 60 * MIB_ } }, .catch_up = 1000,
    .link = 30 * MIB_, .latency = 0.001, .limit = 0.3, .vcpus = 1,
};

/* Cancelled as the limit was kept or not, with some tolerance for noise */
static bool kept(const Workload *load, const Outcome *o)
{
    return o->done && o->downtime <= load->limit * 1.5 + load->latency + 0.01;
}

typedef struct Sum {
    unsigned done, kept;
    double lost, total, sent, downtime;
} Sum;

static void add(Sum *sum, const Workload *load, const Outcome *o)
{
    sum->done += o->done;
    sum->kept += kept(load, o);
    sum->lost += o->lost;
    sum->total += o->total;
    sum->sent += o->sent / load->memory;
    sum->downtime += o->downtime / load->limit;
}

static void tell(const char *what, const Sum *s)
{
    g_test_message("%s: %u of %u done, %u within the limit, %.1f s lost, "
                   "%.1f s, %.2f times the memory, %.2f limits", what, s->done,
                   WORKLOADS, s->kept, s->lost / WORKLOADS,
                   s->total / WORKLOADS, s->sent / WORKLOADS,
                   s->downtime / WORKLOADS);
}

/* A row for each workload, to look at */
static void tell_each(const Workload *w, const Outcome *theirs,
                      const Outcome *ours)
{
    if (g_getenv("ALL_WORKLOADS")) {
        g_test_message("%-14s base %d %6.1f s lost %6.1f down %5.2f | "
                       "auto %d %6.1f s lost %6.1f down %5.2f passes %u",
                       w->name, theirs->done, theirs->total, theirs->lost,
                       theirs->downtime / w->limit, ours->done, ours->total,
                       ours->lost, ours->downtime / w->limit, ours->passes);
    }
}

/*
 * Where both end, a guest loses at most half as much by throttling; and it
 * ends at least as often.
 */
static void test_against_auto_converge(void)
{
    static const Means means = { .throttle = true };
    Sum theirs = { 0 }, ours = { 0 };
    double their_loss = 0, our_loss = 0;
    unsigned both = 0;

    for (unsigned i = 0; i < WORKLOADS; i++) {
        Workload w = make(i);
        Outcome a = model_auto_converge(&w, HORIZON);
        Outcome b = automatic(&w, &means, HORIZON);

        add(&theirs, &w, &a);
        add(&ours, &w, &b);
        tell_each(&w, &a, &b);
        if (kept(&w, &a) && kept(&w, &b)) {
            both++;
            their_loss += a.lost;
            our_loss += b.lost;
        }
    }
    tell("auto-converge", &theirs);
    tell("auto", &ours);
    g_test_message("where both ended (%u): %.1f s lost, and %.1f s", both,
                   their_loss, our_loss);
    g_assert_cmpuint(ours.kept, >=, theirs.kept);
    g_assert_cmpuint(both, >, WORKLOADS / 2);
    g_assert_cmpfloat(our_loss * 2, <=, their_loss);
    g_assert_cmpfloat(ours.lost * 2, <=, theirs.lost);
}

static void test_against_dirty_limit(void)
{
    static const Means means = { .throttle = true };
    Sum theirs = { 0 }, ours = { 0 };

    for (unsigned i = 0; i < WORKLOADS; i++) {
        Workload w = make(i);
        Outcome a = model_dirty_limit(&w, HORIZON);
        Outcome b = automatic(&w, &means, HORIZON);

        add(&theirs, &w, &a);
        add(&ours, &w, &b);
    }
    tell("dirty-limit", &theirs);
    tell("auto", &ours);
    g_assert_cmpuint(ours.kept, >=, theirs.kept);
    g_assert_cmpfloat(ours.lost * 2, <=, theirs.lost);
}

/* Five passes and then the rest end always, but keep no limit. */
static void test_against_five_passes(void)
{
    static const Means means = { .throttle = true };
    Sum theirs = { 0 }, ours = { 0 };

    for (unsigned i = 0; i < WORKLOADS; i++) {
        Workload w = make(i);
        Outcome a = model_five_passes(&w, HORIZON);
        Outcome b = automatic(&w, &means, HORIZON);

        add(&theirs, &w, &a);
        add(&ours, &w, &b);
    }
    tell("five passes", &theirs);
    tell("auto", &ours);
    g_assert_cmpuint(ours.kept, >, theirs.kept);
}

/*
 * A limit of many seconds may be reached, and need not be: where the guest
 * changes little the downtime is short all the same.  On a steady link that
 * costs about a tenth of the time at most, whatever the guest does.
 */
static void test_large_limit(void)
{
    static const Means means = { 0 }, hurried = { .hurried = true };
    Sum theirs = { 0 }, ours = { 0 };
    double longer = 0, shorter = 0, worst = 0;

    for (unsigned i = 0; i < WORKLOADS; i++) {
        Workload w = make(i);
        Outcome a, b;

        w.limit = 1 << (i % 6);
        w.link_noise = 0;       /* of which a longer one would have more */
        a = automatic(&w, &hurried, HORIZON);
        b = automatic(&w, &means, HORIZON);
        add(&theirs, &w, &a);
        add(&ours, &w, &b);
        tell_each(&w, &a, &b);
        g_assert_cmpint(b.done, >=, a.done);
        if (a.done && b.done) {
            longer += b.total - a.total;
            shorter += a.downtime - b.downtime;
            worst = MAX(worst, b.total / a.total);
        }
    }
    tell("as soon as it fits", &theirs);
    tell("long passes", &ours);
    g_test_message("%.2f s longer, downtimes %.2f s shorter; at worst %.3f "
                   "times as long", longer / WORKLOADS, shorter / WORKLOADS,
                   worst);
    g_assert_cmpfloat(ours.downtime * 3, <=, theirs.downtime);
    g_assert_cmpfloat(longer * 8, <=, shorter);
    g_assert_cmpfloat(worst, <=, 1.15);
}

/* Whatever is enabled, the time limit is exceeded by a pass at most. */
static void check_total(const Means *means)
{
    Sum ours = { 0 };

    for (unsigned i = 0; i < WORKLOADS; i++) {
        Workload w = make(i);
        Means m = *means;
        Outcome o;

        /* room for one pass over all memory and some over what changes */
        m.total = w.memory / w.link / (1 - w.link_noise) * 1.2 + 5;
        o = automatic(&w, &m, HORIZON);
        add(&ours, &w, &o);
        if (o.total > m.total + o.longest_pass + w.limit) {
            g_test_message("%s: %.1f s, allowed %.1f s, longest pass %.1f s",
                           w.name, o.total, m.total, o.longest_pass);
        }
        g_assert_true(o.done || o.cancelled);
        g_assert_cmpfloat(o.total, <=, m.total + o.longest_pass + w.limit);
    }
    tell("within a time limit", &ours);
}

static void test_total_switchover(void)
{
    check_total(&(Means) { .throttle = true,
                           .on_miss = POLICY_MISS_SWITCH_OVER });
    check_total(&(Means) { .on_miss = POLICY_MISS_SWITCH_OVER });
}

static void test_total_cancel(void)
{
    check_total(&(Means) { .throttle = true, .on_miss = POLICY_MISS_CANCEL });
}

static void test_total_postcopy(void)
{
    check_total(&(Means) { .postcopy = true,
                           .on_miss = POLICY_MISS_POSTCOPY });
}

/* A switchover beyond the limit is at a minimum. */
static void test_minimum(void)
{
    static const Means means = { .on_miss = POLICY_MISS_SWITCH_OVER };
    double sum = 0, worst = 0;
    unsigned beyond = 0;

    for (unsigned i = 0; i < WORKLOADS; i++) {
        Workload w = make(i);
        Outcome o = automatic(&w, &means, HORIZON);

        g_assert_true(o.done);
        if (o.downtime > w.limit * 1.5) {
            double ratio = o.downtime / o.usual;

            beyond++;
            sum += ratio;
            worst = MAX(worst, ratio);
        }
    }
    g_test_message("%u beyond the limit, on average at %.2f of what it would "
                   "have been after other passes, at worst at %.2f", beyond,
                   sum / beyond, worst);
    g_assert_cmpuint(beyond, >, 20);
    g_assert_cmpfloat(sum / beyond, <=, 1);
    g_assert_cmpfloat(worst, <=, 1.5);
}

static void test_measured(void)
{
    Workload w = measured;
    Outcome o = model_auto_converge(&w, 180);

    g_assert_false(o.done);
    o = automatic(&w, &(Means) { .throttle = true }, 180);
    g_test_message("throttling: %d, lost %.1f s", o.done, o.lost);
    o = automatic(&w, &(Means) { .postcopy = true }, 180);
    g_test_message("postcopy: %.1f s", o.total);
    g_assert_true(o.done && o.postcopy);
    g_assert_cmpfloat(o.total, <, 15);
    w.delta = 0.02;
    o = automatic(&w, &(Means) { .throttle = true }, 180);
    g_test_message("xbzrle: %.1f s, downtime %.3f s", o.total, o.downtime);
    g_assert_true(o.done && !o.lost);
    g_assert_cmpfloat(o.total, <, 10);
}

/*
 * A set that is dirtied again many times in each pass: passes do not shrink
 * before vCPUs have slept for most of one.
 */
static void test_small_set(void)
{
    for (int late = 0; late < 3; late++) {
        Workload w = {
            .name = "small", .memory = 160 * MIB_, .link = 32 * MIB_,
            .set = { { 12 * MIB_, 800 * MIB_ } }, .limit = 0.1, .vcpus = 1,
            .slice = 0.01, .latency = 0.005 + 0.04 * late,
        };
        Outcome theirs = model_auto_converge(&w, 180);
        Outcome o = automatic(&w, &(Means) { .throttle = true }, 180);

        g_test_message("late by %.3f s: auto-converge %d %.1f s, lost %.1f s; "
                       "%.1f s, lost %.1f s, downtime %.3f s", w.latency,
                       theirs.done, theirs.total, theirs.lost, o.total, o.lost,
                       o.downtime);
        g_assert_true(o.done);
        g_assert_cmpfloat(o.total, <, 15);
        g_assert_cmpfloat(o.lost * 2, <, theirs.lost);
    }
}

/*
 * The guest of test_measured(), which makes up for what throttling delays, but
 * only as fast as its vCPUs are.
 */
static void test_small_changes(void)
{
    for (int factor = 2; factor <= 32; factor *= 2) {
        Workload w = measured;
        Outcome theirs, o;

        w.catch_up = factor;
        w.slice = 0.01;
        theirs = model_auto_converge(&w, 180);
        o = automatic(&w, &(Means) { .throttle = true }, 180);
        g_test_message("up to %d times its rate: auto-converge %d %.1f s, "
                       "lost %.1f s; %d %.1f s, lost %.1f s, downtime %.3f s",
                       factor, theirs.done, theirs.total, theirs.lost, o.done,
                       o.total, o.lost, o.downtime);
        g_assert_true(o.done);
        g_assert_cmpfloat(o.total, <, theirs.done ? theirs.total : 60);
    }
}

/* What converges by itself is not throttled, and not hurried. */
static void test_left_alone(void)
{
    for (int percent = 0; percent <= 80; percent += 5) {
        Workload w = {
            .name = "alone", .memory = 4 * GIB_, .link = GIB_,
            .set = { { GIB_, GIB_ * percent / 100 } }, .limit = 0.3,
        };
        Outcome o = automatic(&w, &(Means) { .throttle = true,
                                             .postcopy = true }, HORIZON);

        g_assert_true(o.done && !o.postcopy);
        g_assert_cmpfloat(o.lost, ==, 0);
        g_assert_cmpfloat(o.downtime, <, 0.4);
    }
}

/* Throttling that is of no use has an end, and is said to have. */
static void test_useless_throttling(void)
{
    Workload w = measured;
    Outcome o;

    w.catch_up = 0;
    w.set[0].rate = 1e12;       /* a hundredth of that is still too much */
    o = automatic(&w, &(Means) { .throttle = true }, HORIZON);
    g_assert_false(o.done);
    g_test_message("%.0f s lost of %.0f s", o.lost, o.total);
    g_assert_cmpfloat(o.lost, <, o.total * 0.3);
}

/* A switchover is taken back a few times, and not once the time is over. */
static void test_returns(void)
{
    const PolicyLimits limits = { .automatic = true, .downtime_ns = 1 };
    PolicyLimits timed = limits;
    Convergence c;
    unsigned times = 0;

    convergence_init(&c);
    timed.total_ns = 1000;
    g_assert_true(convergence_may_return(&c, &timed, 999));
    g_assert_false(convergence_may_return(&c, &timed, 1000));
    for (; convergence_may_return(&c, &limits, UINT64_MAX); times++) {
        convergence_returned(&c, 1536 * 1024);
    }
    g_assert_cmpuint(times, ==, 5);
    g_assert_nonnull(strstr(c.why, "switchover 5 taken back"));
    g_assert_nonnull(strstr(c.why, "1.5 MiB before it was stopped"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func("/migration/convergence/" name, func)
    ADD("auto-converge", test_against_auto_converge);
    ADD("dirty-limit", test_against_dirty_limit);
    ADD("five-passes", test_against_five_passes);
    ADD("large-limit", test_large_limit);
    ADD("total/switchover", test_total_switchover);
    ADD("total/cancel", test_total_cancel);
    ADD("total/postcopy", test_total_postcopy);
    ADD("minimum", test_minimum);
    ADD("measured", test_measured);
    ADD("small-set", test_small_set);
    ADD("small-changes", test_small_changes);
    ADD("left-alone", test_left_alone);
    ADD("useless-throttling", test_useless_throttling);
    ADD("returns", test_returns);
#undef ADD
    return g_test_run();
}
