/*
 * The destination of a postcopy of RAM: from "it may come" to "it is all here"
 *
 *   advise   what is sent lands in empty memory, and it is noted what came
 *   forget   pages that are out of date count as not received
 *   listen   what has not come is given back, and memory tells who touches it;
 *            pages are put in place
 *   pause    nobody can be asked; resume asks for all that is missing
 *   end      all is here: it is ordinary memory again
 *
 * There is one at a time.  Each function says where it is called; those of a
 * step may follow those of the steps before it only.  Loading the main stream
 * goes through ram/load.h, which is told here where pages go.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_DEST_H
#define MIGRATION_POSTCOPY_DEST_H

#include "migration/qemu-file.h"
#include "migration/ram/load.h"
#include "place.h"

/*
 * The source announces postcopy, with its page sizes.  Fails if this side
 * cannot do that with this memory; it says why.  BQL.
 */
bool dest_advise(uint64_t host_page_sizes, uint64_t target_page_size,
                 Error **errp);

/*
 * The same where memory is in a file, and there is no source: dest_listen()
 * follows, when what the file has no pages of has been marked as received.
 * BQL; any thread.
 */
bool dest_advise_file(Error **errp);

/* What pages are put in place in, from there on until dest_unregister() */
PlaceMemory *dest_memory(void);

/* The command POSTCOPY_DISCARD with @len bytes.  BQL. */
bool coroutine_mixed_fn dest_forget(QEMUFile *f, uint16_t len, Error **errp);

/*
 * From now on the memory can be used by anybody.  @ops ask the source once
 * dest_resume() was called.  Besides the main channel and that for urgent pages
 * up to @channels others bring pages.  BQL; nobody loads RAM meanwhile.
 */
bool dest_listen(const FaultsOps *ops, unsigned channels, Error **errp);

/*
 * Where the pages of channel @i go, with dest_channel(i) as opaque; a thread of
 * its own for each.  From dest_listen() to dest_unlisten() or dest_end().
 */
extern const RamPagesOps dest_channel_pages;
void *dest_channel(unsigned i);

/*
 * The source keeps the guest: as before dest_listen(), which may come again.
 * What has come stays.  False if those who share the memory cannot go back.
 * Thread that loads, without the BQL: who holds that may be waiting for a page,
 * and goes on with zeros.
 */
bool dest_unlisten(Error **errp);

/* Pages from a channel of their own, up to its end.  A thread of its own. */
bool dest_load_urgent(QEMUFile *f, Error **errp);

/* Whether it listens; where it is made to and not. */
bool dest_listens(void);

/*
 * Channels of the background let others have a turn first (base/turns.h): with
 * @on those whose page has just come, and with @early also those that help one
 * to come by another channel.  The thread that loads, while no other does;
 * neither at first.
 */
void dest_give_way(bool on, bool early);

/* Any thread */
void dest_resume(void);
void dest_pause(void);

/* Nobody reads a stream: what is half there will be sent again. */
void dest_reset_channels(void);

/*
 * The main stream has ended: waits for what is still requested.  False if
 * dest_give_up() is called meanwhile.  Thread that loads.
 */
bool dest_wait(void);
void dest_give_up(void);

/*
 * No page is missing any more.  Thread that loads, without the BQL: who holds
 * that may be waiting for a page.
 */
void dest_unregister(void);

/* The end, however far it came; idempotent.  BQL. */
void dest_end(void);

/* Puts the bitmap of what has come of a block; false if there is no such. */
bool dest_put_received(const char *name, QEMUFile *f);
bool dest_knows(const char *name);

/*
 * How many pages have not come, and the name of the first block that lacks
 * some; without those that the guest was never given, which are not sent.  What
 * comes meanwhile may be counted or not.  Thread that loads.
 */
uint64_t dest_missing(const char **block);

/* Whether that thread waits for a page.  BQL. */
bool dest_waits(uint32_t thread);

/* What was seen, also after the end.  False if there was no postcopy.  BQL. */
bool dest_look(FaultsView *view);

/* What it cost the vCPUs; of none if that was not requested.  BQL. */
void dest_blocktime(FaultsBlocktime *time);

#endif
