/*
 * The source: stopping the guest and sending what is left
 *
 * From the moment the vCPUs are asked to stop, every part is measured.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/ram/ram-source.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "system/runstate.h"
#include "ctx.h"
#include "postcopy-source.h"
#include "source.h"
#include "vmstate.h"

/* How long a destination that never said a word may still take for its first */
#define SILENCE_MS (2 * 1000)
/* How often a destination is looked after while the user is waited for */
#define USER_POLL_MS 100

/* One switchover: its ledger, and where the part that runs began. */
typedef struct Switchover {
    Policy *policy;
    DowntimeLedger ledger;
    LedgerDevices saved, loaded;    /* the slowest devices, here and there */
    int64_t since_ns;
} Switchover;

static int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/*
 * The part that ran until now was @part; the next begins.  What RAM costs the
 * policy works out from speeds.
 */
static void part_done(Switchover *s, PolicyPart part)
{
    int64_t now = now_ns();

    trace_migration_switchover_part(policy_part_name(part), now - s->since_ns);
    ledger_mark(&s->ledger, part, s->since_ns, now);
    if (part != POLICY_PART_RAM) {
        policy_measured(s->policy, part, now - s->since_ns);
    }
    s->since_ns = now;
}

/*
 * Steps, under the BQL; each says by @errp why it did not work
 */

static bool stop_guest(Switchover *s, Error **errp)
{
    int ret;

    s->since_ns = now_ns();
    source.downtime_start_ms = s->since_ns / SCALE_MS;
    trace_vmstate_downtime_checkpoint("src-downtime-start");
    source.vm_before = runstate_get();
    source.stopped_guest = true;
    global_state_store();
    ret = vm_stop_force_state(RUN_STATE_FINISH_MIGRATE);
    trace_migration_completion_vm_stop(ret);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "The guest's disks cannot be flushed");
        return false;
    }
    part_done(s, POLICY_PART_STOP);
    return true;
}

/*
 * The user may want to prepare things while the guest stands still: for
 * nothing, once the destination is gone.
 */
static bool wait_for_user(Error **errp)
{
    bool ok = true;

    qatomic_set(&source.go_on, false);
    if (!ctx_phase_move(&source.phase, MIGRATION_STATUS_ACTIVE,
                        MIGRATION_STATUS_PRE_SWITCHOVER)) {
        return source_was_cancelled(errp);
    }
    bql_unlock();
    while (!qatomic_read(&source.go_on) && (ok = source_may_go_on(errp))) {
        qemu_sem_timedwait(&source.wake, USER_POLL_MS);
    }
    bql_lock();
    return ok && (ctx_phase_move(&source.phase,
                                 MIGRATION_STATUS_PRE_SWITCHOVER,
                                 MIGRATION_STATUS_DEVICE) ||
                  source_was_cancelled(errp));
}

static bool enter_device_phase(Switchover *s, Error **errp)
{
    if (migrate_pause_before_switchover()) {
        bool ok = wait_for_user(errp);

        /* That time is the user's. */
        s->since_ns = now_ns();
        return ok;
    }
    return ctx_phase_move(&source.phase, MIGRATION_STATUS_ACTIVE,
                          MIGRATION_STATUS_DEVICE) ||
           source_was_cancelled(errp);
}

/* The destination will open the disks before it has read the last byte. */
static bool hand_over_disks(Error **errp)
{
    if (!migration_block_inactivate()) {
        error_setg(errp, "The guest's disks cannot be handed over; the log "
                   "of QEMU says which");
        return false;
    }
    return true;
}

static void announce_completion(void)
{
    Error *err = NULL;

    if (precopy_notify(PRECOPY_NOTIFY_COMPLETE, &err)) {
        error_report_err(err);
    }
    trace_migration_precopy_complete();
}

/* @ret of a function that left its reason in the stream or the context. */
static bool saved(int ret, Error **errp)
{
    if (!ret) {
        return stream_check(source.to_dst, errp);
    }
    if (stream_check(source.to_dst, errp)) {
        Error *err = ctx_error();

        if (err) {
            error_propagate(errp, err);
        } else {
            error_setg_errno(errp, -ret, "The state of the guest cannot be "
                             "saved");
        }
    }
    return false;
}

