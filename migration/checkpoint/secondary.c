/*
 * Checkpoints: the secondary, which can take the guest over
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
#include "io/channel.h"
#include "migration/base/clock.h"
#include "migration/base/load-step.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/destination/return-path.h"
#include "migration/destination/state.h"
#include "migration/device/load.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "epoch.h"
#include "possible.h"
#include "replicated-disks.h"
#include "secondary.h"

/*
 * How long a primary that has been told of a failover may take to stop the
 * guest and to close the connection, before the guest is started all the same:
 * it may be dead.
 */
#define SECONDARY_GRACE_MS 500

/* Why no more epochs come */
typedef enum SecondaryEnd {
    SECONDARY_GOES_ON,
    SECONDARY_BROKEN,           /* the connection, or what came by it */
    SECONDARY_RELEASED,         /* CHECKPOINT_END */
    SECONDARY_SPOILT,           /* memory is that of no epoch any more */
} SecondaryEnd;

static struct {
    QemuMutex lock;             /* of the next five */
    bool known;                 /* CHECKPOINT came, in the last migration */
    MigrationCheckpointState state;
    uint64_t number;            /* of the epoch that is kept, from 1; 0: none */
    MigrationCheckpoint last;   /* sizes and times alone */
    int64_t arrived_ns;

    unsigned disks;             /* replicated ones; set before the thread is */
    EpochHead next;             /* the thread's: of the epoch that comes */
    QEMUFile *devices;          /* the thread's while there is one */
    bool idle;                  /* main loop: the thread has ended */
    QEMUTimer *grace;           /* main loop; NULL: the thread was let be */
} secondary;

static MigrationCheckpointState secondary_state(void)
{
    QEMU_LOCK_GUARD(&secondary.lock);
    return secondary.state;
}

/* Goes to @to if it is still @from. */
static bool secondary_move(MigrationCheckpointState from,
                           MigrationCheckpointState to)
{
    QEMU_LOCK_GUARD(&secondary.lock);
    if (secondary.state != from) {
        return false;
    }
    secondary.state = to;
    return true;
}

static bool secondary_failing_over(void)
{
    return secondary_state() == MIGRATION_CHECKPOINT_STATE_FAILOVER;
}

/*
 * Receiving
 */

static bool secondary_read_head(QEMUFile *f, uint64_t expected, Error **errp)
{
    WireCheckpoint wire;

    qemu_get_buffer(f, (uint8_t *)&wire, sizeof(wire));
    return stream_check(f, errp) &&
           epoch_head_decode(&secondary.next, &wire, expected, errp);
}

