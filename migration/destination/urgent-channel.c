/*
 * Connections that may be the source's second one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "io/channel-socket.h"
#include "migration/migration.h"
#include "migration/postcopy/first-record.h"
#include "migration/ram/load.h"
#include "migration/yank_functions.h"
#include "urgent-channel.h"

/* More are not kept at once. */
#define CANDIDATES_MAX 8

static struct {
    QemuMutex lock;
    QIOChannel *list[CANDIDATES_MAX];   /* in the order in which they came */
    unsigned count;
} candidates;

void urgent_channel_init(void)
{
    qemu_mutex_init(&candidates.lock);
}

void urgent_channel_close(QIOChannel *ioc)
{
    migration_ioc_unregister_yank(ioc);
    qio_channel_close(ioc, NULL);
    object_unref(OBJECT(ioc));
}

void urgent_channel_offer(QIOChannel *ioc)
{
    object_ref(OBJECT(ioc));
    qio_channel_set_blocking(ioc, false, NULL);
    WITH_QEMU_LOCK_GUARD(&candidates.lock) {
        if (candidates.count < CANDIDATES_MAX) {
            candidates.list[candidates.count++] = ioc;
            return;
        }
    }
    urgent_channel_close(ioc);
}

bool urgent_channel_some(void)
{
    QEMU_LOCK_GUARD(&candidates.lock);
    return candidates.count;
}

/* False if it is not among them any more.  Its reference is the caller's. */
static bool urgent_channel_take_out(QIOChannel *ioc)
{
    QEMU_LOCK_GUARD(&candidates.lock);
    for (unsigned i = 0; i < candidates.count; i++) {
        if (candidates.list[i] == ioc) {
            candidates.count--;
            memmove(&candidates.list[i], &candidates.list[i + 1],
                    (candidates.count - i) * sizeof(candidates.list[0]));
            return true;
        }
    }
    return false;
}

void urgent_channel_drop(void)
{
    QIOChannel *ioc;

    do {
        WITH_QEMU_LOCK_GUARD(&candidates.lock) {
            ioc = candidates.count ? candidates.list[--candidates.count]
                                   : NULL;
        }
        if (ioc) {
            urgent_channel_close(ioc);
        }
    } while (ioc);
}

/* A copy of the list, with references */
static unsigned look_at_all(QIOChannel **list)
{
    QEMU_LOCK_GUARD(&candidates.lock);
    for (unsigned i = 0; i < candidates.count; i++) {
        list[i] = candidates.list[i];
        object_ref(OBJECT(list[i]));
    }
    return candidates.count;
}

static bool can_peek(QIOChannel *ioc)
{
    return object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET) &&
           qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_READ_MSG_PEEK);
}

/* What is read here can be read again. */
static FirstRecord begins_with(QIOChannel *ioc, bool ended)
{
    uint8_t data[FIRST_RECORD_BYTES];
    struct iovec iov = { .iov_base = data, .iov_len = sizeof(data) };
    FirstRecord first;
    ssize_t ret;

    ret = qio_channel_readv_full(ioc, &iov, 1, NULL, NULL,
                                 QIO_CHANNEL_READ_FLAG_MSG_PEEK, NULL);
    if (ret == QIO_CHANNEL_ERR_BLOCK) {
        return FIRST_RECORD_SHORT;
    }
    if (ret <= 0) {
        return FIRST_RECORD_FOREIGN;
    }
    first = first_record(data, ret, ram_load_regions());
    return first == FIRST_RECORD_SHORT && ended ? FIRST_RECORD_FOREIGN : first;
}

/* Whether it is the one that is looked for; closes it if it never will be. */
static bool is_it(QIOChannel *ioc, int events, bool *more)
{
    FirstRecord first = FIRST_RECORD_OURS;

    if (can_peek(ioc)) {
        first = events ? begins_with(ioc, events & (G_IO_HUP | G_IO_ERR))
                       : FIRST_RECORD_SHORT;
        *more |= events && first == FIRST_RECORD_SHORT;
    }
    if (first == FIRST_RECORD_SHORT || !urgent_channel_take_out(ioc)) {
        return false;
    }
    if (first == FIRST_RECORD_FOREIGN) {
        warn_report_once("postcopy-preempt: a connection is closed that does "
                         "not begin with a page");
        urgent_channel_close(ioc);
        return false;
    }
    object_unref(OBJECT(ioc));
    return true;
}

/* Waits for any of them to be readable, or to have ended. */
static bool wait_for_some(QIOChannel **list, unsigned count, GPollFD *fds,
                          int wait_ms)
{
    for (unsigned i = 0; i < count; i++) {
        fds[i] = (GPollFD) { .fd = -1 };
        if (!can_peek(list[i])) {
            wait_ms = 0;
            continue;
        }
        fds[i].fd = QIO_CHANNEL_SOCKET(list[i])->fd;
        fds[i].events = G_IO_IN | G_IO_HUP | G_IO_ERR;
    }
    return g_poll(fds, count, wait_ms) >= 0;
}

QIOChannel *urgent_channel_choose(int wait_ms)
{
    QIOChannel *list[CANDIDATES_MAX], *chosen = NULL;
    GPollFD fds[CANDIDATES_MAX];
    unsigned count = look_at_all(list);
    bool ok = wait_for_some(list, count, fds, wait_ms), more = false;

    for (unsigned i = 0; i < count; i++) {
        if (ok && !chosen && is_it(list[i], fds[i].revents, &more)) {
            chosen = list[i];
        } else {
            object_unref(OBJECT(list[i]));
        }
    }
    if (more && !chosen) {
        /* It would be readable at once, and say no more. */
        g_usleep(wait_ms * 1000);
    }
    return chosen;
}
