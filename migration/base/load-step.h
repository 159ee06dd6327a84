/*
 * What the destination is doing: the steps of a load, and which follow
 *
 * One load at a time.  Which commands may come in a step is in
 * wire/commands.c.  A step that the table does not allow is a fault of ours,
 * and asserted: what a source sends has been checked before.
 *
 * Threads: a step is taken by whoever reads the stream, that is the main
 * loop's coroutine or the incoming thread in their turns; in between the main
 * loop takes the step to STEP_READY_LISTENING, and those at the beginning and
 * at the end of a load, under the BQL.  Any thread may look.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_LOAD_STEP_H
#define MIGRATION_BASE_LOAD_STEP_H

typedef enum LoadStep {
    STEP_SNAPSHOT,          /* loads a file for itself */
    STEP_PRECOPY,
    STEP_ADVISED,           /* precopy that may become postcopy */
    STEP_DISCARDING,        /* has dropped pages that are out of date */
    STEP_LISTENING,         /* can be sent pages while it loads devices */
    STEP_RUNNING,           /* runs the guest; pages may be missing */
    STEP_LAZY,              /* loads devices; a file has the memory */
    STEP_ENDED,
    STEP_HELD,              /* loads what it must not start yet */
    STEP_HELD_DISCARDING,   /* the same, and has dropped pages */
    STEP_HELD_LISTENING,    /* the same, and pages may be missing */
    STEP_READY,             /* has all of it */
    STEP_READY_LISTENING,   /* has all of it but pages */
    STEP_EPOCHS,            /* keeps a guest that stays at the source */
    STEP__COUNT
} LoadStep;

/* What is so in a step */
typedef enum LoadTrait {
    LOAD_HOLDS = 1 << 0,        /* the guest stays at the source as yet */
    LOAD_READY = 1 << 1,        /* its devices are loaded, it is not started */
    LOAD_LISTENS = 1 << 2,      /* pages can be requested */
    LOAD_DISCARDED = 1 << 3,    /* pages that had come may be missing */
    LOAD_POSTCOPY = 1 << 4,     /* the guest has left the source for good */
    LOAD_EPOCHS = 1 << 5,       /* checkpoints come, and nothing else */
} LoadTrait;

/* A load begins with @first: STEP_SNAPSHOT or STEP_PRECOPY.  BQL. */
void load_step_begin(LoadStep first);

/* Goes to @to.  The table must allow it. */
void load_step_go(LoadStep to);

/* What was held is given up: to the step of precopy that it came from. */
void load_step_back(void);

/* The load is over, however it ended; idempotent.  BQL. */
void load_step_end(void);

/* Any thread. */
LoadStep load_step(void);

/* All of @traits hold in the step.  Any thread. */
bool load_step_has(unsigned traits);

/* Whether the table allows to go from @from to @to. */
bool load_step_allows(LoadStep from, LoadStep to);

#endif
