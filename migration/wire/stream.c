/*
 * QEMUFile as a gathering writer and a windowed reader over a QIOChannel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Output.  A Gather collects what is put: copied bytes go to the stage, guest
 * pages are only pointed to, and one writev sends both.  Invariants:
 *
 *   O1  In order of the stream, the queue is pieces[0..npieces), then
 *       stage[sealed..staged).  "Sealing" turns the latter into a piece.
 *   O2  queued is the number of bytes in that queue; it is zero after every
 *       flush, successful or not.
 *   O3  Between calls there is room for three more pieces: a sealed run, a
 *       reference, and the run that a flush seals.
 *   O4  No piece is empty, so a channel that makes progress ends every flush.
 *
 * Input.  A Window holds bytes that were read ahead.  Invariants:
 *
 *   I1  mem[start..end) are the next bytes of the stream, contiguous.
 *   I2  The channel is read only while the window holds less than the caller
 *       asked for, and only if no error is latched.
 *
 * Errors.  The first one is published with one atomic store and never
 * changes after that, so any thread may look at it without a lock.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"
#include "qapi/error.h"
#include "io/channel.h"
#include "migration/qemu-file.h"
#include "migration/migration-stats.h"
#include "migration/trace.h"
#include "stream.h"

QEMU_BUILD_BUG_ON(STREAM_STAGE_SIZE >= STREAM_BUDGET_MIN);
QEMU_BUILD_BUG_ON(STREAM_GATHER_PIECES < 16);
QEMU_BUILD_BUG_ON(STREAM_GATHER_PIECES > IOV_MAX);

/* The first thing that went wrong. Not modified once f->fault points to it. */
typedef struct StreamFault {
    int code;           /* negative errno */
    Error *err;         /* may be NULL */
} StreamFault;

typedef struct Gather {
    uint8_t *stage;     /* STREAM_STAGE_SIZE bytes; NULL until the first put */
    size_t staged;      /* end of the copied bytes in stage */
    size_t sealed;      /* end of those that are part of a piece */
    size_t queued;      /* bytes put and not written */
    size_t budget;      /* flush when queued gets there */
    size_t npieces;
    struct iovec pieces[STREAM_GATHER_PIECES];
    GArray *release;    /* struct iovec: memory to give back once written */
} Gather;

typedef struct Window {
    uint8_t *mem;       /* STREAM_WINDOW_SIZE bytes; NULL until the first get */
    size_t start;
    size_t end;
    GQueue fds;         /* received descriptors that nobody took yet */
} Window;

struct QEMUFile {
    QIOChannel *ioc;
    bool carries_fds;
    StreamFault *fault; /* NULL until something fails; atomic */
    uint64_t moved;     /* bytes that went through the channel in sequence */
    Gather *out;        /* exactly one of out and in is set */
    Window *in;
};

/*
 * Error latch
 */

static inline StreamFault *stream_fault(QEMUFile *f)
{
    return qatomic_load_acquire(&f->fault);
}

static void fault_free(StreamFault *fault)
{
    if (fault) {
        error_free(fault->err);
        g_free(fault);
    }
}

/* Takes over @err if it returns true, that is if this is the first error. */
static bool fault_latch(QEMUFile *f, int code, Error *err)
{
    StreamFault *fault = g_new(StreamFault, 1);

    fault->code = code;
    fault->err = err;
    if (qatomic_cmpxchg(&f->fault, NULL, fault) == NULL) {
        return true;
    }
    g_free(fault);
    return false;
}

/*
 * For failures of the channel.  If another error came first this one is most
 * likely its consequence (the channel was shut down), so it is not told.
 */
static void fault_io(QEMUFile *f, Error *err)
{
    if (!fault_latch(f, -EIO, err)) {
        error_free(err);
    }
}

static const char *stream_name(QEMUFile *f)
{
    return f->ioc->name ?: object_get_typename(OBJECT(f->ioc));
}

int qemu_file_get_error_obj(QEMUFile *f, Error **errp)
{
    StreamFault *fault = stream_fault(f);

    if (!fault) {
        return 0;
    }
    if (fault->err) {
        error_propagate(errp, error_copy(fault->err));
    } else {
        error_setg_errno(errp, -fault->code, "Channel error");
    }
    return fault->code;
}

