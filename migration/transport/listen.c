/*
 * The way in: one listener, and peers until they are let in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "io/net-listener.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "private.h"

/* Connections that are dropped at once; more than the kernel keeps waiting */
#define DRAIN_MAX 1024

/* One that is in its handshake */
typedef struct Peer {
    TransportTLS *tls;
    QLIST_ENTRY(Peer) next;
} Peer;

/* Under transport_lock. */
static struct {
    TransportAccepted *cb;          /* NULL: nobody listens */
    void *opaque;
    GMainContext *context;          /* of who listens; NULL: the main loop */
    bool in_yank;                   /* registered, and nobody let in so far */
    QIONetListener *listener;       /* for sockets that are connected to */
    const TransportForeign *foreign;    /* or who else listens */
    QIOChannel *opened;             /* or what is there, until data is */
    GSource *watch;
    QLIST_HEAD(, Peer) peers;
    SocketAddressList *addresses;
} listening;

/*
 * A peer that is not let in.  Another may come to a socket; what was opened
 * was all there is.  Takes over @err.
 */
static void turn_away(Error *err)
{
    TransportAccepted *cb = listening.cb;
    void *opaque = listening.opaque;

    if (listening.listener || listening.foreign) {
        error_report_err(err);
    } else {
        transport_listen_stop();
        cb(NULL, err, opaque);
    }
}

static void let_in(QIOChannel *ioc)
{
    Error *err = NULL;

    if (!transport_hand_over(ioc, &err)) {
        turn_away(err);
        return;
    }
    trace_migration_set_incoming_channel(ioc,
                                         object_get_typename(OBJECT(ioc)));
    listening.in_yank = false;
    object_ref(OBJECT(ioc));
    if (!listening.cb(ioc, NULL, listening.opaque)) {
        transport_listen_stop();
    }
}

static void listen_secured(QIOChannel *ioc, Error *err, void *opaque)
{
    Peer *peer = opaque;

    QLIST_REMOVE(peer, next);
    g_free(peer);
    if (err) {
        trace_migration_tls_incoming_handshake_error(error_get_pretty(err));
        turn_away(err);
        return;
    }
    trace_migration_tls_incoming_handshake_complete();
    let_in(ioc);
    object_unref(OBJECT(ioc));
}

static void listen_arrived(QIOChannel *ioc)
{
    Error *err = NULL;
    Peer *peer;

    if (!migrate_tls()) {
        let_in(ioc);
        return;
    }
    peer = g_new0(Peer, 1);
    peer->tls = transport_tls_start(ioc, QCRYPTO_TLS_CREDS_ENDPOINT_SERVER,
                                    NULL, listening.context, listen_secured,
                                    peer, &err);
    if (peer->tls) {
        QLIST_INSERT_HEAD(&listening.peers, peer, next);
    } else {
        g_free(peer);
        turn_away(err);
    }
}

static void listen_connected(QIONetListener *listener, QIOChannelSocket *socket,
                             void *opaque)
{
    QEMU_LOCK_GUARD(&transport_lock);
    if (listener != listening.listener) {
        return;
    }
    qio_channel_set_name(QIO_CHANNEL(socket), "migration-socket-incoming");
    listen_arrived(QIO_CHANNEL(socket));
}

static gboolean readable(QIOChannel *ioc, GIOCondition condition, void *opaque)
{
    g_autoptr(QIOChannel) opened = NULL;

    QEMU_LOCK_GUARD(&transport_lock);
    if (ioc == listening.opened) {
        opened = g_steal_pointer(&listening.opened);
        g_clear_pointer(&listening.watch, g_source_unref);
        listen_arrived(opened);
    }
    return G_SOURCE_REMOVE;
}

static void foreign_arrived(QIOChannel *ioc)
{
    QEMU_LOCK_GUARD(&transport_lock);
    if (listening.foreign) {
        listen_arrived(ioc);
    }
}

static bool listen_foreign(const MigrationAddress *addr, Error **errp)
{
    listening.foreign = transport_foreign(addr);
    return listening.foreign->listen(addr, foreign_arrived, errp);
}

static bool note_addresses(QIONetListener *listener, Error **errp)
{
    SocketAddressList **tail = &listening.addresses;

    for (int i = 0; i < listener->nsioc; i++) {
        SocketAddress *addr =
            qio_channel_socket_get_local_address(listener->sioc[i], errp);

        if (!addr) {
            return false;
        }
        QAPI_LIST_APPEND(tail, addr);
    }
    return true;
}

/*
 * A connection that was there when the main loop looked may have been dropped
 * before it is accepted (transport_listen_drain()): nobody waits for another.
 */
static bool never_waits(QIONetListener *listener, Error **errp)
{
    for (int i = 0; i < listener->nsioc; i++) {
        if (qio_channel_set_blocking(QIO_CHANNEL(listener->sioc[i]), false,
                                     errp) < 0) {
            return false;
        }
    }
    return true;
}

