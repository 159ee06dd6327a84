/*
 * An RDMA device that does not exist, for tests
 *
 * Each connection is a TCP connection.  A queue pair has two threads: one sends
 * what was posted, one receives, puts it in place and acknowledges it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include "fake-verbs.h"

/* The header calls these by other names. */
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr

#define container(pointer, type, member) \
    ((type *)((char *)(pointer) - offsetof(type, member)))

#define QUEUE_MAX 4096
#define MESSAGE_MAX (1u << 30)
#define REJECTED_NO_LISTENER 8
#define REJECTED_BY_PEER 28
#define RNR_FOREVER 7

/*
 * Counting and failing
 */

static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
static VerbsCounts counts;
static int objects;
static const char *fail_name;
static unsigned fail_in;
static unsigned late_us;
static unsigned slow_in, slow_us;

static void write_counts(void)
{
    const char *path = getenv("VERBS_COUNTS");
    FILE *f = path ? fopen(path, "a") : NULL;

    if (f) {
        fprintf(f, "sends %lu\nsend_bytes %lu\nwrites %lu\nwrite_bytes %lu\n"
                "signalled %lu\nreceives %lu\nregistrations %lu\n"
                "pinned_most %lu\n", counts.sends, counts.send_bytes,
                counts.writes, counts.write_bytes, counts.signalled,
                counts.receives, counts.registrations, counts.pinned_most);
        fclose(f);
    }
}

static void __attribute__((constructor)) read_environment(void)
{
    static char name[64];
    const char *fail = getenv("VERBS_FAIL"), *late = getenv("VERBS_LATE");
    const char *slow = getenv("VERBS_SLOW");

    if (fail && sscanf(fail, "%63[^:]:%u", name, &fail_in) == 2) {
        fail_name = strcmp(name, "any") ? name : NULL;
    }
    late_us = late ? atoi(late) : 0;
    if (slow && sscanf(slow, "%u:%u", &slow_in, &slow_us) != 2) {
        slow_in = 0;
    }
    if (getenv("VERBS_COUNTS")) {
        atexit(write_counts);
    }
}

#define COUNT(member, n) \
    (pthread_mutex_lock(&state_lock), counts.member += (n), \
     pthread_mutex_unlock(&state_lock))

static void *made(void *object)
{
    __atomic_add_fetch(&objects, 1, __ATOMIC_SEQ_CST);
    return object;
}

static void unmade(void)
{
    __atomic_sub_fetch(&objects, 1, __ATOMIC_SEQ_CST);
}

/* Whether this call of @name is to fail; errno is set then. */
static bool fails(const char *name)
{
    bool now = false;

    pthread_mutex_lock(&state_lock);
    counts.calls++;
    if (fail_in && (!fail_name || !strcmp(fail_name, name))) {
        now = --fail_in == 0;
    }
    pthread_mutex_unlock(&state_lock);
    if (now) {
        errno = ENOMEM;
    }
    return now;
}

VerbsCounts verbs_counts(void)
{
    VerbsCounts now;

    pthread_mutex_lock(&state_lock);
    now = counts;
    pthread_mutex_unlock(&state_lock);
    return now;
}

void verbs_forget(void)
{
    pthread_mutex_lock(&state_lock);
    memset(&counts, 0, sizeof(counts));
    pthread_mutex_unlock(&state_lock);
}

void verbs_fail(const char *name, unsigned n)
{
    pthread_mutex_lock(&state_lock);
    fail_name = name;
    fail_in = n;
    pthread_mutex_unlock(&state_lock);
}

unsigned verbs_fail_left(void)
{
    unsigned left;

    pthread_mutex_lock(&state_lock);
    left = fail_in;
    pthread_mutex_unlock(&state_lock);
    return left;
}

void verbs_late(unsigned us)
{
    late_us = us;
}

void verbs_slow(unsigned n, unsigned us)
{
    pthread_mutex_lock(&state_lock);
    slow_in = n;
    slow_us = us;
    pthread_mutex_unlock(&state_lock);
}

/* For a queue pair that is made: by how much its writes are late */
static unsigned take_slow(void)
{
    unsigned us;

    pthread_mutex_lock(&state_lock);
    us = slow_in && --slow_in == 0 ? slow_us : 0;
    pthread_mutex_unlock(&state_lock);
    return us;
}

int verbs_objects(void)
{
    return __atomic_load_n(&objects, __ATOMIC_SEQ_CST);
}

/*
 * The device
 */

static struct ibv_device device = {
    .node_type = IBV_NODE_CA, .transport_type = IBV_TRANSPORT_IB,
    .name = "fake0", .dev_name = "fake0",
};

struct ibv_device **ibv_get_device_list(int *n)
{
    struct ibv_device **list = calloc(2, sizeof(*list));

    list[0] = &device;
    if (n) {
        *n = 1;
    }
    return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
    free(list);
}

const char *ibv_get_device_name(struct ibv_device *dev)
{
    return dev->name;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    if (fails("ibv_query_device")) {
        return errno;
    }
    memset(attr, 0, sizeof(*attr));
    attr->max_qp_wr = attr->max_cqe = QUEUE_MAX;
    return 0;
}

