/*
 * Threads that send memory, each on a channel of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In a turn each of them claims runs of pages from the dirty maps, looks at
 * them, and sends them: there is nobody who hands out pages.  The migration
 * thread begins a turn, paces it, and waits until all rest again.
 *
 * Threads.  senders_start(), _end(): main loop, BQL, while there is no turn;
 * senders_shutdown(), _look(): any thread.  The others: the migration thread.
 *
 * What they share is written by the migration thread while they rest, but for
 * the `stop` of their pace, which it sets in the middle of a turn.  What they
 * are to do begins with a post of each one's semaphore and ends with a post of
 * `rests` by each, which order everything else.
 */

#ifndef MIGRATION_MULTIFD_SENDERS_H
#define MIGRATION_MULTIFD_SENDERS_H

#include "qemu/thread.h"
#include "migration/ram/mapped.h"
#include "migration/ram/send.h"
#include "migration/ram/stream-sink.h"
#include "packet-sink.h"

typedef struct Senders Senders;

/* How the channels are used, as parameters say */
typedef struct SendersConfig {
    unsigned page_bits;         /* of the target */
    MultiFDCompression method;
    int level;
    bool tells_zeros;           /* of pages in packets */
    bool find_zeros;
} SendersConfig;

/* What there is to say of a channel and its thread */
typedef struct SenderView {
    int thread_id;              /* the kernel's; 0: it has not begun */
    uint64_t bytes;             /* written to the channel */
    uint64_t memory;            /* bytes of guest memory in these, no zeros */
    uint64_t busy_ns;           /* claiming, encoding and writing */
    MultiFDCompression method;  /* of what it sent last */
    int level;                  /* of that method */
    unsigned ratio;             /* percent, within about a second; 0: unknown */
} SenderView;

/*
 * One thread for each of the @count channels of @files, which become theirs, if
 * this is true.
 */
Senders *senders_start(QEMUFile **files, unsigned count,
                       const SendersConfig *config, Error **errp);

/*
 * The peer understands @features, WIRE_PEER_*: if it knows of records on
 * channels, they have these from now on, unless they are compressed.  Waits for
 * the threads; without the BQL, before the first turn.
 */
void senders_set_peer(Senders *s, uint32_t features);

/*
 * What is sent from now on is compressed with @method at @level, in packets.
 * False if that is not available; then nothing changes.  Only for peers that
 * have WIRE_PEER_ANY_METHOD.  Waits for the threads; without the BQL.
 */
bool senders_set_method(Senders *s, MultiFDCompression method, int level,
                        Error **errp);

/*
 * A turn: pages of the regions of @main, which itself tells of those that
 * nobody ever wrote to.  A RamRunFn.  What goes wrong on a channel is latched
 * in the sink of @main, too.
 */
RamSendResult senders_run(void *senders, RamSender *main, bool all);

/*
 * Turns of another kind: what each thread does is the caller's.  @ram belongs
 * to the thread of channel @i; it returns when ram_pace_over() is, or earlier.
 * No RCU is held.
 */
typedef void SenderTurn(void *opaque, unsigned i, RamSender *ram);

/* Begins one; all have to rest. */
void senders_begin_turn(Senders *s, SenderTurn *turn, void *opaque);

/* Waits for a short time, or for senders_nudge(): true if all rest. */
bool senders_wait_turn(Senders *s);

/* They are to end it, as soon as they can. */
void senders_stop_turn(Senders *s);

/* Once all rest.  As senders_settle(). */
int senders_end_turn(Senders *s, RamSender *main);

/* Whoever waits in senders_wait_turn() has something else to do.  Any thread */
void senders_nudge(Senders *s);

/* All channels have records: see senders_set_peer().  While they rest. */
bool senders_have_records(const Senders *s);
unsigned senders_count(const Senders *s);

/*
 * A mark on each channel, that all was sent which was given so far.  The
 * threads make it: nobody is waited for.
 */
void senders_mark(void *senders);

/*
 * Waits for the threads to have made the marks; without the BQL.  Then tells
 * the sink of @main of what has gone wrong so far: 0 or its error.
 */
int senders_settle(Senders *s, RamSender *main);

/* The network of one of the channels has failed.  Any thread. */
bool senders_broken(const Senders *s);

/* See stream_unsent(); of all channels, while they rest. */
uint64_t senders_unsent(const Senders *s);

/*
 * Channel @i, as it was at the end of its last turn.  False if there are fewer.
 * Any thread.
 */
bool senders_look(Senders *s, unsigned i, SenderView *view);

/*
 * A copy of @len bytes of the state of section @name, on any of the channels.
 * Waits while many are on their way.  False if a channel has failed, or the
 * senders were shut down.  Threads that save devices, while the senders are
 * there.
 */
bool senders_queue_device(Senders *s, const char *name, uint32_t instance_id,
                          const void *data, size_t len);

/*
 * Waits until all of that has been written.  False if the senders were shut
 * down.  Migration thread, without the BQL.
 */
bool senders_settle_devices(Senders *s);

/* Device state that is not written yet is dropped, and no more is taken. */
void senders_drop_devices(Senders *s);

/* Cuts all channels, so that nobody waits for them. */
void senders_shutdown(Senders *s);

/* Ends the threads, and closes the channels; @ok: all has arrived. */
void senders_end(Senders *s, bool ok);

#endif