int qemu_file_get_error_obj_any(QEMUFile *f1, QEMUFile *f2, Error **errp)
{
    int code = f1 ? qemu_file_get_error_obj(f1, errp) : 0;

    return code || !f2 ? code : qemu_file_get_error_obj(f2, errp);
}

int qemu_file_get_error(QEMUFile *f)
{
    StreamFault *fault = stream_fault(f);

    return fault ? fault->code : 0;
}

void qemu_file_set_error_obj(QEMUFile *f, int ret, Error *err)
{
    bool first = ret && fault_latch(f, ret, err);

    if (!first && err) {
        error_report_err(err);
    }
}

void qemu_file_set_error(QEMUFile *f, int ret)
{
    qemu_file_set_error_obj(f, ret, NULL);
}

bool stream_check(QEMUFile *f, Error **errp)
{
    return qemu_file_get_error_obj(f, errp) == 0;
}

/*
 * Channel access: loops until done, whoever calls and however the channel
 * chooses to deliver.
 */

static void coroutine_mixed_fn channel_park(QIOChannel *ioc, GIOCondition cond)
{
    if (qemu_in_coroutine()) {
        qio_channel_yield(ioc, cond);
    } else {
        qio_channel_wait(ioc, cond);
    }
}

/* Drops @len bytes from the front of @vec; returns how many pieces are gone. */
static size_t pieces_advance(struct iovec *vec, size_t len)
{
    size_t gone = 0;

    while (len && len >= vec[gone].iov_len) {
        len -= vec[gone++].iov_len;
    }
    if (len) {
        vec[gone].iov_base = (uint8_t *)vec[gone].iov_base + len;
        vec[gone].iov_len -= len;
    }
    return gone;
}

/*
 * Writes all of @vec, which it uses up.  Gives up as soon as an error is
 * latched, by whomever.  Returns whether everything was written.
 */
static bool coroutine_mixed_fn channel_write(QEMUFile *f, struct iovec *vec,
                                             size_t n, int *fds, size_t nfds)
{
    while (n) {
        Error *err = NULL;
        ssize_t len;

        if (stream_fault(f)) {
            return false;
        }
        len = qio_channel_writev_full(f->ioc, vec, n, fds, nfds, 0, &err);
        if (len == QIO_CHANNEL_ERR_BLOCK) {
            channel_park(f->ioc, G_IO_OUT);
            continue;
        }
        if (len == 0) {
            error_setg(&err, "%s: channel takes no more data",
                       stream_name(f));
        }
        if (len <= 0) {
            fault_io(f, err);
            return false;
        }

        size_t gone = pieces_advance(vec, len);
        vec += gone;
        n -= gone;
        fds = NULL;
        nfds = 0;
        f->moved += len;
        stat64_add(&mig_stats.qemu_file_transferred, len);
    }
    return true;
}

/* Takes over @fds. A peer that sends too many that nobody takes is cut off. */
static void keep_fds(QEMUFile *f, int *fds, size_t nfds)
{
    GQueue *kept = &f->in->fds;

    for (size_t i = 0; i < nfds; i++) {
        if (g_queue_get_length(kept) < STREAM_FDS_MAX) {
            g_queue_push_tail(kept, GINT_TO_POINTER(fds[i]));
            continue;
        }
        Error *err = NULL;

        close(fds[i]);
        error_setg(&err, "%s: peer sent more than %d file descriptors that "
                   "were not asked for", stream_name(f), STREAM_FDS_MAX);
        fault_io(f, err);
    }
    g_free(fds);
}

/*
 * Reads once: as much as there is, up to all of @vec.  Returns the number of
 * bytes, or zero if an error is latched; the end of the stream is an error.
 */
static size_t coroutine_mixed_fn channel_read(QEMUFile *f,
                                              const struct iovec *vec, size_t n)
{
    while (!stream_fault(f)) {
        Error *err = NULL;
        int *fds = NULL;
        size_t nfds = 0;
        ssize_t len = qio_channel_readv_full(f->ioc, vec, n,
                                             f->carries_fds ? &fds : NULL,
                                             f->carries_fds ? &nfds : NULL,
                                             0, &err);

        keep_fds(f, fds, nfds);
        if (len == QIO_CHANNEL_ERR_BLOCK) {
            channel_park(f->ioc, G_IO_IN);
            continue;
        }
        if (len > 0) {
            f->moved += len;
            return len;
        }
        if (len == 0) {
            error_setg(&err, "%s: stream ends after %" PRIu64 " bytes, "
                       "more were expected", stream_name(f), f->moved);
        }
        fault_io(f, err);
    }
    return 0;
}

