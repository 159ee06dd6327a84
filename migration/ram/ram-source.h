/*
 * Sending RAM: what core/ and api/ know of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RAM is sent by the handlers of the section "ram", as other devices are.
 * The rest is here; the names others link to are in migration/ram.h.
 */

#ifndef MIGRATION_RAM_RAM_SOURCE_H
#define MIGRATION_RAM_RAM_SOURCE_H

#include "migration/register.h"
#include "send.h"
#include "stream-sink.h"

/* Those of the section */
extern const SaveVMHandlers ram_section_handlers;

/* What a sync of the dirty log found, and what it took */
typedef struct RamSyncReport {
    bool first;             /* nothing was dirtied: everything is to be sent */
    uint64_t dirtied;       /* bytes that were clean before */
    uint64_t interval_ns;   /* since the sync before */
    uint64_t took_ns;
    uint64_t bql_ns;        /* of it, with the BQL held */
} RamSyncReport;

/*
 * The last sync, if there was one that has not been reported.  Migration
 * thread.
 */
bool ram_source_last_sync(RamSyncReport *report);

/* The same, whether it has been reported or not. */
bool ram_source_sync_report(RamSyncReport *report);

/*
 * Bytes of memory in what the section last reported as pending, from which the
 * share of others follows.  Migration thread.
 */
uint64_t ram_source_pending(void);

/*
 * Whether each turn of the section sends all there is, at any rate, or only a
 * slice.  Migration thread.
 */
void ram_source_drain(bool all);

/*
 * What the peer understands: WIRE_PEER_*.  After the section has been set up,
 * which sets it to nothing, and before it is first iterated over.  Migration
 * thread.
 */
void ram_source_set_peer(uint32_t features);
uint32_t ram_source_peer(void);

/*
 * Another sink
 */

/*
 * What takes pages in place of records in the stream.  Migration thread, but
 * for free(), which the cleanup of the section calls under the BQL.
 */
typedef struct RamOtherSink {
    /* Pages of @regions go to what it returns; errors are latched in @stream */
    RamSink *(*make)(void *opaque, RamStreamSink *stream,
                     const RamRegions *regions);
    /* Before pages are given in a section; without RCU.  0 or an errno */
    int (*begin)(void *opaque);
    void (*free)(void *opaque);
    void *opaque;
} RamOtherSink;

/*
 * Memory is sent to what @other makes, until the section is cleaned up, or
 * postcopy begins: then pages are records of the stream.  Copied.  Before it is
 * set up.  Such a sink takes no differences, and has nothing left to send when
 * a section ends.
 */
void ram_source_set_sink(const RamOtherSink *other);

/*
 * Several channels
 */

/* Who sends, as ram_sender_run() does */
typedef RamSendResult RamRunFn(void *opaque, RamSender *main, bool all);

/* Who sends on other channels than that of the section; migration thread */
typedef struct RamChannels {
    RamRunFn *run;
    /*
     * A mark on each channel, up to which all has been sent that was given so
     * far.  The section has one, too: there the peer waits until it has come to
     * all of these, and each channel waits for that.  Nobody waits here.
     */
    void (*mark)(void *opaque);
    bool each_section;          /* the end of each section is a mark */
    void *opaque;
} RamChannels;

/*
 * Memory is sent on @channels, until the section is cleaned up; copied.  Before
 * it is set up.  Migration thread.
 */
void ram_source_set_channels(const RamChannels *channels);

/*
 * The next section has nothing but a mark, the last one: what comes after it is
 * sent on the section's own channel.  False if there are no others, or not any
 * more: then nothing has changed.  Migration thread.
 */
bool ram_source_leave_channels(void);

/*
 * Postcopy
 */

/* Page sizes of the memory behind all blocks that are sent, or-ed.  BQL */
uint64_t ram_source_host_page_sizes(void);

/* All that can be told of without the guest standing still has been. */
bool ram_source_may_postcopy(void);

/*
 * Memory that has to be sent while the guest is stopped, whatever it does
 * then: postcopy makes nothing shorter.
 */
bool ram_source_must_precopy(void);

/*
 * The section's sender, and its maps with it.  Stays valid until the section
 * is cleaned up.  Migration thread, once something was sent.
 */
RamSender *ram_source_sender(void);

/*
 * Whether the peer may request pages, or will be able to: before it is told
 * what to discard, and when that was in vain.  Migration thread.
 */
void ram_source_expect_requests(bool expect);

/*
 * The guest has stopped, and will go on elsewhere before its memory is there:
 * the last sync.  Migration thread, with the BQL.
 */
void ram_source_sync_last(void);

/*
 * Nothing has changed since the last sync, as the BQL has been held; or the
 * guest is handed over with what that found, whatever is written later.  The
 * end of the section, which comes next, goes without another sync.  Migration
 * thread, with the BQL.
 */
void ram_source_is_synced(void);

/*
 * The destination's memory is not what was sent in @len bytes of @block from
 * @start on: they are sent again.  False if there is no such memory.  Before
 * postcopy; afterwards ram_source_peer_forgot() is to be called.  Migration
 * thread, with the BQL.
 */
bool ram_source_send_again(const char *block, uint64_t start, uint64_t len,
                           Error **errp);

/*
 * Sections are written to @f from now on, by whoever passes it to the handlers
 * as well; its reader is the peer's loader, which is given all of them in
 * order.  Migration thread, between two sections.
 */
void ram_source_write_to(QEMUFile *f);

/*
 * There is no way back: what was synced last is all there is to send, nothing
 * becomes dirty any more, and the section is sent by @run.  Migration thread,
 * with the BQL.
 */
void ram_source_enter_postcopy(RamRunFn *run, void *opaque);

/*
 * In between @run sends the section, in place of whoever does.  Migration
 * thread.
 */
void ram_source_begin_turn(RamRunFn *run, void *opaque);
void ram_source_end_turn(void);

/*
 * The peer has discarded what it was told to, and may have none of what it
 * was sent: nothing is sent as a difference from that.  Migration thread, with
 * the BQL.
 */
void ram_source_peer_forgot(void);

/*
 * The connection is another one: @f, whose peer understands what the one
 * before did.  Its maps may have been made anew, which this makes right where
 * there is nothing to send.  Migration thread, without the BQL.
 */
void ram_source_resume(QEMUFile *f);

/*
 * Unplug
 */

/* @rb does not belong to the machine any more.  BQL. */
void ram_source_unplugged(RAMBlock *rb);

#endif
