/*
 * The destination: what a source sends first, before anything is prepared
 *
 * A source opens the return path and presents itself right after the header of
 * the stream, without waiting for an answer.  One that knows inventories asks
 * for ours then, and waits for it: what does not fit is found out while nothing
 * has been loaded, and the source may withdraw.
 *
 * What the header says and does not agree is found out before all this is read,
 * and only a source that was met can be told about it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_GREETING_H
#define MIGRATION_DESTINATION_GREETING_H

#include "migration/qemu-file.h"

/*
 * Reads from @f, which stands behind the header, and answers until there is
 * something that does not belong to a greeting, which is left to be read.
 * False if the source has withdrawn, or has gone after it was sent the
 * inventory.  Incoming thread, without the BQL.
 */
bool greeting_read(QEMUFile *f);

#endif
