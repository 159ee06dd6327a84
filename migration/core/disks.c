/*
 * The guest's disks: which of two QEMUs may write to them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "migration/misc.h"
#include "migration/trace.h"
#include "disks.h"

/*
 * What was inactive before an activation.  The references keep nodes alive;
 * bitmaps are only compared, as the image may have brought others since.
 */
typedef struct Before {
    GPtrArray *nodes;
    GHashTable *bitmaps;
} Before;

static void unref_node(void *bs)
{
    bdrv_unref(bs);
}

static Before remember_inactive(void)
{
    Before b = {
        .nodes = g_ptr_array_new_with_free_func(unref_node),
        .bitmaps = g_hash_table_new(NULL, NULL),
    };
    BlockDriverState *bs;
    BdrvDirtyBitmap *bm;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (bdrv_is_inactive(bs)) {
            bdrv_ref(bs);
            g_ptr_array_add(b.nodes, bs);
            FOR_EACH_DIRTY_BITMAP(bs, bm) {
                g_hash_table_add(b.bitmaps, bm);
            }
        }
    }
    return b;
}

static void disks_forget(Before *b)
{
    g_ptr_array_unref(b->nodes);
    g_hash_table_unref(b->bitmaps);
}

/*
 * A node is inactivated when no node above it is active any more, and it takes
 * those below along, which therefore have to be active.
 */
static bool GRAPH_RDLOCK active_throughout(BlockDriverState *bs)
{
    BdrvChild *child;

    if (bdrv_is_inactive(bs)) {
        return false;
    }
    QLIST_FOREACH(child, &bs->children, next) {
        if (!active_throughout(child->bs)) {
            return false;
        }
    }
    return true;
}

/*
 * Bitmaps that were here before are migrated, or the user's: they stay in
 * memory.  If they were stored in the image, the other side, which has them
 * in memory too, could not open it.
 */
static bool inactivate_again(BlockDriverState *bs, const Before *b)
{
    BdrvDirtyBitmap *bm;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (!active_throughout(bs)) {
        return false;
    }
    FOR_EACH_DIRTY_BITMAP(bs, bm) {
        if (g_hash_table_contains(b->bitmaps, bm)) {
            bdrv_dirty_bitmap_skip_store(bm, true);
        }
    }
    return bdrv_inactivate(bs, NULL) >= 0;
}

/* A node whose activation failed half-way may hold locks on those below. */
static void release_locks(BlockDriverState *bs)
{
    BdrvChild *child;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (bdrv_is_inactive(bs)) {
        QLIST_FOREACH(child, &bs->children, next) {
            bdrv_child_refresh_perms(bs, child, NULL);
        }
    }
}

/* From the top down, however the nodes are listed. */
static void undo(const Before *b)
{
    bool more;

    do {
        more = false;
        for (unsigned i = 0; i < b->nodes->len; i++) {
            more |= inactivate_again(b->nodes->pdata[i], b);
        }
    } while (more);
    for (unsigned i = 0; i < b->nodes->len; i++) {
        release_locks(b->nodes->pdata[i]);
    }
}

static bool activate_each(Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *bs;
    BdrvNextIterator it;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (bs = bdrv_first(&it); bs; bs = bdrv_next(&it)) {
        int ret = bdrv_activate(bs, errp);

        if (ret >= 0 || ret == -ENOMEDIUM) {
            /* A node that was closed for good is none that could be shared. */
            continue;
        }
        if (!*errp) {
            error_setg_errno(errp, -ret, "Activation failed");
        }
        error_prepend(errp, "Disk '%s' cannot be activated: ",
                      bdrv_get_device_or_node_name(bs));
        bdrv_next_cleanup(&it);
        return false;
    }
    return true;
}

bool disks_activate(Error **errp)
{
    Before before;
    bool ok;

    assert(bql_locked());
    trace_migration_block_activation("active");
    before = remember_inactive();
    ok = activate_each(errp);
    if (!ok) {
        undo(&before);
    }
    disks_forget(&before);
    return ok;
}

/* The block layer stops at the first that cannot be inactivated. */
static const char *first_active(void)
{
    const char *name = NULL;
    BlockDriverState *bs;
    BdrvNextIterator it;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (bs = bdrv_first(&it); bs; bs = bdrv_next(&it)) {
        if (!bdrv_is_inactive(bs)) {
            name = bdrv_get_device_or_node_name(bs);
            bdrv_next_cleanup(&it);
            break;
        }
    }
    return name;
}

bool disks_inactivate(Error **errp)
{
    const char *name;
    int ret;

    assert(bql_locked());
    trace_migration_block_activation("inactive");
    ret = bdrv_inactivate_all();
    if (!ret) {
        return true;
    }
    name = first_active();
    error_setg_errno(errp, -ret, "Disk '%s' cannot be inactivated",
                     name ?: "");
    if (ret == -EPERM) {
        error_append_hint(errp, "End what still writes to it, such as a job "
                          "or an export.\n");
    }
    return false;
}

/*
 * For callers outside of migration/core: the reason is logged as well.
 */

bool migration_block_activate(Error **errp)
{
    Error *err = NULL;

    if (disks_activate(&err)) {
        return true;
    }
    error_report_err(error_copy(err));
    error_propagate(errp, err);
    return false;
}

bool migration_block_inactivate(void)
{
    Error *err = NULL;

    if (disks_inactivate(&err)) {
        return true;
    }
    error_report_err(err);
    return false;
}
