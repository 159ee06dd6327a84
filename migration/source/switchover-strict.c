/*
 * The source: switching over within the downtime limit, or not at all
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "block/block.h"
#include "block/dirty-bitmap.h"
#include "io/channel-buffer.h"
#include "migration/base/clock.h"
#include "migration/core/cost-history.h"
#include "migration/core/fault-inject.h"
#include "migration/core/notify.h"
#include "migration/core/permit.h"
#include "migration/core/reset.h"
#include "migration/device/sections.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/ram/ram-source.h"
#include "migration/rdma/rdma.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "attempt.h"
#include "loop-latency.h"
#include "multifd.h"
#include "postcopy.h"
#include "save.h"
#include "state.h"
#include "switchover-strict.h"
#include "switchover.h"

/*
 * Of the limit, for the guest to be resumed in, besides what the main loop is
 * late by; at most a quarter of it
 */
#define RESUME_NS (2 * SCALE_MS)
#define RESERVE_SHARE 4
/* STATE goes there, READY comes back, COMMIT goes there. */
#define WAYS 3
/*
 * Where no limit is promised, the order to start costs one more round trip.
 * That is worth it up to this share of the downtime limit.
 */
#define ROUND_TRIP_SHARE 4
/* Then the guest may stand still for so long, to be on the safe side. */
#define HELD_MAX_NS (24 * 3600 * NANOSECONDS_PER_SECOND)
/* For a destination to reset its devices and to answer ABORT */
#define ABORTED_MS (60 * 1000)
#define ABORTED_POLL_MS 100

typedef struct Strict {
    Switchover s;
    uint32_t number;            /* of the attempt, from 1 */
    bool one_sided;
    bool postcopy;              /* memory follows the guest */
    bool held;                  /* the destination has been told to hold */
    bool promised;              /* the limit is that of strict-downtime */
    int64_t limit_ns;           /* of the downtime */
    int64_t begun_ns;           /* just after what remains was looked at */
    int64_t deadline_ns;        /* when the guest has to run somewhere, */
    int64_t resume_ns;          /* so when it has to be resumed here */
    int64_t way_ns;             /* from here to there, as it was just now */
    GByteArray *state;          /* of the devices, with the end mark */
} Strict;

static bool strict_any_bitmap(void)
{
    BlockDriverState *bs;

    for (bs = bdrv_next_all_states(NULL); bs; bs = bdrv_next_all_states(bs)) {
        if (bdrv_has_named_bitmaps(bs)) {
            return true;
        }
    }
    return false;
}

/* Before the setup that of bitmaps does not know whether there are any. */
static bool strict_can_repeat(const Section *s)
{
    if (!strcmp(s->name, WIRE_BITMAPS_NAME)) {
        return !migrate_dirty_bitmaps() || !strict_any_bitmap();
    }
    return !section_active(s) || !strcmp(s->name, WIRE_RAM_NAME);
}

bool strict_sections(const char *capability, Error **errp)
{
    Section *s;

    FOR_EACH_SECTION_WITH(s, save_live_complete_precopy) {
        if (!strict_can_repeat(s)) {
            error_setg(errp, "Capability '%s' cannot be kept: '%s' can be "
                       "completed only once", capability, s->name);
            return false;
        }
    }
    return true;
}

bool strict_possible(Error **errp)
{
    ERRP_GUARD();

    if (!strict_sections("strict-downtime", errp)) {
        return false;
    }
    if (!reset_reaches_devices(errp)) {
        error_prepend(errp, "Capability 'strict-downtime' cannot be kept: ");
        return false;
    }
    return true;
}

/*
 * The destination has the same CPUs, and the same means to reset them.  What an
 * attempt that is given up has discarded there must not be written to by RDMA.
 */
bool strict_may_hold(void)
{
    return migrate_postcopy_ram() &&
           (source.view.peer.features & WIRE_PEER_STRICT) &&
           source.round_trip_ns * ROUND_TRIP_SHARE <=
               migrate_downtime_limit() * (int64_t)SCALE_MS &&
           !rdma_carries(qemu_file_get_ioc(source.to_dst)) &&
           permit_reset_of_cpus(NULL) && strict_possible(NULL);
}

