/*
 * What becomes known of a migration: its phase, its first error, and who has
 * registered to be notified
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/trace.h"
#include "notify.h"

static NotifierWithReturnList mode_notifiers[MIG_MODE__MAX];

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

void notify_phase_set(Phase *phase, MigrationStatus to)
{
    phase_set(phase, to);
    announce_phase(to);
}

bool notify_phase_move(Phase *phase, MigrationStatus from, MigrationStatus to)
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

static FirstError *error_of_migration(void)
{
    return &migrate_get_current()->error;
}

void notify_error(Error *err)
{
    migrate_set_error(migrate_get_current(), err);
    error_free(err);
}

void notify_error_also(Error *err)
{
    first_error_add(error_of_migration(), err);
    error_free(err);
}

Error *notify_first_error(void)
{
    return first_error_get(error_of_migration());
}

void notify_clear_error(void)
{
    first_error_clear(error_of_migration());
}

/*
 * Notifiers
 */

void migration_add_notifier_mode(NotifierWithReturn *who,
                                 MigrationNotifyFunc function, MigMode mode)
{
    who->notify = (NotifierWithReturnFunc)function;
    notifier_with_return_list_add(&mode_notifiers[mode], who);
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

bool notify_event(MigrationEventType type, Error **errp)
{
    MigrationEvent event = { .type = type };

    return !notifier_with_return_list_notify(&mode_notifiers[migrate_mode()],
                                             &event, errp);
}
