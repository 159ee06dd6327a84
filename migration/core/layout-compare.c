/*
 * Whether the destination reads the fields of devices as the source writes them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "inventory-index.h"
#include "layout-compare.h"
#include "peer-error.h"

/*
 * Suspects
 */

typedef struct Search {
    GHashTable *here, *there;   /* items of both sides */
    GHashTable *seen;           /* keys of what is in the array already */
    GArray *suspects;
} Search;

static void note_suspect(Search *s, const char *section, const char *here,
                         const char *there, const char *subsection)
{
    LayoutSuspect suspect = { section, here, there, subsection };
    char *key = g_strdup_printf("%zu/%s/%zu/%s/%s", strlen(here), here,
                                strlen(there), there, subsection);

    if (g_hash_table_add(s->seen, key)) {
        g_array_append_val(s->suspects, suspect);
    }
}

/* A side that does not tell digests is not suspected. */
static bool digests_differ(const InventoryItem *here,
                           const InventoryItem *there, int value)
{
    return here && there && here->value[value] && there->value[value] &&
           here->value[value] != there->value[value];
}

static const InventoryItem *layout_of(GHashTable *index, const char *type,
                                      const char *subsection)
{
    return inventory_find(index, WIRE_INVENTORY_LAYOUT, type, subsection, 0);
}

static void suspect_section(Search *s, const InventoryItem *here)
{
    const InventoryItem *there = inventory_counterpart(s->there, here);

    if ((here->flags & WIRE_INVENTORY_SECTION_SENT) && there &&
        digests_differ(layout_of(s->here, here->text, ""),
                       layout_of(s->there, there->text, ""), 0)) {
        note_suspect(s, here->name, here->text, there->text, "");
    }
}

/* @sub: of the source, which names the section that would have it */
static void suspect_subsection(Search *s, const InventoryItem *sub)
{
    const InventoryItem *here =
        inventory_find(s->here, WIRE_INVENTORY_SECTION, sub->name, "",
                       sub->value[0]);
    const InventoryItem *there =
        inventory_find(s->there, WIRE_INVENTORY_SECTION, sub->name, "",
                       sub->value[0]);

    if (here && there &&
        digests_differ(sub, inventory_find(s->there,
                                           WIRE_INVENTORY_SUBSECTION,
                                           there->text, sub->text, 0), 1)) {
        note_suspect(s, here->name, here->text, there->text, sub->text);
    }
}

GArray *layout_suspects(const Inventory *source, const Inventory *destination)
{
    Search s = {
        .here = inventory_index(source),
        .there = inventory_index(destination),
        .seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
        .suspects = g_array_new(false, false, sizeof(LayoutSuspect)),
    };

    INVENTORY_FOREACH(item, source) {
        if (item->kind == WIRE_INVENTORY_SECTION) {
            suspect_section(&s, item);
        } else if (item->kind == WIRE_INVENTORY_SUBSECTION) {
            suspect_subsection(&s, item);
        }
    }
    g_hash_table_destroy(s.here);
    g_hash_table_destroy(s.there);
    g_hash_table_destroy(s.seen);
    return s.suspects;
}

GPtrArray *layout_types(const GArray *suspects, bool source)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    GPtrArray *types = g_ptr_array_new();

    for (unsigned i = 0; i < suspects->len; i++) {
        const LayoutSuspect *s = &g_array_index(suspects, LayoutSuspect, i);
        const char *type = source ? s->here : s->there;

        if (g_hash_table_add(seen, (void *)type)) {
            g_ptr_array_add(types, (void *)type);
        }
    }
    return types;
}

/*
 * Two lists of fields
 */

typedef struct Fields {
    GPtrArray *items;           /* const InventoryItem */
    GHashTable *last;           /* the last index that has a name, and one */
    unsigned at;
    uint64_t used;              /* bytes of the field at @at that are done */
} Fields;

typedef struct Difference {
    bool fatal;
    const InventoryItem *here, *there;  /* either NULL: there is none */
} Difference;

static bool flag(const InventoryItem *item, uint8_t flags)
{
    return item->flags & flags;
}

#define IS_CONDITIONAL(item) flag(item, WIRE_INVENTORY_FIELD_CONDITIONAL)
#define IS_UNUSED(item) flag(item, WIRE_INVENTORY_FIELD_UNUSED)
#define IS_MARK(item) flag(item, WIRE_INVENTORY_FIELD_BEGIN | \
                                 WIRE_INVENTORY_FIELD_END)

/* Those after @layout that are there in @version */
static Fields fields_of(const Inventory *inventory, const InventoryItem *layout,
                        uint64_t version)
{
    const InventoryItem *end = inventory_item(inventory, 0) +
                               inventory->items->len;
    Fields f = {
        .items = g_ptr_array_new(),
        .last = g_hash_table_new(g_str_hash, g_str_equal),
    };

    for (const InventoryItem *item = layout + 1;
         item < end && item->kind == WIRE_INVENTORY_FIELD; item++) {
        if (IS_CONDITIONAL(item) || item->value[2] <= version) {
            g_ptr_array_add(f.items, (void *)item);
            g_hash_table_replace(f.last, item->name,
                                 GUINT_TO_POINTER(f.items->len));
        }
    }
    return f;
}

