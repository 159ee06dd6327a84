/*
 * Dirty bitmaps of disks: loading them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "bitmap.h"
#include "bitmap-names.h"

/* One that has begun, until the end of the load */
typedef struct Loading {
    BlockDriverState *bs;       /* referenced */
    BdrvDirtyBitmap *bitmap;    /* busy; NULL: dropped, or the user's */
    char *node, *name;          /* as the stream calls them */
    Error *no_resize;           /* why its node cannot be resized now */
    bool enabled;               /* it records once the guest runs */
    bool persistent;            /* it is from then on, see below */
    bool complete;
} Loading;

/*
 * Names are those of the reader alone: a coroutine in the main loop, and in
 * postcopy the incoming thread, without the BQL.  All else is under the lock,
 * which nobody holds while he waits for the source: QEMU may be ended by then.
 */
static struct {
    char node[WIRE_NAME_MAX + 1];
    char name[WIRE_NAME_MAX + 1];

    QemuMutex lock;
    GPtrArray *bitmaps;         /* Loading */
    bool started;               /* the guest was, or could have been */
    bool cancelled;             /* what comes is read and forgotten */
} load;

/* As it was read; nothing has been checked but the length of @bits. */
typedef struct Chunk {
    uint32_t flags;
    uint32_t granularity;
    uint8_t start_flags;
    uint64_t first;             /* sectors */
    uint32_t sectors;
    uint64_t len;
    uint8_t *bits;              /* owned */
} Chunk;

static void chunk_clear(Chunk *c)
{
    g_free(c->bits);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Chunk, chunk_clear)

static void loading_free(void *opaque)
{
    Loading *l = opaque;

    bdrv_op_unblock(l->bs, BLOCK_OP_TYPE_RESIZE, l->no_resize);
    error_free(l->no_resize);
    bdrv_unref(l->bs);
    g_free(l->node);
    g_free(l->name);
    g_free(l);
}

void bitmap_load_init(void)
{
    qemu_mutex_init(&load.lock);
    load.bitmaps = g_ptr_array_new_with_free_func(loading_free);
}

/*
 * Under the lock
 */

static Loading *bitmap_load_find(const char *node, const char *name)
{
    for (unsigned i = 0; i < load.bitmaps->len; i++) {
        Loading *l = load.bitmaps->pdata[i];

        if (l->bitmap && !l->complete && !strcmp(l->node, node) &&
            !strcmp(l->name, name)) {
            return l;
        }
    }
    return NULL;
}

static bool is_empty(const BdrvDirtyBitmap *bitmap)
{
    return !bdrv_dirty_bitmap_size(bitmap);
}

/*
 * With all that its successor has recorded.  Nothing can be merged into one
 * without a bit.
 */
static BdrvDirtyBitmap *bitmap_load_release(Loading *l)
{
    BdrvDirtyBitmap *bitmap = g_steal_pointer(&l->bitmap);

    if (bdrv_dirty_bitmap_has_successor(bitmap)) {
        return is_empty(bitmap) ? bdrv_dirty_bitmap_abdicate(bitmap, NULL)
                                : bdrv_reclaim_dirty_bitmap(bitmap, NULL);
    } else {
        bdrv_dirty_bitmap_set_busy(bitmap, false);
    }
    return bitmap;
}

/* Those that are not whole; all, if the guest was not started with them. */
static void bitmap_load_drop(void)
{
    for (unsigned i = 0; i < load.bitmaps->len; i++) {
        Loading *l = load.bitmaps->pdata[i];

        if (l->bitmap) {
            bdrv_release_dirty_bitmap(bitmap_load_release(l));
        }
    }
    load.cancelled = true;
}

/* The guest does without its bitmaps.  Takes over @err.  Returns true. */
static bool lose_all(Error *err)
{
    bitmap_load_drop();
    error_report_err(err);
    return true;
}

/*
 * Chunks, as they are taken
 */