/*
 * Output
 */

static size_t flush_budget(void)
{
    uint64_t rate = migration_rate_get();

    if (rate == RATE_LIMIT_DISABLED) {
        return STREAM_BUDGET_MAX;
    }
    rate /= STREAM_BUDGET_SHARE;
    return MIN(MAX(rate, STREAM_BUDGET_MIN), STREAM_BUDGET_MAX);
}

static Gather *gather_new(void)
{
    Gather *g = g_new(Gather, 1);

    g->stage = NULL;
    g->staged = g->sealed = g->queued = g->npieces = 0;
    g->budget = flush_budget();
    g->release = NULL;
    return g;
}

static void gather_free(Gather *g)
{
    if (g->release) {
        g_array_free(g->release, true);
    }
    qemu_vfree(g->stage);
    g_free(g);
}

static inline void gather_add(Gather *g, const void *base, size_t len)
{
    g->pieces[g->npieces++] = (struct iovec) {
        .iov_base = (void *)base,
        .iov_len = len,
    };
}

static inline void gather_seal(Gather *g)
{
    if (g->staged > g->sealed) {
        gather_add(g, g->stage + g->sealed, g->staged - g->sealed);
        g->sealed = g->staged;
    }
}

/* If the last piece ends where @base begins, makes it @len longer. */
static inline bool gather_extend(Gather *g, const void *base, size_t len)
{
    struct iovec *last = &g->pieces[g->npieces - 1];

    if (!g->npieces || (uint8_t *)last->iov_base + last->iov_len != base) {
        return false;
    }
    last->iov_len += len;
    return true;
}

/* Only whole host pages can be given back, so neighbours are joined first. */
static void release_later(Gather *g, const void *base, size_t len)
{
    struct iovec range = { .iov_base = (void *)base, .iov_len = len };

    if (!g->release) {
        g->release = g_array_new(false, false, sizeof(struct iovec));
    }
    if (g->release->len) {
        struct iovec *last = &g_array_index(g->release, struct iovec,
                                            g->release->len - 1);

        if ((uint8_t *)last->iov_base + last->iov_len == base) {
            last->iov_len += len;
            return;
        }
    }
    g_array_append_val(g->release, range);
}

static void release_now(Gather *g)
{
    uintptr_t page = qemu_real_host_page_size();

    for (guint i = 0; g->release && i < g->release->len; i++) {
        struct iovec *range = &g_array_index(g->release, struct iovec, i);
        uintptr_t from = ROUND_UP((uintptr_t)range->iov_base, page);
        uintptr_t to = ROUND_DOWN((uintptr_t)range->iov_base + range->iov_len,
                                  page);

        if (from < to && qemu_madvise((void *)from, to - from,
                                      QEMU_MADV_DONTNEED) < 0) {
            warn_report_once("migration: memory that was sent cannot be given "
                             "back, e.g. %zu bytes at 0x%" PRIxPTR ": %s",
                             (size_t)(to - from), from, strerror(errno));
        }
    }
}

/* Writes the queue, or drops it if an error is latched meanwhile. */
static void coroutine_mixed_fn gather_send(QEMUFile *f)
{
    Gather *g = f->out;

    gather_seal(g);
    if (channel_write(f, g->pieces, g->npieces, NULL, 0)) {
        release_now(g);
    }
    g->staged = g->sealed = g->queued = g->npieces = 0;
    g->budget = flush_budget();
    if (g->release) {
        g_array_set_size(g->release, 0);
    }
}

/* O3: a reference may follow only if this holds. */
static inline bool gather_full(Gather *g)
{
    return g->queued >= g->budget || g->npieces + 3 > STREAM_GATHER_PIECES;
}

static void coroutine_mixed_fn gather_refer(QEMUFile *f, const void *base,
                                            size_t len)
{
    Gather *g = f->out;

    gather_seal(g);
    if (!gather_extend(g, base, len)) {
        gather_add(g, base, len);
    }
    g->queued += len;
}

