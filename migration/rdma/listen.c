/*
 * From an address to RDMA links: the side that listens
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "channel.h"
#include "connect.h"
#include "listen.h"

/* Connections that the kernel holds until they are answered */
#define BACKLOG 8

static struct {
    struct rdma_event_channel *events;  /* NULL: nobody listens */
    struct rdma_cm_id *id;
    RdmaArrived *cb;            /* NULL: nobody else is let in */
    RdmaChannel *channel;       /* the first one, until it has both links */
    bool handed_over;           /* it is somebody's; otherwise it is ours */
    bool has_back;              /* the second link was accepted */
    unsigned more;              /* links for writes that are to come */
    RdmaLink *watched;          /* its link, until it is established */
} listener;

static void unwatch(void)
{
    if (listener.watched) {
        qemu_set_fd_handler(rdma_link_events(listener.watched)->fd, NULL, NULL,
                            NULL);
        listener.watched = NULL;
    }
}

static void close_listener(void)
{
    if (listener.id) {
        rdma_destroy_id(listener.id);
        listener.id = NULL;
    }
    if (listener.events) {
        qemu_set_fd_handler(listener.events->fd, NULL, NULL, NULL);
        rdma_destroy_event_channel(listener.events);
        listener.events = NULL;
    }
    listener.cb = NULL;
}

/* The channel has all its links: it is no business of ours any more. */
static void let_channel_go(void)
{
    if (listener.handed_over && listener.has_back && !listener.more) {
        listener.channel = NULL;
    }
}

/* Nothing is expected any more. */
static void close_if_done(void)
{
    if (!listener.cb && !listener.channel) {
        close_listener();
    }
}

static void channel_closed(void *opaque)
{
    if (listener.channel == opaque) {
        unwatch();
        listener.channel = NULL;
        close_if_done();
    }
}

/* It did not come to be, or is given up.  Others may come. */
static void drop_channel(void)
{
    RdmaChannel *channel = listener.channel;

    if (channel && !listener.handed_over) {
        unwatch();
        listener.channel = NULL;
        object_unref(OBJECT(channel));
    }
}

/*
 * A connection that is being made
 */

static void hand_over(void)
{
    RdmaChannel *channel = listener.channel;

    unwatch();
    listener.handed_over = true;
    qio_channel_set_name(QIO_CHANNEL(channel), "migration-rdma-incoming");
    listener.cb(QIO_CHANNEL(channel));
    let_channel_go();
    close_if_done();
    object_unref(OBJECT(channel));
}

/* The first event of a link that was accepted */
static void established(void *opaque)
{
    struct rdma_cm_event *event;
    Error *err = NULL;
    bool ok;

    if (rdma_get_cm_event(rdma_link_events(listener.watched), &event) < 0) {
        drop_channel();
        return;
    }
    ok = event->event == RDMA_CM_EVENT_ESTABLISHED;
    if (!ok) {
        rdma_explain_event(event, &err);
        error_prepend(&err, "incoming RDMA connection: ");
        error_report_err(err);
    }
    rdma_ack_cm_event(event);
    if (ok && listener.cb) {
        hand_over();
    } else {
        drop_channel();
    }
}

/* The event channel of its own that a link needs; takes over @id. */
static RdmaLink *make_link(struct rdma_cm_id *id, RdmaLink *beside,
                           RdmaRoom room_of_source, Error **errp)
{
    RdmaRoom room = {
        .send = room_of_source.receive, .receive = room_of_source.send,
    };
    struct rdma_event_channel *events = rdma_create_event_channel();
    RdmaLink *link = NULL;

    if (!events) {
        error_setg_errno(errp, errno, "rdma_create_event_channel() failed");
    } else if (rdma_migrate_id(id, events) < 0) {
        error_setg_errno(errp, errno, "rdma_migrate_id() failed");
    } else {
        link = rdma_link_new(events, id, beside, room, errp);
    }
    if (!link) {
        rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
        if (events) {
            rdma_destroy_event_channel(events);
        }
    }
    return link;
}

static bool accept_link(RdmaLink *link, const RdmaHello *hello, Error **errp)
{
    WireRdmaHello wire;
    struct rdma_conn_param param = {
        .private_data = &wire, .private_data_len = sizeof(wire),
        .initiator_depth = RDMA_READS, .responder_resources = RDMA_READS,
        .rnr_retry_count = RDMA_RETRIES_NO_BUFFER,
    };

    rdma_fill_hello(&wire, hello);
    if (rdma_accept(rdma_link_id(link), &param) < 0) {
        error_setg_errno(errp, errno, "RDMA device %s: rdma_accept() failed",
                         rdma_link_device(link));
        return false;
    }
    return true;
}

static bool accept_first(RdmaLink *link, const RdmaHello *hello, Error **errp)
{
    RdmaChannel *channel = rdma_channel_new(link, NULL, true, hello, errp);

    if (!channel) {
        rdma_link_free(link);
        return false;
    }
    listener.has_back = false;
    listener.more = hello->more;
    rdma_channel_on_close(channel, channel_closed, channel);
    listener.channel = channel;
    listener.handed_over = false;
    listener.watched = link;
    qemu_set_fd_handler(rdma_link_events(link)->fd, established, NULL, NULL);
    if (!accept_link(link, hello, errp)) {
        drop_channel();
        return false;
    }
    return true;
}

