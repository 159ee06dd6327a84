/*
 * The destination: start and end of an incoming migration, in the main loop
 *
 * All functions: under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/cpr.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/yank_functions.h"
#include "system/runstate.h"
#include "system/system.h"
#include "ctx.h"
#include "incoming.h"
#include "reply.h"
#include "vmstate.h"

/* A thread that is stuck for longer is left behind when QEMU ends. */
#define SHUTDOWN_MS 3000

Incoming incoming;

void incoming_init(void)
{
    phase_init(&incoming.phase, PHASE_DESTINATION);
    reply_init();
}

bool migration_incoming_started(void)
{
    return phase_get(&incoming.phase) != MIGRATION_STATUS_NONE;
}

/* Postcopy is not available yet. */
bool migration_in_incoming_postcopy(void)
{
    return phase_has(&incoming.phase, PHASE_POSTCOPY);
}

bool migration_incoming_postcopy_advised(void)
{
    return migration_in_incoming_postcopy();
}

/*
 * The end
 */

static void clean_up(bool ok)
{
    vmstate_load_cleanup();
    migration_ioc_unregister_yank_from_file(incoming.from_src);
    reply_close(ok);
    qemu_fclose(g_steal_pointer(&incoming.from_src));
    cpr_set_incoming_mode(MIG_MODE_NONE);
    transport_end();
}

/*
 * The state of the source's guest; one that does not tell had it running.
 * States that are about something that goes on there make no sense here.
 */
static RunState wanted_state(void)
{
    RunState state = global_state_received() ? global_state_get_runstate()
                                             : RUN_STATE_RUNNING;

    switch (state) {
    case RUN_STATE_DEBUG:
    case RUN_STATE_INMIGRATE:
    case RUN_STATE_RESTORE_VM:
    case RUN_STATE_SAVE_VM:
    case RUN_STATE_COLO:
        return RUN_STATE_PAUSED;
    default:
        return state;
    }
}

static void start_guest(void)
{
    dirty_bitmap_mig_before_vm_start();
    if (!runstate_is_live(wanted_state())) {
        runstate_set(wanted_state());
    } else if (!autostart) {
        runstate_set(RUN_STATE_PAUSED);
    } else if (migration_block_activate(NULL)) {
        /* Otherwise it stays stopped, with its disks closed. */
        vm_start();
    }
    trace_vmstate_downtime_checkpoint("dst-precopy-bh-vm-started");
    qemu_announce_self(&incoming.announce, migrate_announce_params());
}

static void complete(void)
{
    start_guest();
    ctx_phase_set(&incoming.phase, MIGRATION_STATUS_COMPLETED);
    clean_up(true);
}

static void fail(void)
{
    ctx_phase_set(&incoming.phase, MIGRATION_STATUS_FAILED);
    clean_up(false);
    if (incoming.exit_on_error) {
        error_report_err(ctx_error());
        exit(EXIT_FAILURE);
    }
}

static void thread_ended(void *opaque)
{
    qemu_thread_join(&incoming.thread);
    if (ctx_ending()) {
        /* The source is told that the guest will not run here. */
        clean_up(false);
    } else if (incoming.loaded) {
        complete();
    } else {
        fail();
    }
}

/*
 * The beginning
 */

/* The stream is read by a thread and by coroutines, so nobody may block. */
static bool accepted(QIOChannel *ioc, void *opaque)
{
    incoming.from_src = qemu_file_new_input(ioc);
    object_unref(OBJECT(ioc));
    qemu_file_set_blocking(incoming.from_src, false);
    ctx_phase_set(&incoming.phase, MIGRATION_STATUS_ACTIVE);
    incoming.touched = true;
    qatomic_set(&incoming.busy, true);
    qemu_thread_create(&incoming.thread, MIGRATION_THREAD_DST_MAIN,
                       incoming_thread, thread_ended, QEMU_THREAD_JOINABLE);
    return false;
}

void incoming_shutdown(void)
{
    int64_t end = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + SHUTDOWN_MS;

    transport_listen_stop();
    if (incoming.from_src) {
        qemu_file_shutdown(incoming.from_src);
    }
    bql_unlock();
    while (qatomic_read(&incoming.busy) &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end) {
        g_usleep(1000);
    }
    bql_lock();
}

bool incoming_start(MigrationAddress *addr, bool exit_on_error, Error **errp)
{
    if (!phase_has(&incoming.phase, PHASE_RESTARTABLE)) {
        error_setg(errp, "The incoming migration has already been started");
        return false;
    }
    if (!runstate_check(RUN_STATE_INMIGRATE)) {
        error_setg(errp, "'-incoming' was not specified on the command line");
        return false;
    }
    if (!transport_listen(addr, accepted, NULL, errp)) {
        return false;
    }
    if (incoming.touched) {
        /* What a failed load has left of devices must not be added to. */
        qemu_system_reset(SHUTDOWN_CAUSE_NONE);
        incoming.touched = false;
    }
    incoming.exit_on_error = exit_on_error;
    ctx_clear_error();
    ctx_phase_set(&incoming.phase, MIGRATION_STATUS_SETUP);
    cpr_state_close();
    return true;
}
