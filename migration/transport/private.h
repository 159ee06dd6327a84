/*
 * What the files of transport/ share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Threads: main loop, with the BQL held; what listens may also be in another
 * thread's loop, see transport.h.
 */

#ifndef MIGRATION_TRANSPORT_PRIVATE_H
#define MIGRATION_TRANSPORT_PRIVATE_H

#include "crypto/tlscreds.h"
#include "qemu/thread.h"
#include "transport.h"

/*
 * Of all that listens.  Callbacks are made with it: so whoever stops to listen
 * knows that none is under way in another thread.
 */
extern QemuRecMutex transport_lock;

/* For the kernel to hold: all that one migration may make at once */
#define TRANSPORT_BACKLOG 256

/* How long a TLS handshake may take; less in tests */
extern int transport_tls_ms;

/*
 * channel.c
 */

/* Who connects to @addr and listens there; NULL: the files here do. */
const TransportForeign *transport_foreign(const MigrationAddress *addr);

/*
 * open.c
 */

/* The socket to connect to or to listen at; NULL for what is just opened */
const SocketAddress *transport_endpoint(const MigrationAddress *addr);

/*
 * Open what has no endpoint, to read from if @incoming, or to write to.  A file
 * that is written to and longer than its offset is truncated before the first
 * byte is written, by transport_file_truncate().
 */
QIOChannel *transport_open(const MigrationAddress *addr, bool incoming,
                           Error **errp);

/*
 * Whether that has to be done to @ioc.  It takes long for a large file, as its
 * pages and blocks are freed one by one: no BQL, any thread.
 */
bool transport_file_is_longer(const MigrationAddress *addr, QIOChannel *ioc);
bool transport_file_truncate(QIOChannel *ioc, uint64_t offset, Error **errp);

/*
 * child.c
 */

/* How long a command may take to end when its input has; less in tests */
extern int transport_exit_ms;

/*
 * Start @argv, whose input and output are the channel.  To close the channel
 * closes both, and does not wait for the command.
 */
QIOChannel *transport_open_child(const char *const *argv, Error **errp);

/*
 * transport.c
 */

/*
 * Register the instance of migration with `yank` if that is not done yet.
 * *@here says whether it was done now.
 */
bool transport_yank_enter(bool *here, Error **errp);

/* Take the registration back, if there is one. */
void transport_yank_leave(void);

/*
 * Make @ioc ready for the stream and known to `yank`.  When this fails, @ioc
 * is not registered.
 */
bool transport_hand_over(QIOChannel *ioc, Error **errp);

/*
 * listen.c
 */

/* Forget transport_addresses(). */
void transport_addresses_drop(void);

/*
 * tls.c
 */

typedef struct TransportTLS TransportTLS;

/*
 * The end of a handshake.  The reference to @ioc, which encrypts, and @err
 * are the callee's; exactly one is set.
 */
typedef void TransportSecured(QIOChannel *ioc, Error *err, void *opaque);

/* The credentials of `tls-creds`, borrowed; an error if they do not fit. */
QCryptoTLSCreds *transport_tls_creds(QCryptoTLSCredsEndpoint end,
                                     Error **errp);

/*
 * Whether `tls-authz` can be kept to with @creds, a server's.  NULL, which it
 * is until it is set for the first time, admits everybody.
 */
bool transport_tls_authz_fits(QCryptoTLSCreds *creds, Error **errp);

/*
 * Start a handshake over @plain.  @hostname is what the certificate of the
 * server has to be made out for, unless `tls-hostname` says otherwise; NULL
 * if not known.  It goes on in the main loop or that of @context, which calls
 * back.  On success @cb will be called once, later, unless
 * transport_tls_drop() comes first.  The callback is made under transport_lock.
 */
TransportTLS *transport_tls_start(QIOChannel *plain,
                                  QCryptoTLSCredsEndpoint end,
                                  const char *hostname, GMainContext *context,
                                  TransportSecured *cb, void *opaque,
                                  Error **errp);

/* Give up a handshake: its callback will not be called. */
void transport_tls_drop(TransportTLS *tls);

#endif
