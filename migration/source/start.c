/*
 * The source: start and end of an outgoing migration, in the main loop
 *
 * All functions: under the BQL, if nothing else is said.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "io/channel-socket.h"
#include "migration/base/clock.h"
#include "migration/core/convergence-check.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/core/permit.h"
#include "migration/core/settings.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/rdma/rdma.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/yank_functions.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "check.h"
#include "cpr-source.h"
#include "loop-latency.h"
#include "multifd.h"
#include "postcopy-resume.h"
#include "postcopy.h"
#include "requests.h"
#include "start.h"
#include "state.h"
#include "switchover.h"
#include "thread.h"
#include "throttle.h"

/* A thread that is stuck for longer is left behind when QEMU ends. */
#define SHUTDOWN_MS 3000

void source_init(void)
{
    source_state_init();
    requests_init();
}

/*
 * The end
 */

/* The machine may have been reset since the guest was stopped. */
static void guest_left(void)
{
    if (runstate_check(RUN_STATE_PRELAUNCH)) {
        runstate_set(RUN_STATE_FINISH_MIGRATE);
    }
    runstate_set(RUN_STATE_POSTMIGRATE);
}

/*
 * The phase comes last: who sees it may start another migration, or expect
 * the guest to run.
 */
static void source_finish(bool succeeded)
{
    bool cancelled = phase_get(&source_phase) == MIGRATION_STATUS_CANCELLING;
    /* It may have been cancelled too late. */
    MigrationStatus end = succeeded ? MIGRATION_STATUS_COMPLETED :
                          cancelled ? MIGRATION_STATUS_CANCELLED
                                    : MIGRATION_STATUS_FAILED;
    Error *err;

    throttle_set(0);
    loop_latency_forget();
    if (main_loop_is_ending()) {
        /* The guest stays as it is. */
    } else if (source.lost ||
               (succeeded && !migrate_background_snapshot())) {
        guest_left();
        requests_drop();
    } else {
        switchover_undo();
    }
    /* The return path's thread may look at what the cleanup frees. */
    multifd_close(succeeded);
    source_close_streams(succeeded);
    postcopy_cleanup();
    qemu_savevm_state_cleanup();
    cpr_hand_over_end();
    if (source.epochs) {
        source.epochs->ended();
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.view.total_ms = now_ms() - source.view.start_ms;
    }
    transport_end();
    notify_phase_set(&source_phase, end);

    err = end == MIGRATION_STATUS_FAILED ? notify_first_error() : NULL;
    if (err) {
        error_report_err(err);
    }
    if (!succeeded || !source.postcopy) {
        notify_event(succeeded ? MIG_EVENT_PRECOPY_DONE
                             : MIG_EVENT_PRECOPY_FAILED, NULL);
    }
}

/* All was written: those who are to know of the end are told before it. */
static bool become_new(Error **errp)
{
    if (migrate_mode() == MIG_MODE_CPR_EXEC) {
        notify_event(MIG_EVENT_PRECOPY_DONE, NULL);
    }
    return cpr_become_new(errp);
}

static void source_thread_ended(void *opaque)
{
    Error *err = NULL;

    qemu_thread_join(&source.thread);
    if (source.succeeded && cpr_stops_guest() &&
        !main_loop_is_ending() && !become_new(&err)) {
        notify_error(err);
        source.succeeded = false;
    }
    source_finish(source.succeeded);
}

/* For failures before there is a thread. Takes over @err. */
static void source_fail_early(Error *err)
{
    notify_error(err);
    source_finish(false);
}

/*
 * The beginning
 */