static void fields_free(Fields *f)
{
    g_ptr_array_free(f->items, true);
    g_hash_table_destroy(f->last);
}

static const InventoryItem *current(const Fields *f)
{
    return f->at < f->items->len ? g_ptr_array_index(f->items, f->at) : NULL;
}

static void next(Fields *f)
{
    f->at++;
    f->used = 0;
}

/* All of a structure, if it begins with one */
static void skip(Fields *f)
{
    unsigned depth = 0;
    const InventoryItem *item;

    do {
        item = current(f);
        depth += flag(item, WIRE_INVENTORY_FIELD_BEGIN);
        depth -= depth && flag(item, WIRE_INVENTORY_FIELD_END);
        next(f);
    } while (depth && current(f));
}

/* Whether the name of @item comes after the present field of @f */
static bool comes_later(const Fields *f, const InventoryItem *item)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(f->last, item->name)) >
           f->at + 1;
}

/* A known number of bytes, whatever they mean */
static bool is_run(const InventoryItem *item)
{
    return item->value[0] && item->value[1] && !IS_MARK(item);
}

static uint64_t bytes_left(const Fields *f, const InventoryItem *item)
{
    uint64_t bytes = item->value[0] > UINT64_MAX / item->value[1]
                     ? UINT64_MAX : item->value[0] * item->value[1];

    return bytes - f->used;
}

static void use(Fields *f, uint64_t bytes)
{
    f->used += bytes;
    if (!bytes_left(f, current(f))) {
        next(f);
    }
}

/* What is unused on one side may be several fields on the other. */
static bool take_run(Fields *here, Fields *there)
{
    const InventoryItem *a = current(here), *b = current(there);
    uint64_t bytes = bytes_left(here, a), more = bytes_left(there, b);

    if (!IS_UNUSED(a) && !IS_UNUSED(b) &&
        (bytes != more || here->used || there->used ||
         a->value[0] != b->value[0])) {
        return false;
    }
    bytes = MIN(bytes, more);
    use(here, bytes);
    use(there, bytes);
    return true;
}

static bool same_number(const InventoryItem *a, const InventoryItem *b)
{
    return a->value[1] == b->value[1] || !a->value[1] || !b->value[1];
}

/* Goes on to the next fields if the present ones are read as written. */
static bool take_both(Fields *here, Fields *there)
{
    const InventoryItem *a = current(here), *b = current(there);
    uint8_t form = WIRE_INVENTORY_FIELD_BEGIN | WIRE_INVENTORY_FIELD_END |
                   WIRE_INVENTORY_FIELD_POINTERS;

    if (is_run(a) && is_run(b)) {
        return take_run(here, there);
    }
    if ((a->flags ^ b->flags) & form || a->value[0] != b->value[0] ||
        !same_number(a, b) ||
        (!a->value[0] && !IS_MARK(a) && strcmp(a->text, b->text))) {
        return false;
    }
    next(here);
    next(there);
    return true;
}

static bool differ(Difference *d, const InventoryItem *here,
                   const InventoryItem *there)
{
    *d = (Difference) { .fatal = true, .here = here, .there = there };
    return false;
}

static bool skip_or_differ(Fields *f, bool source, Difference *d)
{
    const InventoryItem *item = current(f);

    if (IS_CONDITIONAL(item)) {
        skip(f);
        return true;
    }
    return differ(d, source ? item : NULL, source ? NULL : item);
}

/* Fields of two names: one is missing, or was renamed. */
static bool take_named(Fields *here, Fields *there, Difference *d)
{
    const InventoryItem *a = current(here), *b = current(there);
    bool a_later = comes_later(there, a), b_later = comes_later(here, b);

    if (a_later != b_later) {
        return a_later ? skip_or_differ(there, false, d)
                       : skip_or_differ(here, true, d);
    }
    if (!a_later && take_both(here, there)) {
        if (!d->here) {
            *d = (Difference) { .here = a, .there = b };
        }
        return true;
    }
    if (!a_later && (IS_CONDITIONAL(a) || IS_CONDITIONAL(b))) {
        skip(IS_CONDITIONAL(a) ? here : there);
        return true;
    }
    return differ(d, a, b);
}

/* False when there is nothing more to compare, or something fatal in @d */
static bool compare_next(Fields *here, Fields *there, Difference *d)
{
    const InventoryItem *a = current(here), *b = current(there);

    if (!a || !b) {
        return (a || b) && skip_or_differ(a ? here : there, a, d);
    }
    if (IS_UNUSED(a) || IS_UNUSED(b)) {
        if (!(IS_CONDITIONAL(a) || IS_CONDITIONAL(b)) || !strcmp(a->name,
                                                                  b->name)) {
            return take_both(here, there) || differ(d, a, b);
        }
        skip(IS_CONDITIONAL(a) ? here : there);
        return true;
    }
    if (strcmp(a->name, b->name)) {
        return take_named(here, there, d);
    }
    return take_both(here, there) || differ(d, a, b);
}

