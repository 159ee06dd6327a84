/*
 * Postcopy on the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "hw/core/cpu.h"
#include "migration/base/below-tls.h"
#include "migration/base/clock.h"
#include "migration/base/load-step.h"
#include "migration/base/turns.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/postcopy/dest.h"
#include "migration/trace.h"
#include "migration/transport/transport.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "arrivals.h"
#include "lazy.h"
#include "multifd.h"
#include "postcopy-quit.h"
#include "postcopy.h"
#include "return-path.h"
#include "state.h"
#include "urgent-channel.h"

#define PAUSE_REASON "requested by migrate-pause on the destination"
/* How long the source may take for its second connection */
#define CHANNEL_MS 30000
#define LOOK_MS 10
/* How long a source that was told of a failure may take to close */
#define HANG_UP_MS 1000
/* How long none of what is missing may come when the main stream has ended */
#define REST_MS 2000
/* How long there may be no connection that could be the second one */
#define GONE_MS 3000
/* While it is paused: for whether QEMU is to end */
#define WATCH_MS 500

/*
 * What the urgent thread may do with its channel.  Only the thread that reads
 * the main stream closes it, and has the thread end after the last time; the
 * main loop does so when there is no such thread any more.
 */
typedef enum UrgentState {
    URGENT_OPEN,                /* read it, once there is one */
    URGENT_ENDED,               /* there is no more to read; urgent thread */
    URGENT_CLOSING,             /* leave it; OPEN again when it is closed */
    URGENT_QUIT,                /* the thread is to end; until the next load */
} UrgentState;

/*
 * A user's pause and the end exclude each other: whichever comes first under
 * the lock.  A source that was told of a pause does not believe in the end any
 * more, and one whose migration has ended here cannot recover.  Dirty bitmaps
 * are the exception: where no memory is missing, the end follows a pause.
 */
typedef enum PcStatus {
    PC_RECEIVING,
    PC_USER_PAUSED,             /* by a command, in any thread */
    PC_ALL_RECEIVED,            /* nothing is left to pause; its reader */
} PcStatus;

static struct {
    /*
     * Memory may be missing; else postcopy is about dirty bitmaps.  Not the
     * step, which is the same for both.  Written with ADVISE by the main loop,
     * under the BQL, before there is any other thread of postcopy; read by all.
     */
    bool ram;
    /*
     * @thread, for urgent pages, is to be joined.  Written by who creates and
     * who joins it: the main loop at LISTEN, or the incoming thread at COMMIT;
     * the incoming thread at its end, or the main loop when it has joined that.
     */
    bool has_thread;
    QemuThread thread;
    QEMUTimer *patience;        /* with a source that is to close; main loop */

    QemuMutex lock;
    QemuCond cond;
    /* under the lock, as is destination.from_src: */
    QEMUFile *next;             /* the main stream of a new connection */
    QEMUFile *urgent;           /* the channel for urgent pages */
    bool urgent_read;           /* the thread reads it; written by that */
    UrgentState urgent_state;
    /*
     * The guest will never run here, whatever the step.  Written by the main
     * loop, when the package has failed or QEMU ends; read by the incoming
     * thread, which does not wait for a recovery then.
     */
    bool hopeless;
    PcStatus status;            /* of this connection */
    Error *why;                 /* the channel for urgent pages is broken */
} pc;

void postcopy_dest_init(void)
{
    urgent_channel_init();
    arrivals_init();
    qemu_mutex_init(&pc.lock);
    qemu_cond_init(&pc.cond);
}

void postcopy_dest_begin(void)
{
    pc.ram = false;
    QEMU_LOCK_GUARD(&pc.lock);
    pc.hopeless = false;
    pc.urgent_state = URGENT_OPEN;
    pc.status = PC_RECEIVING;
}

bool postcopy_dest_may_pause(void)
{
    return pc.ram && load_step_has(LOAD_POSTCOPY);
}

