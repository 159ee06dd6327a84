/*
 * Lazy restore: a guest that runs before its memory is read from a file
 *
 * With mapped-ram and postcopy-ram migrate-incoming loads a file so.  The list
 * of blocks tells where pages are; from then on memory is watched, and threads
 * read it (postcopy/file-pages.h), while the main stream is loaded to its end
 * as usual: devices that need memory wait for it, as the guest does later.
 *
 * A file that is damaged, cut off or changed stops all of it.  Before the guest
 * was started the migration has failed.  Afterwards the guest is stopped, and
 * postcopy stays paused, with the reason: whoever waits for memory goes on
 * waiting, as what the file does not have must not be made up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_LAZY_H
#define MIGRATION_DESTINATION_LAZY_H

#include "io/channel.h"

/*
 * Takes over @count channels to the file; see file_pages_begin().  Main loop,
 * BQL, before it is loaded.
 */
bool lazy_restore_open(QIOChannel **files, unsigned count, Error **errp);

/* Memory is being read, or may be missing for good.  Any thread. */
bool lazy_restore_began(void);

/*
 * The main stream could not be loaded: nobody waits for memory any more.
 * Replaces the error in *@errp by that of the file, if that is why.  Incoming
 * thread, without the BQL.
 */
void lazy_restore_failed(Error **errp);

/* All but memory is loaded.  False if the guest must not be started.  BQL. */
bool lazy_restore_run(Error **errp);

/*
 * The guest was started: waits until all of its memory is there.  False if that
 * will never be, which is only noticed when QEMU ends.  Incoming thread.
 */
bool lazy_restore_finish(Error **errp);

/* QEMU ends: the threads need not go on.  BQL. */
void lazy_restore_quit(void);

/* After everything; idempotent.  BQL. */
void lazy_restore_end(void);

#endif
