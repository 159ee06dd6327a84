/*
 * What the parts of the migration stream share with each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_WIRE_STREAM_PRIVATE_H
#define MIGRATION_WIRE_STREAM_PRIVATE_H

#include "qemu/atomic.h"
#include "qemu/stats64.h"
#include "io/channel-socket.h"
#include "stream.h"

/* The first thing that went wrong. Not modified once f->fault points to it. */
typedef struct StreamFault {
    int code;           /* negative errno */
    Error *err;         /* may be NULL */
} StreamFault;

/*
 * What was put and not written yet.  Copied bytes are in the stage, guest
 * pages are only pointed to, and one writev sends both.  Invariants:
 *
 *   O1  In order of the stream, the queue is pieces[0..npieces), then
 *       stage[sealed..staged).  "Sealing" turns the latter into a piece.
 *   O2  queued is the number of bytes in that queue; it is zero after every
 *       flush, successful or not.  What is kept (stream_keep()) comes before
 *       it, and is not counted in it.
 *   O3  Between calls there is room for three more pieces: a sealed run, a
 *       reference, and the run that a flush seals.
 *   O4  No piece is empty, so a channel that makes progress ends every flush.
 */
typedef struct Gather {
    uint8_t *stage;     /* STREAM_STAGE_SIZE bytes; NULL until the first put */
    size_t staged;      /* end of the copied bytes in stage */
    size_t sealed;      /* end of those that are part of a piece */
    size_t queued;      /* bytes put and not written */
    size_t budget;      /* flush when queued gets there */
    size_t npieces;
    struct iovec pieces[STREAM_GATHER_PIECES];
    GArray *release;    /* struct iovec: memory to give back once written */
    bool keep;          /* nothing is to be written */
    bool placed;        /* positions are used: nothing is kept any more */
    GByteArray *kept;   /* copies of what would have been; NULL: nothing */
} Gather;

/*
 * What was read and not got yet.  Invariants:
 *
 *   I1  mem[start..end) are the next bytes of the stream, contiguous.
 *   I2  The channel is read only while the window holds less than the caller
 *       requested, and only if no error is latched.
 */
typedef struct Window {
    uint8_t *mem;       /* STREAM_WINDOW_SIZE bytes; NULL until the first get */
    size_t ahead;       /* so many of these are filled without need */
    size_t start;
    size_t end;
    GQueue fds;         /* received descriptors that nobody took yet */
} Window;

typedef struct InPlace InPlace;

struct QEMUFile {
    QIOChannel *ioc;
    QIOChannelSocket *socket;   /* the same, if it is one; else NULL */
    int pipe;           /* to poll, of a file or a command; else -1 */
    bool carries_fds;
    int wake_at;        /* bytes that wake a reader of a socket; 0: not set */
    StreamFault *fault; /* NULL until something fails; atomic */
    uint64_t moved;     /* bytes that went through the channel in sequence */
    Stat64 *counter;    /* output: where they are counted for the limit */
    int64_t arrived_ns; /* input: when the last of them came */
    int64_t until_ms;   /* input: longer is not waited for it; 0: for ever */
    InPlace *in_place;  /* output that was to be sent so; or NULL */
    /* Takes what would end a poll; or NULL */
    void (*before_park)(QEMUFile *f);
    /* As stream_channel_write(), in place; NULL: everything is copied */
    bool (*write_in_place)(QEMUFile *f, struct iovec *vec, size_t n);
    Gather *out;        /* exactly one of out and in is set */
    Window *in;
};

/* stream.c: errors and access to the channel */

static inline StreamFault *stream_fault(QEMUFile *f)
{
    return qatomic_load_acquire(&f->fault);
}

/* The channel's name, for messages. */
const char *stream_name(QEMUFile *f);

/*
 * Latches -EIO for a failure of the channel; takes over @err.  If another
 * error came first this one is most likely its consequence (the channel was
 * shut down), so it is not told.
 */
void stream_fault_io(QEMUFile *f, Error *err);

/*
 * Writes all of @vec, which it uses up, with @fds riding on the first byte.
 * Gives up as soon as an error is latched, by whomever.  Returns whether
 * everything was written.
 */
bool coroutine_mixed_fn stream_channel_write(QEMUFile *f, struct iovec *vec,
                                             size_t n, int *fds, size_t nfds);

/* @len bytes of @vec were written; returns how many pieces are gone. */
size_t stream_written_more(QEMUFile *f, struct iovec *vec, size_t len);

/* Returns when it may be worth to try again, or after STREAM_PARK_MS. */
void coroutine_mixed_fn stream_channel_park(QEMUFile *f, GIOCondition cond);

/*
 * Reads once: as much as there is, up to all of @vec, where the caller cannot
 * do with less than @need bytes in the end.  Returns the number of bytes, or
 * zero if an error is latched; the end of the stream is an error.
 */
size_t coroutine_mixed_fn stream_channel_read(QEMUFile *f,
                                              const struct iovec *vec,
                                              size_t n, size_t need);

/* stream-in-place.c */

/* Whether memory that is referred to is sent in place */
static inline bool stream_in_place(const QEMUFile *f)
{
    return f->write_in_place;
}

/* For tests: goes on although the kernel copies. */
void stream_in_place_stays(QEMUFile *f);

/* stream-put.c */

/* Bytes that were put and not written yet */
static inline size_t gather_held(const Gather *g)
{
    return g->queued + (g->kept ? g->kept->len : 0);
}

Gather *stream_gather_new(void);
void stream_gather_free(Gather *g);

/* stream-get.c */

Window *stream_window_new(void);
void stream_window_free(Window *w);

/*
 * Reads until the window holds at least @len bytes, which it does not yet.
 * Returns false if the stream has no more than it holds then.
 */
bool coroutine_mixed_fn stream_window_fill(QEMUFile *f, size_t len);

static inline size_t window_held(Window *w)
{
    return w->end - w->start;
}

#endif