/*
 * Requests
 */

static bool request(void *opaque, const RamRegion *region, uint64_t start,
                    uint32_t len)
{
    return reply_request_pages(region->name, start, len);
}

int postcopy_dest_vcpu_of_thread(void *opaque, uint32_t thread)
{
    CPUState *cpu;

    RCU_READ_LOCK_GUARD();
    CPU_FOREACH(cpu) {
        if (cpu->thread_id == thread) {
            return cpu->cpu_index;
        }
    }
    return -1;
}

static const FaultsOps requests = {
    .request = request, .vcpu = postcopy_dest_vcpu_of_thread,
};

/*
 * The channel for urgent pages
 */

bool postcopy_dest_urgent_channel(QIOChannel *ioc)
{
    QEMU_LOCK_GUARD(&pc.lock);
    if (pc.urgent) {
        object_ref(OBJECT(ioc));
        urgent_channel_close(ioc);
        return false;
    }
    urgent_channel_offer(ioc);
    qemu_cond_broadcast(&pc.cond);
    return true;
}

/* It has come, though it may not have begun to say which one it is. */
static bool has_urgent_channel(void)
{
    QEMU_LOCK_GUARD(&pc.lock);
    return pc.urgent || urgent_channel_some();
}

/* Whether there is something to do for the thread; under the lock. */
static bool may_read_urgent(void)
{
    return pc.urgent_state == URGENT_OPEN &&
           (pc.urgent || urgent_channel_some());
}

/* Under the lock, which is released meanwhile. */
static void choose_urgent(void)
{
    QIOChannel *ioc;

    qemu_mutex_unlock(&pc.lock);
    ioc = urgent_channel_choose(LOOK_MS);
    if (ioc) {
        transport_listen_stop();
    }
    qemu_mutex_lock(&pc.lock);
    if (ioc) {
        urgent_channel_drop();
        pc.urgent = qemu_file_new_input(ioc);
        qemu_file_set_blocking(pc.urgent, false);
        object_unref(OBJECT(ioc));
        trace_postcopy_preempt_new_channel();
    }
}

/*
 * The main stream, though nobody may have begun to read it; NULL while there is
 * none.  Under the lock.
 */
static QEMUFile *main_stream(void)
{
    return destination.from_src ?: pc.next;
}

/*
 * If one is gone, the other one is of no use: the migration pauses.  Under the
 * lock.
 */
static void urgent_broke(Error *err)
{
    QEMUFile *f = main_stream();

    if (pc.urgent_state == URGENT_OPEN) {
        pc.urgent_state = URGENT_ENDED;
    }
    if (!err || pc.urgent_state == URGENT_QUIT || pc.why ||
        pc.status == PC_ALL_RECEIVED) {
        error_free(err);
    } else {
        pc.why = err;
        if (f) {
            qemu_file_shutdown(f);
        }
        dest_give_up();
    }
}

/*
 * While pages may be requested there is a connection that may be it.  If there
 * is none any more, it ended before it said which one it was, and what was sent
 * on it is lost.  Since @since; 0: there is one.  Under the lock.
 */
static bool urgent_is_gone(int64_t *since)
{
    if (pc.urgent_state != URGENT_OPEN || pc.urgent || urgent_channel_some() ||
        phase_get(&destination_phase) != MIGRATION_STATUS_POSTCOPY_ACTIVE) {
        *since = 0;
        return false;
    }
    *since = *since ?: now_ms();
    return now_ms() - *since > GONE_MS;
}

/* Until there is something to do for the thread, or it is to end. */
static void wait_for_urgent(void)
{
    int64_t since = 0;

    while (pc.urgent_state != URGENT_QUIT && !may_read_urgent()) {
        if (urgent_is_gone(&since)) {
            Error *err = NULL;

            error_setg(&err, "Channel for urgent pages: it was closed before "
                       "it brought a page");
            urgent_broke(err);
        }
        qemu_cond_timedwait(&pc.cond, &pc.lock, GONE_MS / 10);
    }
}

