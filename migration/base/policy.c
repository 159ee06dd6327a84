/*
 * Migration policy: estimates and decisions, without side effects
 *
 * Bandwidth is a weighted mean of slices of at least SLICE_NS of sending, so
 * that a single short write into an empty socket buffer does not count for
 * much.  The dirty rate is a weighted mean over passes, weighted harder, as
 * a guest's behaviour changes faster than a link's.
 *
 * Two questions are asked of the estimates.  Would a blackout that begins now
 * fit the limit?  And is it worth one more pass though it would?  The second
 * is yes if the pass costs little and is expected to make the blackout
 * noticeably shorter: an idle guest should not pause for as long as the limit
 * allows, but for as short as it can.  What such a pass may cost if it takes
 * long is in long-pass.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "policy.h"
#include "polish.h"

#define SLICE_NS            (20 * 1000 * 1000ull)
#define BANDWIDTH_WEIGHT    0.2
#define DIRTY_WEIGHT        0.4
#define COST_WEIGHT         0.3

/* Two mean distances hold nine of ten samples of a well-behaved quantity. */
#define RANGE_WIDTH         2.0

/* A pass as in polish.h is over when at most this share of it is left... */
#define POLISH_REST         0.05
/* ...or it has taken so many times as long as was expected. */
#define POLISH_PATIENCE     2

/* Buffers with less than the link takes in this time are as good as empty. */
#define SETTLED_NS          (2 * 1000 * 1000ull)
/* They are waited for as long as a downtime may last, up to this: */
#define SETTLE_NS_MAX       (1000 * 1000 * 1000ull)

/* Passes in a row that must overrun before vCPUs are slowed down. */
#define OVERRUN_PASSES      2

#define NS_PER_S            1e9

/*
 * Estimates
 */

static void mean_add(PolicyMean *m, double value, double weight)
{
    if (!m->seen) {
        *m = (PolicyMean) { .mean = value, .spread = 0, .seen = true };
        return;
    }
    m->spread += weight * (fabs(value - m->mean) - m->spread);
    m->mean += weight * (value - m->mean);
}

static uint64_t to_count(double value)
{
    if (value <= 0) {
        return 0;
    }
    return value < (double)UINT64_MAX ? (uint64_t)value : POLICY_NEVER;
}

void policy_init(Policy *p, uint64_t total_bytes)
{
    *p = (Policy) { .total = total_bytes };
}

void policy_sent(Policy *p, uint64_t bytes, uint64_t busy_ns)
{
    p->pass_sent += bytes;
    p->pass_ns += busy_ns;
    p->slice_bytes += bytes;
    p->slice_ns += busy_ns;
    p->polish_ns -= MIN(p->polish_ns, busy_ns);
    long_pass_sent(&p->long_pass, busy_ns);
    if (p->slice_ns >= SLICE_NS) {
        mean_add(&p->bandwidth, p->slice_bytes * NS_PER_S / p->slice_ns,
                 BANDWIDTH_WEIGHT);
        p->slice_bytes = 0;
        p->slice_ns = 0;
    }
}

void policy_measured(Policy *p, DowntimePart part, uint64_t ns)
{
    assert(part < DOWNTIME_PART__COUNT && part != DOWNTIME_PART_RAM);
    mean_add(&p->cost[part], ns, COST_WEIGHT);
}

/* A guess may be wrong by as much as it says. */
void policy_expect(Policy *p, DowntimePart part, uint64_t ns)
{
    assert(part < DOWNTIME_PART__COUNT && part != DOWNTIME_PART_RAM);
    if (!p->cost[part].seen) {
        p->cost[part] = (PolicyMean) { .mean = ns, .spread = ns / RANGE_WIDTH };
    }
}

void policy_lead(Policy *p, uint64_t ns)
{
    mean_add(&p->lead, ns, COST_WEIGHT);
}

