/*
 * The source in postcopy: the guest runs elsewhere, its memory follows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/ramblock.h"
#include "migration/base/clock.h"
#include "migration/core/notify.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/postcopy/discard.h"
#include "migration/ram/ram-source.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "attempt.h"
#include "postcopy-background.h"
#include "postcopy-resume.h"
#include "postcopy.h"
#include "speed.h"
#include "state.h"
#include "switchover.h"
#include "urgent-channel.h"

/* How long the limit is waited for before anything else is looked at */
#define LIMIT_POLL_NS (50 * SCALE_MS)
/* How long a destination that broke off may take to say why */
#define VERDICT_MS 1000
/* Copied at once while nobody else may have the BQL */
#define COPY_PAGES 64

PostcopySource postcopy;

/*
 * What the return path's thread calls
 */

static bool postcopy_asked(void *opaque, const char *name, uint64_t start,
                           uint32_t len, Error **errp)
{
    trace_migrate_handle_rp_req_pages(name ?: "", start, len);
    return postcopy_sender_ask(&postcopy.sender, name, start, len, errp);
}

static bool postcopy_received(void *opaque, const char *name, QEMUFile *f,
                              Error **errp)
{
    return postcopy_take_bitmap(name, f, errp);
}

static void pong(void *opaque, uint32_t value)
{
    qatomic_set(&postcopy.pong, value);
}

static void changed(void *opaque)
{
    qemu_sem_post(&source.wake);
}

static void queued(void *opaque)
{
    qemu_sem_post(&source.wake);
    postcopy_background_nudge();
}

const ReturnPathUser *postcopy_return_path(void)
{
    static const ReturnPathUser user = {
        .asked = postcopy_asked,
        .received = postcopy_received,
        .pong = pong,
        .changed = changed,
    };

    return migrate_postcopy_ram() ? &user : NULL;
}

/*
 * Memory
 */

static RamSendResult run_ram(void *opaque, RamSender *main, bool all)
{
    return postcopy_background_begun()
           ? postcopy_background_run(&postcopy.sender, main, all)
           : postcopy_sender_run(&postcopy.sender, main, all);
}

/*
 * Requests may be served while the order that hands the guest over is still
 * being written.  If that fails the guest needs its memory here, so nothing is
 * released before; postcopy_release_sent() makes up for that.  What cannot be
 * released stays until QEMU ends, which does no harm.
 */
static void postcopy_release(void *opaque, const RamRegion *r, uint64_t first,
                             uint64_t count)
{
    RCU_READ_LOCK_GUARD();
    if (qatomic_load_acquire(&postcopy.left) && ram_region_here(r)) {
        ram_block_discard_range(r->rb, first << r->page_bits,
                                count << r->page_bits);
    }
}

static const PostcopySenderOps keeping = { .wake = queued };
static const PostcopySenderOps releasing = {
    .wake = queued, .release = postcopy_release
};

/*
 * The destination tells the channel for urgent pages from those of multifd by
 * its coming later: when this is answered, it has come to the first mark and
 * so has met all of these.
 */
static bool others_have_met(Error **errp)
{
    if (!source.senders) {
        return true;
    }
    switchover_drain(0, 0);
    while (!return_path_ponged(source.return_path,
                               LIMIT_POLL_NS / SCALE_MS)) {
        if (!source_may_go_on(errp)) {
            return false;
        }
    }
    return true;
}

bool postcopy_channels_ready(Error **errp)
{
    if (!migrate_postcopy_preempt() || source.urgent) {
        return true;
    }
    /* Until it has answered it may not have taken the first connection. */
    while (!return_path_answered(source.return_path)) {
        if (!source_may_go_on(errp)) {
            return false;
        }
        qemu_sem_timedwait(&source.wake, LIMIT_POLL_NS / SCALE_MS);
    }
    return others_have_met(errp) && urgent_channel_connect(errp);
}

static void postcopy_begin(void)
{
    if (postcopy.begun) {
        return;
    }
    postcopy.main = ram_source_sender();
    postcopy.begun = true;
    postcopy_sender_init(&postcopy.sender, postcopy.main->regions,
                         migrate_release_ram() ? &releasing : &keeping, NULL);
    qatomic_store_release(&postcopy.awaited,
                          g_new0(bool, postcopy.main->regions->count));
}

bool postcopy_discard_dirty(QEMUFile *f, Error **errp)
{
    uint64_t runs;

    postcopy_begin();
    ram_source_expect_requests(true);
    runs = postcopy_discard(postcopy.main->regions, f);
    trace_ram_postcopy_send_discard_bitmap();
    trace_postcopy_discarded(runs, ram_sender_left(postcopy.main->regions));
    return stream_check(f, errp);
}

