/*
 * What a migration would cost, before it is begun
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "convergence.h"
#include "estimate.h"
#include "long-pass.h"
#include "polish.h"

#define NS_PER_S 1e9
/* Passes after which a migration counts as one that does not end */
#define PASSES_MAX 60
/* Passes that do not shrink by this are the last that are looked at. */
#define SHRINKS 0.97
/* Of the second point against the first: some of it may just be noise. */
#define LEAST_DECLINE 0.001
/* How far the guest may be from what was measured of it */
#define GUEST_OFF 0.2
#define WIDER 0.3

/* One way in which it may go */
typedef struct Course {
    double bandwidth;           /* bytes of memory a second */
    double wire;                /* bytes on the wire for each of memory */
    double guest;               /* times what was measured */
    double wider;               /* share by which it goes on to new pages */
    double fixed_ns;
    double keep;                /* share of its time that the guest keeps */
} Course;

typedef struct Played {
    bool ends;
    double total, downtime, bytes, lost;
} Played;

/*
 * How many times as much is dirtied in the second half of what was measured as
 * in the first half; 1 if that is not known
 */
static double decline(const EstimateInput *in)
{
    const EstimatePoint *before, *last;
    double first, second;

    if (in->points < 2) {
        return 1;
    }
    before = &in->point[in->points - 2];
    last = &in->point[in->points - 1];
    first = before->dirtied;
    second = last->dirtied - MIN(last->dirtied, before->dirtied);
    return first > 0 ? CLAMP(second / first, 0, 1) : 1;
}

/*
 * After the last point: @more_ns, in halves of what was measured, each of which
 * adds @q times what the one before did.  A working set that is written to at
 * random fills up in this way.
 */
static double beyond(const EstimateInput *in, double more_ns, double q)
{
    static const EstimatePoint none;
    const EstimatePoint *last = &in->point[in->points - 1];
    const EstimatePoint *before = in->points < 2 ? &none
                                                 : &in->point[in->points - 2];
    double half_ns = last->ns - before->ns;
    double step = last->dirtied - MIN(last->dirtied, before->dirtied);
    double halves = half_ns > 0 ? more_ns / half_ns : 0;

    if (q > 0.999999) {
        return step * halves;
    }
    return step * q * (1 - pow(q, halves)) / (1 - q);
}

/*
 * Up to the first point, by the same rule backwards: what the second one adds
 * to the first tells how far such a set is filled up then.  On a straight line
 * a short pass would seem to leave less than it does.  Without such a set that
 * line is one through both points, of what is dirty at once and what is new:
 * never less, as fewer and fewer pages are new; @most has this.
 */
static double before_first(const EstimateInput *in, double ns, bool most)
{
    const EstimatePoint *first = &in->point[0];
    double part = ns / first->ns, x = 1;

    if (in->points > 1 && first->dirtied) {
        x = in->point[1].dirtied / (double)first->dirtied - 1;
        x = CLAMP(x, LEAST_DECLINE, 1);
    }
    if (x > 0.999999 || ns <= 0) {
        return first->dirtied * part;
    }
    if (most) {
        return first->dirtied * (1 - x + x * part);
    }
    return first->dirtied * (1 - pow(x, part)) / (1 - x);
}

/* @q: see beyond(); @most: before_first().  Between points on straight lines */
static double dirtied_at(const EstimateInput *in, double ns, double q,
                         bool most)
{
    double before_ns = 0, before = 0, sum;

    if (ns <= in->point[0].ns) {
        return MIN(before_first(in, ns, most), in->memory);
    }
    for (unsigned i = 0; i < in->points; i++) {
        const EstimatePoint *p = &in->point[i];

        if (ns <= p->ns) {
            sum = before + (p->dirtied - before) * (ns - before_ns) /
                           (p->ns - before_ns);
            return MIN(sum, in->memory);
        }
        before_ns = p->ns;
        before = p->dirtied;
    }
    sum = before + beyond(in, ns - before_ns, q);
    return MIN(sum, in->memory);
}

double estimate_dirtied(const EstimateInput *in, double ns)
{
    return dirtied_at(in, ns, decline(in), false);
}

static double dirtied_in(const EstimateInput *in, const Course *c, double ns)
{
    double q = decline(in);

    /* A slower guest takes longer for the same pages. */
    return dirtied_at(in, ns * c->guest * c->keep, q + (1 - q) * c->wider,
                      c->wider > 0);
}

/* Short passes for a shorter downtime. Returns what is left after them. */
static double polish(const EstimateInput *in, const Course *c, double left,
                     Played *p)
{
    double longest = polish_pass_max(in->downtime_ns);

    for (int i = 0; i < POLISH_MAX && c->keep == 1; i++) {
        double ns = left / c->bandwidth * NS_PER_S;
        double next = dirtied_in(in, c, ns);
        double next_ns = next / c->bandwidth * NS_PER_S;

        if (ns > longest || !polish_gains(c->fixed_ns + ns,
                                          c->fixed_ns + next_ns)) {
            break;
        }
        p->total += ns;
        p->bytes += left * c->wire;
        left = next;
    }
    return left;
}

