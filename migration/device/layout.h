/*
 * The layout of the state of devices: which fields follow each other in the
 * bytes of a section or subsection
 *
 * It is what the VMStateDescription declares, in the order of the stream, with
 * structures that are in place taken apart.  What a device decides while it is
 * saved or loaded is marked and not evaluated: so a type of device has one
 * layout, and equal code has equal layouts whatever the guest has done.
 *
 * Pure, but for the section registry; any thread may call layout_digest().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_LAYOUT_H
#define MIGRATION_DEVICE_LAYOUT_H

#include "migration/vmstate.h"
#include "migration/wire/inventory.h"

/*
 * Stands for the fields of @vmsd itself, without subsections.  Never 0.  Equal
 * where layout_inventory() would tell the same.
 */
uint64_t layout_digest(const VMStateDescription *vmsd);

typedef void LayoutSubsectionFn(Inventory *inventory, const char *type,
                                const VMStateDescription *subsection);

/*
 * Calls @fn for each subsection that @vmsd, the type of section @type, may
 * have: its own, theirs, and those of its fields.  A description that is met
 * again, as structures come in numbers and may refer to themselves, is not
 * entered again.
 */
void layout_each_subsection(Inventory *inventory, const char *type,
                            const VMStateDescription *vmsd,
                            LayoutSubsectionFn *fn);

/*
 * Adds the fields of the type of section @type, and of all subsections that it
 * may have: for each a WIRE_INVENTORY_LAYOUT and, right after it, a
 * WIRE_INVENTORY_FIELD for each field.  Nothing if there is no such type, if
 * there are several of that name, or if there is no room for all of it in an
 * inventory: a list of fields from which some are missing says nothing.  BQL.
 */
void layout_inventory(Inventory *inventory, const char *type);

#endif