/* The last collection of the dirty log is a part of sending memory. */
static void memory_done(Switchover *s)
{
    RamSyncReport sync;

    if (ram_source_last_sync(&sync)) {
        int64_t synced = s->since_ns + sync.took_ns;

        ledger_mark(&s->ledger, POLICY_PART_SYNC, s->since_ns, synced);
        s->since_ns = synced;
    }
    part_done(s, POLICY_PART_RAM);
}

static bool send_memory(Switchover *s, Error **errp)
{
    int ret = qemu_savevm_state_complete_precopy_iterable(source.to_dst,
                                                          false);

    memory_done(s);
    return saved(ret, errp);
}

static bool send_devices(Switchover *s, Error **errp)
{
    int ret = vmstate_save_devices(source.to_dst, &s->saved);

    part_done(s, POLICY_PART_DEVICE_SAVE);
    return saved(ret, errp);
}

/*
 * What the destination cannot do without comes last and alone, so that a
 * migration can be cancelled for as long as possible.
 */
static bool send_end(Switchover *s, Error **errp)
{
    int ret = qemu_fflush(source.to_dst);

    if (saved(ret, errp) && source_hand_over(errp)) {
        qemu_savevm_state_end(source.to_dst);
        ret = qemu_fflush(source.to_dst);
        part_done(s, POLICY_PART_FLUSH);
        return saved(ret, errp);
    }
    return false;
}

static bool send_rest(Switchover *s, Error **errp)
{
    if (!stop_guest(s, errp) || !enter_device_phase(s, errp) ||
        !hand_over_disks(errp)) {
        return false;
    }
    migration_rate_set(RATE_LIMIT_DISABLED);
    announce_completion();
    qemu_savevm_maybe_send_switchover_start(source.to_dst);
    return send_memory(s, errp) && send_devices(s, errp) && send_end(s, errp);
}

/* There is a QEMU on the other side, and it talks to us. */
static bool answered(void)
{
    return source.return_path && return_path_answered(source.return_path);
}

/* The guest may run there or not. It must not run twice, so it waits here. */
static bool guest_is_lost(Error **errp)
{
    source.lost = true;
    error_setg(errp, "The connection broke after the guest had been handed "
               "over, and before the destination said that it has it. It "
               "stays stopped here, so that it cannot run twice: 'cont' has "
               "it go on, if it does not run there");
    return false;
}

/*
 * The guest was handed over, @sent if nothing went wrong with that.  A QEMU
 * says when it has the guest, or that it failed; a peer also what it did with
 * the time, which goes to *@started.  One that never said a word is a channel
 * that goes one way, and nothing more can be known.
 */
static bool destination_has_guest(bool sent, ReturnPathReport *started,
                                  Error **errp)
{
    ReturnPath *rp = source.return_path;

    if (!rp) {
        return sent;
    }
    if (!migrate_return_path() && !answered()) {
        return_path_wait_end(rp, SILENCE_MS, NULL);
        if (!answered()) {
            return sent;
        }
    }
    if (return_path_started(rp, -1, started)) {
        return true;
    }
    switch (return_path_state(rp, NULL)) {
    case RETURN_PATH_DONE:
        return true;
    case RETURN_PATH_REFUSED:
        return_path_state(rp, errp);
        return false;
    default:
        return guest_is_lost(errp);
    }
}

/*
 * Our clock does not reach the other side.  What @started says of its part is
 * taken as it is, and the rest of the time until it came is that of two ways.
 */
static void join(Switchover *s, const ReturnPathReport *started)
{
    const Report *r = &started->report;
    int64_t there = r->load_ns + r->activate_ns + r->start_ns;
    int64_t ways = started->at_ns - s->since_ns - there;

    ledger_add(&s->ledger, POLICY_PART_TRANSIT, MAX(ways, 0) / 2);
    ledger_add(&s->ledger, POLICY_PART_DEVICE_LOAD, r->load_ns);
    ledger_add(&s->ledger, POLICY_PART_ACTIVATE, r->activate_ns);
    ledger_add(&s->ledger, POLICY_PART_START, r->start_ns);
    s->loaded = r->devices;
}

/*
 * Postcopy
 */

/* What cannot follow later, and what must not be used over there. */
static bool send_before_package(Switchover *s, Error **errp)
{
    int ret = qemu_savevm_state_complete_precopy_iterable(source.to_dst, true);

    if (!saved(ret, errp) ||
        (migrate_postcopy_ram() &&
         !postcopy_discard_dirty(source.to_dst, errp))) {
        return false;
    }
    if (source.return_path) {
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_POSTCOPY);
    }
    memory_done(s);
    return stream_check(source.to_dst, errp);
}