int ibv_query_port(struct ibv_context *context, uint8_t port,
                   struct _compat_ibv_port_attr *attr)
{
    struct ibv_port_attr *full = (struct ibv_port_attr *)attr;

    if (fails("ibv_query_port")) {
        return errno;
    }
    full->state = IBV_PORT_ACTIVE;
    full->max_msg_sz = MESSAGE_MAX;
    full->link_layer = IBV_LINK_LAYER_INFINIBAND;
    return 0;
}

const char *ibv_wc_status_str(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_SUCCESS:
        return "success";
    case IBV_WC_WR_FLUSH_ERR:
        return "Work Request Flushed Error";
    case IBV_WC_REM_ACCESS_ERR:
        return "remote access error";
    case IBV_WC_RNR_RETRY_EXC_ERR:
        return "RNR retry counter exceeded";
    case IBV_WC_RETRY_EXC_ERR:
        return "transport retry counter exceeded";
    case IBV_WC_LOC_PROT_ERR:
        return "local protection error";
    default:
        return "error";
    }
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    struct ibv_pd *pd = fails("ibv_alloc_pd") ? NULL : calloc(1, sizeof(*pd));

    if (pd) {
        pd->context = context;
        made(pd);
    }
    return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    free(pd);
    unmade();
    return 0;
}

/*
 * Memory
 */

typedef struct Region {
    struct ibv_mr base;
    int access;
    struct Region *next;
} Region;

static pthread_rwlock_t regions_lock = PTHREAD_RWLOCK_INITIALIZER;
static Region *regions;
static uint32_t next_key = 0x1000;

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
                          int access)
{
    Region *r = fails("ibv_reg_mr") ? NULL : calloc(1, sizeof(*r));

    if (!r) {
        return NULL;
    }
    r->base = (struct ibv_mr) {
        .context = pd->context, .pd = pd, .addr = addr, .length = length,
    };
    r->access = access;
    pthread_rwlock_wrlock(&regions_lock);
    r->base.lkey = r->base.rkey = next_key;
    next_key += 0x100;
    r->next = regions;
    regions = r;
    pthread_rwlock_unlock(&regions_lock);
    pthread_mutex_lock(&state_lock);
    counts.registrations++;
    counts.pinned += length;
    if (counts.pinned > counts.pinned_most) {
        counts.pinned_most = counts.pinned;
    }
    pthread_mutex_unlock(&state_lock);
    return made(&r->base);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length,
                                uint64_t iova, unsigned int access)
{
    return ibv_reg_mr(pd, addr, length, access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
    Region *r = container(mr, Region, base), **at = &regions;

    pthread_rwlock_wrlock(&regions_lock);
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    pthread_rwlock_unlock(&regions_lock);
    COUNT(pinned, -mr->length);
    free(r);
    unmade();
    return 0;
}

/*
 * Whether @len bytes at @addr may be used with @key; under regions_lock.  No
 * bytes need no key.
 */
static bool key_fits(uint32_t key, uint64_t addr, uint64_t len, int access,
                     struct ibv_pd *pd)
{
    if (!len) {
        return true;
    }
    for (Region *r = regions; r; r = r->next) {
        if (r->base.lkey == key) {
            uint64_t start = (uintptr_t)r->base.addr;

            return r->base.pd == pd && (r->access & access) == access &&
                   addr >= start && addr - start <= r->base.length &&
                   len <= r->base.length - (addr - start);
        }
    }
    return false;
}

/*
 * Completions
 */

typedef struct Queue Queue;

typedef struct Channel {
    struct ibv_comp_channel base;
    pthread_mutex_t lock;
    Queue *waiting[QUEUE_MAX];
    unsigned count;
} Channel;

struct Queue {
    struct ibv_cq base;
    pthread_mutex_t lock;
    bool armed;
    unsigned first, count, size;
    unsigned events, acked;     /* taken by ibv_get_cq_event() */
    struct ibv_wc wc[];
};

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    Channel *c = fails("ibv_create_comp_channel") ? NULL
                                                  : calloc(1, sizeof(*c));

    if (!c) {
        return NULL;
    }
    c->base.context = context;
    c->base.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    pthread_mutex_init(&c->lock, NULL);
    return made(&c->base);
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    close(channel->fd);
    free(container(channel, Channel, base));
    unmade();
    return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *opaque,
                             struct ibv_comp_channel *channel, int vector)
{
    Queue *q = fails("ibv_create_cq") ? NULL
               : calloc(1, sizeof(*q) + cqe * sizeof(struct ibv_wc));

    if (!q) {
        return NULL;
    }
    q->base.context = context;
    q->base.channel = channel;
    q->base.cq_context = opaque;
    q->size = cqe;
    pthread_mutex_init(&q->lock, NULL);
    return made(&q->base);
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
    Queue *q = container(cq, Queue, base);
    Channel *c = container(cq->channel, Channel, base);
    unsigned kept = 0;

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->count; i++) {
        if (c->waiting[i] != q) {
            c->waiting[kept++] = c->waiting[i];
        }
    }
    c->count = kept;
    pthread_mutex_unlock(&c->lock);
    if (q->events != q->acked) {
        fprintf(stderr, "fake-verbs: events of a queue were not acked\n");
        abort();
    }
    free(q);
    unmade();
    return 0;
}