/* Waits for something to read. NULL: the thread is to end. */
static QEMUFile *next_urgent(void)
{
    QEMU_LOCK_GUARD(&pc.lock);
    do {
        pc.urgent_read = false;
        qemu_cond_broadcast(&pc.cond);
        wait_for_urgent();
        pc.urgent_read = pc.urgent_state != URGENT_QUIT;
        if (pc.urgent_read && !pc.urgent) {
            choose_urgent();
        }
    } while (pc.urgent_state != URGENT_QUIT &&
             (!pc.urgent || pc.urgent_state == URGENT_CLOSING));
    return pc.urgent_state == URGENT_QUIT ? NULL : pc.urgent;
}

static void *urgent_thread(void *opaque)
{
    QEMUFile *f;

    trace_postcopy_preempt_thread_entry();
    rcu_register_thread();
    turns_short();
    while ((f = next_urgent())) {
        Error *err = NULL;

        if (!dest_load_urgent(f, &err)) {
            error_prepend(&err, "Channel for urgent pages: ");
        }
        WITH_QEMU_LOCK_GUARD(&pc.lock) {
            urgent_broke(err);
        }
    }
    rcu_unregister_thread();
    trace_postcopy_preempt_thread_exit();
    return NULL;
}

static void end_urgent_thread(void)
{
    WITH_QEMU_LOCK_GUARD(&pc.lock) {
        pc.urgent_state = URGENT_QUIT;
        if (pc.urgent) {
            qemu_file_shutdown(pc.urgent);
        }
        qemu_cond_broadcast(&pc.cond);
    }
    if (pc.has_thread) {
        qemu_thread_join(&pc.thread);
        pc.has_thread = false;
    }
}

/*
 * Commands before the guest runs
 */

bool coroutine_mixed_fn postcopy_dest_advise(QEMUFile *f, uint16_t len,
                                             Error **errp)
{
    uint64_t host_page_sizes, target_page_size;

    trace_loadvm_postcopy_handle_advise();
    if (migrate_multifd() && multifd_incoming_met()) {
        error_setg(errp, "postcopy is announced after memory could come on "
                   "channels of multifd");
        return false;
    }
    if (!len != !migrate_postcopy_ram()) {
        error_setg(errp, len ? "capability 'postcopy-ram' is enabled on the "
                   "source but not here; set it on both sides"
                   : "capability 'postcopy-ram' is enabled here but not on the "
                   "source; set it on both sides");
        return false;
    }
    if (len) {
        host_page_sizes = qemu_get_be64(f);
        target_page_size = qemu_get_be64(f);
        if (!stream_check(f, errp) ||
            !dest_advise(host_page_sizes, target_page_size, errp)) {
            return false;
        }
        pc.ram = true;
    }
    load_step_go(STEP_ADVISED);
    return true;
}

bool coroutine_mixed_fn postcopy_dest_discard(QEMUFile *f, uint16_t len,
                                              Error **errp)
{
    trace_loadvm_postcopy_ram_handle_discard();
    if (!pc.ram) {
        error_setg(errp, "The source has not announced postcopy of RAM");
        return false;
    }
    load_step_go(load_step_has(LOAD_HOLDS) ? STEP_HELD_DISCARDING
                                           : STEP_DISCARDING);
    if (!dest_forget(f, len, errp)) {
        return false;
    }
    trace_loadvm_postcopy_ram_handle_discard_end();
    return true;
}

