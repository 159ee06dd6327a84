/*
 * One RDMA connection: a queue pair with its messages, writes and memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "link.h"

/*
 * A peer that keeps to the rules has so many messages on their way, or has said
 * READY so often, and an answer and ERROR come on top of that.
 */
#define RECEIVES (WIRE_RDMA_WINDOW_MESSAGES + 2)

/*
 * Messages are sent from a ring of bytes, each in one piece, and its bytes are
 * free again when it or something after it has completed.  At most RING_UNTOLD
 * bytes are used up without a completion to come.  The largest message needs as
 * much again where it does not fit before the end of the ring, so that this is
 * the least size with which there is room at last.
 */
#define RING_UNTOLD(max) ((max) / 4)
#define RING_BYTES(max) (2 * (max) + RING_UNTOLD(max))
#define RING_ALIGN 64

#define RECEIVE_BYTES(max) ROUND_UP(RECEIVES * (uint64_t)(max), RING_ALIGN)

/* As much as both directions of a connection have at most */
#define BUFFER_BYTES_MAX (RECEIVE_BYTES(WIRE_RDMA_MESSAGE_MAX) + \
                          RING_BYTES((uint64_t)WIRE_RDMA_MESSAGE_MAX))

/* Work request IDs: a receive buffer, or what was posted as the n-th to send */
#define ID_RECEIVE (1ull << 63)

/* Completions taken at once */
#define TAKE 32

/* Bytes of writes after the last signalled one */
#define SIGNAL_BYTES (RDMA_WINDOW / 4)

/* Keys are valid in it.  Whoever leaves it last frees it. */
typedef struct Domain {
    struct ibv_pd *pd;
    unsigned users;             /* atomic */
} Domain;

/* A write that was not posted yet */
typedef struct HeldWrite {
    struct ibv_sge sge;
    uint64_t to;
    uint32_t rkey;
    bool is_there;
} HeldWrite;

struct RdmaLink {
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    Domain *domain;
    RdmaRoom room;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    bool has_qp;
    char device[64];
    uint32_t write_max;

    int stop_fd;                /* an eventfd: readable once stopped */
    int wait_fd;                /* an epoll of all that is waited for */
    bool stopped;               /* atomic */
    bool armed;                 /* the next completion wakes */
    bool closed;                /* by the peer */
    Error *broken;              /* the first failure */

    uint8_t *memory;            /* of all buffers: receives, then the ring */
    struct ibv_mr *mr;
    unsigned queue[RECEIVES];   /* buffers that messages have arrived in */
    uint32_t lengths[RECEIVES];
    unsigned queued;
    unsigned credits;           /* messages that the peer will take */

    /* Send queue: numbers count from 1 and never wrap around. */
    unsigned depth;
    uint64_t posted, retired;
    uint64_t bytes_posted, bytes_retired;
    uint64_t bytes_until[RDMA_QUEUE];   /* at number n: bytes up to it */
    uint64_t signalled, signalled_bytes;
    uint64_t last_write;                /* the number of the last write */
    /* The ring: bytes, with those left out at its end, that never wrap */
    uint64_t ring_used, ring_free, ring_signalled;
    uint64_t ring_until[RDMA_QUEUE];    /* like bytes_until */
    bool more;                          /* rdma_link_more_follows() */
    HeldWrite held;

    GPtrArray *mrs;
    RdmaCounts counts;
};

/*
 * Failing
 */

static bool link_fail(RdmaLink *link, Error *err)
{
    if (link->broken) {
        error_free(err);
    } else {
        link->broken = err;
    }
    return false;
}

/* @verb failed, with @code, an errno value or 0 */
static bool verb_failed(RdmaLink *link, const char *verb, int code)
{
    Error *err = NULL;

    if (code) {
        error_setg_errno(&err, code, "RDMA device %s: %s() failed",
                         link->device, verb);
    } else {
        error_setg(&err, "RDMA device %s: %s() failed", link->device, verb);
    }
    return link_fail(link, err);
}

/* Whether the link works; otherwise why not */
static bool link_works(RdmaLink *link, Error **errp)
{
    if (qatomic_read(&link->stopped)) {
        error_setg(errp, "the RDMA connection was shut down here");
        return false;
    }
    if (link->broken) {
        error_propagate(errp, error_copy(link->broken));
        return false;
    }
    return true;
}

