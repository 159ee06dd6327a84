/*
 * Devices that forbid migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "blockers.h"
#include "sections.h"

static Error *blocked_forever;      /* the first reason */

void device_block_forever(Error *why)
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

bool device_blocked(Error **errp)
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

void device_blockers(strList **reasons)
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
