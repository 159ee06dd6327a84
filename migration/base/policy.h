/*
 * Migration policy: estimates and decisions, without side effects
 *
 * The migration thread reports what happened (so many bytes in so many
 * nanoseconds, so many pages found dirty) and asks what to do next.  Nothing
 * here touches a clock, a lock, the guest or a global: the same samples give
 * the same decisions, so that recorded and made-up migrations can be replayed
 * in unit tests.
 *
 * Units: bytes, nanoseconds on one monotonic clock, bytes per second.
 * Threads: a Policy belongs to the migration thread.  What others may see of
 * it is a PolicyView, which is a plain value; its owner passes it on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_POLICY_H
#define MIGRATION_BASE_POLICY_H

#include "downtime-part.h"
#include "long-pass.h"

#define POLICY_REASON_MAX 240

/* What to do when the limits cannot be kept with what is enabled */
typedef enum PolicyMiss {
    POLICY_MISS_CONTINUE,           /* go on sending */
    POLICY_MISS_SWITCH_OVER,        /* exceed downtime_ns, at a minimum */
    POLICY_MISS_POSTCOPY,
    POLICY_MISS_CANCEL,
} PolicyMiss;

/* What the user requested.  May differ from one call to the next. */
typedef struct PolicyLimits {
    uint64_t downtime_ns;           /* the whole blackout */
    uint64_t switchover_bandwidth;  /* bytes/s to count on; 0: as measured */
    bool auto_converge;
    uint8_t throttle_initial;       /* percent of the vCPUs' time taken away */
    uint8_t throttle_increment;
    uint8_t throttle_max;
    bool throttle_tailslow;         /* smaller steps towards the end */
    uint8_t throttle_trigger;       /* percent: dirtied against sent */
    bool dirty_limit;
    uint64_t vcpu_dirty_rate;       /* bytes/s allowed to each vCPU */
    bool postcopy;                  /* requested, or by itself if need be */
    bool postcopy_asked;            /* requested */
    bool automatic;                 /* see convergence.h; the rest is for it */
    uint64_t total_ns;              /* the whole migration; 0: no limit */
    PolicyMiss on_miss;
    bool postcopy_enabled;          /* it may be requested */
    uint64_t max_bandwidth;         /* bytes/s before the switchover; 0: any */
    bool guest_runs;                /* otherwise it dirties nothing */
    unsigned changes;               /* of settings since the migration began */
} PolicyLimits;

/* A running mean with the mean distance from it; empty while !seen. */
typedef struct PolicyMean {
    double mean;
    double spread;
    bool seen;
} PolicyMean;

/* A value with the range it is expected to stay in. */
typedef struct PolicyRange {
    uint64_t low;
    uint64_t likely;
    uint64_t high;
} PolicyRange;

#define POLICY_NEVER UINT64_MAX     /* in a PolicyRange of nanoseconds */

typedef enum PolicyAction {
    POLICY_SEND,                    /* the pass is not over */
    POLICY_SYNC,                    /* collect the dirty log, start a pass */
    POLICY_SWITCH_OVER,             /* stop the guest, send the rest */
    POLICY_POSTCOPY,                /* stop the guest, send the rest later */
    POLICY_CANCEL,                  /* the guest stays */
} PolicyAction;

typedef struct PolicyDecision {
    PolicyAction action;
    uint8_t throttle;               /* percent wanted from now on */
    bool dirty_limited;             /* vcpu_dirty_rate is wanted from now on */
    bool beyond;                    /* the limit is exceeded on purpose */
    char reason[POLICY_REASON_MAX]; /* one sentence for people, with numbers */
} PolicyDecision;

/* What there is to show.  Rates are 0 and ranges POLICY_NEVER if unknown. */
typedef struct PolicyView {
    uint64_t bandwidth;             /* bytes/s while sending */
    uint64_t dirty_rate;            /* bytes/s since the last two syncs */
    uint64_t passes;                /* completed syncs */
    PolicyRange downtime;           /* if the guest were stopped now, ns */
    PolicyRange downtime_part[DOWNTIME_PART__COUNT];
    PolicyRange remaining;          /* until completion, ns */
    uint8_t percent;                /* of the way to completion; never falls */
} PolicyView;

