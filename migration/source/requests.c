/*
 * The source: what users, devices and the guest request around a switchover
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/core/main-loop.h"
#include "migration/core/permit.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "attempt.h"
#include "requests.h"
#include "state.h"

/* The main loop needs a moment, not more. */
#define REQUESTS_POLL_US 500

bool requests_settle(Error **errp)
{
    while (qemu_system_requests_pending()) {
        if (!source_may_go_on(errp)) {
            return false;
        }
        bql_unlock();
        g_usleep(REQUESTS_POLL_US);
        bql_lock();
    }
    return true;
}

void requests_drop(void)
{
    qemu_system_requests_drop();
}

/* The state that was saved lacks what is about to be changed. */
static void end_attempt(void)
{
    if (attempt_open()) {
        attempt_abort("a request that changes the machine came meanwhile");
    }
}

/* Some commands are coroutines, which must not start the guest. */
void requests_end_attempt(void)
{
    if (attempt_open() && qemu_in_coroutine()) {
        main_loop_run_and_wait(end_attempt);
    } else {
        end_attempt();
    }
}

bool migration_requests_wait(void)
{
    return !migration_permits(MIGRATION_ACT_REQUEST, NULL);
}

static bool is_reason_to_stop(RunState state)
{
    switch (state) {
    case RUN_STATE_DEBUG:
    case RUN_STATE_GUEST_PANICKED:
    case RUN_STATE_INTERNAL_ERROR:
    case RUN_STATE_IO_ERROR:
    case RUN_STATE_PAUSED:
    case RUN_STATE_SHUTDOWN:
    case RUN_STATE_WATCHDOG:
        return true;
    default:
        return false;
    }
}

void requests_note_stop(void)
{
    RunState state;

    if (source.stopped_guest && qemu_vmstop_requested(&state)) {
        migration_note_stop(state);
    }
}

/*
 * The guest is not resumed here.  Its state, as far as it has not been saved,
 * says the same to the destination.
 */
void migration_note_stop(RunState state)
{
    if (!source.stopped_guest || !is_reason_to_stop(state) ||
        !runstate_is_live(source.vm_before)) {
        return;
    }
    source.vm_before = state;
    global_state_store_as(state);
    if (attempt_open()) {
        attempt_abort("the guest was stopped meanwhile");
    }
}

/*
 * What may be done meanwhile
 */

static Moment requests_moment(void)
{
    if (!migration_is_running()) {
        return MOMENT_HERE;
    }
    QEMU_LOCK_GUARD(&source.lock);
    if (migration_in_postcopy()) {
        return MOMENT_AWAY;
    }
    if (source.handed_over || source.state_saved) {
        return MOMENT_HANDED_OVER;
    }
    return source.stopped_guest ? MOMENT_STOPPED : MOMENT_LEAVING;
}

static const PermitUser requests_permit = {
    .moment = requests_moment,
    .before_change = requests_end_attempt,
};

void requests_init(void)
{
    permit_register(PERMIT_SOURCE, &requests_permit);
}
