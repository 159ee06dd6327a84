/*
 * Dirty bitmaps of disks: saving them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "system/block-backend.h"
#include "system/runstate.h"
#include "migration/base/stats.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/register.h"
#include "migration/trace.h"
#include "migration/wire/wire.h"
#include "bitmap.h"
#include "bitmap-inventory.h"
#include "bitmap-names.h"

/* One that travels, until the end of the migration */
typedef struct Saving {
    BlockDriverState *bs;       /* referenced */
    BdrvDirtyBitmap *bitmap;    /* busy */
    char *node, *name;          /* as the stream calls them */
    Error *no_resize;           /* why its node cannot be resized now */
    uint8_t flags;              /* WIRE_BITMAP_ENABLED and so on */
    uint64_t sectors;           /* of the disk */
    uint64_t chunk;             /* so many are sent at once */
    uint64_t next;              /* the first that was not sent */
    bool sent;
} Saving;

/*
 * Filled and emptied under the BQL and the lock.  The migration thread composes
 * chunks under the lock alone, and holds nothing when it puts them into the
 * stream: QEMU may be ended while it waits there.
 */
static struct {
    QemuMutex lock;
    GPtrArray *bitmaps;         /* Saving */
    const Saving *named;        /* the one that the last chunk was about */
    bool none;                  /* there is nothing to migrate; BQL */
    bool begun;                 /* the section has been introduced; BQL */
} save;

/*
 * The list; under the BQL and the lock
 */

/* A bitmap stays out of its image only if that is left to the other side. */
static void store_again(Saving *s)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (!bdrv_is_inactive(s->bs)) {
        bdrv_dirty_bitmap_skip_store(s->bitmap, false);
    }
}

static void saving_free(void *opaque)
{
    Saving *s = opaque;

    store_again(s);
    bdrv_dirty_bitmap_set_busy(s->bitmap, false);
    bdrv_op_unblock(s->bs, BLOCK_OP_TYPE_RESIZE, s->no_resize);
    error_free(s->no_resize);
    bdrv_unref(s->bs);
    g_free(s->node);
    g_free(s->name);
    g_free(s);
}

static void bitmap_save_init(void)
{
    qemu_mutex_init(&save.lock);
    save.bitmaps = g_ptr_array_new_with_free_func(saving_free);
}

static void forget_all(void)
{
    g_ptr_array_set_size(save.bitmaps, 0);
    save.named = NULL;
}

/* @node and @name, the bitmap's names in the stream, are owned from here on. */
static void bitmap_save_add(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                            int64_t sectors, char *node, char *name,
                            bool persistent)
{
    Saving *s = g_new0(Saving, 1);
    uint32_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    uint64_t chunk = WIRE_BITMAP_CHUNK * 8ull * granularity / BDRV_SECTOR_SIZE;

    bdrv_ref(bs);
    bdrv_dirty_bitmap_set_busy(bitmap, true);
    *s = (Saving) {
        .bs = bs, .bitmap = bitmap, .node = node, .name = name,
        .flags = (bdrv_dirty_bitmap_enabled(bitmap) ? WIRE_BITMAP_ENABLED : 0) |
                 (persistent ? WIRE_BITMAP_PERSISTENT : 0),
        .sectors = sectors,
        .chunk = MIN(chunk, WIRE_BITMAP_SECTORS_MAX),
    };
    error_setg(&s->no_resize, "Dirty bitmap '%s' is being migrated",
               bdrv_dirty_bitmap_name(bitmap));
    bdrv_op_block(bs, BLOCK_OP_TYPE_RESIZE, s->no_resize);
    g_ptr_array_add(save.bitmaps, s);
}

static bool bitmap_save_check_name(const char *name, const char *node,
                                   Error **errp)
{
    if (strlen(name) > WIRE_NAME_MAX) {
        error_setg(errp, "Cannot migrate bitmap '%s' on node '%s': Name is "
                   "longer than %u bytes", name, node, WIRE_NAME_MAX);
        return false;
    }
    return true;
}