bool coroutine_mixed_fn postcopy_dest_package_ready(Error **errp)
{
    int64_t end = now_ms() + CHANNEL_MS;

    if (!migrate_postcopy_preempt() || !migrate_postcopy_ram()) {
        return true;
    }
    while (!has_urgent_channel()) {
        if (now_ms() > end) {
            error_setg(errp, "The source has made no second connection, for "
                       "urgent pages: postcopy-preempt must be set on both "
                       "sides");
            return false;
        }
        if (!stream_check(destination.from_src, errp)) {
            return false;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LOOK_MS * SCALE_MS);
    }
    /*
     * It may be somebody else's: the source's was made before the package was
     * sent, so that it is accepted in the next round of the main loop, which
     * may have to wait for a page after that.
     */
    for (int i = 0; i < 2; i++) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 0);
    }
    return true;
}

static bool listen_for_faults(Error **errp)
{
    unsigned channels = multifd_incoming_postcopy();

    if (!reply_is_open()) {
        error_setg(errp, "pages cannot be requested, as there is no return "
                   "path");
        return false;
    }
    reply_next_listener();
    if (!dest_listen(&requests, channels, errp)) {
        return false;
    }
    dest_resume();
    return true;
}

static void start_urgent_thread(void)
{
    if (pc.ram && migrate_postcopy_preempt()) {
        pc.has_thread = true;
        qemu_thread_create(&pc.thread, MIGRATION_THREAD_DST_PREEMPT,
                           urgent_thread, NULL, QEMU_THREAD_JOINABLE);
    }
}

/*
 * What had come on channels of multifd was loaded when the last mark was.  From
 * here on nobody writes straight to memory, which is watched for faults: these
 * are closed, or bring pages to be put in place after the next mark.
 */
bool postcopy_dest_listen(Error **errp)
{
    trace_loadvm_postcopy_handle_listen("enter");
    if (!pc.ram) {
        multifd_incoming_end();
    } else if (!listen_for_faults(errp)) {
        return false;
    }
    start_urgent_thread();
    load_step_go(STEP_LISTENING);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    trace_loadvm_postcopy_handle_listen("return");
    return true;
}

bool postcopy_dest_run(Error **errp)
{
    trace_loadvm_postcopy_handle_run();
    load_step_go(STEP_RUNNING);
    return true;
}

bool postcopy_dest_hold(Error **errp)
{
    if (!pc.ram) {
        error_setg(errp, "The source has not announced postcopy of RAM");
        return false;
    }
    trace_loadvm_postcopy_handle_listen("held");
    return listen_for_faults(errp);
}

bool postcopy_dest_unhold(Error **errp)
{
    return !dest_listens() || dest_unlisten(errp);
}

void postcopy_dest_commit(void)
{
    start_urgent_thread();
    load_step_go(STEP_RUNNING);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
}

void postcopy_dest_hold_broke(void)
{
    qemu_file_shutdown(destination.from_src);
    dest_pause();
    dest_unregister();
}

static void lose_hope(void)
{
    QEMU_LOCK_GUARD(&pc.lock);
    pc.hopeless = true;
    if (pc.ram) {
        dest_give_up();
    }
    qemu_cond_broadcast(&pc.cond);
}

static void read_no_more(void *opaque)
{
    QEMU_LOCK_GUARD(&pc.lock);
    if (destination.from_src) {
        stream_stop_reading(destination.from_src, NULL);
    }
}

/*
 * The source goes on with the guest if it hears of it.  A connection that is
 * closed with something unread is reset, and what was said last may be lost: so
 * all is read until the source has closed it.
 */
void postcopy_dest_package_failed(const char *why)
{
    lose_hope();
    reply_refuse(why);
    if (!pc.patience) {
        pc.patience = timer_new_ms(QEMU_CLOCK_REALTIME, read_no_more, NULL);
    }
    timer_mod(pc.patience, now_ms() + HANG_UP_MS);
}

void postcopy_dest_quit(void)
{
    if (load_step_has(LOAD_POSTCOPY)) {
        lazy_restore_quit();
        lose_hope();
        read_no_more(NULL);
        postcopy_quit_stop_cpus();
    }
}

/*
 * Recovery
 */

