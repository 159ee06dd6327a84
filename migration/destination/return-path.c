/*
 * The return path on the destination: what we have to reply_say to the source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "io/channel.h"
#include "migration/core/peer-error.h"
#include "migration/core/peer.h"
#include "migration/trace.h"
#include "migration/wire/wire.h"
#include "return-path.h"

/* How long those try to get the lock who must not wait, in milliseconds */
#define ERROR_LOCK_MS 20

static QemuMutex reply_lock;
static QEMUFile *to_src;        /* under the lock, as is: */
static Peer source_peer;
static const char *last_block;  /* the source knows which one we are about */
static bool shut;               /* nothing can follow: SHUT or why was sent */

void reply_init(void)
{
    qemu_mutex_init(&reply_lock);
}

bool reply_open(QEMUFile *from_src)
{
    QEMU_LOCK_GUARD(&reply_lock);
    if (to_src) {
        return false;
    }
    to_src = qemu_file_get_return_path(from_src);
    source_peer = (Peer) { 0 };
    last_block = NULL;
    shut = false;
    return true;
}

bool reply_is_open(void)
{
    QEMU_LOCK_GUARD(&reply_lock);
    return to_src;
}

/* Under the lock; it is sent with what follows. */
static void reply_put(uint16_t type, const void *payload, uint16_t len)
{
    trace_migrate_send_rp_message(type, len);
    qemu_put_be16(to_src, type);
    qemu_put_be16(to_src, len);
    qemu_put_buffer(to_src, payload, len);
}

/* Under the lock. */
static bool reply_say(uint16_t type, const void *payload, uint16_t len)
{
    if (!to_src || shut) {
        return false;
    }
    reply_put(type, payload, len);
    return !qemu_fflush(to_src);
}

static bool say_number(uint16_t type, uint32_t value)
{
    uint8_t payload[sizeof(value)];

    stl_be_p(payload, value);
    return reply_say(type, payload, sizeof(payload));
}

/*
 * The same for those who hold the BQL and must not wait for the source: past
 * the stream, which would.  All that was said before has been written.
 */
static bool say_at_once(uint16_t type, const void *payload, uint16_t len)
{
    g_autofree char *message = g_malloc(2 * sizeof(uint16_t) + len);
    QIOChannel *ioc = to_src ? qemu_file_get_ioc(to_src) : NULL;
    ssize_t all = 2 * sizeof(uint16_t) + len;

    if (!ioc || qemu_file_get_error(to_src)) {
        return false;
    }
    trace_migrate_send_rp_message(type, len);
    stw_be_p(message, type);
    stw_be_p(message + sizeof(uint16_t), len);
    memcpy(message + 2 * sizeof(uint16_t), payload, len);
    if (qio_channel_set_blocking(ioc, false, NULL) < 0 ||
        qio_channel_write(ioc, message, all, NULL) != all) {
        /* Part of it may be written, so that nothing can follow. */
        qemu_file_set_error(to_src, -EIO);
        return false;
    }
    return true;
}

bool reply_pong(uint32_t value)
{
    QEMU_LOCK_GUARD(&reply_lock);
    peer_recognize_offer(value, &source_peer);
    return say_number(WIRE_RP_PONG, value) &&
           (value != WIRE_PEER_HELLO ||
            say_number(WIRE_RP_PONG, peer_introduction()));
}

uint32_t reply_peer_features(void)
{
    QEMU_LOCK_GUARD(&reply_lock);
    return source_peer.features;
}

bool reply_report(uint16_t type, const DowntimeReport *report)
{
    uint8_t payload[WIRE_RP_REPORT_MAX];

    QEMU_LOCK_GUARD(&reply_lock);
    return (source_peer.features & WIRE_PEER_REPORT) && !shut &&
           say_at_once(type, payload, downtime_report_encode(report, payload));
}

bool reply_inventory(const uint8_t *bytes, size_t len)
{
    QEMU_LOCK_GUARD(&reply_lock);
    if (!to_src || shut) {
        return false;
    }
    while (len) {
        size_t now = MIN(len, WIRE_RP_INVENTORY_MAX);

        reply_put(WIRE_RP_INVENTORY, bytes, now);
        bytes += now;
        len -= now;
    }
    /* Where each piece that is written has to be waited for, once is enough. */
    return !qemu_fflush(to_src);
}

bool reply_checkpoint_ack(uint64_t number)
{
    uint8_t payload[WIRE_RP_CHECKPOINT_ACK_LEN];

    stq_be_p(payload, number);
    QEMU_LOCK_GUARD(&reply_lock);
    return !shut &&
           say_at_once(WIRE_RP_CHECKPOINT_ACK, payload, sizeof(payload));
}

