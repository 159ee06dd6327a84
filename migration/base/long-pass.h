/*
 * A pass that takes long, for a shorter downtime
 *
 * What remains has to be sent with or without the guest, so one more pass
 * delays the end of a migration only by what the guest dirties meanwhile.
 * Where that is little the pass may take as long as it needs: a large downtime
 * limit does not have to be used up.
 *
 * Such a pass is taken in slices, after each of which the dirty log is
 * collected.  It goes on while the predicted downtime falls faster than the end
 * is delayed, and while all delays together are at most a share of what the
 * migration would have taken without.  Whether a user waits for the end is for
 * the caller to know (policy.h).
 *
 * Pure, like policy.h.  Units: bytes, nanoseconds, bytes per second.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_LONG_PASS_H
#define MIGRATION_BASE_LONG_PASS_H

/* All delays, as a share of what the migration would have taken without them */
#define LONG_PASS_COST          0.08
/* Of what is sent in a slice, the guest may dirty this share at most. */
#define LONG_PASS_DIRTIED       0.5

typedef struct LongPass {
    uint64_t sent_ns;           /* of sending, since the migration began */
    uint64_t end_ns;            /* on that clock: its end without; 0: none */
    uint64_t slice_ns;          /* since the log was collected last */
    uint64_t known;             /* what remained just before it is */
    bool going;
} LongPass;

/* What is known when the log has been collected, and what remains would fit */
typedef struct LongPassLook {
    uint64_t remaining;
    uint64_t ram_ns;            /* to send that */
    uint64_t room_ns;           /* so much longer it may take, to fit still */
    uint64_t fixed_ns;          /* of a downtime: what no pass makes shorter */
    uint64_t sync_ns;           /* to collect the log */
    double bandwidth;
} LongPassLook;

/*
 * Whether sending at @bandwidth waits for the limit @max_bandwidth, 0 for none.
 * No pass takes long then: the limit ends with the switchover, so that what
 * remains takes less time there.
 */
bool long_pass_limited(double bandwidth, uint64_t max_bandwidth);

/* It was sent for @ns, in whatever pass. */
void long_pass_sent(LongPass *l, uint64_t ns);

/* @remaining is known to be dirty; the log may be collected next. */
void long_pass_known(LongPass *l, uint64_t remaining);

/*
 * The log was collected, and what remains fits: how long to send until the next
 * look.  0: the pass is not worth its time.
 */
uint64_t long_pass_next(LongPass *l, const LongPassLook *look);

/* The log was collected, and there is no such pass. */
void long_pass_none(LongPass *l);

#endif