/* Passes that take long, as long-pass.c has them.  Returns what is left. */
static double take_long(const EstimateInput *in, const Course *c, double left,
                        Played *p)
{
    double end = p->total + c->fixed_ns + left / c->bandwidth * NS_PER_S;
    double allowed = end * LONG_PASS_COST;

    if (long_pass_limited(c->bandwidth, in->max_bandwidth)) {
        return left;
    }
    while (c->keep == 1) {
        double ns = left / c->bandwidth * NS_PER_S;
        double next = dirtied_in(in, c, ns);
        double next_ns = next / c->bandwidth * NS_PER_S;

        if (ns <= POLISH_PASS_NS || next > left * LONG_PASS_DIRTIED ||
            next_ns > allowed) {
            break;
        }
        allowed -= next_ns;
        p->total += ns;
        p->bytes += left * c->wire;
        left = next;
    }
    return left;
}

/* Of the downtime: what there is for memory */
static double budget_ns(const EstimateInput *in, const Course *c)
{
    return MAX((double)in->downtime_ns - c->fixed_ns, in->downtime_ns / 2.0);
}

/* Passes until the rest fits. The first ones are not throttled. */
static Played play(const EstimateInput *in, const Course *course,
                   unsigned unthrottled)
{
    double budget = budget_ns(in, course);
    double left = in->memory, before = INFINITY;
    Course c = *course;
    Played p = { 0 };

    for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
        double ns = left / c.bandwidth * NS_PER_S;

        c.keep = pass < unthrottled ? 1 : course->keep;
        p.total += ns;
        p.bytes += left * c.wire;
        p.lost += (1 - c.keep) * ns;
        before = left;
        left = dirtied_in(in, &c, ns);
        if (left / c.bandwidth * NS_PER_S <= budget) {
            p.ends = true;
            break;
        }
        if (pass >= unthrottled + 1 && left > before * SHRINKS) {
            break;
        }
    }
    if (p.ends) {
        left = take_long(in, &c, left, &p);
        left = polish(in, &c, left, &p);
    }
    p.downtime = c.fixed_ns + left / c.bandwidth * NS_PER_S;
    p.total += p.downtime;
    p.bytes += left * c.wire;
    return p;
}

static uint64_t counted(double value)
{
    return value < (double)UINT64_MAX ? (uint64_t)MAX(value, 0) : POLICY_NEVER;
}

/*
 * Likely values are those of the middle course; low and high ones of all three,
 * as a faster link is not always the one that sends least.
 */
static PolicyRange range_of(const Played p[3], size_t member)
{
    PolicyRange r = { .low = POLICY_NEVER };

    for (int i = 0; i < 3; i++) {
        double value = *(const double *)((const char *)&p[i] + member);
        uint64_t n = p[i].ends ? counted(value) : POLICY_NEVER;

        r.low = MIN(r.low, n);
        r.high = MAX(r.high, n);
        r.likely = i == 1 ? n : r.likely;
    }
    return r;
}

static Estimate summary_of(const Played p[3])
{
    return (Estimate) {
        .known = true,
        .total = range_of(p, offsetof(Played, total)),
        .downtime = range_of(p, offsetof(Played, downtime)),
        .bytes = range_of(p, offsetof(Played, bytes)),
        .lost = range_of(p, offsetof(Played, lost)),
    };
}

/* The best, the likely and the worst of links and guests */
static Course course_of(const EstimateInput *in, int which)
{
    double off = 1 - which;

    return (Course) {
        .bandwidth = in->bandwidth * (1 + off * in->bandwidth_off),
        .wire = 1,
        .guest = 1 - off * GUEST_OFF,
        .wider = which == 2 ? WIDER : 0,
        .fixed_ns = which == 0 ? in->fixed.low : which == 1 ? in->fixed.likely
                                                            : in->fixed.high,
        .keep = 1,
    };
}

/*
 * As convergence.c throttles: by as much as the pass shows to be needed, and by
 * more while passes do not shrink.
 */
