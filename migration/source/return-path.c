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
#include "migration/base/clock.h"
#include "migration/base/turns.h"
#include "migration/core/peer-error.h"
#include "migration/migration.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "return-path.h"

struct ReturnPath {
    QEMUFile *f;                /* only the thread reads it */
    const ReturnPathUser *user; /* NULL: no postcopy */
    bool acted;                 /* the thread's: the user was called */
    QemuThread thread;

    QemuMutex lock;             /* of all below */
    QemuCond changed;
    ReturnPathEnd end;
    Error *error;               /* why it is REFUSED or BROKEN */
    char *reason;               /* as the destination says it */
    bool answered;
    bool met;                   /* the fence was answered */
    bool acked;
    bool loaded;
    bool resumed;
    Peer peer;
    uint32_t attempt;           /* whose reports are waited for */
    uint32_t wanted_pong;       /* and the value of a PING that came back */
    bool ponged;
    bool ready, started;        /* those came: */
    ReturnPathReport ready_report, started_report;
    uint32_t aborted;           /* the last attempt whose ABORT was answered */
    uint32_t wanted_abort;      /* the one that is waited for, and */
    bool abort_answered;        /* whether that is the last one */
    GArray *changes;            /* ReturnPathChange */
    bool asked;                 /* INVENTORY or LAYOUTS was sent */
    GByteArray *inventory;      /* what has come of the answer */
    bool inventory_complete;
    uint64_t epoch;             /* the last one that is being sent, or 0 */
    bool epoch_complete;        /* it was acknowledged, or there is none */
};

typedef struct Message {
    const struct MessageRow *row;
    uint16_t len;
    int64_t at_ns;              /* when it came */
    uint8_t payload[WIRE_RP_PAYLOAD_MAX];
} Message;

/* A kind of message: it is taken under the lock, or acted on without. */
typedef struct MessageRow {
    uint16_t type;
    const char *name;
    uint16_t len_min, len_max;
    bool of_postcopy;
    ReturnPathEnd (*take)(ReturnPath *, const Message *);
    bool (*act)(ReturnPath *, const Message *, Error **errp);
} MessageRow;

/*
 * Messages; each handler is called under the lock, and says what is known of
 * the end then
 */

static ReturnPathEnd take_shut(ReturnPath *rp, const Message *m)
{
    uint32_t value = ldl_be_p(m->payload);

    trace_source_return_path_thread_shut(value);
    if (value && rp->reason) {
        error_setg(&rp->error, "destination: %s", rp->reason);
    } else if (value) {
        error_setg(&rp->error, "destination failed to load the guest and sent "
                   "no reason: it is in error-desc of query-migrate there, "
                   "and the last error that QEMU printed there");
    } else if (rp->reason) {
        error_setg(&rp->error, "destination sent both an error and SHUT with "
                   "success: %s", rp->reason);
        return RETURN_PATH_BROKEN;
    }
    return value ? RETURN_PATH_REFUSED : RETURN_PATH_DONE;
}

/* The end follows it; that it does is left to read_message(). */
static ReturnPathEnd take_error(ReturnPath *rp, const Message *m)
{
    rp->reason = peer_error_decode(m->payload, m->len);
    return RETURN_PATH_OPEN;
}

static ReturnPathEnd take_pong(ReturnPath *rp, const Message *m)
{
    uint32_t value = ldl_be_p(m->payload);

    trace_source_return_path_thread_pong(value);
    rp->ponged |= value == rp->wanted_pong;
    if (value == WIRE_PING_START) {
        rp->met = true;
    } else if (value == WIRE_PING_DEVICES_LOADED) {
        rp->loaded = true;
    } else if (!rp->met && peer_recognize(value, &rp->peer)) {
        return RETURN_PATH_OPEN;
    } else if (rp->user && rp->user->pong) {
        rp->user->pong(rp->user->opaque, value);
    }
    return RETURN_PATH_OPEN;
}

static ReturnPathEnd take_switchover_ack(ReturnPath *rp, const Message *m)
{
    trace_source_return_path_thread_switchover_acked();
    rp->acked = true;
    return RETURN_PATH_OPEN;
}

