/*
 * The return path on the source: what the destination has to say
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "migration/migration.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "return-path.h"

struct ReturnPath {
    QEMUFile *f;                /* only the thread reads it */
    QemuThread thread;

    QemuMutex lock;             /* of all below */
    QemuCond changed;
    ReturnPathEnd end;
    Error *error;               /* why it is REFUSED or BROKEN */
    bool answered;
    bool met;                   /* the fence was answered */
    bool acked;
    Peer peer;
};

typedef struct Message {
    uint16_t type;
    uint16_t len;
    uint8_t payload[WIRE_RP_PAYLOAD_MAX];
} Message;

/*
 * Messages; each handler is called under the lock, and says what is known of
 * the end then
 */

static ReturnPathEnd take_shut(ReturnPath *rp, const Message *m)
{
    uint32_t value = ldl_be_p(m->payload);

    trace_source_return_path_thread_shut(value);
    if (value) {
        error_setg(&rp->error, "The destination failed to take the guest "
                   "over; its own log and query-migrate say why");
        return RETURN_PATH_REFUSED;
    }
    return RETURN_PATH_DONE;
}

static ReturnPathEnd take_pong(ReturnPath *rp, const Message *m)
{
    uint32_t value = ldl_be_p(m->payload);

    trace_source_return_path_thread_pong(value);
    if (value == WIRE_PING_START) {
        rp->met = true;
    } else if (!rp->met) {
        peer_recognize(value, &rp->peer);
    }
    return RETURN_PATH_OPEN;
}

static ReturnPathEnd take_switchover_ack(ReturnPath *rp, const Message *m)
{
    trace_source_return_path_thread_switchover_acked();
    rp->acked = true;
    return RETURN_PATH_OPEN;
}

/* All that may come: the rest belongs to postcopy, which was not asked for. */
static const struct {
    const char *name;
    uint16_t len;
    ReturnPathEnd (*take)(ReturnPath *, const Message *);
} messages[] = {
    [WIRE_RP_SHUT] = { "SHUT", WIRE_RP_SHUT_LEN, take_shut },
    [WIRE_RP_PONG] = { "PONG", WIRE_RP_PONG_LEN, take_pong },
    [WIRE_RP_SWITCHOVER_ACK] = {
        "SWITCHOVER_ACK", WIRE_RP_SWITCHOVER_ACK_LEN, take_switchover_ack
    },
};

static bool read_message(QEMUFile *f, Message *m, Error **errp)
{
    m->type = qemu_get_be16(f);
    m->len = qemu_get_be16(f);
    if (!stream_check(f, errp)) {
        return false;
    }
    if (m->type >= ARRAY_SIZE(messages) || !messages[m->type].take) {
        error_setg(errp, "Unexpected message 0x%04x from the destination",
                   m->type);
        return false;
    }
    if (m->len != messages[m->type].len) {
        error_setg(errp, "Message %s from the destination has %u bytes "
                   "instead of %u", messages[m->type].name, m->len,
                   messages[m->type].len);
        return false;
    }
    qemu_get_buffer(f, m->payload, m->len);
    return stream_check(f, errp);
}

/* Returns whether there may be more. */
static bool take_message(ReturnPath *rp, const Message *m)
{
    QEMU_LOCK_GUARD(&rp->lock);
    rp->answered = true;
    rp->end = messages[m->type].take(rp, m);
    qemu_cond_broadcast(&rp->changed);
    return rp->end == RETURN_PATH_OPEN;
}

/* Takes over @err. */
static void break_off(ReturnPath *rp, Error *err)
{
    QEMU_LOCK_GUARD(&rp->lock);
    error_prepend(&err, "Return path: ");
    rp->error = err;
    rp->end = RETURN_PATH_BROKEN;
    qemu_cond_broadcast(&rp->changed);
}

static void *return_path_thread(void *opaque)
{
    ReturnPath *rp = opaque;
    Error *err = NULL;
    Message m;

    trace_source_return_path_thread_entry();
    rcu_register_thread();
    while (read_message(rp->f, &m, &err) && take_message(rp, &m)) {
        trace_source_return_path_thread_loop_top();
    }
    if (err) {
        break_off(rp, err);
    }
    trace_source_return_path_thread_end();
    rcu_unregister_thread();
    return NULL;
}

/*
 * For the others
 */

ReturnPath *return_path_open(QEMUFile *to_dst)
{
    ReturnPath *rp = g_new0(ReturnPath, 1);

    rp->f = qemu_file_get_return_path(to_dst);
    qemu_mutex_init(&rp->lock);
    qemu_cond_init(&rp->changed);
    qemu_thread_create(&rp->thread, MIGRATION_THREAD_SRC_RETURN,
                       return_path_thread, rp, QEMU_THREAD_JOINABLE);
    return rp;
}

/* Under the lock: until *@condition, the end, or the time is over. */
static bool wait_for(ReturnPath *rp, const bool *condition, int timeout_ms)
{
    int64_t end = g_get_monotonic_time() + timeout_ms * 1000LL;

    while (!*condition && rp->end == RETURN_PATH_OPEN) {
        int64_t left_us = end - g_get_monotonic_time();

        if (left_us <= 0 ||
            !qemu_cond_timedwait(&rp->changed, &rp->lock,
                                 DIV_ROUND_UP(left_us, 1000))) {
            break;
        }
    }
    return *condition;
}

bool return_path_meet(ReturnPath *rp, int timeout_ms, Peer *peer)
{
    QEMU_LOCK_GUARD(&rp->lock);
    if (!wait_for(rp, &rp->met, timeout_ms)) {
        return false;
    }
    *peer = rp->peer;
    return true;
}

bool return_path_answered(ReturnPath *rp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return rp->answered;
}

bool return_path_acked(ReturnPath *rp, int timeout_ms)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return wait_for(rp, &rp->acked, timeout_ms);
}

/* Under the lock. */
static ReturnPathEnd tell(ReturnPath *rp, Error **errp)
{
    if (rp->error) {
        error_propagate(errp, error_copy(rp->error));
    }
    return rp->end;
}

ReturnPathEnd return_path_state(ReturnPath *rp, Error **errp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return tell(rp, errp);
}

ReturnPathEnd return_path_wait_end(ReturnPath *rp, int timeout_ms,
                                   Error **errp)
{
    const bool never = false;

    QEMU_LOCK_GUARD(&rp->lock);
    if (timeout_ms >= 0) {
        wait_for(rp, &never, timeout_ms);
    }
    while (timeout_ms < 0 && rp->end == RETURN_PATH_OPEN) {
        qemu_cond_wait(&rp->changed, &rp->lock);
    }
    return tell(rp, errp);
}

void return_path_hang_up(ReturnPath *rp)
{
    qemu_file_shutdown(rp->f);
}

void return_path_close(ReturnPath *rp)
{
    if (!rp) {
        return;
    }
    return_path_hang_up(rp);
    qemu_thread_join(&rp->thread);
    qemu_fclose(rp->f);
    error_free(rp->error);
    qemu_cond_destroy(&rp->changed);
    qemu_mutex_destroy(&rp->lock);
    g_free(rp);
}