/* What the source reads may be written once it has said READY. */
static bool accept_back(RdmaLink *link, const RdmaHello *hello, Error **errp)
{
    if (!accept_link(link, hello, errp)) {
        rdma_link_free(link);
        return false;
    }
    rdma_channel_set_back(listener.channel, link);
    listener.has_back = true;
    let_channel_go();
    close_if_done();
    return true;
}

/* The source writes by it, and nobody here has to do anything. */
static bool accept_more(RdmaLink *link, const RdmaHello *hello, Error **errp)
{
    if (!accept_link(link, hello, errp)) {
        rdma_link_free(link);
        return false;
    }
    rdma_channel_add(listener.channel, link);
    listener.more--;
    let_channel_go();
    close_if_done();
    return true;
}

static bool is_welcome(const RdmaHello *hello)
{
    if (!listener.channel) {
        return listener.cb && !hello->writes_only;
    }
    return hello->writes_only ? listener.more : !listener.has_back;
}

/* Takes over @id. */
static bool rdma_let_in(struct rdma_cm_id *id, const RdmaHello *hello,
                        Error **errp)
{
    RdmaLink *link;

    if (!is_welcome(hello)) {
        rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
        error_setg(errp, "there is a source already");
        return false;
    }
    if (hello->writes_only) {
        link = make_link(id, rdma_channel_main(listener.channel),
                         RDMA_ROOM_NONE, errp);
    } else {
        link = make_link(id, NULL, listener.channel ? RDMA_ROOM_BACK
                                                    : RDMA_ROOM_MAIN, errp);
    }
    if (!link) {
        return false;
    }
    if (hello->writes_only) {
        return accept_more(link, hello, errp);
    }
    return listener.channel ? accept_back(link, hello, errp)
                            : accept_first(link, hello, errp);
}

static void connection_requested(void *opaque)
{
    struct rdma_cm_event *event;
    struct rdma_cm_id *id;
    RdmaHello hello = { };
    Error *err = NULL;
    bool ok;

    if (rdma_get_cm_event(listener.events, &event) < 0) {
        return;
    }
    if (event->event != RDMA_CM_EVENT_CONNECT_REQUEST) {
        rdma_ack_cm_event(event);
        return;
    }
    id = event->id;
    ok = rdma_check_hello(event->param.conn.private_data,
                          event->param.conn.private_data_len, &hello, &err);
    /* Before it is moved to another channel of events. */
    rdma_ack_cm_event(event);
    if (!ok) {
        rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
    } else {
        ok = rdma_let_in(id, &hello, &err);
    }
    if (!ok) {
        error_prepend(&err, "incoming RDMA connection: ");
        error_report_err(err);
    }
}

/*
 * Listening
 */

static bool bind_one(const InetSocketAddress *at, Error **errp)
{
    struct rdma_addrinfo *found = rdma_look_up(at, errp);
    bool bound = false;
    int reuse = 1;

    if (!found) {
        return false;
    }
    rdma_set_option(listener.id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR,
                    &reuse, sizeof(reuse));
    for (struct rdma_addrinfo *a = found; a && !bound; a = a->ai_next) {
        bound = rdma_bind_addr(listener.id, a->ai_dst_addr) == 0;
    }
    if (!bound) {
        error_setg_errno(errp, errno, "rdma_bind_addr() failed: the address is "
                         "of no RDMA device here ('rdma link show' lists them),"
                         " or the port is in use");
    }
    rdma_freeaddrinfo(found);
    return bound;
}

static bool open_listener(const InetSocketAddress *at, Error **errp)
{
    listener.events = rdma_create_event_channel();
    if (!listener.events) {
        error_setg_errno(errp, errno, "rdma_create_event_channel() failed; is "
                         "the kernel module rdma_ucm loaded?");
        return false;
    }
    if (rdma_create_id(listener.events, &listener.id, NULL, RDMA_PS_TCP) < 0) {
        listener.id = NULL;
        error_setg_errno(errp, errno, "rdma_create_id() failed");
        return false;
    }
    if (!bind_one(at, errp)) {
        return false;
    }
    if (rdma_listen(listener.id, BACKLOG) < 0) {
        error_setg_errno(errp, errno, "rdma_listen() failed");
        return false;
    }
    return true;
}

bool rdma_listen_at(const InetSocketAddress *at, RdmaArrived *cb,
                    Error **errp)
{
    ERRP_GUARD();

    if (listener.events) {
        error_setg(errp, "an RDMA connection is waited for already");
        return false;
    }
    if (!open_listener(at, errp)) {
        error_prepend(errp, "RDMA at %s:%s: ", at->host, at->port);
        close_listener();
        return false;
    }
    listener.has_back = false;
    listener.cb = cb;
    qemu_set_fd_handler(listener.events->fd, connection_requested, NULL, NULL);
    return true;
}

void rdma_listen_stop(void)
{
    listener.cb = NULL;
    drop_channel();
    close_if_done();
}
