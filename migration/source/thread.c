/*
 * The source: the migration thread
 *
 * Sets up, sends until little enough is left, and has the guest switched
 * over.  It holds no lock while it scans, encodes and sends; the BQL is taken
 * around what needs it, and each of those times is recorded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "io/channel-file.h"
#include "migration/base/clock.h"
#include "migration/core/cost-history.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/core/settings.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram/ram-source.h"
#include "migration/rdma/rdma.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "system/runstate.h"
#include "background-snapshot.h"
#include "converge.h"
#include "cpr-source.h"
#include "failure.h"
#include "multifd.h"
#include "postcopy.h"
#include "preflight.h"
#include "speed.h"
#include "state.h"
#include "switchover.h"
#include "thread.h"
#include "throttle.h"
#include "urgent-channel.h"

/* How long a destination has to say who it is; the guest runs meanwhile. */
#define MEET_MS 1000
/* How often a device is looked at whose unplug was requested */
#define UNPLUG_POLL_MS 250
#define UNPLUG_END_POLL_MS 50
/* How long a migration that has failed waits for it */
#define UNPLUG_END_MS (30 * 1000)
/* How long a decision may wait for SWITCHOVER_ACK before more is sent */
#define ACK_POLL_MS 50
/* How long the limit is waited for before it is looked at again */
#define LIMIT_POLL_NS (50 * SCALE_MS)
/* How long the guest runs between two attempts, at first and at most */
#define RETRY_NS (100 * SCALE_MS)
#define RETRY_NS_MAX (2000 * SCALE_MS)

/* Waits until somebody calls, or the time is over. */
static void doze(int64_t ns)
{
    qemu_sem_timedwait(&source.wake, DIV_ROUND_UP(ns, SCALE_MS));
}

/* Takes the BQL; returns when, which unlock_bql() is given. */
static int64_t lock_bql(void)
{
    bql_lock();
    return now_ns();
}

/* Lets go of it; that time is recorded, with @step, as a stall of the guest. */
static void unlock_bql(const char *step, int64_t since_ns)
{
    int64_t held = now_ns() - since_ns;

    bql_unlock();
    QEMU_LOCK_GUARD(&source.lock);
    stall_record(&source.view.stalls, step, held);
}

/*
 * Setting up
 */

/* While nothing else is on its way; the guest runs meanwhile. */
static void measure_round_trip(void)
{
    int64_t start = now_ns();

    return_path_expect(source.return_path, 0, WIRE_PING_ROUND_TRIP);
    qemu_savevm_send_ping(source.to_dst, WIRE_PING_ROUND_TRIP);
    if (return_path_ponged(source.return_path, MEET_MS)) {
        source.round_trip_ns = now_ns() - start;
    }
}

/* Who is there, and whether it fits; before anything has to be prepared. */
static bool meet(Peer *peer, Error **errp)
{
    if (source.return_path) {
        preflight_greet(source.to_dst);
        return_path_meet(source.return_path, MEET_MS, peer);
    }
    if (migrate_checkpoint() &&
        !source.epochs->peer_fits(peer->features, errp)) {
        return false;
    }
    return preflight_run(peer, errp);
}

/* What was prepared for any peer may use what this one has. */
static void use_peer(Peer peer)
{
    source.round_trip_ns = 0;
    trace_migration_peer(peer.version, peer.features);
    ram_source_set_peer(peer.features);
    multifd_meet(peer.features);
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.view.peer = peer;
    }
    /* Other QEMU versions may not tolerate an extra PING. */
    if (peer.features || migrate_strict_downtime()) {
        measure_round_trip();
    }
}

/* The guest may complete an unplug at any time, but for the BQL. */
static bool unplug_is_pending(void)
{
    BQL_LOCK_GUARD();
    return !main_loop_is_ending() && qemu_savevm_state_guest_unplug_pending();
}

/*
 * A device that is replaced by another during the migration was requested to
 * be unplugged when setup was announced.  False: the migration has failed or
 * was cancelled; then see end_unplug().
 */