bool postcopy_dest_received(QEMUFile *f, uint16_t len, Error **errp)
{
    char name[WIRE_NAME_MAX + 1] = "";
    size_t name_len = len ? qemu_get_byte(f) : 0;

    /* What belongs to the next command is not waited for. */
    if (len == 1 + name_len) {
        qemu_get_buffer(f, (uint8_t *)name, name_len);
    }
    if (!stream_check(f, errp)) {
        return false;
    }
    if (len != 1 + name_len || strlen(name) != name_len) {
        error_setg(errp, "The name of the RAM block is malformed");
        return false;
    }
    if (!dest_knows(name)) {
        g_autofree char *shown = g_strescape(name, NULL);

        error_setg(errp, "There is no RAM block '%s' here", shown);
        return false;
    }
    trace_loadvm_handle_recv_bitmap(name);
    /* If the source is gone, reading the stream fails. */
    reply_received(name, dest_put_received);
    return true;
}

/* The source has made its second connection before it asks to go on. */
static bool wait_for_urgent_channel(Error **errp)
{
    int64_t end = now_ms() + CHANNEL_MS;

    if (!migrate_postcopy_preempt()) {
        return true;
    }
    QEMU_LOCK_GUARD(&pc.lock);
    while (!pc.urgent && !urgent_channel_some() && !pc.hopeless) {
        if (!stream_check(destination.from_src, errp)) {
            return false;
        }
        if (now_ms() > end) {
            error_setg(errp, "The source has made no second connection");
            return false;
        }
        qemu_cond_timedwait(&pc.cond, &pc.lock, LOOK_MS);
    }
    return true;
}

bool postcopy_dest_resume(Error **errp)
{
    if (phase_get(&destination_phase) != MIGRATION_STATUS_POSTCOPY_RECOVER) {
        error_setg(errp, "POSTCOPY_RESUME received, but nothing is paused");
        return false;
    }
    if (!wait_for_urgent_channel(errp)) {
        return false;
    }
    trace_loadvm_postcopy_handle_resume();
    notify_phase_set(&destination_phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    reply_resume_ack();
    dest_resume();
    return true;
}

/* What was there of the connection is closed; nobody reads any more. */
static void hang_up(void)
{
    QEMUFile *main, *urgent;

    arrivals_drop();
    dest_pause();
    multifd_incoming_stop();
    WITH_QEMU_LOCK_GUARD(&pc.lock) {
        qemu_file_shutdown(destination.from_src);
        if (pc.urgent) {
            qemu_file_shutdown(pc.urgent);
        }
        pc.urgent_state = URGENT_CLOSING;
        while (pc.urgent_read) {
            qemu_cond_wait(&pc.cond, &pc.lock);
        }
        pc.urgent_state = URGENT_OPEN;
        pc.status = PC_RECEIVING;
        main = g_steal_pointer(&destination.from_src);
        urgent = g_steal_pointer(&pc.urgent);
        urgent_channel_drop();
    }
    stream_close(urgent);
    reply_abandon();
    stream_close(main);
    dest_reset_channels();
}

/* Takes over @err. The first of the reasons, and what it means */
static Error *pause_reason(Error *err)
{
    Error *why;

    WITH_QEMU_LOCK_GUARD(&pc.lock) {
        why = g_steal_pointer(&pc.why);
    }
    if (why) {
        error_free(err);
        err = why;
    }
    error_prepend(&err, "Postcopy is paused: ");
    return err;
}

/* Takes over @err. */
static void tell_pause(Error *err)
{
    WITH_QEMU_LOCK_GUARD(&pc.lock) {
        /* a consequence of closing the channels */
        error_free(g_steal_pointer(&pc.why));
    }
    warn_report("%s", error_get_pretty(err));
    notify_clear_error();
    notify_error(err);
}

/* False if QEMU ends; else there is a new main stream. */
static bool wait_for_recovery(void)
{
    int64_t told = 0;

    QEMU_LOCK_GUARD(&pc.lock);
    while (!pc.next && !pc.hopeless) {
        qemu_cond_timedwait(&pc.cond, &pc.lock, WATCH_MS);
        postcopy_quit_watch(&told);
    }
    if (pc.hopeless) {
        return false;
    }
    destination.from_src = g_steal_pointer(&pc.next);
    return true;
}

void postcopy_dest_stay_paused(Error *err, QEMUBHFunc *stop)
{
    tell_pause(err);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_POSTCOPY_PAUSED);
    main_loop_run(stop, NULL);
    qatomic_set(&destination.busy, false);
    wait_for_recovery();
}