typedef struct Policy {
    PolicyMean bandwidth;
    PolicyMean dirty_rate;
    PolicyMean cost[DOWNTIME_PART__COUNT];    /* ns; RAM's stays empty */
    PolicyMean lead;                /* ns, see policy_lead() */
    uint64_t slice_bytes;           /* gathered until a sample is long enough */
    uint64_t slice_ns;
    uint64_t pass_sent;             /* bytes since the last sync */
    uint64_t pass_ns;               /* of sending since then */
    uint64_t settle_ns;             /* of that, for buffers to be emptied */
    uint64_t passes;
    uint64_t dirtied;               /* bytes that the last sync found */
    uint64_t interval_ns;           /* since the sync before that */
    uint64_t last_polish;           /* remaining when one more pass was taken */
    unsigned polished;              /* passes taken though it fitted already */
    bool polishing;                 /* such a pass goes on */
    uint64_t polish_ns;             /* that it may still take */
    LongPass long_pass;
    unsigned overruns;              /* syncs in a row with too much dirtied */
    uint8_t throttle;
    bool dirty_limited;
    uint64_t total;                 /* bytes there were to send at the start */
    uint8_t percent;
} Policy;

/* @total_bytes: how much there is to send in the first pass. */
void policy_init(Policy *p, uint64_t total_bytes);

/*
 * @bytes were sent within @busy_ns, which includes waiting for the limit that
 * the user has set, but not collecting the log.  What is in the buffers of
 * sockets has not been sent, where that is known.
 */
void policy_sent(Policy *p, uint64_t bytes, uint64_t busy_ns);

/*
 * The dirty log was collected: @dirtied bytes changed in the @interval_ns
 * since it was collected last.  The first collection of a migration, which
 * finds everything dirty by definition, must not be reported.
 */
void policy_synced(Policy *p, uint64_t dirtied, uint64_t interval_ns);

/*
 * Before the log is collected, and @remaining is known to be dirty: how long to
 * wait until the network has taken what it has not of what was sent, @unsent
 * bytes; then ask again.  0: collect it now.
 *
 * What is in buffers when the guest is stopped would be part of the downtime.
 * While they are emptied the link is busy, so that is no delay; and what the
 * guest dirties meanwhile is what this collection finds, and not what is left
 * over when the guest has been stopped.
 */
uint64_t policy_settle_ns(const Policy *p, const PolicyLimits *limits,
                          uint64_t remaining, uint64_t unsent);

/* It was waited for @ns, in which the network took @bytes. */
void policy_settled(Policy *p, uint64_t bytes, uint64_t ns);

/*
 * A part of a downtime was measured to take @ns, in an attempt or in a
 * rehearsal while the guest runs.
 */
void policy_measured(Policy *p, DowntimePart part, uint64_t ns);

/* What a part that was not measured yet is thought to take. */
void policy_expect(Policy *p, DowntimePart part, uint64_t ns);

/*
 * From the last look at what remains until the guest was stopped it took @ns,
 * in which it wrote.
 */
void policy_lead(Policy *p, uint64_t ns);

/* What it is likely to take, ns; 0 if nobody has an idea. */
uint64_t policy_cost(const Policy *p, DowntimePart part);

/*
 * What to do with @remaining bytes known to be dirty and not sent, @exact
 * if the log was collected just before.  Switching over is only ever decided
 * on an exact figure.
 */
PolicyDecision policy_decide(Policy *p, const PolicyLimits *limits,
                             uint64_t remaining, bool exact);

/*
 * The guest could go on there now: whether it should.  @decision is what
 * policy_decide() said, and is changed if so.  @now_bytes of @remaining have to
 * be sent while the guest is stopped, and must fit the limit.
 *
 * If it was not requested, it is done once a pass is over and the rest does not
 * fit the limit: then there is no telling whether it ever will.
 */
void policy_consider_postcopy(const Policy *p, const PolicyLimits *limits,
                              uint64_t remaining, uint64_t now_bytes,
                              PolicyDecision *decision);

/* Bytes that may remain when the guest is stopped; 0 while nothing is known. */
uint64_t policy_threshold(const Policy *p, const PolicyLimits *limits);

/* @now_bytes of @remaining would be sent while the guest is stopped. */
PolicyView policy_view(Policy *p, const PolicyLimits *limits,
                       uint64_t remaining, uint64_t now_bytes);

#endif
