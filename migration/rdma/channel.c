/*
 * A stream over RDMA links, as a QIOChannel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/iov.h"
#include "qemu/module.h"
#include "exec/memory.h"
#include "io/channel-util.h"
#include "io/channel-watch.h"
#include "channel.h"

struct RdmaChannel {
    QIOChannel parent;
    RdmaLink *main;             /* NULL: closed */
    RdmaLink *back;             /* atomic: may be set once, later */
    GPtrArray *others;          /* RdmaLink, for writes; see the header */
    bool incoming;
    RdmaHello hello;            /* what was agreed upon */
    bool blocking;
    bool no_discard;            /* ram_block_discard_disable() is in force */
    bool back_stopped;          /* atomic: shut down */

    /* Reading */
    RdmaMessage message;
    size_t taken;               /* bytes of it */
    bool has_message;
    unsigned asked;             /* READYs sent for messages that are to come */
    bool may_ask;               /* READY may be sent */

    void (*closed)(void *opaque);
    void *opaque;
};

DECLARE_INSTANCE_CHECKER(RdmaChannel, RDMA_CHANNEL, TYPE_RDMA_CHANNEL)

RdmaChannel *rdma_channel_of(QIOChannel *ioc)
{
    return (RdmaChannel *)object_dynamic_cast(OBJECT(ioc), TYPE_RDMA_CHANNEL);
}

RdmaLink *rdma_channel_main(RdmaChannel *channel)
{
    return channel->main;
}

const RdmaHello *rdma_channel_hello(const RdmaChannel *channel)
{
    return &channel->hello;
}

void rdma_channel_on_close(RdmaChannel *channel, void (*closed)(void *opaque),
                           void *opaque)
{
    channel->closed = closed;
    channel->opaque = opaque;
}

static RdmaLink *read_link(RdmaChannel *channel)
{
    return channel->incoming ? channel->main : qatomic_read(&channel->back);
}

static RdmaLink *write_link(RdmaChannel *channel)
{
    return channel->incoming ? qatomic_read(&channel->back) : channel->main;
}

RdmaChannel *rdma_channel_new(RdmaLink *main, RdmaLink *back, bool incoming,
                              const RdmaHello *hello, Error **errp)
{
    RdmaChannel *channel;

    if (ram_block_discard_disable(true)) {
        error_setg(errp, "a device discards memory of the guest, such as "
                   "virtio-mem, which cannot be migrated over RDMA; use "
                   "tcp:HOST:PORT");
        return NULL;
    }
    channel = RDMA_CHANNEL(object_new(TYPE_RDMA_CHANNEL));
    channel->main = main;
    channel->back = back;
    channel->incoming = incoming;
    channel->hello = *hello;
    channel->others = g_ptr_array_new();
    /* A destination of another version begins without it: see wire/rdma.h. */
    channel->may_ask = incoming || hello->peers;
    channel->no_discard = true;
    qio_channel_set_feature(QIO_CHANNEL(channel), QIO_CHANNEL_FEATURE_SHUTDOWN);
    return channel;
}

void rdma_channel_set_back(RdmaChannel *channel, RdmaLink *back)
{
    assert(!channel->back);
    qatomic_set(&channel->back, back);
    /* Pairs with that in shutdown(): one of the two sees what the other set. */
    smp_mb();
    if (qatomic_read(&channel->back_stopped)) {
        rdma_link_stop(back);
    }
}

void rdma_channel_add(RdmaChannel *channel, RdmaLink *link)
{
    g_ptr_array_add(channel->others, link);
}

RdmaLink *const *rdma_channel_others(RdmaChannel *channel, unsigned *count)
{
    *count = channel->others->len;
    return (RdmaLink *const *)channel->others->pdata;
}

/*
 * Reading
 */

static bool channel_ask(RdmaChannel *channel, RdmaLink *link, Error **errp)
{
    while (channel->may_ask && channel->asked < rdma_window(&channel->hello)) {
        if (!rdma_link_send(link, WIRE_RDMA_READY, 1, NULL, 0, true, errp)) {
            return false;
        }
        channel->asked++;
    }
    return true;
}