/* Takes over @err. False if there is nothing to wait for. */
static bool pause_until_recovered(Error *err)
{
    trace_postcopy_pause_incoming();
    transport_listen_stop();
    if (migrate_dirty_bitmaps()) {
        dirty_bitmap_mig_cancel_incoming();
    }
    err = pause_reason(err);
    reply_error(error_get_pretty(err));
    hang_up();
    tell_pause(err);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_POSTCOPY_PAUSED);

    qatomic_set(&destination.busy, false);
    if (!wait_for_recovery()) {
        return false;
    }
    qatomic_set(&destination.busy, true);
    notify_clear_error();
    reply_open(destination.from_src);
    trace_postcopy_pause_incoming_continued();
    return true;
}

/* Nobody else is to connect: there are all channels of the source. */
static void all_recovered(void)
{
    transport_listen_stop();
    arrivals_close();
}

/*
 * A source closes the main channel when it gives up, and not earlier: so one
 * that is closed already is of an attempt that is over.
 */
static bool recovered_main(QEMUFile *f, uint32_t attempt, Error **errp)
{
    bool more;

    if (channel_peer_closed(qemu_file_get_ioc(f))) {
        error_setg(errp, "its source has closed it");
        return false;
    }
    if (!notify_phase_move(&destination_phase, MIGRATION_STATUS_POSTCOPY_PAUSED,
                           MIGRATION_STATUS_POSTCOPY_RECOVER)) {
        error_setg(errp, "there is a main channel already");
        return false;
    }
    WITH_QEMU_LOCK_GUARD(&pc.lock) {
        /* If it is, channels may just be coming to their end. */
        more = !pc.hopeless && (multifd_incoming_resume(attempt) ||
                                migrate_postcopy_preempt());
    }
    if (!more) {
        all_recovered();
    }
    QEMU_LOCK_GUARD(&pc.lock);
    pc.next = f;
    qemu_cond_broadcast(&pc.cond);
    return true;
}

static bool recovered_channel(QEMUFile *f, const WireMultifdInit *init,
                              Error **errp)
{
    bool complete;

    if (!multifd_incoming_again(f, init, &complete, errp)) {
        return false;
    }
    if (complete) {
        all_recovered();
    }
    return true;
}

/* That for urgent pages begins with the first of these. */
static bool recovered_silent(QIOChannel *ioc)
{
    if (!migrate_postcopy_preempt() ||
        phase_get(&destination_phase) == MIGRATION_STATUS_POSTCOPY_PAUSED) {
        return false;
    }
    if (!postcopy_dest_urgent_channel(ioc)) {
        transport_listen_stop();
    }
    object_unref(OBJECT(ioc));
    return true;
}

/*
 * Where nobody else can connect there is nothing to tell apart.  Nor is there
 * where TLS encrypts a channel for urgent pages, of which nothing can be read
 * and left where it was: then the main channel is the first one.
 */
static bool are_told_apart(QIOChannel *ioc)
{
    return transport_accepts_more() &&
           (!migrate_postcopy_preempt() ||
            object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET));
}

