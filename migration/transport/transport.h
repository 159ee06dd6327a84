/*
 * Channels of a migration: connect, listen, and what an address means
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A migration needs a QIOChannel to the other side.  Here it is made from a
 * URI or an address of QMP, whatever it takes: looking up a name, waiting for
 * the peer, a TLS handshake, starting a command.  What comes out is a channel
 * that is ready for the stream: blocking, secured if `tls-creds` is set, and
 * known to `yank`.
 *
 *   tcp:HOST:PORT  unix:PATH  vsock:CID:PORT     connected and listened for
 *   fd:NAME-OR-NUMBER                            socket, pipe or file
 *   exec:COMMAND                                 its standard input and output
 *   file:PATH[,offset=BYTES]                     written or read from there on
 *   rdma:HOST:PORT                               see transport_set_foreign()
 *
 * There is at most one migration that connects, with one channel or several at
 * once, and one listener at a time.
 *
 * Threads: everything is called in the main loop with the BQL held, and calls
 * back there.  No callback is made from inside the function it was given to.
 * But a paused postcopy must be recovered while the main loop waits for a page
 * that is missing: transport_listen() and transport_listen_stop() may be called
 * in any thread, without the BQL.  If the thread has a context of its own
 * (g_main_context_get_thread_default()), that is where its calls back come.
 *
 * `yank`: the instance of migration is registered by the first connect or
 * listen and stays until transport_end(), or until the attempt that
 * registered it fails or is called off.  A channel is registered with it when
 * it is passed on; whoever closes it calls migration_ioc_unregister_yank() or
 * migration_ioc_unregister_yank_from_file() before.
 */

#ifndef MIGRATION_TRANSPORT_TRANSPORT_H
#define MIGRATION_TRANSPORT_TRANSPORT_H

#include "io/channel.h"
#include "qapi/qapi-types-migration.h"

/*
 * Make an address of what the user gave: @uri or @channels, one of which is
 * NULL.  The entry 'main' of a list counts; others are the caller's business,
 * but none may be there twice.  What can be told to be wrong without trying
 * is refused: unknown schemes, empty names, offsets that are no numbers.
 *
 * On success *@out is the caller's, to be freed with
 * qapi_free_MigrationAddress().
 */
bool transport_parse(const char *uri, MigrationChannelList *channels,
                     MigrationAddress **out, Error **errp);

/*
 * Addresses of a type that another room connects to and listens at
 */

/* A peer is there.  The reference to @ioc is lent.  Main loop. */
typedef void TransportForeignArrived(QIOChannel *ioc);

typedef struct TransportForeign {
    /*
     * A channel to @addr, with @both_ways one that can be read.  In a thread of
     * its own, without the BQL; it may take long, and must end by itself, soon
     * after *@called_off, which is atomic, has become true.
     */
    QIOChannel *(*connect)(const MigrationAddress *addr, bool both_ways,
                           const bool *called_off, Error **errp);
    /* Wait at @addr, and call @arrived for each peer.  Main loop, BQL. */
    bool (*listen)(const MigrationAddress *addr,
                   TransportForeignArrived *arrived, Error **errp);
    void (*listen_stop)(void);
} TransportForeign;

/* Before any address is used; @foreign stays. */
void transport_set_foreign(MigrationAddressType type,
                           const TransportForeign *foreign);

/*
 * The end of an attempt to connect.  Exactly one of @ioc and @err is set; the
 * reference to @ioc and the error are the callee's.
 */
typedef void TransportConnected(QIOChannel *ioc, Error *err, void *opaque);

/*
 * Start to connect to @addr.  @both_ways: answers are needed, so what can only
 * be written to is refused.  On success @cb will be called once, unless
 * transport_connect_cancel() comes first; on failure never.  Fails if an
 * attempt is under way, and for what fails at once, such as a file that can
 * not be opened.
 */
bool transport_connect(const MigrationAddress *addr, bool both_ways,
                       TransportConnected *cb, void *opaque, Error **errp);

/*
 * The same beside others that are under way, for a migration with several
 * channels.
 */
bool transport_connect_more(const MigrationAddress *addr, bool both_ways,
                            TransportConnected *cb, void *opaque, Error **errp);

/*
 * Give up what is under way, if anything is: no callback of it will be
 * called.  What the kernel or a name server does not release at once ends
 * by itself, out of sight; another attempt may start right away.
 */
void transport_connect_cancel(void);

/*
 * One more channel to the file at @addr, with a position of its own; what is in
 * the file stays.  @direct: without the host's page cache (O_DIRECT).  `yank`
 * does not know it, as nobody is waited for.  Any thread.
 */
QIOChannel *transport_reopen_file(const MigrationAddress *addr, bool incoming,
                                  bool direct, Error **errp);

/*
 * A peer is there.  The reference to @ioc passes to the callee.  Listening
 * stops when the callback returns, unless it returns true: then it will be
 * called again for the next channel.  It may stop to listen by itself, but not
 * listen anew.
 *
 * A peer that fails before (TLS) is reported, and listening goes on for others
 * at a socket.  Where there are no others (fd, exec, file) it has stopped, and
 * the callback is told why: @ioc is NULL and @err the callee's.
 */
typedef bool TransportAccepted(QIOChannel *ioc, Error *err, void *opaque);

/*
 * Wait at @addr.  After a failure nothing is left: the next call may succeed.
 * Fails if there is a listener already.
 */
bool transport_listen(const MigrationAddress *addr, TransportAccepted *cb,
                      void *opaque, Error **errp);

/* Stop to listen, and drop peers that are in their handshake.  Idempotent. */
void transport_listen_stop(void);

/* There is a socket to which others can connect. */
bool transport_accepts_more(void);

/*
 * Drops all peers that have connected and were not let in yet; listening goes
 * on for those who connect later.
 */
void transport_listen_drain(void);

/*
 * Where the last successful transport_listen() listens or listened: for
 * sockets with the port that the kernel chose.  Valid until the next
 * transport_listen() or transport_end(); owned here.
 */
SocketAddressList *transport_addresses(void);

/* A copy of it, which the caller frees.  Any thread. */
SocketAddressList *transport_addresses_copy(void);

/*
 * All has been written to @ioc, which may still be read.  If it leads to a
 * command, that is told of the end of its input, and waited for: false if it
 * fails, does not end in time, or @ioc is shut down.  Any thread, but not with
 * the BQL.
 */
bool transport_finish(QIOChannel *ioc, Error **errp);

/*
 * All that was needed has been read from @ioc.  False if it leads to a command
 * that has written all it had, and failed.  One that lives on is not waited
 * for.  Any thread, but not with the BQL.
 */
bool transport_writer_ended(QIOChannel *ioc, Error **errp);

/*
 * The migration is over and all its channels are closed.  Stops what is under
 * way and unregisters from `yank`.  Idempotent.
 */
void transport_end(void);

#endif