/* The end of an attempt that can be repeated is no error. */
static bool still_open(Error **errp)
{
    return source_may_go_on(errp) && attempt_open();
}

static GByteArray *number_bytes(unsigned command, uint32_t number)
{
    WireAttempt payload;

    stl_be_p(&payload.attempt, number);
    return command_bytes(command, &payload, sizeof(payload));
}

static void send_number(QEMUFile *f, unsigned command, uint32_t number)
{
    g_autoptr(GByteArray) bytes = number_bytes(command, number);

    qemu_put_buffer(f, bytes->data, bytes->len);
    qemu_fflush(f);
}

/*
 * Before the guest stops
 */

void strict_rehearse(Policy *policy)
{
    bql_lock();
    loop_latency_watch();
    bql_unlock();
    policy_expect(policy, DOWNTIME_PART_TRANSIT,
                  WAYS * source.round_trip_ns / 2);
    policy_lead(policy, source.round_trip_ns);
}

static bool drain(Strict *a, Error **errp)
{
    switchover_drain(a->one_sided ? 0 : a->number, DRAIN_MS);
    return source_may_go_on(errp);
}

static bool send_hold(Strict *a, Error **errp)
{
    WireHold hold;

    if (!a->one_sided) {
        stl_be_p(&hold.attempt, a->number);
        stl_be_p(&hold.limit_us, MIN(a->limit_ns / SCALE_US, UINT32_MAX));
        command_send(source.to_dst, WIRE_CMD_HOLD, &hold, sizeof(hold));
        a->held = true;
    }
    return source_may_go_on(errp);
}

/*
 * Under the BQL: the guest stops, and what there is to send is found out
 */

/* In postcopy a device may need a page of memory to be loaded. */
static bool save_records(Strict *a, QEMUFile *f, Error **errp)
{
    if (a->postcopy) {
        qemu_savevm_send_postcopy_listen(f);
    }
    if (!vmstate_save_again(f, &a->s.saved, errp)) {
        return false;
    }
    if (a->postcopy && a->one_sided) {
        qemu_savevm_send_ping(f, WIRE_PING_DEVICES_LOADED);
        qemu_savevm_send_postcopy_run(f);
    } else {
        qemu_put_byte(f, WIRE_EOF);
    }
    return !qemu_fflush(f);
}

/* Writing waits for the network, so what is saved goes to memory first. */
static bool save_devices(Strict *a, Error **errp)
{
    QIOChannelBuffer *memory = qio_channel_buffer_new(64 * KiB);
    QEMUFile *f;
    bool ok;

    attempt_step("device-save");
    fault_inject_delay(DOWNTIME_PART_DEVICE_SAVE);
    qio_channel_set_name(QIO_CHANNEL(memory), "migration-state");
    f = qemu_file_new_output(QIO_CHANNEL(memory));
    ok = save_records(a, f, errp);
    a->state = g_byte_array_sized_new(memory->usage);
    g_byte_array_append(a->state, memory->data, memory->usage);
    qemu_fclose(f);
    object_unref(OBJECT(memory));
    switchover_part(&a->s, DOWNTIME_PART_DEVICE_SAVE);
    return ok && vmstate_fits_package(a->state, errp);
}

/* Returns how much memory there is to send. */
static uint64_t sync_log(Strict *a)
{
    RamSyncReport sync;

    attempt_step("sync");
    ram_source_sync_last();
    if (ram_source_last_sync(&sync)) {
        policy_measured(a->s.policy, DOWNTIME_PART_SYNC, sync.took_ns);
    }
    return ram_bytes_remaining();
}

