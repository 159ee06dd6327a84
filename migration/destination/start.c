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
#include "migration/base/clock.h"
#include "migration/base/load-step.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/core/permit.h"
#include "migration/cpr.h"
#include "migration/device/load-threads.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/rdma/rdma.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/wire/stream.h"
#include "migration/yank_functions.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "file-channels.h"
#include "guest-start.h"
#include "multifd.h"
#include "postcopy.h"
#include "prepare.h"
#include "return-path.h"
#include "start.h"
#include "state.h"
#include "thread.h"

/* A thread that is stuck for longer is left behind when QEMU ends. */
#define SHUTDOWN_MS 3000
#define QUIT_REASON "QEMU was ended before the migration was complete"

static void take_main_stream(QEMUFile *f);

static Moment destination_moment(void)
{
    if (!migration_is_loading()) {
        return MOMENT_HERE;
    }
    /* It is started some time before the migration has ended. */
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return destination.loading ? MOMENT_LOADING : MOMENT_AWAITED;
    }
    switch (phase_get(&destination_phase)) {
    case MIGRATION_STATUS_POSTCOPY_PAUSED:
    case MIGRATION_STATUS_POSTCOPY_RECOVER:
        return MOMENT_CUT_OFF;
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
        return MOMENT_ARRIVING;
    default:
        return MOMENT_ENDING;
    }
}

static const PermitUser destination_permit = { .moment = destination_moment };

void destination_init(void)
{
    permit_register(PERMIT_DESTINATION, &destination_permit);
    reply_init();
    postcopy_dest_init();
    vmstate_load_init();
}

/*
 * The end
 */

/* What only one load at a time can have.  The stream is left. */
static QEMUFile *let_go_of_load(void)
{
    QEMUFile *f = postcopy_dest_take_stream();

    multifd_incoming_end();
    if (destination.epochs) {
        destination.epochs->forget();
    }
    /* No thread that reads a file may outlive the memory that it is for. */
    file_channels_close();
    vmstate_load_cleanup();
    rdma_destination_end();
    if (f) {
        migration_ioc_unregister_yank_from_file(f);
    }
    destination.loading = false;
    return f;
}

/* The same, and what only one migration at a time can have */
static QEMUFile *let_go(void)
{
    QEMUFile *f = let_go_of_load();

    cpr_set_incoming_mode(MIG_MODE_NONE);
    transport_end();
    return f;
}

static void take_leave(QEMUFile *f, bool ok)
{
    g_autoptr(Error) err = notify_first_error();

    reply_close(ok, err ? error_get_pretty(err) : QUIT_REASON);
    if (f) {
        qemu_fclose(f);
    }
}

static void clean_up(bool ok)
{
    take_leave(let_go(), ok);
}

static void destination_complete(void)
{
    notify_phase_set(&destination_phase, MIGRATION_STATUS_COMPLETED);
    clean_up(true);
}

static void take_leave_well(void *opaque)
{
    take_leave(g_steal_pointer(&destination.left), true);
}

/* In the main loop, or in the thread of the vCPU that runs last. */
static void guest_told(void)
{
    main_loop_run(take_leave_well, NULL);
}

static void end_if_asked_to(void)
{
    if (destination.exit_on_error) {
        error_report_err(notify_first_error());
        exit(EXIT_FAILURE);
    }
}

static void destination_fail(void)
{
    notify_phase_set(&destination_phase, MIGRATION_STATUS_FAILED);
    clean_up(false);
    end_if_asked_to();
}

/*
 * The guest has to run somewhere.  A source that is told that it cannot run
 * here resumes it; one that cannot be told has given it up.  Takes over @err.
 */
static void no_disks(Error *err)
{
    bool told;

    error_prepend(&err, "the guest cannot be started: ");
    migrate_set_error(migrate_get_current(), err);
    told = reply_refuse(error_get_pretty(err));
    if (!told || !destination.exit_on_error) {
        error_report_err(error_copy(err));
    }
    error_free(err);
    if (told) {
        destination_fail();
    } else {
        guest_keep();
        destination_complete();
    }
}

/*
 * Who is told that the guest runs may ask at once, or migrate it again: before
 * the main loop goes on, nothing is left but what the source waits for.
 */
static void destination_start_guest(int64_t since_ns)
{
    Error *err = NULL;

    destination.report.load_ns = now_ns() - since_ns;
    if (guest_start(guest_told, &err) == GUEST_NO_DISKS) {
        no_disks(err);
        return;
    }
    destination.left = let_go();
    notify_phase_set(&destination_phase, MIGRATION_STATUS_COMPLETED);
}

void epochs_take_over(void)
{
    reply_accept();
    destination_start_guest(now_ns());
}

void epochs_fail(Error *err)
{
    error_report_err(error_copy(err));
    notify_error(err);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_FAILED);
    clean_up(false);
}

/* Channels of a source that has gone must not be taken for the next one's. */
static void await_source(void)
{
    transport_listen_drain();
    if (migrate_multifd() && !migrate_file_channels()) {
        multifd_incoming_begin(take_main_stream);
    }
    notify_phase_set(&destination_phase, MIGRATION_STATUS_SETUP);
}

/*
 * The source has seen that the guest does not fit, or wanted to know no more
 * than that.  It is told when it may come again.
 */
static void destination_released(void)
{
    Error *err = NULL;

    destination.withdrawn = false;
    if (transport_accepts_more()) {
        QEMUFile *f = let_go_of_load();

        await_source();
        take_leave(f, true);
        return;
    }
    error_setg(&err, "the source has compared both sides and withdrawn: "
               "it can only connect again after another 'migrate-incoming', "
               "as this is no socket that listens");
    notify_error(err);
    destination_fail();
}

