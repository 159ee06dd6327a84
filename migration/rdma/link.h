/*
 * One RDMA connection: a queue pair with its messages, writes and memory
 *
 * A link carries control messages (wire/rdma.h), as SENDs from buffers of its
 * own, and writes straight from this process's memory into the peer's.  What is
 * posted arrives in order: a message arrives after the writes posted before it.
 *
 * Flow control: the peer says READY for each message that it will take, for one
 * or, if that was agreed upon, several in advance.
 * rdma_link_wait_ready() waits for that, rdma_link_send() uses it up; answers
 * are sent without.
 *
 * Completions: only some of what is posted is signalled, as a completion stands
 * for all that was posted before it.  The last write is held back until the
 * next call, so that rdma_link_finish_writes() can have it signalled; where
 * that comes too late, a write of nothing is posted and signalled.
 *
 * Writes: at most RDMA_WINDOW bytes are on their way.
 *
 * Threads: a link is used by one thread at a time, which may wait in it without
 * the BQL, and in a coroutine only with @wait false.  rdma_link_stop() may be
 * called by any thread.  No locks.  Nothing polls
 * while it waits: completions, events of the connection and the call to stop
 * are file descriptors.
 *
 * Errors: the first failure is kept, and told by each call from then on.  It
 * names the verb, the device and what the system said.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RDMA_LINK_H
#define MIGRATION_RDMA_LINK_H

#include <rdma/rdma_cma.h>
#include "migration/wire/rdma.h"

/* Bytes of writes on their way at most */
#define RDMA_WINDOW (256ull << 20)
/* Bytes of one write at most; devices may take less */
#define RDMA_WRITE_MAX (64u << 20)
/* Work requests of a queue pair, if the device has so many */
#define RDMA_QUEUE 512
/* A completion is requested for one of so many work requests */
#define RDMA_SIGNAL_EVERY 16

typedef struct RdmaLink RdmaLink;

/* Bytes of the largest messages, with their heads; 0: it is for writes only */
typedef struct RdmaRoom {
    uint32_t send, receive;
} RdmaRoom;

/* Of a source; the destination's are the other way round. */
#define RDMA_ROOM_MAIN ((RdmaRoom) { \
    .send = WIRE_RDMA_MESSAGE_MAX, .receive = WIRE_RDMA_ANSWER_MAX })
#define RDMA_ROOM_BACK ((RdmaRoom) { \
    .send = WIRE_RDMA_SHORT_MAX, .receive = WIRE_RDMA_ANSWER_MAX })
#define RDMA_ROOM_NONE ((RdmaRoom) { })

/* What was counted since the link was made */
typedef struct RdmaCounts {
    uint64_t writes, write_bytes;
    uint64_t messages;          /* sent, of all types */
    uint64_t completions;       /* of what was sent or written */
    uint64_t registrations, registered_bytes;
} RdmaCounts;

/* A message that has arrived.  Its data are valid until rdma_link_done(). */
typedef struct RdmaMessage {
    RdmaHead head;
    const void *data;
    unsigned buffer;            /* the link's */
} RdmaMessage;

typedef enum RdmaArrival {
    RDMA_ARRIVED,
    RDMA_NOTHING_YET,
    RDMA_ENDED,                 /* the peer has closed the connection */
    RDMA_FAILED,
} RdmaArrival;

/*
 * A link over @id, which is about to be connected, and is bound to a device:
 * makes the queue pair and posts receive buffers.  @events is the channel of
 * @id's events and of nobody else's.  Both are the link's if this succeeds.
 *
 * @beside: NULL, or a link to the same peer, whose device and registered memory
 * the new one shares.  What is registered with one of them stays so as long as
 * that one.  @room: buffers are registered for that, which takes a while, as
 * all of their memory becomes present.
 */
RdmaLink *rdma_link_new(struct rdma_event_channel *events,
                        struct rdma_cm_id *id, RdmaLink *beside,
                        RdmaRoom room, Error **errp);

/*
 * Disconnects, and releases everything: registered memory in a thread of its
 * own, as that takes long.  NULL is fine.  Nobody else may be using it.
 */
void rdma_link_free(RdmaLink *link);

/* Whoever waits in the link is woken, and all calls fail.  Any thread. */
void rdma_link_stop(RdmaLink *link);

/* Readable when something may have arrived; to be waited for, not read. */
int rdma_link_fd(const RdmaLink *link);

/* "rxe0" */
const char *rdma_link_device(const RdmaLink *link);

/* What rdma_connect() and rdma_accept() need of it */
struct rdma_cm_id *rdma_link_id(RdmaLink *link);
struct rdma_event_channel *rdma_link_events(RdmaLink *link);

/*
 * Messages
 */

/*
 * Until @count messages may be sent.  If that is as many as may be on their
 * way, the peer has carried out all that were sent before.
 */
bool rdma_link_wait_ready(RdmaLink *link, unsigned count, Error **errp);

/* The same, while something arrives every @ms; *@ready says whether it may. */
bool rdma_link_try_ready(RdmaLink *link, int ms, bool *ready, Error **errp);

/*
 * Send a message with @len bytes of @data, which are copied.  @answer: it is
 * one, and waits for no READY.
 */
bool rdma_link_send(RdmaLink *link, WireRdmaType type, uint32_t repeat,
                    const void *data, uint32_t len, bool answer, Error **errp);

/*
 * Send @len bytes of the stream, in messages of at most @most bytes.  @arrive:
 * wait until they have arrived, as who writes last may end at once.
 */
bool rdma_link_send_stream(RdmaLink *link, const void *bytes, size_t len,
                           uint32_t most, bool arrive, Error **errp);

/*
 * While it is so, rdma_link_send_stream() never waits for that: what follows
 * shows that the bytes have arrived.
 */
void rdma_link_more_follows(RdmaLink *link, bool more);

/* The next message but READY; @wait until there is one. */
RdmaArrival rdma_link_receive(RdmaLink *link, bool wait, RdmaMessage *message,
                              Error **errp);

/* The message is not needed any more. */
bool rdma_link_done(RdmaLink *link, const RdmaMessage *message, Error **errp);

/*
 * Memory
 */

/*
 * Register @len bytes at @memory for this device.  @remote: the peer may write
 * to it; else it may only be read here.  @name is for errors.  It is the
 * link's, and stays registered as long as the link unless
 * rdma_link_unregister() is called.
 */
struct ibv_mr *rdma_link_register(RdmaLink *link, void *memory, uint64_t len,
                                  bool remote, const char *name,
                                  Error **errp);
bool rdma_link_unregister(RdmaLink *link, struct ibv_mr *mr, Error **errp);

/* Bytes of the largest write that the device takes */
uint32_t rdma_link_write_max(const RdmaLink *link);

/*
 * Write @len bytes at @from, which are registered with @lkey, to the peer's
 * @to.  They must stay registered until the next rdma_link_finish_writes().
 */
bool rdma_link_write(RdmaLink *link, const void *from, uint32_t lkey,
                     uint64_t to, uint32_t rkey, uint32_t len, Error **errp);

/* Until all that was written has arrived; messages may be on their way. */
bool rdma_link_finish_writes(RdmaLink *link, Error **errp);

/* Until all that was written and sent has arrived */
bool rdma_link_drain(RdmaLink *link, Error **errp);

RdmaCounts rdma_link_counts(const RdmaLink *link);

#endif