static bool link_ended(RdmaLink *link, Error **errp)
{
    error_setg(errp, "RDMA device %s: the other side closed the connection",
               link->device);
    return false;
}

/*
 * Making it
 */

static uint8_t *buffer_at(const RdmaLink *link, unsigned buffer)
{
    return link->memory + (size_t)buffer * link->room.receive;
}

static bool post_receive(RdmaLink *link, unsigned buffer)
{
    struct ibv_sge sge = {
        .addr = (uintptr_t)buffer_at(link, buffer),
        .length = link->room.receive,
        .lkey = link->mr->lkey,
    };
    struct ibv_recv_wr wr = {
        .wr_id = ID_RECEIVE | buffer, .sg_list = &sge, .num_sge = 1,
    };
    struct ibv_recv_wr *bad;
    int ret = ibv_post_recv(link->id->qp, &wr, &bad);

    return !ret || verb_failed(link, "ibv_post_recv", ret);
}

/* What the device can do, of what is used here */
static bool find_limits(RdmaLink *link)
{
    struct ibv_device_attr device;
    struct ibv_port_attr port;
    int ret = ibv_query_device(link->id->verbs, &device);

    if (ret) {
        return verb_failed(link, "ibv_query_device", ret);
    }
    ret = ibv_query_port(link->id->verbs, link->id->port_num ?: 1, &port);
    if (ret) {
        return verb_failed(link, "ibv_query_port", ret);
    }
    link->depth = MIN(RDMA_QUEUE, device.max_qp_wr);
    if (device.max_cqe < (int)(link->depth + RECEIVES)) {
        link->depth = MAX(device.max_cqe - RECEIVES, 0);
    }
    link->write_max = MIN(port.max_msg_sz, RDMA_WRITE_MAX);
    if (link->depth <= 2 * RDMA_SIGNAL_EVERY ||
        port.max_msg_sz < WIRE_RDMA_MESSAGE_MAX) {
        Error *err = NULL;

        error_setg(&err, "RDMA device %s has queues of %u work requests and "
                   "messages of %" PRIu32 " bytes; more than %d, and %d, are "
                   "needed", link->device, link->depth, port.max_msg_sz,
                   2 * RDMA_SIGNAL_EVERY, WIRE_RDMA_MESSAGE_MAX);
        return link_fail(link, err);
    }
    return true;
}

static bool make_queue_pair(RdmaLink *link)
{
    struct ibv_qp_init_attr attr = {
        .qp_type = IBV_QPT_RC,
        .cap = {
            .max_send_wr = link->depth,
            .max_recv_wr = link->room.receive ? RECEIVES : 1,
            .max_send_sge = 1, .max_recv_sge = 1,
        },
    };

    link->channel = ibv_create_comp_channel(link->id->verbs);
    if (!link->channel) {
        return verb_failed(link, "ibv_create_comp_channel", errno);
    }
    link->cq = ibv_create_cq(link->id->verbs, link->depth + RECEIVES, NULL,
                             link->channel, 0);
    if (!link->cq) {
        return verb_failed(link, "ibv_create_cq", errno);
    }
    attr.send_cq = attr.recv_cq = link->cq;
    if (rdma_create_qp(link->id, link->domain->pd, &attr) < 0) {
        return verb_failed(link, "rdma_create_qp", errno);
    }
    link->has_qp = true;
    return true;
}

static bool make_buffers(RdmaLink *link)
{
    uint64_t bytes = RECEIVE_BYTES(link->room.receive) +
                     RING_BYTES((uint64_t)link->room.send);
    Error *err = NULL;

    link->memory = qemu_memalign(qemu_real_host_page_size(), bytes);
    link->mr = rdma_link_register(link, link->memory, bytes, true,
                                  "buffers of messages", &err);
    if (!link->mr) {
        return link_fail(link, err);
    }
    for (unsigned i = 0; i < RECEIVES; i++) {
        if (!post_receive(link, i)) {
            return false;
        }
    }
    return true;
}

static bool link_watch(RdmaLink *link, int fd)
{
    struct epoll_event event = { .events = EPOLLIN };

    return epoll_ctl(link->wait_fd, EPOLL_CTL_ADD, fd, &event) == 0 ||
           verb_failed(link, "epoll_ctl", errno);
}

