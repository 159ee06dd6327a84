/*
 * QEMUFile over a QIOChannel: errors, channel access, position, life cycle
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * stream-put.c and stream-get.c hold the two directions, and stream-in-place.c
 * has output that is not copied.  The first error is published with one atomic
 * store and never changes after that, so any thread may look at it without a
 * lock.
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "io/channel-command.h"
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "migration/base/below-tls.h"
#include "migration/base/clock.h"
#include "migration/qemu-file.h"
#include "migration/migration-stats.h"
#include "migration/trace.h"
#include "migration/yank_functions.h"
#include "stream-private.h"
#include "wire.h"
#ifdef CONFIG_LINUX
#include <sys/ioctl.h>
#include <linux/sockios.h>
#endif

/*
 * Errors
 */

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

void stream_fault_io(QEMUFile *f, Error *err)
{
    if (!fault_latch(f, -EIO, err)) {
        error_free(err);
    }
}

const char *stream_name(QEMUFile *f)
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

static gboolean park_ready(QIOChannel *ioc, GIOCondition cond, gpointer over)
{
    *(bool *)over = true;
    return G_SOURCE_REMOVE;
}

static gboolean park_timeout(gpointer over)
{
    *(bool *)over = true;
    return G_SOURCE_REMOVE;
}

/*
 * Like qio_channel_wait(), but returns now and then, so that the caller looks
 * at the error latch.  Not everything that ends a wait is an event: not every
 * channel can be shut down, and a UNIX socket whose buffer is full only hangs
 * up when it is, which is not what we wait for.
 */
static void park_thread(QIOChannel *ioc, GIOCondition cond)
{
    GMainContext *context = g_main_context_new();
    GSource *ready = qio_channel_create_watch(ioc, cond);
    GSource *timeout = g_timeout_source_new(STREAM_PARK_MS);
    bool over = false;

    g_source_set_callback(ready, (GSourceFunc)park_ready, &over, NULL);
    g_source_set_callback(timeout, park_timeout, &over, NULL);
    g_source_attach(ready, context);
    g_source_attach(timeout, context);
    while (!over) {
        g_main_context_iteration(context, true);
    }
    g_source_destroy(ready);
    g_source_destroy(timeout);
    g_source_unref(ready);
    g_source_unref(timeout);
    g_main_context_unref(context);
}

#ifndef _WIN32
/* With one system call, of which there are thousands */
static void park_fd(int fd, GIOCondition cond)
{
    GPollFD wait = { .fd = fd, .events = cond };

    g_poll(&wait, 1, STREAM_PARK_MS);
}
#endif

void coroutine_mixed_fn stream_channel_park(QEMUFile *f, GIOCondition cond)
{
    if (f->before_park) {
        f->before_park(f);
    }
    if (qemu_in_coroutine()) {
        qio_channel_yield(f->ioc, cond);
        return;
    }
#ifndef _WIN32
    if (f->socket || f->pipe >= 0) {
        park_fd(f->socket ? f->socket->fd : f->pipe, cond);
        return;
    }
#endif
    park_thread(f->ioc, cond);
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

size_t stream_written_more(QEMUFile *f, struct iovec *vec, size_t len)
{
    f->moved += len;
    stat64_add(f->counter, len);
    return pieces_advance(vec, len);
}

bool coroutine_mixed_fn stream_channel_write(QEMUFile *f, struct iovec *vec,
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
            stream_channel_park(f, G_IO_OUT);
            continue;
        }
        if (len == 0) {
            error_setg(&err, "%s: channel takes no more data",
                       stream_name(f));
        }
        if (len <= 0) {
            stream_fault_io(f, err);
            return false;
        }

        size_t gone = stream_written_more(f, vec, len);
        vec += gone;
        n -= gone;
        fds = NULL;
        nfds = 0;
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
        stream_fault_io(f, err);
    }
    g_free(fds);
}

/*
 * Of @need bytes that are not there yet, have some come together before the
 * reader is woken: to be woken for each packet costs both sides more than to
 * send and receive it.  The end of the stream wakes it as well.
 */
