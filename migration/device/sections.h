/*
 * The registry of what is saved: every device and every live part of a VM
 *
 * A section is registered by name and instance and keeps three orders at
 * once: the order of saving (priority, then time of registration), the number
 * it has on the wire, and an index by all the names that it may have.
 *
 * Threads: sections come and go under the BQL only.  The guest may complete an
 * unplug at any time, so walking and searching need the BQL as well.  The
 * exception is FOR_EACH_SECTION_WITH(): sections with handlers have a list of
 * their own, which does not change while a migration runs, unless a device
 * with such handlers is unplugged.  On the destination objects may go between
 * two records, so that a load keeps numbers (load.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_SECTIONS_H
#define MIGRATION_DEVICE_SECTIONS_H

#include "qemu/queue.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "migration/wire/wire.h"

typedef struct Section Section;

/* What a section is registered with. Exactly one of ops, vmsd. */
typedef struct SectionSpec {
    const char *path;       /* the device's, to stand before name; or NULL */
    const char *name;
    uint32_t instance_id;   /* or VMSTATE_INSTANCE_ID_ANY: the next free */
    int alias_id;           /* further instance to be found by; -1: none */
    int version_id;
    const SaveVMHandlers *ops;
    const VMStateDescription *vmsd;
    void *opaque;
} SectionSpec;

/* One name and instance by which a section is found. */
typedef struct SectionClaim {
    const char *name;
    uint32_t instance_id;
    Section *section;
    struct SectionClaim *next;      /* same name and instance, saved later */
} SectionClaim;

#define SECTION_CLAIMS_MAX 4

struct Section {
    char name[WIRE_NAME_MAX + 1];
    uint32_t instance_id;
    uint32_t id;                    /* on the wire, when we are the source */
    int version_id;
    const SaveVMHandlers *ops;
    const VMStateDescription *vmsd;
    void *opaque;

    /* Private to sections.c, and read by section-inventory.c */
    char *old_name;                 /* before devices had paths, or NULL */
    uint32_t old_instance_id;
    SectionClaim claims[SECTION_CLAIMS_MAX];
    unsigned claim_count;
    QTAILQ_ENTRY(Section) entry;
    QTAILQ_ENTRY(Section) ops_entry;        /* if it has ops */
};

/**
 * section_add: register a section
 *
 * A section with a path is also found by its bare name, as it was called by
 * sources that did not know paths; such names count instances on their own.
 *
 * Returns: the section, or NULL if its name is too long, or if a section
 * already answers to its name and instance, since one would then be loaded
 * with the other's state.
 */
Section *section_add(const SectionSpec *spec, Error **errp);

/* Forgets and frees @s. Its number on the wire is not used again. */
void section_remove(Section *s);

/*
 * The section that answers to @name and @instance_id, by its own name, alias
 * or old name; of several the one that is saved first.  NULL if there is none.
 */
Section *section_find(const char *name, uint32_t instance_id);

/* The section whose number on the wire is @id, or NULL if it has gone. */
Section *section_numbered(uint32_t id);

/* In the order of saving; @s may be NULL for the first. */
Section *section_next(const Section *s);

/*
 * The next section after @s, which is NULL or has handlers, that has the hook
 * at offset @hook of its SaveVMHandlers.
 */
Section *section_next_with(const Section *s, size_t hook);

#define FOR_EACH_SECTION(s) \
    for ((s) = section_next(NULL); (s); (s) = section_next(s))

/* The same for removing @s on the way. */
#define FOR_EACH_SECTION_SAFE(s, after) \
    for ((s) = section_next(NULL); \
         (s) && ((after) = section_next(s), true); (s) = (after))

#define FOR_EACH_SECTION_WITH(s, member) \
    for ((s) = section_next_with(NULL, offsetof(SaveVMHandlers, member)); \
         (s); \
         (s) = section_next_with(s, offsetof(SaveVMHandlers, member)))

/* Takes part in this migration, as far as the section itself decides that. */
static inline bool section_active(const Section *s)
{
    return !s->ops->is_active || s->ops->is_active(s->opaque);
}

/* Can be completed after the guest runs on the destination. */
static inline bool section_has_postcopy(const Section *s)
{
    return s->ops->has_postcopy && s->ops->has_postcopy(s->opaque);
}

/* Sends more than one record, beginning at setup: RAM and the like. */
static inline bool section_is_live(const Section *s)
{
    return s->ops && s->ops->save_setup;
}

/*
 * No migration, in or out, until QEMU ends; @why, which is taken over, joins
 * the devices that cannot be migrated.  Under the BQL.
 */
void sections_block_forever(Error *why);

#endif
