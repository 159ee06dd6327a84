/*
 * Convergence that needs no settings: the parameter convergence=auto
 *
 * The lost time of a guest that dirties faster than the link carries is least
 * if it is throttled hard and shortly: with a share k of its time, and a ratio
 * q of what it dirties to what is sent at full speed, a working set W is sent
 * in W / (1 - k q) of the link's time, at a loss of (1 - k) of that.  For q > 1
 * this grows with k.  So there is one step to where passes shrink quickly, not
 * many that each cost a pass.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "convergence.h"

/* A new minimum is lower than the last one by at least this share. */
#define NEW_MINIMUM 0.2

/* The share to which a pass should shrink... */
#define SHRINK_TO 0.3
/* ...or it may leave so much of what the limit allows, if that is more. */
#define NEAR_LIMIT 0.9
/* A pass helped if it brought the prediction down to this share. */
#define HELPED 0.9
/* The share is corrected if it is wrong by more than this. */
#define CORRECT_BY 0.2
/* At full throttle, so many passes without help are enough. */
#define USELESS_PASSES 3
/* Looks without throttling after it was of no use; doubled each time */
#define PAUSE_LOOKS 6
#define PAUSE_DOUBLINGS 4

/* So often a guest is resumed that turns out to have dirtied too much. */
#define RETURNS_MAX 5

/* Near enough to the lowest of recent predictions to be called a minimum */
#define MINIMUM_MARGIN 0.1
/* So many predictions make a minimum among them worth the name. */
#define MINIMUM_LOOKS 3
/* A minimum is looked for in this last part of the time limit... */
#define SEARCH_SHARE 4
/* ...and before so many passes fit into what is left. */
#define SEARCH_PASSES 3
/* The time is short if no more than so many passes fit. */
#define URGENT_PASSES 5

#define NS_PER_S 1e9

void convergence_init(Convergence *c)
{
    *c = (Convergence) { .keep = 1 };
}

PolicyLimits policy_limits_without_means(const PolicyLimits *limits)
{
    PolicyLimits plain = *limits;

    if (limits->automatic) {
        plain.auto_converge = plain.dirty_limit = false;
    }
    return plain;
}

static void G_GNUC_PRINTF(2, 3) say_why(Convergence *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->why, sizeof(c->why), fmt, ap);
    va_end(ap);
}

static void G_GNUC_PRINTF(2, 3) convergence_say(PolicyDecision *d,
                                                const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(d->reason, sizeof(d->reason), fmt, ap);
    va_end(ap);
}

/*
 * Predictions
 */

static uint64_t recent_at(const Convergence *c, unsigned back)
{
    return c->recent[(c->looks - 1 - back) % CONVERGENCE_RECENT];
}

static uint64_t lowest_recent(const Convergence *c)
{
    uint64_t low = POLICY_NEVER;

    for (unsigned i = 0; i < MIN(c->looks, CONVERGENCE_RECENT); i++) {
        low = MIN(low, recent_at(c, i));
    }
    return low;
}

static bool at_minimum(const Convergence *c)
{
    return c->looks >= MINIMUM_LOOKS &&
           recent_at(c, 0) <= lowest_recent(c) * (1 + MINIMUM_MARGIN);
}

static bool is_rising(const Convergence *c)
{
    return c->looks > 1 &&
           recent_at(c, 0) > recent_at(c, 1) * (1 + MINIMUM_MARGIN);
}

static bool has_helped(const Convergence *c)
{
    return c->looks > 1 && recent_at(c, 0) < recent_at(c, 1) * HELPED;
}

static void new_means(Convergence *c, uint64_t now_ns)
{
    c->best_ns = recent_at(c, 0);
    c->best_at_ns = now_ns;
    c->since_best = 0;
}

static void take_look(Convergence *c, uint64_t downtime_ns, uint64_t now_ns)
{
    c->recent[c->looks++ % CONVERGENCE_RECENT] = downtime_ns;
    c->since_best++;
    if (c->looks == 1 || downtime_ns < c->best_ns * (1 - NEW_MINIMUM)) {
        new_means(c, now_ns);
    }
}

static bool is_stalled(const Convergence *c, uint64_t now_ns)
{
    return c->since_best >= CONVERGENCE_STALL_PASSES &&
           now_ns - c->best_at_ns >= CONVERGENCE_STALL_NS;
}

/* How long it takes to send @bytes; POLICY_NEVER if that is not known */
static uint64_t send_ns(const Policy *p, uint64_t bytes)
{
    double ns = p->bandwidth.mean > 0 ? bytes * NS_PER_S / p->bandwidth.mean
                                      : (double)UINT64_MAX;

    return ns < (double)UINT64_MAX ? (uint64_t)ns : POLICY_NEVER;
}

static uint64_t time_until_limit(const PolicyLimits *limits, uint64_t now_ns)
{
    if (!limits->total_ns) {
        return POLICY_NEVER;
    }
    return limits->total_ns - MIN(limits->total_ns, now_ns);
}

/*
 * Throttling
 */

static unsigned throttle_percent(const Convergence *c)
{
    return (1 - c->keep) * 100 + 0.5;
}