/* Of the message that has come, as much as fits; 0 if there is none. */
static size_t take_bytes(RdmaChannel *channel, const struct iovec *iov,
                         size_t niov)
{
    size_t left = channel->has_message
                  ? channel->message.head.len - channel->taken : 0;
    size_t len = MIN(left, iov_size(iov, niov));

    if (len) {
        iov_from_buf(iov, niov, 0,
                     (uint8_t *)channel->message.data + channel->taken, len);
        channel->taken += len;
    }
    return len;
}

static bool next_message(RdmaChannel *channel, RdmaLink *link, Error **errp)
{
    channel->asked -= channel->asked > 0;
    channel->may_ask = true;
    if (channel->message.head.type != WIRE_RDMA_STREAM) {
        error_setg(errp, "a message %s arrived over RDMA where bytes of the "
                   "stream are expected",
                   rdma_type_name(channel->message.head.type));
        return false;
    }
    channel->has_message = true;
    channel->taken = 0;
    return true;
}

static ssize_t rdma_channel_readv(QIOChannel *ioc, const struct iovec *iov,
                                  size_t niov, int **fds, size_t *nfds,
                                  int flags, Error **errp)
{
    RdmaChannel *channel = RDMA_CHANNEL(ioc);
    RdmaLink *link = read_link(channel);
    size_t len = take_bytes(channel, iov, niov);

    if (len) {
        return len;
    }
    if (!link) {
        error_setg(errp, "nothing can be read: the RDMA connection for answers "
                   "was not made; set 'return-path' on both sides");
        return -1;
    }
    if (channel->has_message) {
        channel->has_message = false;
        if (!rdma_link_done(link, &channel->message, errp)) {
            return -1;
        }
    }
    if (!channel_ask(channel, link, errp)) {
        return -1;
    }
    switch (rdma_link_receive(link, channel->blocking, &channel->message,
                              errp)) {
    case RDMA_ARRIVED:
        return next_message(channel, link, errp)
               ? take_bytes(channel, iov, niov) : -1;
    case RDMA_NOTHING_YET:
        return QIO_CHANNEL_ERR_BLOCK;
    case RDMA_ENDED:
        return 0;
    default:
        return -1;
    }
}

/*
 * Writing
 */

/*
 * A thread that must not be held up, such as one that has the BQL, waits this
 * long at most until the other side says READY, which it does when it reads.
 */
#define TRY_MS 200

static bool may_write(RdmaChannel *channel, RdmaLink *link, bool *may,
                      Error **errp)
{
    *may = true;
    return channel->blocking || rdma_link_try_ready(link, TRY_MS, may, errp);
}

/*
 * A source hears at last that the destination has all, or why not.  Who has no
 * connection for that, does not know the peer, or answers and so may end at
 * once, waits until each piece has arrived.
 */
static bool must_arrive(const RdmaChannel *channel)
{
    return channel->incoming || !channel->hello.window || !channel->blocking ||
           !channel->back;
}

/* Small pieces are put together, as each message waits for a READY. */
static ssize_t rdma_channel_writev(QIOChannel *ioc, const struct iovec *iov,
                                   size_t niov, int *fds, size_t nfds,
                                   int flags, Error **errp)
{
    RdmaChannel *channel = RDMA_CHANNEL(ioc);
    RdmaLink *link = write_link(channel);
    uint32_t most = channel->hello.peers ? WIRE_RDMA_STREAM_PEERS
                                         : WIRE_RDMA_STREAM_MAX;
    size_t all = iov_size(iov, niov);
    g_autofree uint8_t *copy = NULL;
    const void *bytes;
    bool may;

    if (!link) {
        error_setg(errp, "nothing can be answered: the source made no RDMA "
                   "connection for that; set 'return-path' there");
        return -1;
    }
    if (!may_write(channel, link, &may, errp)) {
        return -1;
    }
    if (!may) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    if (niov == 1) {
        bytes = iov->iov_base;
    } else {
        bytes = copy = g_malloc(all);
        iov_to_buf(iov, niov, 0, copy, all);
    }
    return rdma_link_send_stream(link, bytes, all, most, must_arrive(channel),
                                 errp) ? all : -1;
}

/*
 * The rest
 */

static int rdma_channel_set_blocking(QIOChannel *ioc, bool enabled,
                                     Error **errp)
{
    RDMA_CHANNEL(ioc)->blocking = enabled;
    return 0;
}