/* @label is what the node is called; @row what is mapped of it, or NULL. */
static bool add_bitmap(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                       const char *label, const BitmapMigrationNodeAlias *row,
                       Error **errp)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    const BitmapMigrationBitmapAlias *mapped = NULL;
    int64_t sectors;

    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT, errp)) {
        return false;
    }
    if (row) {
        mapped = bitmap_names_bitmap(row, name, false);
        if (!mapped) {
            return true;
        }
    } else if (!bitmap_save_check_name(name, label, errp)) {
        return false;
    }
    sectors = bdrv_nb_sectors(bs);
    if (sectors < 0) {
        error_setg_errno(errp, -sectors, "Cannot migrate bitmap '%s': the size "
                         "of node '%s' is not known", name, label);
        return false;
    }
    bitmap_save_add(bs, bitmap, sectors, g_strdup(row ? row->alias : label),
                    g_strdup(mapped ? mapped->alias : name),
                    bitmap_names_persistent(
                        mapped, bdrv_dirty_bitmap_get_persistence(bitmap)));
    return true;
}

static BdrvDirtyBitmap *next_named(BlockDriverState *bs, BdrvDirtyBitmap *bm)
{
    do {
        bm = bm ? bdrv_dirty_bitmap_next(bm) : bdrv_dirty_bitmap_first(bs);
    } while (bm && !bdrv_dirty_bitmap_name(bm));
    return bm;
}

