/*
 * The source: both sides are compared before any memory is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "migration/base/clock.h"
#include "migration/core/inventory-compare.h"
#include "migration/core/inventory.h"
#include "migration/core/layout-compare.h"
#include "migration/migration.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "preflight.h"
#include "state.h"

/*
 * How long the answer may take.  The guest runs meanwhile; the main loop of a
 * destination that is still starting disks may be busy for seconds.
 */
#define ANSWER_MS 10000

void preflight_greet(QEMUFile *f)
{
    /* Where each piece that is written has to be waited for, once is enough. */
    stream_keep(f, true);
    qemu_savevm_send_open_return_path(f);
    qemu_savevm_send_ping(f, WIRE_PEER_HELLO);
    qemu_savevm_send_ping(f, peer_offer());
    qemu_savevm_send_ping(f, WIRE_PING_START);
    stream_keep(f, false);
    qemu_fflush(f);
}

void preflight_ask(QEMUFile *f, ReturnPath *rp)
{
    return_path_expect_inventory(rp);
    command_send(f, WIRE_CMD_INVENTORY, NULL, 0);
}

void preflight_ask_layouts(QEMUFile *f, ReturnPath *rp, const GPtrArray *types)
{
    g_autoptr(GByteArray) payload = inventory_encode_types(types);

    return_path_expect_inventory(rp);
    command_send(f, WIRE_CMD_LAYOUTS, payload->data, payload->len);
}

void preflight_withdraw(QEMUFile *f)
{
    command_send(f, WIRE_CMD_WITHDRAW, NULL, 0);
}

static Inventory *own_inventory(void)
{
    int64_t since;
    Inventory *own;

    bql_lock();
    since = now_ns();
    own = inventory_collect(true);
    since = now_ns() - since;
    bql_unlock();
    QEMU_LOCK_GUARD(&source.lock);
    stall_record(&source.view.stalls, "preflight", since);
    return own;
}

/* What was asked for */
static Inventory *inventory_of_peer(Error **errp)
{
    Inventory *theirs = NULL;
    size_t bytes;

    if (!return_path_inventory(source.return_path, ANSWER_MS, &bytes, &theirs,
                               errp) &&
        source_may_go_on(errp) &&
        return_path_state(source.return_path, errp) == RETURN_PATH_OPEN) {
        error_setg(errp, "preflight: the destination has sent %zu bytes of its "
                   "inventory, and the rest did not come within %d seconds",
                   bytes, ANSWER_MS / 1000);
    }
    return theirs;
}

static void trace_others(const MigrationMismatchList *list)
{
    for (; list; list = list->next) {
        if (!list->value->fatal) {
            g_autofree char *text = inventory_mismatch_text(list->value);

            trace_migration_mismatch(text);
        }
    }
}

/*
 * A destination whose UUID is not the one of the source finds that out in what
 * it has been sent already, and ends: users and the base's tests rely on it.
 */
static void leave_uuid(const MigrationMismatchList *list)
{
    for (; list; list = list->next) {
        if (list->value->kind == MIGRATION_MISMATCH_KIND_MACHINE &&
            !strcmp(list->value->name, "uuid")) {
            list->value->fatal = false;
        }
    }
}

/* The fields of devices whose digests differ, if there are any */
static bool compare_layouts(const Inventory *own, const Inventory *theirs,
                            MigrationMismatchList **list, Error **errp)
{
    g_autoptr(GArray) suspects = layout_suspects(own, theirs);
    g_autoptr(GPtrArray) here = layout_types(suspects, true);
    g_autoptr(GPtrArray) there = layout_types(suspects, false);
    g_autoptr(Inventory) own_fields = NULL, their_fields = NULL;

    if (!suspects->len) {
        return true;
    }
    preflight_ask_layouts(source.to_dst, source.return_path, there);
    their_fields = inventory_of_peer(errp);
    if (!their_fields) {
        return false;
    }
    bql_lock();
    own_fields = inventory_layouts(here);
    bql_unlock();
    layout_compare(suspects, own_fields, their_fields, list);
    return true;
}

static bool sides_fit(const Inventory *theirs, uint32_t features, Error **errp)
{
    g_autoptr(Inventory) own = own_inventory();
    g_autoptr(MigrationMismatchList) list =
        inventory_compare(own, theirs, features);
    g_autofree char *why = NULL;

    if (!compare_layouts(own, theirs, &list, errp)) {
        return false;
    }
    leave_uuid(list);
    trace_others(list);
    why = inventory_summary(list);
    if (why) {
        error_setg(errp, "preflight: the destination cannot take this guest: "
                   "%s", why);
    }
    return !why;
}

bool preflight_run(const Peer *peer, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(Inventory) theirs = NULL;

    if (!(peer->features & WIRE_PEER_INVENTORY) ||
        !migrate_get_current()->preflight) {
        return true;
    }
    preflight_ask(source.to_dst, source.return_path);
    theirs = inventory_of_peer(errp);
    if (theirs && sides_fit(theirs, peer->features, errp)) {
        return true;
    }
    if (!*errp) {
        /* The destination has closed the return path in good order. */
        error_setg(errp, "preflight: the destination has closed the return "
                   "path instead of sending its inventory");
    }
    /* It has to be ready for the next attempt before this one has ended. */
    preflight_withdraw(source.to_dst);
    return_path_wait_end(source.return_path, PREFLIGHT_END_MS, NULL);
    return false;
}