static void push(Queue *q, const struct ibv_wc *wc)
{
    Channel *c = container(q->base.channel, Channel, base);
    uint64_t one = 1;

    pthread_mutex_lock(&q->lock);
    if (q->count == q->size) {
        fprintf(stderr, "fake-verbs: a completion queue overflows\n");
        abort();
    }
    q->wc[(q->first + q->count++) % q->size] = *wc;
    if (q->armed) {
        q->armed = false;
        pthread_mutex_lock(&c->lock);
        c->waiting[c->count++] = q;
        pthread_mutex_unlock(&c->lock);
        if (write(c->base.fd, &one, sizeof(one)) < 0) {
            abort();
        }
    }
    pthread_mutex_unlock(&q->lock);
}

static int poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
    Queue *q = container(cq, Queue, base);
    int got = 0;

    if (fails("ibv_poll_cq")) {
        return -1;
    }
    pthread_mutex_lock(&q->lock);
    while (got < n && q->count) {
        wc[got++] = q->wc[q->first];
        q->first = (q->first + 1) % q->size;
        q->count--;
    }
    pthread_mutex_unlock(&q->lock);
    return got;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited)
{
    Queue *q = container(cq, Queue, base);

    if (fails("ibv_req_notify_cq")) {
        return errno;
    }
    pthread_mutex_lock(&q->lock);
    q->armed = true;
    pthread_mutex_unlock(&q->lock);
    return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq,
                     void **opaque)
{
    Channel *c = container(channel, Channel, base);
    uint64_t one;

    if (fails("ibv_get_cq_event") ||
        read(channel->fd, &one, sizeof(one)) != sizeof(one)) {
        return -1;
    }
    pthread_mutex_lock(&c->lock);
    *cq = &c->waiting[0]->base;
    c->waiting[0]->events++;
    memmove(c->waiting, c->waiting + 1, --c->count * sizeof(c->waiting[0]));
    pthread_mutex_unlock(&c->lock);
    *opaque = (*cq)->cq_context;
    return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
    container(cq, Queue, base)->acked += n;
}

/*
 * Queue pairs
 */

typedef enum FrameType {
    FRAME_REQUEST = 1,          /* of a connection */
    FRAME_REPLY,
    FRAME_REJECT,
    FRAME_USE,                  /* the reply has arrived */
    FRAME_USED,                 /* and that was told */
    FRAME_SEND,
    FRAME_WRITE,
    FRAME_ACK,
    FRAME_NAK,
    FRAME_BYE,
} FrameType;

typedef struct Frame {
    uint32_t type;
    uint32_t len;               /* bytes that follow */
    uint64_t number;            /* of a work request; of a NAK, its status */
    uint64_t address;
    uint32_t key;
    uint32_t unused;
} Frame;

typedef struct Work {
    uint64_t id;
    struct ibv_sge sge;
    uint64_t address;
    uint32_t key;
    FrameType type;
    bool signalled;
} Work;

typedef struct Pair {
    struct ibv_qp base;
    pthread_mutex_t lock;       /* of what follows */
    pthread_cond_t changed;
    Work sends[QUEUE_MAX], receives[QUEUE_MAX];
    uint64_t posted, sent, done;        /* sends, counted from 0 */
    uint64_t written;                   /* of those sent, which are read */
    uint64_t received_posted, received; /* receives */
    unsigned max_sends, max_receives;
    bool dead;                  /* all that is posted is flushed */
    bool running;
    bool rnr_fails;             /* of messages that arrive here */
    unsigned slow_us;           /* writes that arrive here are so late */
    int fd;
    pthread_mutex_t write_lock;
    pthread_t sender, receiver;
    bool has_sender, has_receiver;
} Pair;

static bool write_all(int fd, struct iovec *iov, int n)
{
    while (n) {
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
        ssize_t len = sendmsg(fd, &m, MSG_NOSIGNAL);

        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len <= 0) {
            return false;
        }
        while (n && (size_t)len >= iov->iov_len) {
            len -= iov->iov_len;
            iov++;
            n--;
        }
        if (n) {
            iov->iov_base = (char *)iov->iov_base + len;
            iov->iov_len -= len;
        }
    }
    return true;
}