uint64_t policy_cost(const Policy *p, DowntimePart part)
{
    return to_count(p->cost[part].mean);
}

/*
 * A pass overruns if the guest dirtied more than the trigger's share of what
 * was sent meanwhile.  What was sent is kept until the next decision needs it.
 */
void policy_synced(Policy *p, uint64_t dirtied, uint64_t interval_ns)
{
    if (interval_ns) {
        mean_add(&p->dirty_rate, dirtied * NS_PER_S / interval_ns,
                 DIRTY_WEIGHT);
    }
    if (!p->bandwidth.seen && p->slice_ns && p->slice_bytes) {
        /* a short first pass: better a rough figure than none */
        mean_add(&p->bandwidth, p->slice_bytes * NS_PER_S / p->slice_ns,
                 BANDWIDTH_WEIGHT);
    }
    p->dirtied = dirtied;
    p->interval_ns = interval_ns;
    p->pass_ns = p->settle_ns = 0;
    p->passes++;
}

static double bandwidth_of(const Policy *p, const PolicyLimits *limits)
{
    return limits->switchover_bandwidth ? limits->switchover_bandwidth
                                        : p->bandwidth.mean;
}

/* Time to send @bytes; a wide range where the bandwidth has varied. */
static PolicyRange ram_range(const Policy *p, const PolicyLimits *limits,
                             uint64_t bytes)
{
    double mean = bandwidth_of(p, limits);
    double spread = limits->switchover_bandwidth
                    ? 0 : RANGE_WIDTH * p->bandwidth.spread;

    if (!bytes) {
        return (PolicyRange) { 0, 0, 0 };
    }
    if (mean <= 0) {
        return (PolicyRange) { 0, POLICY_NEVER, POLICY_NEVER };
    }
    return (PolicyRange) {
        .low = to_count(bytes * NS_PER_S / (mean + spread)),
        .likely = to_count(bytes * NS_PER_S / mean),
        .high = spread < mean ? to_count(bytes * NS_PER_S / (mean - spread))
                              : POLICY_NEVER,
    };
}

/* What there will be of @remaining once the guest is stopped. */
static uint64_t with_lead(const Policy *p, uint64_t remaining)
{
    return remaining + to_count(p->dirty_rate.mean * p->lead.mean / NS_PER_S);
}

/* What a sync would find to remain. */
static uint64_t with_dirtied(const Policy *p, uint64_t remaining)
{
    return remaining + to_count(p->dirty_rate.mean * p->pass_ns / NS_PER_S);
}

static PolicyRange part_range(const Policy *p, const PolicyLimits *limits,
                              DowntimePart part, uint64_t remaining)
{
    const PolicyMean *cost = &p->cost[part];
    double width = RANGE_WIDTH * cost->spread;

    if (part == DOWNTIME_PART_RAM) {
        return ram_range(p, limits, with_lead(p, remaining));
    }
    return (PolicyRange) {
        .low = to_count(cost->mean - width),
        .likely = to_count(cost->mean),
        .high = to_count(cost->mean + width),
    };
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    return a > POLICY_NEVER - b ? POLICY_NEVER : a + b;
}

static void range_add(PolicyRange *sum, const PolicyRange *r)
{
    sum->low = add_capped(sum->low, r->low);
    sum->likely = add_capped(sum->likely, r->likely);
    sum->high = add_capped(sum->high, r->high);
}

static PolicyRange downtime_range(const Policy *p, const PolicyLimits *limits,
                                  uint64_t remaining)
{
    PolicyRange sum = { 0, 0, 0 };

    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        PolicyRange r = part_range(p, limits, i, remaining);

        range_add(&sum, &r);
    }
    return sum;
}

/* What the parts other than RAM cost together. */
static uint64_t fixed_cost(const Policy *p)
{
    double sum = 0;

    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        sum += i == DOWNTIME_PART_RAM ? 0 : p->cost[i].mean;
    }
    return to_count(sum);
}