static bool make_wait(RdmaLink *link)
{
    link->stop_fd = eventfd(0, EFD_CLOEXEC);
    link->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    if (link->stop_fd < 0 || link->wait_fd < 0) {
        return verb_failed(link, "epoll_create1", errno);
    }
    return link_watch(link, link->stop_fd) &&
           link_watch(link, link->channel->fd) &&
           link_watch(link, link->events->fd);
}

static bool make_domain(RdmaLink *link)
{
    struct ibv_pd *pd = ibv_alloc_pd(link->id->verbs);

    if (!pd) {
        return verb_failed(link, "ibv_alloc_pd", errno);
    }
    link->domain = g_new(Domain, 1);
    *link->domain = (Domain) { .pd = pd, .users = 1 };
    return true;
}

/* A key of one device means nothing to another one. */
static bool share_domain(RdmaLink *link, RdmaLink *beside)
{
    Error *err = NULL;

    if (link->id->verbs != beside->id->verbs) {
        error_setg(&err, "the connections of one migration are of two RDMA "
                   "devices: %s and %s", beside->device, link->device);
        return link_fail(link, err);
    }
    link->domain = beside->domain;
    qatomic_inc(&link->domain->users);
    return true;
}

static void leave_domain(Domain *domain)
{
    if (domain && qatomic_fetch_dec(&domain->users) == 1) {
        ibv_dealloc_pd(domain->pd);
        g_free(domain);
    }
}

static void free_mr(void *mr)
{
    ibv_dereg_mr(mr);
}

/* All but @events and @id */
static void release(RdmaLink *link)
{
    if (link->has_qp) {
        rdma_destroy_qp(link->id);
    }
    g_ptr_array_free(link->mrs, true);
    if (link->cq) {
        ibv_destroy_cq(link->cq);
    }
    if (link->channel) {
        ibv_destroy_comp_channel(link->channel);
    }
    leave_domain(link->domain);
    if (link->stop_fd >= 0) {
        close(link->stop_fd);
    }
    if (link->wait_fd >= 0) {
        close(link->wait_fd);
    }
    qemu_vfree(link->memory);
    error_free(link->broken);
    g_free(link);
}

RdmaLink *rdma_link_new(struct rdma_event_channel *events,
                        struct rdma_cm_id *id, RdmaLink *beside,
                        RdmaRoom room, Error **errp)
{
    RdmaLink *link = g_new0(RdmaLink, 1);

    link->events = events;
    link->id = id;
    link->stop_fd = link->wait_fd = -1;
    link->mrs = g_ptr_array_new_with_free_func(free_mr);
    pstrcpy(link->device, sizeof(link->device),
            ibv_get_device_name(id->verbs->device));
    link->room = room;
    if (find_limits(link) &&
        (beside ? share_domain(link, beside) : make_domain(link)) &&
        make_queue_pair(link) && make_wait(link) &&
        (!room.receive || make_buffers(link))) {
        return link;
    }
    error_propagate(errp, g_steal_pointer(&link->broken));
    release(link);
    return NULL;
}

static void *release_thread(void *opaque)
{
    RdmaLink *link = opaque;
    struct rdma_event_channel *events = link->events;
    struct rdma_cm_id *id = link->id;

    release(link);
    rdma_destroy_id(id);
    rdma_destroy_event_channel(events);
    return NULL;
}

void rdma_link_free(RdmaLink *link)
{
    QemuThread thread;

    if (!link) {
        return;
    }
    /* From now on nobody writes to memory here. */
    rdma_disconnect(link->id);
    qemu_thread_create(&thread, "mig/rdma-end", release_thread, link,
                       QEMU_THREAD_DETACHED);
}

void rdma_link_stop(RdmaLink *link)
{
    uint64_t one = 1;

    qatomic_set(&link->stopped, true);
    if (write(link->stop_fd, &one, sizeof(one)) < 0) {
        /* It has been written to before, which is enough. */
    }
}

int rdma_link_fd(const RdmaLink *link)
{
    return link->wait_fd;
}

const char *rdma_link_device(const RdmaLink *link)
{
    return link->device;
}

struct rdma_cm_id *rdma_link_id(RdmaLink *link)
{
    return link->id;
}

