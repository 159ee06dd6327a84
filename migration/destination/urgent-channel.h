/*
 * Connections that may be the source's second one
 *
 * Anybody can connect to a port.  The channel for urgent pages is the first
 * connection that begins with such a page; others are kept as long as they may
 * become it, and closed when they end or begin with something else.  One that
 * is secured had to prove who it is, and is taken at once.
 *
 * Any thread may call these.  The lock here is taken last.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_URGENT_CHANNEL_H
#define MIGRATION_DESTINATION_URGENT_CHANNEL_H

#include "io/channel.h"

void urgent_channel_init(void);

/* Keeps a reference of its own; closes it if there are too many already. */
void urgent_channel_offer(QIOChannel *ioc);

/* There is one that may become it. */
bool urgent_channel_some(void);

/*
 * The one that begins with a page, with a reference for the caller, or NULL.
 * Waits for it for @wait_ms at most.  One thread at a time, while RAM can be
 * loaded.
 */
QIOChannel *urgent_channel_choose(int wait_ms);

/* Closes all of them. */
void urgent_channel_drop(void);

/* Closes @ioc, which is known to 'yank', and drops a reference. */
void urgent_channel_close(QIOChannel *ioc);

#endif
