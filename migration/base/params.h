/*
 * Parameters as data: what each may be, and moving them between structures
 *
 * Nothing here knows of a running emulator; what is in force, and what a
 * change does to a migration that runs, is the business of options.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_PARAMS_H
#define MIGRATION_BASE_PARAMS_H

#include "qapi/qapi-types-migration.h"

typedef enum ParamKind {
    PARAM_INT,
    PARAM_BOOL,
    PARAM_ENUM,
    PARAM_STRING,
    PARAM_LIST,
} ParamKind;

typedef struct ParamRow {
    const char *name;           /* in QMP */
    const char *unit;           /* "" if it is a plain number */
    ParamKind kind;
    uint64_t min;               /* these three for numbers only */
    uint64_t max;
    uint64_t preset;
    uint8_t size;               /* of the member, in bytes */
    uint16_t at;                /* offset in MigrationParameters */
    uint16_t set_at;            /* offset in MigrateSetParameters */
    uint16_t set_has;           /* offset of its has_ there; numbers only */
} ParamRow;

/* The row of a parameter; there is one for each. */
const ParamRow *param_row(MigrationParameter id);

/*
 * A number of @size bytes.  Any thread may read while one that holds the BQL
 * stores, also where 64 bits are more than one word.
 */
uint64_t param_load(const void *at, size_t size);

/* The value of a parameter of kind INT, BOOL or ENUM. */
uint64_t param_number(const MigrationParameters *params, MigrationParameter id);

/* Fill @params, all zero before, with the defaults; it owns its strings. */
void params_preset(MigrationParameters *params);

/* Whether @set says anything about a parameter. */
bool params_given(const MigrateSetParameters *set, MigrationParameter id);

/*
 * Change in @params what @set gives.  Strings and lists are copied and the
 * former ones freed; a null string is an empty one.
 */
void params_merge(MigrationParameters *params, const MigrateSetParameters *set);

/*
 * Whether all numbers are in their ranges and agree with each other.
 * @page_size: of the target, in bytes.
 */
bool params_check_numbers(const MigrationParameters *params,
                          uint64_t page_size, Error **errp);

/* Whether channels are to be secured */
bool params_have_tls(const MigrationParameters *params);

#endif
