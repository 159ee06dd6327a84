/*
 * The layout of the state of devices: which fields follow each other in the
 * bytes of a section or subsection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "layout.h"
#include "sections.h"

/* Elements whose number is read from the state itself */
#define COUNTED_THERE (VMS_VARRAY_INT32 | VMS_VARRAY_UINT8 | \
                       VMS_VARRAY_UINT16 | VMS_VARRAY_UINT32)

/* How deep structures may be in each other before that is taken for a loop */
#define DEPTH_MAX 16

/* An item that is not in a list yet; @name and @text are borrowed. */
typedef struct Field {
    const char *name, *text;
    uint8_t flags;
    uint64_t value[INVENTORY_VALUES];
} Field;

typedef struct Walk {
    void (*visit)(void *opaque, const Field *field);
    void *opaque;
    GString *path;              /* of the structure that is taken apart */
    unsigned depth;
    int since;                  /* version from which on it is there */
    bool conditional;           /* and perhaps not even then */
} Walk;

/*
 * One field
 */

/* Types of a field of which each byte in the stream is known */
static bool is_plain(const VMStateInfo *info)
{
    static const VMStateInfo *const plain[] = {
        &vmstate_info_bool, &vmstate_info_int8, &vmstate_info_int16,
        &vmstate_info_int32, &vmstate_info_int64, &vmstate_info_uint8,
        &vmstate_info_uint16, &vmstate_info_uint32, &vmstate_info_uint64,
        &vmstate_info_uint8_equal, &vmstate_info_uint16_equal,
        &vmstate_info_int32_equal, &vmstate_info_uint32_equal,
        &vmstate_info_uint64_equal, &vmstate_info_int32_le,
        &vmstate_info_cpudouble,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++) {
        if (info == plain[i]) {
            return true;
        }
    }
    return false;
}

static uint64_t elements(const VMStateField *field)
{
    if (field->flags & COUNTED_THERE) {
        return 0;
    }
    return field->flags & VMS_ARRAY ? field->num : 1;
}

static void describe_field(Field *f, const VMStateField *field)
{
    const VMStateInfo *info = field->info;

    f->text = info && info->name ? info->name : "";
    f->value[1] = elements(field);
    if (info == &vmstate_info_buffer || info == &vmstate_info_unused_buffer) {
        /* bytes, of which only an array of buffers has more */
        f->value[0] = 1;
        f->value[1] = field->flags & VMS_VBUFFER ? 0
                                                 : f->value[1] * field->size;
        if (info == &vmstate_info_unused_buffer) {
            f->flags |= WIRE_INVENTORY_FIELD_UNUSED;
        }
    } else if (is_plain(info)) {
        f->value[0] = field->size;
    }
    if (field->flags & VMS_ARRAY_OF_POINTER) {
        /* with a byte in place of each that is NULL */
        f->flags |= WIRE_INVENTORY_FIELD_POINTERS;
        f->value[0] = 0;
    }
}

/*
 * All of a description
 */

static void layout_walk_fields(Walk *w, const VMStateDescription *vmsd,
                               int version);

/* Structures whose fields are there one after the other, once or more often */
static bool is_taken_apart(const VMStateField *field)
{
    return field->flags & (VMS_STRUCT | VMS_VSTRUCT) ||
           field->info == &vmstate_info_tmp;
}

/* A structure is loaded in the version that the loading side has of it. */
static int version_of(const VMStateField *field)
{
    return field->flags & VMS_VSTRUCT ? field->struct_version_id
                                      : field->vmsd->version_id;
}

static void visit_mark(Walk *w, Field f, uint8_t flag)
{
    f.flags |= flag;
    w->visit(w->opaque, &f);
}

static void layout_walk_structure(Walk *w, const VMStateField *field,
                                  const Field *f)
{
    bool often = f->value[1] != 1 || f->flags & WIRE_INVENTORY_FIELD_POINTERS;
    bool conditional = w->conditional;
    int since = w->since;

    w->conditional = !often && f->flags & WIRE_INVENTORY_FIELD_CONDITIONAL;
    w->since = f->value[2];
    w->depth++;
    if (often) {
        visit_mark(w, *f, WIRE_INVENTORY_FIELD_BEGIN);
    }
    layout_walk_fields(w, field->vmsd, version_of(field));
    if (often) {
        visit_mark(w, *f, WIRE_INVENTORY_FIELD_END);
    }
    w->depth--;
    w->since = since;
    w->conditional = conditional;
}

static void layout_walk_field(Walk *w, const VMStateField *field)
{
    Field f = {
        .name = w->path->str,
        .flags = w->conditional || field->field_exists
                 ? WIRE_INVENTORY_FIELD_CONDITIONAL : 0,
    };

    f.value[2] = w->depth ? w->since
                          : field->field_exists ? 0 : field->version_id;
    describe_field(&f, field);
    if (field->vmsd && is_taken_apart(field) && w->depth < DEPTH_MAX) {
        f.text = field->vmsd->name;
        layout_walk_structure(w, field, &f);
    } else {
        w->visit(w->opaque, &f);
    }
}