static bool add_node(BlockDriverState *bs, const char *label, Error **errp)
{
    const BitmapMigrationNodeAlias *row = NULL;
    BdrvDirtyBitmap *bm = next_named(bs, NULL);

    if (!bm) {
        return true;
    }
    if (!label[0]) {
        error_setg(errp, "Bitmap '%s' in unnamed node can't be migrated",
                   bdrv_dirty_bitmap_name(bm));
        return false;
    }
    if (bitmap_names_mapped()) {
        row = bitmap_names_node(label, false);
        if (!row) {
            return true;
        }
    } else if (label[0] == '#') {
        error_setg(errp, "Bitmap '%s' in a node with auto-generated name '%s' "
                   "can't be migrated", bdrv_dirty_bitmap_name(bm), label);
        return false;
    }
    for (; bm; bm = next_named(bs, bm)) {
        if (!add_bitmap(bs, bm, label, row, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Without a mapping, the node that a named block backend is about is called as
 * that is.  Filters are passed over, unless they have bitmaps themselves.
 */
static BlockDriverState * GRAPH_RDLOCK backend_node(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    while (bs && bs->drv && bs->drv->is_filter && !bdrv_has_named_bitmaps(bs)) {
        bs = bdrv_filter_bs(bs);
    }
    return bs && bs->drv && !bs->drv->is_filter ? bs : NULL;
}

static bool add_all(Error **errp)
{
    g_autoptr(GHashTable) done = g_hash_table_new(NULL, NULL);
    BlockDriverState *bs;
    BlockBackend *blk;

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (blk = bitmap_names_mapped() ? NULL : blk_next(NULL); blk;
         blk = blk_next(blk)) {
        bs = blk_name(blk)[0] ? backend_node(blk) : NULL;
        if (bs && (!add_node(bs, blk_name(blk), errp) ||
                   !g_hash_table_add(done, bs))) {
            return false;
        }
    }
    for (bs = bdrv_next_all_states(NULL); bs; bs = bdrv_next_all_states(bs)) {
        if (!g_hash_table_contains(done, bs) &&
            !add_node(bs, bdrv_get_node_name(bs), errp)) {
            return false;
        }
    }
    return true;
}

bool bitmap_inventory_source(Inventory *inventory, Error **errp)
{
    bool ours, ok = true;

    QEMU_LOCK_GUARD(&save.lock);
    ours = !save.bitmaps->len;
    if (ours) {
        ok = add_all(errp);
    }
    for (unsigned i = 0; i < save.bitmaps->len; i++) {
        const Saving *s = save.bitmaps->pdata[i];

        inventory_add(inventory, WIRE_INVENTORY_BITMAP, s->node, s->name);
    }
    if (ours) {
        forget_all();
    }
    return ok;
}

/*
 * Chunks, composed under the lock
 */

static GByteArray *compose(const Saving *s, uint8_t flags)
{
    GByteArray *out = g_byte_array_new();
    const Saving *last = save.named;
    uint8_t len;

    if (!last || last->bs != s->bs) {
        flags |= WIRE_BITMAP_NODE;
    }
    if (last != s) {
        flags |= WIRE_BITMAP_NAME;
    }
    save.named = s;
    g_byte_array_append(out, &flags, 1);
    if (flags & WIRE_BITMAP_NODE) {
        len = strlen(s->node);
        g_byte_array_append(out, &len, 1);
        g_byte_array_append(out, (const uint8_t *)s->node, len);
    }
    if (flags & WIRE_BITMAP_NAME) {
        len = strlen(s->name);
        g_byte_array_append(out, &len, 1);
        g_byte_array_append(out, (const uint8_t *)s->name, len);
    }
    return out;
}

static GByteArray *compose_start(const Saving *s)
{
    GByteArray *out = compose(s, WIRE_BITMAP_START);
    WireBitmapStart start = { .flags = s->flags };

    stl_be_p(&start.granularity, bdrv_dirty_bitmap_granularity(s->bitmap));
    g_byte_array_append(out, (const uint8_t *)&start, sizeof(start));
    return out;
}

static GByteArray *compose_bits(const Saving *s, uint32_t sectors)
{
    uint64_t start = s->next << BDRV_SECTOR_BITS;
    uint64_t bytes = (uint64_t)sectors << BDRV_SECTOR_BITS;
    uint64_t len = ROUND_UP(bdrv_dirty_bitmap_serialization_size(s->bitmap,
                                                                 start, bytes),
                            4 * sizeof(long));
    g_autofree uint8_t *bits = g_malloc0(len);
    bool zeroes;
    GByteArray *out;
    WireBitmapBits head;
    wire_be64 wire_len;

    bdrv_dirty_bitmap_serialize_part(s->bitmap, bits, start, bytes);
    zeroes = !len || buffer_is_zero(bits, len);
    trace_send_bitmap_bits(zeroes ? WIRE_BITMAP_ZEROES : 0, s->next, sectors,
                           len);
    out = compose(s, WIRE_BITMAP_BITS | (zeroes ? WIRE_BITMAP_ZEROES : 0));
    stq_be_p(&head.first, s->next);
    stl_be_p(&head.sectors, sectors);
    g_byte_array_append(out, (const uint8_t *)&head, sizeof(head));
    if (!zeroes) {
        stq_be_p(&wire_len, len);
        g_byte_array_append(out, (const uint8_t *)&wire_len, sizeof(wire_len));
        g_byte_array_append(out, bits, len);
    }
    return out;
}

/* The next one of bits, or NULL if all have been sent. */
static GByteArray *next_bits(void)
{
    QEMU_LOCK_GUARD(&save.lock);
    for (unsigned i = 0; i < save.bitmaps->len; i++) {
        Saving *s = save.bitmaps->pdata[i];
        uint32_t sectors = MIN(s->sectors - s->next, s->chunk);
        GByteArray *out;

        if (s->sent) {
            continue;
        }
        out = compose_bits(s, sectors);
        s->next += sectors;
        s->sent = s->next == s->sectors;
        return out;
    }
    return NULL;
}

static GByteArray *number(unsigned i, bool start)
{
    QEMU_LOCK_GUARD(&save.lock);
    if (i >= save.bitmaps->len) {
        return NULL;
    }
    return start ? compose_start(save.bitmaps->pdata[i])
                 : compose(save.bitmaps->pdata[i], WIRE_BITMAP_COMPLETE);
}

/*
 * Hooks; without the lock
 */

/* False if there was nothing to put. */
static bool bitmap_save_put(QEMUFile *f, GByteArray *chunk)
{
    if (!chunk) {
        return false;
    }
    qemu_put_buffer(f, chunk->data, chunk->len);
    g_byte_array_unref(chunk);
    return true;
}

/* Sections that can only be completed are looked for before the setup. */
static int prepare(void *opaque, Error **errp)
{
    BlockDriverState *bs;

    save.none = true;
    for (bs = bdrv_next_all_states(NULL); bs; bs = bdrv_next_all_states(bs)) {
        save.none &= !next_named(bs, NULL);
    }
    return 0;
}

static int setup(QEMUFile *f, void *opaque, Error **errp)
{
    WITH_QEMU_LOCK_GUARD(&save.lock) {
        forget_all();
        if (!add_all(errp)) {
            forget_all();
            return -1;
        }
        for (unsigned i = 0; i < save.bitmaps->len; i++) {
            Saving *s = save.bitmaps->pdata[i];

            bdrv_dirty_bitmap_skip_store(s->bitmap, true);
        }
        save.none = !save.bitmaps->len;
        save.begun = true;
    }
    for (unsigned i = 0; bitmap_save_put(f, number(i, true)); i++) {
        /* one after the other */
    }
    qemu_put_byte(f, WIRE_BITMAP_EOS);
    return 0;
}

/* Until the guest has gone, it changes them. */
static int iterate(QEMUFile *f, void *opaque)
{
    bool more = true;

    trace_dirty_bitmap_save_iterate(migration_in_postcopy());
    if (migration_in_postcopy()) {
        do {
            more = bitmap_save_put(f, next_bits());
        } while (more && !migration_rate_exceeded(f));
    }
    qemu_put_byte(f, WIRE_BITMAP_EOS);
    return !more;
}

static int bitmap_save_complete(QEMUFile *f, void *opaque)
{
    trace_dirty_bitmap_save_complete_enter();
    while (bitmap_save_put(f, next_bits())) {
        /* all of them */
    }
    for (unsigned i = 0; bitmap_save_put(f, number(i, false)); i++) {
        /* one after the other */
    }
    qemu_put_byte(f, WIRE_BITMAP_EOS);
    trace_dirty_bitmap_save_complete_finish();
    return 0;
}

/* A granule is a bit. */
static void pending(void *opaque, uint64_t *must_precopy,
                    uint64_t *can_postcopy)
{
    uint64_t bytes = 0;

    QEMU_LOCK_GUARD(&save.lock);
    for (unsigned i = 0; i < save.bitmaps->len; i++) {
        const Saving *s = save.bitmaps->pdata[i];
        uint64_t per_byte = 8ull * bdrv_dirty_bitmap_granularity(s->bitmap);

        bytes += DIV_ROUND_UP((s->sectors - s->next) * BDRV_SECTOR_SIZE,
                              per_byte);
    }
    trace_dirty_bitmap_state_pending(bytes);
    *can_postcopy += bytes;
}

/* Without bitmaps the section is introduced all the same, and no more. */
static bool is_active(void *opaque)
{
    return migrate_dirty_bitmaps() &&
           (!save.none || (!save.begun && migration_is_running()));
}

/* Otherwise all is sent at the end; a snapshot would iterate for ever. */
static bool may_iterate(void *opaque)
{
    return is_active(opaque) && migration_in_postcopy();
}

static bool bitmap_save_has_postcopy(void *opaque)
{
    return true;
}

void dirty_bitmap_mig_cancel_outgoing(void)
{
    QEMU_LOCK_GUARD(&save.lock);
    forget_all();
}

static void cleanup(void *opaque)
{
    dirty_bitmap_mig_cancel_outgoing();
    save.none = save.begun = false;
}

static SaveVMHandlers bitmap_hooks = {
    .save_prepare = prepare,
    .save_setup = setup,
    .save_cleanup = cleanup,
    .save_live_iterate = iterate,
    .save_live_complete_precopy = bitmap_save_complete,
    .save_live_complete_postcopy = bitmap_save_complete,
    .state_pending_estimate = pending,
    .state_pending_exact = pending,
    .is_active = is_active,
    .is_active_iterate = may_iterate,
    .has_postcopy = bitmap_save_has_postcopy,
    .load_state = bitmap_load,
    .load_cleanup = bitmap_load_cleanup,
};

void dirty_bitmap_mig_init(void)
{
    bitmap_save_init();
    bitmap_load_init();
    register_savevm_live(WIRE_BITMAP_SECTION, WIRE_BITMAP_INSTANCE,
                         WIRE_BITMAP_VERSION, &bitmap_hooks, NULL);
}