struct rdma_event_channel *rdma_link_events(RdmaLink *link)
{
    return link->events;
}

RdmaCounts rdma_link_counts(const RdmaLink *link)
{
    return link->counts;
}

/*
 * Completions
 */

static bool arrived(RdmaLink *link, const struct ibv_wc *wc)
{
    unsigned buffer = wc->wr_id & ~ID_RECEIVE;
    Error *err = NULL;
    RdmaHead head;

    if (!rdma_check_head(buffer_at(link, buffer), wc->byte_len, &head, &err)) {
        error_prepend(&err, "invalid RDMA control message: ");
        return link_fail(link, err);
    }
    switch (head.type) {
    case WIRE_RDMA_READY:
        link->credits++;
        return post_receive(link, buffer);
    case WIRE_RDMA_ERROR:
        error_setg(&err, "the other side of the RDMA connection has failed; "
                   "its own messages say why");
        return link_fail(link, err);
    default:
        link->lengths[buffer] = wc->byte_len;
        link->queue[link->queued++] = buffer;
        return true;
    }
}

static void link_retire(RdmaLink *link, uint64_t number)
{
    if (number > link->retired) {
        link->retired = number;
        link->bytes_retired = link->bytes_until[number % RDMA_QUEUE];
        link->ring_free = link->ring_until[number % RDMA_QUEUE];
    }
}

/* A peer that has gone leaves errors of all that was posted. */
static bool complete(RdmaLink *link, const struct ibv_wc *wc)
{
    bool receive = wc->wr_id & ID_RECEIVE;
    Error *err = NULL;

    if (wc->status == IBV_WC_SUCCESS) {
        if (receive) {
            return arrived(link, wc);
        }
        link->counts.completions++;
        link_retire(link, wc->wr_id);
        return true;
    }
    if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        link->closed = true;
        return true;
    }
    error_setg(&err, "RDMA device %s: %s failed: %s (vendor error 0x%" PRIx32
               ")", link->device, receive ? "a receive" : "a write or send",
               ibv_wc_status_str(wc->status), wc->vendor_err);
    return link_fail(link, err);
}

/* Takes what is there; *@some says whether that was anything. */
static bool take_completions(RdmaLink *link, bool *some)
{
    struct ibv_wc wc[TAKE];
    int n = ibv_poll_cq(link->cq, TAKE, wc);

    if (n < 0) {
        return verb_failed(link, "ibv_poll_cq", 0);
    }
    *some = n > 0;
    for (int i = 0; i < n; i++) {
        if (!complete(link, &wc[i])) {
            return false;
        }
    }
    return true;
}

static bool take_wakeup(RdmaLink *link)
{
    struct ibv_cq *cq;
    void *context;

    if (ibv_get_cq_event(link->channel, &cq, &context) < 0) {
        return verb_failed(link, "ibv_get_cq_event", errno);
    }
    ibv_ack_cq_events(cq, 1);
    link->armed = false;
    return true;
}

static bool take_event(RdmaLink *link)
{
    enum rdma_cm_event_type type;
    struct rdma_cm_event *event;
    Error *err = NULL;

    if (rdma_get_cm_event(link->events, &event) < 0) {
        return verb_failed(link, "rdma_get_cm_event", errno);
    }
    type = event->event;
    rdma_ack_cm_event(event);
    switch (type) {
    case RDMA_CM_EVENT_DISCONNECTED:
        link->closed = true;
        return true;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        error_setg(&err, "RDMA device %s was removed", link->device);
        return link_fail(link, err);
    default:
        return true;
    }
}

static bool is_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, 0) > 0;
}

/* Looks at what can be waited for, once. */
static bool take_news(RdmaLink *link)
{
    if (is_readable(link->channel->fd) && !take_wakeup(link)) {
        return false;
    }
    return !is_readable(link->events->fd) || take_event(link);
}

static bool arm(RdmaLink *link)
{
    int ret = ibv_req_notify_cq(link->cq, 0);

    link->armed = !ret;
    return !ret || verb_failed(link, "ibv_req_notify_cq", ret);
}

/*
 * Until something was completed, for @ms at most if that is not negative; 0: no
 * waiting.  *@some says whether that is so; if not, rdma_link_fd() becomes
 * readable when it may be.  False: the link does not work; that it was closed
 * is no failure here.
 */
