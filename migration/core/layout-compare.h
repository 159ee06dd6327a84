/*
 * Whether the destination reads the fields of devices as the source writes them
 *
 * A version of a section says nothing of the fields in it: two builds of QEMU
 * may have different ones under the same number.  Inventories have a digest of
 * each layout (device/layout.h).  Where digests differ, the fields themselves
 * are requested and compared.
 *
 * Pure.  What comes from a peer may be anything: all is bounded by the length
 * of an inventory, and what is quoted is printable.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_LAYOUT_COMPARE_H
#define MIGRATION_CORE_LAYOUT_COMPARE_H

#include "qapi/qapi-types-migration.h"
#include "migration/wire/inventory.h"

/* A section or subsection that is sent now and may have other fields there */
typedef struct LayoutSuspect {
    const char *section;        /* the first one of its type */
    const char *here, *there;   /* the type on either side */
    const char *subsection;     /* or "" */
} LayoutSuspect;

/*
 * All of them, once for each type; valid as long as both inventories.  The
 * caller frees the array of LayoutSuspect.  Empty also if the destination does
 * not tell digests.
 */
GArray *layout_suspects(const Inventory *source, const Inventory *destination);

/*
 * Types of @suspects on the source or destination, each once; the caller frees
 * the array of borrowed strings.
 */
GPtrArray *layout_types(const GArray *suspects, bool source);

/*
 * Appends to *@list what differs between the fields of @suspects; the source's
 * in @here and the destination's in @there.  Fatal is what the destination
 * cannot read; a field of another name with the same bytes is a warning.
 * Nothing if there was no room for some of the items: any may be missing.
 */
void layout_compare(const GArray *suspects, const Inventory *here,
                    const Inventory *there, MigrationMismatchList **list);

#endif
