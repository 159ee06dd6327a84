/*
 * Loading a VM: from a source, by a thread of its own, or from a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "qemu/yank.h"
#include "io/channel.h"
#include "migration/base/clock.h"
#include "migration/base/load-step.h"
#include "migration/core/fault-inject.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/core/vmstate.h"
#include "migration/device/load-threads.h"
#include "migration/device/load.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/wire/stream.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/xen.h"
#include "greeting.h"
#include "guest-start.h"
#include "lazy.h"
#include "multifd.h"
#include "postcopy.h"
#include "prepare.h"
#include "return-path.h"
#include "state.h"
#include "thread.h"

#define LOAD_FAILED "load of migration failed: "

/* How long a source that was told of a failure may take to close */
#define LINGER_MS 1000
#define LINGER_BYTES (64 * KiB)

/* The one load under way. */
static DeviceLoad current_load;

/* Records for the main loop, which holds the BQL. */
static struct {
    DeviceLoadStream stream;
    DeviceLoadStep step;
    Error *err;
    /*
     * The package is the state of a guest to be held.  Not the step, which
     * COMMIT changes while the main loop is still loading the package.
     * Written by whoever has the turn, the main loop at LISTEN and the thread
     * before it begins; the semaphores below order that with who reads it.
     */
    bool held;
    int64_t package_ns;         /* when it had come */
    /*
     * The thread may go on.  No event: the next turn could begin while the main
     * loop was still about to wake up who waited for the last one, and an event
     * takes any wake-up for its own.
     */
    QemuSemaphore done;
    QemuSemaphore state;        /* that of a held guest is loaded, or cannot */
    QemuEvent package;          /* the guest was started, or cannot be */
} load_turn;

static unsigned acks_needed;    /* devices that were not ready; BQL */

void vmstate_load_init(void)
{
    qemu_sem_init(&load_turn.done, 0);
    qemu_sem_init(&load_turn.state, 0);
    qemu_event_init(&load_turn.package, false);
}

/*
 * Commands; under the BQL, but for those that come beside or after a package
 */

/* Nobody here will ask for time, so do not let the source wait. */
static bool ack_if_ready(Error **errp)
{
    if (migrate_switchover_ack() && !acks_needed && !reply_switchover_ack()) {
        error_setg(errp, "SWITCHOVER_ACK cannot be sent to the source");
        return false;
    }
    return true;
}

static bool open_return_path(QEMUFile *f, Error **errp)
{
    if (!reply_open(f)) {
        error_setg(errp, "The return path is open already");
        return false;
    }
    return ack_if_ready(errp);
}

static bool load_ping(QEMUFile *f, Error **errp)
{
    uint32_t value = qemu_get_be32(f);

    if (!stream_check(f, errp)) {
        return false;
    }
    trace_loadvm_process_command_ping(value);
    if (!reply_is_open() && postcopy_dest_may_pause()) {
        /* The connection broke while the package was being loaded. */
        return true;
    }
    if (!reply_is_open()) {
        error_setg(errp, "PING received, but there is no return path for an "
                   "answer");
        return false;
    }
    /* If the source is gone, reading the stream fails. */
    reply_pong(value);
    return true;
}

static bool not_available(Error **errp)
{
    error_setg(errp, "the source requests a feature that is not available "
               "in this version of Ferry");
    return false;
}

/*
 * The incoming thread goes on with the stream around the package: it is woken
 * as if this turn of the main loop was over.
 */
static bool listen_and_share(Error **errp)
{
    bool held = load_step_has(LOAD_HOLDS);

    if (!(held ? prepare_listen(errp) : postcopy_dest_listen(errp))) {
        return false;
    }
    load_turn.held = held;
    qemu_sem_post(&load_turn.done);
    return true;
}