static bool link_step(RdmaLink *link, int ms, bool *some)
{
    int64_t end = ms > 0 ? g_get_monotonic_time() + ms * 1000LL : 0;
    struct pollfd p = { .fd = link->wait_fd, .events = POLLIN };

    *some = false;
    for (;;) {
        if (qatomic_read(&link->stopped) || link->broken ||
            !take_completions(link, some)) {
            return false;
        }
        if (*some) {
            return true;
        }
        if (!link->armed) {
            /* What came before that wakes nobody. */
            if (!arm(link)) {
                return false;
            }
            continue;
        }
        if (link->closed) {
            return true;
        }
        if (ms && poll(&p, 1, ms) < 0 && errno != EINTR) {
            return verb_failed(link, "poll", errno);
        }
        if (!take_news(link)) {
            return false;
        }
        if (ms >= 0 && link->armed && !link->closed &&
            (!end || g_get_monotonic_time() >= end)) {
            return true;
        }
    }
}

/* Until something was completed */
static bool link_wait(RdmaLink *link, Error **errp)
{
    bool some;

    if (!link_step(link, -1, &some)) {
        return link_works(link, errp);
    }
    return some || link_ended(link, errp);
}

/*
 * The send queue
 */

/* Whether one more is signalled, with @bytes of a write or @used of the ring */
static bool signal_is_due(const RdmaLink *link, uint64_t bytes, uint64_t used)
{
    return link->posted + 1 - link->signalled >= RDMA_SIGNAL_EVERY ||
           link->bytes_posted + bytes - link->signalled_bytes >= SIGNAL_BYTES ||
           link->ring_used + used - link->ring_signalled >
               RING_UNTOLD(link->room.send);
}

/* One more work request, with @bytes of a write or @used of the ring */
static bool link_post(RdmaLink *link, struct ibv_send_wr *wr, uint64_t bytes,
                      uint64_t used)
{
    struct ibv_send_wr *bad;
    unsigned slot;
    int ret;

    if (signal_is_due(link, bytes, used)) {
        wr->send_flags |= IBV_SEND_SIGNALED;
    }
    wr->wr_id = link->posted + 1;
    ret = ibv_post_send(link->id->qp, wr, &bad);
    if (ret) {
        return verb_failed(link, "ibv_post_send", ret);
    }
    link->posted++;
    link->bytes_posted += bytes;
    link->ring_used += used;
    slot = link->posted % RDMA_QUEUE;
    link->bytes_until[slot] = link->bytes_posted;
    link->ring_until[slot] = link->ring_used;
    if (wr->send_flags & IBV_SEND_SIGNALED) {
        link->signalled = link->posted;
        link->signalled_bytes = link->bytes_posted;
        link->ring_signalled = link->ring_used;
    }
    return true;
}

/* Until the queue has room for one more, of @bytes */
static bool wait_for_room(RdmaLink *link, uint64_t bytes, Error **errp)
{
    while (link->posted - link->retired >= link->depth - 1 ||
           (link->posted != link->retired &&
            link->bytes_posted - link->bytes_retired + bytes > RDMA_WINDOW)) {
        if (!link_wait(link, errp)) {
            return false;
        }
    }
    return link_works(link, errp);
}

/* A write from @sge, which may be of nothing */
static bool post_write(RdmaLink *link, struct ibv_sge *sge, uint64_t to,
                       uint32_t rkey, bool signal, Error **errp)
{
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_RDMA_WRITE, .sg_list = sge, .num_sge = !!sge->length,
        .send_flags = signal ? IBV_SEND_SIGNALED : 0,
        .wr.rdma = { .remote_addr = to, .rkey = rkey },
    };

    if (!wait_for_room(link, sge->length, errp)) {
        return false;
    }
    if (!link_post(link, &wr, sge->length, 0)) {
        return link_works(link, errp);
    }
    link->last_write = link->posted;
    return true;
}

/* Posts the write that is held, if there is one. */
static bool post_held(RdmaLink *link, bool signal, Error **errp)
{
    if (!link->held.is_there) {
        return true;
    }
    link->held.is_there = false;
    return post_write(link, &link->held.sge, link->held.to, link->held.rkey,
                      signal, errp);
}