static bool wait_for_unplug(Error **errp)
{
    if (unplug_is_pending() &&
        notify_phase_move(&source_phase, MIGRATION_STATUS_SETUP,
                       MIGRATION_STATUS_WAIT_UNPLUG)) {
        while (source_may_go_on(NULL) && unplug_is_pending()) {
            doze(UNPLUG_POLL_MS * SCALE_MS);
        }
    }
    return source_may_go_on(errp);
}

/*
 * Setup has failed, in whatever phase.  The guest still has to complete the
 * unplug: a device can only be plugged in again after that.
 */
static void end_unplug(void)
{
    int64_t end = now_ms() + UNPLUG_END_MS;

    while (unplug_is_pending() && now_ms() < end) {
        g_usleep(UNPLUG_END_POLL_MS * 1000);
    }
}

/* The guest runs for as long as it may turn out that the peer does not fit. */
static bool stop_first(Error **errp)
{
    BQL_LOCK_GUARD();
    return switchover_stop_first(errp);
}

static bool source_set_up(Error **errp)
{
    int64_t start = now_ns();
    QEMUFile *f = source.to_dst;
    Peer peer = { 0 };
    int64_t since;
    bool ok;

    if (!multifd_connect(errp)) {
        return false;
    }
    rdma_source_begin(qemu_file_get_ioc(f));
    since = lock_bql();
    /* Who holds the BQL does not wait for the destination to read. */
    stream_keep(f, true);
    ok = source_may_go_on(errp);
    if (ok) {
        qemu_savevm_state_header(f);
    }
    stream_keep(f, false);
    unlock_bql("header", since);
    if (!ok) {
        return false;
    }
    /* Peers of that time wait for it before they answer. */
    if (migrate_postcopy_preempt() &&
        migrate_get_current()->preempt_pre_7_2 &&
        !urgent_channel_connect(errp)) {
        return false;
    }
    if (!meet(&peer, errp) || (cpr_stops_guest() && !stop_first(errp))) {
        return false;
    }
    if (migrate_postcopy()) {
        qemu_savevm_send_postcopy_advise(f);
    }
    since = lock_bql();
    stream_keep(f, true);
    /* A bitmap may have been added since the command was given. */
    ok = !qemu_savevm_state_setup(f, errp) &&
         (!migrate_strict_downtime() || strict_possible(errp));
    stream_keep(f, false);
    unlock_bql("setup", since);
    qemu_fflush(f);

    if (!ok || !wait_for_unplug(errp)) {
        return false;
    }
    use_peer(peer);
    if (!notify_phase_move(&source_phase, MIGRATION_STATUS_SETUP,
                        MIGRATION_STATUS_ACTIVE) &&
        !notify_phase_move(&source_phase, MIGRATION_STATUS_WAIT_UNPLUG,
                        MIGRATION_STATUS_ACTIVE)) {
        return source_may_go_on(errp);
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.view.setup_ms = (now_ns() - start) / SCALE_MS;
    }
    trace_migration_thread_setup_complete();
    return true;
}

/*
 * Sending
 */

static PolicyLimits limits_in_force(void)
{
    bool asked = qatomic_read(&source.start_postcopy);
    PolicyLimits limits = {
        .downtime_ns = migrate_downtime_limit() * SCALE_MS,
        .switchover_bandwidth = migrate_avail_switchover_bandwidth(),
        .auto_converge = migrate_auto_converge(),
        .throttle_initial = migrate_cpu_throttle_initial(),
        .throttle_increment = migrate_cpu_throttle_increment(),
        .throttle_max = migrate_max_cpu_throttle(),
        .throttle_tailslow = migrate_cpu_throttle_tailslow(),
        .throttle_trigger = migrate_throttle_trigger_threshold(),
        .dirty_limit = migrate_dirty_limit(),
        .vcpu_dirty_rate = MIN(migrate_vcpu_dirty_limit(),
                               UINT64_MAX / MiB) * MiB,
        .postcopy = migrate_postcopy() && (asked || migrate_postcopy_auto()),
        .postcopy_asked = asked,
        .max_bandwidth = migrate_max_bandwidth(),
        .guest_runs = runstate_is_running(),
        .changes = settings_changes() - source.changes_before,
    };

    converge_limits(&limits);
    return limits;
}

/* *@now: what cannot be sent once the guest has gone */
static uint64_t remaining_estimate(uint64_t *now)
{
    uint64_t later;

    qemu_savevm_state_pending_estimate(now, &later);
    trace_migrate_pending_estimate(*now + later, *now, later);
    return *now + later;
}

