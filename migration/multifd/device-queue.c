/*
 * Pieces of device state on their way to the channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "device-queue.h"

static void piece_free(DevicePiece *piece)
{
    g_free(piece->name);
    g_free(piece->data);
    g_free(piece);
}

void device_queue_init(DeviceQueue *q, unsigned capacity)
{
    *q = (DeviceQueue) { .room = capacity, .capacity = capacity };
    qemu_mutex_init(&q->lock);
    qemu_cond_init(&q->changed);
    QSIMPLEQ_INIT(&q->list);
}

void device_queue_destroy(DeviceQueue *q)
{
    DevicePiece *piece;

    while ((piece = device_queue_take(q))) {
        piece_free(piece);
    }
    qemu_mutex_destroy(&q->lock);
    qemu_cond_destroy(&q->changed);
}

bool device_queue_put(DeviceQueue *q, const char *name, uint32_t instance_id,
                      const void *data, size_t len)
{
    DevicePiece *piece;

    QEMU_LOCK_GUARD(&q->lock);
    while (!q->room && !q->ended) {
        qemu_cond_wait(&q->changed, &q->lock);
    }
    if (q->ended) {
        return false;
    }
    q->room--;
    piece = g_new(DevicePiece, 1);
    *piece = (DevicePiece) {
        .name = g_strdup(name),
        .instance_id = instance_id,
        .data = g_memdup2(data, len),
        .len = len,
    };
    QSIMPLEQ_INSERT_TAIL(&q->list, piece, next);
    return true;
}

DevicePiece *device_queue_take(DeviceQueue *q)
{
    DevicePiece *piece;

    QEMU_LOCK_GUARD(&q->lock);
    piece = QSIMPLEQ_FIRST(&q->list);
    if (piece) {
        QSIMPLEQ_REMOVE_HEAD(&q->list, next);
    }
    return piece;
}

void device_queue_done(DeviceQueue *q, DevicePiece *piece)
{
    piece_free(piece);
    QEMU_LOCK_GUARD(&q->lock);
    q->room++;
    qemu_cond_broadcast(&q->changed);
}

bool device_queue_wait(DeviceQueue *q)
{
    QEMU_LOCK_GUARD(&q->lock);
    while (q->room < q->capacity && !q->ended) {
        qemu_cond_wait(&q->changed, &q->lock);
    }
    return !q->ended;
}

void device_queue_end(DeviceQueue *q)
{
    QEMU_LOCK_GUARD(&q->lock);
    q->ended = true;
    qemu_cond_broadcast(&q->changed);
}