void postcopy_enter(bool held)
{
    ram_source_enter_postcopy(run_ram, NULL);
    postcopy.held = held;
}

/*
 * Attempts, which may be in vain (source/switchover-strict.h)
 */

bool postcopy_try_discard(bool hold, Error **errp)
{
    postcopy_begin();
    postcopy.told = true;
    postcopy.one_way |= !hold;
    if (hold) {
        postcopy_sender_keep(&postcopy.sender);
    }
    return postcopy_discard_dirty(source.to_dst, errp);
}

/* Some pages of a region, as they were while the guest was stopped */
typedef struct Copy {
    const RamRegion *region;
    uint64_t first;
    unsigned count;
    uint8_t *bytes;
} Copy;

static RamSendResult send_copy(void *opaque, RamSender *main, bool all)
{
    const Copy *copy = opaque;

    ram_sink_copy(main->sink, copy->region, copy->first, copy->count,
                  copy->bytes);
    return RAM_SEND_SOME;
}

/* Whoever resumes the guest does so with the BQL. */
static bool take_copy(Copy *copy)
{
    size_t len = copy->count * ram_region_page_size(copy->region);
    bool ok;

    bql_lock();
    ok = attempt_open();
    if (ok && ram_region_here(copy->region)) {
        memcpy(copy->bytes, ram_region_page(copy->region, copy->first), len);
    } else {
        memset(copy->bytes, 0, len);
    }
    bql_unlock();
    return ok;
}

static bool send_answer(Copy *copy)
{
    int ret;

    ram_source_begin_turn(send_copy, copy);
    ret = qemu_savevm_state_iterate(source.to_dst, true);
    ram_source_end_turn();
    return ret >= 0;
}

static bool answer(const PageRequest *request)
{
    uint64_t size = ram_region_page_size(request->region);
    g_autofree uint8_t *bytes = g_malloc(COPY_PAGES * size);
    Copy copy = { .region = request->region, .bytes = bytes };

    for (uint64_t done = 0; done < request->count; done += copy.count) {
        copy.first = request->first + done;
        copy.count = MIN(request->count - done, COPY_PAGES);
        if (!take_copy(&copy) || !send_answer(&copy)) {
            return false;
        }
    }
    return true;
}

void postcopy_try_answer(void)
{
    PageRequest request;

    while (postcopy_sender_take(&postcopy.sender, &request) &&
           answer(&request)) {
        /* the next one */
    }
}

void postcopy_try_failed(void)
{
    if (postcopy.told) {
        if (!postcopy.one_way) {
            postcopy_sender_ignore(&postcopy.sender);
        }
        ram_source_expect_requests(false);
        ram_source_peer_forgot();
        postcopy.told = false;
    }
}

bool postcopy_no_way_back(void)
{
    return postcopy.one_way;
}

void postcopy_open_requests(void)
{
    trace_postcopy_preempt_enabled(source.urgent);
    if (postcopy.begun) {
        postcopy_background_begin(&postcopy.sender);
        postcopy_sender_set_channel(&postcopy.sender, source.urgent,
                                    postcopy.main, ram_source_peer());
        postcopy_sender_open(&postcopy.sender);
    }
    pace_init(&postcopy.pace, postcopy.begun, stream_position(source.to_dst),
              now_ns());
}

void postcopy_release_sent(void)
{
    qatomic_store_release(&postcopy.left, true);
    if (postcopy.begun && migrate_release_ram()) {
        postcopy_sender_release_clean(&postcopy.sender);
    }
}

/*
 * Sending
 */

static bool is_wanted(void)
{
    return postcopy.begun && postcopy_sender_asked(&postcopy.sender);
}

/* How much the background may send now. */
static uint64_t allowance(void)
{
    uint64_t position = stream_position(source.to_dst);

    if (migration_rate_exceeded(source.to_dst)) {
        return 0;
    }
    pace_pong(&postcopy.pace, qatomic_read(&postcopy.pong), now_ns());
    return pace_allows(&postcopy.pace, position, now_ns());
}

static void postcopy_ping(void)
{
    uint32_t value;

    if (pace_ping(&postcopy.pace, stream_position(source.to_dst), now_ns(),
                  &value)) {
        qemu_savevm_send_ping(source.to_dst, value);
    }
}

/* Until the limit lets more be sent, a PONG comes, or somebody asks. */
static void wait_for_allowance(void)
{
    uint64_t wait = migration_rate_wait_ns();

    wait = wait ? MIN(wait, LIMIT_POLL_NS) : LIMIT_POLL_NS;
    qemu_sem_timedwait(&source.wake, DIV_ROUND_UP(wait, SCALE_MS));
}

/*
 * What is requested waits for nothing.  Whatever breaks is latched in a stream
 * or known to the return path, which is looked at each time.
 */