/*
 * The share of the limit that is left for memory.  Where the other parts alone
 * take more than half of it, memory gets half all the same: waiting longer
 * would not make those parts shorter, and a migration that can not keep the
 * limit should end as well as it can instead of never.
 */
static uint64_t ram_budget(const Policy *p, const PolicyLimits *limits)
{
    uint64_t fixed = fixed_cost(p);
    uint64_t half = limits->downtime_ns / 2;

    return fixed < half ? limits->downtime_ns - fixed : half;
}

uint64_t policy_threshold(const Policy *p, const PolicyLimits *limits)
{
    return to_count(bandwidth_of(p, limits) * ram_budget(p, limits) /
                    NS_PER_S);
}

/*
 * Passes shrink by the factor dirty rate / bandwidth until the rest fits into
 * the limit.  The sum of such a series, from @remaining down to the threshold,
 * is (remaining - threshold) / (bandwidth - dirty rate).
 */
static uint64_t time_left(const Policy *p, const PolicyLimits *limits,
                          uint64_t remaining, double bandwidth, double dirty)
{
    uint64_t threshold = policy_threshold(p, limits);
    uint64_t blackout = downtime_range(p, limits,
                                       MIN(remaining, threshold)).likely;

    if (remaining <= threshold) {
        return blackout;
    }
    if (!threshold || bandwidth <= dirty) {
        return POLICY_NEVER;
    }
    return add_capped(to_count((remaining - threshold) * NS_PER_S /
                               (bandwidth - dirty)), blackout);
}

static PolicyRange remaining_range(const Policy *p, const PolicyLimits *limits,
                                   uint64_t remaining)
{
    double bw = p->bandwidth.mean, bw_width = RANGE_WIDTH * p->bandwidth.spread;
    double dr = p->dirty_rate.mean, dr_width = RANGE_WIDTH *
                                               p->dirty_rate.spread;

    if (!p->bandwidth.seen) {
        return (PolicyRange) { 0, POLICY_NEVER, POLICY_NEVER };
    }
    remaining = with_dirtied(p, remaining);
    return (PolicyRange) {
        .low = time_left(p, limits, remaining, bw + bw_width,
                         MAX(dr - dr_width, 0)),
        .likely = time_left(p, limits, remaining, bw, dr),
        .high = time_left(p, limits, remaining, bw - bw_width, dr + dr_width),
    };
}

/*
 * Decisions
 */

static void G_GNUC_PRINTF(2, 3) policy_say(PolicyDecision *d,
                                           const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(d->reason, sizeof(d->reason), fmt, ap);
    va_end(ap);
}

#define MS(ns) ((ns) == POLICY_NEVER ? -1.0 : (ns) / 1e6)
#define MIB(bytes) ((bytes) / 1048576.0)

/* Where one more pass would bring the blackout, if it went as expected. */
static uint64_t polished_downtime(const Policy *p, const PolicyLimits *limits,
                                  uint64_t remaining)
{
    uint64_t pass_ns = ram_range(p, limits, remaining).likely;
    uint64_t next = to_count(p->dirty_rate.mean * pass_ns / NS_PER_S);

    return downtime_range(p, limits, MIN(next, remaining)).likely;
}

/*
 * Worth one more pass: it is short, it is expected to help, and the last one
 * taken for this reason did help.  After a long pass there is its allowance.
 */
static bool worth_a_pass(const Policy *p, const PolicyLimits *limits,
                         uint64_t remaining, uint64_t downtime)
{
    uint64_t pass_ns = ram_range(p, limits, remaining).likely;

    if (!remaining || p->polished >= POLISH_MAX || p->long_pass.end_ns ||
        pass_ns == POLICY_NEVER ||
        pass_ns > polish_pass_max(limits->downtime_ns)) {
        return false;
    }
    if (p->polished && remaining > p->last_polish * (1 - POLISH_GAIN)) {
        return false;
    }
    return polish_gains(downtime, polished_downtime(p, limits, remaining));
}

