/*
 * Checkpoints: the primary, which runs the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/base/clock.h"
#include "migration/core/main-loop.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "migration/source/hidden-stop.h"
#include "migration/source/state.h"
#include "migration/source/switchover.h"
#include "migration/source/throttle.h"
#include "migration/trace.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "system/runstate.h"
#include "collect.h"
#include "epoch.h"
#include "output-gate.h"
#include "pauses.h"
#include "possible.h"
#include "primary.h"
#include "replicated-disks.h"

/* How often it is looked whether to go on while an answer is waited for */
#define PRIMARY_POLL_MS 20
/*
 * What the first epoch may have of memory, if so many more passes get there: it
 * is copied while the guest is stopped, as that of all others.
 */
#define FIRST_EPOCH_BYTES (4 * MiB)
#define FIRST_EPOCH_PASSES 8

/* Why epochs end */
typedef enum PrimaryEnd {
    PRIMARY_GOES_ON,
    PRIMARY_CANCELLED,
    PRIMARY_FAILED,             /* no epoch can be taken here */
    PRIMARY_REFUSED,            /* the secondary says: it never has the guest */
    PRIMARY_TAKEN_OVER,         /* the secondary says: it has the guest */
    PRIMARY_LOST,               /* nobody knows what the secondary does */
    PRIMARY_QUITS,              /* QEMU ends */
} PrimaryEnd;

static struct {
    QemuMutex lock;             /* of the next, for query-migrate */
    struct {
        bool known;             /* there was a protection */
        MigrationCheckpoint last;
        MigrationCheckpointPause pause;
        Pauses pauses;
        int64_t taken_ns;       /* when the last one acknowledged was taken */
    } view;

    bool running;               /* atomic: primary_run() */
    bool guest_ended;           /* BQL: it is why QEMU ends */
    unsigned disks;             /* replicated ones; set before the thread is */
    bool dropped;               /* BQL: the gate drops what the guest sends */
    bool expired;               /* atomic: the watch has shut the stream down */
    QEMUTimer *watch;           /* made with the BQL, set by any thread */

    /* the thread's */
    EpochStore store;
    uint64_t number;            /* of the last epoch that was taken, from 1 */
    uint64_t acked;             /* of the last that was acknowledged */
} primary;

/*
 * The watch: a thread that is stuck in a write is freed
 */

static void primary_expire(void *opaque)
{
    qatomic_set(&primary.expired, true);
    QEMU_LOCK_GUARD(&source.lock);
    if (source.return_path) {
        return_path_hang_up(source.return_path);
    }
    if (source.to_dst) {
        qemu_file_shutdown(source.to_dst);
    }
}