/* One of another attempt is late, and says nothing any more. */
static ReturnPathEnd take_report(ReturnPath *rp, const Message *m, bool *came,
                                 ReturnPathReport *kept)
{
    ReturnPathReport r = { .at_ns = m->at_ns };

    if (!downtime_report_decode(&r.report, m->payload, m->len)) {
        error_setg(&rp->error, "A report of the destination is damaged");
        return RETURN_PATH_BROKEN;
    }
    if (r.report.attempt == rp->attempt) {
        *kept = r;
        *came = true;
    }
    return RETURN_PATH_OPEN;
}

static ReturnPathEnd take_ready(ReturnPath *rp, const Message *m)
{
    return take_report(rp, m, &rp->ready, &rp->ready_report);
}

static ReturnPathEnd take_started(ReturnPath *rp, const Message *m)
{
    return take_report(rp, m, &rp->started, &rp->started_report);
}

static ReturnPathEnd take_aborted(ReturnPath *rp, const Message *m)
{
    rp->aborted = ldl_be_p(m->payload);
    rp->abort_answered = rp->aborted == rp->wanted_abort;
    return RETURN_PATH_OPEN;
}

/* More than was announced cannot come, as nothing may follow the last byte. */
static ReturnPathEnd take_inventory(ReturnPath *rp, const Message *m)
{
    uint32_t total;

    if (!rp->asked || rp->inventory_complete) {
        error_setg(&rp->error, "an inventory from the destination that was "
                   "not requested");
        return RETURN_PATH_BROKEN;
    }
    g_byte_array_append(rp->inventory, m->payload, m->len);
    if (!inventory_announced(rp->inventory->data, rp->inventory->len, &total,
                             &rp->error)) {
        return RETURN_PATH_BROKEN;
    }
    if (total && rp->inventory->len > total) {
        error_setg(&rp->error, "the inventory of the destination has more "
                   "than the %" PRIu32 " bytes that were announced", total);
        return RETURN_PATH_BROKEN;
    }
    rp->inventory_complete = total && rp->inventory->len == total;
    return RETURN_PATH_OPEN;
}

/* Each is acknowledged once, while nothing else is sent. */
static ReturnPathEnd take_checkpoint_ack(ReturnPath *rp, const Message *m)
{
    uint64_t number = ldq_be_p(m->payload);

    if (rp->epoch_complete || number != rp->epoch) {
        error_setg(&rp->error, "destination acknowledged epoch %" PRIu64
                   ", and epoch %" PRIu64 " is the last that was sent%s",
                   number, rp->epoch,
                   rp->epoch_complete ? " and acknowledged" : "");
        return RETURN_PATH_BROKEN;
    }
    rp->epoch_complete = true;
    return RETURN_PATH_OPEN;
}

static ReturnPathEnd take_resume_ack(ReturnPath *rp, const Message *m)
{
    uint32_t value = ldl_be_p(m->payload);

    trace_source_return_path_thread_resume_ack(value);
    if (value != WIRE_RESUME_ACK_OK) {
        error_setg(&rp->error, "destination refuses to resume postcopy: its "
                   "answer is %" PRIu32, value);
        return RETURN_PATH_BROKEN;
    }
    rp->resumed = true;
    return RETURN_PATH_OPEN;
}

/*
 * Messages with a name, and those that others act on, which are without the
 * lock
 */

/* A name of @len bytes, after its own length, ends the message. */
static bool return_path_read_name(const Message *m, unsigned at, char *name,
                                  Error **errp)
{
    unsigned len = m->payload[at];

    if (!len || at + 1 + len != m->len) {
        error_setg(errp, "Message 0x%04x from the destination has %u bytes "
                   "with a name of %u", m->row->type, m->len, len);
        return false;
    }
    memcpy(name, m->payload + at + 1, len);
    name[len] = 0;
    return true;
}

