/*
 * Parameters in the human monitor
 *
 * Both commands go through QMP's own conversion, so that neither names a
 * parameter: what params.def lists can be shown and set.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qobject-input-visitor.h"
#include "qapi/qobject-output-visitor.h"
#include "qemu/cutils.h"
#include "migration/base/params.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"

static void print_mapping(Monitor *mon,
                          const BitmapMigrationNodeAliasList *nodes)
{
    for (; nodes; nodes = nodes->next) {
        BitmapMigrationBitmapAliasList *bitmap = nodes->value->bitmaps;

        monitor_printf(mon, "  '%s' -> '%s'\n",
                       nodes->value->node_name, nodes->value->alias);
        for (; bitmap; bitmap = bitmap->next) {
            monitor_printf(mon, "    '%s' -> '%s'\n",
                           bitmap->value->name, bitmap->value->alias);
        }
    }
}

/* As it can be set: words that a shell would take apart are quoted. */
static void print_command(Monitor *mon, const strList *words)
{
    for (const char *space = ""; words; words = words->next, space = " ") {
        g_autofree char *word = g_shell_quote(words->value);

        monitor_printf(mon, "%s%s", space, word);
    }
    monitor_printf(mon, "\n");
}

static void print_value(Monitor *mon, const ParamRow *row, QObject *value)
{
    const char *quote = row->kind == PARAM_STRING ? "'" : "";

    switch (row->kind) {
    case PARAM_INT:
        monitor_printf(mon, "%" PRIu64 "%s%s\n",
                       qnum_get_uint(qobject_to(QNum, value)),
                       *row->unit ? " " : "", row->unit);
        break;
    case PARAM_BOOL:
        monitor_printf(mon, "%s\n", qbool_get_bool(qobject_to(QBool, value)) ?
                                    "on" : "off");
        break;
    case PARAM_ENUM:
    case PARAM_STRING:
        monitor_printf(mon, "%s%s%s\n", quote,
                       qstring_get_str(qobject_to(QString, value)), quote);
        break;
    default:
        g_assert_not_reached();
    }
}

static QDict *to_dict(MigrationParameters *params)
{
    QObject *dict;
    Visitor *v = qobject_output_visitor_new(&dict);

    visit_type_MigrationParameters(v, NULL, &params, &error_abort);
    visit_complete(v, &dict);
    visit_free(v);
    return qobject_to(QDict, dict);
}

void hmp_info_migrate_parameters(Monitor *mon, const QDict *qdict)
{
    g_autoptr(MigrationParameters) params = qmp_query_migrate_parameters(NULL);
    g_autoptr(QDict) dict = to_dict(params);

    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        const ParamRow *row = param_row(id);
        QObject *value = qdict_get(dict, row->name);

        if (!value) {
            continue;
        }
        if (id == MIGRATION_PARAMETER_CPR_EXEC_COMMAND) {
            monitor_printf(mon, "%s: ", row->name);
            print_command(mon, params->cpr_exec_command);
        } else if (row->kind == PARAM_LIST) {
            monitor_printf(mon, "%s:\n", row->name);
            print_mapping(mon, params->block_bitmap_mapping);
        } else {
            monitor_printf(mon, "%s: ", row->name);
            print_value(mon, row, value);
        }
    }
    for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
        const char *name = MigrationCapability_str(cap);

        monitor_printf(mon, "%s: %s\n", name,
                       qdict_get_bool(dict, name) ? "on" : "off");
    }
}

/*
 * Large numbers may have a suffix, whatever their unit.  Two of them have
 * always been in MiB unless there is one.
 */
static char *plain_number(MigrationParameter id, const char *text,
                          Error **errp)
{
    bool mib = id == MIGRATION_PARAMETER_MAX_BANDWIDTH ||
               id == MIGRATION_PARAMETER_AVAIL_SWITCHOVER_BANDWIDTH;
    uint64_t number;
    int ret = mib ? qemu_strtosz_MiB(text, NULL, &number)
                  : qemu_strtosz(text, NULL, &number);

    if (ret < 0) {
        error_setg(errp, "Parameter '%s' expects a number, such as 4096 or 2M",
                   param_row(id)->name);
        return NULL;
    }
    return g_strdup_printf("%" PRIu64, number);
}

/* The words of a command, as a shell would take it apart; NULL on errors */
static MigrateSetParameters *parse_command(const char *text, Error **errp)
{
    g_autoptr(GError) gerr = NULL;
    g_auto(GStrv) words = NULL;
    MigrateSetParameters *set;
    strList **tail;

    if (*text && !g_shell_parse_argv(text, NULL, &words, &gerr)) {
        error_setg(errp, "Parameter 'cpr-exec-command': %s", gerr->message);
        return NULL;
    }
    set = g_new0(MigrateSetParameters, 1);
    set->has_cpr_exec_command = true;
    tail = &set->cpr_exec_command;
    for (char **word = words; word && *word; word++) {
        QAPI_LIST_APPEND(tail, g_strdup(*word));
    }
    return set;
}

/* One member as QMP's conversion has it; NULL on errors */
static MigrateSetParameters *parse_text(const char *name, const char *text,
                                        Error **errp)
{
    g_autoptr(QDict) dict = qdict_new();
    MigrateSetParameters *set = NULL;
    Visitor *v;

    qdict_put_str(dict, name, text);
    v = qobject_input_visitor_new_keyval(QOBJECT(dict));
    visit_type_MigrateSetParameters(v, NULL, &set, errp);
    visit_free(v);
    return set;
}

/* NULL on errors; the caller owns the result. */
static MigrateSetParameters *parse(MigrationParameter id, const char *text,
                                   Error **errp)
{
    const ParamRow *row = param_row(id);
    g_autofree char *number = NULL;

    if (id == MIGRATION_PARAMETER_CPR_EXEC_COMMAND) {
        return parse_command(text, errp);
    }
    if (row->kind == PARAM_LIST) {
        error_setg(errp, "The %s parameter can only be set through QMP",
                   row->name);
        return NULL;
    }
    if (row->kind == PARAM_INT && row->size == sizeof(uint64_t)) {
        number = plain_number(id, text, errp);
        if (!number) {
            return NULL;
        }
    }
    return parse_text(row->name, number ?: text, errp);
}

/* @name: of a parameter or a capability.  NULL on errors */
static MigrateSetParameters *parse_named(const char *name, const char *text,
                                         Error **errp)
{
    int cap = qapi_enum_parse(&MigrationCapability_lookup, name, -1, NULL);
    int id;

    if (cap >= 0) {
        return parse_text(name, text, errp);
    }
    id = qapi_enum_parse(&MigrationParameter_lookup, name, -1, errp);
    return id >= 0 ? parse(id, text, errp) : NULL;
}

void hmp_migrate_set_parameter(Monitor *mon, const QDict *qdict)
{
    g_autoptr(MigrateSetParameters) set = NULL;
    Error *err = NULL;

    set = parse_named(qdict_get_str(qdict, "parameter"),
                      qdict_get_str(qdict, "value"), &err);
    if (set) {
        qmp_migrate_set_parameters(set, &err);
    }
    hmp_handle_error(mon, err);
}