/* As it comes: the main channel, and then that for urgent pages */
static bool recovered_in_order(QIOChannel *ioc)
{
    QEMUFile *f;
    Error *err = NULL;

    if (phase_get(&destination_phase) != MIGRATION_STATUS_POSTCOPY_PAUSED &&
        migrate_postcopy_preempt()) {
        return postcopy_dest_urgent_channel(ioc);
    }
    f = qemu_file_new_input(ioc);
    qemu_file_set_blocking(f, false);
    if (!recovered_main(f, 0, &err)) {
        error_report_err(err);
        stream_close(f);
    }
    return migrate_postcopy_preempt();
}

/* A connection for a postcopy that is paused, or another one of it */
static bool recovered(QIOChannel *ioc, Error *err, void *opaque)
{
    static const ArrivalsOps ops = {
        .main = recovered_main,
        .channel = recovered_channel,
        .silent = recovered_silent,
    };
    bool more = true;

    if (err) {
        /* It stays paused, and can be tried again. */
        error_report_err(err);
        return false;
    }
    if (are_told_apart(ioc)) {
        arrivals_offer(ioc, multifd_incoming_max(), &ops);
    } else {
        more = recovered_in_order(ioc);
    }
    object_unref(OBJECT(ioc));
    return more;
}

bool postcopy_dest_recover(const MigrationAddress *addr, Error **errp)
{
    if (phase_get(&destination_phase) != MIGRATION_STATUS_POSTCOPY_PAUSED) {
        error_setg(errp, "Migrate recover can only be run when postcopy is "
                   "paused.");
        return false;
    }
    if (lazy_restore_began()) {
        error_setg(errp, "Memory cannot be loaded from the file any more: the "
                   "guest can only be started anew");
        return false;
    }
    /* Whoever calls again has another address in mind. */
    transport_listen_stop();
    arrivals_drop();
    if (phase_get(&destination_phase) != MIGRATION_STATUS_POSTCOPY_PAUSED) {
        error_setg(errp, "A recovery has just begun, at the address that was "
                   "listened at before; if it fails, repeat the command");
        return false;
    }
    return transport_listen(addr, recovered, NULL, errp);
}

bool postcopy_dest_pause(Error **errp)
{
    MigrationStatus phase = phase_get(&destination_phase);
    QEMUFile *f;

    if (phase != MIGRATION_STATUS_POSTCOPY_ACTIVE &&
        phase != MIGRATION_STATUS_POSTCOPY_RECOVER) {
        return false;
    }
    if (lazy_restore_began()) {
        error_setg(errp, "Memory is loaded from a file: there is no connection "
                   "that could be paused");
        return true;
    }
    QEMU_LOCK_GUARD(&pc.lock);
    if (pc.status == PC_ALL_RECEIVED) {
        return false;
    }
    f = main_stream();
    if (!f) {
        /* It has just been closed, or accepted. */
        if (phase == MIGRATION_STATUS_POSTCOPY_RECOVER) {
            error_setg(errp, "The connection of the recovery is just being "
                       "made: try again");
        }
        return true;
    }
    if (!pc.why) {
        error_setg(&pc.why, PAUSE_REASON);
    }
    pc.status = PC_USER_PAUSED;
    reply_error("Postcopy is paused: " PAUSE_REASON);
    multifd_incoming_shutdown();
    if (qemu_file_shutdown(f) == -ENOSYS) {
        error_setg(errp, "Failed to pause destination migration: its "
                   "connection cannot be shut down");
    }
    if (pc.ram) {
        dest_give_up();
    }
    return true;
}

/*
 * The thread
 */

/* The second channel may still bring pages, as long as it does. */
static bool some_may_come(bool more, int64_t *since)
{
    QEMU_LOCK_GUARD(&pc.lock);
    if (more) {
        *since = now_ms();
    }
    if (!(pc.urgent ? pc.urgent_state == URGENT_OPEN
                    : urgent_channel_some()) ||
        now_ms() - *since > REST_MS) {
        return false;
    }
    qemu_cond_timedwait(&pc.cond, &pc.lock, LOOK_MS);
    return true;
}

/*
 * Whether somebody waits for them or not: once it is ended here, what is
 * missing is zeros.
 */
