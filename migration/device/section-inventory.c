/*
 * The sections of this VM, for an inventory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "layout.h"
#include "section-inventory.h"
#include "sections.h"

/* Fields that are one structure, inside of the one that has them */
#define IN_PLACE (VMS_STRUCT | VMS_VSTRUCT)
#define NOT_IN_PLACE (VMS_POINTER | VMS_ARRAY | VMS_ARRAY_OF_POINTER | \
                      VMS_VARRAY_INT32 | VMS_VARRAY_UINT8 | \
                      VMS_VARRAY_UINT16 | VMS_VARRAY_UINT32)

/* How deep structures may be in each other before that is taken for a loop */
#define DEPTH_MAX 16

static void add_section(Inventory *inventory, const Section *s,
                        const char *name, uint32_t instance, uint8_t flags)
{
    InventoryItem *item = inventory_add(inventory, WIRE_INVENTORY_SECTION,
                                        name, s->vmsd ? s->vmsd->name : NULL);

    item->flags = flags;
    item->value[0] = instance;
    item->value[1] = s->version_id;
    item->value[2] = s->vmsd ? s->vmsd->minimum_version_id : 0;
}

/* Once for each type, as devices come in numbers. */
static bool add_type(Inventory *inventory, const VMStateDescription *vmsd,
                     GHashTable *types)
{
    InventoryItem *item;

    if (!g_hash_table_add(types, (void *)vmsd)) {
        return false;
    }
    item = inventory_add(inventory, WIRE_INVENTORY_LAYOUT, vmsd->name, NULL);
    item->value[0] = layout_digest(vmsd);
    item->value[1] = vmsd->version_id;
    item->value[2] = vmsd->minimum_version_id;
    return true;
}

static void add_subsection(Inventory *inventory, const char *owner,
                           uint64_t instance, const VMStateDescription *vmsd)
{
    InventoryItem *item = inventory_add(inventory, WIRE_INVENTORY_SUBSECTION,
                                        owner, vmsd->name);

    item->value[0] = instance;
    item->value[1] = layout_digest(vmsd);
}

/*
 * Source
 */

static bool would_be_sent(const Section *s)
{
    if (s->vmsd) {
        return vmstate_section_needed(s->vmsd, s->opaque);
    }
    return section_is_live(s) ? section_active(s) : s->ops->save_state != NULL;
}

static bool field_is_there(const VMStateField *field, void *opaque,
                           int version_id)
{
    if (field->field_exists) {
        return field->field_exists(opaque, version_id);
    }
    return field->version_id <= version_id;
}

static void add_needed(Inventory *inventory, const Section *s,
                       const VMStateDescription *vmsd, void *opaque,
                       unsigned depth)
{
    const VMStateDescription *const *sub = vmsd->subsections;
    const VMStateField *field = vmsd->fields;

    if (depth == DEPTH_MAX) {
        return;
    }
    for (; sub && *sub; sub++) {
        if (vmstate_section_needed(*sub, opaque)) {
            add_subsection(inventory, s->name, s->instance_id, *sub);
            add_needed(inventory, s, *sub, opaque, depth + 1);
        }
    }
    for (; field && field->name; field++) {
        if ((field->flags & IN_PLACE) && !(field->flags & NOT_IN_PLACE) &&
            field_is_there(field, opaque, vmsd->version_id)) {
            add_needed(inventory, s, field->vmsd,
                       (char *)opaque + field->offset, depth + 1);
        }
    }
}

void section_inventory_source(Inventory *inventory)
{
    g_autoptr(GHashTable) types = g_hash_table_new(NULL, NULL);
    Section *s;

    FOR_EACH_SECTION(s) {
        add_section(inventory, s, s->name, s->instance_id,
                    would_be_sent(s) ? WIRE_INVENTORY_SECTION_SENT : 0);
    }
    FOR_EACH_SECTION(s) {
        if (s->vmsd && would_be_sent(s)) {
            add_type(inventory, s->vmsd, types);
            add_needed(inventory, s, s->vmsd, s->opaque, 0);
        }
    }
}

/*
 * Destination
 */

static void add_known(Inventory *inventory, const char *type,
                      const VMStateDescription *subsection)
{
    add_subsection(inventory, type, 0, subsection);
}

static void add_types(Inventory *inventory)
{
    g_autoptr(GHashTable) types = g_hash_table_new(NULL, NULL);
    Section *s;

    FOR_EACH_SECTION(s) {
        if (s->vmsd && add_type(inventory, s->vmsd, types)) {
            layout_each_subsection(inventory, s->vmsd->name, s->vmsd,
                                   add_known);
        }
    }
}

void section_inventory_destination(Inventory *inventory)
{
    Section *s;

    FOR_EACH_SECTION(s) {
        for (unsigned i = 0; i < s->claim_count; i++) {
            add_section(inventory, s, s->claims[i].name,
                        s->claims[i].instance_id,
                        i ? WIRE_INVENTORY_SECTION_ALIAS : 0);
        }
    }
    add_types(inventory);
}
