/*
 * Dirty bitmaps of disks, for an inventory: where those of a source can go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "qemu/main-loop.h"
#include "system/block-backend.h"
#include "bitmap-inventory.h"
#include "bitmap-names.h"

/* @label is what the node is called in the stream; @row what is mapped of it */
static void list_bitmaps_of(Inventory *inventory, BlockDriverState *bs,
                            const char *label,
                            const BitmapMigrationNodeAlias *row)
{
    BdrvDirtyBitmap *bm;

    for (bm = bdrv_dirty_bitmap_first(bs); bm;
         bm = bdrv_dirty_bitmap_next(bm)) {
        const BitmapMigrationBitmapAlias *mapped = NULL;
        const char *name = bdrv_dirty_bitmap_name(bm);

        if (name && row) {
            mapped = bitmap_names_bitmap(row, name, false);
            name = mapped ? mapped->alias : NULL;
        }
        if (name) {
            inventory_add(inventory, WIRE_INVENTORY_BITMAP, label, name);
        }
    }
}

static void list_node(Inventory *inventory, BlockDriverState *bs,
                      const char *label, const BitmapMigrationNodeAlias *row)
{
    if (label && *label) {
        inventory_add(inventory, WIRE_INVENTORY_NODE, label, NULL);
        list_bitmaps_of(inventory, bs, label, row);
    }
}

void bitmap_inventory_destination(Inventory *inventory)
{
    bool mapped = bitmap_names_mapped();
    BlockDriverState *bs;
    BlockBackend *blk;

    for (bs = bdrv_next_all_states(NULL); bs; bs = bdrv_next_all_states(bs)) {
        const char *name = bdrv_get_node_name(bs);
        const BitmapMigrationNodeAlias *row =
            mapped ? bitmap_names_node(name, false) : NULL;

        if (!mapped || row) {
            list_node(inventory, bs, row ? row->alias : name, row);
        }
    }
    for (blk = mapped ? NULL : blk_next(NULL); blk; blk = blk_next(blk)) {
        if (blk_bs(blk)) {
            list_node(inventory, blk_bs(blk), blk_name(blk), NULL);
        }
    }
}
