/*
 * The source in postcopy: pausing when the connection breaks, and going on
 *
 * Main loop and migration thread take turns.  While it is paused the thread
 * waits for the semaphore, and the main loop may make connections; from the
 * moment it has posted the semaphore they are the thread's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/base/clock.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/postcopy/resume.h"
#include "migration/ram/ram-source.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/wire/wire.h"
#include "failure.h"
#include "multifd.h"
#include "postcopy-background.h"
#include "postcopy-resume.h"
#include "postcopy.h"
#include "state.h"
#include "urgent-channel.h"

/* How often a destination is looked after that is waited for */
#define POLL_MS 50
/* How long a pause is put off for a destination that loads the package */
#define LOADED_MS 500
#define LOADED_POLL_MS 5

/*
 * Main loop: a new connection
 */

/* Takes over @err. */
static void still_paused(Error *err)
{
    error_report("Postcopy cannot be resumed: %s", error_get_pretty(err));
    notify_error(err);
    source_close_streams(false);
    notify_phase_set(&source_phase, MIGRATION_STATUS_POSTCOPY_PAUSED);
}

/* Takes over @ioc and @err, of which there is one. */
static void postcopy_resume_connected(QIOChannel *ioc, Error *err, void *opaque)
{
    source.connecting = false;
    if (err) {
        still_paused(err);
        return;
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        qio_channel_set_delay(ioc, false);
        source.to_dst = qemu_file_new_output(ioc);
    }
    object_unref(OBJECT(ioc));
    source_open_return_path(postcopy_return_path());
    migration_rate_set(migrate_max_postcopy_bandwidth());
    notify_phase_set(&source_phase, MIGRATION_STATUS_POSTCOPY_RECOVER);
    qemu_sem_post(&source.resumed);
}

bool source_resume(MigrationAddress *addr, Error **errp)
{
    Error *err = NULL;

    if (phase_get(&source_phase) != MIGRATION_STATUS_POSTCOPY_PAUSED ||
        qatomic_read(&postcopy.given_up)) {
        error_setg(errp, "Cannot resume if there is no paused migration");
        return false;
    }
    if (migrate_release_ram()) {
        /* What was on its way when the connection broke is nowhere. */
        error_setg(errp, "Postcopy recovery cannot work when release-ram "
                   "capability is set");
        return false;
    }
    notify_phase_set(&source_phase, MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP);
    notify_clear_error();
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        postcopy.user_paused = false;
    }
    source_set_address(addr);
    source.connecting = true;
    if (!transport_connect(addr, true, postcopy_resume_connected, NULL, &err)) {
        source.connecting = false;
        error_propagate(errp, error_copy(err));
        still_paused(err);
        return false;
    }
    return true;
}

bool postcopy_give_up(Error **errp)
{
    if (qatomic_read(&postcopy.seen)) {
        error_setg(errp, "The destination has the guest: it is too late to "
                   "cancel; 'migrate-recover' there and then 'migrate' with "
                   "'resume' here complete the migration");
        return false;
    }
    if (migrate_release_ram()) {
        error_setg(errp, "With the capability release-ram, memory that was "
                   "sent is not here any more: it is too late to cancel");
        return false;
    }
    if (!qatomic_xchg(&postcopy.given_up, true)) {
        qemu_sem_post(&source.resumed);
    }
    return true;
}

bool source_can_pause(void)
{
    MigrationStatus now = phase_get(&source_phase);

    return now == MIGRATION_STATUS_POSTCOPY_ACTIVE ||
           now == MIGRATION_STATUS_POSTCOPY_RECOVER;
}

static void pause_now(void)
{
    Error *err = NULL;

    WITH_QEMU_LOCK_GUARD(&source.lock) {
        if (postcopy.over) {
            return;
        }
        error_setg(&err, "Postcopy migration is paused by the user");
        notify_error(err);
        postcopy.user_paused = true;
        if (source.to_dst) {
            qemu_file_shutdown(source.to_dst);
        }
        if (source.urgent) {
            qemu_file_shutdown(source.urgent);
        }
        multifd_shutdown();
    }
    qemu_sem_post(&source.wake);
}

/*
 * QEMU 10.0 loses the guest if the connection breaks while it loads the
 * package: it ends when it cannot answer the PING there.  So the answer is
 * waited for, if the network works.
 */

static bool package_is_being_loaded(void)
{
    QEMU_LOCK_GUARD(&source.lock);
    return source.return_path && !postcopy.held &&
           !qatomic_read(&postcopy.seen) &&
           return_path_state(source.return_path, NULL) == RETURN_PATH_OPEN &&
           !return_path_loaded(source.return_path);
}

/* Main loop, all three. */
static struct {
    QEMUTimer *timer;
    int64_t until_ms;
} delayed_pause;

static void postcopy_resume_look_again(void *opaque)
{
    if (!source_can_pause()) {
        return;
    }
    if (now_ms() < delayed_pause.until_ms && package_is_being_loaded()) {
        timer_mod(delayed_pause.timer, now_ms() + LOADED_POLL_MS);
    } else {
        pause_now();
    }
}

static void delay_pause(void *opaque)
{
    if (!delayed_pause.timer) {
        delayed_pause.timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                           postcopy_resume_look_again, NULL);
    }
    delayed_pause.until_ms = now_ms() + LOADED_MS;
    postcopy_resume_look_again(NULL);
}

bool source_pause(Error **errp)
{
    if (migrate_release_ram()) {
        error_setg(errp, "With the capability release-ram a postcopy that is "
                   "paused cannot go on, and the guest would be lost");
        return false;
    }
    if (package_is_being_loaded()) {
        main_loop_run(delay_pause, NULL);
    } else {
        pause_now();
    }
    return true;
}