static bool load_take_command(void *opaque, unsigned command, QEMUFile *f,
                              uint16_t len, Error **errp)
{
    switch (command) {
    case WIRE_CMD_OPEN_RETURN_PATH:
        return open_return_path(f, errp);
    case WIRE_CMD_PING:
        return load_ping(f, errp);
    case WIRE_CMD_POSTCOPY_ADVISE:
        return postcopy_dest_advise(f, len, errp);
    case WIRE_CMD_POSTCOPY_DISCARD:
        return postcopy_dest_discard(f, len, errp);
    case WIRE_CMD_POSTCOPY_LISTEN:
        return listen_and_share(errp);
    case WIRE_CMD_POSTCOPY_RUN:
        return postcopy_dest_run(errp);
    case WIRE_CMD_RECV_BITMAP:
        return postcopy_dest_received(f, len, errp);
    case WIRE_CMD_POSTCOPY_RESUME:
        return postcopy_dest_resume(errp);
    case WIRE_CMD_HOLD:
        return prepare_begin(f, errp);
    case WIRE_CMD_ABORT:
        return prepare_abort(f, errp);
    case WIRE_CMD_COMMIT:
        return prepare_commit(f, errp);
    case WIRE_CMD_SWITCHOVER_START:
        return device_load_switchover_start(errp);
    case WIRE_CMD_CHECKPOINT_DISKS:
        return destination.epochs ? destination.epochs->disks(f, errp)
                                  : not_available(errp);
    case WIRE_CMD_CHECKPOINT:
        return destination.epochs ? destination.epochs->begin(f, errp)
                                  : not_available(errp);
    default:
        return not_available(errp);
    }
}

static bool load_take_state(void *opaque, QEMUFile *f, uint32_t *len,
                            Error **errp)
{
    return prepare_state(f, len, errp);
}

static bool state_loaded(void *opaque, int64_t arrived_ns, Error **errp)
{
    return prepare_loaded(&current_load.times, arrived_ns, errp);
}

static bool package_ready(void *opaque, Error **errp)
{
    load_turn.package_ns = now_ns();
    return postcopy_dest_package_ready(errp);
}

static const DeviceLoadOps loadvm_ops = {
    .command = load_take_command,
    .state = load_take_state,
    .state_loaded = state_loaded,
    .package_ready = package_ready,
};

int qemu_loadvm_approve_switchover(void)
{
    if (!acks_needed) {
        return -EINVAL;
    }
    acks_needed--;
    trace_loadvm_approve_switchover(acks_needed);
    return acks_needed || reply_switchover_ack() ? 0 : -EIO;
}

/*
 * What both ways have in common; under the BQL
 */

static bool load_begin(bool file, Error **errp)
{
    if (qemu_savevm_state_blocked(errp)) {
        return false;
    }
    if (current_load.started) {
        device_load_destroy(&current_load);
    }
    load_step_begin(file ? STEP_SNAPSHOT : STEP_PRECOPY);
    prepare_init();
    acks_needed = 0;
    device_load_init(&current_load, &loadvm_ops, NULL);
    current_load.footers = migrate_get_current()->send_section_footer;
    current_load.refuse_live = xen_enabled();
    load_threads_open();
    if (!file) {
        postcopy_dest_begin();
    }
    return true;
}

static bool load_set_up(QEMUFile *f, Error **errp)
{
    destination.loading = load_step() != STEP_SNAPSHOT;
    destination.touched |= destination.loading;
    if (!device_load_setup(f, errp)) {
        return false;
    }
    if (migrate_switchover_ack()) {
        acks_needed = device_load_count_acks();
    }
    cpu_synchronize_all_pre_loadvm();
    return true;
}

void vmstate_load_cleanup(void)
{
    postcopy_dest_end();
    prepare_end();
    load_step_end();
    device_load_cleanup();
    load_threads_close();
}

/*
 * Files
 */

static bool load_file(QEMUFile *f, Error **errp)
{
    bool used[MIGRATION_CAPABILITY__MAX] = { false }, ok;
    const Configuration *config;
    Configuration here;

    if (!load_begin(true, errp)) {
        return false;
    }
    config = vmstate_configuration(&here);
    here.capabilities = migrate_snapshot_user_caps();
    here.used = used;
    if (!device_load_header(f, config, errp)) {
        return false;
    }
    migrate_snapshot_was_saved_with(used);
    if (!load_set_up(f, errp)) {
        return false;
    }
    ok = device_load_records(&current_load, f, errp) &&
         load_threads_join(errp) && stream_check(f, errp);
    if (ok && should_send_vmdesc()) {
        /* The end of a file may always have been missing. */
        device_load_description(f, NULL);
    }
    cpu_synchronize_all_post_init();
    return ok;
}

bool savevm_load_all(QEMUFile *f, Error **errp)
{
    bool ok = yank_register_instance(MIGRATION_YANK_INSTANCE, errp);

    if (ok) {
        migrate_snapshot_begin();
        ok = load_file(f, errp);
        migrate_snapshot_end();
        vmstate_load_cleanup();
        yank_unregister_instance(MIGRATION_YANK_INSTANCE);
    }
    qemu_fclose(f);
    return ok;
}

