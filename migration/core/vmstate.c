/*
 * What the two directions of saving and loading a VM have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "system/system.h"
#include "vmstate.h"

const Configuration *vmstate_configuration(Configuration *here)
{
    MigrationState *s = migrate_get_current();

    *here = (Configuration) {
        .machine = MACHINE_GET_CLASS(current_machine)->name,
        .page_bits = qemu_target_page_bits(),
        .page_bits_min = qemu_target_page_bits_min(),
        .capabilities = s->capabilities,
        .validate_uuid = migrate_validate_uuid(),
        .uuid = qemu_uuid_set ? &qemu_uuid : NULL,
    };
    return s->send_configuration ? here : NULL;
}

bool should_send_vmdesc(void)
{
    return !current_machine->suppress_vmdesc;
}
