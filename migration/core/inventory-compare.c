/*
 * What differs between two sides of a migration, from their inventories
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "inventory-compare.h"
#include "inventory-index.h"
#include "peer-error.h"

/* How many differences an error of a migration names */
#define SUMMARY_MAX 12

typedef struct Comparison {
    const Inventory *source, *destination;
    GHashTable *here, *there;   /* InventoryItem by key_of() */
    uint32_t features;
    MigrationMismatchList **tail;
} Comparison;

/*
 * Telling
 */

/* One line, whatever the peer has sent */
static char *shown(const char *text)
{
    return peer_error_decode((const uint8_t *)text, strlen(text));
}

static MigrationMismatch *tell(Comparison *c, bool fatal,
                               MigrationCheckSide side,
                               MigrationMismatchKind kind, const char *name)
{
    MigrationMismatch *m = g_new0(MigrationMismatch, 1);

    m->fatal = fatal;
    m->side = side;
    m->kind = kind;
    m->name = shown(name);
    QAPI_LIST_APPEND(c->tail, m);
    return m;
}

#define FATAL true
#define WARNING false
#define ON_SOURCE MIGRATION_CHECK_SIDE_SOURCE
#define ON_DESTINATION MIGRATION_CHECK_SIDE_DESTINATION
#define ON_EITHER MIGRATION_CHECK_SIDE_EITHER
#define KIND(kind) MIGRATION_MISMATCH_KIND_##kind

static void told_numbers(MigrationMismatch *m, uint64_t here, uint64_t there)
{
    m->source = g_strdup_printf("%" PRIu64, here);
    m->destination = g_strdup_printf("%" PRIu64, there);
}

static void told_texts(MigrationMismatch *m, const char *here,
                       const char *there)
{
    m->source = here ? shown(here) : NULL;
    m->destination = there ? shown(there) : NULL;
}

/*
 * Settings
 */

static bool is_on(GHashTable *index, const char *capability)
{
    const InventoryItem *item = inventory_find(index, WIRE_INVENTORY_CAPABILITY,
                                               capability, "", 0);

    return item && item->value[0];
}

static const char *parameter(GHashTable *index, const char *name)
{
    const InventoryItem *item = inventory_find(index, WIRE_INVENTORY_PARAMETER,
                                               name, "", 0);

    return item ? item->text : NULL;
}

static void tell_capability(Comparison *c, const char *name, bool here)
{
    MigrationMismatch *m = tell(c, FATAL, ON_EITHER, KIND(CAPABILITY), name);

    told_texts(m, here ? "on" : "off", here ? "off" : "on");
    m->advice = g_strdup_printf("set capability '%s' on both sides or on "
                                "neither", name);
}

/* Capabilities that both sides have on, or neither */
static void compare_equal_capabilities(Comparison *c)
{
    static const char *const equal[] = {
        "multifd", "x-ignore-shared", "mapped-ram", "x-colo", "checkpoint",
    };

    for (size_t i = 0; i < ARRAY_SIZE(equal); i++) {
        bool here = is_on(c->here, equal[i]);

        if (here != is_on(c->there, equal[i])) {
            tell_capability(c, equal[i], here);
        }
    }
}

/*
 * A destination takes no notice of postcopy that is not announced; what is
 * announced has to fit.
 */
static void compare_postcopy(Comparison *c)
{
    bool here = is_on(c->here, "postcopy-ram");
    bool there = is_on(c->there, "postcopy-ram");
    bool preempt = is_on(c->here, "postcopy-preempt");

    if (here != there && (here || is_on(c->here, "dirty-bitmaps"))) {
        tell_capability(c, "postcopy-ram", here);
    }
    if (here && there && preempt != is_on(c->there, "postcopy-preempt")) {
        tell_capability(c, "postcopy-preempt", preempt);
    }
}

static void compare_all_capabilities(Comparison *c)
{
    compare_equal_capabilities(c);
    compare_postcopy(c);
    /* The source would wait for an answer that never comes. */
    if (is_on(c->here, "switchover-ack") &&
        !is_on(c->there, "switchover-ack")) {
        tell_capability(c, "switchover-ack", true);
    }
}

