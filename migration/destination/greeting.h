/*
 * The destination: what a source sends first, read for a guest that is refused
 *
 * A source opens the return path and presents itself right after the header of
 * the stream, without waiting for an answer.  What does not agree is found out
 * before that is read, and only a source that was met can be told about it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_GREETING_H
#define MIGRATION_DESTINATION_GREETING_H

#include "migration/qemu-file.h"

/*
 * Reads from @f, which stands behind the header, until the source is known;
 * stops at anything that does not belong there, and loads nothing.  Then the
 * return path may be open, for reply_error() and reply_close().  Incoming
 * thread, without the BQL.
 */
void greeting_read(QEMUFile *f);

#endif
