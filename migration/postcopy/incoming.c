/*
 * Postcopy on the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Besides the postcopy state there is one atomic of our own, outcome: the
 * main thread moves it to RUNNING when devices are loaded, the first thread
 * that fails before that moves it to one of the FAILED, and none of them is
 * ever left.  So a guest never starts after the listen thread gave up, a
 * stream that breaks afterwards always leads to a pause, and the error that
 * is kept is the one that came first.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "net/announce.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/system.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/postcopy-ram.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "migration/yank_functions.h"
#include "incoming.h"

enum {
    OUTCOME_OPEN,
    OUTCOME_RUNNING,
    OUTCOME_DEVICES_FAILED,
    OUTCOME_PAGES_FAILED,
};

static int outcome;                     /* atomic */
static PostcopyLoader listen_loader;

static bool outcome_reach(int to)
{
    return qatomic_cmpxchg(&outcome, OUTCOME_OPEN, to) == OUTCOME_OPEN;
}

/* The calling thread failed. Returns whether it was the first. */
static bool outcome_failed(MigrationIncomingState *mis)
{
    bool listening = mis->have_listen_thread &&
                     qemu_thread_is_self(&mis->listen_thread);

    return outcome_reach(listening ? OUTCOME_PAGES_FAILED
                                   : OUTCOME_DEVICES_FAILED);
}

/*
 * Commands during precopy
 */

static bool advise_ram(MigrationIncomingState *mis, QEMUFile *f, Error **errp)
{
    uint64_t host_pages = qemu_get_be64(f);
    uint64_t target_page = qemu_get_be64(f);

    if (!stream_check(f, errp)) {
        return false;
    }
    /*
     * Whole host pages are placed, so those of both sides must be the same.
     * Block by block that is checked later, by those who have huge pages.
     */
    if (host_pages != ram_pagesize_summary()) {
        error_setg(errp, "RAM has the page sizes 0x%" PRIx64 " on the source "
                   "and 0x%" PRIx64 " here; for postcopy they must match",
                   host_pages, ram_pagesize_summary());
        return false;
    }
    if (target_page != qemu_target_page_size()) {
        error_setg(errp, "The target's page size is %" PRIu64 " on the source "
                   "and %zu here", target_page, qemu_target_page_size());
        return false;
    }
    if (postcopy_notify(POSTCOPY_NOTIFY_INBOUND_ADVISE, errp)) {
        return false;
    }
    if (ram_postcopy_incoming_init(mis)) {
        error_setg(errp, "Cannot prepare RAM for postcopy");
        return false;
    }
    return true;
}

bool postcopy_incoming_advise(MigrationIncomingState *mis, QEMUFile *f,
                              uint16_t len, Error **errp)
{
    if (migrate_postcopy_ram() != (len > 0)) {
        error_setg(errp, "Capability postcopy-ram is %s on the source and %s "
                   "here", len ? "on" : "off", len ? "off" : "on");
        return false;
    }
    if (len && !postcopy_ram_supported_by_host(mis, errp)) {
        return false;
    }
    /* Whatever fails from here on is cleaned up according to this state. */
    postcopy_state_set(POSTCOPY_INCOMING_ADVISE);
    qatomic_set(&outcome, OUTCOME_OPEN);
    return !len || advise_ram(mis, f, errp);
}

static bool prepare_discard(MigrationIncomingState *mis, Error **errp)
{
    if (postcopy_ram_prepare_discard(mis)) {
        error_setg(errp, "Cannot prepare RAM for discarding pages");
        return false;
    }
    return true;
}

static bool range_fits(const RAMBlock *block, uint64_t start, uint64_t len)
{
    return start < block->used_length && len <= block->used_length - start &&
           QEMU_IS_ALIGNED(start | len, qemu_target_page_size());
}

