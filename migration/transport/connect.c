/*
 * The way out: attempts to connect, from the address to the channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "io/channel-socket.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "private.h"

typedef struct Attempt {
    TransportConnected *cb;
    void *opaque;
    char *hostname;         /* NULL if the peer is not named by one */
    bool in_yank;           /* registered for it */
    /*
     * Where it is: first a socket that a thread connects, a file that a thread
     * truncates, or a channel that waits to be passed on; then perhaps a
     * handshake.
     */
    QIOChannel *ioc;
    bool in_thread;
    MigrationAddress *foreign;      /* what the thread connects to; or NULL */
    bool both_ways;
    uint64_t offset;                /* where the thread truncates the file */
    guint idle;
    TransportTLS *tls;
    /*
     * It is not in the list, and its thread frees it.  Set once by the main
     * loop; read by that and, atomically, by the thread, which then ends early.
     */
    bool called_off;
    QLIST_ENTRY(Attempt) next;
} Attempt;

/* What is under way */
static QLIST_HEAD(, Attempt) attempts;

/*
 * Held while a file is truncated, by the thread that has seen that its attempt
 * was not called off, and by whoever calls one off: the file may be written to
 * by others as soon as that is done.  Nothing else is locked with it.
 */
static QemuMutex truncating;

static void __attribute__((constructor)) init_truncating(void)
{
    qemu_mutex_init(&truncating);
}

static void attempt_free(Attempt *attempt)
{
    g_clear_handle_id(&attempt->idle, g_source_remove);
    g_clear_pointer(&attempt->tls, transport_tls_drop);
    g_clear_pointer(&attempt->ioc, object_unref);
    qapi_free_MigrationAddress(attempt->foreign);
    g_free(attempt->hostname);
    g_free(attempt);
}

/* Whatever the attempt holds is gone, but its thread. */
static void connect_end(Attempt *attempt, bool failed)
{
    QLIST_REMOVE(attempt, next);
    if (failed && attempt->in_yank) {
        if (QLIST_EMPTY(&attempts)) {
            transport_yank_leave();
        } else {
            QLIST_FIRST(&attempts)->in_yank = true;
        }
    }
    WITH_QEMU_LOCK_GUARD(&truncating) {
        qatomic_set(&attempt->called_off, attempt->in_thread);
    }
    if (!attempt->in_thread) {
        attempt_free(attempt);
    }
}

/* Takes over @err. */
static void connect_finish(Attempt *attempt, Error *err)
{
    TransportConnected *cb = attempt->cb;
    void *opaque = attempt->opaque;
    QIOChannel *ioc = NULL;

    if (!err && transport_hand_over(attempt->ioc, &err)) {
        ioc = g_steal_pointer(&attempt->ioc);
        trace_migration_set_outgoing_channel(
            ioc, object_get_typename(OBJECT(ioc)),
            attempt->hostname ? attempt->hostname : "", NULL);
    }
    connect_end(attempt, err);
    cb(ioc, err, opaque);
}

static void connect_secured(QIOChannel *ioc, Error *err, void *opaque)
{
    Attempt *attempt = opaque;

    attempt->tls = NULL;
    attempt->ioc = ioc;
    if (err) {
        trace_migration_tls_outgoing_handshake_error(error_get_pretty(err));
    } else {
        trace_migration_tls_outgoing_handshake_complete();
    }
    connect_finish(attempt, err);
}

static void opened(Attempt *attempt)
{
    g_autoptr(QIOChannel) plain = NULL;
    Error *err = NULL;

    if (!migrate_tls()) {
        connect_finish(attempt, NULL);
        return;
    }
    plain = g_steal_pointer(&attempt->ioc);
    attempt->tls = transport_tls_start(plain, QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT,
                                       attempt->hostname, NULL, connect_secured,
                                       attempt, &err);
    if (!attempt->tls) {
        connect_finish(attempt, err);
    }
}

static gboolean opened_idle(void *opaque)
{
    Attempt *attempt = opaque;

    attempt->idle = 0;
    opened(attempt);
    return G_SOURCE_REMOVE;
}

static void connect_thread_ended(QIOTask *task, void *opaque)
{
    Attempt *attempt = opaque;
    Error *err = NULL;

    attempt->in_thread = false;
    if (attempt->called_off) {
        attempt_free(attempt);
    } else if (qio_task_propagate_error(task, &err)) {
        connect_finish(attempt, err);
    } else {
        opened(attempt);
    }
}