/* If the dirty log has been collected: what that found, and what it cost */
static void note_sync(Policy *policy)
{
    RamSyncReport sync;

    if (!ram_source_last_sync(&sync)) {
        return;
    }
    if (!sync.first) {
        policy_synced(policy, sync.dirtied, sync.interval_ns);
        policy_measured(policy, DOWNTIME_PART_SYNC, sync.took_ns);
    }
    QEMU_LOCK_GUARD(&source.lock);
    stall_record(&source.view.stalls, "sync", sync.bql_ns);
}

/* Collects the dirty log. Returns what remains. */
static uint64_t remaining_exact(Policy *policy, uint64_t *now)
{
    uint64_t later;

    qemu_savevm_state_pending_exact(now, &later);
    trace_migrate_pending_exact(*now + later, *now, later);
    note_sync(policy);
    return *now + later;
}

static void carry_out(const PolicyDecision *decision,
                      const PolicyLimits *limits)
{
    throttle_set(decision->throttle);
    throttle_dirty_rate(decision->dirty_limited ? limits->vcpu_dirty_rate : 0);
}

static void source_show(Policy *policy, const PolicyLimits *limits,
                        const PolicyDecision *decision, uint64_t remaining,
                        uint64_t now_bytes)
{
    PolicyView view = policy_view(policy, limits, remaining, now_bytes);
    uint64_t memory = ram_source_pending();

    QEMU_LOCK_GUARD(&source.lock);
    source.view.devices_remaining = remaining - MIN(memory, remaining);
    source.view.policy = view;
    pstrcpy(source.view.reason, sizeof(source.view.reason), decision->reason);
    source.view.waiting[0] = 0;
}

static bool may_postcopy(void)
{
    return ram_source_may_postcopy() &&
           !(migrate_strict_downtime() && ram_source_must_precopy());
}

/*
 * What has been sent counts when the buffers of sockets do not hold it any
 * more: they take in no time what the network takes in many milliseconds.
 */

static uint64_t sent_before;        /* migration thread */

static uint64_t source_unsent(void)
{
    return stream_unsent(source.to_dst) +
           (source.senders ? senders_unsent(source.senders) : 0);
}

/* What has left since the last call, whatever was done meanwhile */
static uint64_t newly_sent(void)
{
    uint64_t bytes = migration_transferred_bytes(), before = sent_before;

    bytes -= MIN(source_unsent(), bytes);
    sent_before = MAX(bytes, before);
    return sent_before - before;
}

/* Until the buffers are as good as empty, if that is worth it */
static void settle(Policy *policy, const PolicyLimits *limits,
                   uint64_t remaining)
{
    uint64_t ns;

    while (source_may_go_on(NULL) && !qatomic_read(&source.start_postcopy) &&
           (ns = policy_settle_ns(policy, limits, remaining,
                                  source_unsent()))) {
        int64_t start = now_ns();

        newly_sent();
        doze(ns);
        policy_settled(policy, newly_sent(), now_ns() - start);
    }
}

static PolicyDecision source_decide(Policy *policy)
{
    PolicyLimits limits = limits_in_force();
    PolicyLimits plain = policy_limits_without_means(&limits);
    uint64_t now, remaining = remaining_estimate(&now);
    PolicyDecision decision = policy_decide(policy, &plain, remaining, false);
    ConvergenceLook look = { .may_postcopy = may_postcopy() };

    if (decision.action == POLICY_SYNC) {
        settle(policy, &limits, remaining);
        remaining = remaining_exact(policy, &now);
        decision = policy_decide(policy, &plain, remaining, true);
        look.exact = true;
    }
    if (limits.postcopy && look.may_postcopy) {
        policy_consider_postcopy(policy, &limits, remaining, now, &decision);
    }
    look.remaining = remaining;
    look.now_bytes = now;
    converge_decide(policy, &limits, &look, &decision);
    trace_migration_decision(decision.reason, remaining);
    carry_out(&decision, &limits);
    source_show(policy, &limits, &decision, remaining,
                decision.action == POLICY_POSTCOPY ? now : remaining);
    return decision;
}

