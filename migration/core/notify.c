/*
 * What is shared by both directions of migration: the object, the first
 * error, notifiers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration.h"
#include "qemu/lockable.h"
#include "qemu/notify.h"
#include "hw/qdev-properties.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/trace.h"
#include "notify.h"
#include "fault-inject.h"
#include "migration/destination/state.h"
#include "migration/source/state.h"

static MigrationState *the_object;
static bool ending;             /* BQL */
static NotifierWithReturnList notifiers[MIG_MODE__MAX];

/*
 * Phases
 */

static void announce_phase(MigrationStatus status)
{
    trace_migrate_set_state(MigrationStatus_str(status));
    if (migrate_events()) {
        qapi_event_send_migration(status);
    }
    /* The main loop may now carry out what it had to put off. */
    qemu_notify_event();
}

void ctx_phase_set(Phase *phase, MigrationStatus to)
{
    phase_set(phase, to);
    announce_phase(to);
}

bool ctx_phase_move(Phase *phase, MigrationStatus from, MigrationStatus to)
{
    bool won = phase_move(phase, from, to);

    if (won) {
        announce_phase(to);
    }
    return won;
}

/*
 * The first error
 */

void migrate_set_error(MigrationState *migration, const Error *err)
{
    QEMU_LOCK_GUARD(&migration->error_lock);
    trace_migrate_error(error_get_pretty(err));
    if (!migration->error) {
        migration->error = error_copy(err);
    }
}

bool migrate_has_error(MigrationState *migration)
{
    QEMU_LOCK_GUARD(&migration->error_lock);
    return migration->error;
}

void ctx_fail(Error *err)
{
    migrate_set_error(the_object, err);
    error_free(err);
}

void ctx_fail_also(Error *err)
{
    WITH_QEMU_LOCK_GUARD(&the_object->error_lock) {
        Error *first = g_steal_pointer(&the_object->error);

        error_setg(&the_object->error, "%s%s%s",
                   first ? error_get_pretty(first) : "", first ? "; " : "",
                   error_get_pretty(err));
        error_free(first);
    }
    error_free(err);
}

Error *ctx_error(void)
{
    QEMU_LOCK_GUARD(&the_object->error_lock);
    return the_object->error ? error_copy(the_object->error) : NULL;
}

void ctx_clear_error(void)
{
    QEMU_LOCK_GUARD(&the_object->error_lock);
    error_free(g_steal_pointer(&the_object->error));
}

bool ctx_ending(void)
{
    return ending;
}

/*
 * Like commands of QMP: in the loop itself, not in the middle of something
 * that polls while it waits, such as for requests to the disks.
 */
void ctx_in_main_loop(QEMUBHFunc *fn, void *opaque)
{
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), fn, opaque);
}

typedef struct Errand {
    Coroutine *co;
    void (*fn)(void);
} Errand;

static void run_errand(void *opaque)
{
    Errand *errand = opaque;

    errand->fn();
    qemu_coroutine_enter(errand->co);
}

void coroutine_fn ctx_outside(void (*fn)(void))
{
    Errand errand = { .co = qemu_coroutine_self(), .fn = fn };

    ctx_in_main_loop(run_errand, &errand);
    qemu_coroutine_yield();
}

/*
 * Notifiers
 */

void migration_add_notifier_mode(NotifierWithReturn *who,
                                 MigrationNotifyFunc function, MigMode mode)
{
    who->notify = (NotifierWithReturnFunc)function;
    notifier_with_return_list_add(&notifiers[mode], who);
}

void migration_add_notifier(NotifierWithReturn *who,
                            MigrationNotifyFunc function)
{
    migration_add_notifier_mode(who, function, MIG_MODE_NORMAL);
}

/* May be called for one that is not in any list. */
void migration_remove_notifier(NotifierWithReturn *who)
{
    if (!who->notify) {
        return;
    }
    notifier_with_return_remove(who);
    who->notify = NULL;
}

bool ctx_notify(MigrationEventType type, Error **errp)
{
    MigrationEvent event = { .type = type };

    return !notifier_with_return_list_notify(&notifiers[migrate_mode()],
                                             &event, errp);
}

/*
 * The object
 */

MigrationState *migrate_get_current(void)
{
    assert(the_object);
    return the_object;
}

void migration_object_init(void)
{
    const bool none[MIGRATION_CAPABILITY__MAX] = { false };

    assert(!the_object);
    the_object = MIGRATION(object_new(TYPE_MIGRATION));
    source_init();
    incoming_init();

    /* -global may have set anything. */
    if (migrate_params_check(&the_object->parameters, &error_fatal)) {
        migrate_caps_check((bool *)none, the_object->capabilities,
                           &error_fatal);
    }
    ram_mig_init();
    dirty_bitmap_mig_init();
}

/*
 * QEMU ends.  The object stays: a thread that is stuck in a channel which
 * cannot be shut down may still come by.
 */
void migration_shutdown(void)
{
    ending = true;
    colo_shutdown();
    source_shutdown();
    incoming_shutdown();
    dirty_bitmap_mig_cancel_outgoing();
    dirty_bitmap_mig_cancel_incoming();
}

static void migration_instance_init(Object *obj)
{
    MigrationState *s = MIGRATION(obj);

    qemu_mutex_init(&s->error_lock);
    migrate_params_init(&s->parameters);
}

static char *get_fault_delay(Object *obj, Error **errp)
{
    return fault_text();
}

static void set_fault_delay(Object *obj, const char *text, Error **errp)
{
    fault_set(text, errp);
}

static bool get_fault_cpus_stay(Object *obj, Error **errp)
{
    return fault_cpus_stay();
}

static void set_fault_cpus_stay(Object *obj, bool stay, Error **errp)
{
    fault_set_cpus_stay(stay);
}

static void migration_class_init(ObjectClass *class, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(class);

    dc->user_creatable = false;
    device_class_set_props_n(dc, migration_properties,
                             migration_properties_count);
    object_class_property_add_str(class, "x-fault-delay", get_fault_delay,
                                  set_fault_delay);
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

static void register_type(void)
{
    type_register_static(&migration_info);
}

type_init(register_type)