bool reply_switchover_ack(void)
{
    QEMU_LOCK_GUARD(&reply_lock);
    return reply_say(WIRE_RP_SWITCHOVER_ACK, NULL, WIRE_RP_SWITCHOVER_ACK_LEN);
}

/* Returns the length. */
static unsigned reply_put_name(uint8_t *to, const char *name)
{
    size_t len = strlen(name);

    assert(len <= WIRE_NAME_MAX);
    to[0] = len;
    memcpy(to + 1, name, len);
    return 1 + len;
}

bool reply_request_pages(const char *name, uint64_t start, uint32_t len)
{
    uint8_t payload[sizeof(WireRequestPages) + 1 + WIRE_NAME_MAX];
    unsigned used = sizeof(WireRequestPages);
    uint16_t type = WIRE_RP_REQ_PAGES;

    stq_be_p(payload + offsetof(WireRequestPages, start), start);
    stl_be_p(payload + offsetof(WireRequestPages, len), len);

    QEMU_LOCK_GUARD(&reply_lock);
    if (name != last_block) {
        type = WIRE_RP_REQ_PAGES_ID;
        used += reply_put_name(payload + used, name);
        last_block = name;
    }
    return reply_say(type, payload, used);
}

bool reply_changed(const char *name, uint64_t start, uint64_t len)
{
    uint8_t payload[sizeof(WireChanged) + 1 + WIRE_NAME_MAX];
    unsigned used = sizeof(WireChanged);

    stq_be_p(payload + offsetof(WireChanged, start), start);
    stq_be_p(payload + offsetof(WireChanged, len), len);
    used += reply_put_name(payload + used, name);

    QEMU_LOCK_GUARD(&reply_lock);
    return reply_say(WIRE_RP_CHANGED, payload, used);
}

bool reply_aborted(uint32_t attempt)
{
    QEMU_LOCK_GUARD(&reply_lock);
    return say_number(WIRE_RP_ABORTED, attempt);
}

void reply_next_listener(void)
{
    QEMU_LOCK_GUARD(&reply_lock);
    last_block = NULL;
}

bool reply_received(const char *name, bool (*put)(const char *, QEMUFile *))
{
    uint8_t payload[1 + WIRE_NAME_MAX];

    QEMU_LOCK_GUARD(&reply_lock);
    return reply_say(WIRE_RP_RECV_BITMAP, payload,
                     reply_put_name(payload, name)) &&
           put(name, to_src) && !qemu_fflush(to_src);
}

bool reply_resume_ack(void)
{
    QEMU_LOCK_GUARD(&reply_lock);
    return say_number(WIRE_RP_RESUME_ACK, WIRE_RESUME_ACK_OK);
}

void reply_abandon(void)
{
    QEMU_LOCK_GUARD(&reply_lock);
    if (to_src) {
        qemu_fclose(g_steal_pointer(&to_src));
    }
}

/* Another thread may wait for a source that does not read. */
static bool lock_soon(void)
{
    for (int i = 0; i < ERROR_LOCK_MS; i++) {
        if (!qemu_mutex_trylock(&reply_lock)) {
            return true;
        }
        g_usleep(1000);
    }
    return false;
}

/* Under the lock. */
static bool reply_explain(const char *why)
{
    uint8_t payload[WIRE_RP_ERROR_MAX];
    size_t len = peer_error_encode(why, payload);

    return len && to_src && !shut && (source_peer.features & WIRE_PEER_ERROR) &&
           say_at_once(WIRE_RP_ERROR, payload, len);
}

bool reply_error(const char *why)
{
    bool ok = lock_soon();

    if (ok) {
        ok = reply_explain(why);
        shut |= ok;
        qemu_mutex_unlock(&reply_lock);
    }
    return ok;
}

/* Under the lock.  Only the first time. */
static bool send_shut(bool ok, const char *why)
{
    uint8_t payload[WIRE_RP_SHUT_LEN];

    if (!to_src || shut) {
        return false;
    }
    if (!ok && why) {
        reply_explain(why);
    }
    shut = true;
    stl_be_p(payload, !ok);
    return say_at_once(WIRE_RP_SHUT, payload, sizeof(payload));
}

bool reply_refuse(const char *why)
{
    bool ok = lock_soon();

    if (ok) {
        ok = send_shut(false, why);
        qemu_mutex_unlock(&reply_lock);
    }
    return ok;
}

bool reply_accept(void)
{
    bool ok = lock_soon();

    if (ok) {
        ok = send_shut(true, NULL);
        qemu_mutex_unlock(&reply_lock);
    }
    return ok;
}

void reply_close(bool ok, const char *why)
{
    QEMU_LOCK_GUARD(&reply_lock);
    send_shut(ok, why);
    if (to_src) {
        qemu_fclose(g_steal_pointer(&to_src));
    }
}
