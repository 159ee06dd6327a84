/*
 * The destination: connections for a postcopy that is paused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "io/channel-socket.h"
#include "migration/base/clock.h"
#include "migration/migration.h"
#include "migration/wire/packet.h"
#include "migration/wire/stream.h"
#include "migration/yank_functions.h"
#include "arrivals.h"

/*
 * How long a connection may take to introduce itself.  A source does so at
 * once, or when it has made the one for urgent pages.
 */
#define SILENT_MS (30 * 1000)
/* One of which something was read makes room for others then. */
#define CROWDED_MS 1000
/* By which a channel of multifd is known */
#define CHANNEL_BYTES sizeof(uint32_t)
/* How often it is looked whether it is not needed any more */
#define LOOK_MS 20

typedef struct Arrival {
    QIOChannel *ioc;            /* while nothing was read; its thread */
    QEMUFile *f;                /* what is being read; under the lock */
    const ArrivalsOps *ops;
    int64_t until_ms;
    bool dropped;               /* nobody needs it any more; atomic */
    QLIST_ENTRY(Arrival) next;
} Arrival;

static struct {
    QemuMutex lock;
    QemuCond left;
    unsigned count;
    QLIST_HEAD(, Arrival) list;
} arrivals;

void arrivals_init(void)
{
    qemu_mutex_init(&arrivals.lock);
    qemu_cond_init(&arrivals.left);
}

/* With the reason, if the stream has one */
static bool too_short(QEMUFile *f, Error **errp)
{
    if (stream_check(f, errp)) {
        error_setg(errp, "it has ended");
    }
    return false;
}

static bool not_needed(Error **errp)
{
    error_setg(errp, "it is not needed any more");
    return false;
}

/*
 * Until there is something to read, or it is taken without that.  What TLS has
 * to read may be in no socket any more.
 */
static bool await_bytes(Arrival *a, Error **errp)
{
    QIOChannelSocket *socket = (QIOChannelSocket *)
        object_dynamic_cast(OBJECT(a->ioc), TYPE_QIO_CHANNEL_SOCKET);
    GPollFD fd = { .events = G_IO_IN | G_IO_HUP | G_IO_ERR };
    bool some = !socket;

    while (!some) {
        fd.fd = socket->fd;
        some = g_poll(&fd, 1, LOOK_MS) > 0;
        if (qatomic_read(&a->dropped)) {
            return not_needed(errp);
        }
        if (a->ops->silent && a->ops->silent(a->ioc)) {
            a->ioc = NULL;
            return true;
        }
        if (!some && now_ms() > a->until_ms) {
            error_setg(errp, "it has sent nothing for %d seconds",
                       SILENT_MS / 1000);
            return false;
        }
    }
    return true;
}

/* From now on it may be cut; false if it was to be already. */
static bool arrival_begin(Arrival *a, QEMUFile *f)
{
    QEMU_LOCK_GUARD(&arrivals.lock);
    a->f = f;
    return !qatomic_read(&a->dropped);
}

/* Not any more: somebody else may have it. */
static bool arrival_end(Arrival *a)
{
    QEMU_LOCK_GUARD(&arrivals.lock);
    a->f = NULL;
    return !qatomic_read(&a->dropped);
}

/* The stream stays where it is. */
static bool peek_recovery(QEMUFile *f, uint32_t *attempt, Error **errp)
{
    size_t size = sizeof(WireCommand) + sizeof(WirePing);
    uint16_t command;
    uint32_t value;
    uint8_t *bytes;

    if (qemu_peek_buffer(f, &bytes, sizeof(WireCommand), 0) <
        sizeof(WireCommand)) {
        return too_short(f, errp);
    }
    command = lduw_be_p(bytes + offsetof(WireCommand, command));
    *attempt = 0;
    if (command == WIRE_CMD_RECV_BITMAP ||
        command == WIRE_CMD_POSTCOPY_RESUME) {
        return true;
    }
    if (command != WIRE_CMD_PING) {
        error_setg(errp, "it does not begin as a recovery does");
        return false;
    }
    if (qemu_peek_buffer(f, &bytes, size, 0) < size) {
        return too_short(f, errp);
    }
    value = ldl_be_p(bytes + sizeof(WireCommand));
    if ((value & WIRE_PING_AGAIN_MASK) == WIRE_PING_AGAIN) {
        *attempt = value & ~WIRE_PING_AGAIN_MASK;
    }
    return true;
}

static bool arrival_take_main(Arrival *a, QEMUFile *f, Error **errp)
{
    uint32_t attempt;

    if (!peek_recovery(f, &attempt, errp)) {
        return false;
    }
    if (!arrival_end(a)) {
        return not_needed(errp);
    }
    stream_read_until(f, 0);
    return a->ops->main(f, attempt, errp);
}