static bool postcopy_send_memory(Error **errp)
{
    while (source_may_go_on(errp)) {
        uint64_t bytes = allowance();

        if (bytes || is_wanted()) {
            postcopy.sender.quota = bytes;
            if (qemu_savevm_state_iterate(source.to_dst, true) > 0) {
                return true;
            }
            postcopy_ping();
        } else {
            wait_for_allowance();
        }
        speed_measure();
        switchover_note_start();
    }
    return false;
}

/*
 * One that held the guest says so when it starts it, and has loaded it long
 * before.
 */
bool postcopy_guest_loaded(void)
{
    ReturnPathReport started;

    if (!source.return_path) {
        return false;
    }
    return postcopy.held ? return_path_started(source.return_path, 0, &started)
                         : return_path_loaded(source.return_path);
}

/* Unless it is known that the destination did not come that far. */
static bool may_have_run(void)
{
    return !source.return_path || postcopy.paused || postcopy_guest_loaded();
}

/*
 * All is sent, and the destination says that it has it.  Before QEMU 8.0 it
 * waits to be told that nothing more comes on the second channel.
 */
static bool postcopy_send_end(Error **errp)
{
    trace_migration_completion_postcopy_end();
    bql_lock();
    stream_keep(source.to_dst, true);
    qemu_savevm_state_complete_postcopy(source.to_dst);
    stream_keep(source.to_dst, false);
    bql_unlock();
    qemu_fflush(source.to_dst);
    trace_migration_completion_postcopy_end_after_complete();
    if (migrate_get_current()->preempt_pre_7_2 && postcopy.begun) {
        postcopy_sender_end_channel(&postcopy.sender);
    }
    if (!stream_check(source.to_dst, errp)) {
        return false;
    }
    return !source.return_path ||
           (return_path_wait_end(source.return_path, -1, errp) ==
            RETURN_PATH_DONE && (postcopy.held || may_have_run()));
}

/*
 * The destination sent SHUT before it came to the end of the package, which
 * is where it is told to run the guest: the guest never ran there.  Only a
 * connection that never broke can tell.  If memory that was sent has been given
 * up here, it cannot run here either.  One that held the guest and has loaded
 * all of it runs it, or will: that it says so may come after SHUT.
 */
static bool guest_never_ran(void)
{
    ReturnPathEnd end;

    if (may_have_run() || migrate_release_ram()) {
        return false;
    }
    end = return_path_wait_end(source.return_path, VERDICT_MS, NULL);
    return ((end == RETURN_PATH_DONE && !postcopy.held) ||
            end == RETURN_PATH_REFUSED) && !may_have_run();
}

/* Takes over @err, which may be no more than a consequence. */
static Error *never_ran_error(Error *err)
{
    Error *said = NULL;

    error_free(err);
    return_path_state(source.return_path, &said);
    if (!said) {
        error_setg(&said, "destination sent SHUT before the package was "
                   "loaded");
    }
    error_prepend(&said, "guest was not started on the destination and resumes "
                  "here: ");
    return said;
}

/* It has not been started here since: nobody but the user may do that. */
static bool given_up(Error **errp)
{
    source.lost = true;
    notify_clear_error();
    error_setg(errp, "Postcopy was cancelled while it was paused. The guest "
               "stays stopped here, so that it cannot run twice: 'cont' has "
               "it go on, if it has never run at the destination");
    return false;
}

static void postcopy_end_reached(void)
{
    bool late;

    WITH_QEMU_LOCK_GUARD(&source.lock) {
        postcopy.over = true;
        late = postcopy.user_paused;
    }
    if (late) {
        notify_clear_error();
    }
}

bool postcopy_run(Error **errp)
{
    Error *err = NULL;

    migration_rate_reset();
    while (!postcopy_send_memory(&err) || !postcopy_send_end(&err)) {
        if (guest_never_ran()) {
            error_propagate(errp, never_ran_error(err));
            return false;
        }
        if (!postcopy_pause(g_steal_pointer(&err))) {
            return given_up(errp);
        }
    }
    postcopy_end_reached();
    switchover_note_start();
    return true;
}

void postcopy_cleanup(void)
{
    postcopy_sender_close(&postcopy.sender);
    postcopy_background_forget(&postcopy.sender);
    g_clear_pointer(&postcopy.awaited, g_free);
    postcopy.begun = postcopy.paused = postcopy.held = false;
    postcopy.told = postcopy.one_way = postcopy.left = false;
    postcopy.seen = postcopy.given_up = false;
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        postcopy.user_paused = postcopy.over = false;
    }
}

void postcopy_forget_counts(void)
{
    postcopy_sender_set_served(&postcopy.sender, (MigrationPageRequests) { });
}

MigrationPageRequests postcopy_counts(void)
{
    return postcopy_sender_served(&postcopy.sender);
}
