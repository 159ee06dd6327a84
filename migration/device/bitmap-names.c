/*
 * What dirty bitmaps are called in the stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int-common.h"
#include "block/dirty-bitmap.h"
#include "qapi/error.h"
#include "qemu/id.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/wire/wire.h"
#include "bitmap-names.h"

bool bitmap_names_mapped(void)
{
    return migrate_has_block_bitmap_mapping();
}

const BitmapMigrationNodeAlias *bitmap_names_node(const char *name,
                                                  bool in_stream)
{
    const BitmapMigrationNodeAliasList *l;

    for (l = migrate_block_bitmap_mapping(); l; l = l->next) {
        if (!strcmp(in_stream ? l->value->alias : l->value->node_name, name)) {
            return l->value;
        }
    }
    return NULL;
}

const BitmapMigrationBitmapAlias *
bitmap_names_bitmap(const BitmapMigrationNodeAlias *node, const char *name,
                    bool in_stream)
{
    const BitmapMigrationBitmapAliasList *l;

    for (l = node->bitmaps; l; l = l->next) {
        if (!strcmp(in_stream ? l->value->alias : l->value->name, name)) {
            return l->value;
        }
    }
    return NULL;
}

bool bitmap_names_persistent(const BitmapMigrationBitmapAlias *row,
                             bool otherwise)
{
    return row && row->transform && row->transform->has_persistent
           ? row->transform->persistent : otherwise;
}

/*
 * Checks.  Texts are part of the interface: others look for them.
 */

static bool check_length(const char *what, const char *name, size_t max,
                         Error **errp)
{
    if (strlen(name) > max) {
        error_setg(errp, "The %s '%s' is longer than %zu bytes", what, name,
                   max);
        return false;
    }
    return true;
}

/* Each name may be met once; they are compared, not kept. */
static bool is_new(GHashTable *met, const char *name)
{
    return g_hash_table_add(met, (void *)name);
}

static bool check_bitmaps(const BitmapMigrationNodeAlias *node, Error **errp)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GHashTable) aliases = g_hash_table_new(g_str_hash, g_str_equal);
    const BitmapMigrationBitmapAliasList *l;

    for (l = node->bitmaps; l; l = l->next) {
        const BitmapMigrationBitmapAlias *row = l->value;

        if (!check_length("bitmap alias", row->alias, WIRE_NAME_MAX, errp) ||
            !check_length("bitmap name", row->name, BDRV_BITMAP_MAX_NAME_SIZE,
                          errp)) {
            return false;
        }
        if (!is_new(names, row->name)) {
            error_setg(errp, "The bitmap '%s'/'%s' is mapped twice",
                       node->node_name, row->name);
            return false;
        }
        if (!is_new(aliases, row->alias)) {
            error_setg(errp, "The bitmap alias '%s'/'%s' is used twice",
                       node->alias, row->alias);
            return false;
        }
    }
    return true;
}

bool check_dirty_bitmap_mig_alias_map(const BitmapMigrationNodeAliasList *map,
                                      Error **errp)
{
    const size_t node_name_max = sizeof_field(BlockDriverState, node_name) - 1;
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GHashTable) aliases = g_hash_table_new(g_str_hash, g_str_equal);

    for (; map; map = map->next) {
        const BitmapMigrationNodeAlias *row = map->value;

        if (!id_wellformed(row->alias)) {
            error_setg(errp, "The node alias '%s' is not well-formed",
                       row->alias);
            return false;
        }
        if (!check_length("node alias", row->alias, WIRE_NAME_MAX, errp) ||
            !check_length("node name", row->node_name, node_name_max, errp)) {
            return false;
        }
        if (!is_new(names, row->node_name)) {
            error_setg(errp, "The node name '%s' is mapped twice",
                       row->node_name);
            return false;
        }
        if (!is_new(aliases, row->alias)) {
            error_setg(errp, "The node alias '%s' is used twice", row->alias);
            return false;
        }
        if (!check_bitmaps(row, errp)) {
            return false;
        }
    }
    return true;
}
