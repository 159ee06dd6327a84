/*
 * A limit of so many bytes a second, kept to on average
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A schedule says when the bytes sent so far were allowed to have been sent.
 * Whoever sends may be ahead of it by up to RATE_GRANULE_NS; then it has to
 * wait until it is no longer ahead.  So it wakes up at most once a granule,
 * and pieces of any size are sent at once and waited for afterwards: the
 * average is right whatever their size.  Who lags behind, because it woke up
 * late or had something else to do, makes up for RATE_CREDIT_NS of it.
 *
 * Pure: time is passed in, nanoseconds on one monotonic clock.
 * Threads: a Rate has one user at a time.
 */

#ifndef MIGRATION_BASE_RATE_H
#define MIGRATION_BASE_RATE_H

#define RATE_GRANULE_NS (10 * 1000 * 1000)
#define RATE_CREDIT_NS  (50 * 1000 * 1000)

typedef struct Rate {
    uint64_t bytes_per_s;   /* 0: no limit */
    bool started;           /* the first bytes start the schedule */
    int64_t at_ns;          /* when ahead_ns was true */
    double ahead_ns;        /* of the schedule; negative: behind */
} Rate;

/*
 * From now on @bytes_per_s, 0 for no limit.  What was sent too early by the
 * old limit is forgotten: a new limit starts with a clean sheet.
 */
void rate_set(Rate *rate, uint64_t bytes_per_s);

/* @bytes were sent, at @now_ns. */
void rate_spend(Rate *rate, uint64_t bytes, int64_t now_ns);

/* How long to wait before more may be sent; 0 if it may be at once */
uint64_t rate_wait_ns(const Rate *rate, int64_t now_ns);

/*
 * Bytes that may be sent within @ns from now, for those who do not look at the
 * clock meanwhile: with as much, somebody has to wait at the end of that time.
 * UINT64_MAX: no limit
 */
uint64_t rate_room(const Rate *rate, int64_t now_ns, int64_t ns);

#endif