static bool vm_may_leave(Error **errp)
{
    const char *why = NULL;

    if (migration_is_running()) {
        why = "There's a migration process in progress";
    } else if (source_is_checking()) {
        why = "A migrate-check is in progress";
    } else if (runstate_check(RUN_STATE_INMIGRATE)) {
        why = "Guest is waiting for an incoming migration";
    } else if (runstate_check(RUN_STATE_POSTMIGRATE)) {
        why = "Can't migrate the vm that was paused due to previous migration";
    } else if (kvm_hwpoisoned_mem()) {
        why = "Can't migrate this vm with hardware poisoned memory, please "
              "reboot the vm and try again";
    }
    if (why) {
        error_setg(errp, "%s", why);
    }
    return !why && migration_permits(MIGRATION_ACT_MIGRATE, errp) &&
           !migration_is_blocked(errp) && multifd_possible(errp);
}

/* Nothing of the last migration is left. */
static bool source_begin(Error **errp)
{
    if (qemu_savevm_state_prepare(errp) ||
        (migrate_strict_downtime() && !strict_possible(errp))) {
        qemu_savevm_state_cleanup();
        return false;
    }
    notify_clear_error();
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_reset_vfio_bytes_transferred();
    postcopy_forget_counts();
    multifd_forget();
    while (!qemu_sem_timedwait(&source.wake, 0)) {
        /* what is left of earlier calls */
    }
    qatomic_set(&source.go_on, false);
    qatomic_set(&source.start_postcopy, false);
    source.succeeded = source.lost = source.stopped_guest = false;
    source.stopped_first = false;
    source.state_saved = source.start_sent = source.holds = false;
    source.unsettled = source.returned = 0;
    source.postcopy = false;
    source.changes_before = settings_changes();
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.handed_over = false;
        source.view = (SourceView) {
            .start_ms = now_ms(),
            .policy.downtime.likely = POLICY_NEVER,
        };
    }
    notify_phase_set(&source_phase, MIGRATION_STATUS_SETUP);
    return true;
}

/* Takes over @ioc and @err, of which there is one. */
static void source_connected(QIOChannel *ioc, Error *err, void *opaque)
{
    source.connecting = false;
    if (err) {
        source_fail_early(err);
        return;
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        /* The last bytes must not wait until those before are acknowledged. */
        qio_channel_set_delay(ioc, false);
        source.to_dst = qemu_file_new_output(ioc);
    }
    object_unref(OBJECT(ioc));
    if (notify_event(MIG_EVENT_PRECOPY_SETUP, &err)) {
        source_open_return_path(postcopy_return_path());
    } else {
        /* Some device may have to be unplugged by now: the thread waits. */
        qemu_file_set_error_obj(source.to_dst, -EINVAL, err);
    }
    migration_rate_set(migrate_max_bandwidth());
    qatomic_set(&source.alive, true);
    qemu_thread_create(&source.thread, MIGRATION_THREAD_SRC_MAIN, source_thread,
                       source_thread_ended, QEMU_THREAD_JOINABLE);
}

static void connect_to_address(void)
{
    Error *err = NULL;

    if (!transport_connect(source.addr, source_needs_answers(),
                           source_connected, NULL, &err)) {
        source.connecting = false;
        source_fail_early(err);
    }
}

bool source_start(MigrationAddress *addr, MigrationChannelList *channels,
                  Error **errp)
{
    Error *err = NULL;

    if (!vm_may_leave(errp) || !rdma_permits(addr, errp) ||
        !cpr_possible(addr, channels, errp) || !convergence_possible(errp) ||
        (migrate_checkpoint() && !source.epochs->possible(addr, errp)) ||
        !source_begin(errp)) {
        return false;
    }
    source_set_address(addr);
    source.connecting = true;
    if ((migrate_checkpoint() && !source.epochs->prepare(&err)) ||
        !cpr_hand_over(channels, connect_to_address, &err)) {
        source.connecting = false;
        source_fail_early(err);
    }
    if (phase_get(&source_phase) == MIGRATION_STATUS_FAILED) {
        error_propagate(errp, notify_first_error());
        return false;
    }
    return true;
}

/*
 * On the way
 */

