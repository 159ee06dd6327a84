/*
 * The fields of a device's saved state, by the description that is saved along
 *
 * While a device is saved, vmstate.c writes a description in JSON: names,
 * types and sizes, in the order of the bytes.  Here that order is followed, so
 * that each byte of the state has the name of its field.
 *
 * Pure functions: no lock, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_STATE_FIELDS_H
#define MIGRATION_CHECK_STATE_FIELDS_H

/* Structures within structures, and elements of one array */
#define STATE_FIELDS_DEPTH_MAX 32
#define STATE_FIELDS_MAX (1 << 20)

/* A field that has no other fields in it */
typedef struct StateField {
    char *section;      /* the description or subsection that it stands in */
    char *path;         /* its name below that, as in "queue[2].head" */
    char *type;         /* as vmstate.c calls it */
    size_t at, size;    /* bytes from the start of the device's state */
} StateField;

/*
 * The fields of a state of @len bytes that @description, a JSON object, is
 * about; in the order of bytes and without gaps, but for the headers of
 * subsections.  No two have the same section and path.
 *
 * If the description cannot be read, or is about another number of bytes, the
 * result is one field without a path, which is all of the state.
 *
 * Returns an array of StateField, to be freed with g_array_unref().
 */
GArray *state_fields(const char *name, const char *description, size_t len);

#endif