/*
 * A source: the incoming thread
 */

/* The source is told now, as it waits for the package and not for the end. */
static void package_failed(void)
{
    g_autofree char *why = g_strdup_printf(
        LOAD_FAILED "%s",
        load_turn.err ? error_get_pretty(load_turn.err) : "no reason");

    postcopy_dest_package_failed(why);
}

static void load_start_guest(void *opaque)
{
    destination.report.devices = current_load.times;
    if (!guest_start_early(load_turn.package_ns, &load_turn.err)) {
        load_turn.step = DEVICE_LOAD_FAILED;
        package_failed();
    }
    qemu_event_set(&load_turn.package);
}

/*
 * The package is loaded while the incoming thread receives pages, so how that
 * went is told here.  To start a guest is nothing for a coroutine.
 */
static void package_over(void)
{
    if (load_turn.held) {
        if (load_turn.step != DEVICE_LOAD_END &&
            prepare_verdict() == PREPARE_UNDECIDED) {
            package_failed();
        }
        qemu_sem_post(&load_turn.state);
    } else if (load_turn.step == DEVICE_LOAD_END) {
        main_loop_run(load_start_guest, NULL);
    } else {
        package_failed();
        qemu_event_set(&load_turn.package);
    }
}

/* A coroutine, so that the main loop goes on when there is nothing to read. */
static void coroutine_fn turn_co(void *opaque)
{
    load_turn.step = device_load_some(&load_turn.stream, true, &load_turn.err);
    if (load_step_has(LOAD_LISTENS)) {
        package_over();
    } else {
        qemu_sem_post(&load_turn.done);
    }
}

static void take_turn(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(turn_co, opaque));
}

static void turn_in_main_loop(void)
{
    qatomic_set(&destination.busy, false);
    main_loop_run(take_turn, NULL);
    qemu_sem_wait(&load_turn.done);
    qatomic_set(&destination.busy, true);
}

static bool load_late(Error **errp)
{
    Error *err = NULL;
    bool ok = postcopy_dest_load(&current_load, &err);

    qemu_event_wait(&load_turn.package);
    if (load_turn.step != DEVICE_LOAD_END) {
        /* This is why the other one ended. */
        error_free(err);
        error_propagate(errp, load_turn.err);
        return false;
    }
    error_propagate(errp, err);
    return ok;
}

static void begin_records(QEMUFile *f)
{
    load_turn.stream = (DeviceLoadStream) { .load = &current_load, .f = f };
    load_turn.err = NULL;
    load_turn.held = false;
    qemu_event_reset(&load_turn.package);
}

/*
 * A guest that is held, whose memory follows.  The main loop loads its state,
 * and may have to wait for pages.  It stays like that until there is a verdict;
 * a stream that breaks is one as well: the guest is not ours.
 */

static void start_held(void *opaque)
{
    prepare_end();
    if (!guest_start_held(&load_turn.err)) {
        load_turn.step = DEVICE_LOAD_FAILED;
        package_failed();
    }
    qemu_event_set(&load_turn.package);
}

static void forget_held(void *opaque)
{
    prepare_forget();
    qemu_sem_post(&load_turn.done);
}

/* How loading the state ends does not matter any more. */
static void wait_for_state(void)
{
    qatomic_set(&destination.busy, false);
    qemu_sem_wait(&load_turn.state);
    qatomic_set(&destination.busy, true);
}

static bool held_aborted(QEMUFile *f, Error **errp)
{
    bool ok = postcopy_dest_unhold(errp);

    wait_for_state();
    if (postcopy_dest_hopeless()) {
        /* The source was told why, and gave the attempt up for that. */
        error_propagate(errp, g_steal_pointer(&load_turn.err));
        return false;
    }
    qatomic_set(&destination.busy, false);
    main_loop_run(forget_held, NULL);
    qemu_sem_wait(&load_turn.done);
    qatomic_set(&destination.busy, true);
    error_free(load_turn.err);
    begin_records(f);
    return ok && prepare_forgot(errp);
}

/* Takes over @err, which may be a consequence of what the state lacks. */
static void held_broke(Error *err, Error **errp)
{
    bool failed;

    prepare_broke();
    postcopy_dest_hold_broke();
    wait_for_state();
    failed = postcopy_dest_hopeless();
    error_propagate(errp, failed ? load_turn.err : err);
    error_free(failed ? err : load_turn.err);
    load_turn.err = NULL;
}