/* What is there in @version only; and what is checked is not in a stream. */
static bool is_sent(const VMStateField *field, int version)
{
    return !(field->flags & VMS_MUST_EXIST) &&
           (field->field_exists || field->version_id <= version);
}

static void layout_walk_fields(Walk *w, const VMStateDescription *vmsd,
                               int version)
{
    size_t len = w->path->len;

    for (const VMStateField *field = vmsd->fields; field && field->name;
         field++) {
        if (is_sent(field, version)) {
            if (len) {
                g_string_append_c(w->path, '.');
            }
            g_string_append(w->path, field->name);
            layout_walk_field(w, field);
            g_string_truncate(w->path, len);
        }
    }
}

static void walk(const VMStateDescription *vmsd,
                 void (*visit)(void *, const Field *), void *opaque)
{
    g_autoptr(GString) path = g_string_new(NULL);
    Walk w = { .visit = visit, .opaque = opaque, .path = path };

    layout_walk_fields(&w, vmsd, vmsd->version_id);
}

/*
 * The digest: 64 bits of FNV-1a.  Who lies about it deceives nobody else.
 */

#define FNV_BASIS 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

static uint64_t fnv(uint64_t digest, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++) {
        digest = (digest ^ bytes[i]) * FNV_PRIME;
    }
    return digest;
}

/* In one order of bytes, whatever the host has */
static uint64_t fnv_number(uint64_t digest, uint64_t number)
{
    for (; number; number >>= 8) {
        digest = (digest ^ (number & 0xff)) * FNV_PRIME;
    }
    return digest * FNV_PRIME;
}

static void digest_field(void *opaque, const Field *f)
{
    uint64_t *digest = opaque;

    *digest = fnv(*digest, f->name, strlen(f->name) + 1);
    *digest = fnv(*digest, f->text, strlen(f->text) + 1);
    *digest = fnv_number(*digest, f->flags);
    for (int i = 0; i < INVENTORY_VALUES; i++) {
        *digest = fnv_number(*digest, f->value[i]);
    }
}

uint64_t layout_digest(const VMStateDescription *vmsd)
{
    uint64_t digest = fnv_number(FNV_BASIS, vmsd->version_id);

    walk(vmsd, digest_field, &digest);
    return digest ?: 1;
}

/*
 * The fields themselves
 */

static void add_layout_field(void *opaque, const Field *f)
{
    InventoryItem *item = inventory_add(opaque, WIRE_INVENTORY_FIELD, f->name,
                                        f->text);

    item->flags = f->flags;
    memcpy(item->value, f->value, sizeof(f->value));
}

static void add_layout(Inventory *inventory, const char *type,
                       const char *subsection, const VMStateDescription *vmsd)
{
    InventoryItem *item = inventory_add(inventory, WIRE_INVENTORY_LAYOUT, type,
                                        subsection);

    item->value[0] = layout_digest(vmsd);
    item->value[1] = vmsd->version_id;
    item->value[2] = vmsd->minimum_version_id;
    walk(vmsd, add_layout_field, inventory);
}

/* @seen: descriptions that were entered */
static void enter_description(Inventory *inventory, const char *type,
                              const VMStateDescription *vmsd,
                              LayoutSubsectionFn *fn, GHashTable *seen)
{
    const VMStateDescription *const *sub = vmsd->subsections;
    const VMStateField *field = vmsd->fields;

    if (!g_hash_table_add(seen, (void *)vmsd)) {
        return;
    }
    for (; sub && *sub; sub++) {
        fn(inventory, type, *sub);
        enter_description(inventory, type, *sub, fn, seen);
    }
    for (; field && field->name; field++) {
        if (field->vmsd) {
            enter_description(inventory, type, field->vmsd, fn, seen);
        }
    }
}

void layout_each_subsection(Inventory *inventory, const char *type,
                            const VMStateDescription *vmsd,
                            LayoutSubsectionFn *fn)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    enter_description(inventory, type, vmsd, fn, seen);
}

static void add_subsection_layout(Inventory *inventory, const char *type,
                                  const VMStateDescription *subsection)
{
    add_layout(inventory, type, subsection->name, subsection);
}

static const VMStateDescription *find_layout_type(const char *type)
{
    const VMStateDescription *found = NULL;
    Section *s;

    FOR_EACH_SECTION(s) {
        if (s->vmsd && s->vmsd != found && !strcmp(s->vmsd->name, type)) {
            if (found) {
                return NULL;
            }
            found = s->vmsd;
        }
    }
    return found;
}

void layout_inventory(Inventory *inventory, const char *type)
{
    const VMStateDescription *vmsd = find_layout_type(type);
    unsigned before = inventory->items->len;

    if (vmsd) {
        add_layout(inventory, type, "", vmsd);
        layout_each_subsection(inventory, type, vmsd, add_subsection_layout);
        if (!inventory_fits(inventory)) {
            inventory_shorten(inventory, before);
        }
    }
}