static void compare_parameter(Comparison *c, const char *name)
{
    const char *here = parameter(c->here, name);
    const char *there = parameter(c->there, name);
    MigrationMismatch *m;

    if (!here || !there || !strcmp(here, there)) {
        return;
    }
    m = tell(c, FATAL, ON_EITHER, KIND(PARAMETER), name);
    told_texts(m, here, there);
    m->advice = g_strdup_printf("set '%s' to the same value on both sides",
                                name);
}

/*
 * Every packet may have another method of those that both have.  What 'auto'
 * tries depends on what the destination takes.
 */
static bool method_may_differ(const Comparison *c)
{
    static const char *const methods[] = { "none", "zlib", "zstd", "auto",
                                           NULL };
    const char *here = parameter(c->here, "multifd-compression");
    const char *there = parameter(c->there, "multifd-compression");

    return !g_strcmp0(here, "auto") || !g_strcmp0(there, "auto") ||
           ((c->features & WIRE_PEER_ANY_METHOD) && here &&
            g_strv_contains(methods, here));
}

static void compare_parameters(Comparison *c)
{
    compare_parameter(c, "migration.send-section-footer");
    compare_parameter(c, "migration.multifd-flush-after-each-section");
    if (is_on(c->here, "multifd") && is_on(c->there, "multifd")) {
        compare_parameter(c, "multifd-channels");
        if (!method_may_differ(c)) {
            compare_parameter(c, "multifd-compression");
        }
    }
}

/*
 * The machine
 */

/* The channels of multifd begin with it. */
static void compare_uuid(Comparison *c, const char *here, const char *there)
{
    bool checked = is_on(c->here, "multifd") ||
                   (is_on(c->here, "validate-uuid") && *here && *there);
    MigrationMismatch *m;

    if (strcmp(here, there) && (checked || (*here && *there))) {
        m = tell(c, checked, ON_DESTINATION, KIND(MACHINE), "uuid");
        told_texts(m, *here ? here : "not set", *there ? there : "not set");
        m->advice = g_strdup("start the destination with the UUID of the "
                             "source");
    }
}

static void compare_machine(Comparison *c, const InventoryItem *here,
                            const InventoryItem *there)
{
    MigrationMismatch *m;

    if (strcmp(here->name, there->name)) {
        m = tell(c, FATAL, ON_DESTINATION, KIND(MACHINE), "type");
        told_texts(m, here->name, there->name);
        m->advice = g_strdup("start the destination with the machine type of "
                             "the source; a name without a version stands for "
                             "another one in each version of QEMU");
    }
    if (here->value[0] != there->value[0]) {
        m = tell(c, FATAL, ON_DESTINATION, KIND(MACHINE), "target-page-bits");
        told_numbers(m, here->value[0], there->value[0]);
        m->advice = g_strdup("start the destination with the CPU type of the "
                             "source");
    }
    compare_uuid(c, here->text, there->text);
}

static void compare_cpu(Comparison *c, const InventoryItem *here,
                        const InventoryItem *there)
{
    MigrationMismatch *m;

    if (strcmp(here->name, there->name)) {
        m = tell(c, WARNING, ON_DESTINATION, KIND(CPU), "type");
        told_texts(m, here->name, there->name);
        m->advice = g_strdup("start the destination with the CPU type of the "
                             "source");
    }
    if (here->value[0] != there->value[0]) {
        m = tell(c, here->value[0] > there->value[0], ON_DESTINATION,
                 KIND(CPU), "count");
        told_numbers(m, here->value[0], there->value[0]);
        m->advice = g_strdup("start the destination with as many CPUs as the "
                             "source has, those that were plugged included");
    }
}

static char *bits_text(uint64_t bits)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < 64; i++) {
        if (bits >> i & 1) {
            g_string_append_printf(text, "%s%d", text->len ? ", " : "", i);
        }
    }
    return g_string_free(text, false);
}

/*
 * A guest that loses what it has found on its CPU crashes sooner or later; one
 * that gets more does not notice.
 */