static bool read_all(int fd, void *to, size_t len)
{
    while (len) {
        ssize_t n = recv(fd, to, len, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        to = (char *)to + n;
        len -= n;
    }
    return true;
}

static bool send_frame(int fd, pthread_mutex_t *lock, const Frame *frame,
                       const void *data)
{
    struct iovec iov[] = {
        { (void *)frame, sizeof(*frame) }, { (void *)data, frame->len },
    };
    bool ok;

    if (lock) {
        pthread_mutex_lock(lock);
    }
    ok = write_all(fd, iov, frame->len ? 2 : 1);
    if (lock) {
        pthread_mutex_unlock(lock);
    }
    return ok;
}

static void complete(Pair *p, const Work *w, enum ibv_wc_status status)
{
    struct ibv_wc wc = {
        .wr_id = w->id, .status = status, .qp_num = p->base.qp_num,
        .opcode = w->type == FRAME_SEND ? IBV_WC_SEND : IBV_WC_RDMA_WRITE,
    };

    if (w->signalled || status != IBV_WC_SUCCESS) {
        if (status == IBV_WC_SUCCESS) {
            COUNT(signalled, 1);
        }
        push(container(p->base.send_cq, Queue, base), &wc);
    }
}

/* Under p->lock: nothing more goes this way. */
static void kill_pair(Pair *p, enum ibv_wc_status first)
{
    p->dead = true;
    while (p->done < p->posted) {
        complete(p, &p->sends[p->done++ % QUEUE_MAX], first);
        first = IBV_WC_WR_FLUSH_ERR;
    }
    while (p->received < p->received_posted) {
        Work *w = &p->receives[p->received++ % QUEUE_MAX];
        struct ibv_wc wc = {
            .wr_id = w->id, .status = IBV_WC_WR_FLUSH_ERR,
        };

        push(container(p->base.recv_cq, Queue, base), &wc);
    }
    pthread_cond_broadcast(&p->changed);
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr,
                     struct ibv_send_wr **bad)
{
    Pair *p = container(qp, Pair, base);
    int ret = 0;

    if (fails("ibv_post_send")) {
        return errno;
    }
    pthread_mutex_lock(&p->lock);
    if (p->posted - p->done >= p->max_sends) {
        ret = ENOMEM;
    } else if (!p->running && !p->dead) {
        ret = EINVAL;
    } else {
        p->sends[p->posted++ % QUEUE_MAX] = (Work) {
            .id = wr->wr_id,
            .sge = wr->num_sge ? wr->sg_list[0] : (struct ibv_sge) { 0 },
            .address = wr->wr.rdma.remote_addr, .key = wr->wr.rdma.rkey,
            .type = wr->opcode == IBV_WR_SEND ? FRAME_SEND : FRAME_WRITE,
            .signalled = wr->send_flags & IBV_SEND_SIGNALED,
        };
        if (p->dead) {
            kill_pair(p, IBV_WC_WR_FLUSH_ERR);
        }
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    if (ret && bad) {
        *bad = wr;
    }
    return ret;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr,
                     struct ibv_recv_wr **bad)
{
    Pair *p = container(qp, Pair, base);
    int ret = 0;

    if (fails("ibv_post_recv")) {
        return errno;
    }
    pthread_mutex_lock(&p->lock);
    if (p->received_posted - p->received >= p->max_receives) {
        ret = ENOMEM;
    } else {
        p->receives[p->received_posted++ % QUEUE_MAX] = (Work) {
            .id = wr->wr_id, .sge = wr->sg_list[0],
        };
        if (p->dead) {
            kill_pair(p, IBV_WC_WR_FLUSH_ERR);
        }
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    return ret;
}

static void *send_thread(void *opaque)
{
    Pair *p = opaque;

    pthread_mutex_lock(&p->lock);
    while (!p->dead) {
        Work w;
        Frame frame;
        bool fits, ok = true;

        if (p->sent == p->posted) {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        w = p->sends[p->sent % QUEUE_MAX];
        frame = (Frame) {
            .type = w.type, .len = w.sge.length, .number = p->sent++,
            .address = w.address, .key = w.key,
        };
        pthread_mutex_unlock(&p->lock);
        pthread_rwlock_rdlock(&regions_lock);
        fits = key_fits(w.sge.lkey, w.sge.addr, w.sge.length, 0, p->base.pd);
        pthread_rwlock_unlock(&regions_lock);
        if (fits) {
            ok = send_frame(p->fd, &p->write_lock, &frame,
                            (void *)(uintptr_t)w.sge.addr);
            COUNT(writes_read, w.type == FRAME_WRITE);
        }
        pthread_mutex_lock(&p->lock);
        p->written = p->sent;
        pthread_cond_broadcast(&p->changed);
        if ((!fits || !ok) && !p->dead) {
            kill_pair(p, fits ? IBV_WC_RETRY_EXC_ERR : IBV_WC_LOC_PROT_ERR);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool skip_data(int fd, uint32_t len)
{
    static __thread char waste[4096];

    while (len) {
        uint32_t n = len < sizeof(waste) ? len : sizeof(waste);

        if (!read_all(fd, waste, n)) {
            return false;
        }
        len -= n;
    }
    return true;
}

static bool answer_data(Pair *p, const Frame *f, enum ibv_wc_status status)
{
    bool good = status == IBV_WC_SUCCESS;
    Frame answer = {
        .type = good ? FRAME_ACK : FRAME_NAK,
        .number = good ? f->number : status,
    };

    return send_frame(p->fd, &p->write_lock, &answer, NULL);
}

/* Where a slow write waits until it is put in place; NULL: the peer has gone */
static void *take_slowly(Pair *p, const Frame *f)
{
    void *data = malloc(f->len ? f->len : 1);

    if (!data || !read_all(p->fd, data, f->len)) {
        free(data);
        return NULL;
    }
    usleep(p->slow_us);
    return data;
}

static bool take_slow_write(Pair *p, const Frame *f)
{
    void *data = take_slowly(p, f);
    bool fits;

    if (!data) {
        return false;
    }
    pthread_rwlock_rdlock(&regions_lock);
    fits = key_fits(f->key, f->address, f->len, IBV_ACCESS_REMOTE_WRITE,
                    p->base.pd);
    if (fits) {
        memcpy((void *)(uintptr_t)f->address, data, f->len);
    }
    pthread_rwlock_unlock(&regions_lock);
    free(data);
    return answer_data(p, f, fits ? IBV_WC_SUCCESS : IBV_WC_REM_ACCESS_ERR);
}

static bool take_write(Pair *p, const Frame *f)
{
    bool fits, ok;

    if (p->slow_us) {
        return take_slow_write(p, f);
    }
    /* It may not be unregistered while it is written to. */
    pthread_rwlock_rdlock(&regions_lock);
    fits = key_fits(f->key, f->address, f->len, IBV_ACCESS_REMOTE_WRITE,
                    p->base.pd);
    ok = fits ? read_all(p->fd, (void *)(uintptr_t)f->address, f->len)
              : skip_data(p->fd, f->len);
    pthread_rwlock_unlock(&regions_lock);
    return ok && answer_data(p, f, fits ? IBV_WC_SUCCESS
                                        : IBV_WC_REM_ACCESS_ERR);
}

static bool take_send(Pair *p, const Frame *f)
{
    struct ibv_wc wc;
    Work w;

    pthread_mutex_lock(&p->lock);
    while (p->received == p->received_posted && !p->dead &&
           !p->rnr_fails) {
        pthread_cond_wait(&p->changed, &p->lock);
    }
    if (p->dead || p->received == p->received_posted) {
        pthread_mutex_unlock(&p->lock);
        return skip_data(p->fd, f->len) &&
               answer_data(p, f, IBV_WC_RNR_RETRY_EXC_ERR);
    }
    w = p->receives[p->received++ % QUEUE_MAX];
    pthread_mutex_unlock(&p->lock);
    wc = (struct ibv_wc) {
        .wr_id = w.id, .status = IBV_WC_SUCCESS, .opcode = IBV_WC_RECV,
        .byte_len = f->len, .qp_num = p->base.qp_num,
    };
    if (f->len > w.sge.length) {
        return skip_data(p->fd, f->len) &&
               answer_data(p, f, IBV_WC_REM_INV_REQ_ERR);
    }
    /* The device has answered before the program learns of it. */
    if (!read_all(p->fd, (void *)(uintptr_t)w.sge.addr, f->len) ||
        !answer_data(p, f, IBV_WC_SUCCESS)) {
        return false;
    }
    COUNT(receives, 1);
    if (late_us) {
        usleep(late_us);
    }
    push(container(p->base.recv_cq, Queue, base), &wc);
    return true;
}

static void take_ack(Pair *p, const Frame *f)
{
    if (late_us) {
        usleep(late_us);
    }
    pthread_mutex_lock(&p->lock);
    while (!p->dead && p->written <= f->number) {
        pthread_cond_wait(&p->changed, &p->lock);
    }
    while (!p->dead && p->done <= f->number) {
        Work w = p->sends[p->done++ % QUEUE_MAX];

        if (w.type == FRAME_SEND) {
            COUNT(sends, 1);
            COUNT(send_bytes, w.sge.length);
        } else {
            COUNT(writes, 1);
            COUNT(write_bytes, w.sge.length);
        }
        complete(p, &w, IBV_WC_SUCCESS);
    }
    pthread_mutex_unlock(&p->lock);
}

/* Until the other side has gone */
static void receive_frames(Pair *p)
{
    Frame f;

    while (read_all(p->fd, &f, sizeof(f))) {
        switch (f.type) {
        case FRAME_SEND:
        case FRAME_WRITE:
            if (!(f.type == FRAME_WRITE ? take_write(p, &f)
                                        : take_send(p, &f))) {
                return;
            }
            break;
        case FRAME_ACK:
            take_ack(p, &f);
            break;
        case FRAME_NAK:
            pthread_mutex_lock(&p->lock);
            kill_pair(p, f.number);
            pthread_mutex_unlock(&p->lock);
            break;
        default:
            return;
        }
    }
}

static void start_pair(Pair *p, int fd)
{
    pthread_mutex_lock(&p->lock);
    p->fd = fd;
    p->running = true;
    pthread_mutex_unlock(&p->lock);
    p->has_sender = true;
    pthread_create(&p->sender, NULL, send_thread, p);
}

/*
 * Events of connections
 */

typedef struct Event {
    struct rdma_cm_event base;
    struct Event *next;
    uint8_t data[64];
} Event;

/* It may be destroyed before the IDs that use it. */
typedef struct Events {
    struct rdma_event_channel base;
    pthread_mutex_t lock;
    Event *first;
    bool closed;
    int users;
} Events;

typedef struct Id {
    struct rdma_cm_id base;
    pthread_mutex_t lock;
    Events *events;             /* of base.channel */
    struct sockaddr_storage address;
    socklen_t address_len;
    int fd;
    pthread_t thread;           /* that listens, or connects and receives */
    bool has_thread;
    bool connected;             /* atomic */
    struct rdma_conn_param param;
    uint8_t data[64];
} Id;

struct rdma_event_channel *rdma_create_event_channel(void)
{
    Events *e = fails("rdma_create_event_channel") ? NULL
                                                   : calloc(1, sizeof(*e));

    if (!e) {
        return NULL;
    }
    e->base.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    e->users = 1;
    pthread_mutex_init(&e->lock, NULL);
    return made(&e->base);
}

static Events *use_events(struct rdma_event_channel *channel)
{
    Events *e = container(channel, Events, base);

    __atomic_add_fetch(&e->users, 1, __ATOMIC_SEQ_CST);
    return e;
}

static void leave_events(Events *e)
{
    if (__atomic_sub_fetch(&e->users, 1, __ATOMIC_SEQ_CST)) {
        return;
    }
    free(e);
    unmade();
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
    Events *e = container(channel, Events, base);
    Event *event, *next;

    pthread_mutex_lock(&e->lock);
    e->closed = true;
    close(channel->fd);
    event = e->first;
    e->first = NULL;
    pthread_mutex_unlock(&e->lock);
    for (; event; event = next) {
        next = event->next;
        if (event->base.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
            rdma_destroy_id(event->base.id);
        }
        free(event);
    }
    leave_events(e);
}

static void queue_event(Events *e, Event *event)
{
    Event **at = &e->first;
    uint64_t one = 1;

    pthread_mutex_lock(&e->lock);
    if (e->closed) {
        free(event);
    } else {
        while (*at) {
            at = &(*at)->next;
        }
        *at = event;
        if (write(e->base.fd, &one, sizeof(one)) < 0) {
            abort();
        }
    }
    pthread_mutex_unlock(&e->lock);
}

static void tell(Id *id, struct rdma_cm_id *listener,
                 enum rdma_cm_event_type type, int status, const void *data,
                 size_t len)
{
    Event *event = calloc(1, sizeof(*event));
    Events *e;

    event->base.event = type;
    event->base.status = status;
    event->base.id = &id->base;
    event->base.listen_id = listener;
    if (data) {
        memcpy(event->data, data, len);
        event->base.param.conn.private_data = event->data;
        event->base.param.conn.private_data_len = sizeof(event->data);
    }
    pthread_mutex_lock(&id->lock);
    e = id->events;
    __atomic_add_fetch(&e->users, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&id->lock);
    /* Who gets the event may destroy the ID. */
    queue_event(e, event);
    leave_events(e);
}

int rdma_get_cm_event(struct rdma_event_channel *channel,
                      struct rdma_cm_event **event)
{
    Events *e = container(channel, Events, base);
    uint64_t one;

    if (fails("rdma_get_cm_event") ||
        read(channel->fd, &one, sizeof(one)) != sizeof(one)) {
        return -1;
    }
    pthread_mutex_lock(&e->lock);
    *event = &e->first->base;
    e->first = e->first->next;
    pthread_mutex_unlock(&e->lock);
    return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
    free(container(event, Event, base));
    return 0;
}

const char *rdma_event_str(enum rdma_cm_event_type type)
{
    static const char *const names[] = {
        [RDMA_CM_EVENT_ADDR_RESOLVED] = "RDMA_CM_EVENT_ADDR_RESOLVED",
        [RDMA_CM_EVENT_CONNECT_REQUEST] = "RDMA_CM_EVENT_CONNECT_REQUEST",
        [RDMA_CM_EVENT_REJECTED] = "RDMA_CM_EVENT_REJECTED",
        [RDMA_CM_EVENT_ESTABLISHED] = "RDMA_CM_EVENT_ESTABLISHED",
        [RDMA_CM_EVENT_DISCONNECTED] = "RDMA_CM_EVENT_DISCONNECTED",
        [RDMA_CM_EVENT_TIMEWAIT_EXIT] = NULL,
    };

    return names[type] ?: "an event";
}

/*
 * Connections
 */

static struct ibv_context context = {
    .device = &device,
    .ops = {
        .poll_cq = poll_cq, .req_notify_cq = req_notify_cq,
        .post_send = post_send, .post_recv = post_recv,
    },
};

struct ibv_context *ibv_open_device(struct ibv_device *dev)
{
    return &context;
}

int ibv_close_device(struct ibv_context *c)
{
    return 0;
}

static Id *new_id(struct rdma_event_channel *channel)
{
    Id *id = calloc(1, sizeof(*id));

    id->base.channel = channel;
    id->events = use_events(channel);
    id->base.ps = RDMA_PS_TCP;
    id->fd = -1;
    pthread_mutex_init(&id->lock, NULL);
    return made(id);
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id,
                   void *opaque, enum rdma_port_space ps)
{
    if (fails("rdma_create_id")) {
        return -1;
    }
    *id = &new_id(channel)->base;
    (*id)->context = opaque;
    return 0;
}

int rdma_migrate_id(struct rdma_cm_id *base, struct rdma_event_channel *channel)
{
    Id *id = container(base, Id, base);

    if (fails("rdma_migrate_id")) {
        return -1;
    }
    pthread_mutex_lock(&id->lock);
    leave_events(id->events);
    base->channel = channel;
    id->events = use_events(channel);
    pthread_mutex_unlock(&id->lock);
    return 0;
}

int rdma_getaddrinfo(const char *node, const char *service,
                     const struct rdma_addrinfo *hints,
                     struct rdma_addrinfo **found)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list;
    struct rdma_addrinfo *a;

    if (fails("rdma_getaddrinfo") ||
        getaddrinfo(node, service, &want, &list)) {
        return -1;
    }
    a = calloc(1, sizeof(*a));
    a->ai_family = list->ai_family;
    a->ai_dst_len = list->ai_addrlen;
    a->ai_dst_addr = malloc(list->ai_addrlen);
    memcpy(a->ai_dst_addr, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    *found = a;
    return 0;
}

void rdma_freeaddrinfo(struct rdma_addrinfo *a)
{
    free(a->ai_dst_addr);
    free(a);
}

int rdma_set_option(struct rdma_cm_id *id, int level, int name, void *value,
                    size_t len)
{
    return 0;
}

static void set_address(Id *id, const struct sockaddr *address)
{
    id->address_len = address->sa_family == AF_INET6
                      ? sizeof(struct sockaddr_in6)
                      : sizeof(struct sockaddr_in);
    memcpy(&id->address, address, id->address_len);
    id->base.verbs = &context;
    id->base.port_num = 1;
}

int rdma_bind_addr(struct rdma_cm_id *base, struct sockaddr *address)
{
    if (fails("rdma_bind_addr")) {
        return -1;
    }
    set_address(container(base, Id, base), address);
    return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *base, struct sockaddr *from,
                      struct sockaddr *to, int ms)
{
    Id *id = container(base, Id, base);

    if (fails("rdma_resolve_addr")) {
        return -1;
    }
    set_address(id, to);
    tell(id, NULL, RDMA_CM_EVENT_ADDR_RESOLVED, 0, NULL, 0);
    return 0;
}

int rdma_resolve_route(struct rdma_cm_id *base, int ms)
{
    if (fails("rdma_resolve_route")) {
        return -1;
    }
    tell(container(base, Id, base), NULL, RDMA_CM_EVENT_ROUTE_RESOLVED, 0, NULL,
         0);
    return 0;
}

int rdma_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd,
                   struct ibv_qp_init_attr *attr)
{
    Pair *p = fails("rdma_create_qp") ? NULL : calloc(1, sizeof(*p));
    static uint32_t number;

    if (!p) {
        return -1;
    }
    p->base.context = &context;
    p->base.pd = pd;
    p->base.send_cq = attr->send_cq;
    p->base.recv_cq = attr->recv_cq;
    p->base.qp_num = ++number;
    p->max_sends = attr->cap.max_send_wr;
    p->max_receives = attr->cap.max_recv_wr;
    p->slow_us = take_slow();
    p->fd = -1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->write_lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    id->qp = &p->base;
    id->pd = pd;
    made(p);
    return 0;
}

static Pair *pair_of(Id *id)
{
    return id->base.qp ? container(id->base.qp, Pair, base) : NULL;
}

static void stop_threads(Id *id)
{
    Pair *p = pair_of(id);

    if (id->fd >= 0) {
        shutdown(id->fd, SHUT_RDWR);
    }
    if (p) {
        pthread_mutex_lock(&p->lock);
        kill_pair(p, IBV_WC_WR_FLUSH_ERR);
        pthread_mutex_unlock(&p->lock);
        if (p->has_sender) {
            pthread_join(p->sender, NULL);
            p->has_sender = false;
        }
    }
    if (id->has_thread) {
        pthread_join(id->thread, NULL);
        id->has_thread = false;
    }
}

void rdma_destroy_qp(struct rdma_cm_id *base)
{
    Id *id = container(base, Id, base);

    stop_threads(id);
    free(pair_of(id));
    base->qp = NULL;
    unmade();
}

int rdma_destroy_id(struct rdma_cm_id *base)
{
    Id *id = container(base, Id, base);

    stop_threads(id);
    if (id->fd >= 0) {
        close(id->fd);
    }
    leave_events(id->events);
    free(id);
    unmade();
    return 0;
}

static bool send_private(Id *id, FrameType type,
                         const struct rdma_conn_param *param)
{
    Frame f = {
        .type = type, .len = param ? param->private_data_len : 0,
    };

    return send_frame(id->fd, NULL, &f, param ? param->private_data : NULL);
}

/* A request or a reply */
static bool read_private(Id *id, Frame *f, uint8_t *data)
{
    if (data) {
        memset(data, 0, 64);
    }
    return read_all(id->fd, f, sizeof(*f)) && f->len <= 64 &&
           read_all(id->fd, data, f->len);
}

static void no_delay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* As long as there is a connection */
static void carry(Id *id)
{
    Pair *p = pair_of(id);

    if (p) {
        receive_frames(p);
    }
    tell(id, NULL, RDMA_CM_EVENT_DISCONNECTED, 0, NULL, 0);
}

static void *connect_thread(void *opaque)
{
    Id *id = opaque;
    Pair *p = pair_of(id);
    uint8_t data[64];
    Frame f, used;

    no_delay(id->fd);
    if (connect(id->fd, (struct sockaddr *)&id->address, id->address_len) < 0) {
        tell(id, NULL, RDMA_CM_EVENT_REJECTED, REJECTED_NO_LISTENER, NULL, 0);
        return NULL;
    }
    if (!send_private(id, FRAME_REQUEST, &id->param) ||
        !read_private(id, &f, data) || f.type != FRAME_REPLY) {
        tell(id, NULL, RDMA_CM_EVENT_REJECTED, REJECTED_BY_PEER, NULL, 0);
        return NULL;
    }
    p->rnr_fails = id->param.rnr_retry_count != RNR_FOREVER;
    if (!send_private(id, FRAME_USE, NULL) ||
        !read_private(id, &used, NULL)) {
        tell(id, NULL, RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET, NULL, 0);
        return NULL;
    }
    start_pair(p, id->fd);
    __atomic_store_n(&id->connected, true, __ATOMIC_SEQ_CST);
    tell(id, NULL, RDMA_CM_EVENT_ESTABLISHED, 0, data, f.len);
    carry(id);
    return NULL;
}

static void copy_param(Id *id, const struct rdma_conn_param *param)
{
    id->param = *param;
    memcpy(id->data, param->private_data, param->private_data_len);
    id->param.private_data = id->data;
}

int rdma_connect(struct rdma_cm_id *base, struct rdma_conn_param *param)
{
    Id *id = container(base, Id, base);

    if (fails("rdma_connect")) {
        return -1;
    }
    copy_param(id, param);
    id->fd = socket(id->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    id->has_thread = true;
    pthread_create(&id->thread, NULL, connect_thread, id);
    return 0;
}

static void *accepted_thread(void *opaque)
{
    Id *id = opaque;
    Pair *p = pair_of(id);
    Frame f;

    if (read_all(id->fd, &f, sizeof(f)) && f.type == FRAME_USE) {
        __atomic_store_n(&id->connected, true, __ATOMIC_SEQ_CST);
        /* What is sent because of the event comes after that. */
        pthread_mutex_lock(&p->write_lock);
        tell(id, NULL, RDMA_CM_EVENT_ESTABLISHED, 0, NULL, 0);
        f.type = FRAME_USED;
        send_frame(id->fd, NULL, &f, NULL);
        pthread_mutex_unlock(&p->write_lock);
        carry(id);
    } else {
        tell(id, NULL, RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET, NULL, 0);
    }
    return NULL;
}

int rdma_accept(struct rdma_cm_id *base, struct rdma_conn_param *param)
{
    Id *id = container(base, Id, base);
    Pair *p = pair_of(id);

    if (fails("rdma_accept")) {
        return -1;
    }
    p->rnr_fails = param->rnr_retry_count != RNR_FOREVER;
    if (!send_private(id, FRAME_REPLY, param)) {
        errno = ECONNRESET;
        return -1;
    }
    start_pair(p, id->fd);
    id->has_thread = true;
    pthread_create(&id->thread, NULL, accepted_thread, id);
    return 0;
}

int rdma_reject(struct rdma_cm_id *base, const void *data, uint8_t len)
{
    Id *id = container(base, Id, base);

    send_private(id, FRAME_REJECT, NULL);
    return 0;
}

int rdma_disconnect(struct rdma_cm_id *base)
{
    Id *id = container(base, Id, base);
    Pair *p = pair_of(id);
    Frame bye = { .type = FRAME_BYE };

    if (!__atomic_load_n(&id->connected, __ATOMIC_SEQ_CST) || !p) {
        errno = EINVAL;
        return -1;
    }
    send_frame(id->fd, &p->write_lock, &bye, NULL);
    pthread_mutex_lock(&p->lock);
    kill_pair(p, IBV_WC_WR_FLUSH_ERR);
    pthread_mutex_unlock(&p->lock);
    shutdown(id->fd, SHUT_WR);
    return 0;
}

static void *listen_thread(void *opaque)
{
    Id *listener = opaque;

    for (;;) {
        int fd = accept(listener->fd, NULL, NULL);
        uint8_t data[64];
        Frame f;
        Id *id;

        if (fd < 0) {
            return NULL;
        }
        no_delay(fd);
        id = new_id(listener->base.channel);
        id->fd = fd;
        id->base.verbs = &context;
        id->base.port_num = 1;
        if (!read_private(id, &f, data) || f.type != FRAME_REQUEST) {
            rdma_destroy_id(&id->base);
            continue;
        }
        tell(id, &listener->base, RDMA_CM_EVENT_CONNECT_REQUEST, 0, data,
             f.len);
    }
}

int rdma_listen(struct rdma_cm_id *base, int backlog)
{
    Id *id = container(base, Id, base);
    int on = 1;

    if (fails("rdma_listen")) {
        return -1;
    }
    id->fd = socket(id->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(id->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(id->fd, (struct sockaddr *)&id->address, id->address_len) < 0 ||
        listen(id->fd, backlog) < 0) {
        return -1;
    }
    id->has_thread = true;
    pthread_create(&id->thread, NULL, listen_thread, id);
    return 0;
}
