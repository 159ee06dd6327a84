/*
 * A QIOChannel under a test's control: what it delivers, accepts and refuses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "mock-channel.h"

/* Counts an operation; returns false, with @errp set, if it is to fail. */
static bool mock_op(MockChannel *mc, Error **errp)
{
    if (mc->ops++ == mc->fail_at) {
        error_setg(errp, MOCK_ERROR);
        return false;
    }
    return true;
}

/* What a sequential operation on @iov may move; 0 means that it blocks. */
static size_t mock_allowance(MockChannel *mc, const struct iovec *iov,
                             size_t niov)
{
    size_t want = iov_size(iov, niov);

    mc->most_pieces = MAX(mc->most_pieces, niov);
    mc->first = iov[0];
    if (mc->nsteps) {
        want = MIN(want, mc->steps[(mc->ops - 1) % mc->nsteps]);
    }
    return MIN(want, MOCK_KERNEL_MAX);
}

static ssize_t mock_moved(MockChannel *mc, size_t len)
{
    mc->pos += len;
    mc->largest = MAX(mc->largest, len);
    return len;
}

/* As a UNIX socket does: a message with a descriptor ends the read. */
static size_t mock_take_fd(MockChannel *mc, size_t len, int **fds,
                           size_t *nfds)
{
    MockFd *next;

    if (mc->next_fd == mc->fds->len) {
        return len;
    }
    next = &g_array_index(mc->fds, MockFd, mc->next_fd);
    if (next->at >= mc->pos + len) {
        return len;
    }
    if (fds) {
        *fds = g_new(int, 1);
        **fds = next->fd;
        *nfds = 1;
    }
    mc->next_fd++;
    return next->at + 1 - mc->pos;
}

static ssize_t mock_readv(QIOChannel *ioc, const struct iovec *iov,
                          size_t niov, int **fds, size_t *nfds, int flags,
                          Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);
    uint64_t end = mc->weightless ? mc->read_end :
                   MIN(mc->read_end, mc->data->len);
    size_t len;

    if (!mock_op(mc, errp)) {
        return -1;
    }
    len = mock_allowance(mc, iov, niov);
    if (!len) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    len = mock_take_fd(mc, MIN(len, end - MIN(end, mc->pos)), fds, nfds);
    if (!mc->weightless) {
        iov_from_buf(iov, niov, 0, mc->data->data + mc->pos, len);
    }
    return mock_moved(mc, len);
}

static void mock_store(MockChannel *mc, uint64_t at, const struct iovec *iov,
                       size_t niov, size_t len)
{
    if (mc->weightless) {
        return;
    }
    if (mc->data->len < at + len) {
        guint was = mc->data->len;

        g_byte_array_set_size(mc->data, at + len);
        memset(mc->data->data + was, 0, at + len - was);
    }
    iov_to_buf(iov, niov, 0, mc->data->data + at, len);
}

static ssize_t mock_writev(QIOChannel *ioc, const struct iovec *iov,
                           size_t niov, int *fds, size_t nfds, int flags,
                           Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);
    size_t len;

    if (!mock_op(mc, errp)) {
        return -1;
    }
    len = mock_allowance(mc, iov, niov);
    if (!len) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    for (size_t i = 0; i < nfds; i++) {
        MockFd sent = { .at = mc->pos, .fd = fds[i] };

        g_array_append_val(mc->fds, sent);
    }
    mock_store(mc, mc->pos, iov, niov, len);
    return mock_moved(mc, len);
}

static ssize_t mock_preadv(QIOChannel *ioc, const struct iovec *iov,
                           size_t niov, off_t offset, Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);
    size_t len;

    if (!mock_op(mc, errp)) {
        return -1;
    }
    len = mock_allowance(mc, iov, niov);
    if (!len) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    len = MIN(len, mc->data->len - MIN(mc->data->len, offset));
    return iov_from_buf(iov, niov, 0, mc->data->data + offset, len);
}

static ssize_t mock_pwritev(QIOChannel *ioc, const struct iovec *iov,
                            size_t niov, off_t offset, Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);
    size_t len;

    if (!mock_op(mc, errp)) {
        return -1;
    }
    len = mock_allowance(mc, iov, niov);
    if (!len) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    mock_store(mc, offset, iov, niov, len);
    return len;
}

static off_t mock_seek(QIOChannel *ioc, off_t offset, int whence, Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);

    if (!mock_op(mc, errp)) {
        return -1;
    }
    if (whence == SEEK_CUR) {
        offset += mc->pos;
    } else if (whence == SEEK_END) {
        offset += mc->data->len;
    }
    if (offset < 0) {
        error_setg(errp, "seek to before the start");
        return -1;
    }
    mc->pos = offset;
    return offset;
}