/* Where a bitmap goes; *@row is NULL if nothing is mapped. */
static BlockDriverState *find_node(const BitmapMigrationBitmapAlias **row,
                                   Error **errp)
{
    const BitmapMigrationNodeAlias *node;
    BlockDriverState *bs;

    *row = NULL;
    if (!bitmap_names_mapped()) {
        return bdrv_lookup_bs(load.node, load.node, errp);
    }
    node = bitmap_names_node(load.node, true);
    if (!node) {
        error_setg(errp, "Unknown node alias '%s'", load.node);
        return NULL;
    }
    bs = bdrv_lookup_bs(NULL, node->node_name, errp);
    if (bs) {
        *row = bitmap_names_bitmap(node, load.name, true);
    }
    if (bs && !*row) {
        error_setg(errp, "Unknown bitmap alias '%s' on node '%s' (alias '%s')",
                   load.name, node->node_name, load.node);
        return NULL;
    }
    return bs;
}

static bool check_start(const Chunk *c, Error **errp)
{
    if (!bql_locked() || load.started) {
        error_setg(errp, "Dirty bitmap '%s' begins after the guest was handed "
                   "over", load.name);
        return false;
    }
    if (c->start_flags & ~WIRE_BITMAP_START_FLAGS) {
        error_setg(errp, "Dirty bitmap '%s' has unknown flags 0x%02x",
                   load.name, c->start_flags);
        return false;
    }
    if (!is_power_of_2(c->granularity) ||
        c->granularity < BDRV_SECTOR_SIZE || !load.name[0]) {
        error_setg(errp, "Dirty bitmap '%s' has the granularity %" PRIu32
                   ", which is not valid", load.name, c->granularity);
        return false;
    }
    return true;
}

static BdrvDirtyBitmap *create(BlockDriverState *bs, const char *name,
                               const Chunk *c, Error **errp)
{
    bool enabled = c->start_flags & WIRE_BITMAP_ENABLED;
    BdrvDirtyBitmap *bitmap;

    if (bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap with the same name ('%s') already exists on "
                   "destination", name);
        return NULL;
    }
    bitmap = bdrv_create_dirty_bitmap(bs, c->granularity, name, errp);
    if (!bitmap) {
        return NULL;
    }
    bdrv_disable_dirty_bitmap(bitmap);
    if (!enabled) {
        bdrv_dirty_bitmap_set_busy(bitmap, true);
    } else if (bdrv_dirty_bitmap_create_successor(bitmap, errp) < 0) {
        bdrv_release_dirty_bitmap(bitmap);
        return NULL;
    }
    return bitmap;
}

static void bitmap_load_keep(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                             bool enabled, bool persistent)
{
    Loading *l = g_new0(Loading, 1);

    bdrv_ref(bs);
    *l = (Loading) {
        .bs = bs, .bitmap = bitmap, .enabled = enabled,
        .persistent = persistent,
        .node = g_strdup(load.node), .name = g_strdup(load.name),
    };
    error_setg(&l->no_resize, "Dirty bitmap '%s' is being migrated",
               bdrv_dirty_bitmap_name(bitmap));
    bdrv_op_block(bs, BLOCK_OP_TYPE_RESIZE, l->no_resize);
    g_ptr_array_add(load.bitmaps, l);
}

static bool take_start(const Chunk *c, Error **errp)
{
    const BitmapMigrationBitmapAlias *row;
    BdrvDirtyBitmap *bitmap;
    BlockDriverState *bs;
    Error *err = NULL;
    bool persistent;

    if (!check_start(c, errp)) {
        return false;
    }
    bs = find_node(&row, &err);
    if (!bs) {
        return lose_all(err);
    }
    bitmap = create(bs, row ? row->name : load.name, c, errp);
    if (!bitmap) {
        return false;
    }
    persistent = c->start_flags & WIRE_BITMAP_PERSISTENT;
    bitmap_load_keep(bs, bitmap, c->start_flags & WIRE_BITMAP_ENABLED,
                     bitmap_names_persistent(row, persistent));
    return true;
}

/*
 * A disk may be larger than on the source, and then the source's last bits are
 * not ours: they count up to the next multiple of what bitmaps are cut into.
 */
