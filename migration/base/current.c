/*
 * The migration object: its address, and its first error
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/trace.h"

static MigrationState *the_object;

MigrationState *migrate_get_current(void)
{
    assert(the_object);
    return the_object;
}

void migrate_set_current(MigrationState *s)
{
    assert(!the_object);
    the_object = s;
}

void migrate_set_error(MigrationState *s, const Error *err)
{
    trace_migrate_error(error_get_pretty(err));
    first_error_set(&s->error, err);
}

bool migrate_has_error(MigrationState *s)
{
    return first_error_is_set(&s->error);
}