/*
 * Telling
 */

static char *printable_name(const char *text)
{
    return *text ? peer_error_decode((const uint8_t *)text, strlen(text))
                 : g_strdup("");
}

/* As it would be declared in C, more or less */
static char *form_text(const InventoryItem *item)
{
    g_autofree char *type = item ? printable_name(item->text) : NULL;

    if (!item) {
        return NULL;
    }
    if (item->value[1] == 1) {
        return g_strdup_printf("'%s', %" PRIu64 " bytes", type,
                               item->value[0]);
    }
    if (item->value[1]) {
        return g_strdup_printf("'%s', %" PRIu64 " of %" PRIu64 " bytes", type,
                               item->value[1], item->value[0]);
    }
    return g_strdup_printf("'%s', a number of %" PRIu64 " bytes each", type,
                           item->value[0]);
}

static char *field_text(const InventoryItem *item, bool named)
{
    g_autofree char *form = form_text(item);
    g_autofree char *name = item && named ? printable_name(item->name) : NULL;

    return name ? g_strdup_printf("%s as %s", name, form)
                : g_steal_pointer(&form);
}

static MigrationMismatch *tell_layout(MigrationMismatchList **list,
                                      const LayoutSuspect *s, bool fatal,
                                      const char *field)
{
    MigrationMismatch *m = g_new0(MigrationMismatch, 1);
    g_autofree char *name = *s->subsection
        ? g_strdup_printf("%s: %s: %s", s->section, s->subsection, field)
        : g_strdup_printf("%s: %s", s->section, field);

    m->fatal = fatal;
    m->side = MIGRATION_CHECK_SIDE_EITHER;
    m->kind = MIGRATION_MISMATCH_KIND_FIELD;
    m->name = printable_name(name);
    while (*list) {
        list = &(*list)->next;
    }
    QAPI_LIST_APPEND(list, m);
    return m;
}

static void tell_difference(MigrationMismatchList **list,
                            const LayoutSuspect *s, const Difference *d)
{
    const InventoryItem *one = d->here ?: d->there;
    bool named = d->here && d->there && strcmp(d->here->name, d->there->name);
    MigrationMismatch *m = tell_layout(list, s, d->fatal, one->name);

    m->source = field_text(d->here, named);
    m->destination = field_text(d->there, named);
    m->advice = g_strdup(d->fatal
        ? "the two QEMUs have different fields in the same version of this "
          "state: use builds that agree on it, or the same properties of the "
          "device and machine type"
        : "the field has another name there; if it also has another meaning, "
          "use builds that agree on it");
}

/* A subsection has a version of its own. */
static bool versions_fit(MigrationMismatchList **list, const LayoutSuspect *s,
                         const InventoryItem *here, const InventoryItem *there)
{
    MigrationMismatch *m;

    if (here->value[1] <= there->value[1] &&
        here->value[1] >= there->value[2]) {
        return true;
    }
    if (*s->subsection) {
        m = tell_layout(list, s, true, "version");
        m->source = g_strdup_printf("%" PRIu64, here->value[1]);
        m->destination = g_strdup_printf("%" PRIu64 " to %" PRIu64,
                                         there->value[2], there->value[1]);
        m->advice = g_strdup("use the same machine type, or a QEMU on the "
                             "destination that loads this version");
    }
    return false;
}

static void compare_suspect(const LayoutSuspect *s, const Inventory *own,
                            const InventoryItem *here, const Inventory *theirs,
                            const InventoryItem *there,
                            MigrationMismatchList **list)
{
    Fields a = fields_of(own, here, here->value[1]);
    Fields b = fields_of(theirs, there, here->value[1]);
    Difference d = { 0 };

    while (compare_next(&a, &b, &d)) {
        /* the next ones */
    }
    if (d.here || d.there) {
        tell_difference(list, s, &d);
    }
    fields_free(&a);
    fields_free(&b);
}

void layout_compare(const GArray *suspects, const Inventory *here,
                    const Inventory *there, MigrationMismatchList **list)
{
    bool complete = !here->omitted && !there->omitted;
    GHashTable *own = inventory_index(here), *theirs = inventory_index(there);

    for (unsigned i = 0; complete && i < suspects->len; i++) {
        const LayoutSuspect *s = &g_array_index(suspects, LayoutSuspect, i);
        const InventoryItem *a = layout_of(own, s->here, s->subsection);
        const InventoryItem *b = layout_of(theirs, s->there, s->subsection);

        /* One that a side cannot tell from others of its name is left. */
        if (a && b && versions_fit(list, s, a, b)) {
            compare_suspect(s, here, a, there, b, list);
        }
    }
    g_hash_table_destroy(own);
    g_hash_table_destroy(theirs);
}
