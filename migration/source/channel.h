/*
 * The source: more channels to where the main one goes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_CHANNEL_H
#define MIGRATION_SOURCE_CHANNEL_H

#include "migration/qemu-file.h"

/*
 * Connects once more to where the main channel goes, and calls the channel
 * @name.  Migration thread, without the BQL: the main loop does it.  NULL if
 * that fails, or as soon as source_may_go_on() does; the file is the caller's,
 * and its channel known to `yank`.
 */
QEMUFile *source_channel_connect(const char *name, Error **errp);

/* Channel @i is there: in the main loop, with the BQL; must not wait. */
typedef void SourceChannelMade(QEMUFile *f, unsigned i);

/*
 * The same @count times, several at once, so that their handshakes overlap.
 * Their names are @name and their numbers.  @files are set in their order,
 * which need not be that of @made.  False if one fails, number *@failed: then
 * there are none.
 */
bool source_channels_connect(const char *name, QEMUFile **files, unsigned count,
                             SourceChannelMade *made, unsigned *failed,
                             Error **errp);

#endif
