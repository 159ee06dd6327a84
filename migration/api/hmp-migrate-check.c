/*
 * Migration in the human monitor: migrate_check
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "migration/core/inventory-compare.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qemu/coroutine.h"
#include "qobject/qdict.h"

typedef struct Asked {
    Monitor *mon;
    char *uri;                  /* NULL: this side alone */
} Asked;

static void print_check(Monitor *mon, const MigrationCheck *check)
{
    const MigrationMismatchList *m;

    for (m = check->mismatches; m; m = m->next) {
        g_autofree char *text = inventory_mismatch_text(m->value);

        monitor_printf(mon, "%s: %s\n", m->value->fatal ? "error" : "warning",
                       text);
    }
    monitor_printf(mon, "A migration is %spossible%s (%" PRIu64 " us, %" PRIu64
                   " bytes)\n", check->possible ? "" : "not ",
                   check->compared ? "" : ", as far as this side knows",
                   check->time_us, check->bytes);
}

static void coroutine_fn check_co(void *opaque)
{
    Asked *asked = opaque;
    g_autoptr(MigrationCheck) check = NULL;
    Error *err = NULL;

    check = qmp_migrate_check(asked->uri, false, NULL, &err);
    if (!hmp_handle_error(asked->mon, err)) {
        print_check(asked->mon, check);
    }
    monitor_resume(asked->mon);
    g_free(asked->uri);
    g_free(asked);
}

/*
 * The main loop has to go on while a destination is connected to, so that the
 * command is over before the check is; whoever typed it gets no prompt until
 * then.
 */
void hmp_migrate_check(Monitor *mon, const QDict *qdict)
{
    const char *uri = qdict_get_try_str(qdict, "uri");
    Asked *asked;

    if (monitor_suspend(mon) < 0) {
        monitor_printf(mon, "Error: this monitor cannot wait for the result: "
                       "use the QMP command migrate-check\n");
        return;
    }
    asked = g_new(Asked, 1);
    *asked = (Asked) { .mon = mon, .uri = g_strdup(uri) };
    qemu_coroutine_enter(qemu_coroutine_create(check_co, asked));
}