static bool arrival_take_channel(Arrival *a, QEMUFile *f, Error **errp)
{
    WireMultifdInit init;

    if (qemu_get_buffer(f, (uint8_t *)&init, sizeof(init)) != sizeof(init)) {
        return too_short(f, errp);
    }
    if (!arrival_end(a)) {
        return not_needed(errp);
    }
    stream_read_until(f, 0);
    return a->ops->channel(f, &init, errp);
}

static bool sort_arrival(Arrival *a, QEMUFile *f, Error **errp)
{
    uint8_t *bytes;

    if (!qemu_peek_buffer(f, &bytes, 1, 0)) {
        return too_short(f, errp);
    }
    if (bytes[0] == WIRE_COMMAND) {
        return arrival_take_main(a, f, errp);
    }
    if (bytes[0] == WIRE_MULTIFD_MAGIC >> 24) {
        if (qemu_peek_buffer(f, &bytes, CHANNEL_BYTES, 0) < CHANNEL_BYTES) {
            return too_short(f, errp);
        }
        if (packet_begins_channel(bytes)) {
            return arrival_take_channel(a, f, errp);
        }
    }
    error_setg(errp, "it does not begin as one of a migration does");
    return false;
}

/* Takes over @err. */
static void close_arrival(QEMUFile *f, Error *err)
{
    warn_reportf_err(err, "postcopy: a connection is closed: ");
    stream_close(f);
}

static void arrival_gone(Arrival *a)
{
    QEMU_LOCK_GUARD(&arrivals.lock);
    QLIST_REMOVE(a, next);
    arrivals.count--;
    qemu_cond_broadcast(&arrivals.left);
    g_free(a);
}

static void *arrival_thread(void *opaque)
{
    Arrival *a = opaque;
    Error *err = NULL;
    bool ok;

    rcu_register_thread();
    ok = await_bytes(a, &err);
    if (a->ioc) {
        QEMUFile *f = qemu_file_new_input(a->ioc);

        object_unref(OBJECT(g_steal_pointer(&a->ioc)));
        qemu_file_set_blocking(f, false);
        stream_read_until(f, a->until_ms);
        if (ok) {
            ok = arrival_begin(a, f) ? sort_arrival(a, f, &err)
                                     : not_needed(&err);
        }
        arrival_end(a);
        if (!ok) {
            close_arrival(f, err);
        }
    }
    rcu_unregister_thread();
    arrival_gone(a);
    return NULL;
}

/* Under the lock. */
static void cut_arrival(Arrival *a)
{
    qatomic_set(&a->dropped, true);
    if (a->f) {
        qemu_file_shutdown(a->f);
    }
}

/* Under the lock.  New ones are inserted at the head. */
static bool make_room(void)
{
    Arrival *a, *silent = NULL, *oldest = NULL;

    QLIST_FOREACH(a, &arrivals.list, next) {
        if (!qatomic_read(&a->dropped)) {
            silent = a->f ? silent : a;
            oldest = a;
        }
    }
    if (!silent && oldest &&
        oldest->until_ms - now_ms() <= SILENT_MS - CROWDED_MS) {
        silent = oldest;
    }
    if (silent) {
        cut_arrival(silent);
    }
    return silent;
}

/* It takes a moment to make room. */
static bool arrival_added(Arrival *a, unsigned max)
{
    QEMU_LOCK_GUARD(&arrivals.lock);
    if (arrivals.count >= 2 * max || (arrivals.count >= max && !make_room())) {
        return false;
    }
    QLIST_INSERT_HEAD(&arrivals.list, a, next);
    arrivals.count++;
    return true;
}

void arrivals_offer(QIOChannel *ioc, unsigned max, const ArrivalsOps *ops)
{
    Arrival *a = g_new(Arrival, 1);
    QemuThread thread;
    Error *err = NULL;

    *a = (Arrival) {
        .ioc = ioc, .ops = ops, .until_ms = now_ms() + SILENT_MS,
    };
    object_ref(OBJECT(ioc));
    if (!arrival_added(a, max)) {
        error_setg(&err, "too many connections have not shown what they are");
        close_arrival(qemu_file_new_input(ioc), err);
        object_unref(OBJECT(ioc));
        g_free(a);
        return;
    }
    qemu_thread_create(&thread, MIGRATION_THREAD_DST_ARRIVAL, arrival_thread, a,
                       QEMU_THREAD_DETACHED);
}

/* Under the lock. */
static void cut_arrivals(void)
{
    Arrival *a;

    QLIST_FOREACH(a, &arrivals.list, next) {
        cut_arrival(a);
    }
}

void arrivals_close(void)
{
    QEMU_LOCK_GUARD(&arrivals.lock);
    cut_arrivals();
}

void arrivals_drop(void)
{
    QEMU_LOCK_GUARD(&arrivals.lock);
    while (arrivals.count) {
        cut_arrivals();
        qemu_cond_wait(&arrivals.left, &arrivals.lock);
    }
}