uint32_t rdma_link_write_max(const RdmaLink *link)
{
    return link->write_max;
}

bool rdma_link_write(RdmaLink *link, const void *from, uint32_t lkey,
                     uint64_t to, uint32_t rkey, uint32_t len, Error **errp)
{
    assert(len && len <= link->write_max);
    if (!post_held(link, false, errp)) {
        return false;
    }
    link->held = (HeldWrite) {
        .sge = { .addr = (uintptr_t)from, .length = len, .lkey = lkey },
        .to = to, .rkey = rkey, .is_there = true,
    };
    link->counts.writes++;
    link->counts.write_bytes += len;
    return true;
}

/* All up to @number, and what follows, has a completion to come. */
static bool have_signalled(RdmaLink *link, uint64_t number, Error **errp)
{
    struct ibv_sge nothing = { };

    /* A write of nothing needs no key, and completes after what is before. */
    return link->signalled >= number ||
           post_write(link, &nothing, 0, 0, true, errp);
}

static bool wait_until_retired(RdmaLink *link, uint64_t number, Error **errp)
{
    if (link->retired < number && !have_signalled(link, number, errp)) {
        return false;
    }
    while (link->retired < number) {
        if (!link_wait(link, errp)) {
            return false;
        }
    }
    return link_works(link, errp);
}

bool rdma_link_finish_writes(RdmaLink *link, Error **errp)
{
    return post_held(link, true, errp) &&
           wait_until_retired(link, link->last_write, errp);
}

bool rdma_link_drain(RdmaLink *link, Error **errp)
{
    return post_held(link, true, errp) &&
           wait_until_retired(link, link->posted, errp);
}

void rdma_link_more_follows(RdmaLink *link, bool more)
{
    link->more = more;
}

/*
 * Messages
 */

bool rdma_link_wait_ready(RdmaLink *link, unsigned count, Error **errp)
{
    while (link->credits < count) {
        if (!link_wait(link, errp)) {
            return false;
        }
    }
    return link_works(link, errp);
}

bool rdma_link_try_ready(RdmaLink *link, int ms, bool *ready, Error **errp)
{
    bool some = true;

    while (!link->credits && some) {
        if (!link_step(link, ms, &some)) {
            return link_works(link, errp);
        }
        if (!some && link->closed) {
            return link_ended(link, errp);
        }
    }
    *ready = link->credits;
    return link_works(link, errp);
}

/*
 * Room for @len bytes in the ring, in one piece; *@used: what it takes of the
 * ring, with what is left out at its end.
 */
static bool find_room(RdmaLink *link, uint32_t len, uint8_t **at,
                      uint64_t *used, Error **errp)
{
    uint64_t ring = RING_BYTES((uint64_t)link->room.send);
    uint64_t start = link->ring_used % ring;
    uint64_t left_out = ring - start < len ? ring - start : 0;

    *used = left_out + ROUND_UP(len, RING_ALIGN);
    while (link->ring_used + *used - link->ring_free > ring) {
        if (!link_wait(link, errp)) {
            return false;
        }
    }
    *at = link->memory + RECEIVE_BYTES(link->room.receive) +
          (left_out ? 0 : start);
    return true;
}

static bool post_message(RdmaLink *link, WireRdmaType type, uint32_t repeat,
                         const void *data, uint32_t len, bool last,
                         Error **errp)
{
    struct ibv_sge sge = { .length = sizeof(WireRdmaHead) + len };
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_SEND, .sg_list = &sge, .num_sge = 1,
        .send_flags = last ? IBV_SEND_SIGNALED : 0,
    };
    uint64_t used;
    uint8_t *bytes;

    if (!wait_for_room(link, 0, errp) ||
        !find_room(link, sge.length, &bytes, &used, errp)) {
        return false;
    }
    rdma_fill_head((WireRdmaHead *)bytes, type, len, repeat);
    if (len) {
        memcpy(bytes + sizeof(WireRdmaHead), data, len);
    }
    sge.addr = (uintptr_t)bytes;
    sge.lkey = link->mr->lkey;
    return link_post(link, &wr, 0, used) || link_works(link, errp);
}