static bool locate(const Loading *l, const Chunk *c, uint64_t *start,
                   uint64_t *bytes, Error **errp)
{
    uint64_t size = bdrv_dirty_bitmap_size(l->bitmap);
    uint64_t align = bdrv_dirty_bitmap_serialization_align(l->bitmap);
    uint64_t sectors = DIV_ROUND_UP(size, BDRV_SECTOR_SIZE);

    if (c->first > sectors || c->sectors > sectors - c->first) {
        error_setg(errp, "Dirty bitmap '%s' is longer than node '%s', which "
                   "has %" PRIu64 " bytes: the disk must have the size that "
                   "it has on the source", bdrv_dirty_bitmap_name(l->bitmap),
                   bdrv_get_device_or_node_name(l->bs), size);
        return false;
    }
    *start = c->first << BDRV_SECTOR_BITS;
    *bytes = MIN(ROUND_UP((uint64_t)c->sectors << BDRV_SECTOR_BITS, align),
                 size - *start);
    if (!QEMU_IS_ALIGNED(*start, align)) {
        error_setg(errp, "Bits of dirty bitmap '%s' begin at sector %" PRIu64
                   ", which no part of it does",
                   bdrv_dirty_bitmap_name(l->bitmap), c->first);
        return false;
    }
    return true;
}

/* No bit may be set that stands for nothing. */
static void clear_rest(uint8_t *bits, uint64_t len, uint64_t valid)
{
    for (uint64_t i = valid / 8; i < len; i++) {
        bits[i] &= i == valid / 8 ? (1 << valid % 8) - 1 : 0;
    }
}

static bool take_bits(Loading *l, Chunk *c, Error **errp)
{
    uint64_t start, bytes, needed;

    trace_dirty_bitmap_load_bits_enter(c->first, c->sectors);
    if (!locate(l, c, &start, &bytes, errp)) {
        return false;
    }
    if (c->flags & WIRE_BITMAP_ZEROES) {
        trace_dirty_bitmap_load_bits_zeroes();
        bdrv_dirty_bitmap_deserialize_zeroes(l->bitmap, start, bytes, false);
        return true;
    }
    needed = bdrv_dirty_bitmap_serialization_size(l->bitmap, start, bytes);
    if (c->len < needed || c->len > ROUND_UP(needed, WIRE_BITMAP_FILL)) {
        error_setg(errp, "%" PRIu64 " bytes of dirty bitmap '%s' have come "
                   "where %" PRIu64 " were to", c->len,
                   bdrv_dirty_bitmap_name(l->bitmap), needed);
        return false;
    }
    clear_rest(c->bits, c->len,
               DIV_ROUND_UP(bytes, bdrv_dirty_bitmap_granularity(l->bitmap)));
    bdrv_dirty_bitmap_deserialize_part(l->bitmap, c->bits, start, bytes, false);
    return true;
}

/* It is the user's as soon as the guest is. */
static void take_complete(Loading *l)
{
    trace_dirty_bitmap_load_complete();
    if (!is_empty(l->bitmap)) {
        bdrv_dirty_bitmap_deserialize_finish(l->bitmap);
    }
    l->complete = true;
    if (load.started) {
        bitmap_load_release(l);
    }
}

static bool take_chunk(Chunk *c, Error **errp)
{
    Loading *l;

    if (load.cancelled ||
        !(c->flags & (WIRE_BITMAP_START | WIRE_BITMAP_COMPLETE |
                      WIRE_BITMAP_BITS))) {
        return true;
    }
    if (c->flags & WIRE_BITMAP_START) {
        return take_start(c, errp);
    }
    l = bitmap_load_find(load.node, load.name);
    if (!l) {
        error_setg(errp, "Unknown dirty bitmap '%s' for block device '%s'",
                   load.name, load.node);
        return false;
    }
    if (c->flags & WIRE_BITMAP_COMPLETE) {
        take_complete(l);
        return true;
    }
    return take_bits(l, c, errp);
}

/*
 * Reading, without the lock
 */

static uint32_t read_flags(QEMUFile *f)
{
    uint32_t flags = qemu_get_byte(f);

    if (flags & WIRE_BITMAP_MORE) {
        flags = flags << 8 | qemu_get_byte(f);
        if (flags & WIRE_BITMAP_MORE) {
            flags = flags << 16 | qemu_get_be16(f);
        }
    }
    return flags;
}

/* The name before holds if there is none. */
static void bitmap_load_read_name(QEMUFile *f, char *name, bool present)
{
    if (present && !qemu_get_counted_string(f, name)) {
        name[0] = 0;
    }
}

