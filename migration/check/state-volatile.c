/*
 * Fields that may differ between two saves of a guest that is stopped
 *
 * A row needs a reason that holds for every guest: what a device gets wrong is
 * no row of this table, but a finding (docs/devel/migration/vmstate-check.rst).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "state-volatile.h"

static const struct {
    const char *section, *field;        /* patterns with '*' and '?' */
    size_t size;                        /* the first bytes of the field */
    const char *reason;
} volatile_fields[] = {
    /* Registers 0 to 9: seconds to year, and the alarm's */
    { "mc146818rtc", "cmos_data", 10, "the time of day, which goes on" },
};

const char *state_volatile(const char *section, const char *field, size_t end)
{
    for (unsigned i = 0; i < ARRAY_SIZE(volatile_fields); i++) {
        if (g_pattern_match_simple(volatile_fields[i].section, section) &&
            g_pattern_match_simple(volatile_fields[i].field, field) &&
            end <= volatile_fields[i].size) {
            return volatile_fields[i].reason;
        }
    }
    return NULL;
}