static void wake_at(QEMUFile *f, size_t need)
{
    int bytes = need < STREAM_WAKE_MIN ? 1 : MIN(need, STREAM_WAKE_MAX);

    if (f->socket && bytes != MAX(f->wake_at, 1)) {
        setsockopt(f->socket->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes,
                   sizeof(bytes));
        f->wake_at = bytes;
    }
}

static bool read_in_time(QEMUFile *f, Error **errp)
{
    if (f->until_ms && now_ms() > f->until_ms) {
        error_setg(errp, "%s: nothing more has come in time", stream_name(f));
        return false;
    }
    return true;
}

size_t coroutine_mixed_fn stream_channel_read(QEMUFile *f,
                                              const struct iovec *vec,
                                              size_t n, size_t need)
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
        if (len == QIO_CHANNEL_ERR_BLOCK && read_in_time(f, &err)) {
            wake_at(f, need);
            stream_channel_park(f, G_IO_IN);
            continue;
        }
        if (len > 0) {
            f->moved += len;
            f->arrived_ns = now_ns();
            return len;
        }
        if (len == 0) {
            error_setg(&err, "%s: stream ends after %" PRIu64 " bytes, "
                       "more were expected%s", stream_name(f), f->moved,
                       f->socket ? ": the other side closed the connection"
                                 : "");
        }
        stream_fault_io(f, err);
    }
    return 0;
}

/*
 * Position
 */

uint64_t stream_position(QEMUFile *f)
{
    return f->out ? f->moved + gather_held(f->out)
                  : f->moved - window_held(f->in);
}

uint64_t stream_written(QEMUFile *f)
{
    return f->moved;
}

#ifdef CONFIG_LINUX
/*
 * Only TCP tells what has left from what was acknowledged.  A UNIX socket
 * counts its own overhead as well.
 */
uint64_t stream_unsent(QEMUFile *f)
{
    QIOChannelSocket *below = channel_socket(f->ioc);
    int bytes = 0;

    if (!below || (ioctl(below->fd, SIOCOUTQNSD, &bytes) < 0 &&
                   ioctl(below->fd, SIOCOUTQ, &bytes) < 0)) {
        return 0;
    }
    return MAX(bytes, 0);
}
#else
uint64_t stream_unsent(QEMUFile *f)
{
    return 0;
}
#endif

void stream_stop_reading(QEMUFile *f, Error *err)
{
    qemu_file_set_error_obj(f, -EIO, err);
    qio_channel_shutdown(f->ioc, QIO_CHANNEL_SHUTDOWN_READ, NULL);
}

void stream_read_until(QEMUFile *f, int64_t ms)
{
    f->until_ms = ms;
}

void stream_count_in(QEMUFile *f, Stat64 *counter)
{
    f->counter = counter;
}

int64_t stream_arrived_ns(QEMUFile *f)
{
    return f->arrived_ns;
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
        stream_fault_io(f, err);
    }
    return pos;
}

/* What is kept is to come before what follows; then keeping ends. */
static bool coroutine_mixed_fn place_output(QEMUFile *f)
{
    stream_keep(f, false);
    f->out->placed = true;
    return !qemu_fflush(f);
}

void coroutine_mixed_fn qemu_set_offset(QEMUFile *f, off_t off, int whence)
{
    if (f->in) {
        /* The channel is ahead of the consumer by what the window holds. */
        if (whence == SEEK_CUR) {
            off -= window_held(f->in);
        }
        f->in->start = f->in->end = 0;
    } else if (!place_output(f)) {
        return;
    }
    channel_seek(f, off, whence);
}