static int rdma_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how,
                                 Error **errp)
{
    RdmaChannel *channel = RDMA_CHANNEL(ioc);
    QIOChannelShutdown back_too = channel->incoming
                                  ? QIO_CHANNEL_SHUTDOWN_WRITE
                                  : QIO_CHANNEL_SHUTDOWN_READ;
    RdmaLink *back;

    if (how == QIO_CHANNEL_SHUTDOWN_BOTH || how == back_too) {
        qatomic_set(&channel->back_stopped, true);
        /* Pairs with that in rdma_channel_set_back(). */
        smp_mb();
        back = qatomic_read(&channel->back);
        if (back) {
            rdma_link_stop(back);
        }
    }
    if (how != back_too && channel->main) {
        rdma_link_stop(channel->main);
    }
    /* Nobody waits for those of a destination, and more may come there. */
    for (unsigned i = 0; !channel->incoming && channel->others &&
                         i < channel->others->len; i++) {
        rdma_link_stop(g_ptr_array_index(channel->others, i));
    }
    return 0;
}

static int rdma_channel_close(QIOChannel *ioc, Error **errp)
{
    RdmaChannel *channel = RDMA_CHANNEL(ioc);

    if (channel->closed) {
        channel->closed(channel->opaque);
        channel->closed = NULL;
    }
    for (unsigned i = 0; channel->others && i < channel->others->len; i++) {
        rdma_link_free(g_ptr_array_index(channel->others, i));
    }
    g_clear_pointer(&channel->others, g_ptr_array_unref);
    g_clear_pointer(&channel->main, rdma_link_free);
    g_clear_pointer(&channel->back, rdma_link_free);
    if (channel->no_discard) {
        channel->no_discard = false;
        ram_block_discard_disable(false);
    }
    return 0;
}

static int fd_of(RdmaLink *link)
{
    return link ? rdma_link_fd(link) : -1;
}

/* What is waited for is always readable, also by one who will write. */
static GSource *rdma_channel_create_watch(QIOChannel *ioc, GIOCondition cond)
{
    RdmaChannel *channel = RDMA_CHANNEL(ioc);
    RdmaLink *link = cond & G_IO_IN ? read_link(channel) : write_link(channel);

    return qio_channel_create_fd_watch(ioc, fd_of(link ?: channel->main),
                                       G_IO_IN);
}

static void channel_watch(RdmaLink *link, AioContext *ctx, IOHandler *handler,
                          void *opaque)
{
    if (ctx && link) {
        qio_channel_util_set_aio_fd_handler(rdma_link_fd(link), ctx, handler,
                                            rdma_link_fd(link), ctx, NULL,
                                            opaque);
    }
}

static void rdma_channel_set_aio_fd_handler(QIOChannel *ioc,
                                            AioContext *read_ctx,
                                            IOHandler *io_read,
                                            AioContext *write_ctx,
                                            IOHandler *io_write, void *opaque)
{
    RdmaChannel *channel = RDMA_CHANNEL(ioc);

    channel_watch(read_link(channel), read_ctx, io_read, opaque);
    channel_watch(write_link(channel), write_ctx, io_write, opaque);
}

static void rdma_channel_finalize(Object *obj)
{
    rdma_channel_close(QIO_CHANNEL(obj), NULL);
}

static void rdma_channel_class_init(ObjectClass *class, void *data)
{
    QIOChannelClass *ops = QIO_CHANNEL_CLASS(class);

    ops->io_readv = rdma_channel_readv;
    ops->io_writev = rdma_channel_writev;
    ops->io_set_blocking = rdma_channel_set_blocking;
    ops->io_shutdown = rdma_channel_shutdown;
    ops->io_close = rdma_channel_close;
    ops->io_create_watch = rdma_channel_create_watch;
    ops->io_set_aio_fd_handler = rdma_channel_set_aio_fd_handler;
}

static const TypeInfo rdma_channel_info = {
    .parent = TYPE_QIO_CHANNEL,
    .name = TYPE_RDMA_CHANNEL,
    .instance_size = sizeof(RdmaChannel),
    .instance_finalize = rdma_channel_finalize,
    .class_init = rdma_channel_class_init,
};

static void rdma_channel_register(void)
{
    type_register_static(&rdma_channel_info);
}

type_init(rdma_channel_register)
