/*
 * What differs between two saved states of the same devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "state-compare.h"
#include "state-fields.h"
#include "state-volatile.h"

#define SHOWN_BYTES 16
#define ABSENT "(absent)"

/*
 * Values as text
 */

static bool type_is_number(const char *type, size_t size)
{
    return size && size <= sizeof(uint64_t) &&
           (g_str_has_prefix(type, "int") || g_str_has_prefix(type, "uint") ||
            !strcmp(type, "timer"));
}

char *state_value(const char *type, const uint8_t *bytes, const uint8_t *other,
                  size_t size)
{
    GString *text = g_string_new(NULL);
    size_t from = 0;

    if (type_is_number(type, size)) {
        uint64_t value = 0;

        for (size_t i = 0; i < size; i++) {
            value = value << 8 | bytes[i];
        }
        g_string_printf(text, "0x%0*" PRIx64, (int)size * 2, value);
        return g_string_free(text, false);
    }
    while (other && from < size && bytes[from] == other[from]) {
        from++;
    }
    if (from) {
        g_string_append_printf(text, "+%zu:", from);
    }
    for (size_t i = from; i < MIN(size, from + SHOWN_BYTES); i++) {
        g_string_append_printf(text, "%s%02x", i > from ? " " : "", bytes[i]);
    }
    if (size > from + SHOWN_BYTES) {
        g_string_append(text, " ...");
    }
    return g_string_free(text, false);
}

VmstateDifference *state_difference(const char *device, uint32_t instance_id,
                                    const char *section, const char *field,
                                    const char *before, const char *after)
{
    VmstateDifference *d = g_new(VmstateDifference, 1);

    *d = (VmstateDifference) {
        .device = g_strdup(device), .instance_id = instance_id,
        .section = g_strdup(section), .field = g_strdup(field),
        .before = g_strdup(before), .after = g_strdup(after),
    };
    return d;
}

/*
 * One device
 */

typedef struct Comparison {
    StateDifferences result;
    VmstateDifferenceList **found_tail, **expected_tail;
    unsigned found, expected;
    const SavedSection *device;
} Comparison;

/* Takes over @d, in which nothing differs from byte @end on. */
static void note(Comparison *c, VmstateDifference *d, size_t end)
{
    const char *reason = state_volatile(d->section, d->field, end);

    if (!reason) {
        c->result.count++;
    }
    if ((reason ? c->expected : c->found) >= STATE_DIFFERENCES_MAX) {
        qapi_free_VmstateDifference(d);
    } else if (reason) {
        d->reason = g_strdup(reason);
        c->expected++;
        QAPI_LIST_APPEND(c->expected_tail, d);
    } else {
        c->found++;
        QAPI_LIST_APPEND(c->found_tail, d);
    }
}

static void note_field(Comparison *c, const StateField *f, const char *before,
                       const char *after, size_t end)
{
    note(c, state_difference(c->device->name, c->device->instance_id,
                             f->section, f->path, before, after), end);
}

static GHashTable *by_name(GArray *fields)
{
    GHashTable *table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                              NULL);

    for (unsigned i = 0; i < fields->len; i++) {
        StateField *f = &g_array_index(fields, StateField, i);

        g_hash_table_insert(table,
                            g_strdup_printf("%s\n%s", f->section, f->path), f);
    }
    return table;
}

static const StateField *same_field(GHashTable *table, const StateField *f)
{
    g_autofree char *key = g_strdup_printf("%s\n%s", f->section, f->path);

    return g_hash_table_lookup(table, key);
}

static void compare_field(Comparison *c, const StateField *a,
                          const uint8_t *before, const StateField *b,
                          const uint8_t *after)
{
    g_autofree char *was = NULL;
    g_autofree char *is = NULL;
    bool same_size = a->size == b->size;
    size_t end = MAX(a->size, b->size);

    before += a->at;
    after += b->at;
    if (same_size && !memcmp(before, after, a->size)) {
        return;
    }
    was = state_value(a->type, before, same_size ? after : NULL, a->size);
    is = state_value(b->type, after, same_size ? before : NULL, b->size);
    while (same_size && before[end - 1] == after[end - 1]) {
        end--;
    }
    note_field(c, a, was, is, end);
}

static void compare_fields(Comparison *c, const SavedSection *a,
                           const uint8_t *before, const SavedSection *b,
                           const uint8_t *after)
{
    g_autoptr(GArray) old = state_fields(a->name, a->description, a->len);
    g_autoptr(GArray) new = state_fields(b->name, b->description, b->len);
    g_autoptr(GHashTable) old_names = by_name(old);
    g_autoptr(GHashTable) new_names = by_name(new);

    for (unsigned i = 0; i < old->len; i++) {
        const StateField *f = &g_array_index(old, StateField, i);
        const StateField *g = same_field(new_names, f);

        if (g) {
            compare_field(c, f, before, g, after);
        } else {
            g_autofree char *was = state_value(f->type, before + f->at, NULL,
                                               f->size);

            note_field(c, f, was, ABSENT, SIZE_MAX);
        }
    }
    for (unsigned i = 0; i < new->len; i++) {
        const StateField *g = &g_array_index(new, StateField, i);

        if (!same_field(old_names, g)) {
            g_autofree char *is = state_value(g->type, after + g->at, NULL,
                                              g->size);

            note_field(c, g, ABSENT, is, SIZE_MAX);
        }
    }
}

/*
 * All of them
 */

static const SavedSection *same_section(const GArray *sections,
                                        const SavedSection *s)
{
    for (unsigned i = 0; i < sections->len; i++) {
        const SavedSection *other = &g_array_index(sections, SavedSection, i);

        if (other->instance_id == s->instance_id &&
            !strcmp(other->name, s->name)) {
            return other;
        }
    }
    return NULL;
}

static void note_section(Comparison *c, const char *before, const char *after)
{
    note(c, state_difference(c->device->name, c->device->instance_id,
                             c->device->name, "", before, after), SIZE_MAX);
}

StateDifferences state_compare(const SavedBytes *before,
                               const SavedBytes *after)
{
    Comparison c = {};

    c.found_tail = &c.result.found;
    c.expected_tail = &c.result.expected;
    for (unsigned i = 0; i < before->sections->len; i++) {
        const SavedSection *a = &g_array_index(before->sections, SavedSection,
                                               i);
        const SavedSection *b = same_section(after->sections, a);

        c.device = a;
        if (!b) {
            note_section(&c, "(saved)", ABSENT);
        } else if (a->len != b->len ||
                   memcmp(before->data + a->at, after->data + b->at, a->len)) {
            compare_fields(&c, a, before->data + a->at, b,
                           after->data + b->at);
        }
    }
    for (unsigned i = 0; i < after->sections->len; i++) {
        c.device = &g_array_index(after->sections, SavedSection, i);
        if (!same_section(before->sections, c.device)) {
            note_section(&c, ABSENT, "(saved)");
        }
    }
    return c.result;
}