/* Time in pre-switchover does not count against the limit. */
static bool stop(Strict *a, Error **errp)
{
    int64_t stop_ns;

    if (!switchover_begin(&a->s, errp)) {
        return false;
    }
    policy_lead(a->s.policy, a->s.ledger.first_ns - a->begun_ns);
    stop_ns = a->s.ledger.part_ns[DOWNTIME_PART_STOP];
    a->deadline_ns = a->s.since_ns - stop_ns + a->limit_ns;
    a->resume_ns = a->deadline_ns - MIN(RESUME_NS + loop_latency_ns(),
                                        a->limit_ns / RESERVE_SHARE);
    attempt_begin(a->resume_ns, switchover_undo);
    return attempt_in_time();
}

static bool stop_and_collect(Strict *a, Error **errp)
{
    bool ok;

    bql_lock();
    ok = stop(a, errp);
    if (ok) {
        switchover_prepare();
        ok = save_devices(a, errp);
        if (ok && attempt_in_time()) {
            sync_log(a);
            switchover_part(&a->s, DOWNTIME_PART_SYNC);
        }
    }
    bql_unlock();
    return ok && still_open(errp);
}

/*
 * Without it: all goes to the other side
 */

/* Who notices first that time is over acts first. */
static bool in_time(const Strict *a)
{
    if (attempt_open() && now_ns() >= a->resume_ns) {
        bql_lock();
        attempt_in_time();
        bql_unlock();
    }
    return attempt_open();
}

static bool tell_memory(Strict *a, Error **errp)
{
    postcopy_try_discard(!a->one_sided, NULL);
    if (a->one_sided) {
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_POSTCOPY);
    }
    switchover_part(&a->s, DOWNTIME_PART_RAM);
    return still_open(errp);
}

static bool strict_send_memory(Strict *a, Error **errp)
{
    int ret;

    attempt_step("ram");
    fault_inject_delay(DOWNTIME_PART_RAM);
    if (a->postcopy) {
        return tell_memory(a, errp);
    }
    ram_source_drain(true);
    do {
        ret = qemu_savevm_state_iterate(source.to_dst, false);
    } while (!ret && source_may_go_on(NULL) && in_time(a));
    ram_source_drain(false);
    qemu_fflush(source.to_dst);
    if (!multifd_settle(errp)) {
        return false;
    }
    switchover_part(&a->s, DOWNTIME_PART_RAM);
    return still_open(errp);
}

static bool send_state(Strict *a, Error **errp)
{
    WireState head;

    attempt_step("flush");
    fault_inject_delay(DOWNTIME_PART_FLUSH);
    stl_be_p(&head.attempt, a->number);
    stl_be_p(&head.len, a->state->len);
    command_send(source.to_dst, WIRE_CMD_STATE, &head, sizeof(head));
    qemu_put_buffer(source.to_dst, a->state->data, a->state->len);
    qemu_fflush(source.to_dst);
    switchover_part(&a->s, DOWNTIME_PART_FLUSH);
    return still_open(errp);
}

/*
 * Memory should not change while the guest is stopped, but a device may still
 * write.  Under the BQL: nothing can be written until it is released.
 */
static bool nothing_changed(Strict *a)
{
    RamSyncReport sync;

    /* What postcopy has left to send has not been sent before that either. */
    if (attempt_open() && sync_log(a) &&
        !(a->postcopy && ram_source_sync_report(&sync) && !sync.dirtied)) {
        attempt_abort("memory was written to while the guest was stopped");
    }
    return attempt_open();
}

/* A change that is found while the destination loads ends the attempt early. */
static bool look_early(Strict *a, Error **errp)
{
    bql_lock();
    nothing_changed(a);
    bql_unlock();
    return still_open(errp);
}