/* Room for @len (up to STREAM_STAGE_SIZE) more bytes in the stage. */
static bool coroutine_mixed_fn stage_make_room(QEMUFile *f, size_t len)
{
    Gather *g = f->out;

    if (!g->stage) {
        g->stage = qemu_memalign(qemu_real_host_page_size(),
                                 STREAM_STAGE_SIZE);
    }
    if (g->staged + len > STREAM_STAGE_SIZE) {
        gather_send(f);
    }
    return !stream_fault(f);
}

/* Where to store the next @len bytes, or NULL if an error is latched. */
static inline uint8_t *coroutine_mixed_fn stage_take(QEMUFile *f, size_t len)
{
    Gather *g = f->out;
    uint8_t *p;

    assert(g);
    if (unlikely(stream_fault(f))) {
        return NULL;
    }
    if (unlikely(!g->stage || g->staged + len > STREAM_STAGE_SIZE) &&
        !stage_make_room(f, len)) {
        return NULL;
    }
    p = g->stage + g->staged;
    g->staged += len;
    g->queued += len;
    return p;
}

int coroutine_mixed_fn qemu_fflush(QEMUFile *f)
{
    if (f->out && f->out->queued && !stream_fault(f)) {
        gather_send(f);
    }
    return qemu_file_get_error(f);
}

void coroutine_mixed_fn qemu_put_buffer_async(QEMUFile *f, const uint8_t *buf,
                                              size_t size, bool may_free)
{
    Gather *g = f->out;

    assert(g);
    if (!size || stream_fault(f)) {
        return;
    }
    gather_refer(f, buf, size);
    if (may_free) {
        release_later(g, buf, size);
    }
    if (gather_full(g)) {
        gather_send(f);
    }
}

void coroutine_mixed_fn qemu_put_buffer(QEMUFile *f, const uint8_t *buf,
                                        size_t size)
{
    if (size >= STREAM_DIRECT_PUT) {
        assert(f->out);
        if (!stream_fault(f)) {
            gather_refer(f, buf, size);
            gather_send(f);
        }
        return;
    }
    while (size) {
        Gather *g = f->out;
        size_t room = g && g->stage ? STREAM_STAGE_SIZE - g->staged : 0;
        size_t len = room ? MIN(room, size) : size;
        uint8_t *p = stage_take(f, len);

        if (!p) {
            return;
        }
        memcpy(p, buf, len);
        buf += len;
        size -= len;
    }
}

void coroutine_mixed_fn qemu_put_byte(QEMUFile *f, int v)
{
    uint8_t *p = stage_take(f, 1);

    if (p) {
        *p = v;
    }
}

void coroutine_mixed_fn qemu_put_be16(QEMUFile *f, unsigned int v)
{
    uint8_t *p = stage_take(f, 2);

    if (p) {
        stw_be_p(p, v);
    }
}

void coroutine_mixed_fn qemu_put_be32(QEMUFile *f, unsigned int v)
{
    uint8_t *p = stage_take(f, 4);

    if (p) {
        stl_be_p(p, v);
    }
}

void coroutine_mixed_fn qemu_put_be64(QEMUFile *f, uint64_t v)
{
    uint8_t *p = stage_take(f, 8);

    if (p) {
        stq_be_p(p, v);
    }
}

void coroutine_mixed_fn qemu_put_counted_string(QEMUFile *f, const char *str)
{
    size_t len = strlen(str);

    assert(len <= UINT8_MAX);
    qemu_put_byte(f, len);
    qemu_put_buffer(f, (const uint8_t *)str, len);
}

uint64_t qemu_file_transferred(QEMUFile *f)
{
    assert(f->out);
    return stat64_get(&mig_stats.qemu_file_transferred) + f->out->queued;
}

/*
 * Input
 */

static inline size_t window_held(Window *w)
{
    return w->end - w->start;
}

static void window_open(Window *w)
{
    if (!w->mem) {
        w->mem = qemu_memalign(qemu_real_host_page_size(),
                               STREAM_WINDOW_SIZE);
    }
}

/*
 * Reads until the window holds at least @len bytes.  Returns false if the
 * stream has no more than it holds then.
 */
