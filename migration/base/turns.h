/*
 * How long threads have a CPU that others wait for
 *
 * A guest that waits for a page needs a CPU of the host six times until it has
 * the page: itself, who hears of it, who asks, who answers, who reads, and
 * itself again.  Each of them may find a thread of the migration there that has
 * just begun a turn of some milliseconds.  So those threads take short turns,
 * and those who move much memory give way in between.
 *
 * This is not about shares: whoever takes short turns has more of them.
 *
 * Any thread, for itself; no lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_TURNS_H
#define MIGRATION_BASE_TURNS_H

/* The shortest that Linux knows */
#define TURNS_SHORT_NS (100 * 1000)

/*
 * From now on the calling thread has turns of TURNS_SHORT_NS, and is preferred
 * to those with longer ones when it wakes.  Where that is not possible, which
 * is before Linux 6.12, or with a policy that somebody chose for the thread,
 * nothing changes.
 */
void turns_short(void);

/*
 * Whoever waits for this CPU goes first.  Since Linux 6.18 that costs the
 * caller one turn, so it should have short ones.
 */
void turns_give_way(void);

#endif
