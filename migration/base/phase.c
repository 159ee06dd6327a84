/*
 * Phases of a migration: the tables of both sides and their only writer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "phase.h"

typedef struct PhaseRow {
    bool exists;
    unsigned traits;
    uint32_t next;              /* bit i: status i may follow */
} PhaseRow;

#define TO(status) (1u << MIGRATION_STATUS_##status)
#define ROW(status, traits_, next_) \
    [MIGRATION_STATUS_##status] = { true, (traits_), (next_) }

QEMU_BUILD_BUG_ON(MIGRATION_STATUS__MAX > 32);

/*
 * A migration that fails or is cancelled before the guest's state has left
 * ends with the guest here, in a phase from which a new one may begin.  In
 * postcopy the state has left: there is no way back, only recovery.
 */
static const PhaseRow source_rows[MIGRATION_STATUS__MAX] = {
    ROW(NONE, PHASE_GUEST_HERE | PHASE_RESTARTABLE,
        TO(SETUP)),
    ROW(SETUP, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_CANCELLABLE,
        TO(WAIT_UNPLUG) | TO(ACTIVE) | TO(CANCELLING) | TO(FAILED)),
    ROW(WAIT_UNPLUG, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_CANCELLABLE,
        TO(ACTIVE) | TO(CANCELLING) | TO(FAILED)),
    ROW(ACTIVE, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_CANCELLABLE,
        TO(PRE_SWITCHOVER) | TO(DEVICE) | TO(COMPLETED) | TO(COLO) |
        TO(CANCELLING) | TO(FAILED)),
    ROW(PRE_SWITCHOVER, PHASE_RUNNING | PHASE_GUEST_HERE |
        PHASE_GUEST_STOPPED | PHASE_CANCELLABLE,
        TO(DEVICE) | TO(CANCELLING) | TO(FAILED)),
    ROW(DEVICE, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_GUEST_STOPPED |
        PHASE_CANCELLABLE,
        TO(ACTIVE) | TO(POSTCOPY_ACTIVE) | TO(COMPLETED) | TO(COLO) |
        TO(CANCELLING) | TO(FAILED)),
    ROW(POSTCOPY_ACTIVE, PHASE_RUNNING | PHASE_POSTCOPY,
        TO(COMPLETED) | TO(POSTCOPY_PAUSED) | TO(FAILED)),
    ROW(POSTCOPY_PAUSED, PHASE_RUNNING | PHASE_POSTCOPY | PHASE_PAUSED,
        TO(POSTCOPY_RECOVER_SETUP) | TO(FAILED)),
    ROW(POSTCOPY_RECOVER_SETUP, PHASE_RUNNING | PHASE_POSTCOPY | PHASE_PAUSED,
        TO(POSTCOPY_RECOVER) | TO(POSTCOPY_PAUSED)),
    ROW(POSTCOPY_RECOVER, PHASE_RUNNING | PHASE_POSTCOPY,
        TO(POSTCOPY_ACTIVE) | TO(POSTCOPY_PAUSED)),
    ROW(COLO, PHASE_RUNNING | PHASE_GUEST_HERE,
        TO(COMPLETED) | TO(FAILED)),
    /* It completes if it was cancelled too late: the guest has left. */
    ROW(CANCELLING, PHASE_RUNNING | PHASE_GUEST_HERE,
        TO(CANCELLED) | TO(COMPLETED)),
    ROW(CANCELLED, PHASE_GUEST_HERE | PHASE_RESTARTABLE,
        TO(SETUP)),
    ROW(FAILED, PHASE_GUEST_HERE | PHASE_RESTARTABLE,
        TO(SETUP)),
    ROW(COMPLETED, PHASE_RESTARTABLE,
        TO(SETUP)),
};

/*
 * The destination owns the guest from the moment it may start it.  After a
 * failure before that, another incoming migration may be tried.
 */
static const PhaseRow destination_rows[MIGRATION_STATUS__MAX] = {
    ROW(NONE, PHASE_RESTARTABLE,
        TO(SETUP)),
    ROW(SETUP, PHASE_RUNNING,
        TO(ACTIVE) | TO(FAILED)),
    /* A source that withdraws leaves the destination waiting for the next. */
    ROW(ACTIVE, PHASE_RUNNING,
        TO(SETUP) | TO(POSTCOPY_ACTIVE) | TO(COLO) | TO(COMPLETED) |
        TO(FAILED)),
    ROW(POSTCOPY_ACTIVE, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_POSTCOPY,
        TO(COMPLETED) | TO(POSTCOPY_PAUSED) | TO(FAILED)),
    ROW(POSTCOPY_PAUSED, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_POSTCOPY |
        PHASE_PAUSED,
        TO(POSTCOPY_RECOVER) | TO(FAILED)),
    ROW(POSTCOPY_RECOVER, PHASE_RUNNING | PHASE_GUEST_HERE | PHASE_POSTCOPY,
        TO(POSTCOPY_ACTIVE) | TO(POSTCOPY_PAUSED) | TO(FAILED)),
    ROW(COLO, PHASE_RUNNING,
        TO(COMPLETED) | TO(FAILED)),
    ROW(FAILED, PHASE_RESTARTABLE,
        TO(SETUP)),
    ROW(COMPLETED, PHASE_GUEST_HERE,
        0),
};

static const PhaseRow *phase_row(PhaseSide side, MigrationStatus status)
{
    assert(side < PHASE_SIDE__COUNT && status < MIGRATION_STATUS__MAX);
    return side == PHASE_SOURCE ? &source_rows[status]
                                : &destination_rows[status];
}

bool phase_exists(PhaseSide side, MigrationStatus status)
{
    return phase_row(side, status)->exists;
}

unsigned phase_traits(PhaseSide side, MigrationStatus status)
{
    return phase_row(side, status)->traits;
}

bool phase_allows(PhaseSide side, MigrationStatus from, MigrationStatus to)
{
    return phase_row(side, from)->next & (1u << to);
}

MigrationStatus phase_get(const Phase *p)
{
    return qatomic_read(&p->status);
}

bool phase_has(const Phase *p, unsigned traits)
{
    return (phase_traits(p->side, phase_get(p)) & traits) == traits;
}

bool phase_move(Phase *p, MigrationStatus from, MigrationStatus to)
{
    assert(phase_allows(p->side, from, to));
    return qatomic_cmpxchg(&p->status, (int)from, (int)to) == from;
}

MigrationStatus phase_set(Phase *p, MigrationStatus to)
{
    MigrationStatus from;

    do {
        from = phase_get(p);
    } while (!phase_move(p, from, to));
    return from;
}