static bool coroutine_mixed_fn window_fill(QEMUFile *f, size_t len)
{
    Window *w = f->in;

    assert(len <= STREAM_WINDOW_SIZE);
    window_open(w);
    if (w->start) {
        /* Less is moved than the caller wants to have, so this is cheap. */
        memmove(w->mem, w->mem + w->start, window_held(w));
        w->end = window_held(w);
        w->start = 0;
    }
    while (window_held(w) < len) {
        struct iovec vec = {
            .iov_base = w->mem + w->end,
            .iov_len = STREAM_WINDOW_SIZE - w->end,
        };
        size_t got = channel_read(f, &vec, 1);

        if (!got) {
            return false;
        }
        w->end += got;
    }
    return true;
}

/*
 * The next @len bytes, consumed.  If the stream ends within them the rest is
 * consumed too and NULL returned: half a number is no number.
 */
static inline const uint8_t *coroutine_mixed_fn window_take(QEMUFile *f,
                                                            size_t len)
{
    Window *w = f->in;
    const uint8_t *p;

    assert(w);
    if (unlikely(window_held(w) < len) && !window_fill(f, len)) {
        w->start = w->end;
        return NULL;
    }
    p = w->mem + w->start;
    w->start += len;
    return p;
}

int coroutine_mixed_fn qemu_get_byte(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 1);

    return p ? *p : 0;
}

unsigned int coroutine_mixed_fn qemu_get_be16(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 2);

    return p ? lduw_be_p(p) : 0;
}

unsigned int coroutine_mixed_fn qemu_get_be32(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 4);

    return p ? (uint32_t)ldl_be_p(p) : 0;
}

uint64_t coroutine_mixed_fn qemu_get_be64(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 8);

    return p ? ldq_be_p(p) : 0;
}

/* Moves up to @size held bytes to @buf. */
static size_t window_copy(Window *w, uint8_t *buf, size_t size)
{
    size_t len = MIN(size, window_held(w));

    if (len) {
        memcpy(buf, w->mem + w->start, len);
        w->start += len;
    }
    return len;
}

/*
 * The window is empty: reads @size bytes straight to @buf, and with the same
 * system call refills the window with whatever comes after them.
 */
static size_t coroutine_mixed_fn window_bypass(QEMUFile *f, uint8_t *buf,
                                               size_t size)
{
    Window *w = f->in;
    size_t done = 0;

    window_open(w);
    w->start = w->end = 0;
    while (done < size) {
        struct iovec vec[2] = {
            { .iov_base = buf + done, .iov_len = size - done },
            { .iov_base = w->mem, .iov_len = STREAM_WINDOW_SIZE },
        };
        size_t got = channel_read(f, vec, 2);
        size_t mine = MIN(got, size - done);

        if (!got) {
            break;
        }
        done += mine;
        w->end = got - mine;
    }
    return done;
}

size_t coroutine_mixed_fn qemu_get_buffer(QEMUFile *f, uint8_t *buf,
                                          size_t size)
{
    size_t done;

    assert(f->in);
    done = window_copy(f->in, buf, size);
    if (done < size) {
        done += window_bypass(f, buf + done, size - done);
    }
    return done;
}

size_t coroutine_mixed_fn qemu_peek_buffer(QEMUFile *f, uint8_t **buf,
                                           size_t size, size_t offset)
{
    Window *w = f->in;

    assert(w);
    assert(offset < STREAM_WINDOW_SIZE);
    assert(size <= STREAM_WINDOW_SIZE - offset);
    if (window_held(w) < offset + size) {
        window_fill(f, offset + size);
    }
    if (window_held(w) <= offset) {
        return 0;
    }
    *buf = w->mem + w->start + offset;
    return MIN(size, window_held(w) - offset);
}

int coroutine_mixed_fn qemu_peek_byte(QEMUFile *f, int offset)
{
    uint8_t *p;

    assert(offset >= 0);
    return qemu_peek_buffer(f, &p, 1, offset) ? *p : 0;
}

void qemu_file_skip(QEMUFile *f, int size)
{
    assert(f->in);
    if (size > 0 && size <= window_held(f->in)) {
        f->in->start += size;
    }
}

size_t coroutine_mixed_fn qemu_get_buffer_in_place(QEMUFile *f, uint8_t **buf,
                                                   size_t size)
{
    uint8_t *p;

    if (size <= STREAM_WINDOW_SIZE &&
        qemu_peek_buffer(f, &p, size, 0) == size && size) {
        f->in->start += size;
        *buf = p;
        return size;
    }
    return qemu_get_buffer(f, *buf, size);
}