static int mock_close(QIOChannel *ioc, Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);

    mc->closed++;
    if (mc->close_fails) {
        error_setg(errp, MOCK_ERROR);
        return -1;
    }
    return 0;
}

static int mock_set_blocking(QIOChannel *ioc, bool enabled, Error **errp)
{
    return 0;
}

static int mock_shutdown(QIOChannel *ioc, QIOChannelShutdown how,
                         Error **errp)
{
    MockChannel *mc = MOCK_CHANNEL(ioc);

    mc->on_shutdown(mc->opaque);
    return 0;
}

/* An event source that is always ready: the next step may be another one. */

typedef struct MockSource {
    GSource parent;
    QIOChannel *ioc;
    GIOCondition condition;
} MockSource;

static gboolean mock_source_prepare(GSource *source, gint *timeout)
{
    *timeout = 0;
    return TRUE;
}

static gboolean mock_source_check(GSource *source)
{
    return TRUE;
}

static gboolean mock_source_dispatch(GSource *source, GSourceFunc callback,
                                     gpointer opaque)
{
    MockSource *ms = (MockSource *)source;

    MOCK_CHANNEL(ms->ioc)->waits++;
    return ((QIOChannelFunc)callback)(ms->ioc, ms->condition, opaque);
}

static GSource *mock_create_watch(QIOChannel *ioc, GIOCondition condition)
{
    static GSourceFuncs funcs = {
        .prepare = mock_source_prepare,
        .check = mock_source_check,
        .dispatch = mock_source_dispatch,
    };
    GSource *source = g_source_new(&funcs, sizeof(MockSource));
    MockSource *ms = (MockSource *)source;

    ms->ioc = ioc;
    ms->condition = condition;
    return source;
}

static void mock_set_aio_fd_handler(QIOChannel *ioc, AioContext *read_ctx,
                                    IOHandler *io_read, AioContext *write_ctx,
                                    IOHandler *io_write, void *opaque)
{
    if (io_read || io_write) {
        MOCK_CHANNEL(ioc)->waits++;
        aio_bh_schedule_oneshot(io_read ? read_ctx : write_ctx,
                                io_read ?: io_write, opaque);
    }
}

static void mock_init(Object *obj)
{
    MockChannel *mc = MOCK_CHANNEL(obj);

    mc->data = g_byte_array_new();
    mc->fds = g_array_new(false, false, sizeof(MockFd));
    mc->fail_at = MOCK_NEVER;
    mc->read_end = MOCK_NEVER;
    qio_channel_set_name(QIO_CHANNEL(mc), "mock");
}

static void mock_finalize(Object *obj)
{
    MockChannel *mc = MOCK_CHANNEL(obj);

    g_byte_array_unref(mc->data);
    g_array_unref(mc->fds);
}

static void mock_class_init(ObjectClass *klass, void *data)
{
    QIOChannelClass *ioc = QIO_CHANNEL_CLASS(klass);

    ioc->io_readv = mock_readv;
    ioc->io_writev = mock_writev;
    ioc->io_preadv = mock_preadv;
    ioc->io_pwritev = mock_pwritev;
    ioc->io_seek = mock_seek;
    ioc->io_close = mock_close;
    ioc->io_shutdown = mock_shutdown;
    ioc->io_set_blocking = mock_set_blocking;
    ioc->io_create_watch = mock_create_watch;
    ioc->io_set_aio_fd_handler = mock_set_aio_fd_handler;
}

static const TypeInfo mock_info = {
    .parent = TYPE_QIO_CHANNEL,
    .name = TYPE_MOCK_CHANNEL,
    .instance_size = sizeof(MockChannel),
    .instance_init = mock_init,
    .instance_finalize = mock_finalize,
    .class_init = mock_class_init,
};

static void mock_register(void)
{
    type_register_static(&mock_info);
}

type_init(mock_register);

MockChannel *mock_channel_writer(void)
{
    return MOCK_CHANNEL(object_new(TYPE_MOCK_CHANNEL));
}

MockChannel *mock_channel_reader(const void *data, size_t len)
{
    MockChannel *mc = mock_channel_writer();

    g_byte_array_append(mc->data, data, len);
    return mc;
}

MockChannel *mock_channel_weightless(void)
{
    MockChannel *mc = mock_channel_writer();

    mc->weightless = true;
    return mc;
}