/* Until there is a verdict.  True if precopy goes on. */
static bool load_held(QEMUFile *f, bool *again, Error **errp)
{
    Error *err = NULL;

    *again = false;
    if (device_load_late(&current_load, f, &err) &&
        prepare_verdict() == PREPARE_UNDECIDED) {
        error_setg(&err, "The stream ends while the guest is being held");
    }
    switch (prepare_verdict()) {
    case PREPARE_ABORTED:
        *again = true;
        return held_aborted(f, errp);
    case PREPARE_COMMITTED:
        wait_for_state();
        main_loop_run(start_held, NULL);
        return load_late(errp);
    default:
        held_broke(err, errp);
        return false;
    }
}

static bool load_records(QEMUFile *f, Error **errp)
{
    DeviceLoadStep step;
    bool again, ok;

    begin_records(f);
    do {
        step = device_load_some(&load_turn.stream, false, errp);
        if (step == DEVICE_LOAD_ELSEWHERE) {
            turn_in_main_loop();
            if (load_turn.held) {
                ok = load_held(f, &again, errp);
                if (!ok || !again) {
                    return ok;
                }
                continue;
            }
            if (load_step_has(LOAD_LISTENS)) {
                return load_late(errp);
            }
            step = load_turn.step;
            error_propagate(errp, load_turn.err);
        }
    } while (step == DEVICE_LOAD_ELSEWHERE);
    trace_qemu_loadvm_state_post_main(step == DEVICE_LOAD_END ? 0 : -1);
    return step == DEVICE_LOAD_END;
}

/* Only COMMIT may start a guest that is being held. */
static bool not_held(Error **errp)
{
    if (load_step_has(LOAD_HOLDS)) {
        error_setg(errp, "The stream ends while the guest is being held");
        return false;
    }
    return true;
}

/*
 * Checkpoints
 */

bool epochs_load_memory(QEMUFile *f, Error **errp)
{
    DeviceLoadStream stream = { .load = &current_load, .f = f };
    DeviceLoadStep step = device_load_some(&stream, false, errp);

    if (step == DEVICE_LOAD_ELSEWHERE) {
        error_setg(errp, "there is something other than memory among the "
                   "memory of an epoch");
    }
    return step == DEVICE_LOAD_END;
}

bool epochs_load_devices(QEMUFile *f, Error **errp)
{
    g_autoptr(Error) err = NULL;

    current_load.times = (LedgerDevices) { 0 };
    if (!device_load_records(&current_load, f, errp) ||
        !load_threads_join(errp)) {
        return false;
    }
    cpu_synchronize_all_post_init();
    destination.report.devices = current_load.times;
    err = notify_first_error();
    if (err) {
        error_setg(errp, "A device failed while it was loaded: %s",
                   error_get_pretty(err));
        return false;
    }
    return true;
}

/*
 * All is loaded but what the threads still do, and the end of the stream.  A
 * stream that breaks off there tells that the source goes on with the guest.
 */
static bool load_end(QEMUFile *f, Error **errp)
{
    bool ok;

    bql_lock();
    ok = not_held(errp);
    if (ok && !prepare_committed()) {
        fault_inject_delay(DOWNTIME_PART_DEVICE_LOAD);
        destination.report.devices = current_load.times;
    }
    ok = ok && load_threads_join(errp);
    bql_unlock();
    if (ok) {
        g_autoptr(Error) err = notify_first_error();

        if (err) {
            error_setg(errp, "A device failed while it was loaded: %s",
                       error_get_pretty(err));
            return false;
        }
    }
    return ok && stream_check(f, errp) &&
           (!should_send_vmdesc() || device_load_description(f, errp)) &&
           (reply_is_open() ||
            transport_writer_ended(qemu_file_get_ioc(f), errp));
}

/*
 * The source has not withdrawn: others are not waited for any more, unless they
 * are channels of the same one.  Under the BQL.
 */
static bool load_prepare(QEMUFile *f, Error **errp)
{
    if (!migrate_multifd() && !migrate_postcopy_preempt()) {
        transport_listen_stop();
    }
    return load_set_up(f, errp) && (!reply_is_open() || ack_if_ready(errp));
}

/*
 * What does not agree is found out before the source is known, and it is to
 * learn of it: then its greeting is read and no more.
 */
