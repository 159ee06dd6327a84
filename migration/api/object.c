/*
 * The migration object, by which QEMU sets up and ends everything here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/qdev-properties.h"
#include "migration/check/vmstate-check.h"
#include "migration/checkpoint/checkpoint.h"
#include "migration/colo.h"
#include "migration/core/fault-inject.h"
#include "migration/core/main-loop.h"
#include "migration/destination/start.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/ram/ram-source.h"
#include "migration/register.h"
#include "migration/source/start.h"
#include "migration/source/state.h"
#include "migration/wire/wire.h"

void migration_object_init(void)
{
    const bool none[MIGRATION_CAPABILITY__MAX] = { false };
    MigrationState *s = MIGRATION(object_new(TYPE_MIGRATION));

    migrate_set_current(s);
    source_init();
    destination_init();
    checkpoint_init();

    /* -global may have set anything. */
    if (migrate_params_check(&s->parameters, &error_fatal)) {
        migrate_caps_check((bool *)none, s->capabilities, &error_fatal);
    }
    ram_mig_init();
    register_savevm_live(WIRE_RAM_NAME, WIRE_RAM_INSTANCE, WIRE_RAM_VERSION,
                         &ram_section_handlers, NULL);
    dirty_bitmap_mig_init();
    vmstate_check_init();
}

/*
 * QEMU ends.  The object stays: a thread that is stuck in a channel which
 * cannot be shut down may still come by.
 */
void migration_shutdown(void)
{
    main_loop_set_ending();
    vmstate_check_shutdown();
    colo_shutdown();
    source_shutdown();
    destination_shutdown();
    dirty_bitmap_mig_cancel_outgoing();
    dirty_bitmap_mig_cancel_incoming();
}

static void migration_instance_init(Object *obj)
{
    MigrationState *s = MIGRATION(obj);

    first_error_init(&s->error);
    migrate_params_init(&s->parameters);
}

static char *get_fault_delay(Object *obj, Error **errp)
{
    return fault_inject_text();
}

static void set_fault_delay(Object *obj, const char *text, Error **errp)
{
    fault_inject_set(text, errp);
}

static char *get_fault_gate(Object *obj, Error **errp)
{
    return g_strdup(fault_inject_gate());
}

static void set_fault_gate(Object *obj, const char *folder, Error **errp)
{
    fault_inject_set_gate(folder);
}

static bool get_fault_cpus_stay(Object *obj, Error **errp)
{
    return fault_inject_cpus_stay();
}

static void set_fault_cpus_stay(Object *obj, bool stay, Error **errp)
{
    fault_inject_set_cpus_stay(stay);
}

static void migration_class_init(ObjectClass *class, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(class);

    dc->user_creatable = false;
    device_class_set_props_n(dc, migration_properties,
                             migration_properties_count);
    object_class_property_add_str(class, "x-fault-delay", get_fault_delay,
                                  set_fault_delay);
    object_class_property_add_str(class, "x-fault-gate", get_fault_gate,
                                  set_fault_gate);
    object_class_property_add_bool(class, "x-fault-cpus-stay",
                                   get_fault_cpus_stay, set_fault_cpus_stay);
}

/* A device only because properties of those can be set by -global. */
static const TypeInfo migration_info = {
    .class_init = migration_class_init,
    .instance_init = migration_instance_init,
    .instance_size = sizeof(MigrationState),
    .name = TYPE_MIGRATION,
    .parent = TYPE_DEVICE,
};

static void object_register_migration(void)
{
    type_register_static(&migration_info);
}

type_init(object_register_migration)
