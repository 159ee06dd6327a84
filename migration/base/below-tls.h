/*
 * What a channel is, with or without TLS
 *
 * Any thread, while the caller has a reference to the channel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_BELOW_TLS_H
#define MIGRATION_BASE_BELOW_TLS_H

#include "io/channel-socket.h"

/* What @ioc encrypts, or itself.  No reference is taken. */
QIOChannel *channel_below_tls(QIOChannel *ioc);

/* What @ioc is or encrypts, if that is a socket; else NULL */
QIOChannelSocket *channel_socket(QIOChannel *ioc);

/*
 * Whether it is known that nothing more will arrive than what has arrived
 * already: the peer has closed, or sends no more.  False if @ioc is no socket.
 */
bool channel_peer_closed(QIOChannel *ioc);

#endif