size_t coroutine_mixed_fn qemu_get_counted_string(QEMUFile *f, char buf[256])
{
    size_t len = qemu_get_byte(f);
    size_t got = qemu_get_buffer(f, (uint8_t *)buf, len);

    buf[got] = '\0';
    return got < len ? 0 : len;
}

int coroutine_mixed_fn qemu_file_get_to_fd(QEMUFile *f, int fd, size_t size)
{
    Window *w = f->in;

    assert(w);
    while (size) {
        ssize_t len;

        if (!window_held(w) && !window_fill(f, 1)) {
            return qemu_file_get_error(f);
        }
        len = RETRY_ON_EINTR(write(fd, w->mem + w->start,
                                   MIN(size, window_held(w))));
        if (len <= 0) {
            return len < 0 ? -errno : -EIO;
        }
        w->start += len;
        size -= len;
    }
    return 0;
}

/*
 * Position
 */

uint64_t stream_position(QEMUFile *f)
{
    return f->out ? f->moved + f->out->queued : f->moved - window_held(f->in);
}

bool qemu_file_is_seekable(QEMUFile *f)
{
    return qio_channel_has_feature(f->ioc, QIO_CHANNEL_FEATURE_SEEKABLE);
}

static off_t channel_seek(QEMUFile *f, off_t off, int whence)
{
    Error *err = NULL;
    off_t pos = qio_channel_io_seek(f->ioc, off, whence, &err);

    if (pos == (off_t)-1) {
        fault_io(f, err);
    }
    return pos;
}

void coroutine_mixed_fn qemu_set_offset(QEMUFile *f, off_t off, int whence)
{
    if (f->in) {
        /* The channel is ahead of the consumer by what the window holds. */
        if (whence == SEEK_CUR) {
            off -= window_held(f->in);
        }
        f->in->start = f->in->end = 0;
    } else if (qemu_fflush(f)) {
        return;
    }
    channel_seek(f, off, whence);
}

off_t coroutine_mixed_fn qemu_get_offset(QEMUFile *f)
{
    off_t pos;

    if (f->out && qemu_fflush(f)) {
        return -1;
    }
    pos = channel_seek(f, 0, SEEK_CUR);
    if (pos != (off_t)-1 && f->in) {
        pos -= window_held(f->in);
    }
    return pos;
}

/*
 * Common part of the positioned functions: @io is called until @len bytes at
 * @buf are done.  Returns false, with an error latched, if they cannot be.
 */
typedef ssize_t PositionedIO(QIOChannel *ioc, char *buf, size_t len,
                             off_t pos, Error **errp);

static bool coroutine_mixed_fn channel_io_at(QEMUFile *f, PositionedIO *io,
                                             GIOCondition cond, uint8_t *buf,
                                             size_t len, off_t pos)
{
    while (len) {
        Error *err = NULL;
        ssize_t done;

        if (stream_fault(f)) {
            return false;
        }
        done = io(f->ioc, (char *)buf, len, pos, &err);
        if (done == QIO_CHANNEL_ERR_BLOCK) {
            channel_park(f->ioc, cond);
            continue;
        }
        if (done == 0) {
            error_setg(&err, "%s: %s %" PRId64 " with %zu bytes to go",
                       stream_name(f), cond == G_IO_IN ? "file ends at" :
                       "cannot write at", (int64_t)pos, len);
        }
        if (done <= 0) {
            fault_io(f, err);
            return false;
        }
        buf += done;
        len -= done;
        pos += done;
    }
    return true;
}

void coroutine_mixed_fn qemu_put_buffer_at(QEMUFile *f, const uint8_t *buf,
                                           size_t buflen, off_t pos)
{
    if (qemu_fflush(f) == 0 &&
        channel_io_at(f, qio_channel_pwrite, G_IO_OUT, (uint8_t *)buf, buflen,
                      pos)) {
        stat64_add(&mig_stats.qemu_file_transferred, buflen);
    }
}

size_t coroutine_mixed_fn qemu_get_buffer_at(QEMUFile *f, const uint8_t *buf,
                                             size_t buflen, off_t pos)
{
    return channel_io_at(f, qio_channel_pread, G_IO_IN, (uint8_t *)buf, buflen,
                         pos) ? buflen : 0;
}