/* Devices of the destination may have requested more time. */
static bool may_switch_over(void)
{
    return !migrate_switchover_ack() || !runstate_is_running() ||
           (source.return_path &&
            return_path_acked(source.return_path, ACK_POLL_MS));
}

/* What was sent since nobody waited for the limit, and how long that took */
static struct {
    uint64_t bytes;
    uint64_t ns;
} piece;

static void end_piece(Policy *policy)
{
    policy_sent(policy, piece.bytes, piece.ns);
    piece.bytes = piece.ns = 0;
}

/*
 * Waiting for the limit counts as sending: what is sent in between may fit
 * into the buffers of sockets, and then tells nothing of the network.  Where
 * the limit is low, that takes many times as long as to write the piece; only
 * with all of it the piece tells how fast it goes.  That is known at the latest
 * when more may be sent: the last wait may have taken longer than it should.
 */
static void send_slice(Policy *policy)
{
    int64_t start = now_ns();
    uint64_t wait;

    newly_sent();
    if (!migration_rate_exceeded(source.to_dst)) {
        if (piece.ns) {
            end_piece(policy);
        }
        qemu_savevm_state_iterate(source.to_dst, false);
    }
    wait = migration_rate_wait_ns();
    if (wait) {
        doze(MIN(wait, LIMIT_POLL_NS));
    }
    piece.bytes += newly_sent();
    piece.ns += now_ns() - start;
    if (wait <= LIMIT_POLL_NS) {
        end_piece(policy);
    }
}

/*
 * What was found out in an attempt is worth more than another at once.  Where
 * postcopy is meant there is more to send than a guest could wait for, and so
 * something to do meanwhile.
 */
static bool rest_after_attempt(Policy *policy, Error **errp)
{
    SourceView view;
    uint64_t rest, now;
    int64_t end;

    if (!strict_settle(errp)) {
        return false;
    }
    source_look(&view);
    rest = MIN((uint64_t)RETRY_NS << MIN(view.strict.attempts - 1, 16),
               RETRY_NS_MAX);
    end = now_ns() + rest;
    while (migrate_postcopy_ram() && now_ns() < end &&
           remaining_estimate(&now) && source_may_go_on(NULL)) {
        send_slice(policy);
        speed_measure();
    }
    doze(MAX(end - now_ns(), 0));
    return true;
}

static StrictResult leave_for_postcopy(Policy *policy, Error **errp)
{
    if (migrate_strict_downtime() || source.holds) {
        return strict_run(policy, true, errp);
    }
    return postcopy_channels_ready(errp) && multifd_leave(errp) &&
           switchover_to_postcopy(policy, errp) ? STRICT_POSTCOPY
                                                : STRICT_FAILED;
}

/* An attempt was given up: what comes next has to be an attempt as well. */
static bool was_held(void)
{
    SourceView view;

    source_look(&view);
    return view.strict.attempts;
}

static StrictResult switch_over_plain(Policy *policy,
                                      const PolicyDecision *decision,
                                      Error **errp)
{
    PolicyLimits limits = limits_in_force();
    bool may_return = converge_may_return(&limits, decision);
    uint64_t remaining;

    switch (switchover_run(policy, may_return ? &limits : NULL, &remaining,
                           errp)) {
    case SWITCHOVER_DONE:
        return STRICT_DONE;
    case SWITCHOVER_RETURNED:
        converge_returned(remaining);
        return STRICT_AGAIN;
    default:
        return STRICT_FAILED;
    }
}

static StrictResult switch_over(Policy *policy, const PolicyDecision *decision,
                                Error **errp)
{
    if (migrate_checkpoint()) {
        return source.epochs->run(errp) ? STRICT_DONE : STRICT_FAILED;
    }
    if (decision->action == POLICY_POSTCOPY) {
        return leave_for_postcopy(policy, errp);
    }
    if (migrate_strict_downtime() || was_held()) {
        return strict_run(policy, false, errp);
    }
    return switch_over_plain(policy, decision, errp);
}

static void begin_to_send(Policy *policy)
{
    uint64_t now;

    speed_begin();
    converge_begin();
    piece.bytes = piece.ns = 0;
    sent_before = 0;
    /* the first estimate has what there is to send found out */
    policy_init(policy, remaining_estimate(&now));
    note_sync(policy);
    bql_lock();
    cost_history_tell(policy);
    bql_unlock();
}