static bool listen_at(const SocketAddress *at, Error **errp)
{
    QIONetListener *listener = qio_net_listener_new();

    listening.listener = listener;
    qio_net_listener_set_name(listener, "migration-socket-listener");
    if (qio_net_listener_open_sync(listener, (SocketAddress *)at,
                                   TRANSPORT_BACKLOG, errp) < 0 ||
        !never_waits(listener, errp)) {
        return false;
    }
    qio_net_listener_set_client_func_full(listener, listen_connected, NULL,
                                          NULL, listening.context);
    return note_addresses(listener, errp);
}

static bool open_and_watch(const MigrationAddress *addr, Error **errp)
{
    listening.opened = transport_open(addr, true, errp);
    if (!listening.opened) {
        return false;
    }
    listening.watch = qio_channel_add_watch_source(
        listening.opened, G_IO_IN | G_IO_HUP, readable, NULL, NULL,
        listening.context);
    return true;
}

/* Objects may still be made; of those that are there it is better said now. */
static bool tls_may_work(Error **errp)
{
    QCryptoTLSCreds *creds = migrate_tls()
        ? transport_tls_creds(QCRYPTO_TLS_CREDS_ENDPOINT_SERVER, NULL) : NULL;

    return !creds || transport_tls_authz_fits(creds, errp);
}

bool transport_listen(const MigrationAddress *addr, TransportAccepted *cb,
                      void *opaque, Error **errp)
{
    const SocketAddress *at = transport_endpoint(addr);
    GMainContext *context = g_main_context_get_thread_default();

    QEMU_LOCK_GUARD(&transport_lock);
    if (listening.cb) {
        error_setg(errp, "A migration is waited for already");
        return false;
    }
    if (!tls_may_work(errp) ||
        !transport_yank_enter(&listening.in_yank, errp)) {
        return false;
    }
    transport_addresses_drop();
    listening.cb = cb;
    listening.opaque = opaque;
    listening.context = context ? g_main_context_ref(context) : NULL;
    if (at ? listen_at(at, errp) :
        transport_foreign(addr) ? listen_foreign(addr, errp)
                                : open_and_watch(addr, errp)) {
        return true;
    }
    transport_listen_stop();
    transport_addresses_drop();
    return false;
}

/* Under transport_lock. */
static void drop_peers(void)
{
    Peer *peer, *next;

    QLIST_FOREACH_SAFE(peer, &listening.peers, next, next) {
        QLIST_REMOVE(peer, next);
        transport_tls_drop(peer->tls);
        g_free(peer);
    }
}

void transport_listen_stop(void)
{
    QEMU_LOCK_GUARD(&transport_lock);
    listening.cb = NULL;
    if (listening.watch) {
        g_source_destroy(listening.watch);
        g_clear_pointer(&listening.watch, g_source_unref);
    }
    g_clear_pointer(&listening.opened, object_unref);
    drop_peers();
    if (listening.listener) {
        qio_net_listener_disconnect(listening.listener);
        g_clear_pointer(&listening.listener, object_unref);
    }
    if (listening.foreign) {
        const TransportForeign *foreign = listening.foreign;

        listening.foreign = NULL;
        foreign->listen_stop();
    }
    g_clear_pointer(&listening.context, g_main_context_unref);
    if (listening.in_yank) {
        listening.in_yank = false;
        transport_yank_leave();
    }
}

bool transport_accepts_more(void)
{
    QEMU_LOCK_GUARD(&transport_lock);
    return listening.listener;
}

/* Those that the kernel has accepted for @listener, as far as it keeps any */
static void drop_waiting(QIOChannelSocket *listener)
{
    GPollFD waiting = { .fd = listener->fd, .events = G_IO_IN };

    for (int i = 0; i < DRAIN_MAX && g_poll(&waiting, 1, 0) > 0; i++) {
        QIOChannelSocket *peer = qio_channel_socket_accept(listener, NULL);

        if (!peer) {
            return;
        }
        object_unref(OBJECT(peer));
    }
}

void transport_listen_drain(void)
{
    QEMU_LOCK_GUARD(&transport_lock);
    drop_peers();
    for (int i = 0; listening.listener && i < listening.listener->nsioc; i++) {
        drop_waiting(listening.listener->sioc[i]);
    }
}

SocketAddressList *transport_addresses(void)
{
    return listening.addresses;
}

SocketAddressList *transport_addresses_copy(void)
{
    QEMU_LOCK_GUARD(&transport_lock);
    return QAPI_CLONE(SocketAddressList, listening.addresses);
}

void transport_addresses_drop(void)
{
    QEMU_LOCK_GUARD(&transport_lock);
    g_clear_pointer(&listening.addresses, qapi_free_SocketAddressList);
}
