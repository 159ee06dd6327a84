/*
 * The destination: connections of a source that uses multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/queue.h"
#include "exec/target_page.h"
#include "system/system.h"
#include "migration/base/below-tls.h"
#include "migration/base/clock.h"
#include "migration/core/main-loop.h"
#include "migration/device/load-threads.h"
#include "migration/device/load.h"
#include "migration/migration.h"
#include "migration/multifd/receivers.h"
#include "migration/options.h"
#include "migration/postcopy/dest.h"
#include "migration/ram/load.h"
#include "migration/transport/transport.h"
#include "migration/wire/packet.h"
#include "migration/wire/stream.h"
#include "migration/yank_functions.h"
#include "multifd.h"
#include "return-path.h"
#include "state.h"

/* Connections whose first bytes are waited for, besides those needed */
#define STRANGERS_MAX 8
/*
 * How long one of them may say nothing when there are more.  The main one of an
 * honest source does so until all others have been connected.
 */
#define SILENT_MS (60 * 1000)
/*
 * How long it may take to show that one of two connections with one number is
 * of an attempt that is over, as its source has closed it
 */
#define SAME_ID_MS 1000
#define LOOK_MS 20
/* What tells them apart */
#define FIRST_BYTES sizeof(uint32_t)

typedef struct Connection {
    QEMUFile *f;
    bool waits;                 /* in its coroutine, to be known */
    bool dropped;               /* nobody is interested any more */
    int64_t since_ms;           /* when it came */
    QLIST_ENTRY(Connection) next;
} Connection;

static struct {
    MultifdMain *main;
    bool has_main;
    bool begun;
    bool met;                   /* the channels have met once; atomic */
    bool placing;               /* between marks of postcopy; who loads */
    bool again;                 /* they may come after a break; atomic */
    uint32_t attempt;           /* of the recovery; 0: not known; atomic */
    bool had_records;           /* all of them, at some time; atomic */
    unsigned channels;
    unsigned waiting;           /* connections that do */
    QLIST_HEAD(, Connection) list;
} incoming;

/* Takes over @f. */
static void close_stranger(QEMUFile *f, Error *err)
{
    warn_reportf_err(err, "multifd: a connection is closed: ");
    stream_close(f);
}

/*
 * In the thread of a channel.  If the main one has not come yet it will find
 * out when it begins, with multifd_incoming_check().
 */
static void channel_failed(const Error *err)
{
    QEMUFile *f = qatomic_read(&destination.from_src);

    /* Who waits for a device's state on this channel does so in vain. */
    load_threads_give_up();
    if (f) {
        stream_stop_reading(f, error_copy(err));
    }
}

/*
 * A channel that cannot be taken: the load fails at the next mark, and the
 * source is told why.  This one stays open until then, as the source would take
 * its end for the reason.  Takes over @err.
 */
static void refuse_channel(Error *err)
{
    error_prepend(&err, "multifd: ");
    receivers_fail(err);
    error_free(err);
}

/* The source has closed it, and sent nothing after what it begins with. */
static bool coroutine_mixed_fn connection_is_over(Connection *c)
{
    uint8_t *bytes;

    return channel_peer_closed(qemu_file_get_ioc(c->f)) &&
           !qemu_peek_buffer(c->f, &bytes, 1, sizeof(WireMultifdInit));
}

/* What the connection begins with, which is not taken from the stream. */
static bool coroutine_mixed_fn peek_init(Connection *c, WireMultifdInit *init)
{
    uint8_t *bytes;

    if (qemu_peek_buffer(c->f, &bytes, sizeof(*init), 0) < sizeof(*init)) {
        return false;
    }
    memcpy(init, bytes, sizeof(*init));
    return true;
}

static void coroutine_mixed_fn take_channel(Connection *c)
{
    WireMultifdInit init;
    Error *err = NULL;
    unsigned id;

    if (!peek_init(c, &init)) {
        stream_check(c->f, &err);
        close_stranger(g_steal_pointer(&c->f), err);
        return;
    }
    if (!packet_check_init(&init, &qemu_uuid, incoming.channels, &id, &err)) {
        refuse_channel(err);
    } else if (receivers_has(id) && connection_is_over(c)) {
        error_setg(&err, "its source has closed it");
        close_stranger(g_steal_pointer(&c->f), err);
    } else {
        qemu_file_skip(c->f, sizeof(init));
        if (receivers_add(c->f, id, &err)) {
            c->f = NULL;
        } else {
            refuse_channel(err);
        }
    }
}