off_t coroutine_mixed_fn qemu_get_offset(QEMUFile *f)
{
    off_t pos;

    if (f->out && !place_output(f)) {
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
            stream_channel_park(f, cond);
            continue;
        }
        if (done == 0) {
            error_setg(&err, "%s: %s %" PRId64 " with %zu bytes to go",
                       stream_name(f), cond == G_IO_IN ? "file ends at" :
                       "cannot write at", (int64_t)pos, len);
        }
        if (done <= 0) {
            stream_fault_io(f, err);
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
    if (place_output(f) &&
        channel_io_at(f, qio_channel_pwrite, G_IO_OUT, (uint8_t *)buf, buflen,
                      pos)) {
        stat64_add(f->counter, buflen);
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
        stream_fault_io(f, g_steal_pointer(&err));
    }
    if (!stream_check(f, &err)) {
        error_report_err(err);
    }
}

int coroutine_mixed_fn qemu_file_put_fd(QEMUFile *f, int fd)
{
    uint8_t carrier = WIRE_FD_CARRIER;
    struct iovec vec = { .iov_base = &carrier, .iov_len = 1 };
    bool keep;
    int ret = 0;

    assert(f->out);
    /* A descriptor cannot be kept, nor be written ahead of what is. */
    keep = f->out->keep;
    stream_keep(f, false);
    if (!f->carries_fds || qemu_fflush(f) < 0 ||
        !stream_channel_write(f, &vec, 1, &fd, 1)) {
        fd_fault(f);
        ret = -1;
    }
    stream_keep(f, keep);
    trace_qemu_file_put_fd(stream_name(f), fd, ret);
    return ret;
}

int coroutine_mixed_fn qemu_file_get_fd(QEMUFile *f)
{
    Window *w = f->in;
    int fd = -1;

    assert(w);
    if (!f->carries_fds || (!window_held(w) && !stream_window_fill(f, 1))) {
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

static int stream_pipe_of(QIOChannel *ioc, bool output)
{
    Object *file = object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_FILE);
    Object *command = object_dynamic_cast(OBJECT(ioc),
                                          TYPE_QIO_CHANNEL_COMMAND);

    if (file) {
        return QIO_CHANNEL_FILE(file)->fd;
    }
    return !command ? -1 : output ? QIO_CHANNEL_COMMAND(command)->writefd
                                  : QIO_CHANNEL_COMMAND(command)->readfd;
}

static QEMUFile *stream_new(QIOChannel *ioc, bool output)
{
    QEMUFile *f = g_new0(QEMUFile, 1);

    f->ioc = QIO_CHANNEL(object_ref(OBJECT(ioc)));
    f->socket = (QIOChannelSocket *)
        object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET);
    f->pipe = stream_pipe_of(ioc, output);
    f->carries_fds = qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS);
    f->counter = &mig_stats.qemu_file_transferred;
    if (output) {
        f->out = stream_gather_new();
    } else {
        f->in = stream_window_new();
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

/* The channel was closed. */
static void stream_free(QEMUFile *f)
{
    object_unref(OBJECT(f->ioc));
    g_clear_pointer(&f->out, stream_gather_free);
    g_clear_pointer(&f->in, stream_window_free);
    fault_free(f->fault);
    g_free(f->in_place);
    g_free(f);
    trace_qemu_file_fclose();
}

int qemu_fclose(QEMUFile *f)
{
    int ret = qemu_fflush(f);
    int closed = qio_channel_close(f->ioc, NULL);

    stream_free(f);
    return ret ?: closed;
}

void stream_close(QEMUFile *f)
{
    if (f) {
        qemu_fflush(f);
        migration_ioc_unregister_yank_from_file(f);
        qemu_fclose(f);
    }
}

bool stream_finish(QEMUFile *f, Error **errp)
{
    bool ok;

    qemu_fflush(f);
    migration_ioc_unregister_yank_from_file(f);
    ok = stream_check(f, errp);
    ok = qio_channel_close(f->ioc, ok ? errp : NULL) == 0 && ok;
    stream_free(f);
    return ok;
}

/*
 * The order matters.  If the channel went first, a reader in another thread
 * could get nothing, find no error latched, and take its zero-filled buffer
 * for a page of the guest.
 */
int qemu_file_shutdown(QEMUFile *f)
{
    qemu_file_set_error(f, -EIO);
    if (!qio_channel_has_feature(f->ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return -ENOSYS;
    }
    /* Usually the peer was quicker, which is nothing to tell anybody. */
    return qio_channel_shutdown(f->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL) < 0
           ? -EIO : 0;
}

QIOChannel *qemu_file_get_ioc(QEMUFile *f)
{
    return f->ioc;
}

void qemu_file_set_blocking(QEMUFile *f, bool block)
{
    qio_channel_set_blocking(f->ioc, block, NULL);
}

bool migration_rate_exceeded(QEMUFile *f)
{
    return qemu_file_get_error(f) || migration_rate_wait_ns() > 0;
}