static Played play_throttled(const EstimateInput *in, Course c)
{
    double ns = in->memory / c.bandwidth * NS_PER_S;
    Played p = play(in, &c, PASSES_MAX);
    double least = 1 - in->throttle_max / 100.0, pass_ns, rate, more;
    double without_ns = 0;
    double budget = budget_ns(in, &c) / NS_PER_S * c.bandwidth;

    if (p.ends) {
        return p;
    }
    for (unsigned i = 0; i < CONVERGENCE_STALL_PASSES; i++) {
        pass_ns = ns;
        ns = dirtied_in(in, &c, ns) / c.bandwidth * NS_PER_S;
        without_ns += ns;
    }
    /* Where passes are short there are more of them until that is a stall. */
    more = ns * ceil(MAX(CONVERGENCE_STALL_NS - without_ns, 0) / MAX(ns, 1));
    rate = dirtied_in(in, &c, pass_ns) / pass_ns * NS_PER_S;
    c.keep = MIN(convergence_shrink_to(budget, ns / NS_PER_S * c.bandwidth) *
                 c.bandwidth / rate, CONVERGENCE_FIRST_KEEP);
    for (unsigned i = 0; i < 4; i++) {
        c.keep = MAX(c.keep, least);
        p = play(in, &c, CONVERGENCE_STALL_PASSES + 1);
        if (p.ends) {
            break;
        }
        c.keep /= 4;
    }
    p.total += more;
    p.bytes += more / NS_PER_S * c.bandwidth * c.wire;
    return p;
}

/*
 * What a throttled guest leaves depends on whether its vCPUs have slept since
 * the last look: nothing, or as much as fits.
 */
static Estimate throttled_summary(const EstimateInput *in, const Played p[3])
{
    Estimate e = summary_of(p);

    if (p[1].lost > 0) {
        e.downtime.low = MIN(e.downtime.low, in->fixed.low);
        e.downtime.high = MAX(e.downtime.high, in->downtime_ns);
    }
    return e;
}

/*
 * The guest goes on at once; what it writes to in that time it waits for.  How
 * long that is depends on which pages it needs, so the range is wide.
 */
static Estimate memory_later(const EstimateInput *in)
{
    Played p[3];

    for (int i = 0; i < 3; i++) {
        Course c = course_of(in, i);
        double ns = in->memory / c.bandwidth * NS_PER_S;
        double again = dirtied_in(in, &c, ns);
        double wait = again / c.bandwidth * NS_PER_S;

        p[i] = (Played) {
            .ends = true,
            .total = ns + wait + c.fixed_ns,
            .downtime = c.fixed_ns,
            .bytes = in->memory + again,
            .lost = wait * i / 2,
        };
    }
    return summary_of(p);
}

static Estimate compressed(const EstimateInput *in)
{
    Played p[3];

    if (!in->ratio || !in->compress_speed) {
        return (Estimate) { 0 };
    }
    for (int i = 0; i < 3; i++) {
        Course c = course_of(in, i);

        c.wire = 100.0 / in->ratio;
        c.bandwidth = MIN(c.bandwidth / c.wire, in->compress_speed);
        p[i] = play(in, &c, PASSES_MAX);
    }
    return summary_of(p);
}

void estimate_all(const EstimateInput *in, Estimate out[ESTIMATE__COUNT])
{
    Played plain[3], throttled[3];

    for (int i = 0; i < 3; i++) {
        Course c = course_of(in, i);

        plain[i] = play(in, &c, PASSES_MAX);
        throttled[i] = play_throttled(in, c);
    }
    out[ESTIMATE_PRECOPY] = summary_of(plain);
    out[ESTIMATE_THROTTLE] = throttled_summary(in, throttled);
    out[ESTIMATE_COMPRESSION] = compressed(in);
    out[ESTIMATE_POSTCOPY] = memory_later(in);
}

/*
 * Picking
 */

static bool would_end(const Estimate *e)
{
    return e->known && e->total.likely != POLICY_NEVER;
}

static bool may_not_end(const Estimate *e)
{
    return e->total.high == POLICY_NEVER;
}

EstimateMethod estimate_pick(const EstimateInput *in,
                             const Estimate all[ESTIMATE__COUNT],
                             const bool enabled[ESTIMATE__COUNT],
                             char why[POLICY_REASON_MAX])
{
    static const struct {
        EstimateMethod method;
        const char *why;
    } order[] = {
        { ESTIMATE_PRECOPY, "precopy ends by itself and costs the guest "
                            "nothing" },
        { ESTIMATE_COMPRESSION, "the link is too slow, but not for memory that "
                                "is compressed" },
        { ESTIMATE_THROTTLE, "the guest dirties more than the link carries, "
                             "and throttling it is enabled" },
        { ESTIMATE_POSTCOPY, "nothing else that is enabled makes passes "
                             "shrink" },
    };

    for (int i = 0; i < ARRAY_SIZE(order); i++) {
        const Estimate *e = &all[order[i].method];

        if (enabled[order[i].method] && would_end(e)) {
            snprintf(why, POLICY_REASON_MAX, "%s%s", order[i].why,
                     may_not_end(e) ? ", though only just" : "");
            return order[i].method;
        }
    }
    snprintf(why, POLICY_REASON_MAX, "nothing that is enabled ends: a pass of "
             "%.1f s leaves %.1f MiB; enable auto-converge or postcopy-ram",
             in->memory / (double)in->bandwidth,
             estimate_dirtied(in, in->memory * NS_PER_S / in->bandwidth) /
             1048576.0);
    return ESTIMATE_PRECOPY;
}