/* The @count ranges that follow in @f. */
static bool discard_ranges(QEMUFile *f, const char *name, unsigned count,
                           Error **errp)
{
    RAMBlock *block;

    RCU_READ_LOCK_GUARD();
    block = qemu_ram_block_by_name(name);
    if (!block) {
        error_setg(errp, "There is no RAM block '%s' here", name);
        return false;
    }
    while (count--) {
        uint64_t start = qemu_get_be64(f);
        uint64_t len = qemu_get_be64(f);

        if (!stream_check(f, errp)) {
            return false;
        }
        if (!range_fits(block, start, len)) {
            error_setg(errp, "0x%" PRIx64 " bytes at 0x%" PRIx64 " are no "
                       "pages of RAM block '%s'", len, start, name);
            return false;
        }
        if (ram_discard_range(name, start, len)) {
            error_setg(errp, "Cannot discard 0x%" PRIx64 " bytes at 0x%" PRIx64
                       " of RAM block '%s'", len, start, name);
            return false;
        }
    }
    return true;
}

bool postcopy_incoming_discard(MigrationIncomingState *mis, QEMUFile *f,
                               uint16_t len, Error **errp)
{
    char name[WIRE_NAME_MAX + 1];
    uint8_t version, end;
    size_t name_len, rest;

    /* Its first use ends the state ADVISE. */
    if (postcopy_state_get() == POSTCOPY_INCOMING_ADVISE &&
        !prepare_discard(mis, errp)) {
        return false;
    }
    version = qemu_get_byte(f);
    name_len = qemu_get_counted_string(f, name);
    end = qemu_get_byte(f);
    if (!stream_check(f, errp)) {
        return false;
    }
    if (version != WIRE_POSTCOPY_DISCARD_VERSION) {
        error_setg(errp, "Unknown version %u", version);
        return false;
    }
    if (end != 0 || strlen(name) != name_len) {
        error_setg(errp, "The name of the RAM block is malformed");
        return false;
    }
    rest = sizeof(WirePostcopyDiscard) + 1 + name_len + 1;
    if (len < rest || (len - rest) % sizeof(WireRange)) {
        error_setg(errp, "%u bytes are no number of ranges of RAM block '%s'",
                   len, name);
        return false;
    }
    trace_loadvm_postcopy_ram_handle_discard_header(name, len);
    return discard_ranges(f, name, (len - rest) / sizeof(WireRange), errp);
}

void postcopy_incoming_wait_preempt(void *opaque)
{
    MigrationIncomingState *mis = opaque;

    while (migrate_postcopy_preempt() && qemu_in_coroutine() &&
           !mis->postcopy_qemufile_dst) {
        /* The main loop is about to accept it. */
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

/*
 * The listen thread
 */

/*
 * Before RUN only: nobody will bring the pages that are still asked for, so
 * release those who wait for them, and the threads that would.
 */
static void give_up_pages(MigrationIncomingState *mis)
{
    WITH_QEMU_LOCK_GUARD(&mis->page_request_mutex) {
        /* Empties the tree; it is freed with the rest of @mis. */
        g_tree_destroy(g_tree_ref(mis->page_requested));
        qatomic_set(&mis->page_requested_count, 0);
    }
    qemu_sem_post(&mis->postcopy_pause_sem_fault);
    qemu_sem_post(&mis->postcopy_pause_sem_fast_load);
    postcopy_ram_incoming_cleanup(mis);
    postcopy_state_set(POSTCOPY_INCOMING_END);
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_ACTIVE,
                      MIGRATION_STATUS_FAILED);
}

static void join_listen_thread(void *opaque)
{
    MigrationIncomingState *mis = opaque;

    qemu_thread_join(&mis->listen_thread);
}

/*
 * Devices are loaded and the guest is about to run or does.  The main thread
 * looks at have_listen_thread before it lets go of the BQL.
 */
static void complete(MigrationIncomingState *mis)
{
    postcopy_ram_incoming_cleanup(mis);
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_ACTIVE,
                      MIGRATION_STATUS_COMPLETED);
    bql_lock();
    migration_incoming_state_destroy();
    mis->have_listen_thread = false;
    postcopy_state_set(POSTCOPY_INCOMING_END);
    migration_bh_schedule(join_listen_thread, mis);
    bql_unlock();
}

/*
 * Whether all is there that the guest needs; if so, @err is only reported.
 * Bitmaps that are lost cost a full backup, not the guest.
 */
static bool is_complete(Error *err)
{
    if (!err) {
        return true;
    }
    if (qatomic_read(&outcome) == OUTCOME_RUNNING && !migrate_postcopy_ram()) {
        error_reportf_err(err, "The guest is migrated, but dirty bitmaps that "
                          "were not are lost: ");
        return true;
    }
    if (qatomic_read(&outcome) == OUTCOME_PAGES_FAILED) {
        savevm_load_failed(err);
    } else {
        error_free(err);
    }
    return false;
}