static void begin_to_polish(Policy *p, const PolicyLimits *limits,
                            uint64_t remaining)
{
    p->polished++;
    p->polishing = true;
    p->polish_ns = POLISH_PATIENCE * ram_range(p, limits, remaining).likely;
    p->last_polish = remaining;
}

/*
 * The end is not delayed where a user waits for it: who has changed a setting
 * since the migration began, has requested postcopy or has set a time limit.
 * It is not delayed while vCPUs are throttled either, and a guest that does not
 * run dirties nothing.
 */
static bool may_take_long(const Policy *p, const PolicyLimits *limits)
{
    return limits->guest_runs && !limits->changes && !limits->postcopy_asked &&
           !limits->total_ns && !p->throttle &&
           !long_pass_limited(p->bandwidth.mean, limits->max_bandwidth);
}

/* How long a pass that takes long may go on until the next look */
static uint64_t long_slice(Policy *p, const PolicyLimits *limits,
                           uint64_t remaining)
{
    PolicyRange ram = part_range(p, limits, DOWNTIME_PART_RAM, remaining);
    uint64_t budget = ram_budget(p, limits);
    LongPassLook look = {
        .remaining = remaining,
        .ram_ns = ram.likely,
        .room_ns = budget - MIN(budget, ram.high),
        .fixed_ns = fixed_cost(p),
        .sync_ns = policy_cost(p, DOWNTIME_PART_SYNC),
        .bandwidth = bandwidth_of(p, limits),
    };

    if (!remaining || ram.likely == POLICY_NEVER ||
        !may_take_long(p, limits) ||
        (ram.likely <= POLISH_PASS_NS && !p->long_pass.end_ns)) {
        return 0;
    }
    return long_pass_next(&p->long_pass, &look);
}

static bool begin_to_take_long(Policy *p, const PolicyLimits *limits,
                               uint64_t remaining)
{
    p->polish_ns = long_slice(p, limits, remaining);
    p->polishing = p->polish_ns;
    if (!p->polishing) {
        long_pass_none(&p->long_pass);
        return false;
    }
    p->last_polish = remaining;
    return true;
}

/*
 * A pass that was begun to make the blackout shorter does so only if it is not
 * broken off as soon as the limit would allow.
 */
static bool still_polishing(Policy *p, uint64_t remaining)
{
    p->polishing = p->polishing && p->polish_ns &&
                   remaining > p->last_polish * POLISH_REST;
    return p->polishing;
}

static bool overruns(const Policy *p, const PolicyLimits *limits)
{
    double allowed = p->pass_sent * (limits->throttle_trigger / 100.0);

    return p->passes && p->dirtied > allowed;
}

/*
 * The share of their time that the vCPUs may keep if what they dirty is to be
 * the trigger's share of what the link carries.
 */
static uint8_t throttle_goal(const Policy *p, const PolicyLimits *limits)
{
    double wanted = p->bandwidth.mean * limits->throttle_trigger / 100.0;
    /* the rate was measured with the present throttle already in force */
    double full = p->dirty_rate.mean / (1 - p->throttle / 100.0);
    double keep = full > 0 ? wanted / full : 1;

    return 100 - CLAMP(keep, 0, 1) * 100;
}

static uint8_t next_throttle(const Policy *p, const PolicyLimits *limits)
{
    unsigned step = limits->throttle_increment, next;

    if (!p->throttle) {
        next = limits->throttle_initial;
    } else {
        if (limits->throttle_tailslow) {
            /* towards the goal, but never faster than the increment */
            unsigned goal = MAX(throttle_goal(p, limits), p->throttle + 1);

            step = MIN(step, goal - p->throttle);
        }
        next = p->throttle + step;
    }
    return MIN(next, limits->throttle_max);
}