static ReturnPathEnd take_changed(ReturnPath *rp, const Message *m)
{
    ReturnPathChange change = {
        .start = ldq_be_p(m->payload + offsetof(WireChanged, start)),
        .len = ldq_be_p(m->payload + offsetof(WireChanged, len)),
    };

    if (!return_path_read_name(m, sizeof(WireChanged), change.block,
                               &rp->error)) {
        return RETURN_PATH_BROKEN;
    }
    if (rp->changes->len == WIRE_CHANGED_MAX) {
        error_setg(&rp->error, "More than %d changed ranges of memory from "
                   "the destination", WIRE_CHANGED_MAX);
        return RETURN_PATH_BROKEN;
    }
    trace_migration_changed(change.block, change.start, change.len);
    g_array_append_val(rp->changes, change);
    return RETURN_PATH_OPEN;
}

static bool act_on_req_pages(ReturnPath *rp, const Message *m, Error **errp)
{
    char name[WIRE_NAME_MAX + 1];
    bool named = m->row->type == WIRE_RP_REQ_PAGES_ID;

    if (named && !return_path_read_name(m, WIRE_RP_REQ_PAGES_LEN, name, errp)) {
        return false;
    }
    return rp->user->asked(rp->user->opaque, named ? name : NULL,
                           ldq_be_p(m->payload), ldl_be_p(m->payload + 8),
                           errp);
}

static bool act_on_recv_bitmap(ReturnPath *rp, const Message *m, Error **errp)
{
    char name[WIRE_NAME_MAX + 1];

    return return_path_read_name(m, 0, name, errp) &&
           rp->user->received(rp->user->opaque, name, rp->f, errp);
}

#define FIXED(name_, ...) \
    { \
        WIRE_RP_##name_, #name_, WIRE_RP_##name_##_LEN, \
        WIRE_RP_##name_##_LEN, __VA_ARGS__ \
    }
/* The last part is a name of at least a byte, with its length. */
#define NAMED(name_, ...) \
    { \
        WIRE_RP_##name_, #name_, WIRE_RP_##name_##_MIN + 1, \
        WIRE_RP_##name_##_MIN + WIRE_NAME_MAX, __VA_ARGS__ \
    }
#define REPORT(name_, ...) \
    { \
        WIRE_RP_##name_, #name_, WIRE_RP_REPORT_MIN, WIRE_RP_REPORT_MAX, \
        __VA_ARGS__ \
    }

/* All that may come; some of it only where there is a user. */
static const MessageRow messages[] = {
    FIXED(SHUT, .take = take_shut),
    FIXED(PONG, .take = take_pong),
    NAMED(REQ_PAGES_ID, .act = act_on_req_pages, .of_postcopy = true),
    FIXED(REQ_PAGES, .act = act_on_req_pages, .of_postcopy = true),
    NAMED(RECV_BITMAP, .act = act_on_recv_bitmap, .of_postcopy = true),
    FIXED(RESUME_ACK, .take = take_resume_ack, .of_postcopy = true),
    FIXED(SWITCHOVER_ACK, .take = take_switchover_ack),
    REPORT(READY, .take = take_ready),
    REPORT(STARTED, .take = take_started),
    { WIRE_RP_ERROR, "ERROR", WIRE_RP_ERROR_MIN, WIRE_RP_ERROR_MAX,
      .take = take_error },
    NAMED(CHANGED, .take = take_changed),
    FIXED(ABORTED, .take = take_aborted),
    { WIRE_RP_INVENTORY, "INVENTORY", WIRE_RP_INVENTORY_MIN,
      WIRE_RP_INVENTORY_MAX, .take = take_inventory },
    FIXED(CHECKPOINT_ACK, .take = take_checkpoint_ack),
};

static const MessageRow *find_row(const ReturnPath *rp, uint16_t type)
{
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        if (messages[i].type == type &&
            (rp->user || !messages[i].of_postcopy)) {
            return &messages[i];
        }
    }
    return NULL;
}