static void take_main_channel(Connection *c)
{
    incoming.has_main = true;
    incoming.main(g_steal_pointer(&c->f));
}

/*
 * What has been taken or closed is not the connection's any more.  One that
 * ends before it has said what it is ends nothing else: the next source may
 * succeed.
 */
static void coroutine_mixed_fn sort_connection(Connection *c)
{
    Error *err = NULL;
    uint8_t *bytes;
    size_t len = qemu_peek_buffer(c->f, &bytes, FIRST_BYTES, 0);

    if (len < FIRST_BYTES) {
        stream_check(c->f, &err);
        close_stranger(g_steal_pointer(&c->f), err);
    } else if (packet_begins_channel(bytes)) {
        take_channel(c);
    } else if (ldl_be_p(bytes) == WIRE_FILE_MAGIC && !incoming.has_main) {
        take_main_channel(c);
    } else {
        error_setg(&err, "it does not begin as one of a migration does");
        close_stranger(g_steal_pointer(&c->f), err);
    }
}

/*
 * There is a channel with that number.  If either was left by an attempt that
 * is over this shows, sooner or later, as its source has closed it.
 */
static void coroutine_fn wait_for_place(Connection *c,
                                        const WireMultifdInit *init)
{
    int64_t end = now_ms() + SAME_ID_MS;
    unsigned id = init->channel;

    while (!c->dropped && id < incoming.channels && receivers_has(id) &&
           !connection_is_over(c) && now_ms() < end) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LOOK_MS * SCALE_MS);
    }
}

static void coroutine_fn connection_co(void *opaque)
{
    Connection *c = opaque;
    WireMultifdInit init;
    uint8_t *bytes;

    if (qemu_peek_buffer(c->f, &bytes, FIRST_BYTES, 0) == FIRST_BYTES &&
        packet_begins_channel(bytes) && peek_init(c, &init)) {
        wait_for_place(c, &init);
    }
    if (c->dropped) {
        qemu_fclose(c->f);
        g_free(c);
        return;
    }
    c->waits = false;
    incoming.waiting--;
    sort_connection(c);
    if (!c->f) {
        QLIST_REMOVE(c, next);
        g_free(c);
    }
}

/* A coroutine that waits finds that the connection has ended. */
static void drop_connection(Connection *c)
{
    QLIST_REMOVE(c, next);
    if (!c->waits) {
        stream_close(c->f);
        g_free(c);
        return;
    }
    incoming.waiting--;
    c->dropped = true;
    migration_ioc_unregister_yank_from_file(c->f);
    qemu_file_shutdown(c->f);
}

static void drop_connections(bool silent_only)
{
    Connection *c, *next;

    QLIST_FOREACH_SAFE(c, &incoming.list, next, next) {
        if (c->waits || !silent_only) {
            drop_connection(c);
        }
    }
}

/* False if there is none that has said nothing for long. */
static bool drop_oldest(void)
{
    Connection *c, *oldest = NULL;

    QLIST_FOREACH(c, &incoming.list, next) {
        if (c->waits && (!oldest || c->since_ms < oldest->since_ms)) {
            oldest = c;
        }
    }
    if (!oldest || now_ms() - oldest->since_ms < SILENT_MS) {
        return false;
    }
    warn_report("multifd: a connection is closed: it has said nothing for %d "
                "seconds", SILENT_MS / 1000);
    drop_connection(oldest);
    return true;
}

/* It knows what we understand once we know that of it. */
static bool source_changes_method(void)
{
    return reply_peer_features() & WIRE_PEER_ANY_METHOD;
}

bool multifd_incoming_check(Error **errp)
{
    return !incoming.begun || receivers_check(errp);
}

/*
 * There are all channels that are needed.  One too many may still be about to
 * be accepted, and that for urgent pages comes later.
 */
static void all_have_come(void *opaque)
{
    drop_connections(true);
    if (!migrate_postcopy_preempt()) {
        transport_listen_stop();
    }
}

static const ReceiversPlaces places = {
    .ops = &dest_channel_pages, .opaque = dest_channel,
};

/*
 * While pages are missing there are two marks: between them channels bring some
 * of these.  At the first mark of all it is known that the channels have come.
 */
static bool meet_channels(RamLoader *loader, Error **errp)
{
    bool begins = dest_listens() && !incoming.placing;
    bool ok = begins ? receivers_divert(&places, errp) : receivers_meet(errp);

    incoming.placing = begins;
    if (ok && !multifd_incoming_met()) {
        qatomic_set(&incoming.met, true);
        main_loop_run(all_have_come, NULL);
    }
    return ok;
}