/* The thread has to be freed from a read without what it has to say. */
static bool secondary_can_be_freed(QEMUFile *f, Error **errp)
{
    if (qio_channel_has_feature(qemu_file_get_ioc(f),
                                QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return true;
    }
    error_setg(errp, "checkpoints require a channel that can be shut down, "
               "such as a socket");
    return false;
}

static bool secondary_take_disks(QEMUFile *f, Error **errp)
{
    WireCheckpointDisks wire;

    qemu_get_buffer(f, (uint8_t *)&wire, sizeof(wire));
    secondary.disks = ldl_be_p(&wire.count);
    return stream_check(f, errp);
}

static bool secondary_begin(QEMUFile *f, Error **errp)
{
    if (!migrate_checkpoint()) {
        error_setg(errp, "capability 'checkpoint' is enabled on the source but "
                   "not here");
        return false;
    }
    if (load_step_has(LOAD_EPOCHS)) {
        error_setg(errp, "an epoch within an epoch");
        return false;
    }
    if (!secondary_can_be_freed(f, errp) || !secondary_read_head(f, 1, errp)) {
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&secondary.lock) {
        secondary.known = true;
        secondary.state = MIGRATION_CHECKPOINT_STATE_STARTING;
        secondary.number = 0;
        secondary.last = (MigrationCheckpoint) { 0 };
    }
    load_step_go(STEP_EPOCHS);
    return true;
}

static void secondary_keep(QEMUFile *devices, int64_t arrived_ns,
                           int64_t apply_ns)
{
    uint64_t bytes = (uint64_t)secondary.next.memory + secondary.next.devices;

    if (secondary.devices) {
        qemu_fclose(secondary.devices);
    }
    secondary.devices = devices;
    trace_migration_epoch_kept(secondary.next.number, apply_ns / SCALE_US);
    QEMU_LOCK_GUARD(&secondary.lock);
    secondary.number = secondary.next.number;
    secondary.last.last_bytes = bytes;
    secondary.last.total_bytes += bytes;
    secondary.last.apply = apply_ns / SCALE_US;
    secondary.arrived_ns = arrived_ns;
    if (secondary.state == MIGRATION_CHECKPOINT_STATE_STARTING) {
        secondary.state = MIGRATION_CHECKPOINT_STATE_PROTECTED;
    }
}

/*
 * The primary's guest is stopped until the acknowledgement, so the disks are
 * those of this epoch.  Nobody has to have seen anything of it for that.
 */
static bool secondary_commit_disks(Error **errp)
{
    BQL_LOCK_GUARD();
    return replicated_disks_commit(secondary.next.number == 1, errp);
}

/*
 * As soon as the first epoch is acknowledged, checkpoint-failover is possible,
 * though the memory of the epoch may not be in place yet.  The lock makes a
 * command that comes in between wait for the new state; to write the
 * acknowledgement does not wait for the primary.
 */
static bool secondary_acknowledge(void)
{
    QEMU_LOCK_GUARD(&secondary.lock);
    if (!reply_checkpoint_ack(secondary.next.number)) {
        return false;
    }
    if (secondary.state == MIGRATION_CHECKPOINT_STATE_STARTING) {
        secondary.state = MIGRATION_CHECKPOINT_STATE_PROTECTED;
    }
    return true;
}

/*
 * All of an epoch is here: from the acknowledgement on the primary lets others
 * see what the guest did in it, so it is put in place in any case.  If the
 * acknowledgement cannot be written, nobody has seen anything of it yet, and it
 * is as good.  After a failover nothing is acknowledged, as that was the last
 * word; then epochs are read until the primary has stopped the guest, and
 * dropped, unless their disks are in place.
 */
static SecondaryEnd secondary_apply(QEMUFile *memory, QEMUFile *devices,
                                    Error **errp)
{
    ERRP_GUARD();
    int64_t arrived_ns = now_ns();
    bool committed = false, told;

    if (secondary.disks && !secondary_failing_over()) {
        if (!secondary_commit_disks(errp)) {
            qemu_fclose(devices);
            return SECONDARY_SPOILT;
        }
        committed = true;
    }
    told = secondary_acknowledge();
    if (!told && secondary_failing_over() && !committed) {
        qemu_fclose(devices);
        return SECONDARY_GOES_ON;
    }
    if (!epochs_load_memory(memory, errp)) {
        error_prepend(errp, "The memory of epoch %" PRIu64 ": ",
                      secondary.next.number);
        qemu_fclose(devices);
        return SECONDARY_SPOILT;
    }
    secondary_keep(devices, arrived_ns, now_ns() - arrived_ns);
    if (!told) {
        error_setg(errp, "epoch %" PRIu64 " cannot be acknowledged",
                   secondary.next.number);
        return SECONDARY_BROKEN;
    }
    return SECONDARY_GOES_ON;
}

/* The epoch whose head is known. */
static SecondaryEnd secondary_take(QEMUFile *f, Error **errp)
{
    QEMUFile *memory, *devices;
    SecondaryEnd end;

    memory = device_load_package(f, secondary.next.memory, errp);
    if (!memory) {
        return SECONDARY_BROKEN;
    }
    devices = device_load_package(f, secondary.next.devices, errp);
    end = devices ? secondary_apply(memory, devices, errp) : SECONDARY_BROKEN;
    qemu_fclose(memory);
    return end;
}

static SecondaryEnd secondary_take_end(QEMUFile *f, Error **errp)
{
    uint64_t number = qemu_get_be64(f);

    if (secondary_failing_over()) {
        /* It learns of that, and closes the connection. */
        qemu_get_byte(f);
    }
    if (!stream_check(f, errp)) {
        return SECONDARY_BROKEN;
    }
    error_setg(errp, "the primary has ended the protection after epoch %"
               PRIu64 " and goes on with the guest, or the guest has ended "
               "there", number);
    return SECONDARY_RELEASED;
}

/* Nothing comes between two epochs but commands. */
static SecondaryEnd secondary_next(QEMUFile *f, Error **errp)
{
    unsigned type = qemu_get_byte(f);
    unsigned command = qemu_get_be16(f);
    unsigned len = qemu_get_be16(f);

    if (!stream_check(f, errp)) {
        return SECONDARY_BROKEN;
    }
    if (type != WIRE_COMMAND) {
        error_setg(errp, "a record of type 0x%02x between two epochs", type);
        return SECONDARY_BROKEN;
    }
    if (!command_check(command, len, STEP_EPOCHS, false, errp)) {
        return SECONDARY_BROKEN;
    }
    if (command == WIRE_CMD_CHECKPOINT_END) {
        return secondary_take_end(f, errp);
    }
    return secondary_read_head(f, secondary.next.number + 1, errp)
           ? SECONDARY_GOES_ON : SECONDARY_BROKEN;
}

/*
 * A primary that is still there is to learn why, and not to wait until somebody
 * reads what it sends.  Takes over @err.
 */
static void secondary_wait(QEMUFile *f, Error *err)
{
    reply_error(error_get_pretty(err));
    qemu_file_shutdown(f);
    error_prepend(&err, "the primary was lost; 'checkpoint-failover' starts "
                  "the guest from epoch %" PRIu64 ": ", secondary.number);
    error_report_err(error_copy(err));
    notify_error(err);
}

/* What comes of it; takes over @err. True if the guest can be started. */
static bool secondary_conclude(QEMUFile *f, SecondaryEnd how, Error *err,
                               Error **errp)
{
    bool kept = secondary.devices;

    if (how != SECONDARY_SPOILT && secondary_failing_over()) {
        error_free(err);
        return true;
    }
    if (how == SECONDARY_BROKEN && kept) {
        if (secondary_move(MIGRATION_CHECKPOINT_STATE_PROTECTED,
                           MIGRATION_CHECKPOINT_STATE_WAITING)) {
            secondary_wait(f, err);
        } else {
            error_free(err);
        }
        return true;
    }
    if (how == SECONDARY_RELEASED && kept &&
        !secondary_move(MIGRATION_CHECKPOINT_STATE_PROTECTED,
                        MIGRATION_CHECKPOINT_STATE_ENDED)) {
        error_free(err);
        return true;
    }
    WITH_QEMU_LOCK_GUARD(&secondary.lock) {
        secondary.state = MIGRATION_CHECKPOINT_STATE_ENDED;
    }
    error_propagate(errp, err);
    return false;
}

/* Writes of the guest have to be undone where the primary's are. */
static bool secondary_disks_fit(Error **errp)
{
    unsigned count;

    BQL_LOCK_GUARD();
    if (!checkpoint_disks_possible(false, &count, errp)) {
        return false;
    }
    if (count != secondary.disks) {
        error_setg(errp, "the primary replicates %u disks, and the secondary "
                   "%u: each disk that the guest can write to must be "
                   "replicated on both", secondary.disks, count);
    }
    return count == secondary.disks;
}

static bool secondary_receive(QEMUFile *f, Error **errp)
{
    Error *err = NULL;
    SecondaryEnd end = secondary_disks_fit(&err) ? SECONDARY_GOES_ON
                                                 : SECONDARY_BROKEN;

    while (end == SECONDARY_GOES_ON) {
        end = secondary_take(f, &err);
        if (end == SECONDARY_GOES_ON) {
            end = secondary_next(f, &err);
        }
    }
    return secondary_conclude(f, end, err, errp);
}

/*
 * Taking over
 */

static void secondary_take_over(void *opaque)
{
    QEMUFile *devices = g_steal_pointer(&secondary.devices);
    Error *err = NULL;
    bool ok;

    if (main_loop_is_ending()) {
        qemu_fclose(devices);
        return;
    }
    trace_migration_epochs_take_over(secondary.number);
    /* That the primary was lost is not why this would fail. */
    notify_clear_error();
    ok = epochs_load_devices(devices, &err);
    qemu_fclose(devices);
    if (ok) {
        if (secondary.disks) {
            replicated_disks_take_over();
        }
        epochs_take_over();
    } else {
        error_prepend(&err, "the guest cannot be started from epoch %" PRIu64
                      ": ", secondary.number);
        epochs_fail(err);
    }
}

static void secondary_ended(void)
{
    g_clear_pointer(&secondary.grace, timer_free);
    secondary.idle = true;
    if (secondary_failing_over()) {
        secondary_take_over(NULL);
    }
}

static bool secondary_give_up(void)
{
    Error *err = NULL;

    if (!secondary.idle ||
        !secondary_move(MIGRATION_CHECKPOINT_STATE_WAITING,
                        MIGRATION_CHECKPOINT_STATE_ENDED)) {
        return false;
    }
    error_setg(&err, "epoch %" PRIu64 " was given up for another migration",
               secondary.number);
    notify_clear_error();
    epochs_fail(err);
    return true;
}

static void secondary_forget(void)
{
    if (secondary.devices) {
        qemu_fclose(g_steal_pointer(&secondary.devices));
    }
    g_clear_pointer(&secondary.grace, timer_free);
    secondary.idle = false;
    secondary.disks = 0;
    QEMU_LOCK_GUARD(&secondary.lock);
    if (secondary.state != MIGRATION_CHECKPOINT_STATE_FAILOVER) {
        secondary.state = MIGRATION_CHECKPOINT_STATE_ENDED;
    }
}

static bool secondary_refuse(const char *why, Error **errp)
{
    error_setg(errp, "Cannot start the guest from a checkpoint: %s", why);
    return false;
}

/*
 * The thread may be anywhere: whatever it reads ends, and it finds the state
 * when it looks.
 */
static void secondary_free_thread(void *opaque)
{
    qio_channel_shutdown(qemu_file_get_ioc(destination.from_src),
                         QIO_CHANNEL_SHUTDOWN_READ, NULL);
}

/*
 * The guest must not run twice: a primary that is there stops it first, and
 * that the connection ends is its answer.
 */
static void secondary_tell_primary(void)
{
    if (!reply_accept()) {
        secondary_free_thread(NULL);
        return;
    }
    secondary.grace = timer_new_ms(QEMU_CLOCK_REALTIME, secondary_free_thread,
                                   NULL);
    timer_mod(secondary.grace,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + SECONDARY_GRACE_MS);
}

bool secondary_failover(Error **errp)
{
    if (!phase_has(&destination_phase, PHASE_RUNNING) ||
        !load_step_has(LOAD_EPOCHS)) {
        MigrationCheckpointState state = secondary_state();

        if (secondary.known &&
            state == MIGRATION_CHECKPOINT_STATE_FAILOVER) {
            return secondary_refuse("it has been done before", errp);
        }
        if (secondary.known && state == MIGRATION_CHECKPOINT_STATE_ENDED) {
            return secondary_refuse("the protection has ended", errp);
        }
        return secondary_refuse(
            migrate_checkpoint() ? "no epoch has been received yet" :
            "no migration with capability 'checkpoint' comes in", errp);
    }
    if (secondary_move(MIGRATION_CHECKPOINT_STATE_PROTECTED,
                       MIGRATION_CHECKPOINT_STATE_FAILOVER)) {
        secondary_tell_primary();
        return true;
    }
    if (secondary_move(MIGRATION_CHECKPOINT_STATE_WAITING,
                       MIGRATION_CHECKPOINT_STATE_FAILOVER)) {
        if (secondary.idle) {
            main_loop_run(secondary_take_over, NULL);
        }
        return true;
    }
    switch (secondary_state()) {
    case MIGRATION_CHECKPOINT_STATE_STARTING:
        return secondary_refuse("no epoch has been received as a whole yet",
                                errp);
    case MIGRATION_CHECKPOINT_STATE_FAILOVER:
        return secondary_refuse("it is being done", errp);
    default:
        return secondary_refuse("the primary has ended the protection, and "
                                "goes on with the guest, or the guest has "
                                "ended there", errp);
    }
}

/*
 * For the destination
 */

static const DestinationEpochs secondary_epochs = {
    .disks = secondary_take_disks,
    .begin = secondary_begin,
    .receive = secondary_receive,
    .ended = secondary_ended,
    .give_up = secondary_give_up,
    .forget = secondary_forget,
};

void secondary_init(void)
{
    qemu_mutex_init(&secondary.lock);
    destination.epochs = &secondary_epochs;
}

/*
 * A secondary that waits takes another migration, which it cannot before its
 * thread has ended.  Until then it is told of as if it had not noticed yet.
 */
static MigrationCheckpointState secondary_visible_state(void)
{
    return secondary.state == MIGRATION_CHECKPOINT_STATE_WAITING &&
           !secondary.idle ? MIGRATION_CHECKPOINT_STATE_PROTECTED
                           : secondary.state;
}

MigrationCheckpoint *secondary_query(void)
{
    MigrationCheckpoint *info;

    QEMU_LOCK_GUARD(&secondary.lock);
    if (!secondary.known) {
        return NULL;
    }
    info = g_memdup2(&secondary.last, sizeof(secondary.last));
    info->state = secondary_visible_state();
    info->epoch = secondary.number;
    info->has_apply = info->has_age = secondary.number;
    if (secondary.number) {
        info->age = (now_ns() - secondary.arrived_ns) / SCALE_MS;
    }
    return info;
}