/*
 * File descriptors
 *
 * A descriptor rides on a byte, since a message without data would look like
 * the end of the stream.  The kernel never delivers two such messages in one
 * read, nor a descriptor before its byte, so the queue is in stream order.
 */

/* Callers of the two functions below do not print errors, so this does. */
static void fd_fault(QEMUFile *f)
{
    Error *err = NULL;

    if (!f->carries_fds) {
        error_setg(&err, "%s: this channel cannot pass file descriptors, "
                   "use a UNIX socket", stream_name(f));
        fault_io(f, g_steal_pointer(&err));
    }
    if (!stream_check(f, &err)) {
        error_report_err(err);
    }
}

int coroutine_mixed_fn qemu_file_put_fd(QEMUFile *f, int fd)
{
    uint8_t carrier = ' ';
    struct iovec vec = { .iov_base = &carrier, .iov_len = 1 };
    int ret = 0;

    assert(f->out);
    if (!f->carries_fds || qemu_fflush(f) < 0 ||
        !channel_write(f, &vec, 1, &fd, 1)) {
        fd_fault(f);
        ret = -1;
    }
    trace_qemu_file_put_fd(stream_name(f), fd, ret);
    return ret;
}

int coroutine_mixed_fn qemu_file_get_fd(QEMUFile *f)
{
    Window *w = f->in;
    int fd = -1;

    assert(w);
    if (!f->carries_fds || (!window_held(w) && !window_fill(f, 1))) {
        fd_fault(f);
    } else if (!g_queue_is_empty(&w->fds)) {
        fd = GPOINTER_TO_INT(g_queue_pop_head(&w->fds));
        w->start++;
    }
    trace_qemu_file_get_fd(stream_name(f), fd);
    return fd;
}

/*
 * Life cycle
 */

static QEMUFile *stream_new(QIOChannel *ioc, bool output)
{
    QEMUFile *f = g_new0(QEMUFile, 1);

    f->ioc = QIO_CHANNEL(object_ref(OBJECT(ioc)));
    f->carries_fds = qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS);
    if (output) {
        f->out = gather_new();
    } else {
        f->in = g_new0(Window, 1);
        g_queue_init(&f->in->fds);
    }
    return f;
}

QEMUFile *qemu_file_new_output(QIOChannel *ioc)
{
    return stream_new(ioc, true);
}

QEMUFile *qemu_file_new_input(QIOChannel *ioc)
{
    return stream_new(ioc, false);
}

QEMUFile *qemu_file_get_return_path(QEMUFile *f)
{
    return stream_new(f->ioc, f->in != NULL);
}

static void window_free(Window *w)
{
    while (!g_queue_is_empty(&w->fds)) {
        int fd = GPOINTER_TO_INT(g_queue_pop_head(&w->fds));

        warn_report("migration: closing file descriptor %d, which was "
                    "received but not asked for", fd);
        close(fd);
    }
    qemu_vfree(w->mem);
    g_free(w);
}

int qemu_fclose(QEMUFile *f)
{
    int ret = qemu_fflush(f);
    int closed = qio_channel_close(f->ioc, NULL);

    object_unref(OBJECT(f->ioc));
    g_clear_pointer(&f->out, gather_free);
    g_clear_pointer(&f->in, window_free);
    fault_free(f->fault);
    g_free(f);
    trace_qemu_file_fclose();
    return ret ?: closed;
}

/*
 * The order matters.  If the channel went first, a reader in another thread
 * could get nothing, find no error latched, and take its zero-filled buffer
 * for a page of the guest.
 */
int qemu_file_shutdown(QEMUFile *f)
{
    Error *err = NULL;

    qemu_file_set_error(f, -EIO);
    if (!qio_channel_has_feature(f->ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return -ENOSYS;
    }
    if (qio_channel_shutdown(f->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, &err) < 0) {
        error_report_err(err);
        return -EIO;
    }
    return 0;
}

QIOChannel *qemu_file_get_ioc(QEMUFile *f)
{
    return f->ioc;
}

void qemu_file_set_blocking(QEMUFile *f, bool block)
{
    qio_channel_set_blocking(f->ioc, block, NULL);
}