static void *listen_thread(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    MigrationState *s = migrate_get_current();
    Error *err = NULL;
    bool ok;

    object_ref(OBJECT(s));
    rcu_register_thread();
    migrate_set_state(&mis->state, MIGRATION_STATUS_ACTIVE,
                      MIGRATION_STATUS_POSTCOPY_ACTIVE);
    qemu_sem_post(&mis->thread_sync_sem);
    trace_postcopy_ram_listen_thread_start();

    qemu_file_set_blocking(mis->from_src_file, true);
    listen_loader(mis->from_src_file, &err);
    /* It may be another stream by now.  Whoever closes it must not block. */
    qemu_file_set_blocking(mis->from_src_file, false);
    trace_postcopy_ram_listen_thread_exit();

    ok = is_complete(err);
    if (ok) {
        qemu_event_wait(&mis->main_thread_load_event);
        ok = qatomic_read(&outcome) == OUTCOME_RUNNING;
    }
    if (ok) {
        complete(mis);
    } else {
        give_up_pages(mis);
    }
    rcu_unregister_thread();
    object_unref(OBJECT(s));
    return NULL;
}

bool postcopy_incoming_listen(MigrationIncomingState *mis,
                              PostcopyLoader loader, Error **errp)
{
    trace_loadvm_postcopy_handle_listen("enter");
    if (migrate_postcopy_ram()) {
        if (!mis->to_src_file) {
            error_setg(errp, "There is no return path to ask for pages");
            return false;
        }
        /* There may have been nothing to discard. */
        if (postcopy_state_get() == POSTCOPY_INCOMING_ADVISE &&
            !prepare_discard(mis, errp)) {
            return false;
        }
        /* From here on threads that touch a missing page wait for it. */
        if (postcopy_ram_incoming_setup(mis)) {
            postcopy_ram_incoming_cleanup(mis);
            error_setg(errp, "Cannot watch RAM for accesses to missing pages");
            return false;
        }
    }
    if (postcopy_notify(POSTCOPY_NOTIFY_INBOUND_LISTEN, errp)) {
        return false;
    }
    postcopy_state_set(POSTCOPY_INCOMING_LISTENING);
    mis->have_listen_thread = true;
    listen_loader = loader;
    postcopy_thread_create(mis, &mis->listen_thread,
                           MIGRATION_THREAD_DST_LISTEN, listen_thread,
                           QEMU_THREAD_JOINABLE);
    trace_loadvm_postcopy_handle_listen("return");
    return true;
}

void postcopy_incoming_devices_loaded(MigrationIncomingState *mis, bool ok)
{
    qemu_event_set(&mis->main_thread_load_event);
    if (!mis->have_listen_thread || ok) {
        return;
    }
    /* It may be waiting for the source. */
    qemu_file_shutdown(mis->from_src_file);
    /* It may be waiting for the BQL, too. */
    bql_unlock();
    qemu_thread_join(&mis->listen_thread);
    bql_lock();
    mis->have_listen_thread = false;
}

/*
 * RUN
 */

static void start_guest(void *opaque)
{
    MigrationIncomingState *mis = opaque;

    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-enter");
    cpu_synchronize_all_post_init();
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-cpu-synced");
    qemu_announce_self(&mis->announce_timer, migrate_announce_params());
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-announced");
    dirty_bitmap_mig_before_vm_start();

    if (!autostart) {
        runstate_set(RUN_STATE_PAUSED);
    } else if (migration_block_activate(NULL)) {
        trace_vmstate_downtime_checkpoint(
            "dst-postcopy-bh-cache-invalidated");
        vm_start();
    }
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-vm-started");
}

bool postcopy_incoming_run(MigrationIncomingState *mis, QEMUFile *f,
                           uint16_t len, Error **errp)
{
    trace_loadvm_postcopy_handle_run();
    if (!outcome_reach(OUTCOME_RUNNING)) {
        error_setg(errp, "Receiving pages failed already");
        return false;
    }
    postcopy_state_set(POSTCOPY_INCOMING_RUNNING);
    migration_bh_schedule(start_guest, mis);
    return true;
}

/*
 * Interruption
 */

