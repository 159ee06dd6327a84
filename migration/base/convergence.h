/*
 * Convergence that needs no settings: the parameter convergence=auto
 *
 * policy.h tells after each pass whether what remains fits the downtime limit.
 * Where it does not, this module chooses among the means that are enabled:
 *
 * 1. nothing, while the predicted downtime still reaches new minima;
 * 2. throttling, once it does not (a stall), by as much as the link is too
 *    slow for what the guest dirties; by more while that does not help;
 * 3. postcopy, once throttling is of no use or not enabled;
 * 4. what on_miss says, once none of these is left, or the time limit is
 *    about to be exceeded.
 *
 * Throttling that does not help is ended, and tried again later: a guest whose
 * vCPUs sleep for nothing loses work for nothing.
 *
 * Like policy.h it is pure: no clock, lock, guest or global.  Units and thread
 * are the same: nanoseconds and bytes, the migration thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_CONVERGENCE_H
#define MIGRATION_BASE_CONVERGENCE_H

#include "policy.h"

/* A stall: so many passes, and so much time, without a new minimum */
#define CONVERGENCE_STALL_PASSES 2
#define CONVERGENCE_STALL_NS (1000 * 1000 * 1000ull)
/* The share of their time that throttled vCPUs keep at most */
#define CONVERGENCE_FIRST_KEEP 0.8

/* How many predictions are remembered, one a pass */
#define CONVERGENCE_RECENT 8

typedef struct Convergence {
    uint64_t recent[CONVERGENCE_RECENT];    /* predicted downtimes, a ring */
    unsigned looks;             /* how many were seen altogether */
    uint64_t best_ns;           /* lowest of the predictions since a change */
    uint64_t best_at_ns;
    unsigned since_best;        /* looks since then */
    double keep;                /* share of its time that a vCPU keeps */
    unsigned unmoved;           /* passes in a row in which that did not help */
    unsigned pause;             /* looks until throttling may begin again */
    unsigned failures;          /* how often it was ended as useless */
    bool limiting;              /* the dirty limit is in use */
    bool exhausted;             /* no means but on_miss is left */
    bool last_pass;             /* the only one that may exceed the limit */
    unsigned returns;           /* switchovers that were taken back */
    char why[96];               /* the last change, for people; "": none */
} Convergence;

/* What is known at the moment of a decision */
typedef struct ConvergenceLook {
    uint64_t elapsed_ns;        /* since the migration was started */
    uint64_t remaining;         /* bytes known to be dirty and not sent */
    uint64_t now_bytes;         /* of these: cannot follow in postcopy */
    bool exact;                 /* the log was collected just before */
    bool may_postcopy;          /* the guest could go on there now */
} ConvergenceLook;

void convergence_init(Convergence *c);

/*
 * Of what is sent in a pass, the share that a throttled guest is to dirty in
 * it: less, the more @remaining is than the @allowed bytes of the switchover.
 */
double convergence_shrink_to(double allowed, double remaining);

/* @limits for policy_decide(), which with @automatic leaves the means to us */
PolicyLimits policy_limits_without_means(const PolicyLimits *limits);

/*
 * @decision is what policy_decide() said, with policy_limits_without_means(),
 * and is changed if more is to be done than to send on.  @limits: as the user
 * set them, @automatic is true.
 */
void convergence_decide(Convergence *c, Policy *p, const PolicyLimits *limits,
                        const ConvergenceLook *look, PolicyDecision *decision);

/*
 * Whether a switchover that fitted when it was decided may be taken back if
 * more is found to remain when the guest has stopped: a few times, while there
 * is time.
 */
bool convergence_may_return(const Convergence *c, const PolicyLimits *limits,
                            uint64_t elapsed_ns);

/* It was, as @remaining bytes remained: the guest runs again. */
void convergence_returned(Convergence *c, uint64_t remaining);

#endif
