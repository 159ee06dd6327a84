/*
 * What the destination is doing: the table of steps, and the step of the load
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "migration/misc.h"
#include "load-step.h"

typedef struct StepRow {
    unsigned traits;
    uint32_t next;              /* bit i: step i may follow */
} StepRow;

#define TO(step) (1u << STEP_##step)
#define ROW(step, traits_, next_) [STEP_##step] = { (traits_), (next_) }

/* Every step may be followed by STEP_ENDED. */
static const StepRow steps[STEP__COUNT] = {
    ROW(SNAPSHOT, 0, 0),
    ROW(PRECOPY, 0,
        TO(ADVISED) | TO(HELD) | TO(LAZY) | TO(EPOCHS)),
    ROW(ADVISED, 0,
        TO(DISCARDING) | TO(LISTENING) | TO(HELD)),
    ROW(DISCARDING, LOAD_DISCARDED,
        TO(DISCARDING) | TO(LISTENING) | TO(HELD_DISCARDING)),
    ROW(LISTENING, LOAD_DISCARDED | LOAD_LISTENS | LOAD_POSTCOPY,
        TO(RUNNING)),
    ROW(RUNNING, LOAD_DISCARDED | LOAD_LISTENS | LOAD_POSTCOPY, 0),
    ROW(LAZY, LOAD_DISCARDED,
        TO(RUNNING)),
    ROW(ENDED, 0, 0),
    ROW(HELD, LOAD_HOLDS,
        TO(HELD_DISCARDING) | TO(HELD_LISTENING) | TO(READY) |
        TO(PRECOPY) | TO(ADVISED)),
    ROW(HELD_DISCARDING, LOAD_HOLDS | LOAD_DISCARDED,
        TO(HELD_DISCARDING) | TO(HELD_LISTENING) | TO(READY) | TO(ADVISED)),
    ROW(HELD_LISTENING, LOAD_HOLDS | LOAD_DISCARDED | LOAD_LISTENS,
        TO(READY_LISTENING) | TO(ADVISED)),
    ROW(READY, LOAD_HOLDS | LOAD_READY,
        TO(PRECOPY) | TO(ADVISED)),
    ROW(READY_LISTENING,
        LOAD_HOLDS | LOAD_READY | LOAD_DISCARDED | LOAD_LISTENS,
        TO(RUNNING) | TO(ADVISED)),
    ROW(EPOCHS, LOAD_EPOCHS, 0),
};

static int now = STEP_ENDED;    /* LoadStep; atomic */
static bool advised;            /* in this load; atomic */

LoadStep load_step(void)
{
    return qatomic_load_acquire(&now);
}

bool load_step_has(unsigned traits)
{
    return (steps[load_step()].traits & traits) == traits;
}

bool load_step_allows(LoadStep from, LoadStep to)
{
    return to == STEP_ENDED || (steps[from].next & (1u << to));
}

void load_step_begin(LoadStep first)
{
    assert(first == STEP_SNAPSHOT || first == STEP_PRECOPY);
    qatomic_set(&advised, false);
    qatomic_store_release(&now, first);
}

void load_step_go(LoadStep to)
{
    assert(load_step_allows(load_step(), to));
    if (to == STEP_ADVISED) {
        qatomic_set(&advised, true);
    }
    qatomic_store_release(&now, to);
}

void load_step_back(void)
{
    assert(load_step_has(LOAD_HOLDS));
    load_step_go(qatomic_read(&advised) ? STEP_ADVISED : STEP_PRECOPY);
}

void load_step_end(void)
{
    load_step_go(STEP_ENDED);
}

bool migration_in_incoming_postcopy(void)
{
    return load_step_has(LOAD_DISCARDED);
}

bool migration_incoming_postcopy_advised(void)
{
    return qatomic_read(&advised) && load_step() != STEP_ENDED;
}