/* Closes a stream of which other threads may know. */
static void hang_up(QEMUFile **f, QemuMutex *users, bool yank)
{
    if (!*f) {
        return;
    }
    qemu_file_shutdown(*f);
    if (users) {
        qemu_mutex_lock(users);
    }
    if (yank) {
        migration_ioc_unregister_yank_from_file(*f);
    }
    qemu_fclose(*f);
    *f = NULL;
    if (users) {
        qemu_mutex_unlock(users);
    }
}

bool postcopy_incoming_pause(MigrationIncomingState *mis)
{
    if (outcome_failed(mis) || qatomic_read(&outcome) != OUTCOME_RUNNING ||
        !mis->have_listen_thread || !migrate_postcopy_ram()) {
        return false;
    }
    trace_postcopy_pause_incoming();
    hang_up(&mis->from_src_file, NULL, true);
    hang_up(&mis->to_src_file, &mis->rp_mutex, false);
    /* The thread that loads urgent pages holds the mutex while it does. */
    hang_up(&mis->postcopy_qemufile_dst, &mis->postcopy_prio_thread_mutex,
            true);

    migrate_set_state(&mis->state, mis->state,
                      MIGRATION_STATUS_POSTCOPY_PAUSED);
    postcopy_fault_thread_notify(mis);

    /* Incomplete host pages will be sent again as a whole. */
    for (unsigned i = 0; i < mis->postcopy_channels; i++) {
        postcopy_temp_page_reset(&mis->postcopy_tmp_pages[i]);
    }
    error_report("Postcopy is paused; the guest waits for pages until the "
                 "connection is restored with migrate-recover");
    while (postcopy_is_paused(mis->state)) {
        qemu_sem_wait(&mis->postcopy_pause_sem_dst);
    }
    trace_postcopy_pause_incoming_continued();
    return true;
}

/*
 * Recovery
 */

bool postcopy_incoming_recv_bitmap(MigrationIncomingState *mis, QEMUFile *f,
                                   uint16_t len, Error **errp)
{
    char name[WIRE_NAME_MAX + 1];
    size_t name_len = qemu_get_counted_string(f, name);

    if (!stream_check(f, errp)) {
        return false;
    }
    if (len != 1 + name_len || strlen(name) != name_len ||
        !qemu_ram_block_by_name(name)) {
        error_setg(errp, "There is no such RAM block here");
        return false;
    }
    trace_loadvm_handle_recv_bitmap(name);
    migrate_send_rp_recv_bitmap(mis, name);
    return true;
}

/* Page requests may have been lost, with the stream or with the source's. */
static gboolean request_again(gpointer host, gpointer value, gpointer opaque)
{
    ram_addr_t offset;
    RAMBlock *block = qemu_ram_block_from_host(host, true, &offset);

    if (!block || migrate_send_rp_message_req_pages(opaque, block, offset)) {
        error_report("Cannot ask again for the page at %p", host);
    } else {
        trace_postcopy_page_req_sync(host);
    }
    return FALSE;
}

bool postcopy_incoming_resume(MigrationIncomingState *mis, QEMUFile *f,
                              uint16_t len, Error **errp)
{
    trace_loadvm_postcopy_handle_resume();
    if (mis->state != MIGRATION_STATUS_POSTCOPY_RECOVER) {
        warn_report("The source resumes a postcopy that was not interrupted");
        return true;
    }
    /* The source has forgotten, too, which block was asked for last. */
    mis->last_rb = NULL;
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_RECOVER,
                      MIGRATION_STATUS_POSTCOPY_ACTIVE);
    migrate_send_rp_resume_ack(mis, WIRE_RESUME_ACK_OK);

    /*
     * In this order: only one thread at a time may ask for pages, and the
     * fault thread does so once it is released.
     */
    WITH_QEMU_LOCK_GUARD(&mis->page_request_mutex) {
        g_tree_foreach(mis->page_requested, request_again, mis);
    }
    qemu_sem_post(&mis->postcopy_pause_sem_fault);

    if (migrate_postcopy_preempt()) {
        qemu_sem_wait(&mis->postcopy_qemufile_dst_done);
        assert(mis->postcopy_qemufile_dst);
        qemu_sem_post(&mis->postcopy_pause_sem_fast_load);
    }
    return true;
}
