/*
 * The second channel of postcopy, for pages that somebody waits for
 *
 * The source makes it, when it is about to need it: the destination takes the
 * first connection for the main channel, so that one has to be there before.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_URGENT_CHANNEL_H
#define MIGRATION_SOURCE_URGENT_CHANNEL_H

/*
 * Connects to where the main channel goes, and sets source.urgent.  Migration
 * thread, without the BQL: the main loop does it.  Gives up as soon as
 * source_may_go_on() fails.
 */
bool urgent_channel_connect(Error **errp);

#endif