static bool nothing_is_missing(Error **errp)
{
    int64_t since = now_ms();
    const char *block;
    uint64_t left = dest_missing(&block), before = left;

    while (left && some_may_come(left < before, &since)) {
        before = left;
        left = dest_missing(&block);
    }
    if (left) {
        error_setg(errp, "The source has ended, but did not send %" PRIu64
                   " pages, some of them of RAM block '%s'", left, block);
        return false;
    }
    return true;
}

/* What the main stream had to bring is here, but not all that was requested. */
static bool wait_for_rest(Error **errp)
{
    FaultsView view;

    if (!pc.ram) {
        return true;
    }
    if (phase_get(&destination_phase) != MIGRATION_STATUS_POSTCOPY_ACTIVE) {
        error_setg(errp, "source ended the stream before postcopy was resumed");
        return false;
    }
    dest_look(&view);
    if (view.waiting && !migrate_postcopy_preempt()) {
        error_setg(errp, "source ended the stream without %u pages that were "
                   "requested", view.waiting);
        return false;
    }
    if (!dest_wait()) {
        error_setg(errp, "The connection broke");
        return false;
    }
    return nothing_is_missing(errp);
}

/* All is here.  False if the source has been told of a pause. */
static bool postcopy_dest_end_reached(Error **errp)
{
    QEMU_LOCK_GUARD(&pc.lock);
    if (pc.ram && pc.status == PC_USER_PAUSED) {
        error_setg(errp, "paused by migrate-pause when all had been received");
        return false;
    }
    pc.status = PC_ALL_RECEIVED;
    return true;
}

static bool read_main_stream(DeviceLoad *load, Error **errp)
{
    return device_load_late(load, destination.from_src, errp) &&
           wait_for_rest(errp) && postcopy_dest_end_reached(errp);
}

bool postcopy_dest_hopeless(void)
{
    QEMU_LOCK_GUARD(&pc.lock);
    return pc.hopeless;
}

/* The guest runs, and lacks nothing but what is known of its disks' changes. */
static void lose_bitmaps(Error *err)
{
    dirty_bitmap_mig_cancel_incoming();
    error_prepend(&err, "dirty bitmaps that were not received are lost: ");
    warn_report_err(err);
}

bool postcopy_dest_load(DeviceLoad *load, Error **errp)
{
    Error *err = NULL;

    trace_postcopy_ram_listen_thread_start();
    dest_give_way(turns_short(), migrate_postcopy_preempt());
    while (!read_main_stream(load, &err)) {
        if (postcopy_dest_hopeless()) {
            error_propagate(errp, err);
            multifd_incoming_stop();
            return false;
        }
        if (!pc.ram) {
            lose_bitmaps(g_steal_pointer(&err));
            break;
        }
        if (!pause_until_recovered(g_steal_pointer(&err))) {
            error_setg(errp, "Postcopy has ended before the guest ran");
            return false;
        }
    }
    end_urgent_thread();
    multifd_incoming_stop();
    if (pc.ram) {
        dest_unregister();
    }
    trace_postcopy_ram_listen_thread_exit();
    return true;
}

void postcopy_dest_set_stream(QEMUFile *f)
{
    QEMU_LOCK_GUARD(&pc.lock);
    destination.from_src = f;
}

QEMUFile *postcopy_dest_take_stream(void)
{
    QEMU_LOCK_GUARD(&pc.lock);
    return g_steal_pointer(&destination.from_src);
}

void postcopy_dest_end(void)
{
    timer_free(g_steal_pointer(&pc.patience));
    arrivals_drop();
    end_urgent_thread();
    WITH_QEMU_LOCK_GUARD(&pc.lock) {
        stream_close(g_steal_pointer(&pc.urgent));
        stream_close(g_steal_pointer(&pc.next));
        urgent_channel_drop();
        error_free(g_steal_pointer(&pc.why));
    }
    dest_end();
}