static void give_up(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

static void give_up(const char *fmt, ...)
{
    char reason[ATTEMPT_REASON_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    bql_lock();
    attempt_abort(reason);
    bql_unlock();
}

static double ms(int64_t ns)
{
    return ns / 1e6;
}

static void measured(Strict *a, DowntimePart part, uint64_t ns)
{
    policy_measured(a->s.policy, part, ns);
    cost_history_keep(part, ns);
}

static unsigned left_ms(const Strict *a)
{
    return DIV_ROUND_UP(MAX(a->resume_ns - now_ns(), 0), SCALE_MS);
}

/* Whoever loads a device may have to ask for what it needs. */
static bool answer_until_ready(Strict *a, ReturnPathReport *ready)
{
    while (!return_path_ready(source.return_path, 0, ready)) {
        if (!left_ms(a) || !still_open(NULL)) {
            return false;
        }
        postcopy_try_answer();
        qemu_sem_timedwait(&source.wake, left_ms(a));
    }
    return true;
}

/* READY: of the time since the last byte left, loading is theirs. */
static bool wait_ready(Strict *a, Error **errp)
{
    ReturnPathReport ready;
    int64_t ways_ns;

    attempt_step("device-load");
    if (a->postcopy ? !answer_until_ready(a, &ready)
                    : !return_path_ready(source.return_path, left_ms(a),
                                         &ready)) {
        /* What of it is whose is not known, and nothing to be learnt from. */
        ledger_mark(&a->s.ledger, DOWNTIME_PART_DEVICE_LOAD, a->s.since_ns,
                    now_ns());
        if (still_open(errp)) {
            give_up("time was over during 'device-load'");
        }
        return false;
    }
    ways_ns = ready.at_ns - a->s.since_ns - ready.report.load_ns;
    a->way_ns = MAX(ways_ns, 0) / 2;
    ledger_mark(&a->s.ledger, DOWNTIME_PART_TRANSIT, a->s.since_ns,
                a->s.since_ns + MAX(ways_ns, 0));
    ledger_mark(&a->s.ledger, DOWNTIME_PART_DEVICE_LOAD,
                ready.at_ns - ready.report.load_ns, ready.at_ns);
    measured(a, DOWNTIME_PART_DEVICE_LOAD, ready.report.load_ns);
    measured(a, DOWNTIME_PART_TRANSIT, WAYS * a->way_ns);
    a->s.loaded = ready.report.devices;
    a->s.since_ns = ready.at_ns;
    if (return_path_changed(source.return_path)) {
        give_up("memory of the destination was changed by something other "
                "than the migration");
    }
    return still_open(errp);
}

/*
 * The decision; under the BQL
 */

/*
 * What is left to do once the guest is handed over.  What disks and vCPUs take
 * there was measured elsewhere, so an attempt does not fail for more of
 * it than the share of the limit that is kept for surprises.
 */
static int64_t rest_ns(const Strict *a)
{
    const Policy *p = a->s.policy;
    int64_t rest = MIN(policy_cost(p, DOWNTIME_PART_ACTIVATE) +
                       policy_cost(p, DOWNTIME_PART_START),
                       a->limit_ns / RESERVE_SHARE);

    if (a->one_sided) {
        return rest + policy_cost(p, DOWNTIME_PART_FLUSH) +
               policy_cost(p, DOWNTIME_PART_TRANSIT) +
               (a->postcopy ? policy_cost(p, DOWNTIME_PART_DEVICE_LOAD) : 0);
    }
    return rest + a->way_ns;
}

static bool fits(const Strict *a)
{
    int64_t rest = rest_ns(a), left = a->deadline_ns - now_ns();
    g_autofree char *reason = NULL;

    if (rest <= left) {
        return true;
    }
    reason = g_strdup_printf("what is left to do would take %.1f ms, and "
                             "%.1f ms are left", ms(rest), ms(left));
    attempt_abort(reason);
    return false;
}

/* Live sections end with nothing more to say; the devices follow. */
static void send_plain_state(const Strict *a)
{
    qemu_savevm_state_complete_precopy_iterable(source.to_dst, false);
    if (a->one_sided) {
        /* without the end mark, which comes with the end of all */
        qemu_put_buffer(source.to_dst, a->state->data, a->state->len - 1);
    }
    qemu_savevm_state_end(source.to_dst);
}

/* From here on the guest is there. */
static bool strict_hand_over(Strict *a, Error **errp)
{
    if (a->postcopy) {
        g_autoptr(GByteArray) order = a->one_sided
            ? command_package(a->state)
            : number_bytes(WIRE_CMD_COMMIT, a->number);

        return switchover_commit(&a->s, order, !a->one_sided, errp);
    }
    if (!source_hand_over(errp)) {
        return false;
    }
    stream_keep(source.to_dst, true);
    if (a->one_sided) {
        send_plain_state(a);
    } else {
        send_number(source.to_dst, WIRE_CMD_COMMIT, a->number);
    }
    stream_keep(source.to_dst, false);
    return true;
}

/*
 * Without the BQL, as whoever writes may have to wait for the destination.  It
 * starts the guest when it has read all of COMMIT; as the state of devices is
 * longer, there the first byte of it counts.
 */
static bool write_order(Strict *a, uint64_t before, Error **errp)
{
    uint64_t enough = a->one_sided ? 1 : sizeof(WireCommand) +
                                         sizeof(WireAttempt);

    qemu_fflush(source.to_dst);
    switchover_part(&a->s, DOWNTIME_PART_FLUSH);
    if (stream_written(source.to_dst) - before >= enough) {
        return true;
    }
    source_take_back();
    stream_check(source.to_dst, errp);
    return false;
}

static bool commit(Strict *a, Error **errp)
{
    uint64_t before = stream_written(source.to_dst);
    bool ok = false;

    bql_lock();
    attempt_step("commit");
    if (attempt_open() && nothing_changed(a) && fits(a) && attempt_commit() &&
        switchover_disks(errp)) {
        if (!a->postcopy) {
            ram_source_is_synced();
        }
        switchover_part(&a->s, DOWNTIME_PART_ACTIVATE);
        ok = strict_hand_over(a, errp);
    }
    bql_unlock();
    return ok && (a->postcopy || write_order(a, before, errp));
}

static bool attempt_it(Strict *a, Error **errp)
{
    if (a->postcopy) {
        if (!postcopy_channels_ready(errp) || !multifd_leave(errp)) {
            return false;
        }
        a->begun_ns = now_ns();
    }
    if (!drain(a, errp) || !send_hold(a, errp) || !stop_and_collect(a, errp) ||
        !strict_send_memory(a, errp)) {
        return false;
    }
    if (!a->one_sided && !send_state(a, errp)) {
        return false;
    }
    /* Without a limit, nothing is gained by an early end. */
    return (!a->promised || look_early(a, errp)) &&
           (a->one_sided || wait_ready(a, errp)) && commit(a, errp);
}

/*
 * How it ended
 */

static void strict_show(const Strict *a, const char *why)
{
    QEMU_LOCK_GUARD(&source.lock);
    source.view.strict.attempts = a->number;
    source.view.strict.attempts_max = migrate_strict_downtime_attempts();
    source.view.strict.one_sided = a->one_sided;
    pstrcpy(source.view.strict.why, sizeof(source.view.strict.why), why);
}

/* The guest is on its way and will not be resumed here. */
static StrictResult handed_over(Strict *a, Error **errp)
{
    ReturnPathReport started = { 0 };
    int64_t total_ns;

    if (!switchover_arrived(stream_check(source.to_dst, NULL), &started,
                            errp)) {
        switchover_show(&a->s, 0);
        return STRICT_FAILED;
    }
    if (started.at_ns) {
        if (!a->one_sided) {
            /* It was told, and accounted for, with READY. */
            started.report.load_ns = 0;
        }
        switchover_join(&a->s, &started);
    }
    if (!a->one_sided) {
        /* Nothing is left in it that would require the BQL. */
        send_plain_state(a);
        qemu_fflush(source.to_dst);
    }
    total_ns = ledger_total_ns(&a->s.ledger);
    switchover_show(&a->s, total_ns / SCALE_MS);
    return STRICT_DONE;
}

/* The guest goes on here, and what was learnt helps the next attempt. */
static void aborted(Strict *a, const AttemptEnd *end)
{
    ledger_end(&a->s.ledger, end->resumed_ns);
    switchover_show(&a->s, 0);
    strict_show(a, end->reason);
    migration_rate_set(migrate_max_bandwidth());
    if (a->held) {
        send_number(source.to_dst, WIRE_CMD_ABORT, a->number);
        source.unsettled = a->number;
    }
    switchover_announce_abort(&a->s, a->number, end->reason);
}

static bool may_try_again(const Strict *a, const AttemptEnd *end, Error **errp)
{
    g_autofree char *parts = NULL;

    if (!source_may_go_on(errp)) {
        return false;
    }
    if (a->number < migrate_strict_downtime_attempts()) {
        return notify_phase_move(&source_phase, MIGRATION_STATUS_DEVICE,
                              MIGRATION_STATUS_ACTIVE) ||
               source_was_cancelled(errp);
    }
    if (!a->promised) {
        error_setg(errp, "The guest could not be switched over in %" PRIu32
                   " attempts; in the last, %s", a->number, end->reason);
        return false;
    }
    parts = ledger_text(&a->s.ledger);
    error_setg(errp, "The guest could not be switched over within the downtime "
               "limit of %" PRIu64 " ms in %" PRIu32 " attempts; in the last, "
               "%s (%s)", migrate_downtime_limit(), a->number, end->reason,
               parts);
    return false;
}

static StrictResult not_handed_over(Strict *a, bool begun, Error **errp)
{
    AttemptEnd end;

    if (!begun) {
        return STRICT_FAILED;
    }
    bql_lock();
    if (attempt_open()) {
        attempt_abort("the migration cannot go on");
    }
    end = attempt_end();
    if (!end.committed) {
        postcopy_try_failed();
    }
    bql_unlock();
    if (end.committed) {
        return STRICT_FAILED;
    }
    aborted(a, &end);
    if (*errp) {
        error_prepend(errp, "Attempt %" PRIu32 " to switch over ended, and the "
                      "guest goes on here: ", a->number);
    }
    return !*errp && may_try_again(a, &end, errp) ? STRICT_AGAIN
                                                  : STRICT_FAILED;
}

/* Takes over @changes. */
static bool strict_send_again(GArray *changes, Error **errp)
{
    bool ok = true;

    bql_lock();
    for (unsigned i = 0; ok && i < changes->len; i++) {
        const ReturnPathChange *c =
            &g_array_index(changes, ReturnPathChange, i);

        ok = ram_source_send_again(c->block, c->start, c->len, errp);
    }
    if (changes->len) {
        ram_source_peer_forgot();
    }
    bql_unlock();
    g_array_free(changes, true);
    return ok;
}

bool strict_settle(Error **errp)
{
    int64_t end = now_ms() + ABORTED_MS;
    GArray *changes;

    if (!source.unsettled) {
        return true;
    }
    while (!return_path_aborted(source.return_path, source.unsettled,
                                ABORTED_POLL_MS, &changes)) {
        if (!source_may_go_on(errp)) {
            return false;
        }
        if (now_ms() > end) {
            error_setg(errp, "destination has not answered ABORT for %d s",
                       ABORTED_MS / 1000);
            return false;
        }
    }
    source.unsettled = 0;
    return strict_send_again(changes, errp);
}

StrictResult strict_run(Policy *policy, bool postcopy, Error **errp)
{
    ERRP_GUARD();
    Strict a = {
        .s.policy = policy,
        .begun_ns = now_ns(),
        .postcopy = postcopy || postcopy_no_way_back(),
        .promised = migrate_strict_downtime(),
        .limit_ns = HELD_MAX_NS,
    };
    StrictResult result;

    if (a.promised) {
        a.limit_ns = migrate_downtime_limit() * (int64_t)SCALE_MS;
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        a.number = source.view.strict.attempts + 1;
        a.one_sided = !(source.view.peer.features & WIRE_PEER_STRICT);
    }
    strict_show(&a, "");
    if (attempt_it(&a, errp)) {
        bql_lock();
        attempt_end();
        bql_unlock();
        result = a.postcopy ? STRICT_POSTCOPY : handed_over(&a, errp);
    } else {
        result = not_handed_over(&a, a.deadline_ns, errp);
    }
    if (a.state) {
        g_byte_array_unref(a.state);
    }
    return result;
}
