/*
 * The source: stopping the guest and sending what is left
 *
 * From the moment the vCPUs are asked to stop, every part is measured.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "migration/base/clock.h"
#include "migration/core/cost-history.h"
#include "migration/core/disks.h"
#include "migration/core/fault-inject.h"
#include "migration/core/notify.h"
#include "migration/core/permit.h"
#include "migration/global_state.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/ram/ram-source.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "system/runstate.h"
#include "device-state.h"
#include "multifd.h"
#include "requests.h"
#include "save.h"
#include "state.h"
#include "switchover.h"

/* How long a destination that never said a word may still take for its first */
#define SILENCE_MS (2 * 1000)
/* How often a destination is looked after while the user is waited for */
#define USER_POLL_MS 100

void switchover_drain(uint32_t attempt, int timeout_ms)
{
    uint32_t value = WIRE_PING_DRAIN + attempt;

    return_path_expect(source.return_path, attempt, value);
    qemu_savevm_send_ping(source.to_dst, value);
    return_path_ponged(source.return_path, timeout_ms);
}

void switchover_part(Switchover *s, DowntimePart part)
{
    int64_t now = now_ns();

    trace_migration_switchover_part(downtime_part_name(part),
                                    now - s->since_ns);
    ledger_mark(&s->ledger, part, s->since_ns, now);
    if (part != DOWNTIME_PART_RAM) {
        policy_measured(s->policy, part, now - s->since_ns);
        cost_history_keep(part, now - s->since_ns);
    }
    s->since_ns = now;
}

static bool stop_guest(Error **errp)
{
    int ret;

    source.stopped_ns = now_ns();
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
    return true;
}

/* A vCPU may have requested something with the last it did. */
static bool stop_for_good(Error **errp)
{
    do {
        switchover_undo();
        if (!requests_settle(errp) || !stop_guest(errp)) {
            return false;
        }
        requests_note_stop();
    } while (qemu_system_requests_pending());
    return true;
}

bool switchover_stop_first(Error **errp)
{
    source.stopped_first = stop_for_good(errp);
    return source.stopped_first;
}

/* What was sent of a guest that had stopped before is memory. */
static bool stop_now(Switchover *s, Error **errp)
{
    if (!source.stopped_first && !stop_for_good(errp)) {
        return false;
    }
    fault_inject_delay(DOWNTIME_PART_STOP);
    s->since_ns = source.stopped_ns;
    switchover_part(s, source.stopped_first ? DOWNTIME_PART_RAM
                                            : DOWNTIME_PART_STOP);
    return true;
}

/*
 * The user may want to prepare things while the guest is stopped: for
 * nothing, once the destination is gone.
 */
static bool wait_for_user(Error **errp)
{
    bool ok = true;

    qatomic_set(&source.go_on, false);
    if (!notify_phase_move(&source_phase, MIGRATION_STATUS_ACTIVE,
                        MIGRATION_STATUS_PRE_SWITCHOVER)) {
        return source_was_cancelled(errp);
    }
    bql_unlock();
    while (!qatomic_read(&source.go_on) && (ok = source_may_go_on(errp))) {
        qemu_sem_timedwait(&source.wake, USER_POLL_MS);
    }
    bql_lock();
    return ok && (notify_phase_move(&source_phase,
                                 MIGRATION_STATUS_PRE_SWITCHOVER,
                                 MIGRATION_STATUS_DEVICE) ||
                  source_was_cancelled(errp));
}

static bool enter_device(Switchover *s, Error **errp)
{
    if (migrate_pause_before_switchover()) {
        bool ok = wait_for_user(errp);
        int64_t now = now_ns();

        /* That time is the user's. */
        ledger_skip(&s->ledger, now - s->since_ns);
        s->since_ns = now;
        return ok;
    }
    return notify_phase_move(&source_phase, MIGRATION_STATUS_ACTIVE,
                          MIGRATION_STATUS_DEVICE) ||
           source_was_cancelled(errp);
}

