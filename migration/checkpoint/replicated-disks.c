/*
 * Checkpoints: disks that the base's replication keeps on both sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block_int.h"
#include "block/replication.h"
#include "migration/core/disks.h"
#include "qapi/qapi-commands-block-export.h"
#include "qemu/error-report.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "replicated-disks.h"

static bool disks_sending;      /* BQL: from replicated_disks_start() on */

/*
 * Which they are
 */

static bool is_replication(BlockDriverState *bs, bool primary)
{
    const char *mode = qdict_get_try_str(bs->options, "mode");

    return bs->drv && !g_strcmp0(bs->drv->format_name, "replication") &&
           !g_strcmp0(mode, primary ? "primary" : "secondary");
}

/* All that is written to @bs goes through the result; NULL: there is none. */
static BlockDriverState *GRAPH_RDLOCK
find_replication(BlockDriverState *bs, bool primary)
{
    BlockDriverState *found = NULL;
    BdrvChild *child;

    if (!bs->drv || is_replication(bs, primary)) {
        return bs->drv ? bs : NULL;
    }
    if (!bs->drv->is_filter && g_strcmp0(bs->drv->format_name, "quorum")) {
        return NULL;
    }
    QLIST_FOREACH(child, &bs->children, next) {
        found = found ?: find_replication(child->bs, primary);
    }
    return found;
}

static BlockDriverState *replication_of(BlockBackend *blk, bool primary)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return blk_bs(blk) ? find_replication(blk_bs(blk), primary) : NULL;
}

bool replicated_disk(BlockBackend *blk, bool primary)
{
    return replication_of(blk, primary);
}

/*
 * On the way
 */

bool replicated_disks_start(Error **errp)
{
    ERRP_GUARD();

    disks_sending = true;
    replication_start_all(REPLICATION_MODE_PRIMARY, errp);
    if (*errp) {
        error_prepend(errp, "Replication of the disks cannot be started: ");
        error_append_hint(errp, "A child of driver 'replication' can be used "
                          "once: remove it and add another.\n");
        replicated_disks_stop();
    }
    return !*errp;
}

/* A node that has not been started is what keeps others from being stopped. */
void replicated_disks_stop(void)
{
    if (disks_sending) {
        disks_sending = false;
        replication_stop_all(false, NULL);
    }
}

bool replicated_disks_check(Error **errp)
{
    ERRP_GUARD();

    replication_get_error_all(errp);
    if (*errp) {
        error_prepend(errp, "a disk is not replicated any more: ");
    }
    return !*errp;
}

static void commit_disks(bool first, Error **errp)
{
    ERRP_GUARD();

    if (first) {
        if (disks_activate(errp)) {
            replication_start_all(REPLICATION_MODE_SECONDARY, errp);
        }
        return;
    }
    replication_get_error_all(errp);
    if (!*errp) {
        replication_do_checkpoint_all(errp);
    }
}

bool replicated_disks_commit(bool first, Error **errp)
{
    ERRP_GUARD();

    commit_disks(first, errp);
    if (*errp) {
        error_prepend(errp, "Replication of the disks: ");
    }
    return !*errp;
}

/*
 * Taking over
 */

/* The disk that the primary writes to, over NBD */
static BlockDriverState *GRAPH_RDLOCK secondary_disk(BlockDriverState *top)
{
    BlockDriverState *active = top->file ? top->file->bs : NULL;
    BlockDriverState *hidden = active && active->backing ? active->backing->bs
                                                         : NULL;

    return hidden && hidden->backing ? hidden->backing->bs : NULL;
}

/* The job that keeps what is replaced has put a filter over it. */
static bool is_secondary_disk(const char *node)
{
    BlockBackend *blk = NULL;
    BlockDriverState *bs;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    bs = bdrv_skip_filters(bdrv_find_node(node));
    while ((blk = blk_all_next(blk))) {
        BlockDriverState *top = replication_of(blk, false);

        if (top && bs && bdrv_skip_filters(secondary_disk(top)) == bs) {
            return true;
        }
    }
    return false;
}

/* True if there is still one. */
static bool close_exports(void)
{
    g_autoptr(BlockExportInfoList) exports = qmp_query_block_exports(NULL);
    bool open = false;

    for (BlockExportInfoList *e = exports; e; e = e->next) {
        if (is_secondary_disk(e->value->node_name)) {
            open = true;
            if (!e->value->shutting_down) {
                qmp_block_export_del(e->value->id, true,
                                     BLOCK_EXPORT_REMOVE_MODE_HARD, NULL);
            }
        }
    }
    return open;
}

void replicated_disks_take_over(void)
{
    Error *err = NULL;

    AIO_WAIT_WHILE_UNLOCKED(NULL, close_exports());
    replication_stop_all(true, &err);
    if (err) {
        /* The disks are as they were at the last commit all the same. */
        warn_reportf_err(err, "Writes of the primary stay in the hidden "
                         "disks: ");
    }
}