static void compare_cpu_word(Comparison *c, const InventoryItem *here,
                             const InventoryItem *there)
{
    uint64_t lost = here->value[0] & ~there->value[0];
    uint64_t differ = here->value[0] ^ there->value[0];
    g_autofree char *bits = bits_text(lost ?: differ);
    MigrationMismatch *m;

    if (!differ) {
        return;
    }
    m = tell(c, lost, ON_EITHER, KIND(CPU), here->name);
    m->source = g_strdup_printf("0x%08" PRIx64, here->value[0]);
    m->destination = g_strdup_printf("0x%08" PRIx64, there->value[0]);
    m->advice = g_strdup_printf(
        lost ? "the destination's CPU lacks features that the guest has "
               "(bits %s): use a CPU model that both hosts support"
             : "the destination's CPU has features that the guest does not "
               "know (bits %s): use the same CPU model on both sides", bits);
}

/*
 * Memory
 */

static void tell_ram_size(Comparison *c, const InventoryItem *here,
                          const InventoryItem *there)
{
    MigrationMismatch *m = tell(c, FATAL, ON_DESTINATION, KIND(RAM),
                                here->name);

    told_numbers(m, here->value[0], there->value[0]);
    m->advice = g_strdup(
        there->flags & WIRE_INVENTORY_RAM_RESIZABLE
        ? "the block has more bytes than the destination can give it: "
          "start the destination with the size of the source"
        : "the sizes in bytes differ: start the destination with the "
          "memory of the source, and the same ROM files");
}

static void compare_ram(Comparison *c, const InventoryItem *here,
                        const InventoryItem *there)
{
    bool resizable = there->flags & WIRE_INVENTORY_RAM_RESIZABLE;
    bool postcopy = is_on(c->here, "postcopy-ram") &&
                    is_on(c->there, "postcopy-ram");
    MigrationMismatch *m;

    if (here->flags & WIRE_INVENTORY_RAM_IGNORED) {
        return;
    }
    if (here->value[0] != there->value[0] &&
        !(resizable && here->value[0] <= there->value[1])) {
        tell_ram_size(c, here, there);
    }
    if (postcopy && here->value[2] != there->value[2]) {
        m = tell(c, FATAL, ON_EITHER, KIND(RAM), here->name);
        told_numbers(m, here->value[2], there->value[2]);
        m->advice = g_strdup("pages of the memory behind the block differ in "
                             "size, and postcopy moves whole ones: use the "
                             "same memory backend on both sides, or turn "
                             "'postcopy-ram' off");
    }
}

static void tell_ram_missing(Comparison *c, const InventoryItem *here)
{
    MigrationMismatch *m;

    if (here->flags & WIRE_INVENTORY_RAM_IGNORED) {
        return;
    }
    m = tell(c, FATAL, ON_DESTINATION, KIND(RAM), here->name);
    m->source = g_strdup_printf("%" PRIu64, here->value[0]);
    m->advice = g_strdup("the destination has no such block of memory: give "
                         "it the same memory devices, with the same IDs, and "
                         "the same devices at the same addresses");
}

/*
 * Sections
 */

/* What the source does not have, but the destination, of the same type */
static const InventoryItem *elsewhere(const Comparison *c,
                                      const InventoryItem *here)
{
    INVENTORY_FOREACH(item, c->destination) {
        if (item->kind == WIRE_INVENTORY_SECTION && *here->text &&
            !(item->flags & WIRE_INVENTORY_SECTION_ALIAS) &&
            !strcmp(item->text, here->text) &&
            !inventory_counterpart(c->here, item)) {
            return item;
        }
    }
    return NULL;
}

static void tell_section_missing(Comparison *c, const InventoryItem *here)
{
    const InventoryItem *other = elsewhere(c, here);
    MigrationMismatch *m = tell(c, FATAL, ON_EITHER, KIND(SECTION),
                                here->name);

    m->source = g_strdup_printf("instance %" PRIu64, here->value[0]);
    if (other) {
        g_autofree char *name = shown(other->name);

        m->destination = g_strdup_printf("'%s' instance %" PRIu64, name,
                                         other->value[0]);
        m->advice = g_strdup("the device is at another address there: give "
                             "it the same one on both sides");
    } else {
        m->advice = g_strdup("add the device to the destination, at the same "
                             "address, or unplug it on the source");
    }
}

