/*
 * Pages that the guest says it does not need
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device such as virtio-balloon learns of free pages and hands them to
 * qemu_guest_free_page_hint() (migration/misc.h), from its own thread.  A hint
 * is good until the guest may use the page again, which is not later than the
 * next sync: so devices are told, as precopy notifiers, to stop before one and
 * to begin anew after it.
 */

#ifndef MIGRATION_RAM_HINTS_H
#define MIGRATION_RAM_HINTS_H

#include "region.h"

/* From now on hints are about these regions, until ram_hints_end(). BQL. */
void ram_hints_begin(RamRegions *regions);
void ram_hints_end(void);

/* Before and after a sync.  Takes the BQL unless it is held. */
void ram_hints_stop(void);
void ram_hints_go_on(void);

#endif