static double least_keep(const PolicyLimits *limits)
{
    return 1 - limits->throttle_max / 100.0;
}

double convergence_shrink_to(double allowed, double remaining)
{
    if (remaining <= 0) {
        return SHRINK_TO;
    }
    return CLAMP(NEAR_LIMIT * allowed / remaining, SHRINK_TO, NEAR_LIMIT);
}

/*
 * The share of their time that vCPUs may keep if a pass is to shrink as it
 * should.  It is an upper bound: a guest that has dirtied all of its working
 * set before the pass was over may be faster than it looks.
 */
static double keep_goal(const Convergence *c, const Policy *p,
                        const PolicyLimits *limits, uint64_t remaining)
{
    double rate;

    if (!p->interval_ns || !p->dirtied) {
        return c->keep;
    }
    rate = p->dirtied * NS_PER_S / p->interval_ns / c->keep;
    return convergence_shrink_to(policy_threshold(p, limits), remaining) *
           p->bandwidth.mean / rate;
}

static void set_keep(Convergence *c, const PolicyLimits *limits, double keep)
{
    c->keep = CLAMP(keep, least_keep(limits), 1);
    say_why(c, "vCPUs throttled to %u %% as passes did not shrink",
            throttle_percent(c));
}

static void throttle_more(Convergence *c, const Policy *p,
                          const PolicyLimits *limits,
                          const ConvergenceLook *look)
{
    double goal = keep_goal(c, p, limits, look->remaining);

    if (c->keep < 1) {
        /* What was done was too little by more than can be measured. */
        goal = MIN(goal, c->keep / (1 << MIN(2 * c->unmoved, 6)));
    }
    set_keep(c, limits, MIN(goal, CONVERGENCE_FIRST_KEEP));
}

/* It was of no use: the guest gets its time back, for a while. */
static void throttle_end(Convergence *c, uint64_t now_ns)
{
    c->pause = PAUSE_LOOKS << MIN(c->failures, PAUSE_DOUBLINGS);
    c->failures++;
    say_why(c, "throttling to %u %% ended as it was of no use",
            throttle_percent(c));
    c->keep = 1;
    c->unmoved = 0;
    new_means(c, now_ns);
}

/* After a pass with throttled vCPUs. Returns whether it was of no use. */
static bool review_throttle(Convergence *c, const Policy *p,
                            const PolicyLimits *limits,
                            const ConvergenceLook *look)
{
    if (has_helped(c)) {
        double goal = keep_goal(c, p, limits, look->remaining);

        c->unmoved = 0;
        if (goal < c->keep * (1 - CORRECT_BY)) {
            set_keep(c, limits, goal);
        }
        return false;
    }
    c->unmoved++;
    if (c->keep <= least_keep(limits)) {
        return c->unmoved >= USELESS_PASSES &&
               c->since_best >= CONVERGENCE_STALL_PASSES;
    }
    throttle_more(c, p, limits, look);
    if (c->keep <= least_keep(limits)) {
        c->unmoved = 0;
    }
    return false;
}

/*
 * Means
 */

static bool is_urgent(const Policy *p, const PolicyLimits *limits,
                      const ConvergenceLook *look, uint64_t left_ns)
{
    uint64_t until = time_until_limit(limits, look->elapsed_ns);

    return until != POLICY_NEVER && left_ns > until &&
           send_ns(p, look->remaining) > until / URGENT_PASSES;
}

/* True if nothing is left that could still help. */
static bool use_means(Convergence *c, const Policy *p,
                      const PolicyLimits *limits, const ConvergenceLook *look,
                      bool urgent)
{
    bool needed = urgent || is_stalled(c, look->elapsed_ns);

    if (!limits->auto_converge) {
        c->keep = 1;
    }
    if (c->keep < 1) {
        return review_throttle(c, p, limits, look);
    }
    if (c->pause && --c->pause) {
        return needed;
    }
    if (!needed) {
        return false;
    }
    if (limits->auto_converge) {
        c->unmoved = 0;
        throttle_more(c, p, limits, look);
        return false;
    }
    if (limits->dirty_limit && !c->limiting) {
        c->limiting = true;
        say_why(c, "vcpu-dirty-limit in force as passes did not shrink");
        new_means(c, look->elapsed_ns);
        return false;
    }
    return true;
}

/*
 * Limits that cannot be kept
 */

static bool can_postcopy(const Policy *p, const PolicyLimits *limits,
                         const ConvergenceLook *look)
{
    return limits->postcopy_enabled && look->may_postcopy && p->passes &&
           look->now_bytes <= policy_threshold(p, limits);
}

static void go_postcopy(const ConvergenceLook *look, const char *why,
                        PolicyDecision *d)
{
    d->action = POLICY_POSTCOPY;
    convergence_say(d, "postcopy: %s; %.1f MiB will follow the guest", why,
                    (look->remaining - look->now_bytes) / 1048576.0);
}

