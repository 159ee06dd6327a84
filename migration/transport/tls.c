/*
 * TLS handshakes of channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A handshake may not hold up the main loop, whatever the peer does or does
 * not do: the channel does not block meanwhile, and there is a time limit.
 *
 * A pipe at its end is not readable, it only hangs up, and nobody but us waits
 * for that: without, the main loop would spin until time is over.  While such
 * a pipe holds data, hung_up() is called in every turn of the loop; so nothing
 * that is to read them may have a lower priority, as idle sources have.
 */

#include "qemu/osdep.h"
#ifdef CONFIG_POSIX
#include <glib-unix.h>
#endif
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "io/channel-command.h"
#include "io/channel-file.h"
#include "io/channel-tls.h"
#include "crypto/tlscredsx509.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "private.h"

struct TransportTLS {
    QIOChannel *ioc;        /* NULL once it is passed on */
    TransportSecured *cb;   /* NULL: given up */
    void *opaque;
    GMainContext *context;  /* NULL: the main loop's */
    GSource *start;         /* starts it; NULL once it did */
    GSource *limit;
    GSource *hang_up;       /* waits for the end of a pipe */
    bool shaking;           /* shaken() will be called */
};

int transport_tls_ms = 30 * 1000;

QCryptoTLSCreds *transport_tls_creds(QCryptoTLSCredsEndpoint end, Error **errp)
{
    const char *id = migrate_tls_creds();
    Object *obj = object_resolve_path_component(object_get_objects_root(), id);
    Object *creds = obj ? object_dynamic_cast(obj, TYPE_QCRYPTO_TLS_CREDS)
                        : NULL;

    if (!creds) {
        error_setg(errp, "'tls-creds' is '%s', but %s", id,
                   obj ? "this object holds no TLS credentials"
                       : "there is no object of that name");
        return NULL;
    }
    if (!qcrypto_tls_creds_check_endpoint(QCRYPTO_TLS_CREDS(creds), end,
                                          errp)) {
        return NULL;
    }
    return QCRYPTO_TLS_CREDS(creds);
}

/*
 * Peers are checked by the names in their certificates, which nobody looks at
 * if there are none or they are not verified.
 */
bool transport_tls_authz_fits(QCryptoTLSCreds *creds, Error **errp)
{
    const char *authz = migrate_tls_authz();
    const char *type = object_get_typename(OBJECT(creds));

    if (!authz) {
        return true;
    }
    if (!*authz) {
        error_setg(errp, "'tls-authz' is empty, which admits nobody; set it "
                   "to the ID of an authorization object");
        return false;
    }
    if (!object_dynamic_cast(OBJECT(creds), TYPE_QCRYPTO_TLS_CREDS_X509)) {
        error_setg(errp, "'tls-authz' requires X.509 certificates, but "
                   "'tls-creds' '%s' is a %s object", migrate_tls_creds(),
                   type);
        return false;
    }
    if (!object_property_get_bool(OBJECT(creds), "verify-peer", NULL)) {
        error_setg(errp, "'tls-authz' requires certificates to be verified: "
                   "set 'verify-peer' of '%s' to on", migrate_tls_creds());
        return false;
    }
    return true;
}

static GSource *attach(TransportTLS *tls, GSource *source, GSourceFunc fn)
{
    g_source_set_callback(source, fn, tls, NULL);
    g_source_attach(source, tls->context);
    return source;
}

static void detach(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_clear_pointer(source, g_source_unref);
    }
}

static void destroy(TransportTLS *tls)
{
    if (tls->ioc) {
        /* An unfinished handshake holds a reference until it is closed. */
        qio_channel_close(tls->ioc, NULL);
        object_unref(OBJECT(tls->ioc));
    }
    if (tls->context) {
        g_main_context_unref(tls->context);
    }
    g_free(tls);
}

/*
 * To close the channel calls a handshake off if that is in the main loop, and
 * so are we.  Anywhere else it has to end by itself, which it does at once when
 * the connection is gone: it may just be looking at it.
 */
