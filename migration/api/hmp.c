/*
 * Migration in the human monitor: the commands, and what Tab offers
 *
 * Each command is the QMP command of the same purpose; what is told to people
 * stands in hmp-info.c, parameters in hmp-params.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "qemu/timer.h"
#include "migration/base/clock.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qobject/qdict.h"

/* How long a monitor that waits for a migration may lag behind its end. */
#define WAIT_STEP_MS    100

/*
 * A migration that the monitor waits for: who typed it gets no prompt until
 * it has ended, or waits for a command itself.
 */
typedef struct Waiting {
    Monitor *mon;
    QEMUTimer *timer;
} Waiting;

static bool goes_on_alone(MigrationStatus status)
{
    return status == MIGRATION_STATUS_SETUP ||
           status == MIGRATION_STATUS_ACTIVE ||
           status == MIGRATION_STATUS_DEVICE ||
           status == MIGRATION_STATUS_CANCELLING;
}

static void look_whether_over(void *opaque)
{
    Waiting *waiting = opaque;
    g_autoptr(MigrationInfo) info = qmp_query_migrate(NULL);

    if (info->has_status && goes_on_alone(info->status)) {
        timer_mod(waiting->timer, now_ms() + WAIT_STEP_MS);
        return;
    }
    if (info->error_desc) {
        monitor_printf(waiting->mon, "Error: %s\n", info->error_desc);
    }
    monitor_resume(waiting->mon);
    timer_free(waiting->timer);
    g_free(waiting);
}

static void wait_for_end(Monitor *mon)
{
    Waiting *waiting;

    if (monitor_suspend(mon) < 0) {
        monitor_printf(mon, "terminal does not allow synchronous "
                       "migration, continuing detached\n");
        return;
    }
    waiting = g_new(Waiting, 1);
    waiting->mon = mon;
    waiting->timer = timer_new_ms(QEMU_CLOCK_REALTIME, look_whether_over,
                                  waiting);
    look_whether_over(waiting);
}

void hmp_migrate(Monitor *mon, const QDict *qdict)
{
    bool resume = qdict_get_try_bool(qdict, "resume", false);
    Error *err = NULL;

    qmp_migrate(qdict_get_str(qdict, "uri"), false, NULL, false, false,
                true, resume, &err);
    if (!hmp_handle_error(mon, err) &&
        !qdict_get_try_bool(qdict, "detach", false)) {
        wait_for_end(mon);
    }
}

void hmp_migrate_incoming(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    /* who sits at the monitor can read the error and try again */
    qmp_migrate_incoming(qdict_get_str(qdict, "uri"), false, NULL,
                         true, false, &err);
    hmp_handle_error(mon, err);
}

/* Commands that are told nothing but to act. */

typedef void Act(Error **errp);

static void act(Monitor *mon, Act *command)
{
    Error *err = NULL;

    command(&err);
    hmp_handle_error(mon, err);
}

void hmp_migrate_cancel(Monitor *mon, const QDict *qdict)
{
    act(mon, qmp_migrate_cancel);
}

void hmp_migrate_start_postcopy(Monitor *mon, const QDict *qdict)
{
    act(mon, qmp_migrate_start_postcopy);
}

void hmp_migrate_pause(Monitor *mon, const QDict *qdict)
{
    act(mon, qmp_migrate_pause);
}

#ifdef CONFIG_REPLICATION
void hmp_x_colo_lost_heartbeat(Monitor *mon, const QDict *qdict)
{
    act(mon, qmp_x_colo_lost_heartbeat);
}
#endif

void hmp_migrate_recover(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_migrate_recover(qdict_get_str(qdict, "uri"), &err);
    hmp_handle_error(mon, err);
}

/* The value that argument @name stands for, or -1 and its error was told. */
static int word_of(Monitor *mon, const QDict *qdict, const char *name,
                   const QEnumLookup *words)
{
    Error *err = NULL;
    int value = qapi_enum_parse(words, qdict_get_str(qdict, name), -1, &err);

    hmp_handle_error(mon, err);
    return value;
}

void hmp_migrate_continue(Monitor *mon, const QDict *qdict)
{
    int status = word_of(mon, qdict, "state", &MigrationStatus_lookup);
    Error *err = NULL;

    if (status >= 0) {
        qmp_migrate_continue(status, &err);
        hmp_handle_error(mon, err);
    }
}

void hmp_migrate_set_capability(Monitor *mon, const QDict *qdict)
{
    int id = word_of(mon, qdict, "capability", &MigrationCapability_lookup);
    MigrationCapabilityStatus one = {
        .capability = id,
        .state = qdict_get_bool(qdict, "state"),
    };
    MigrationCapabilityStatusList alone = { .value = &one };
    Error *err = NULL;

    if (id >= 0) {
        qmp_migrate_set_capabilities(&alone, &err);
        hmp_handle_error(mon, err);
    }
}

/*
 * Completion.  The first argument is number 2: the command counts.
 */

static void offer_names(ReadLineState *rs, const char *typed,
                        const QEnumLookup *names)
{
    for (int i = 0; i < names->size; i++) {
        readline_add_completion_of(rs, typed, names->array[i]);
    }
}

void migrate_set_capability_completion(ReadLineState *rs, int nb_args,
                                       const char *typed)
{
    readline_set_completion_index(rs, strlen(typed));
    if (nb_args == 2) {
        offer_names(rs, typed, &MigrationCapability_lookup);
    } else if (nb_args == 3) {
        readline_add_completion_of(rs, typed, "on");
        readline_add_completion_of(rs, typed, "off");
    }
}

void migrate_set_parameter_completion(ReadLineState *rs, int nb_args,
                                      const char *typed)
{
    readline_set_completion_index(rs, strlen(typed));
    if (nb_args == 2) {
        offer_names(rs, typed, &MigrationParameter_lookup);
    }
}
