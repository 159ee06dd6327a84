/*
 * What differs between two saved states of the same devices
 *
 * Pure functions: no lock, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_STATE_COMPARE_H
#define MIGRATION_CHECK_STATE_COMPARE_H

#include "qapi/qapi-types-migration.h"

/* One device of a saved state */
typedef struct SavedSection {
    char *name;
    uint32_t instance_id;
    size_t at, len;             /* its bytes, without header and footer */
    char *description;          /* JSON; see state-fields.h */
} SavedSection;

/* What state_compare() compares */
typedef struct SavedBytes {
    const uint8_t *data;
    const GArray *sections;     /* SavedSection, each within @data */
} SavedBytes;

/* More differences than these are counted only. */
#define STATE_DIFFERENCES_MAX 1000

typedef struct StateDifferences {
    VmstateDifferenceList *found;       /* in the order of saving */
    VmstateDifferenceList *expected;    /* the same, of fields that change */
    uint64_t count;                     /* of the first, and of those over */
} StateDifferences;

/*
 * Compares @after with @before, device by device and field by field.  A device
 * or field that only one of them has is a difference as well.
 */
StateDifferences state_compare(const SavedBytes *before,
                               const SavedBytes *after);

/* A difference that is no field's; the strings are copied. */
VmstateDifference *state_difference(const char *device, uint32_t instance_id,
                                    const char *section, const char *field,
                                    const char *before, const char *after);

/*
 * Up to 16 bytes as text: a number of one of the types that are numbers, or
 * what follows the first byte that differs from @other, which may be NULL.
 */
char *state_value(const char *type, const uint8_t *bytes, const uint8_t *other,
                  size_t size);

#endif
