/*
 * The state of a VM in a disk image, as a channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/iov.h"
#include "qemu/memalign.h"
#include "block/block.h"
#include "block/aio-wait.h"
#include "state-channel.h"

#define TYPE_STATE_CHANNEL "qio-channel-vm-state"
OBJECT_DECLARE_SIMPLE_TYPE(StateChannel, STATE_CHANNEL)

/*
 * Pieces are used in turns.  Of the one that is filled or emptied @done bytes
 * have been; all others are at rest or on their way.
 */
typedef struct StatePiece {
    StateChannel *channel;
    uint8_t *bytes;
    int64_t pos;
    size_t len;
    bool busy;                  /* on its way */
} StatePiece;

struct StateChannel {
    QIOChannel parent;
    BlockDriverState *bs;       /* NULL: closed */
    bool for_output;
    StatePiece pieces[STATE_CHANNEL_PIECES];
    unsigned now;
    size_t done;
    int64_t next;               /* position of the next piece */
    int error;                  /* the first one; a negative errno */
};

static int coroutine_mixed_fn piece_transfer(const StatePiece *p)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, p->bytes, p->len);
    BlockDriverState *bs = p->channel->bs;

    return p->channel->for_output ? bdrv_writev_vmstate(bs, &qiov, p->pos)
                                  : bdrv_readv_vmstate(bs, &qiov, p->pos);
}

static void coroutine_fn piece_co(void *opaque)
{
    StatePiece *p = opaque;
    int ret;

    WITH_GRAPH_RDLOCK_GUARD() {
        ret = piece_transfer(p);
    }
    if (ret < 0 && !p->channel->error) {
        p->channel->error = ret;
    }
    p->busy = false;
    aio_wait_kick();
}

static void piece_start(StatePiece *p, size_t len)
{
    p->pos = p->channel->next;
    p->len = len;
    p->busy = true;
    p->channel->next += len;
    aio_co_enter(qemu_get_current_aio_context(),
                 qemu_coroutine_create(piece_co, p));
}

static void piece_await(StatePiece *p)
{
    AIO_WAIT_WHILE(qemu_get_current_aio_context(), p->busy);
}

static bool channel_works(const StateChannel *c, Error **errp)
{
    if (c->error) {
        error_setg_errno(errp, -c->error, "the state of the VM cannot be %s "
                         "image '%s'", c->for_output ? "written to"
                                                     : "read from",
                         bdrv_get_device_or_node_name(c->bs));
    }
    return !c->error;
}

static StatePiece *next_piece(StateChannel *c)
{
    StatePiece *p = &c->pieces[c->now];

    c->now = (c->now + 1) % STATE_CHANNEL_PIECES;
    c->done = 0;
    return p;
}

static ssize_t state_channel_writev(QIOChannel *ioc, const struct iovec *iov,
                                    size_t niov, int *fds, size_t nfds,
                                    int flags, Error **errp)
{
    StateChannel *c = STATE_CHANNEL(ioc);
    size_t size = iov_size(iov, niov), at = 0;

    while (at < size) {
        StatePiece *p = &c->pieces[c->now];
        size_t some = MIN(size - at, STATE_CHANNEL_PIECE - c->done);

        piece_await(p);
        if (!channel_works(c, errp)) {
            return -1;
        }
        iov_to_buf(iov, niov, at, p->bytes + c->done, some);
        c->done += some;
        at += some;
        if (c->done == STATE_CHANNEL_PIECE) {
            piece_start(next_piece(c), STATE_CHANNEL_PIECE);
        }
    }
    return size;
}

static void state_channel_ahead(StateChannel *c)
{
    for (unsigned i = 0; i < STATE_CHANNEL_PIECES; i++) {
        piece_start(&c->pieces[i], STATE_CHANNEL_PIECE);
    }
}