static void exceed_downtime(const Convergence *c, const PolicyLimits *limits,
                            const char *why, PolicyDecision *d)
{
    d->action = POLICY_SWITCH_OVER;
    d->beyond = true;
    convergence_say(d, "switching over as on-miss says: %s; downtime would be "
                    "%.1f ms of %.1f ms, the lowest lately was %.1f ms", why,
                    recent_at(c, 0) / 1e6, limits->downtime_ns / 1e6,
                    lowest_recent(c) / 1e6);
}

/* After a pass: there may be no better moment before the time is over. */
static void consider_switchover(Convergence *c, const Policy *p,
                                const PolicyLimits *limits,
                                const ConvergenceLook *look,
                                PolicyDecision *d)
{
    uint64_t until = time_until_limit(limits, look->elapsed_ns);
    uint64_t pass_ns = send_ns(p, look->remaining);

    if (!limits->total_ns) {
        if (c->exhausted && at_minimum(c)) {
            exceed_downtime(c, limits, "nothing enabled makes passes shrink",
                            d);
        }
        return;
    }
    if (pass_ns < until) {
        bool search = until < limits->total_ns / SEARCH_SHARE ||
                      pass_ns >= until / SEARCH_PASSES;

        if (search && is_stalled(c, look->elapsed_ns) && at_minimum(c)) {
            exceed_downtime(c, limits, "total-time-limit is near", d);
        }
        return;
    }
    /* A maximum is waited out, but not for longer than a pass. */
    if (is_rising(c) && !c->last_pass && until) {
        c->last_pass = true;
        say_why(c, "a last pass as the downtime would be at a maximum");
        return;
    }
    exceed_downtime(c, limits, "total-time-limit leaves no time for a pass", d);
}

static void consider_miss(Convergence *c, const Policy *p,
                          const PolicyLimits *limits,
                          const ConvergenceLook *look, uint64_t left_ns,
                          PolicyDecision *d)
{
    uint64_t until = time_until_limit(limits, look->elapsed_ns);
    bool late = limits->total_ns &&
                send_ns(p, look->remaining) >= until && left_ns > until;
    const char *why = limits->total_ns ? "total-time-limit would be exceeded"
                      : "nothing enabled makes passes shrink";
    bool missed = limits->total_ns ? late : c->exhausted;

    switch (limits->on_miss) {
    case POLICY_MISS_SWITCH_OVER:
        if (look->exact && p->passes) {
            consider_switchover(c, p, limits, look, d);
        }
        break;
    case POLICY_MISS_POSTCOPY:
        if (missed && can_postcopy(p, limits, look)) {
            go_postcopy(look, why, d);
        }
        break;
    case POLICY_MISS_CANCEL:
        if (limits->total_ns ? !until : c->exhausted) {
            d->action = POLICY_CANCEL;
            convergence_say(d, "cancelled as on-miss says: %s",
                            limits->total_ns ? "total-time-limit is over" :
                            why);
        }
        break;
    case POLICY_MISS_CONTINUE:
        break;
    }
}

bool convergence_may_return(const Convergence *c, const PolicyLimits *limits,
                            uint64_t elapsed_ns)
{
    return c->returns < RETURNS_MAX && time_until_limit(limits, elapsed_ns);
}

void convergence_returned(Convergence *c, uint64_t remaining)
{
    c->returns++;
    say_why(c, "switchover %u taken back as the guest had dirtied %.1f MiB "
            "before it was stopped", c->returns, remaining / 1048576.0);
}

static void say_all(const Convergence *c, PolicyDecision *d)
{
    char tactics[POLICY_REASON_MAX];

    if (*c->why) {
        memcpy(tactics, d->reason, sizeof(tactics));
        convergence_say(d, "%s; %s", c->why, tactics);
    }
}

void convergence_decide(Convergence *c, Policy *p, const PolicyLimits *limits,
                        const ConvergenceLook *look, PolicyDecision *d)
{
    PolicyView view = policy_view(p, limits, look->remaining, look->remaining);
    bool sends = d->action == POLICY_SEND && !p->polishing;

    if (p->polishing && look->exact && c->keep < 1) {
        /* A shorter downtime is not worth the time that a pass takes away. */
        d->action = POLICY_SWITCH_OVER;
        convergence_say(d, "switching over, which ends throttling: downtime "
                        "would be %.1f ms of %.1f ms",
                        view.downtime.likely / 1e6, limits->downtime_ns / 1e6);
    }

    if (sends && look->exact && p->passes) {
        take_look(c, view.downtime.likely, look->elapsed_ns);
        c->exhausted = use_means(c, p, limits, look,
                                 is_urgent(p, limits, look,
                                           view.remaining.likely));
        if (c->exhausted && can_postcopy(p, limits, look)) {
            go_postcopy(look, "nothing else makes passes shrink", d);
        }
    }
    if (sends && d->action == POLICY_SEND) {
        consider_miss(c, p, limits, look, view.remaining.likely, d);
    }
    if (sends && d->action == POLICY_SEND && c->exhausted && c->keep < 1) {
        throttle_end(c, look->elapsed_ns);
    }
    p->throttle = throttle_percent(c);
    d->throttle = p->throttle;
    d->dirty_limited = limits->dirty_limit && c->limiting;
    if (d->action == POLICY_SEND) {
        say_all(c, d);
    }
}