static void compare_section(Comparison *c, const InventoryItem *here,
                            const InventoryItem *there)
{
    bool newer = here->value[1] > there->value[1];
    MigrationMismatch *m;

    if (!newer && here->value[1] >= there->value[2]) {
        return;
    }
    m = tell(c, FATAL, ON_EITHER, KIND(SECTION), here->name);
    m->source = g_strdup_printf("version %" PRIu64, here->value[1]);
    m->destination = g_strdup_printf("versions %" PRIu64 " to %" PRIu64,
                                     there->value[2], there->value[1]);
    m->advice = g_strdup(newer
                         ? "the source's QEMU saves the device in a newer "
                           "format: use an older machine type, or a newer "
                           "QEMU on the destination"
                         : "the destination's QEMU does not load the old "
                           "format of the device any more: use an older QEMU "
                           "there");
}

/* The section that the source would send with it decides what may come. */
static void compare_subsection(Comparison *c, const InventoryItem *here)
{
    const InventoryItem *section =
        inventory_find(c->there, WIRE_INVENTORY_SECTION, here->name, "",
                       here->value[0]);
    MigrationMismatch *m;
    g_autofree char *name = NULL;

    if (!section || !*section->text ||
        inventory_find(c->there, WIRE_INVENTORY_SUBSECTION, section->text,
                       here->text, 0)) {
        return;
    }
    name = g_strdup_printf("%s: %s", here->name, here->text);
    m = tell(c, FATAL, ON_EITHER, KIND(SUBSECTION), name);
    m->source = g_strdup("needed");
    m->destination = g_strdup("unknown");
    m->advice = g_strdup("the device has state that the destination does not "
                         "know: use the same properties of the device and "
                         "machine type, or a newer QEMU on the destination");
}

/*
 * Disks
 */

static void compare_bitmap(Comparison *c, const InventoryItem *here)
{
    g_autofree char *name = g_strdup_printf("%s/%s", here->name, here->text);
    MigrationMismatch *m;

    if (inventory_counterpart(c->there, here)) {
        m = tell(c, FATAL, ON_DESTINATION, KIND(BITMAP), name);
        told_texts(m, "present", "present");
        m->advice = g_strdup("remove the dirty bitmap on the destination: the "
                             "one of the source takes its name");
    } else if (!inventory_find(c->there, WIRE_INVENTORY_NODE, here->name, "",
                               0)) {
        m = tell(c, WARNING, ON_EITHER, KIND(BITMAP), name);
        told_texts(m, "present", NULL);
        m->advice = g_strdup("the destination has no block node of that name, "
                             "and will drop the dirty bitmap: name the node "
                             "there, or set 'block-bitmap-mapping'");
    }
}

/*
 * What one side says of itself
 */

static void tell_problems(Comparison *c, const Inventory *from,
                          MigrationCheckSide side)
{
    INVENTORY_FOREACH(item, from) {
        if (item->kind == WIRE_INVENTORY_PROBLEM) {
            MigrationMismatch *m =
                tell(c, item->flags & WIRE_INVENTORY_PROBLEM_FATAL, side,
                     KIND(PROBLEM), item->name);

            m->advice = shown(item->text);
        }
    }
}

/*
 * All of it
 */

static void compare_present(Comparison *c, const InventoryItem *here,
                            const InventoryItem *there)
{
    switch (here->kind) {
    case WIRE_INVENTORY_MACHINE:
        compare_machine(c, here, there);
        break;
    case WIRE_INVENTORY_CPU:
        compare_cpu(c, here, there);
        break;
    case WIRE_INVENTORY_CPU_WORD:
        compare_cpu_word(c, here, there);
        break;
    case WIRE_INVENTORY_RAM:
        compare_ram(c, here, there);
        break;
    case WIRE_INVENTORY_SECTION:
        compare_section(c, here, there);
        break;
    default:
        break;
    }
}