static void primary_watch(int64_t ms)
{
    timer_mod(primary.watch, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

static void primary_unwatch(void)
{
    timer_del(primary.watch);
}

/*
 * How it stands
 */

static PrimaryEnd primary_look(void)
{
    switch (return_path_state(source.return_path, NULL)) {
    case RETURN_PATH_DONE:
        return PRIMARY_TAKEN_OVER;
    case RETURN_PATH_REFUSED:
        return PRIMARY_REFUSED;
    case RETURN_PATH_BROKEN:
        return PRIMARY_LOST;
    default:
        break;
    }
    if (!stream_check(source.to_dst, NULL)) {
        return PRIMARY_LOST;
    }
    return phase_get(&source_phase) == MIGRATION_STATUS_CANCELLING
           ? PRIMARY_CANCELLED : PRIMARY_GOES_ON;
}

static void primary_set_state(MigrationCheckpointState state)
{
    QEMU_LOCK_GUARD(&primary.lock);
    primary.view.last.state = state;
}

/*
 * One epoch
 */

/* When an epoch was what */
typedef struct EpochTimes {
    int64_t stopped_ns, collected_ns, acked_ns;
    EpochCost cost;
} EpochTimes;

/* What is to be found out while the guest runs */
static bool primary_can_take(Error **errp)
{
    unsigned disks;

    return output_gate_possible(errp) &&
           checkpoint_disks_possible(true, &disks, errp);
}

/* The guest is stopped, and its state taken.  Under the BQL. */
static bool primary_pause(EpochTimes *t, Error **errp)
{
    ERRP_GUARD();
    bool ok = primary_can_take(errp) && switchover_stop_first(errp);

    t->stopped_ns = now_ns();
    if (*errp && primary.disks && !replicated_disks_check(NULL)) {
        error_prepend(errp, "a disk is not replicated any more: ");
    }
    ok = ok && (!primary.disks || replicated_disks_check(errp)) &&
         epoch_collect(&primary.store, &t->cost, errp);
    if (ok) {
        output_gate_mark(primary.number);
    }
    return ok;
}

/* Under the BQL. */
static void primary_resume(const EpochTimes *t)
{
    int64_t from = t->acked_ns ?: t->collected_ns, end;
    MigrationCheckpointPause pause = {
        .stop = (t->stopped_ns - source.stopped_ns) / SCALE_US,
        .devices = t->cost.devices / SCALE_US,
        .sync = t->cost.sync / SCALE_US,
        .memory = t->cost.memory / SCALE_US,
        .has_acknowledge = t->acked_ns,
        .acknowledge = MAX(t->acked_ns - t->collected_ns, 0) / SCALE_US,
    };

    switchover_undo();
    hidden_stop_show();
    end = now_ns();
    pause.total = (end - source.stopped_ns) / SCALE_US;
    pause.resume = (end - from) / SCALE_US;
    trace_migration_epoch(primary.number, primary.store.memory.buffer->usage,
                          primary.store.devices.buffer->usage, pause.total);
    QEMU_LOCK_GUARD(&primary.lock);
    primary.view.pause = pause;
    pauses_add(&primary.view.pauses, pause.total);
}

/*
 * A guest whose disks are replicated stays stopped: what it would write to them
 * would be taken for a part of this epoch.
 */
static PrimaryEnd primary_take(EpochTimes *t, Error **errp)
{
    bool ok;

    BQL_LOCK_GUARD();
    if (main_loop_is_ending()) {
        return primary.guest_ended ? PRIMARY_CANCELLED : PRIMARY_QUITS;
    }
    primary.number++;
    ok = primary_pause(t, errp);
    t->collected_ns = now_ns();
    if (!ok) {
        PrimaryEnd end = primary_look();

        switchover_undo();
        hidden_stop_show();
        return end == PRIMARY_GOES_ON ? PRIMARY_FAILED : end;
    }
    if (!primary.disks) {
        primary_resume(t);
    }
    return PRIMARY_GOES_ON;
}

static uint64_t primary_send(void)
{
    const QIOChannelBuffer *memory = primary.store.memory.buffer;
    const QIOChannelBuffer *devices = primary.store.devices.buffer;
    QEMUFile *f = source.to_dst;
    EpochHead head = {
        .number = primary.number,
        .memory = memory->usage,
        .devices = devices->usage,
    };
    g_autoptr(GByteArray) command = NULL;
    WireCheckpoint wire;

    epoch_head_encode(&head, &wire);
    command = command_bytes(WIRE_CMD_CHECKPOINT, &wire, sizeof(wire));
    return_path_expect_epoch(source.return_path, primary.number);
    qemu_put_buffer(f, command->data, command->len);
    qemu_put_buffer_async(f, memory->data, memory->usage, false);
    qemu_put_buffer_async(f, devices->data, devices->usage, false);
    qemu_fflush(f);
    return memory->usage + devices->usage;
}

static PrimaryEnd primary_wait_ack(void)
{
    PrimaryEnd end;

    do {
        if (return_path_epoch_acked(source.return_path, PRIMARY_POLL_MS)) {
            return PRIMARY_GOES_ON;
        }
        end = primary_look();
    } while (end == PRIMARY_GOES_ON);
    return end;
}

static void primary_show_acked(uint64_t bytes, int64_t taken_ns)
{
    trace_migration_epoch_acked(primary.number,
                                (now_ns() - taken_ns) / SCALE_US);
    QEMU_LOCK_GUARD(&primary.lock);
    primary.view.last.state = MIGRATION_CHECKPOINT_STATE_PROTECTED;
    primary.view.last.epoch = primary.number;
    primary.view.last.last_bytes = bytes;
    primary.view.last.total_bytes += bytes;
    primary.view.taken_ns = taken_ns;
}

/* Nobody outside need wait any more, nor the guest.  BQL. */
static void primary_commit(EpochTimes *t)
{
    output_gate_release(primary.number);
    if (primary.disks) {
        t->acked_ns = now_ns();
        primary_resume(t);
    }
}

static PrimaryEnd primary_epoch(Error **errp)
{
    EpochTimes t = { 0 };
    PrimaryEnd end = primary_take(&t, errp);
    int64_t taken_ns = source.stopped_ns;
    uint64_t bytes;

    if (end != PRIMARY_GOES_ON) {
        return end;
    }
    primary_watch(migrate_checkpoint_timeout());
    bytes = primary_send();
    end = primary_wait_ack();
    primary_unwatch();
    if (end != PRIMARY_GOES_ON) {
        return end;
    }
    primary.acked = primary.number;
    bql_lock();
    primary_commit(&t);
    bql_unlock();
    primary_show_acked(bytes, taken_ns);
    return PRIMARY_GOES_ON;
}

/* Until the next one is due; interrupted by whatever ends the protection. */
static PrimaryEnd primary_rest(int64_t begun_ms)
{
    PrimaryEnd end;
    int64_t left;

    do {
        left = begun_ms + migrate_checkpoint_interval() - now_ms();
        if (left > 0) {
            qemu_sem_timedwait(&source.wake, MIN(left, PRIMARY_POLL_MS));
        }
        end = primary_look();
    } while (end == PRIMARY_GOES_ON && left > 0);
    return end;
}

static PrimaryEnd primary_protect(Error **errp)
{
    PrimaryEnd end = primary_look();

    while (end == PRIMARY_GOES_ON) {
        int64_t begun_ms = now_ms();

        end = primary_epoch(errp);
        if (end == PRIMARY_GOES_ON) {
            /* A guest that was stopped until now has to run in between. */
            end = primary_rest(primary.disks ? now_ms() : begun_ms);
        }
    }
    return end;
}

/*
 * The end
 */

/*
 * Whoever gets CHECKPOINT_END first, or has failed over first, has decided; the
 * other side is told.
 */
static PrimaryEnd primary_say_end(PrimaryEnd how)
{
    int64_t end_ms = now_ms() + migrate_checkpoint_timeout();
    ReturnPathEnd answer;
    WireEpoch epoch;

    if (!primary.number) {
        /* Nothing has been sent that a guest could be started from. */
        return how;
    }
    primary_watch(migrate_checkpoint_timeout());
    stq_be_p(&epoch.number, primary.acked);
    command_send(source.to_dst, WIRE_CMD_CHECKPOINT_END, &epoch,
                 sizeof(epoch));
    answer = return_path_wait_end(source.return_path,
                                  MAX(end_ms - now_ms(), 0), NULL);
    primary_unwatch();
    switch (answer) {
    case RETURN_PATH_DONE:
        return PRIMARY_TAKEN_OVER;
    case RETURN_PATH_REFUSED:
        return how;
    default:
        /* Who cancels has decided where the guest is; one that ended has not */
        return how == PRIMARY_CANCELLED && !primary.guest_ended ? how
                                                                : PRIMARY_LOST;
    }
}

/* Until the user resumes the guest here.  BQL. */
static void primary_drop_output(void)
{
    primary.dropped = true;
    output_gate_drop();
}

static void primary_vm_changed(void *opaque, bool running, RunState state)
{
    if (running && primary.dropped) {
        primary.dropped = false;
        output_gate_open();
    }
}

/*
 * The guest does not go on here, whatever it or the user has requested by now.
 * An epoch may have stopped it.  BQL.
 */
static void primary_stop_guest(void)
{
    Error *err = NULL;

    primary_drop_output();
    if (main_loop_is_ending() || source.stopped_guest ||
        switchover_stop_first(&err)) {
        return;
    }
    warn_reportf_err(err, "checkpoint, while the guest was stopped: ");
    source.stopped_guest = true;
    vm_stop_force_state(RUN_STATE_FINISH_MIGRATE);
}

/* Takes over @why, which may be NULL. */
static void primary_tell_lost(Error *why, const char *then, Error **errp)
{
    g_autoptr(Error) path = NULL;

    return_path_state(source.return_path, &path);
    if (qatomic_read(&primary.expired)) {
        error_setg(errp, "the secondary has not acknowledged epoch %" PRIu64
                   " for %" PRIu32 " ms (checkpoint-timeout): %s",
                   primary.number, migrate_checkpoint_timeout(), then);
    } else {
        error_setg(errp, "the secondary was lost after epoch %" PRIu64
                   ": %s (%s)", primary.acked, then,
                   why ? error_get_pretty(why) :
                   path ? error_get_pretty(path) : "the connection is broken");
    }
    error_free(why);
}

static void primary_lost(Error **errp)
{
    Error *why = NULL;

    if (*errp) {
        error_propagate(&why, *errp);
        *errp = NULL;
    } else {
        stream_check(source.to_dst, &why);
    }
    /* Before the first epoch there is nothing to start a guest from. */
    if (primary.number &&
        migrate_checkpoint_on_loss() == MIGRATION_CHECKPOINT_ON_LOSS_STOP) {
        primary_tell_lost(why, "the guest is stopped, so that it cannot run "
                          "twice; 'cont' has it go on, if it does not run on "
                          "the secondary", errp);
        primary_stop_guest();
        source.lost = true;
    } else {
        primary_tell_lost(why, "the guest goes on unprotected", errp);
        output_gate_open();
    }
}

static bool primary_settle(PrimaryEnd how, Error **errp)
{
    if (main_loop_is_ending()) {
        /* All that a guest sent before it ended may leave. */
        how = how == PRIMARY_CANCELLED && primary.guest_ended ? how
                                                              : PRIMARY_QUITS;
    } else if (how == PRIMARY_LOST &&
               phase_get(&source_phase) == MIGRATION_STATUS_CANCELLING) {
        how = PRIMARY_CANCELLED;
    }
    trace_migration_epochs_end(primary.acked, how);
    primary_set_state(how == PRIMARY_TAKEN_OVER
                      ? MIGRATION_CHECKPOINT_STATE_FAILOVER
                      : MIGRATION_CHECKPOINT_STATE_ENDED);
    switch (how) {
    case PRIMARY_TAKEN_OVER:
        g_clear_pointer(errp, error_free);
        source_hand_over(NULL);
        primary_stop_guest();
        return true;
    case PRIMARY_LOST:
        primary_lost(errp);
        return false;
    case PRIMARY_QUITS:
        primary_drop_output();
        if (!*errp) {
            error_setg(errp, "QEMU is ending");
        }
        return false;
    case PRIMARY_CANCELLED:
        output_gate_open();
        if (!*errp) {
            source_was_cancelled(errp);
        }
        return false;
    default:
        output_gate_open();
        if (!*errp) {
            return_path_state(source.return_path, errp);
        }
        if (*errp) {
            error_prepend(errp, "the protection has ended after epoch %" PRIu64
                          ", and the guest goes on unprotected: ",
                          primary.acked);
        }
        return false;
    }
}

static bool primary_conclude(PrimaryEnd how, Error **errp)
{
    bool ok;

    BQL_LOCK_GUARD();
    ok = primary_settle(how, errp);
    replicated_disks_stop();
    if (!ok && !source.lost && !main_loop_is_ending()) {
        switchover_undo();
    }
    hidden_stop_set(false);
    hidden_stop_show();
    epoch_store_free(&primary.store);
    return ok;
}

/*
 * For the source
 */

static bool primary_peer_fits(uint32_t features, Error **errp)
{
    if (!(features & WIRE_PEER_CHECKPOINT)) {
        error_setg(errp, "destination cannot receive checkpoints: turn "
                   "capability 'checkpoint' off, or use a QEMU there that "
                   "has it");
        return false;
    }
    if (primary.disks && !(features & WIRE_PEER_CHECKPOINT_DISKS)) {
        error_setg(errp, "destination cannot receive checkpoints of a guest "
                   "with replicated disks: use a QEMU there that can, or set "
                   "read-only=on for each disk");
        return false;
    }
    return true;
}

/* The secondary compares that with its own before the first epoch. */
static void primary_tell_disks(void)
{
    WireCheckpointDisks disks;

    if (primary.disks) {
        stl_be_p(&disks.count, primary.disks);
        command_send(source.to_dst, WIRE_CMD_CHECKPOINT_DISKS, &disks,
                     sizeof(disks));
    }
}

/*
 * What is left fits into the downtime limit, which is long for a pause that
 * nobody is to notice.  What goes wrong is found by whoever looks next.
 */
static void primary_approach(void)
{
    uint64_t now, later;
    int ret;

    for (unsigned i = 0; i < FIRST_EPOCH_PASSES; i++) {
        qemu_savevm_state_pending_exact(&now, &later);
        if (now + later <= FIRST_EPOCH_BYTES) {
            return;
        }
        do {
            ret = qemu_savevm_state_iterate(source.to_dst, false);
        } while (!ret && primary_look() == PRIMARY_GOES_ON);
        if (ret <= 0) {
            return;
        }
    }
}

static bool primary_begin(Error **errp)
{
    BQL_LOCK_GUARD();
    if (main_loop_is_ending() || !output_gate_possible(errp)) {
        return false;
    }
    if (!primary.watch) {
        primary.watch = timer_new_ms(QEMU_CLOCK_REALTIME, primary_expire, NULL);
        qemu_add_vm_change_state_handler(primary_vm_changed, NULL);
    }
    primary.dropped = false;
    qatomic_set(&primary.expired, false);
    primary.number = primary.acked = 0;
    throttle_set(0);
    if (precopy_notify(PRECOPY_NOTIFY_COMPLETE, errp)) {
        return false;
    }
    hidden_stop_set(true);
    epoch_store_init(&primary.store);
    output_gate_begin();
    WITH_QEMU_LOCK_GUARD(&primary.lock) {
        memset(&primary.view, 0, sizeof(primary.view));
        primary.view.known = true;
    }
    return true;
}

static bool primary_run(Error **errp)
{
    ERRP_GUARD();
    PrimaryEnd how;
    bool ok;

    migration_rate_set(RATE_LIMIT_DISABLED);
    primary_approach();
    if (!primary_begin(errp)) {
        return false;
    }
    primary_tell_disks();
    qatomic_set(&primary.running, true);
    how = primary_protect(errp);
    if (how == PRIMARY_CANCELLED || how == PRIMARY_FAILED) {
        how = primary_say_end(how);
    }
    ok = primary_conclude(how, errp);
    qatomic_set(&primary.running, false);
    return ok;
}

/*
 * If QEMU ends the connection is closed, so that the secondary waits for a
 * command; but there is nothing to be taken over of a guest that has ended.
 */
static bool primary_cancel(void)
{
    return qatomic_read(&primary.running) &&
           (!main_loop_is_ending() || primary.guest_ended);
}

static bool is_end_of_guest(ShutdownCause cause)
{
    return cause == SHUTDOWN_CAUSE_GUEST_SHUTDOWN ||
           cause == SHUTDOWN_CAUSE_GUEST_RESET ||
           runstate_check(RUN_STATE_SHUTDOWN) ||
           (source.stopped_guest && source.vm_before == RUN_STATE_SHUTDOWN);
}

static void primary_shut_down(Notifier *n, void *data)
{
    const ShutdownCause *cause = data;

    primary.guest_ended = is_end_of_guest(*cause);
}

/* From the first pass on the secondary's disks are as ours. */
static bool primary_prepare(Error **errp)
{
    return checkpoint_disks_possible(true, &primary.disks, errp) &&
           (!primary.disks || replicated_disks_start(errp));
}

static const SourceEpochs primary_epochs = {
    .possible = checkpoint_possible,
    .prepare = primary_prepare,
    .peer_fits = primary_peer_fits,
    .run = primary_run,
    .cancel = primary_cancel,
    .ended = replicated_disks_stop,
};

void primary_init(void)
{
    static Notifier shutdown = { .notify = primary_shut_down };

    qemu_register_shutdown_notifier(&shutdown);
    qemu_mutex_init(&primary.lock);
    source.epochs = &primary_epochs;
}

MigrationCheckpoint *primary_query(void)
{
    MigrationCheckpoint *info;
    OutputGateStats gate = { 0 };

    QEMU_LOCK_GUARD(&primary.lock);
    if (!primary.view.known || !migrate_checkpoint()) {
        return NULL;
    }
    info = g_memdup2(&primary.view.last, sizeof(primary.view.last));
    info->has_age = info->epoch;
    if (info->epoch) {
        info->age = (now_ns() - primary.view.taken_ns) / SCALE_MS;
    }
    if (primary.view.pauses.count) {
        info->pause = g_memdup2(&primary.view.pause,
                                sizeof(primary.view.pause));
        info->has_pause_median = info->has_pause_p99 = true;
        info->has_pause_max = true;
        info->pause_median = pauses_percentile(&primary.view.pauses, 50);
        info->pause_p99 = pauses_percentile(&primary.view.pauses, 99);
        info->pause_max = primary.view.pauses.max_us;
    }
    output_gate_stats(&gate);
    info->has_buffered_packets = info->has_buffered_bytes = true;
    info->buffered_packets = gate.packets;
    info->buffered_bytes = gate.bytes;
    return info;
}