/*
 * The last byte of the package is an order to run the guest.  As long as not
 * all of it went out, the guest is here; whatever fails after that, it is not.
 */
static bool hand_over_package(Switchover *s, const GByteArray *package,
                              Error **errp)
{
    QEMUFile *f = source.to_dst;
    uint64_t end;

    if (!saved(qemu_fflush(f), errp) || !source_hand_over(errp)) {
        return false;
    }
    postcopy_open_requests();
    end = stream_position(f) + sizeof(WireCommand) + sizeof(WirePackaged) +
          package->len;
    savevm_send_package(f, package);
    qemu_fflush(f);
    part_done(s, POLICY_PART_FLUSH);
    if (stream_position(f) < end) {
        stream_check(f, errp);
        return false;
    }
    return true;
}

static bool send_guest(Switchover *s, Error **errp)
{
    g_autoptr(GByteArray) package = NULL;

    trace_postcopy_start_set_run();
    if (!stop_guest(s, errp) || !enter_device_phase(s, errp) ||
        !hand_over_disks(errp)) {
        return false;
    }
    migration_rate_set(RATE_LIMIT_DISABLED);
    announce_completion();
    qemu_savevm_maybe_send_switchover_start(source.to_dst);
    if (!send_before_package(s, errp)) {
        return false;
    }
    package = savevm_make_package(source.return_path, errp);
    part_done(s, POLICY_PART_DEVICE_SAVE);
    return package && hand_over_package(s, package, errp);
}

static void enter_postcopy(void)
{
    source.postcopy = true;
    ctx_notify(MIG_EVENT_PRECOPY_DONE, NULL);
    if (source.return_path) {
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_PACKAGE_SENT);
    }
    postcopy_release_sent();
    migration_rate_set(migrate_max_postcopy_bandwidth());
    ctx_phase_set(&source.phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
}

bool switchover_to_postcopy(Policy *policy, Error **errp)
{
    Switchover s = { .policy = policy };
    bool ok;

    trace_postcopy_start();
    bql_lock();
    ok = send_guest(&s, errp);
    if (ok) {
        trace_vmstate_downtime_checkpoint("src-downtime-end");
        WITH_QEMU_LOCK_GUARD(&source.lock) {
            source.view.downtime = s.ledger;
            source.view.downtime_ms = now_ns() / SCALE_MS -
                                      source.downtime_start_ms;
        }
        enter_postcopy();
    }
    bql_unlock();
    return ok;
}

bool switchover_run(Policy *policy, Error **errp)
{
    Switchover s = { .policy = policy };
    ReturnPathReport started = { 0 };
    Error *err = NULL, *verdict = NULL;
    int64_t end_ns;
    bool ok;

    bql_lock();
    ok = send_rest(&s, &err);
    bql_unlock();
    end_ns = now_ns();
    if (source.handed_over) {
        ok = destination_has_guest(ok, &started, &verdict);
        if (started.at_ns) {
            join(&s, &started);
            end_ns = s.ledger.first_ns + ledger_total_ns(&s.ledger);
        } else if (answered()) {
            end_ns = now_ns();
        }
    }
    if (ok || verdict) {
        /* What went wrong on the way does not count any more. */
        error_free(err);
        err = verdict;
    }
    error_propagate(errp, err);

    trace_vmstate_downtime_checkpoint("src-downtime-end");
    QEMU_LOCK_GUARD(&source.lock);
    source.view.downtime = s.ledger;
    source.view.saved = s.saved;
    source.view.loaded = s.loaded;
    if (ok) {
        source.view.downtime_ms = end_ns / SCALE_MS -
                                  source.downtime_start_ms;
    }
    return ok;
}

/* Without its disks it stays stopped, until the user says `cont`. */
static void start_again(void)
{
    if (migration_block_activate(NULL)) {
        vm_start();
    } else if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        runstate_set(RUN_STATE_PAUSED);
    }
}

void switchover_undo(void)
{
    if (!source.stopped_guest) {
        return;
    }
    source.stopped_guest = false;
    if (runstate_is_live(source.vm_before) &&
        !runstate_check(RUN_STATE_SHUTDOWN)) {
        start_again();
    } else {
        migration_block_activate(NULL);
        if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
            runstate_set(source.vm_before);
        }
    }
}
