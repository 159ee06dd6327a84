/*
 * Threads that load memory, each from a channel of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The source sends packets on its channels, or after those records, and on
 * each of them now and then a mark, SYNC or MULTIFD_FLUSH.  There a receiver
 * waits until receivers_meet() is called by whoever loads the main channel,
 * which has a mark in the same place.  So what comes after the mark is never
 * overtaken by what came before, on whichever channel.
 *
 * Nothing in a packet or record is believed.  No page is put in place before
 * the main channel has come to its first mark: then the list of RAM blocks is
 * known.
 *
 * Threads.  receivers_meet(), _divert(), _stop(): who loads the main channel,
 * without the BQL.  receivers_add(), _has(), _complete(), _have_records(),
 * _fail(), _check(), _shutdown(): any.  _begin_again(): any, while who loads
 * the main channel waits for that.  _begin() and _end(): with the BQL.
 * One lock, `meeting.lock`, is taken at the marks, and by whoever looks at the
 * list of channels in another thread; under it only that of an error.
 */

#ifndef MIGRATION_MULTIFD_RECEIVERS_H
#define MIGRATION_MULTIFD_RECEIVERS_H

#include "migration/qemu-file.h"
#include "migration/ram/load.h"
#include "codec.h"

typedef struct ReceiversConfig {
    unsigned channels;
    unsigned page_bits;         /* of the target */
    /* AUTO: whichever a packet has */
    MultiFDCompression method;
    /*
     * The source may use any method, whatever is set here; or NULL.  In the
     * threads, when a packet has another one.
     */
    bool (*takes_any)(void);
    /* What is loaded to; called after the first mark. */
    RamRegions *(*regions)(void);
    /* Pages have been put in place, by any of the threads; or NULL. */
    void (*arrived)(RamRegion *region, uint64_t page, uint64_t pages);
    /*
     * Part of the state of a section, in the thread of a channel, without the
     * BQL; NULL: none is expected.
     */
    bool (*load_device)(const char *name, uint32_t instance_id, char *data,
                        size_t len, Error **errp);
    /* A channel has failed: in its thread.  The error stays the receivers'. */
    void (*failed)(const Error *err);
} ReceiversConfig;

/*
 * How long receivers_meet() waits for another channel in place of one that has
 * ended before the first mark; other in tests
 */
extern int receivers_room_ms;

/* What becomes of pages that are not simply written to memory */
typedef struct ReceiversPlaces {
    const RamPagesOps *ops;
    void *(*opaque)(unsigned id);       /* of the ops, for channel @id */
} ReceiversPlaces;

/* Before the first channel.  @config is copied. */
void receivers_begin(const ReceiversConfig *config);

/*
 * Other channels in place of those that receivers_stop() has ended, of the same
 * configuration.  They have records alone, and pages go to @places at once.
 */
void receivers_begin_again(const ReceiversPlaces *places);

/*
 * Channel @id, of which @f has what follows its beginning; the file is the
 * receivers' if this is true.  False if there is one with that number, or if
 * none is expected, as they have been stopped.  One that has ended before there
 * was a mark of all makes room: it was of an attempt that is over.
 */
bool receivers_add(QEMUFile *f, unsigned id, Error **errp);

/* There is a channel @id that does not make room for another one. */
bool receivers_has(unsigned id);

/* All channels are there. */
bool receivers_complete(void);

/* One of the channels that come cannot be taken: they will not meet. */
void receivers_fail(const Error *err);

/* False, with the reason, if it is known that they will not. */
bool receivers_check(Error **errp);

/*
 * The main channel has come to a mark: waits until all others have.  False if
 * one of them fails, or does not come to it within a reasonable time.
 */
bool receivers_meet(Error **errp);

/*
 * The same, and up to the next mark pages go to @places, which stays where it
 * is: there may only be records, and a channel that ends has failed.
 */
bool receivers_divert(const ReceiversPlaces *places, Error **errp);

/* Whether all channels have had records, and no packets, up to the last mark */
bool receivers_have_records(void);

/* Cuts all channels: nobody waits for anything any longer. */
void receivers_shutdown(void);

/*
 * Cuts what is left, and waits for the threads: nobody touches memory any more.
 * Idempotent.
 */
void receivers_stop(void);

/* The same, and forgets the channels. */
void receivers_end(void);

#endif
