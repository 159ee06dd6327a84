/*
 * TLS handshakes of channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A handshake may not hold up the main loop, whatever the peer does or does
 * not do: the channel does not block meanwhile, and there is a time limit.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "io/channel-tls.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "private.h"

struct TransportTLS {
    QIOChannel *ioc;        /* NULL once it is passed on */
    TransportSecured *cb;
    void *opaque;
    guint start;            /* the source that starts it, until it did */
    QEMUTimer limit;
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

void transport_tls_drop(TransportTLS *tls)
{
    g_clear_handle_id(&tls->start, g_source_remove);
    timer_del(&tls->limit);
    if (tls->ioc) {
        /* An unfinished handshake holds a reference until it is closed. */
        qio_channel_close(tls->ioc, NULL);
        object_unref(OBJECT(tls->ioc));
    }
    g_free(tls);
}

/* Takes over @err. */
static void finish(TransportTLS *tls, Error *err)
{
    TransportSecured *cb = tls->cb;
    void *opaque = tls->opaque;
    QIOChannel *ioc = err ? NULL : g_steal_pointer(&tls->ioc);

    transport_tls_drop(tls);
    cb(ioc, err, opaque);
}

static void shaken(QIOTask *task, void *opaque)
{
    Error *err = NULL;

    qio_task_propagate_error(task, &err);
    finish(opaque, err);
}

static void too_late(void *opaque)
{
    Error *err = NULL;

    error_setg(&err, "TLS handshake failed: the peer did not answer for "
               "%d seconds; does it use TLS?", transport_tls_ms / 1000);
    finish(opaque, err);
}

static gboolean begin(void *opaque)
{
    TransportTLS *tls = opaque;

    tls->start = 0;
    qio_channel_tls_handshake(QIO_CHANNEL_TLS(tls->ioc), shaken, tls, NULL,
                              NULL);
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
        authz = authz && *authz ? authz : NULL;
        trace_migration_tls_incoming_handshake_start();
        return qio_channel_tls_new_server(plain, creds, authz, errp);
    }
    hostname = other && *other ? other : hostname;
    trace_migration_tls_outgoing_handshake_start(hostname ? hostname : "");
    return qio_channel_tls_new_client(plain, creds, hostname, errp);
}

TransportTLS *transport_tls_start(QIOChannel *plain,
                                  QCryptoTLSCredsEndpoint end,
                                  const char *hostname, TransportSecured *cb,
                                  void *opaque, Error **errp)
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
        .start = g_idle_add(begin, tls),
    };
    qio_channel_set_name(tls->ioc, "migration-tls");
    timer_init_ms(&tls->limit, QEMU_CLOCK_REALTIME, too_late, tls);
    timer_mod(&tls->limit,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + transport_tls_ms);
    return tls;
}