/* Whether there is something to cancel, which nobody else has done. */
static bool begin_to_cancel(void)
{
    MigrationStatus now;

    do {
        now = phase_get(&source_phase);
        if (!(phase_traits(PHASE_SOURCE, now) & PHASE_CANCELLABLE)) {
            return false;
        }
    } while (!notify_phase_move(&source_phase, now,
                                MIGRATION_STATUS_CANCELLING));
    return true;
}

bool source_cancel(Error **errp)
{
    if (phase_get(&source_phase) == MIGRATION_STATUS_POSTCOPY_PAUSED &&
        !main_loop_is_ending()) {
        return postcopy_give_up(errp);
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        if (source.handed_over && migration_is_running()) {
            error_setg(errp, "The destination has the guest or is about to: "
                       "it is too late to cancel; 'yank' cuts the connection");
            return false;
        }
        if (!begin_to_cancel()) {
            return true;
        }
    }
    trace_migration_cancel();
    throttle_set(0);
    if (source.connecting) {
        source.connecting = false;
        cpr_hand_over_end();
        transport_connect_cancel();
        source_finish(false);
        return true;
    }
    if (source.epochs && source.epochs->cancel()) {
        qemu_sem_post(&source.wake);
        return true;
    }
    /* The thread may wait for any of these. */
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        if (source.return_path) {
            return_path_hang_up(source.return_path);
        }
        if (source.to_dst) {
            qemu_file_shutdown(source.to_dst);
        }
        multifd_shutdown();
    }
    qemu_sem_post(&source.wake);
    return true;
}

void source_shutdown(void)
{
    int64_t end = now_ms() + SHUTDOWN_MS;

    source_check_give_up();
    source_cancel(NULL);
    bql_unlock();
    while (qatomic_read(&source.alive) && !qatomic_read(&source.handed_over) &&
           now_ms() < end) {
        g_usleep(1000);
    }
    bql_lock();
}

bool source_continue(MigrationStatus phase, Error **errp)
{
    MigrationStatus now = phase_get(&source_phase);

    if (now != phase) {
        error_setg(errp, "Migration not in expected state: %s",
                   MigrationStatus_str(now));
        return false;
    }
    if (now != MIGRATION_STATUS_PRE_SWITCHOVER) {
        error_setg(errp, "Migration does not wait in state: %s",
                   MigrationStatus_str(now));
        return false;
    }
    qatomic_set(&source.go_on, true);
    qemu_sem_post(&source.wake);
    return true;
}

bool source_start_postcopy(Error **errp)
{
    if (!migrate_postcopy()) {
        error_setg(errp, "Enable postcopy with migrate_set_capability before "
                   "the start of migration");
        return false;
    }
    if (phase_get(&source_phase) == MIGRATION_STATUS_NONE) {
        error_setg(errp, "Postcopy must be started after migration has been "
                   "started");
        return false;
    }
    if (!migration_is_running()) {
        return true;    /* Who asks cannot know that it has just ended. */
    }
    qatomic_set(&source.start_postcopy, true);
    qemu_sem_post(&source.wake);
    return true;
}

/*
 * Snapshots
 */

static void set_stream(QEMUFile *f)
{
    QEMU_LOCK_GUARD(&source.lock);
    source.to_dst = f;
}

bool source_begin_snapshot(QEMUFile *f, Error **errp)
{
    if (migration_is_running()) {
        error_setg(errp, "There's a migration process in progress");
        return false;
    }
    if (!source_begin(errp)) {
        return false;
    }
    set_stream(f);
    return true;
}

void source_end_snapshot(bool ok)
{
    qemu_savevm_state_cleanup();
    set_stream(NULL);
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.view.total_ms = now_ms() - source.view.start_ms;
    }
    if (ok) {
        /* Nobody is told of this step: there was none. */
        phase_set(&source_phase, MIGRATION_STATUS_ACTIVE);
    }
    notify_phase_set(&source_phase, ok ? MIGRATION_STATUS_COMPLETED
                                    : MIGRATION_STATUS_FAILED);
}