/* Once per collection of the log: does the guest outrun the link? */
static void slow_down(Policy *p, const PolicyLimits *limits)
{
    p->overruns = overruns(p, limits) ? p->overruns + 1 : 0;
    p->pass_sent = 0;
    if (p->overruns < OVERRUN_PASSES) {
        return;
    }
    p->overruns = 0;
    if (limits->auto_converge) {
        p->throttle = next_throttle(p, limits);
    }
    p->dirty_limited = true;
}

/* The first half of a reason: what a blackout would cost now. */
static void say_downtime(PolicyDecision *d, const char *verdict,
                         const Policy *p, const PolicyLimits *limits,
                         uint64_t remaining, uint64_t downtime)
{
    if (downtime == POLICY_NEVER) {
        policy_say(d, "%s: %.1f MiB remain, bandwidth not known yet", verdict,
                   MIB(remaining));
        return;
    }
    policy_say(d,
               "%s: %.1f MiB remain, downtime would be %.1f ms of %.1f ms, "
               "%.0f MiB/s sent, %.0f MiB/s dirtied%s",
               verdict, MIB(remaining), MS(downtime), MS(limits->downtime_ns),
               MIB(bandwidth_of(p, limits)), MIB(p->dirty_rate.mean),
               p->throttle ? ", vCPUs throttled" : "");
}

/*
 * To collect the log as soon as what is known to remain fits is in vain if the
 * guest has dirtied more than that meanwhile; and where collecting takes long,
 * it may be in vain for ever.
 */
static bool fits_limit(const Policy *p, const PolicyLimits *limits,
                       uint64_t remaining, bool exact)
{
    uint64_t whole = limits->automatic && !exact && remaining
                     ? with_dirtied(p, remaining) : remaining;

    return ram_range(p, limits, with_lead(p, whole)).likely <=
           ram_budget(p, limits);
}

/*
 * Buffers are not waited for where what remains does not fit, as the next
 * pass fills them again; nor where postcopy was requested: it is to begin at
 * once.
 */
uint64_t policy_settle_ns(const Policy *p, const PolicyLimits *limits,
                          uint64_t remaining, uint64_t unsent)
{
    uint64_t most = MIN(limits->downtime_ns, SETTLE_NS_MAX), ns;

    if (!limits->guest_runs || limits->postcopy_asked ||
        p->bandwidth.mean <= 0 || !fits_limit(p, limits, remaining, false)) {
        return 0;
    }
    ns = to_count(unsent * NS_PER_S / p->bandwidth.mean);
    return ns <= SETTLED_NS ? 0 : MIN(ns - SETTLED_NS,
                                      most - MIN(most, p->settle_ns));
}

void policy_settled(Policy *p, uint64_t bytes, uint64_t ns)
{
    p->settle_ns += ns;
    policy_sent(p, bytes, ns);
}

/* When the slice is over it shows whether what remains fits. */
static void go_on_taking_long(Policy *p, const PolicyLimits *limits,
                              uint64_t remaining, uint64_t downtime,
                              PolicyDecision *d)
{
    if (may_take_long(p, limits) && still_polishing(p, remaining)) {
        say_downtime(d, "finishing a pass that is nearly free", p, limits,
                     remaining, downtime);
        return;
    }
    d->action = POLICY_SYNC;
    say_downtime(d, "collecting what changed", p, limits, remaining, downtime);
}

