/*
 * The registry of what is saved: names, instances, order
 *
 * Invariants:
 *  1. all_sections is sorted by falling priority, and within one priority by
 *     rising wire number, which is the order of registration.
 *  2. The chain below an index entry is in that order too, and every claim of
 *     every section is in exactly one chain.
 *  3. sections_with_ops has those with handlers, in the order of all_sections:
 *     they all have the lowest priority.
 *  4. ids_of[kind] has, for each name in use, the number of sections with it
 *     and one more than the highest instance among them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "migration/savevm.h"
#include "sections.h"

static QTAILQ_HEAD(, Section) all_sections =
    QTAILQ_HEAD_INITIALIZER(all_sections);
static QTAILQ_HEAD(, Section) sections_with_ops =
    QTAILQ_HEAD_INITIALIZER(sections_with_ops);
static uint32_t next_wire_id;
static GHashTable *claim_index;     /* first SectionClaim of each chain */

/* Asks for an instance, and is none. Wide, since it is compared with sums. */
#define NO_INSTANCE ((uint64_t)(uint32_t)VMSTATE_INSTANCE_ID_ANY)

/*
 * Instances of a name
 */

typedef enum NameKind {
    NAME_OWN,
    NAME_OLD,
    NAME_KINDS
} NameKind;

typedef struct NameUse {
    unsigned sections;
    uint64_t next_id;
} NameUse;

static GHashTable *ids_of[NAME_KINDS];

static const char *name_of(const Section *s, NameKind kind)
{
    return kind == NAME_OWN ? s->name : s->old_name;
}

static uint32_t instance_of(const Section *s, NameKind kind)
{
    return kind == NAME_OWN ? s->instance_id : s->old_instance_id;
}

/* May be NO_INSTANCE or more when there is none left. */
static uint64_t next_instance(NameKind kind, const char *name)
{
    NameUse *use = g_hash_table_lookup(ids_of[kind], name);

    return use ? use->next_id : 0;
}

static void name_taken(const Section *s, NameKind kind)
{
    const char *name = name_of(s, kind);
    NameUse *use = name ? g_hash_table_lookup(ids_of[kind], name) : NULL;

    if (!name) {
        return;
    }
    if (!use) {
        use = g_new0(NameUse, 1);
        g_hash_table_insert(ids_of[kind], g_strdup(name), use);
    }
    use->sections++;
    use->next_id = MAX(use->next_id, (uint64_t)instance_of(s, kind) + 1);
}

/* @s is not in the list any more. */
static void name_released(const Section *s, NameKind kind)
{
    const char *name = name_of(s, kind);
    NameUse *use = name ? g_hash_table_lookup(ids_of[kind], name) : NULL;
    Section *other;

    if (!use) {
        return;
    }
    if (--use->sections == 0) {
        g_hash_table_remove(ids_of[kind], name);
        return;
    }
    if (use->next_id != (uint64_t)instance_of(s, kind) + 1) {
        return;
    }
    use->next_id = 0;
    FOR_EACH_SECTION(other) {
        if (!g_strcmp0(name_of(other, kind), name)) {
            use->next_id = MAX(use->next_id,
                               (uint64_t)instance_of(other, kind) + 1);
        }
    }
}

/*
 * Order
 */

static MigrationPriority priority_of(const Section *s)
{
    return s->vmsd ? s->vmsd->priority : MIG_PRI_DEFAULT;
}

static bool saved_before(const Section *a, const Section *b)
{
    if (priority_of(a) != priority_of(b)) {
        return priority_of(a) > priority_of(b);
    }
    return a->id < b->id;
}

/* Nearly all sections have the lowest priority, so look from the end. */
static void list_insert(Section *s)
{
    Section *before = QTAILQ_LAST(&all_sections);

    while (before && saved_before(s, before)) {
        before = QTAILQ_PREV(before, entry);
    }
    if (before) {
        QTAILQ_INSERT_AFTER(&all_sections, before, s, entry);
    } else {
        QTAILQ_INSERT_HEAD(&all_sections, s, entry);
    }
    if (s->ops) {
        QTAILQ_INSERT_TAIL(&sections_with_ops, s, ops_entry);
    }
}

Section *section_numbered(uint32_t id)
{
    Section *s;

    FOR_EACH_SECTION(s) {
        if (s->id == id) {
            break;
        }
    }
    return s;
}

Section *section_next(const Section *s)
{
    return s ? QTAILQ_NEXT(s, entry) : QTAILQ_FIRST(&all_sections);
}

static bool has_hook(const Section *s, size_t hook)
{
    /* All members of SaveVMHandlers are function pointers. */
    return *(void (*const *)(void))((const char *)s->ops + hook);
}

Section *section_next_with(const Section *s, size_t hook)
{
    Section *next = s ? QTAILQ_NEXT(s, ops_entry)
                      : QTAILQ_FIRST(&sections_with_ops);

    while (next && !has_hook(next, hook)) {
        next = QTAILQ_NEXT(next, ops_entry);
    }
    return next;
}

/*
 * Index
 */

static guint claim_hash(gconstpointer key)
{
    const SectionClaim *c = key;

    return g_str_hash(c->name) * 31 + c->instance_id;
}

static gboolean claim_equal(gconstpointer a, gconstpointer b)
{
    const SectionClaim *x = a, *y = b;

    return x->instance_id == y->instance_id && !strcmp(x->name, y->name);
}

static void claim_insert(SectionClaim *claim)
{
    SectionClaim *first = g_hash_table_lookup(claim_index, claim);
    SectionClaim **at = &first;

    while (*at && !saved_before(claim->section, (*at)->section)) {
        at = &(*at)->next;
    }
    claim->next = *at;
    *at = claim;
    g_hash_table_replace(claim_index, first, first);
}