static bool load_beginning(QEMUFile *f, Error **errp)
{
    const Configuration *config;
    Configuration here;
    bool ok, differs = false;

    bql_lock();
    ok = load_begin(false, errp) && multifd_incoming_check(errp);
    config = vmstate_configuration(&here);
    bql_unlock();
    if (!device_load_header(f, NULL, ok ? errp : NULL)) {
        return false;
    }
    if (config && !configuration_load(f, config, &differs, ok ? errp : NULL)) {
        ok = false;
        if (!differs) {
            return false;
        }
    }
    if (!greeting_read(f)) {
        destination.withdrawn = true;
        return false;
    }
    if (ok) {
        bql_lock();
        ok = load_prepare(f, errp);
        bql_unlock();
    }
    return ok;
}

/*
 * A guest whose memory is read from a file
 */

static void start_lazy(void *opaque)
{
    load_turn.step = lazy_restore_run(&load_turn.err) &&
                     guest_start_early(load_turn.package_ns, &load_turn.err)
                     ? DEVICE_LOAD_END : DEVICE_LOAD_FAILED;
    qemu_event_set(&load_turn.package);
}

/* All but memory was loaded, if @ok; else @errp says why not. */
static bool load_lazily(QEMUFile *f, bool ok, Error **errp)
{
    if (ok) {
        load_turn.package_ns = stream_arrived_ns(f);
        main_loop_run(start_lazy, NULL);
        qemu_event_wait(&load_turn.package);
        ok = load_turn.step == DEVICE_LOAD_END;
        error_propagate(errp, g_steal_pointer(&load_turn.err));
    }
    if (!ok) {
        lazy_restore_failed(errp);
        return false;
    }
    return lazy_restore_finish(errp);
}

static bool load_stream(QEMUFile *f, Error **errp)
{
    bool ok = load_beginning(f, errp);

    if (!ok) {
        return false;
    }
    ok = load_records(f, errp);
    if (load_step_has(LOAD_EPOCHS)) {
        return ok && destination.epochs->receive(f, errp);
    }
    if (load_step_has(LOAD_LISTENS)) {
        /* The guest runs, or never will. */
        return ok;
    }
    ok = ok && load_end(f, errp);
    if (prepare_committed()) {
        /* The guest runs already. */
        return ok;
    }
    if (lazy_restore_began()) {
        return load_lazily(f, ok, errp);
    }

    bql_lock();
    cpu_synchronize_all_post_init();
    bql_unlock();
    return ok;
}

/*
 * The source goes on with the guest if it hears that it was not loaded.  A
 * connection that is closed with something unread is reset, and what was said
 * last may be lost: so all is read until the source has closed it.
 */
static void refuse_and_linger(QEMUFile *f)
{
    int64_t end = now_ms() + LINGER_MS;
    g_autofree char *waste = g_malloc(LINGER_BYTES);
    g_autoptr(Error) err = notify_first_error();
    ssize_t len;

    if (!reply_refuse(error_get_pretty(err))) {
        return;
    }
    do {
        len = qio_channel_read(qemu_file_get_ioc(f), waste, LINGER_BYTES, NULL);
        if (len == QIO_CHANNEL_ERR_BLOCK) {
            g_usleep(1000);
        }
    } while ((len > 0 || len == QIO_CHANNEL_ERR_BLOCK) && now_ms() < end);
}

void *destination_thread(void *opaque)
{
    QEMUBHFunc *ended = opaque;
    Error *err = NULL;

    rcu_register_thread();
    destination.loaded = load_stream(destination.from_src, &err) ||
                         prepare_committed();
    if (destination.withdrawn) {
        /* It knows why, and nothing has begun here. */
        error_free(err);
    } else if (err && destination.loaded) {
        /* All that mattered had come. */
        warn_reportf_err(err, "after the guest was started: ");
    } else if (err) {
        error_prepend(&err, LOAD_FAILED);
        if (!destination.exit_on_error) {
            /* Otherwise it is printed as QEMU's last words. */
            error_report_err(error_copy(err));
        }
        if (load_step_has(LOAD_LISTENS)) {
            /* That it was paused meanwhile is not why. */
            notify_clear_error();
        }
        notify_error(err);
        if (!load_step_has(LOAD_LISTENS)) {
            qatomic_set(&destination.busy, false);
            refuse_and_linger(destination.from_src);
        }
    }
    trace_vmstate_downtime_checkpoint("dst-precopy-loadvm-completed");
    rcu_unregister_thread();
    qatomic_set(&destination.busy, false);
    main_loop_run(ended, NULL);
    return NULL;
}