/* There will be no source. Takes over @err. */
static void destination_fail_early(Error *err)
{
    error_prepend(&err, "load of migration failed: ");
    if (!destination.exit_on_error) {
        error_report_err(error_copy(err));
    }
    notify_error(err);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_FAILED);
    cpr_set_incoming_mode(MIG_MODE_NONE);
    multifd_incoming_end();
    file_channels_close();
    transport_end();
    end_if_asked_to();
}

static void destination_thread_ended(void *opaque)
{
    bool late = load_step_has(LOAD_POSTCOPY);

    qemu_thread_join(&destination.thread);
    multifd_incoming_end();
    if (main_loop_is_ending()) {
        /* The source is told that the guest will not run here. */
        clean_up(false);
    } else if (destination.withdrawn) {
        destination_released();
    } else if (prepare_committed()) {
        destination_complete();
    } else if (!destination.loaded) {
        destination_fail();
    } else if (late) {
        /* load_late() waits for the guest: it runs, if it was to. */
        destination_complete();
    } else if (load_step_has(LOAD_EPOCHS)) {
        destination.epochs->ended();
    } else {
        destination_start_guest(stream_arrived_ns(destination.from_src));
    }
}

/*
 * The beginning
 */

/* The stream is read by a thread and by coroutines, so nobody may block. */
static void take_main_stream(QEMUFile *f)
{
    /* Nor must answers wait, and the guest with them. */
    qio_channel_set_delay(qemu_file_get_ioc(f), false);
    qemu_file_set_blocking(f, false);
    postcopy_dest_set_stream(f);
    rdma_destination_begin(qemu_file_get_ioc(f));
    notify_phase_set(&destination_phase, MIGRATION_STATUS_ACTIVE);
    destination.withdrawn = false;
    destination.report = (DowntimeReport) { 0 };
    qatomic_set(&destination.busy, true);
    qemu_thread_create(&destination.thread, MIGRATION_THREAD_DST_MAIN,
                       destination_thread, destination_thread_ended,
                       QEMU_THREAD_JOINABLE);
}

/*
 * Without multifd the first connection is the main one, as the source makes
 * the other one later; with it, when all others are there.
 */
static bool incoming_accepted(QIOChannel *ioc, Error *err, void *opaque)
{
    if (err) {
        destination_fail_early(err);
        return false;
    }
    if (migrate_multifd() && !migrate_file_channels() &&
        !(migrate_postcopy_preempt() && multifd_incoming_met())) {
        multifd_incoming_offer(ioc);
        return true;
    }
    if (!migrate_multifd()) {
        /* It may have been turned off since listening began. */
        multifd_incoming_end();
    }
    if (destination.from_src && !migrate_postcopy_preempt()) {
        /* There is a source that may still withdraw. */
        migration_ioc_unregister_yank(ioc);
        object_unref(OBJECT(ioc));
        return true;
    }
    if (destination.from_src) {
        bool more = postcopy_dest_urgent_channel(ioc);

        object_unref(OBJECT(ioc));
        return more;
    }
    take_main_stream(qemu_file_new_input(ioc));
    object_unref(OBJECT(ioc));
    return migrate_postcopy_preempt() || transport_accepts_more();
}

void destination_shutdown(void)
{
    int64_t end = now_ms() + SHUTDOWN_MS;

    transport_listen_stop();
    if (load_step_has(LOAD_POSTCOPY)) {
        postcopy_dest_quit();
    } else if (destination.from_src) {
        if (runstate_check(RUN_STATE_INMIGRATE)) {
            /* The guest has not run here, and will not. */
            reply_refuse(QUIT_REASON);
        }
        qemu_file_shutdown(destination.from_src);
    }
    multifd_incoming_shutdown();
    bql_unlock();
    while (qatomic_read(&destination.busy) && now_ms() < end) {
        g_usleep(1000);
    }
    bql_lock();
}

/* What a failed load has left of devices must not be added to. */
static bool can_start_over(Error **errp)
{
    ERRP_GUARD();

    if (!destination.touched || permit_reset_of_cpus(errp)) {
        return true;
    }
    error_prepend(errp, "QEMU has to be started anew, as a migration into it "
                  "has failed: ");
    return false;
}

static void destination_start_over(void)
{
    if (destination.touched) {
        qemu_system_reset(SHUTDOWN_CAUSE_NONE);
        destination.touched = false;
    }
}

bool destination_start(MigrationAddress *addr, bool exit_on_error, Error **errp)
{
    if (!phase_has(&destination_phase, PHASE_RESTARTABLE) &&
        !(destination.epochs && destination.epochs->give_up())) {
        error_setg(errp, "The incoming migration has already been started");
        return false;
    }
    if (!runstate_check(RUN_STATE_INMIGRATE)) {
        error_setg(errp, "'-incoming' was not specified on the command line");
        return false;
    }
    if (!can_start_over(errp) || !rdma_permits(addr, errp) ||
        !file_channels_open(addr, errp)) {
        return false;
    }
    if (!transport_listen(addr, incoming_accepted, NULL, errp)) {
        file_channels_close();
        return false;
    }
    destination_start_over();
    destination.exit_on_error = exit_on_error;
    notify_clear_error();
    if (migrate_multifd() && !migrate_file_channels()) {
        multifd_incoming_begin(take_main_stream);
    }
    notify_phase_set(&destination_phase, MIGRATION_STATUS_SETUP);
    cpr_state_close();
    return true;
}
