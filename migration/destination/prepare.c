/*
 * The destination's part of a strict downtime
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/base/clock.h"
#include "migration/base/load-step.h"
#include "migration/core/fault-inject.h"
#include "migration/core/main-loop.h"
#include "migration/core/permit.h"
#include "migration/core/reset.h"
#include "migration/device/load-threads.h"
#include "migration/ram/load-watch.h"
#include "migration/ram/load.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/runstate.h"
#include "system/system.h"
#include "guest-start.h"
#include "multifd.h"
#include "postcopy.h"
#include "prepare.h"
#include "return-path.h"
#include "state.h"

/*
 * All of it is the main loop's, until a state listens: from then on the
 * incoming thread has it.
 */
static struct {
    uint32_t attempt;           /* counted from 1 by the source */
    int verdict;                /* PrepareVerdict; atomic */
    GArray *changes;            /* RamChange, that a reset left to be told */
    GuestStart how;
    Error *why;                 /* it is GUEST_NO_DISKS */
} hold;

void prepare_init(void)
{
    hold.attempt = 0;
    qatomic_set(&hold.verdict, PREPARE_UNDECIDED);
}

PrepareVerdict prepare_verdict(void)
{
    return qatomic_read(&hold.verdict);
}

void prepare_broke(void)
{
    qatomic_set(&hold.verdict, PREPARE_BROKEN);
}

bool prepare_committed(void)
{
    return prepare_verdict() == PREPARE_STARTED;
}

/*
 * Memory
 */

static bool watch_memory(Error **errp)
{
    ERRP_GUARD();

    if (!permit_reset_of_cpus(errp)) {
        error_prepend(errp, "strict-downtime must be off on both sides, as "
                      "the state of an aborted attempt would stay: ");
        return false;
    }
    return ram_watch_start(errp);
}

/* Takes over @changes.  If the source is gone, reading the stream fails. */
static void tell_changes(GArray *changes)
{
    for (unsigned i = 0; i < changes->len; i++) {
        const RamChange *c = &g_array_index(changes, RamChange, i);
        const RamRegion *r = c->region;

        reply_changed(r->name, c->first << r->page_bits,
                      c->count << r->page_bits);
    }
    g_array_free(changes, true);
}

static bool tell_aborted(Error **errp)
{
    GArray *changes = g_steal_pointer(&hold.changes);

    if (changes) {
        tell_changes(changes);
    }
    if (!reply_aborted(hold.attempt)) {
        error_setg(errp, "the answer to ABORT cannot be sent to the source");
        return false;
    }
    return true;
}

void prepare_end(void)
{
    ram_watch_stop();
    g_clear_pointer(&hold.changes, g_array_unref);
}

/*
 * Commands
 */

bool prepare_begin(QEMUFile *f, Error **errp)
{
    uint32_t attempt = qemu_get_be32(f);
    uint32_t limit_us = qemu_get_be32(f);

    if (!stream_check(f, errp)) {
        return false;
    }
    if (attempt <= hold.attempt) {
        error_setg(errp, "attempt %" PRIu32 " received after attempt %" PRIu32,
                   attempt, hold.attempt);
        return false;
    }
    if (!watch_memory(errp)) {
        return false;
    }
    trace_migration_hold(attempt, limit_us);
    /* What comes next is memory, which has to wait. */
    fault_inject_delay(DOWNTIME_PART_RAM);
    hold.attempt = attempt;
    qatomic_set(&hold.verdict, PREPARE_UNDECIDED);
    load_step_go(load_step_has(LOAD_DISCARDED) ? STEP_HELD_DISCARDING
                                               : STEP_HELD);
    return true;
}

bool prepare_listen(Error **errp)
{
    if (!postcopy_dest_hold(errp)) {
        return false;
    }
    load_step_go(STEP_HELD_LISTENING);
    return true;
}

/* Whether the attempt that @f speaks of is the one under way */
static bool same_attempt(QEMUFile *f, Error **errp)
{
    uint32_t attempt = qemu_get_be32(f);

    if (!stream_check(f, errp)) {
        return false;
    }
    if (attempt != hold.attempt) {
        error_setg(errp, "attempt %" PRIu32 " received, %" PRIu32 " expected",
                   attempt, hold.attempt);
        return false;
    }
    return true;
}

bool prepare_state(QEMUFile *f, uint32_t *len, Error **errp)
{
    if (!same_attempt(f, errp)) {
        return false;
    }
    *len = qemu_get_be32(f);
    if (!stream_check(f, errp)) {
        return false;
    }
    /*
     * What has been changed by now is not what the source sent, and has to be
     * known to it before READY.  What devices write when they are loaded is
     * part of that, as in every migration.
     */
    tell_changes(ram_watch_take());
    return true;
}

bool prepare_loaded(const LedgerDevices *devices, int64_t arrived_ns,
                    Error **errp)
{
    destination.report = (DowntimeReport) {
        .attempt = hold.attempt,
        .devices = *devices,
    };
    if (!load_threads_join(errp)) {
        return false;
    }
    if (prepare_verdict() != PREPARE_UNDECIDED) {
        return true;
    }
    cpu_synchronize_all_post_init();
    fault_inject_delay(DOWNTIME_PART_DEVICE_LOAD);
    destination.report.load_ns = now_ns() - arrived_ns;
    load_step_go(load_step_has(LOAD_LISTENS) ? STEP_READY_LISTENING
                                             : STEP_READY);
    if (!reply_report(WIRE_RP_READY, &destination.report)) {
        error_setg(errp, "READY cannot be sent to the source");
        return false;
    }
    return true;
}

static void forget_devices(void)
{
    reset_devices_alone();
    cpu_synchronize_all_pre_loadvm();
    hold.changes = ram_watch_take();
}

bool coroutine_mixed_fn prepare_abort(QEMUFile *f, Error **errp)
{
    if (!same_attempt(f, errp)) {
        return false;
    }
    trace_migration_hold_abort(hold.attempt);
    if (load_step_has(LOAD_LISTENS)) {
        qatomic_set(&hold.verdict, PREPARE_ABORTED);
        return true;
    }
    if (load_step_has(LOAD_READY)) {
        main_loop_run_and_wait(forget_devices);
    }
    load_step_back();
    return postcopy_dest_unhold(errp) && tell_aborted(errp);
}

void prepare_forget(void)
{
    forget_devices();
    load_step_back();
}

bool prepare_forgot(Error **errp)
{
    return tell_aborted(errp);
}

static void prepare_start_guest(void)
{
    hold.how = guest_start(NULL, &hold.why);
}

bool coroutine_mixed_fn prepare_commit(QEMUFile *f, Error **errp)
{
    if (!same_attempt(f, errp)) {
        return false;
    }
    trace_migration_hold_commit(hold.attempt);
    if (load_step_has(LOAD_LISTENS)) {
        qatomic_set(&hold.verdict, PREPARE_COMMITTED);
        postcopy_dest_commit();
        return true;
    }
    load_step_end();
    ram_watch_stop();
    ram_load_seal();
    multifd_incoming_end();
    main_loop_run_and_wait(prepare_start_guest);
    if (hold.how == GUEST_NO_DISKS) {
        error_propagate(errp, g_steal_pointer(&hold.why));
        return false;
    }
    qatomic_set(&hold.verdict, PREPARE_STARTED);
    return true;
}