static bool read_message(ReturnPath *rp, Message *m, Error **errp)
{
    QEMUFile *f = rp->f;
    uint16_t type = qemu_get_be16(f);

    m->len = qemu_get_be16(f);
    if (!stream_check(f, errp)) {
        return false;
    }
    m->row = find_row(rp, type);
    if (!m->row) {
        error_setg(errp, "Unexpected message 0x%04x from the destination",
                   type);
        return false;
    }
    if (rp->reason && type != WIRE_RP_SHUT) {
        error_setg(errp, "destination sent %s after ERROR", m->row->name);
        return false;
    }
    if (m->len < m->row->len_min || m->len > m->row->len_max) {
        error_setg(errp, "Message %s from the destination has %u bytes "
                   "instead of %u", m->row->name, m->len, m->row->len_min);
        return false;
    }
    qemu_get_buffer(f, m->payload, m->len);
    m->at_ns = now_ns();
    return stream_check(f, errp);
}

static void tell_user(const ReturnPath *rp)
{
    if (rp->user) {
        rp->user->changed(rp->user->opaque);
    }
}

/* Whether there may be more, which is so if @errp is not set */
static bool take_message(ReturnPath *rp, const Message *m, Error **errp)
{
    ReturnPathEnd end;

    if (m->row->act) {
        if (!rp->acted) {
            rp->acted = true;
            qemu_mutex_lock(&rp->lock);
            rp->answered = true;
            qemu_mutex_unlock(&rp->lock);
        }
        return m->row->act(rp, m, errp);
    }
    WITH_QEMU_LOCK_GUARD(&rp->lock) {
        rp->answered = true;
        rp->end = end = m->row->take(rp, m);
        qemu_cond_broadcast(&rp->changed);
    }
    tell_user(rp);
    return end == RETURN_PATH_OPEN;
}

/* Takes over @err. */
static void return_path_break_off(ReturnPath *rp, Error *err)
{
    error_prepend(&err, "Return path: ");
    if (rp->reason) {
        error_prepend(&err, "destination: %s; ", rp->reason);
    }
    WITH_QEMU_LOCK_GUARD(&rp->lock) {
        rp->error = err;
        rp->end = RETURN_PATH_BROKEN;
        qemu_cond_broadcast(&rp->changed);
    }
    tell_user(rp);
}

static void *return_path_thread(void *opaque)
{
    ReturnPath *rp = opaque;
    Error *err = NULL;
    Message m;

    trace_source_return_path_thread_entry();
    rcu_register_thread();
    turns_short();
    while (read_message(rp, &m, &err) && take_message(rp, &m, &err)) {
        trace_source_return_path_thread_loop_top();
    }
    if (err) {
        return_path_break_off(rp, err);
    }
    trace_source_return_path_thread_end();
    rcu_unregister_thread();
    return NULL;
}

/*
 * For the others
 */

static GArray *new_changes(void)
{
    return g_array_new(false, false, sizeof(ReturnPathChange));
}

ReturnPath *return_path_open(QEMUFile *to_dst, const ReturnPathUser *user)
{
    ReturnPath *rp = g_new0(ReturnPath, 1);

    rp->f = qemu_file_get_return_path(to_dst);
    rp->user = user;
    rp->changes = new_changes();
    rp->inventory = g_byte_array_new();
    rp->epoch_complete = true;  /* none was sent */
    qemu_mutex_init(&rp->lock);
    qemu_cond_init(&rp->changed);
    qemu_thread_create(&rp->thread, MIGRATION_THREAD_SRC_RETURN,
                       return_path_thread, rp, QEMU_THREAD_JOINABLE);
    return rp;
}

/*
 * Under the lock: until *@condition, the end, or the time, if it is not
 * negative, is over.
 */
