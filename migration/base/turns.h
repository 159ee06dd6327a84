/*
 * How long threads have a CPU that others wait for
 *
 * A guest that waits for a page needs a CPU several times until it has it: on
 * its own host for the thread that hears of it and asks, for the one that reads
 * the page, and for the vCPU again.  Each of them may find a thread of the
 * migration there that has just begun a turn of some milliseconds.  So those
 * threads take short turns, and who moves much memory yields in between.
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
 * From now on the calling thread has turns of TURNS_SHORT_NS, as far as the
 * kernel looks that often, and is preferred to those with longer ones when it
 * wakes.  Before Linux 6.12 nothing changes, and there is no need: see below.
 * False if it may not, or has a policy that somebody chose for it.
 */
bool turns_short(void);

/*
 * Whoever waits for this CPU goes first.  Since Linux 6.18 that costs the
 * caller one of its turns, so it should have short ones.
 */
void turns_give_way(void);

#endif