/* What the source would send, against what the destination has */
static void compare_item(Comparison *c, const InventoryItem *here)
{
    const InventoryItem *there = inventory_counterpart(c->there, here);
    /* Nothing is missing for sure in a list that is not complete. */
    bool complete = !c->destination->omitted;

    if (here->kind == WIRE_INVENTORY_SECTION &&
        !(here->flags & WIRE_INVENTORY_SECTION_SENT)) {
        return;
    }
    if (here->kind == WIRE_INVENTORY_BITMAP) {
        compare_bitmap(c, here);
    } else if (here->kind == WIRE_INVENTORY_SUBSECTION) {
        if (complete) {
            compare_subsection(c, here);
        }
    } else if (there) {
        compare_present(c, here, there);
    } else if (here->kind == WIRE_INVENTORY_RAM && complete) {
        tell_ram_missing(c, here);
    } else if (here->kind == WIRE_INVENTORY_SECTION && complete) {
        tell_section_missing(c, here);
    }
}

/* What the destination has beyond that stays as it was started. */
static void compare_surplus(Comparison *c, const InventoryItem *there)
{
    bool section = there->kind == WIRE_INVENTORY_SECTION &&
                   !(there->flags & WIRE_INVENTORY_SECTION_ALIAS);
    MigrationMismatch *m;

    if ((!section && there->kind != WIRE_INVENTORY_RAM) ||
        c->source->omitted || inventory_counterpart(c->here, there)) {
        return;
    }
    m = tell(c, WARNING, ON_DESTINATION,
             section ? KIND(SECTION) : KIND(RAM), there->name);
    m->destination = g_strdup_printf(section ? "instance %" PRIu64
                                             : "%" PRIu64 " bytes",
                                     there->value[0]);
    m->advice = g_strdup("the source has nothing of the kind: what the guest "
                         "finds there is not what it left");
}

MigrationMismatchList *inventory_compare(const Inventory *source,
                                         const Inventory *destination,
                                         uint32_t features)
{
    MigrationMismatchList *list = NULL;
    Comparison c = {
        .source = source, .destination = destination, .features = features,
        .tail = &list,
    };

    tell_problems(&c, source, ON_SOURCE);
    if (!destination) {
        return list;
    }
    c.here = inventory_index(source);
    c.there = inventory_index(destination);
    tell_problems(&c, destination, ON_DESTINATION);
    compare_all_capabilities(&c);
    compare_parameters(&c);
    INVENTORY_FOREACH(here, source) {
        compare_item(&c, here);
    }
    INVENTORY_FOREACH(there, destination) {
        compare_surplus(&c, there);
    }
    g_hash_table_destroy(c.here);
    g_hash_table_destroy(c.there);
    return list;
}

bool inventory_fatal(const MigrationMismatchList *list)
{
    while (list && !list->value->fatal) {
        list = list->next;
    }
    return list;
}

char *inventory_mismatch_text(const MigrationMismatch *m)
{
    GString *text = g_string_new(NULL);

    g_string_printf(text, "%s '%s'", MigrationMismatchKind_str(m->kind),
                    m->name);
    if (m->source || m->destination) {
        g_string_append_printf(text, ": %s on the source, %s on the "
                               "destination", m->source ?: "absent",
                               m->destination ?: "absent");
    } else {
        g_string_append_printf(text, " on the %s",
                               MigrationCheckSide_str(m->side));
    }
    g_string_append_printf(text, ": %s", m->advice);
    return g_string_free(text, false);
}

char *inventory_summary(const MigrationMismatchList *list)
{
    GString *text = g_string_new(NULL);
    unsigned fatal = 0;

    for (; list; list = list->next) {
        g_autofree char *one = NULL;

        if (!list->value->fatal || fatal++ >= SUMMARY_MAX) {
            continue;
        }
        one = inventory_mismatch_text(list->value);
        g_string_append_printf(text, "%s%s", text->len ? "; " : "", one);
    }
    if (fatal > SUMMARY_MAX) {
        g_string_append_printf(text, "; and %u more: 'migrate-check' lists "
                               "them all", fatal - SUMMARY_MAX);
    }
    return g_string_free(text, !fatal);
}