static void claim_drop(SectionClaim *claim)
{
    SectionClaim *first = g_hash_table_lookup(claim_index, claim);
    SectionClaim **at = &first;

    while (*at != claim) {
        at = &(*at)->next;
    }
    *at = claim->next;
    if (first) {
        g_hash_table_replace(claim_index, first, first);
    } else {
        g_hash_table_remove(claim_index, claim);
    }
}

static void claim(Section *s, const char *name, uint32_t instance_id)
{
    s->claims[s->claim_count++] = (SectionClaim) {
        .name = name, .instance_id = instance_id, .section = s,
    };
}

Section *section_find(const char *name, uint32_t instance_id)
{
    SectionClaim key = { .name = name, .instance_id = instance_id };
    SectionClaim *found;

    found = claim_index ? g_hash_table_lookup(claim_index, &key) : NULL;
    return found ? found->section : NULL;
}

/*
 * Coming and going
 */

static void tables_init(void)
{
    if (claim_index) {
        return;
    }
    claim_index = g_hash_table_new(claim_hash, claim_equal);
    for (int kind = 0; kind < NAME_KINDS; kind++) {
        ids_of[kind] = g_hash_table_new_full(g_str_hash, g_str_equal,
                                             g_free, g_free);
    }
}

static bool pick_names(Section *s, const SectionSpec *spec, Error **errp)
{
    int len = snprintf(s->name, sizeof(s->name), "%s%s%s", spec->path ?: "",
                       spec->path ? "/" : "", spec->name);

    if (len >= sizeof(s->name)) {
        error_setg(errp, "The name of the migration section '%s' of device "
                   "'%s' is longer than %d bytes", spec->name,
                   spec->path ?: "", WIRE_NAME_MAX);
        return false;
    }
    if (spec->path) {
        s->old_name = g_strdup(spec->name);
    }
    return true;
}

/* A path says which device it is, so it needs no counting. */
static bool pick_instances(Section *s, const SectionSpec *spec, Error **errp)
{
    uint64_t id = spec->path ? 0 : spec->instance_id;
    uint64_t old_id = spec->instance_id;

    if (id == NO_INSTANCE) {
        id = next_instance(NAME_OWN, s->name);
    }
    if (old_id == NO_INSTANCE && spec->path) {
        old_id = next_instance(NAME_OLD, s->old_name);
    }
    if (id >= NO_INSTANCE || (spec->path && old_id >= NO_INSTANCE)) {
        error_setg(errp, "No instance is left for the migration section '%s'",
                   s->name);
        return false;
    }
    s->instance_id = id;
    s->old_instance_id = old_id;
    if (section_find(s->name, s->instance_id)) {
        error_setg(errp, "There is a migration section '%s' instance %" PRIu32
                   " already", s->name, s->instance_id);
        return false;
    }
    return true;
}

Section *section_add(const SectionSpec *spec, Error **errp)
{
    Section *s = g_new0(Section, 1);

    assert(!spec->ops != !spec->vmsd);
    tables_init();
    s->version_id = spec->version_id;
    s->ops = spec->ops;
    s->vmsd = spec->vmsd;
    s->opaque = spec->opaque;
    if (!pick_names(s, spec, errp) || !pick_instances(s, spec, errp)) {
        g_free(s->old_name);
        g_free(s);
        return NULL;
    }
    s->id = next_wire_id++;

    claim(s, s->name, s->instance_id);
    if (s->old_name) {
        claim(s, s->old_name, s->old_instance_id);
    }
    if (spec->alias_id != -1) {
        claim(s, s->name, spec->alias_id);
        if (s->old_name) {
            claim(s, s->old_name, spec->alias_id);
        }
    }

    list_insert(s);
    for (unsigned i = 0; i < s->claim_count; i++) {
        claim_insert(&s->claims[i]);
    }
    name_taken(s, NAME_OWN);
    name_taken(s, NAME_OLD);
    return s;
}

void section_remove(Section *s)
{
    QTAILQ_REMOVE(&all_sections, s, entry);
    if (s->ops) {
        QTAILQ_REMOVE(&sections_with_ops, s, ops_entry);
    }
    for (unsigned i = 0; i < s->claim_count; i++) {
        claim_drop(&s->claims[i]);
    }
    name_released(s, NAME_OWN);
    name_released(s, NAME_OLD);
    g_free(s->old_name);
    g_free(s);
}

/*
 * Blockers
 */

static Error *blocked_forever;      /* the first reason */

void sections_block_forever(Error *why)
{
    if (blocked_forever) {
        error_free(why);
    } else {
        blocked_forever = why;
    }
}

/* The next section after @s whose device cannot be migrated. */
static Section *next_unmigratable(const Section *s)
{
    Section *next = section_next(s);

    while (next && !(next->vmsd && next->vmsd->unmigratable)) {
        next = section_next(next);
    }
    return next;
}

bool qemu_savevm_state_blocked(Error **errp)
{
    Section *s = next_unmigratable(NULL);

    if (blocked_forever) {
        error_propagate(errp, error_copy(blocked_forever));
    } else if (s) {
        error_setg(errp, "State blocked by non-migratable device '%s'",
                   s->name);
    }
    return s || blocked_forever;
}

void qemu_savevm_non_migratable_list(strList **reasons)
{
    Section *s = NULL;

    while ((s = next_unmigratable(s))) {
        QAPI_LIST_PREPEND(*reasons,
                          g_strdup_printf("non-migratable device: %s",
                                          s->name));
    }
    if (blocked_forever) {
        QAPI_LIST_PREPEND(*reasons,
                          g_strdup(error_get_pretty(blocked_forever)));
    }
}