void transport_tls_drop(TransportTLS *tls)
{
    QEMU_LOCK_GUARD(&transport_lock);
    detach(&tls->start);
    detach(&tls->limit);
    detach(&tls->hang_up);
    if (tls->shaking && (tls->context || !g_main_context_is_owner(NULL))) {
        tls->cb = NULL;
        qio_channel_shutdown(tls->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    } else {
        destroy(tls);
    }
}

/* Takes over @err. */
static void tls_finish(TransportTLS *tls, Error *err)
{
    TransportSecured *cb = tls->cb;
    void *opaque = tls->opaque;
    QIOChannel *ioc = err ? NULL : g_steal_pointer(&tls->ioc);

    transport_tls_drop(tls);
    cb(ioc, err, opaque);
}

static void shaken(QIOTask *task, void *opaque)
{
    TransportTLS *tls = opaque;
    Error *err = NULL;

    QEMU_LOCK_GUARD(&transport_lock);
    tls->shaking = false;
    if (!tls->cb) {
        destroy(tls);
    } else {
        qio_task_propagate_error(task, &err);
        tls_finish(tls, err);
    }
}

static gboolean too_late(void *opaque)
{
    Error *err = NULL;

    QEMU_LOCK_GUARD(&transport_lock);
    if (g_source_is_destroyed(g_main_current_source())) {
        return G_SOURCE_REMOVE;
    }
    error_setg(&err, "TLS handshake failed: the peer did not answer for "
               "%d seconds; does it use TLS?", transport_tls_ms / 1000);
    tls_finish(opaque, err);
    return G_SOURCE_REMOVE;
}

#ifdef CONFIG_POSIX
static gboolean hung_up(int fd, GIOCondition condition, void *opaque)
{
    GPollFD poll = { .fd = fd, .events = G_IO_IN };
    Error *err = NULL;

    QEMU_LOCK_GUARD(&transport_lock);
    if (g_source_is_destroyed(g_main_current_source())) {
        return G_SOURCE_REMOVE;
    }
    if (g_poll(&poll, 1, 0) > 0 && poll.revents & G_IO_IN) {
        return G_SOURCE_CONTINUE;       /* it said something before */
    }
    error_setg(&err, "TLS handshake failed: the peer hung up; does it use "
               "TLS?");
    tls_finish(opaque, err);
    return G_SOURCE_REMOVE;
}

static void watch_pipe(TransportTLS *tls, int fd)
{
    tls->hang_up = attach(tls, g_unix_fd_source_new(fd, G_IO_HUP),
                          G_SOURCE_FUNC(hung_up));
}
#else
static void watch_pipe(TransportTLS *tls, int fd)
{
}
#endif

/* What is read from, unless it is a socket; -1 if it is */
static int tls_pipe_of(QIOChannel *plain)
{
    Object *command = object_dynamic_cast(OBJECT(plain),
                                          TYPE_QIO_CHANNEL_COMMAND);
    Object *file = object_dynamic_cast(OBJECT(plain), TYPE_QIO_CHANNEL_FILE);

    return command ? QIO_CHANNEL_COMMAND(command)->readfd :
           file ? QIO_CHANNEL_FILE(file)->fd : -1;
}

static gboolean tls_begin(void *opaque)
{
    TransportTLS *tls = opaque;

    QEMU_LOCK_GUARD(&transport_lock);
    if (g_source_is_destroyed(g_main_current_source())) {
        return G_SOURCE_REMOVE;
    }
    detach(&tls->start);
    tls->shaking = true;
    qio_channel_tls_handshake(QIO_CHANNEL_TLS(tls->ioc), shaken, tls, NULL,
                              tls->context);
    return G_SOURCE_REMOVE;
}

static QIOChannelTLS *wrap(QIOChannel *plain, QCryptoTLSCredsEndpoint end,
                           const char *hostname, Error **errp)
{
    QCryptoTLSCreds *creds = transport_tls_creds(end, errp);
    const char *other = migrate_tls_hostname();
    const char *authz = migrate_tls_authz();

    if (!creds) {
        return NULL;
    }
    if (end == QCRYPTO_TLS_CREDS_ENDPOINT_SERVER) {
        if (!transport_tls_authz_fits(creds, errp)) {
            return NULL;
        }
        trace_migration_tls_incoming_handshake_start();
        return qio_channel_tls_new_server(plain, creds, authz, errp);
    }
    hostname = other && *other ? other : hostname;
    trace_migration_tls_outgoing_handshake_start(hostname ? hostname : "");
    return qio_channel_tls_new_client(plain, creds, hostname, errp);
}

TransportTLS *transport_tls_start(QIOChannel *plain,
                                  QCryptoTLSCredsEndpoint end,
                                  const char *hostname, GMainContext *context,
                                  TransportSecured *cb, void *opaque,
                                  Error **errp)
{
    QIOChannelTLS *wrapped = NULL;
    TransportTLS *tls;

    if (qio_channel_set_blocking(plain, false, errp) == 0) {
        wrapped = wrap(plain, end, hostname, errp);
    }
    if (!wrapped) {
        return NULL;
    }
    tls = g_new(TransportTLS, 1);
    *tls = (TransportTLS) {
        .ioc = QIO_CHANNEL(wrapped),
        .cb = cb,
        .opaque = opaque,
        .context = context ? g_main_context_ref(context) : NULL,
    };
    qio_channel_set_name(tls->ioc, "migration-tls");
    tls->start = attach(tls, g_timeout_source_new(0), tls_begin);
    tls->limit = attach(tls, g_timeout_source_new(transport_tls_ms), too_late);
    if (tls_pipe_of(plain) >= 0) {
        watch_pipe(tls, tls_pipe_of(plain));
    }
    return tls;
}