bool multifd_incoming_met(void)
{
    return qatomic_read(&incoming.met);
}

void multifd_incoming_begin(MultifdMain *main)
{
    ReceiversConfig config = {
        .channels = migrate_multifd_channels(),
        .page_bits = qemu_target_page_bits(),
        .method = migrate_multifd_compression(),
        .takes_any = source_changes_method,
        .regions = ram_load_regions,
        .arrived = ram_load_arrived,
        .load_device = device_load_buffer,
        .failed = channel_failed,
    };

    multifd_incoming_end();
    incoming.main = main;
    incoming.has_main = incoming.placing = false;
    qatomic_set(&incoming.met, false);
    qatomic_set(&incoming.had_records, false);
    incoming.begun = true;
    incoming.channels = config.channels;
    receivers_begin(&config);
    ram_load_set_channels(meet_channels,
                          migrate_multifd_flush_after_each_section());
}

void multifd_incoming_offer(QIOChannel *ioc)
{
    QEMUFile *f = qemu_file_new_input(ioc);
    Connection *c;

    object_unref(OBJECT(ioc));
    if (incoming.waiting > incoming.channels + STRANGERS_MAX &&
        !drop_oldest()) {
        Error *err = NULL;

        error_setg(&err, "too many are there that say nothing");
        close_stranger(f, err);
        return;
    }
    qemu_file_set_blocking(f, false);
    c = g_new(Connection, 1);
    *c = (Connection) { .f = f, .waits = true, .since_ms = now_ms() };
    QLIST_INSERT_HEAD(&incoming.list, c, next);
    incoming.waiting++;
    qemu_coroutine_enter(qemu_coroutine_create(connection_co, c));
}

void multifd_incoming_shutdown(void)
{
    receivers_shutdown();
}

/* Those of an attempt that broke soon may have had none yet. */
static bool have_had_records(void)
{
    if (receivers_have_records()) {
        qatomic_set(&incoming.had_records, true);
    }
    return qatomic_read(&incoming.had_records);
}

unsigned multifd_incoming_postcopy(void)
{
    uint32_t features = reply_peer_features();

    if (!incoming.begun || !(features & WIRE_PEER_POSTCOPY_CHANNELS)) {
        multifd_incoming_end();
        return 0;
    }
    qatomic_set(&incoming.again, features & WIRE_PEER_CHANNELS_AGAIN &&
                                 !migrate_postcopy_preempt());
    have_had_records();
    return incoming.channels;
}

/*
 * The source knows whether it sent records.  Here that may not be known: what
 * says so may have been lost when the connection broke.
 */
bool multifd_incoming_resume(uint32_t attempt)
{
    if (!qatomic_read(&incoming.again) || (!have_had_records() && !attempt)) {
        return false;
    }
    incoming.placing = false;
    qatomic_set(&incoming.attempt, attempt);
    receivers_begin_again(&places);
    return true;
}

/* What is left of an attempt that is over is known by its end as well. */
static bool is_of_attempt(QEMUFile *f, const WireMultifdInit *init,
                          Error **errp)
{
    uint32_t attempt = ldl_be_p(&init->attempt);
    uint32_t expected = qatomic_read(&incoming.attempt);

    if (expected && attempt != expected) {
        error_setg(errp, "recovery attempt %" PRIu32 " received, %" PRIu32
                   " expected", attempt, expected);
        return false;
    }
    if (!expected && channel_peer_closed(qemu_file_get_ioc(f))) {
        error_setg(errp, "its source has closed it");
        return false;
    }
    return true;
}

bool multifd_incoming_again(QEMUFile *f, const WireMultifdInit *init,
                            bool *complete, Error **errp)
{
    unsigned id;

    if (!qatomic_read(&incoming.again)) {
        error_setg(errp, "no channel of multifd is expected");
        return false;
    }
    if (!packet_check_init(init, &qemu_uuid, incoming.channels, &id, errp) ||
        !is_of_attempt(f, init, errp) || !receivers_add(f, id, errp)) {
        return false;
    }
    *complete = receivers_complete();
    return true;
}

unsigned multifd_incoming_max(void)
{
    return 1 + incoming.channels + STRANGERS_MAX;
}

void multifd_incoming_stop(void)
{
    receivers_stop();
}

void multifd_incoming_end(void)
{
    qatomic_set(&incoming.again, false);
    if (incoming.begun) {
        incoming.begun = false;
        drop_connections(false);
        receivers_end();
        ram_load_set_channels(NULL, false);
    }
}
