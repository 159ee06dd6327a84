/*
 * Phases of a migration: which there are, what holds in each, which follow
 *
 * One table a side.  phase_set() is the only writer; a transition that the
 * table does not list is a bug of ours and asserted, never something a peer
 * or a user can cause.
 *
 * Threads: a Phase is written by the thread that drives its side (source: the
 * migration thread, or the main loop before it starts and after it ended)
 * and read by anyone; reads and writes are single atomic accesses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_PHASE_H
#define MIGRATION_BASE_PHASE_H

#include "qapi/qapi-types-migration.h"

typedef enum PhaseSide {
    PHASE_SOURCE,
    PHASE_DESTINATION,
    PHASE_SIDE__COUNT
} PhaseSide;

/*
 * What is guaranteed in a phase.  More than one may hold; code that relies on
 * one asks for it by phase_has() instead of listing phases.
 */
typedef enum PhaseTrait {
    PHASE_RUNNING = 1 << 0,         /* a migration is under way */
    PHASE_GUEST_HERE = 1 << 1,      /* this side owns the guest's CPU state */
    PHASE_GUEST_STOPPED = 1 << 2,   /* by the migration; it will go on */
    PHASE_CANCELLABLE = 1 << 3,     /* migrate_cancel takes effect */
    PHASE_POSTCOPY = 1 << 4,        /* pages may be missing on this side */
    PHASE_PAUSED = 1 << 5,          /* waits for migrate-recover */
    PHASE_RESTARTABLE = 1 << 6,     /* a new migration may begin */
} PhaseTrait;

/* One with no more than a side is in the phase NONE. */
typedef struct Phase {
    PhaseSide side;
    int status;                     /* MigrationStatus; atomic */
} Phase;

/* Current phase; any thread. */
MigrationStatus phase_get(const Phase *p);

/* All of @traits hold in the current phase. */
bool phase_has(const Phase *p, unsigned traits);

/* Whether the table allows to go from @from to @to on @side. */
bool phase_allows(PhaseSide side, MigrationStatus from, MigrationStatus to);

/*
 * Goes to @to.  The table must allow it.  Returns the phase that was left, so
 * that the caller can trace and announce the change.
 */
MigrationStatus phase_set(Phase *p, MigrationStatus to);

/*
 * The same if the phase is @from, for transitions that two threads compete
 * for (the migration thread completes while the user cancels).  Returns
 * whether this caller won.
 */
bool phase_move(Phase *p, MigrationStatus from, MigrationStatus to);

/* Whether status exists on that side at all. */
bool phase_exists(PhaseSide side, MigrationStatus status);

/* Traits of a status on that side. */
unsigned phase_traits(PhaseSide side, MigrationStatus status);

#endif
