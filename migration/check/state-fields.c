/*
 * The fields of a device's saved state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "migration/wire/wire.h"
#include "state-fields.h"

typedef struct Walk {
    GArray *fields;
    const char *section;        /* the description that is walked */
    size_t at, len;
    unsigned depth;
} Walk;

static void field_clear(void *opaque)
{
    StateField *f = opaque;

    g_free(f->section);
    g_free(f->path);
    g_free(f->type);
}

static bool add_field(Walk *w, const char *path, const char *type, size_t size)
{
    StateField field;

    if (size > w->len - w->at || w->fields->len >= STATE_FIELDS_MAX) {
        return false;
    }
    if (size) {
        field = (StateField) {
            .section = g_strdup(w->section), .path = g_strdup(path),
            .type = g_strdup(type), .at = w->at, .size = size,
        };
        g_array_append_val(w->fields, field);
        w->at += size;
    }
    return true;
}

static bool walk_description(Walk *w, const QDict *d, const char *prefix);

/*
 * What the structure of a field consists of.  Some types write their elements
 * in a form that the description does not have: these are one field.
 */
static bool walk_structure(Walk *w, const QDict *d, const char *path,
                           const char *type, size_t size)
{
    g_autofree char *prefix = g_strdup_printf("%s.", path);
    unsigned fields = w->fields->len;
    size_t at = w->at;

    if (walk_description(w, d, prefix) && w->at == at + size) {
        return true;
    }
    w->at = at;
    g_array_set_size(w->fields, fields);
    return add_field(w, path, type, size);
}

static bool walk_element(Walk *w, const QDict *field, const char *path,
                         size_t size)
{
    const char *type = qdict_get_try_str(field, "type") ?: "";
    const QDict *inner = qdict_get_qdict(field, "struct");

    if (!inner && qdict_get_qlist(field, "fields")) {
        inner = field;
    }
    if (!inner) {
        return add_field(w, path, type, size);
    }
    return walk_structure(w, inner, path, type, size);
}

/* An element, or an array of which only the first one is described */
static bool walk_field(Walk *w, const QDict *field, const char *prefix)
{
    const char *name = qdict_get_try_str(field, "name");
    int64_t size = qdict_get_try_int(field, "size", -1);
    int64_t count = qdict_get_try_int(field, "array_len", -1);
    int64_t index = qdict_get_try_int(field, "index", -1);

    if (!name || size < 0) {
        return false;
    }
    if (count < 0) {
        g_autofree char *path =
            index < 0 ? g_strdup_printf("%s%s", prefix, name)
                      : g_strdup_printf("%s%s[%" PRId64 "]", prefix, name,
                                        index);

        return walk_element(w, field, path, size);
    }
    if (count > STATE_FIELDS_MAX) {
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        g_autofree char *path = g_strdup_printf("%s%s[%" PRId64 "]", prefix,
                                                name, MAX(index, 0) + i);

        if (!walk_element(w, field, path, size)) {
            return false;
        }
    }
    return true;
}

/* Mark, length, name, version: then it is as any description */
static bool walk_subsection(Walk *w, const QDict *d)
{
    const char *outer = w->section;
    const char *name = qdict_get_try_str(d, "vmsd_name");
    size_t head;
    bool ok;

    if (!name) {
        return false;
    }
    head = sizeof(WireSubsection) + 1 + strlen(name) + sizeof(uint32_t);
    if (head > w->len - w->at) {
        return false;
    }
    w->at += head;
    w->section = name;
    ok = walk_description(w, d, "");
    w->section = outer;
    return ok;
}

static bool walk_list(Walk *w, const QList *list, const char *prefix)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(list, e) {
        const QDict *item = qobject_to(QDict, qlist_entry_obj(e));

        if (!item || !(prefix ? walk_field(w, item, prefix)
                              : walk_subsection(w, item))) {
            return false;
        }
    }
    return true;
}

static bool walk_description(Walk *w, const QDict *d, const char *prefix)
{
    const QList *fields = qdict_get_qlist(d, "fields");
    const QList *subsections = qdict_get_qlist(d, "subsections");
    bool ok;

    if (w->depth >= STATE_FIELDS_DEPTH_MAX) {
        return false;
    }
    w->depth++;
    ok = (!fields || walk_list(w, fields, prefix)) &&
         (!subsections || walk_list(w, subsections, NULL));
    w->depth--;
    return ok;
}

/* Subsections of the elements of an array have the same name. */
static void number_repeated(GArray *fields)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                       g_free, NULL);

    for (unsigned i = 0; i < fields->len; i++) {
        StateField *f = &g_array_index(fields, StateField, i);
        g_autofree char *key = g_strdup_printf("%s\n%s", f->section, f->path);
        unsigned n = GPOINTER_TO_UINT(g_hash_table_lookup(seen, key)) + 1;

        g_hash_table_insert(seen, g_steal_pointer(&key), GUINT_TO_POINTER(n));
        if (n > 1) {
            char *path = g_strdup_printf("%s#%u", f->path, n);

            g_free(f->path);
            f->path = path;
        }
    }
}

GArray *state_fields(const char *name, const char *description, size_t len)
{
    g_autoptr(GArray) fields = g_array_new(false, false, sizeof(StateField));
    QObject *root = qobject_from_json(description, NULL);
    const QDict *d = root ? qobject_to(QDict, root) : NULL;
    Walk w = { .fields = fields, .len = len };
    bool ok = false;

    g_array_set_clear_func(fields, field_clear);
    if (d) {
        w.section = qdict_get_try_str(d, "vmsd_name") ?: name;
        ok = walk_description(&w, d, "") && w.at == len;
    }
    if (!ok) {
        g_array_set_size(fields, 0);
        w.at = 0;
        w.section = name;
        add_field(&w, "", "buffer", len);
    }
    qobject_unref(root);
    number_repeated(fields);
    return g_steal_pointer(&fields);
}