static bool read_bits(QEMUFile *f, Chunk *c, Error **errp)
{
    c->first = qemu_get_be64(f);
    c->sectors = qemu_get_be32(f);
    if (c->flags & WIRE_BITMAP_ZEROES) {
        return true;
    }
    c->len = qemu_get_be64(f);
    if (c->len > WIRE_BITMAP_CHUNK_MAX) {
        error_setg(errp, "%" PRIu64 " bytes of a dirty bitmap at once are "
                   "more than the limit of %d", c->len, WIRE_BITMAP_CHUNK_MAX);
        return false;
    }
    c->bits = g_malloc0(c->len);
    qemu_get_buffer(f, c->bits, c->len);
    return true;
}

static bool read_chunk(QEMUFile *f, Chunk *c, Error **errp)
{
    bool ok = true;

    c->flags = read_flags(f);
    trace_dirty_bitmap_load_header(c->flags);
    bitmap_load_read_name(f, load.node, c->flags & WIRE_BITMAP_NODE);
    bitmap_load_read_name(f, load.name, c->flags & WIRE_BITMAP_NAME);
    if (c->flags & WIRE_BITMAP_START) {
        c->granularity = qemu_get_be32(f);
        c->start_flags = qemu_get_byte(f);
    } else if (c->flags & WIRE_BITMAP_COMPLETE) {
        /* nothing more */
    } else if (c->flags & WIRE_BITMAP_BITS) {
        ok = read_bits(f, c, errp);
    }
    return ok && stream_check(f, errp);
}

/* False if the section cannot be read on, or fails the migration. */
static bool load_chunk(QEMUFile *f, bool *end, Error **errp)
{
    g_auto(Chunk) c = { 0 };
    Error *err = NULL;

    if (!read_chunk(f, &c, errp)) {
        return false;
    }
    *end = c.flags & WIRE_BITMAP_EOS;
    QEMU_LOCK_GUARD(&load.lock);
    if (take_chunk(&c, &err) || load.started) {
        return !err || lose_all(err);
    }
    error_propagate(errp, err);
    return false;
}

/* An error of the stream is reported by its owner.  Takes over @err. */
static int bitmap_load_fail(QEMUFile *f, Error *err)
{
    QEMU_LOCK_GUARD(&load.lock);
    bitmap_load_drop();
    if (qemu_file_get_error(f)) {
        error_free(err);
        return qemu_file_get_error(f);
    }
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
    return -EINVAL;
}

int bitmap_load(QEMUFile *f, void *opaque, int version_id)
{
    Error *err = NULL;
    bool end = false;

    trace_dirty_bitmap_load_enter();
    while (!end) {
        if (!load_chunk(f, &end, &err)) {
            return bitmap_load_fail(f, err);
        }
    }
    trace_dirty_bitmap_load_success();
    return 0;
}

/*
 * For others
 */

/*
 * Disks have been activated.  An image format that reads its image anew may
 * first store what is persistent, which must not happen to a bitmap that is
 * not ours yet.
 */
void dirty_bitmap_mig_before_vm_start(void)
{
    QEMU_LOCK_GUARD(&load.lock);
    for (unsigned i = 0; i < load.bitmaps->len && !load.started; i++) {
        Loading *l = load.bitmaps->pdata[i];

        if (l->bitmap && l->persistent) {
            bdrv_dirty_bitmap_set_persistence(l->bitmap, true);
        }
        if (l->bitmap && l->enabled) {
            bdrv_dirty_bitmap_enable_successor(l->bitmap);
        }
        if (l->bitmap && l->complete) {
            bitmap_load_release(l);
        }
    }
    load.started = true;
}

/* Nodes can be released in the main loop only. */
void dirty_bitmap_mig_cancel_incoming(void)
{
    QEMU_LOCK_GUARD(&load.lock);
    bitmap_load_drop();
    if (bql_locked() && !qemu_in_coroutine()) {
        g_ptr_array_set_size(load.bitmaps, 0);
    }
}

int bitmap_load_cleanup(void *opaque)
{
    dirty_bitmap_mig_cancel_incoming();
    load.node[0] = load.name[0] = 0;
    QEMU_LOCK_GUARD(&load.lock);
    load.started = load.cancelled = false;
    return 0;
}