static void start_thread(Attempt *attempt, const SocketAddress *to)
{
    QIOChannelSocket *socket = qio_channel_socket_new();

    attempt->ioc = QIO_CHANNEL(socket);
    attempt->in_thread = true;
    if (to->type == SOCKET_ADDRESS_TYPE_INET) {
        attempt->hostname = g_strdup(to->u.inet.host);
    }
    qio_channel_set_name(attempt->ioc, "migration-socket-outgoing");
    qio_channel_socket_connect_async(socket, (SocketAddress *)to,
                                     connect_thread_ended, attempt, NULL, NULL);
}

static void connect_foreign(QIOTask *task, void *opaque)
{
    Attempt *attempt = opaque;
    Error *err = NULL;

    attempt->ioc = transport_foreign(attempt->foreign)->connect(
        attempt->foreign, attempt->both_ways, &attempt->called_off, &err);
    qio_task_set_error(task, err);
}

static void start_foreign(Attempt *attempt, const MigrationAddress *addr,
                          bool both_ways)
{
    QIOTask *task = qio_task_new(NULL, connect_thread_ended, attempt, NULL);

    attempt->foreign = QAPI_CLONE(MigrationAddress, addr);
    attempt->both_ways = both_ways;
    attempt->in_thread = true;
    qio_task_run_in_thread(task, connect_foreign, attempt, NULL, NULL);
}

static void truncate_file(QIOTask *task, void *opaque)
{
    Attempt *attempt = opaque;
    Error *err = NULL;

    WITH_QEMU_LOCK_GUARD(&truncating) {
        if (!attempt->called_off) {
            transport_file_truncate(attempt->ioc, attempt->offset, &err);
        }
    }
    qio_task_set_error(task, err);
}

static void start_to_truncate(Attempt *attempt, uint64_t offset)
{
    QIOTask *task = qio_task_new(NULL, connect_thread_ended, attempt, NULL);

    attempt->offset = offset;
    attempt->in_thread = true;
    qio_task_run_in_thread(task, truncate_file, attempt, NULL, NULL);
}

static void one_way(Error **errp)
{
    error_setg(errp, "Capability '%s' requires a channel that goes both ways, "
               "such as a socket",
               migrate_return_path() ? "return-path" : "postcopy-ram");
}

/* A channel that is there at once, and fits */
static QIOChannel *open_now(const MigrationAddress *addr, bool both_ways,
                            Error **errp)
{
    QIOChannel *ioc;

    if (both_ways && addr->transport == MIGRATION_ADDRESS_TYPE_FILE) {
        one_way(errp);      /* and the file stays as it is */
        return NULL;
    }
    ioc = transport_open(addr, false, errp);
    if (ioc && both_ways &&
        !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        one_way(errp);
        g_clear_pointer(&ioc, object_unref);
    }
    return ioc;
}

static void connect_begin(Attempt *attempt, const MigrationAddress *addr,
                          const SocketAddress *to, bool both_ways)
{
    QLIST_INSERT_HEAD(&attempts, attempt, next);
    if (to) {
        start_thread(attempt, to);
    } else if (transport_foreign(addr)) {
        start_foreign(attempt, addr, both_ways);
    } else if (transport_file_is_longer(addr, attempt->ioc)) {
        start_to_truncate(attempt, addr->u.file.offset);
    } else {
        attempt->idle = g_idle_add(opened_idle, attempt);
    }
}

bool transport_connect_more(const MigrationAddress *addr, bool both_ways,
                            TransportConnected *cb, void *opaque, Error **errp)
{
    const SocketAddress *to = transport_endpoint(addr);
    g_autoptr(QIOChannel) ioc = NULL;
    Attempt *attempt;
    bool in_yank;

    /* Better said now than after the peer was bothered. */
    if (migrate_tls() &&
        !transport_tls_creds(QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT, errp)) {
        return false;
    }
    if (!to && !transport_foreign(addr)) {
        ioc = open_now(addr, both_ways, errp);
        if (!ioc) {
            return false;
        }
    }
    if (!transport_yank_enter(&in_yank, errp)) {
        return false;
    }
    attempt = g_new(Attempt, 1);
    *attempt = (Attempt) {
        .cb = cb, .opaque = opaque, .in_yank = in_yank,
        .ioc = g_steal_pointer(&ioc),
    };
    connect_begin(attempt, addr, to, both_ways);
    return true;
}

bool transport_connect(const MigrationAddress *addr, bool both_ways,
                       TransportConnected *cb, void *opaque, Error **errp)
{
    if (!QLIST_EMPTY(&attempts)) {
        error_setg(errp, "A migration is about to connect already");
        return false;
    }
    return transport_connect_more(addr, both_ways, cb, opaque, errp);
}

void transport_connect_cancel(void)
{
    while (!QLIST_EMPTY(&attempts)) {
        connect_end(QLIST_FIRST(&attempts), true);
    }
}
