/*
 * Checkpoints: for how long epochs stop the guest
 *
 * All of this is pure; whoever shares it brings a lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_PAUSES_H
#define MIGRATION_CHECKPOINT_PAUSES_H

/* How many of the last pauses percentiles are about */
#define PAUSES_KEPT 1000

typedef struct Pauses {
    uint64_t count;             /* of all */
    uint64_t max_us;            /* of all */
    uint32_t us[PAUSES_KEPT];   /* the last ones, in a ring */
} Pauses;

void pauses_add(Pauses *p, uint64_t us);

/*
 * @percent of the last pauses, from 1 to 100, were no longer, in microseconds.
 * 0 if there was none.
 */
uint64_t pauses_percentile(const Pauses *p, unsigned percent);

#endif