bool rdma_link_send(RdmaLink *link, WireRdmaType type, uint32_t repeat,
                    const void *data, uint32_t len, bool answer, Error **errp)
{
    assert(sizeof(WireRdmaHead) + len <= link->room.send);
    if (!post_held(link, false, errp) ||
        (!answer && !rdma_link_wait_ready(link, 1, errp)) ||
        !post_message(link, type, repeat, data, len, false, errp)) {
        return false;
    }
    link->credits -= !answer;
    link->counts.messages++;
    return true;
}

bool rdma_link_send_stream(RdmaLink *link, const void *bytes, size_t len,
                           uint32_t most, bool arrive, Error **errp)
{
    bool last;

    arrive = arrive && !link->more;
    for (size_t at = 0; at < len; at += most) {
        uint32_t piece = MIN(len - at, most);

        last = arrive && at + piece == len;
        if (!post_held(link, false, errp) ||
            !rdma_link_wait_ready(link, 1, errp) ||
            !post_message(link, WIRE_RDMA_STREAM, 1,
                          (const uint8_t *)bytes + at, piece, last, errp)) {
            return false;
        }
        link->credits--;
        link->counts.messages++;
    }
    return !arrive || rdma_link_drain(link, errp);
}

RdmaArrival rdma_link_receive(RdmaLink *link, bool wait, RdmaMessage *message,
                              Error **errp)
{
    unsigned buffer;
    bool some = true;

    while (!link->queued) {
        if (!link_step(link, wait ? -1 : 0, &some)) {
            link_works(link, errp);
            return RDMA_FAILED;
        }
        if (!some) {
            return link->closed ? RDMA_ENDED : RDMA_NOTHING_YET;
        }
    }
    buffer = link->queue[0];
    memmove(link->queue, link->queue + 1, --link->queued * sizeof(unsigned));
    message->buffer = buffer;
    message->data = buffer_at(link, buffer) + sizeof(WireRdmaHead);
    /* It was found good when it arrived. */
    rdma_check_head(buffer_at(link, buffer), link->lengths[buffer],
                    &message->head, &error_abort);
    return RDMA_ARRIVED;
}

bool rdma_link_done(RdmaLink *link, const RdmaMessage *message, Error **errp)
{
    return post_receive(link, message->buffer) || link_works(link, errp);
}

/*
 * Memory
 */

static void explain_register(RdmaLink *link, const char *name, uint64_t len,
                             int code, Error **errp)
{
    struct rlimit limit = { };

    if (code == ENOMEM && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY) {
        error_setg_errno(errp, code, "RDMA device %s: ibv_reg_mr() of %" PRIu64
                         " bytes of '%s' failed: this process may lock %"
                         PRIu64 " bytes of memory, of which %" PRIu64 " are "
                         "registered; set its limit (ulimit -l, hard_limit of "
                         "libvirt's memtune) to the size of the guest and "
                         "%" PRIu64 " MiB", link->device, len, name,
                         (uint64_t)limit.rlim_cur,
                         link->counts.registered_bytes,
                         BUFFER_BYTES_MAX / MiB +
                         64);
        return;
    }
    error_setg_errno(errp, code, "RDMA device %s: ibv_reg_mr() of %" PRIu64
                     " bytes of '%s' failed, with %" PRIu64 " bytes registered "
                     "before", link->device, len, name,
                     link->counts.registered_bytes);
}

struct ibv_mr *rdma_link_register(RdmaLink *link, void *memory, uint64_t len,
                                  bool remote, const char *name,
                                  Error **errp)
{
    int access = remote ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE : 0;
    struct ibv_mr *mr = ibv_reg_mr(link->domain->pd, memory, len, access);

    if (!mr) {
        explain_register(link, name, len, errno, errp);
        return NULL;
    }
    g_ptr_array_add(link->mrs, mr);
    link->counts.registrations++;
    link->counts.registered_bytes += len;
    return mr;
}

bool rdma_link_unregister(RdmaLink *link, struct ibv_mr *mr, Error **errp)
{
    link->counts.registered_bytes -= mr->length;
    /* This calls free_mr(). */
    if (!g_ptr_array_remove_fast(link->mrs, mr)) {
        error_setg(errp, "RDMA device %s: memory that was not registered is to "
                   "be unregistered", link->device);
        return false;
    }
    return true;
}
