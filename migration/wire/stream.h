/*
 * Migration stream: sizes, and what our own modules use beside QEMUFile's API
 *
 * The functions that devices and the rest of QEMU call are declared, with
 * their contract, in migration/qemu-file.h.  The design is described in
 * docs/devel/migration/stream.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_WIRE_STREAM_H
#define MIGRATION_WIRE_STREAM_H

#include "qemu/stats64.h"
#include "qemu/units.h"
#include "migration/qemu-file.h"

/*
 * Input: bytes read ahead of the consumer at most.  It is also the longest
 * span that can be peeked at or got in place.
 *
 * Reading ahead takes bytes away from anyone else who reads the same channel
 * later.  There is no such reader in QEMU: multifd and preempt channels are
 * sorted out before a QEMUFile exists, by a read that leaves the bytes in the
 * socket; mapped RAM is read by position; and everything else stays with the
 * QEMUFile that started.  So the size is a matter of speed: it has to stay in
 * a second level cache, because every byte is copied out of it again.
 */
#define STREAM_WINDOW_SIZE      (128 * KiB)

/* Output: room for bytes that are copied because their owner moves on. */
#define STREAM_STAGE_SIZE       (64 * KiB)

/* Output: a put of at least this much is sent straight from the caller. */
#define STREAM_DIRECT_PUT       STREAM_STAGE_SIZE

/* Output: pieces gathered for one write at most. */
#define STREAM_GATHER_PIECES    MIN_CONST(IOV_MAX, 1024)

/* Output in place: less than this is faster copied. */
#define STREAM_IN_PLACE_MIN     (16 * KiB)

/*
 * Output: bytes gathered before a put blocks to write them.  Few and large
 * writes are what a socket is fastest with.  But the rate limit sees bytes
 * only once they are written, so a write must be a small part of what may be
 * sent per second: one 640th, inside these bounds.
 */
#define STREAM_BUDGET_MIN       (128 * KiB)
#define STREAM_BUDGET_MAX       (1 * MiB)

/*
 * A reader that waits for at least MIN bytes of a socket is woken when they
 * are there, or MAX of them.
 */
#define STREAM_WAKE_MIN         (16 * KiB)
#define STREAM_WAKE_MAX         (1024 * KiB)
#define STREAM_BUDGET_SHARE     640

/*
 * Input: descriptors that were received and not claimed yet.  A channel hands
 * over those of one message per read, so an honest peer needs one or two.
 */
#define STREAM_FDS_MAX          64

/* Output: bytes that stream_keep() holds at most; more than that is written. */
#define STREAM_KEEP_MAX         (1 * GiB)

/*
 * Milliseconds until a thread that waits for its channel looks whether another
 * thread has latched an error.
 */
#define STREAM_PARK_MS          50

/**
 * stream_position: bytes that passed between this stream and its user
 * @f: either direction; only from the thread that uses @f
 *
 * Input: bytes consumed, those read ahead not included.  Output: bytes put,
 * those not written yet included.  Positioned reads and writes and seeks do
 * not count: on a channel that can seek this is not the file offset.
 */
uint64_t stream_position(QEMUFile *f);

/*
 * Of an output: bytes that the channel has taken.  What comes after them has
 * not left this process.
 */
uint64_t stream_written(QEMUFile *f);

/*
 * Of those, about how many wait in the buffer of a socket for the network to
 * take them; what is on its way is not counted.  0 where that is not known.
 * With TLS, too.  Any thread.
 */
uint64_t stream_unsent(QEMUFile *f);

/*
 * At most @bytes of @f, an input, are read from now on before somebody gets
 * them, up to STREAM_WINDOW_SIZE.  Fewer are better where large pieces follow
 * small ones: they are read to their places without a copy.
 */
void stream_read_ahead(QEMUFile *f, size_t bytes);

/*
 * Who waits for @f, an input, in a thread does so up to @ms of now_ms() at
 * most; then the stream has an error.  0: as long as it takes.
 */
void stream_read_until(QEMUFile *f, int64_t ms);

/*
 * Latches @err, which is taken over, in @f, an input, and wakes whoever reads
 * it, a coroutine as well.  What is written on the same connection still
 * arrives.  Any thread.
 */
void stream_stop_reading(QEMUFile *f, Error *err);

/*
 * What @f, an output, writes from now on counts in @counter, one of those that
 * base/stats.h adds up; at first it is that of the main channel.
 */
void stream_count_in(QEMUFile *f, Stat64 *counter);

/**
 * stream_send_in_place: send memory that is referred to without a copy
 * @f: output over TCP, before anything is put
 *
 * What qemu_put_buffer_async() refers to is read by the kernel until some time
 * after a flush, from pages that it keeps: they may be unmapped or discarded.
 * They may also be written to, and what arrives then is any mixture.  So this
 * is for pages that are sent again after they were written to; a page in
 * transit that the guest writes to is dirty by that, and is sent once more
 * behind it.
 *
 * Returns: false if the socket cannot do that.
 */
bool stream_send_in_place(QEMUFile *f, Error **errp);

/**
 * stream_await_in_place: wait until the kernel reads nothing any more
 * @f: output; only from the thread that uses @f; any other stream is ready
 *
 * Ends early when an error is latched, by whomever.  If all was copied since
 * the last call this counts as dirty_sync_missed_zero_copy, and from the first
 * such time on everything is copied here, which costs less.
 */
void stream_await_in_place(QEMUFile *f);

/**
 * stream_arrived_ns: when the last bytes were read from the channel
 * @f: input; only from the thread that uses @f
 *
 * Returns: the time on QEMU_CLOCK_REALTIME, 0 if nothing was read yet.
 */
int64_t stream_arrived_ns(QEMUFile *f);

/**
 * stream_keep: write nothing from now on, or do so again
 * @f: output; only from the thread that uses @f
 * @keep: put what comes in memory, all of it, whatever flushes
 *
 * For those who must not wait for the peer, as with the BQL.  What is put
 * counts in stream_position(), as if it was only queued.  After the call with
 * false nothing is referred to any more, and the next flush or a later put
 * writes what was kept, in order; an error drops it.  A file descriptor is
 * written at once, with all that was kept before it.
 *
 * Parts of a file whose place is chosen cannot be kept: once a position was
 * asked for or set, or something was put at one, nothing is kept any more.
 */
void stream_keep(QEMUFile *f, bool keep);

/* Whether it keeps what is put, as stream_keep() told it to. */
bool stream_is_kept(QEMUFile *f);

/**
 * stream_check: has anything gone wrong on this stream so far?
 * @f: either direction, any thread
 * @errp: receives a copy of the first error
 *
 * Returns: true if nothing has.  After false, what was got since the last
 * check that returned true is not to be used.
 */
bool stream_check(QEMUFile *f, Error **errp);

/**
 * stream_close: close a stream whose channel `yank` knows, in this order
 * @f: either direction, or NULL; the last use of it, in any thread
 *
 * What is still to be written is written first, and `yank` may end that.  But
 * it shuts file descriptors down by number: it must not know one that is
 * closed, because the next file that is opened may have the same.
 */
void stream_close(QEMUFile *f);

/**
 * stream_finish: the same, and whether all of it was written
 * @f: output; the last use of it, in any thread
 * @errp: the first error, or why the channel could not be closed
 *
 * Some file systems report only then that what was written before has no room.
 * Others begin to write it to the disk, so this may take as long as that does.
 *
 * Returns: false if anything has gone wrong; the stream is closed anyway.
 */
bool stream_finish(QEMUFile *f, Error **errp);

#endif