PolicyDecision policy_decide(Policy *p, const PolicyLimits *limits,
                             uint64_t remaining, bool exact)
{
    PolicyDecision d = { .action = POLICY_SEND };
    uint64_t downtime = downtime_range(p, limits, remaining).likely;
    bool fits = fits_limit(p, limits, remaining, exact);

    if (exact) {
        slow_down(p, limits);
        p->polishing = false;
        if (!fits) {
            long_pass_none(&p->long_pass);
        }
    } else {
        long_pass_known(&p->long_pass, remaining);
    }
    d.throttle = limits->auto_converge ? p->throttle : 0;
    d.dirty_limited = limits->dirty_limit && p->dirty_limited;

    if (!exact && p->long_pass.going) {
        go_on_taking_long(p, limits, remaining, downtime, &d);
    } else if (!fits && !exact && !remaining) {
        /*
         * What the guest changes on the way to a standstill is too much, and
         * whether that is still so shows only in another pass.
         */
        d.action = POLICY_SYNC;
        say_downtime(&d, "beginning another pass", p, limits, remaining,
                     downtime);
    } else if (!fits) {
        p->polished = 0;
        p->polishing = false;
        say_downtime(&d, "sending", p, limits, remaining, downtime);
    } else if (!exact && still_polishing(p, remaining)) {
        say_downtime(&d, "finishing a pass that is nearly free", p, limits,
                     remaining, downtime);
    } else if (!exact) {
        d.action = POLICY_SYNC;
        say_downtime(&d, "collecting what changed", p, limits, remaining,
                     downtime);
    } else if (begin_to_take_long(p, limits, remaining)) {
        say_downtime(&d, "one more pass is nearly free", p, limits, remaining,
                     downtime);
    } else if (worth_a_pass(p, limits, remaining, downtime)) {
        begin_to_polish(p, limits, remaining);
        say_downtime(&d, "one more pass is nearly free", p, limits, remaining,
                     downtime);
    } else {
        d.action = POLICY_SWITCH_OVER;
        say_downtime(&d, "switching over", p, limits, remaining, downtime);
    }
    return d;
}

void policy_consider_postcopy(const Policy *p, const PolicyLimits *limits,
                              uint64_t remaining, uint64_t now_bytes,
                              PolicyDecision *d)
{
    uint64_t threshold = policy_threshold(p, limits);
    /*
     * What fits is about to be switched over, after a pass that is cheap.  And
     * a pass that was ended as what was left seemed to fit is none that was in
     * vain: it goes on, unless the guest alone has made it too much.
     */
    bool by_itself = limits->postcopy && p->passes > 0 &&
                     MIN(remaining, p->dirtied) > threshold;

    if (!(limits->postcopy_asked || by_itself) ||
        d->action == POLICY_SWITCH_OVER || now_bytes > threshold) {
        return;
    }
    d->action = POLICY_POSTCOPY;
    policy_say(d, "postcopy, %s: %.1f MiB will follow the guest",
               limits->postcopy_asked ? "as was asked for"
                                      : "as a pass was not enough",
               MIB(remaining - now_bytes));
}

/*
 * Progress is the share of the expected whole time that has passed, seen in
 * bytes: what was sent against that and what the series of passes still holds.
 * It never falls; while a guest does not converge it stays.
 */
static uint8_t percent_of(Policy *p, uint64_t remaining)
{
    double left = remaining;
    double done = p->total > remaining ? p->total - remaining : 0;
    double percent;

    if (p->bandwidth.seen && p->dirty_rate.mean < p->bandwidth.mean) {
        left /= 1 - p->dirty_rate.mean / p->bandwidth.mean;
    }
    percent = p->total ? 100 * done / (done + left) : 0;
    p->percent = MAX(p->percent, (uint8_t)MIN(percent, 99));
    return p->percent;
}

PolicyView policy_view(Policy *p, const PolicyLimits *limits,
                       uint64_t remaining, uint64_t now_bytes)
{
    PolicyView v = {
        .bandwidth = to_count(p->bandwidth.mean),
        .dirty_rate = to_count(p->dirty_rate.mean),
        .passes = p->passes,
        .downtime = downtime_range(p, limits, now_bytes),
        .remaining = remaining_range(p, limits, remaining),
        .percent = percent_of(p, remaining),
    };

    for (int i = 0; i < DOWNTIME_PART__COUNT; i++) {
        v.downtime_part[i] = part_range(p, limits, i, now_bytes);
    }
    return v;
}