/* Until the guest is to stop, as *@decision says; false if it is not to. */
static bool send_until_enough(Policy *policy, PolicyDecision *decision,
                              Error **errp)
{
    while (source_may_go_on(errp)) {
        *decision = source_decide(policy);
        if (decision->action == POLICY_CANCEL) {
            converge_cancel(decision->reason, errp);
            return false;
        }
        if ((decision->action == POLICY_SWITCH_OVER ||
             decision->action == POLICY_POSTCOPY) && may_switch_over()) {
            return true;
        }
        send_slice(policy);
        speed_measure();
    }
    return false;
}

/* Sends, and has the guest leave, as often as it takes. */
static bool source_send_guest(Policy *policy, Error **errp)
{
    PolicyDecision decision;

    while (send_until_enough(policy, &decision, errp)) {
        switch (switch_over(policy, &decision, errp)) {
        case STRICT_DONE:
            return true;
        case STRICT_POSTCOPY:
            return postcopy_run(errp);
        case STRICT_AGAIN:
            if (was_held() && !rest_after_attempt(policy, errp)) {
                return false;
            }
            break;
        default:
            return false;
        }
    }
    return false;
}

static bool source_run(Error **errp)
{
    Policy policy;

    if (!source_set_up(errp)) {
        end_unplug();
        return false;
    }
    if (migrate_background_snapshot()) {
        return background_snapshot_run(errp);
    }
    begin_to_send(&policy);
    if (migrate_strict_downtime()) {
        strict_rehearse(&policy);
    } else {
        bql_lock();
        source.holds = strict_may_hold();
        bql_unlock();
    }
    return source_send_guest(&policy, errp);
}

static bool goes_to_file(void)
{
    return source.to_dst &&
           object_dynamic_cast(OBJECT(qemu_file_get_ioc(source.to_dst)),
                               TYPE_QIO_CHANNEL_FILE);
}

/*
 * To close a file may take as long as to write it to the disk, and may fail
 * for what was written before: both are the thread's and not the main loop's.
 */
static bool close_file(bool ok, Error **errp)
{
    if (!goes_to_file()) {
        return true;
    }
    multifd_close(ok);
    if (!ok) {
        source_close_streams(false);
        return true;
    }
    return source_close_file(errp);
}

/*
 * What a command has done with the guest is known when it has ended, unless a
 * QEMU behind it has said that it has the guest.  If the command failed, it
 * may still have passed on all that it was given.
 */
static bool source_accepted(Error **errp)
{
    Error *err = NULL;

    if (!source.to_dst ||
        (source.return_path && return_path_answered(source.return_path))) {
        return true;
    }
    source_waits_for("the channel to end");
    if (transport_finish(qemu_file_get_ioc(source.to_dst), &err)) {
        return true;
    }
    if (migrate_background_snapshot()) {
        error_setg(errp, "All of the snapshot was written, but %s",
                   error_get_pretty(err));
        error_free(err);
        return false;
    }
    source.lost = true;
    error_setg(errp, "All of the guest was sent, but %s.  The guest stays "
               "stopped here, so that it cannot run twice: 'cont' has it go "
               "on, if nobody else has it", error_get_pretty(err));
    error_free(err);
    return false;
}

void *source_thread(void *opaque)
{
    QEMUBHFunc *ended = opaque;
    Error *err = NULL;

    rcu_register_thread();
    qatomic_set(&source.thread_id, qemu_get_thread_id());
    source.succeeded = source_run(&err) && source_accepted(&err) &&
                       close_file(true, &err);
    if (!source.succeeded) {
        err = source_failure_complete(err);
        close_file(false, NULL);
    }
    throttle_dirty_rate(0);
    if (source.succeeded) {
        speed_show_average();
    } else if (phase_get(&source_phase) == MIGRATION_STATUS_CANCELLING) {
        error_free(err);
    } else {
        notify_error(err);
    }
    trace_migration_thread_after_loop();
    qatomic_set(&source.thread_id, 0);
    qatomic_set(&source.alive, false);
    rcu_unregister_thread();
    main_loop_run(ended, NULL);
    return NULL;
}