bool switchover_begin(Switchover *s, Error **errp)
{
    return stop_now(s, errp) && enter_device(s, errp);
}

void switchover_prepare(void)
{
    Error *err = NULL;

    migration_rate_set(RATE_LIMIT_DISABLED);
    if (precopy_notify(PRECOPY_NOTIFY_COMPLETE, &err)) {
        error_report_err(err);
    }
    trace_migration_precopy_complete();
    /* Another attempt may follow, when the destination does not expect it. */
    if (!source.start_sent) {
        source.start_sent = true;
        qemu_savevm_maybe_send_switchover_start(source.to_dst);
    }
}

bool switchover_disks(Error **errp)
{
    fault_inject_delay(DOWNTIME_PART_ACTIVATE);
    return disks_inactivate(errp);
}

bool switchover_leave(Switchover *s, Error **errp)
{
    if (!switchover_begin(s, errp) || !switchover_disks(errp)) {
        return false;
    }
    switchover_prepare();
    return true;
}

bool switchover_saved(int ret, Error **errp)
{
    if (!ret) {
        return stream_check(source.to_dst, errp);
    }
    if (stream_check(source.to_dst, errp)) {
        Error *err = notify_first_error();

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
void switchover_memory_sent(Switchover *s)
{
    RamSyncReport sync;

    if (ram_source_last_sync(&sync)) {
        int64_t synced = s->since_ns + sync.took_ns;

        ledger_mark(&s->ledger, DOWNTIME_PART_SYNC, s->since_ns, synced);
        s->since_ns = synced;
    }
    switchover_part(s, DOWNTIME_PART_RAM);
}

/*
 * Memory that was not sent before the guest stopped may be a lot, and is sent
 * without the BQL; it has stopped changing, but for what a reset or a device
 * may do.  Up to so much waits for the devices instead.
 */
#define RAM_WITH_DEVICES (1 * MiB)

static bool switchover_send_memory(Switchover *s, Error **errp)
{
    int ret;

    ram_source_drain(true);
    do {
        ret = vmstate_save_ram(source.to_dst);
    } while (!ret && source_may_go_on(NULL));
    ram_source_drain(false);
    switchover_part(s, DOWNTIME_PART_RAM);
    return switchover_saved(MIN(ret, 0), errp) && source_may_go_on(errp);
}

/* Under the BQL: what is left of memory, and all that is no memory */
static bool keep_rest(Switchover *s, Error **errp)
{
    int ret;

    save_threads_begin();
    ret = qemu_savevm_state_complete_precopy_iterable(source.to_dst, false);
    fault_inject_delay(DOWNTIME_PART_RAM);
    switchover_memory_sent(s);
    if (!switchover_saved(ret, errp)) {
        return false;
    }
    ret = vmstate_save_devices(source.to_dst, &s->saved);
    fault_inject_delay(DOWNTIME_PART_DEVICE_SAVE);
    switchover_part(s, DOWNTIME_PART_DEVICE_SAVE);
    source.state_saved = true;
    return switchover_saved(ret, errp);
}

/* How far a switchover has come under the BQL, while nothing is written */
typedef enum Kept {
    KEPT_ALL,
    KEPT_MORE,                  /* memory is to be sent before the rest */
    KEPT_RETURNED,              /* nothing: the guest runs again */
    KEPT_FAILED,
} Kept;

/* Under the BQL, when nothing of the guest's state has been sent. */
static Kept take_back(Switchover *s, uint64_t remaining, Error **errp)
{
    g_autofree char *reason = g_strdup_printf(
        "%.1f MiB were left when the guest had stopped",
        remaining / (double)MiB);

    /* Rates are of passes: this sync was too soon after the last one. */
    switchover_memory_sent(s);
    switchover_undo();
    ledger_end(&s->ledger, now_ns());
    migration_rate_set(migrate_max_bandwidth());
    switchover_announce_abort(s, ++source.returned, reason);
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        stall_record(&source.view.stalls, "switchover",
                     ledger_total_ns(&s->ledger));
    }
    return notify_phase_move(&source_phase, MIGRATION_STATUS_DEVICE,
                             MIGRATION_STATUS_ACTIVE) ||
           source_was_cancelled(errp) ? KEPT_RETURNED : KEPT_FAILED;
}

/* Under the BQL. */
static Kept stop_and_keep(Switchover *s, const PolicyLimits *limits,
                          uint64_t *remaining, Error **errp)
{
    if (!switchover_leave(s, errp)) {
        return KEPT_FAILED;
    }
    ram_source_sync_last();
    *remaining = ram_bytes_remaining();
    if (limits && *remaining > policy_threshold(s->policy, limits)) {
        return take_back(s, *remaining, errp);
    }
    if (*remaining > RAM_WITH_DEVICES) {
        switchover_memory_sent(s);
        return KEPT_MORE;
    }
    ram_source_is_synced();
    return keep_rest(s, errp) ? KEPT_ALL : KEPT_FAILED;
}

/*
 * What the destination cannot do without comes last and alone, so that a
 * migration can be cancelled for as long as possible.
 */
static bool switchover_send_end(Switchover *s, Error **errp)
{
    int ret = qemu_fflush(source.to_dst);
    uint64_t before = stream_written(source.to_dst);

    if (switchover_saved(ret, errp) && save_threads_join(errp) &&
        multifd_settle(errp) && source_hand_over(errp)) {
        fault_inject_delay(DOWNTIME_PART_FLUSH);
        qemu_savevm_state_end(source.to_dst);
        ret = qemu_fflush(source.to_dst);
        switchover_part(s, DOWNTIME_PART_FLUSH);
        if (stream_written(source.to_dst) == before) {
            source_take_back();
        }
        return switchover_saved(ret, errp);
    }
    return false;
}

/*
 * The guest's state is that of one moment under the BQL, in which its devices
 * are saved and memory is looked at for the last time.  Nothing is written
 * then: whoever writes may have to wait for the destination.
 */
static SwitchoverEnd send_rest(Switchover *s, const PolicyLimits *limits,
                               uint64_t *remaining, Error **errp)
{
    Kept kept;
    bool ok;

    bql_lock();
    stream_keep(source.to_dst, true);
    kept = stop_and_keep(s, limits, remaining, errp);
    stream_keep(source.to_dst, false);
    bql_unlock();
    if (kept == KEPT_RETURNED) {
        return SWITCHOVER_RETURNED;
    }
    ok = kept != KEPT_FAILED;
    if (kept == KEPT_MORE) {
        ok = switchover_send_memory(s, errp);
        if (ok) {
            bql_lock();
            stream_keep(source.to_dst, true);
            ok = keep_rest(s, errp);
            stream_keep(source.to_dst, false);
            bql_unlock();
        }
    }
    ok = ok && switchover_send_end(s, errp);
    save_threads_abort();
    return ok ? SWITCHOVER_DONE : SWITCHOVER_FAILED;
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

bool switchover_arrived(bool sent, ReturnPathReport *started, Error **errp)
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
    source_waits_for("the destination to say that it has the guest");
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
 * More than a round trip takes it is only if the destination was still at what
 * had come before the last byte, which is devices.
 */
void switchover_join(Switchover *s, const ReturnPathReport *started)
{
    const DowntimeReport *r = &started->report;
    int64_t there = r->load_ns + r->activate_ns + r->start_ns;
    int64_t ways = MAX(started->at_ns - s->since_ns - there, 0);
    int64_t busy = source.round_trip_ns && r->load_ns
                   ? MAX(ways - source.round_trip_ns, 0) : 0;

    ledger_add(&s->ledger, DOWNTIME_PART_TRANSIT, (ways - busy) / 2);
    ledger_add(&s->ledger, DOWNTIME_PART_DEVICE_LOAD, r->load_ns + busy);
    ledger_add(&s->ledger, DOWNTIME_PART_ACTIVATE, r->activate_ns);
    ledger_add(&s->ledger, DOWNTIME_PART_START, r->start_ns);
    s->loaded = r->devices;
}

void switchover_show(const Switchover *s, int64_t downtime_ms)
{
    QEMU_LOCK_GUARD(&source.lock);
    source.view.downtime = s->ledger;
    source.view.saved = s->saved;
    source.view.loaded = s->loaded;
    source.view.downtime_ms = downtime_ms;
}

/*
 * The last switchover.  A peer says what became of its part of it when it has
 * started the guest; memory is on its way by then.
 */
static struct {
    Switchover s;
    bool loaded;                /* what it took to load was known before */
    bool open;                  /* it has not said so yet */
} last;

void switchover_expect_start(const Switchover *s, bool loaded)
{
    last.s = *s;
    last.loaded = loaded;
    last.open = source.return_path;
}

void switchover_note_start(void)
{
    ReturnPathReport started;
    LedgerDevices loaded = last.s.loaded;

    if (!last.open || !source.return_path ||
        !return_path_started(source.return_path, 0, &started)) {
        return;
    }
    last.open = false;
    if (last.loaded) {
        started.report.load_ns = 0;
        started.report.devices = loaded;
    }
    switchover_join(&last.s, &started);
    switchover_show(&last.s, ledger_total_ns(&last.s.ledger) / SCALE_MS);
}

void switchover_announce_abort(const Switchover *s, uint32_t number,
                               const char *reason)
{
    g_autoptr(MigrationDowntime) downtime =
        ledger_downtime(&s->ledger, &s->saved, &s->loaded);

    trace_migration_attempt_aborted(number, reason,
                                    ledger_total_ns(&s->ledger) / SCALE_US);
    if (migrate_events()) {
        qapi_event_send_migration_switchover_aborted(number, reason, downtime);
    }
}

SwitchoverEnd switchover_run(Policy *policy, const PolicyLimits *limits,
                             uint64_t *remaining, Error **errp)
{
    Switchover s = { .policy = policy };
    ReturnPathReport started = { 0 };
    Error *err = NULL, *verdict = NULL;
    SwitchoverEnd end;
    int64_t end_ns;
    bool ok;

    if (source.round_trip_ns) {
        switchover_drain(0, MIN(migrate_downtime_limit(), DRAIN_MS));
    }
    end = send_rest(&s, limits, remaining, &err);
    if (end == SWITCHOVER_RETURNED) {
        return end;
    }
    ok = end == SWITCHOVER_DONE;
    end_ns = now_ns();
    if (source.handed_over) {
        ok = switchover_arrived(ok, &started, &verdict);
        if (started.at_ns) {
            switchover_join(&s, &started);
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
    switchover_show(&s, ok ? (end_ns - source.stopped_ns) / SCALE_MS : 0);
    return ok ? SWITCHOVER_DONE : SWITCHOVER_FAILED;
}

static bool disks_back(void)
{
    Error *err = NULL;

    if (disks_activate(&err)) {
        return true;
    }
    error_prepend(&err, "the guest stays stopped on the source, and 'cont' "
                  "resumes it: ");
    error_report_err(error_copy(err));
    notify_error_also(err);
    return false;
}

/* Without its disks it stays stopped, until the user says `cont`. */
static void start_again(void)
{
    if (disks_back()) {
        /* The destination may have had it, but has not run it. */
        permit_guest_start(true);
        vm_start();
        permit_guest_start(false);
    } else if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        runstate_set(RUN_STATE_PAUSED);
    }
}

void switchover_undo(void)
{
    if (!source.stopped_guest) {
        return;
    }
    requests_note_stop();
    source.stopped_guest = source.state_saved = false;
    if (runstate_is_live(source.vm_before) &&
        !runstate_check(RUN_STATE_SHUTDOWN)) {
        start_again();
    } else {
        disks_back();
        if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
            /* A debugger that had stopped it has heard so from the start. */
            runstate_set(source.vm_before == RUN_STATE_DEBUG
                         ? RUN_STATE_PAUSED : source.vm_before);
        }
    }
}
