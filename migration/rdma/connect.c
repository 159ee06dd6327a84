/*
 * From an address to RDMA links: the side that connects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "connect.h"

/* How long an address or a route may take to be found */
#define RESOLVE_MS (10 * 1000)
/* How long the other side may take to answer */
#define ANSWER_MS (10 * 1000)

/* Times a packet is sent again */
#define RETRIES 7

typedef struct Connecting {
    struct rdma_event_channel *events;
    const bool *called_off;     /* atomic: nobody waits for it any more */
} Connecting;

struct rdma_addrinfo *rdma_look_up(const InetSocketAddress *at, Error **errp)
{
    struct rdma_addrinfo *found = NULL;

    if (rdma_getaddrinfo(at->host, at->port, NULL, &found) || !found) {
        error_setg_errno(errp, errno, "rdma_getaddrinfo(): '%s', port '%s' is "
                         "no address of this or another host", at->host,
                         at->port);
        return NULL;
    }
    return found;
}

/* The kernel's reasons of the other side, of which these are common */
#define REJECT_NO_LISTENER 8
#define REJECT_BY_PEER 28

void rdma_explain_event(const struct rdma_cm_event *event, Error **errp)
{
    const char *name = rdma_event_str(event->event);
    int status = event->status;

    switch (event->event) {
    case RDMA_CM_EVENT_REJECTED:
        if (status == REJECT_NO_LISTENER || status == -ECONNREFUSED) {
            error_setg(errp, "the connection was rejected: no QEMU listens at "
                       "this address and port, which needs -incoming "
                       "rdma:HOST:PORT there");
        } else if (status == REJECT_BY_PEER) {
            error_setg(errp, "the connection was rejected by the destination; "
                       "its messages say why");
        } else {
            error_setg(errp, "the connection was rejected (reason %d)",
                       status);
        }
        return;
    case RDMA_CM_EVENT_ADDR_ERROR:
        error_setg_errno(errp, -status, "no RDMA device leads to this address; "
                         "'rdma link show' lists them");
        return;
    case RDMA_CM_EVENT_UNREACHABLE:
        error_setg_errno(errp, -status, "the destination does not answer");
        return;
    default:
        error_setg(errp, "%s (status %d)", name, status);
    }
}

/* False if there is none within @ms, or nobody waits for it any more */
static bool wait_event(const Connecting *c, int ms,
                       struct rdma_cm_event **event, Error **errp)
{
    struct pollfd p = { .fd = c->events->fd, .events = POLLIN };
    int64_t end = g_get_monotonic_time() + ms * 1000LL;

    while (RETRY_ON_EINTR(poll(&p, 1, RDMA_LOOK_MS)) <= 0) {
        if (qatomic_read(c->called_off)) {
            error_setg(errp, "nobody waits for it any more");
            return false;
        }
        if (g_get_monotonic_time() >= end) {
            error_setg(errp, "there is no answer within %d s", ms / 1000);
            return false;
        }
    }
    if (rdma_get_cm_event(c->events, event) < 0) {
        error_setg_errno(errp, errno, "rdma_get_cm_event() failed");
        return false;
    }
    return true;
}

static bool expect_event(const Connecting *c, enum rdma_cm_event_type type,
                         int ms, Error **errp)
{
    struct rdma_cm_event *event;
    bool ok;

    if (!wait_event(c, ms, &event, errp)) {
        return false;
    }
    ok = event->event == type;
    if (!ok) {
        rdma_explain_event(event, errp);
    }
    rdma_ack_cm_event(event);
    return ok;
}

static bool resolve_one(const Connecting *c, struct rdma_cm_id *id,
                        struct sockaddr *to, Error **errp)
{
    if (rdma_resolve_addr(id, NULL, to, RESOLVE_MS) < 0) {
        error_setg_errno(errp, errno, "rdma_resolve_addr() failed: no RDMA "
                         "device leads to this address; 'rdma link show' lists "
                         "them");
        return false;
    }
    return expect_event(c, RDMA_CM_EVENT_ADDR_RESOLVED, RESOLVE_MS + 1000,
                        errp);
}

