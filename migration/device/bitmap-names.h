/*
 * What dirty bitmaps are called in the stream
 *
 * The parameter block-bitmap-mapping gives nodes and bitmaps names for the
 * time they travel.  Without it they keep their own.  What it does not mention
 * does not travel.
 *
 * All under the BQL: the parameter may change otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_BITMAP_NAMES_H
#define MIGRATION_DEVICE_BITMAP_NAMES_H

#include "qapi/qapi-types-migration.h"

/* Whether the parameter is set */
bool bitmap_names_mapped(void);

/*
 * Rows of the parameter by a name here, or by one in the stream; NULL if there
 * is none.  They stay while the BQL is held.
 */
const BitmapMigrationNodeAlias *bitmap_names_node(const char *name,
                                                  bool in_stream);
const BitmapMigrationBitmapAlias *
bitmap_names_bitmap(const BitmapMigrationNodeAlias *node, const char *name,
                    bool in_stream);

/* What @row makes of persistence, or @otherwise.  @row may be NULL. */
bool bitmap_names_persistent(const BitmapMigrationBitmapAlias *row,
                             bool otherwise);

#endif