static bool wait_for(ReturnPath *rp, const bool *condition, int timeout_ms)
{
    int64_t end = g_get_monotonic_time() + timeout_ms * 1000LL;

    while (!*condition && rp->end == RETURN_PATH_OPEN) {
        int64_t left_us = end - g_get_monotonic_time();

        if (timeout_ms < 0) {
            qemu_cond_wait(&rp->changed, &rp->lock);
            continue;
        }
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

void return_path_expect_inventory(ReturnPath *rp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    rp->asked = true;
    rp->inventory_complete = false;
    g_byte_array_set_size(rp->inventory, 0);
}

bool return_path_inventory(ReturnPath *rp, int timeout_ms, size_t *bytes,
                           Inventory **inventory, Error **errp)
{
    *inventory = NULL;
    QEMU_LOCK_GUARD(&rp->lock);
    *bytes = rp->inventory->len;
    if (!wait_for(rp, &rp->inventory_complete, timeout_ms)) {
        return false;
    }
    *bytes = rp->inventory->len;
    *inventory = inventory_decode(rp->inventory->data, rp->inventory->len,
                                  errp);
    return true;
}

void return_path_expect_epoch(ReturnPath *rp, uint64_t number)
{
    QEMU_LOCK_GUARD(&rp->lock);
    rp->epoch = number;
    rp->epoch_complete = false;
}

bool return_path_epoch_acked(ReturnPath *rp, int timeout_ms)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return wait_for(rp, &rp->epoch_complete, timeout_ms);
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

void return_path_expect(ReturnPath *rp, uint32_t attempt, uint32_t value)
{
    QEMU_LOCK_GUARD(&rp->lock);
    rp->attempt = attempt;
    rp->wanted_pong = value;
    rp->ponged = rp->ready = rp->started = false;
}

bool return_path_ponged(ReturnPath *rp, int timeout_ms)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return wait_for(rp, &rp->ponged, timeout_ms);
}

static bool wait_for_report(ReturnPath *rp, const bool *came, int timeout_ms,
                            const ReturnPathReport *report,
                            ReturnPathReport *r)
{
    QEMU_LOCK_GUARD(&rp->lock);
    if (!wait_for(rp, came, timeout_ms)) {
        return false;
    }
    *r = *report;
    return true;
}

bool return_path_ready(ReturnPath *rp, int timeout_ms, ReturnPathReport *r)
{
    return wait_for_report(rp, &rp->ready, timeout_ms, &rp->ready_report, r);
}

bool return_path_started(ReturnPath *rp, int timeout_ms, ReturnPathReport *r)
{
    return wait_for_report(rp, &rp->started, timeout_ms, &rp->started_report,
                           r);
}

bool return_path_changed(ReturnPath *rp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return rp->changes->len;
}

bool return_path_aborted(ReturnPath *rp, uint32_t attempt, int timeout_ms,
                         GArray **changes)
{
    QEMU_LOCK_GUARD(&rp->lock);
    rp->wanted_abort = attempt;
    rp->abort_answered = rp->aborted == attempt;
    if (!wait_for(rp, &rp->abort_answered, timeout_ms)) {
        return false;
    }
    *changes = rp->changes;
    rp->changes = new_changes();
    return true;
}

bool return_path_loaded(ReturnPath *rp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return rp->loaded;
}

bool return_path_resumed(ReturnPath *rp, int timeout_ms)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return wait_for(rp, &rp->resumed, timeout_ms);
}

/* Under the lock. */
static ReturnPathEnd return_path_tell_end(ReturnPath *rp, Error **errp)
{
    if (rp->error) {
        error_propagate(errp, error_copy(rp->error));
    }
    return rp->end;
}

ReturnPathEnd return_path_state(ReturnPath *rp, Error **errp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return return_path_tell_end(rp, errp);
}

char *return_path_reason(ReturnPath *rp)
{
    QEMU_LOCK_GUARD(&rp->lock);
    return g_strdup(rp->reason);
}

ReturnPathEnd return_path_wait_end(ReturnPath *rp, int timeout_ms,
                                   Error **errp)
{
    const bool never = false;

    QEMU_LOCK_GUARD(&rp->lock);
    wait_for(rp, &never, timeout_ms);
    return return_path_tell_end(rp, errp);
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
    if (return_path_state(rp, NULL) == RETURN_PATH_OPEN) {
        return_path_hang_up(rp);
    }
    qemu_thread_join(&rp->thread);
    qemu_fclose(rp->f);
    error_free(rp->error);
    g_free(rp->reason);
    g_array_free(rp->changes, true);
    g_byte_array_free(rp->inventory, true);
    qemu_cond_destroy(&rp->changed);
    qemu_mutex_destroy(&rp->lock);
    g_free(rp);
}