static bool find_route(const Connecting *c, struct rdma_cm_id *id,
                       Error **errp)
{
    if (rdma_resolve_route(id, RESOLVE_MS) < 0) {
        error_setg_errno(errp, errno, "rdma_resolve_route() failed");
        return false;
    }
    return expect_event(c, RDMA_CM_EVENT_ROUTE_RESOLVED, RESOLVE_MS + 1000,
                        errp);
}

/* An ID that leads to one of the addresses; the last failure is told. */
static struct rdma_cm_id *resolve(const Connecting *c,
                                  const InetSocketAddress *to, Error **errp)
{
    struct rdma_addrinfo *found = rdma_look_up(to, errp);
    struct rdma_cm_id *id = NULL;
    Error *err = NULL;

    if (!found) {
        return NULL;
    }
    for (struct rdma_addrinfo *a = found; a && !id; a = a->ai_next) {
        g_clear_pointer(&err, error_free);
        if (rdma_create_id(c->events, &id, NULL, RDMA_PS_TCP) < 0) {
            id = NULL;
            error_setg_errno(&err, errno, "rdma_create_id() failed");
        } else if (!resolve_one(c, id, a->ai_dst_addr, &err) ||
                   !find_route(c, id, &err)) {
            rdma_destroy_id(id);
            id = NULL;
        }
    }
    rdma_freeaddrinfo(found);
    error_propagate(errp, err);
    return id;
}

static bool connect_answered(const Connecting *c, RdmaHello *hello,
                             Error **errp)
{
    struct rdma_cm_event *event;
    RdmaHello granted = { };
    bool ok;

    if (!wait_event(c, ANSWER_MS, &event, errp)) {
        return false;
    }
    ok = event->event == RDMA_CM_EVENT_ESTABLISHED;
    if (ok) {
        ok = rdma_check_hello(event->param.conn.private_data,
                              event->param.conn.private_data_len, &granted,
                              errp);
    } else {
        rdma_explain_event(event, errp);
    }
    rdma_ack_cm_event(event);
    hello->pin_all = hello->pin_all && granted.pin_all;
    hello->peers = hello->peers && granted.peers;
    hello->copies = hello->copies && granted.copies;
    hello->more = MIN(hello->more, granted.more);
    hello->writes_only = hello->writes_only && granted.writes_only;
    hello->window = hello->window && granted.window;
    if (hello->peers) {
        /* One that does not know of it has the smallest one. */
        hello->chunk_bits = granted.chunk_bits;
    }
    return ok;
}

static bool shake_hands(const Connecting *c, RdmaLink *link, RdmaHello *hello,
                        Error **errp)
{
    WireRdmaHello wire;
    struct rdma_conn_param param = {
        .private_data = &wire, .private_data_len = sizeof(wire),
        .initiator_depth = RDMA_READS, .responder_resources = RDMA_READS,
        .retry_count = RETRIES, .rnr_retry_count = RDMA_RETRIES_NO_BUFFER,
    };

    rdma_fill_hello(&wire, hello);
    if (rdma_connect(rdma_link_id(link), &param) < 0) {
        error_setg_errno(errp, errno, "RDMA device %s: rdma_connect() failed",
                         rdma_link_device(link));
        return false;
    }
    return connect_answered(c, hello, errp);
}

RdmaLink *rdma_connect_to(const InetSocketAddress *to, RdmaHello *hello,
                          RdmaLink *beside, RdmaRoom room,
                          const bool *called_off, Error **errp)
{
    ERRP_GUARD();
    Connecting c = {
        .events = rdma_create_event_channel(), .called_off = called_off,
    };
    struct rdma_cm_id *id = NULL;
    RdmaLink *link = NULL;

    if (!c.events) {
        error_setg_errno(errp, errno, "rdma_create_event_channel() failed; is "
                         "the kernel module rdma_ucm loaded?");
        return NULL;
    }
    id = resolve(&c, to, errp);
    link = id ? rdma_link_new(c.events, id, beside, room, errp) : NULL;
    if (link && shake_hands(&c, link, hello, errp)) {
        return link;
    }
    error_prepend(errp, "RDMA connection to %s:%s: ", to->host, to->port);
    if (link) {
        rdma_link_free(link);
        return NULL;
    }
    if (id) {
        rdma_destroy_id(id);
    }
    rdma_destroy_event_channel(c.events);
    return NULL;
}