/*
 * Return path's thread
 */

bool postcopy_take_bitmap(const char *name, QEMUFile *f, Error **errp)
{
    bool *awaited = qatomic_load_acquire(&postcopy.awaited);
    const RamRegion *r = awaited ? ram_regions_find(postcopy.main->regions,
                                                    name) : NULL;

    if (!r || !qatomic_read(&awaited[r->index])) {
        g_autofree char *shown = g_strescape(name, NULL);

        error_setg(errp, "The destination sends a bitmap of RAM block '%s' "
                   "that it was not asked for", shown);
        return false;
    }
    if (!postcopy_resume_read(f, r, errp)) {
        return false;
    }
    qatomic_store_release(&awaited[r->index], false);
    qatomic_set(&postcopy.seen, true);
    qemu_sem_post(&source.wake);
    return true;
}

/*
 * Migration thread
 */

static bool some_awaited(void)
{
    RAM_REGIONS_FOREACH(r, postcopy.main->regions) {
        if (qatomic_load_acquire(&postcopy.awaited[r->index])) {
            return true;
        }
    }
    return false;
}

/* The maps are made anew of what the destination has. */
static bool get_bitmaps(Error **errp)
{
    trace_ram_dirty_bitmap_sync_start();
    RAM_REGIONS_FOREACH_SENT(r, postcopy.main->regions) {
        qatomic_set(&postcopy.awaited[r->index], true);
        trace_ram_dirty_bitmap_request(r->name);
        qemu_savevm_send_recv_bitmap(source.to_dst, r->name);
    }
    trace_ram_dirty_bitmap_sync_wait();
    while (some_awaited()) {
        if (!source_may_go_on(errp)) {
            return false;
        }
        if (return_path_resumed(source.return_path, 0)) {
            error_setg(errp, "destination resumes before it has sent which "
                       "pages it received");
            return false;
        }
        qemu_sem_timedwait(&source.wake, POLL_MS);
    }
    trace_ram_dirty_bitmap_sync_complete();
    return true;
}

/* From the moment it is told so the destination may ask for pages. */
static bool tell_to_resume(Error **errp)
{
    postcopy_open_requests();
    qemu_savevm_send_postcopy_resume(source.to_dst);
    while (!return_path_resumed(source.return_path, POLL_MS)) {
        if (!source_may_go_on(errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Channels that are connected again, and what is left of earlier attempts, can
 * be told apart by a number.  0: there will be none.
 */
static uint32_t begin_attempt(void)
{
    static uint32_t attempts;   /* of all migrations; migration thread */

    if (!postcopy_background_again()) {
        return 0;
    }
    attempts = (attempts + 1) & ~WIRE_PING_AGAIN_MASK ?: 1;
    qemu_savevm_send_ping(source.to_dst, WIRE_PING_AGAIN | attempts);
    return attempts;
}

/* Before QEMU 8.0 a destination answers nothing until it has both. */
static bool make_early_channel(Error **errp)
{
    return !migrate_postcopy_preempt() ||
           !migrate_get_current()->preempt_pre_7_2 ||
           urgent_channel_connect(errp);
}

static bool resume(Error **errp)
{
    uint32_t attempt;
    bool ok;

    if (!postcopy.begun) {
        error_setg(errp, "Memory is not migrated by postcopy: there is "
                   "nothing to go on with");
        return false;
    }
    trace_savevm_state_resume_prepare();
    attempt = begin_attempt();
    ok = make_early_channel(errp) && get_bitmaps(errp);
    if (ok) {
        ram_source_resume(source.to_dst);
        ok = multifd_resume(attempt, errp) &&
             postcopy_channels_ready(errp) && tell_to_resume(errp);
    }
    return ok;
}

/* Takes over @err, which may be no more than a consequence. */
static void postcopy_resume_break_off(Error *err)
{
    Error *first;

    err = source_failure_complete(err);
    if (!err) {
        error_setg(&err, "connection to the destination is no longer usable");
    }
    postcopy.paused = true;
    if (postcopy_guest_loaded()) {
        qatomic_set(&postcopy.seen, true);
    }
    postcopy_sender_close(&postcopy.sender);
    trace_postcopy_pause(error_get_pretty(err));
    source_close_streams(false);
    postcopy_background_end(&postcopy.sender);
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        multifd_shutdown();
    }
    if (postcopy.begun) {
        memset(postcopy.awaited, 0, postcopy.main->regions->count);
    }
    notify_error(err);
    first = notify_first_error();
    if (!qatomic_read(&postcopy.seen)) {
        error_append_hint(&first, "The destination has not said that it has "
                          "loaded the guest. If it is gone, and the guest has "
                          "never run there, 'migrate_cancel' and then 'cont' "
                          "have the guest go on here.\n");
    }
    error_reportf_err(first, "Postcopy is paused; 'migrate-recover' on the "
                      "destination and then 'migrate' with 'resume' here have "
                      "it go on: ");
    notify_phase_set(&source_phase, MIGRATION_STATUS_POSTCOPY_PAUSED);
}

bool postcopy_pause(Error *err)
{
    bool ok;

    do {
        postcopy_resume_break_off(g_steal_pointer(&err));
        qemu_sem_wait(&source.resumed);
        if (qatomic_read(&postcopy.given_up)) {
            return false;
        }
        ok = resume(&err);
    } while (!ok);

    trace_postcopy_pause_continued();
    notify_phase_set(&source_phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    return true;
}
