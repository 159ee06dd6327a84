/*
 * Slowing the guest down, so that a migration converges
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_THROTTLE_H
#define MIGRATION_SOURCE_THROTTLE_H

/* Highest share that can be taken away */
#define THROTTLE_MAX 99

/*
 * Takes @percent of their time away from all vCPUs, from now on; 0 ends it,
 * for those who sleep within 10 ms.  Any thread.
 */
void throttle_set(unsigned percent);

/* What is in force. Any thread. */
unsigned throttle_get(void);

/*
 * Has vCPUs dirty at most @bytes_per_s each from now on, with the dirty
 * ring; 0 ends that.  Migration thread: nobody else may while it runs.
 */
void throttle_dirty_rate(uint64_t bytes_per_s);

#endif