static ssize_t state_channel_readv(QIOChannel *ioc, const struct iovec *iov,
                                   size_t niov, int **fds, size_t *nfds,
                                   int flags, Error **errp)
{
    StateChannel *c = STATE_CHANNEL(ioc);
    StatePiece *p = &c->pieces[c->now];
    size_t some = MIN(iov_size(iov, niov), STATE_CHANNEL_PIECE - c->done);

    if (!c->next) {
        state_channel_ahead(c);
    }
    piece_await(p);
    if (!channel_works(c, errp)) {
        return -1;
    }
    iov_from_buf(iov, niov, 0, p->bytes + c->done, some);
    c->done += some;
    if (c->done == STATE_CHANNEL_PIECE) {
        piece_start(next_piece(c), STATE_CHANNEL_PIECE);
    }
    return some;
}

static int state_channel_set_blocking(QIOChannel *ioc, bool enabled,
                                      Error **errp)
{
    if (!enabled) {
        error_setg(errp, "the state of a VM in an image cannot be accessed "
                   "without waiting");
        return -1;
    }
    return 0;
}

/* Also after an error: nothing may be on its way when memory is freed. */
static void state_channel_settle(StateChannel *c)
{
    if (c->for_output && c->done && !c->error) {
        size_t rest = c->done;

        piece_start(next_piece(c), rest);
    }
    for (unsigned i = 0; i < STATE_CHANNEL_PIECES; i++) {
        piece_await(&c->pieces[i]);
    }
}

bool state_channel_end(QIOChannel *ioc, Error **errp)
{
    StateChannel *c = STATE_CHANNEL(ioc);
    int ret;

    state_channel_settle(c);
    if (c->for_output && !c->error) {
        ret = bdrv_flush(c->bs);
        c->error = MIN(ret, 0);
    }
    return channel_works(c, errp);
}

/* What it returns is taken for an errno. */
static int state_channel_close(QIOChannel *ioc, Error **errp)
{
    StateChannel *c = STATE_CHANNEL(ioc);

    if (!c->bs) {
        return 0;
    }
    if (c->for_output) {
        state_channel_end(ioc, errp);
    } else {
        state_channel_settle(c);
    }
    for (unsigned i = 0; i < STATE_CHANNEL_PIECES; i++) {
        g_clear_pointer(&c->pieces[i].bytes, qemu_vfree);
    }
    g_clear_pointer(&c->bs, bdrv_unref);
    return c->for_output ? c->error : 0;
}

static void state_channel_set_aio_fd_handler(QIOChannel *ioc,
                                             AioContext *read_ctx,
                                             IOHandler *io_read,
                                             AioContext *write_ctx,
                                             IOHandler *io_write, void *opaque)
{
    /* Nobody waits for it but in its own functions. */
}

static void state_channel_finalize(Object *obj)
{
    state_channel_close(QIO_CHANNEL(obj), NULL);
}

static void state_channel_class_init(ObjectClass *class, void *data)
{
    QIOChannelClass *ops = QIO_CHANNEL_CLASS(class);

    ops->io_readv = state_channel_readv;
    ops->io_writev = state_channel_writev;
    ops->io_set_blocking = state_channel_set_blocking;
    ops->io_close = state_channel_close;
    ops->io_set_aio_fd_handler = state_channel_set_aio_fd_handler;
}

static const TypeInfo state_channel_info = {
    .parent = TYPE_QIO_CHANNEL,
    .name = TYPE_STATE_CHANNEL,
    .instance_size = sizeof(StateChannel),
    .instance_finalize = state_channel_finalize,
    .class_init = state_channel_class_init,
};

static void state_channel_register(void)
{
    type_register_static(&state_channel_info);
}

type_init(state_channel_register)

QIOChannel *state_channel_new(BlockDriverState *bs, bool for_output)
{
    StateChannel *c = STATE_CHANNEL(object_new(TYPE_STATE_CHANNEL));

    bdrv_ref(bs);
    c->bs = bs;
    c->for_output = for_output;
    for (unsigned i = 0; i < STATE_CHANNEL_PIECES; i++) {
        c->pieces[i].channel = c;
        c->pieces[i].bytes = qemu_memalign(qemu_real_host_page_size(),
                                           STATE_CHANNEL_PIECE);
    }
    return QIO_CHANNEL(c);
}
