/*
 * Checkpoints: an epoch of this machine as bytes in memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "migration/base/clock.h"
#include "migration/ram.h"
#include "migration/ram/ram-source.h"
#include "migration/source/save.h"
#include "migration/source/state.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "collect.h"
#include "epoch.h"

/* As much stays allocated from one epoch to the next in any case. */
#define BYTES_KEPT (16 * MiB)

/* What these streams write is counted when it is sent. */
static Stat64 collected;

static void epoch_bytes_init(EpochBytes *b, const char *name)
{
    b->buffer = qio_channel_buffer_new(64 * KiB);
    qio_channel_set_name(QIO_CHANNEL(b->buffer), name);
    b->f = qemu_file_new_output(QIO_CHANNEL(b->buffer));
    stream_count_in(b->f, &collected);
}

static void epoch_bytes_free(EpochBytes *b)
{
    if (b->f) {
        qemu_fclose(b->f);
        object_unref(OBJECT(b->buffer));
    }
}

/* The first epoch may be many times as large as the others. */
static void epoch_bytes_empty(EpochBytes *b)
{
    QIOChannelBuffer *buffer = b->buffer;

    if (buffer->capacity > BYTES_KEPT &&
        buffer->usage < buffer->capacity / 4) {
        buffer->capacity = MAX(buffer->usage * 2, BYTES_KEPT);
        buffer->data = g_realloc(buffer->data, buffer->capacity);
    }
    buffer->usage = buffer->offset = 0;
}

void epoch_store_init(EpochStore *s)
{
    epoch_bytes_init(&s->memory, "migration-epoch-memory");
    epoch_bytes_init(&s->devices, "migration-epoch-devices");
    ram_source_write_to(s->memory.f);
}

void epoch_store_free(EpochStore *s)
{
    ram_source_write_to(source.to_dst);
    epoch_bytes_free(&s->memory);
    epoch_bytes_free(&s->devices);
    *s = (EpochStore) { };
}

static bool epoch_bytes_end(EpochBytes *b, const char *what, Error **errp)
{
    qemu_put_byte(b->f, WIRE_EOF);
    qemu_fflush(b->f);
    if (!stream_check(b->f, errp)) {
        return false;
    }
    if (b->buffer->usage > WIRE_PACKAGED_MAX) {
        error_setg(errp, "the %s of an epoch has %zu MiB, and a secondary "
                   "takes %u MiB at most", what,
                   (size_t)(b->buffer->usage / MiB),
                   (unsigned)(WIRE_PACKAGED_MAX / MiB));
        return false;
    }
    return true;
}

static bool collect_devices(EpochBytes *b, Error **errp)
{
    LedgerDevices times = { 0 };

    epoch_bytes_empty(b);
    return vmstate_save_again(b->f, &times, errp) &&
           epoch_bytes_end(b, "device state", errp);
}

static bool collect_fits(Error **errp)
{
    uint64_t changed = ram_bytes_remaining();

    if (changed <= EPOCH_MEMORY_MAX) {
        return true;
    }
    error_setg(errp, "%" PRIu64 " MiB of memory have changed since the last "
               "epoch, and an epoch takes %" PRIu64 " MiB at most: the guest "
               "writes too fast, or checkpoint-interval is too long",
               (uint64_t)(changed / MiB), (uint64_t)(EPOCH_MEMORY_MAX / MiB));
    return false;
}

static bool collect_memory(EpochBytes *b, Error **errp)
{
    int ret;

    epoch_bytes_empty(b);
    ram_source_write_to(b->f);
    ram_source_drain(true);
    do {
        ret = vmstate_save_ram(b->f);
    } while (!ret);
    ram_source_drain(false);
    if (ret < 0 && stream_check(b->f, errp)) {
        error_setg_errno(errp, -ret, "the memory of an epoch cannot be saved");
    }
    return ret > 0 && epoch_bytes_end(b, "memory", errp);
}

bool epoch_collect(EpochStore *s, EpochCost *cost, Error **errp)
{
    int64_t start = now_ns(), devices, synced;
    bool ok = collect_devices(&s->devices, errp);

    devices = now_ns();
    if (ok) {
        ram_source_sync_last();
        ok = collect_fits(errp);
    }
    synced = now_ns();
    ok = ok && collect_memory(&s->memory, errp);
    *cost = (EpochCost) {
        .devices = devices - start,
        .sync = synced - devices,
        .memory = now_ns() - synced,
    };
    return ok;
}
