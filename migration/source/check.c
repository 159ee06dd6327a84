/*
 * The source: would a migration be possible?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "migration/base/clock.h"
#include "migration/core/inventory-compare.h"
#include "migration/core/inventory.h"
#include "migration/core/layout-compare.h"
#include "migration/core/main-loop.h"
#include "migration/core/vmstate.h"
#include "migration/device/save.h"
#include "migration/migration.h"
#include "migration/permit.h"
#include "migration/transport/transport.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "system/runstate.h"
#include "check.h"
#include "preflight.h"

/* How often the coroutine looks whether something has come */
#define LOOK_NS (200 * SCALE_US)

typedef struct Check {
    int64_t start_ns, end_ms;
    bool connecting;            /* transport_connect() is at work */
    QIOChannel *ioc;
    Error *err;                 /* why there is no connection */
    QEMUFile *to_dst;
    ReturnPath *return_path;
    Peer peer;
    size_t bytes;
    Inventory *theirs;
    GArray *suspects;           /* LayoutSuspect */
    Inventory *fields;          /* theirs, of these */
} Check;

/* Main loop. */
static struct {
    bool active;
    bool give_up;
    Inventory *own;
} checking;

bool source_is_checking(void)
{
    return checking.active;
}

void source_check_give_up(void)
{
    checking.give_up = checking.active;
}

/*
 * Waiting: all of it is polled for, as what is waited for comes from other
 * threads, and the whole takes a few round trips
 */

static bool coroutine_fn look_again(const Check *c, const char *what,
                                    Error **errp)
{
    if (checking.give_up) {
        error_setg(errp, "the check was given up while it waited for %s", what);
        return false;
    }
    if (now_ms() > c->end_ms) {
        error_setg(errp, "%s did not come within %d seconds", what,
                   SOURCE_CHECK_MS / 1000);
        return false;
    }
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LOOK_NS);
    return true;
}

/* The return path has ended, in whatever way, before what was waited for. */
static bool ended_early(const Check *c, Error **errp)
{
    Error *err = NULL;

    if (return_path_state(c->return_path, &err) == RETURN_PATH_OPEN) {
        return false;
    }
    if (err) {
        error_propagate(errp, err);
    } else {
        error_setg(errp, "the destination has closed the return path");
    }
    return true;
}

/*
 * Connecting
 */

static void check_connected(QIOChannel *ioc, Error *err, void *opaque)
{
    Check *c = opaque;

    c->connecting = false;
    c->ioc = ioc;
    c->err = err;
}

static bool coroutine_fn check_connect(Check *c, const MigrationAddress *addr,
                                       Error **errp)
{
    if (!transport_connect(addr, true, check_connected, c, errp)) {
        return false;
    }
    c->connecting = true;
    while (c->connecting) {
        if (!look_again(c, "a connection", errp)) {
            transport_connect_cancel();
            return false;
        }
    }
    if (c->err) {
        error_propagate(errp, g_steal_pointer(&c->err));
        return false;
    }
    c->to_dst = qemu_file_new_output(c->ioc);
    object_unref(OBJECT(c->ioc));
    c->return_path = return_path_open(c->to_dst, NULL);
    return true;
}

/*
 * Talking.  What is written is a few hundred bytes on a new connection, which
 * no destination has to read for that: it does not wait.
 */

static bool coroutine_fn check_meet(Check *c, Error **errp)
{
    Configuration here;
    DeviceSave save = { .f = c->to_dst };

    device_save_header(&save, vmstate_configuration(&here));
    preflight_greet(c->to_dst);
    while (!return_path_meet(c->return_path, 0, &c->peer)) {
        if (ended_early(c, errp) ||
            !look_again(c, "an answer of the destination", errp)) {
            return false;
        }
    }
    return true;
}

/* What was asked for, or NULL */
static Inventory *coroutine_fn check_receive(Check *c, Error **errp)
{
    size_t before = c->bytes, bytes;
    Inventory *theirs = NULL;

    while (!return_path_inventory(c->return_path, 0, &bytes, &theirs, errp)) {
        if (ended_early(c, errp) ||
            !look_again(c, "the whole inventory of the destination", errp)) {
            return NULL;
        }
    }
    c->bytes = before + bytes;
    return theirs;
}

/* Fields are asked for only where digests say that they differ. */
static bool coroutine_fn check_inventories(Check *c, Error **errp)
{
    g_autoptr(GPtrArray) types = NULL;

    preflight_ask(c->to_dst, c->return_path);
    c->theirs = check_receive(c, errp);
    if (!c->theirs) {
        return false;
    }
    c->suspects = layout_suspects(checking.own, c->theirs);
    if (!c->suspects->len) {
        return true;
    }
    types = layout_types(c->suspects, false);
    preflight_ask_layouts(c->to_dst, c->return_path, types);
    c->fields = check_receive(c, errp);
    return c->fields;
}

/* Until the destination is ready for another connection, or does not say so */
static void coroutine_fn check_withdraw(Check *c)
{
    c->end_ms = MIN(c->end_ms, now_ms() + PREFLIGHT_END_MS);
    preflight_withdraw(c->to_dst);
    while (return_path_state(c->return_path, NULL) == RETURN_PATH_OPEN &&
           look_again(c, "the end", NULL)) {
        /* another look */
    }
}

static bool coroutine_fn check_talk(Check *c, const MigrationAddress *addr,
                                    Error **errp)
{
    bool ok = check_connect(c, addr, errp) && check_meet(c, errp);

    if (ok && (c->peer.features & WIRE_PEER_INVENTORY)) {
        ok = check_inventories(c, errp);
        check_withdraw(c);
    }
    return ok;
}

static void check_close(Check *c)
{
    return_path_close(c->return_path);
    if (c->to_dst) {
        stream_close(c->to_dst);
    }
    transport_end();
    inventory_free(c->theirs);
    inventory_free(c->fields);
    g_clear_pointer(&c->suspects, g_array_unref);
}

/*
 * The result
 */

static MigrationMismatch *no_peer(void)
{
    MigrationMismatch *m = g_new0(MigrationMismatch, 1);

    m->side = MIGRATION_CHECK_SIDE_DESTINATION;
    m->kind = MIGRATION_MISMATCH_KIND_PEER;
    m->name = g_strdup("inventory");
    m->advice = g_strdup("the destination cannot be compared, as it is another "
                         "version of QEMU; it has taken this check for a "
                         "migration that failed: start it again");
    return m;
}

static void collect_for_check(void *opaque)
{
    inventory_free(checking.own);
    checking.own = inventory_collect(true);
}

/*
 * What devices and disks are asked for is not meant for coroutines.  False if
 * QEMU ends, and the main loop may not come to it any more.
 */
static bool coroutine_fn check_collect(Check *c, Error **errp)
{
    g_clear_pointer(&checking.own, inventory_free);
    main_loop_run(collect_for_check, NULL);
    while (!checking.own) {
        if (!look_again(c, "the main loop", errp)) {
            return false;
        }
    }
    return true;
}

static void check_fields(const Check *c, MigrationMismatchList **list)
{
    g_autoptr(GPtrArray) types = layout_types(c->suspects, true);
    g_autoptr(Inventory) own = inventory_layouts(types);

    layout_compare(c->suspects, own, c->fields, list);
}

static MigrationCheck *check_result(const Check *c, bool connected)
{
    MigrationCheck *result = g_new0(MigrationCheck, 1);

    result->mismatches = inventory_compare(checking.own, c->theirs,
                                           c->peer.features);
    if (c->fields) {
        check_fields(c, &result->mismatches);
    }
    if (connected && !c->theirs) {
        QAPI_LIST_PREPEND(result->mismatches, no_peer());
    }
    result->compared = c->theirs;
    result->possible = !inventory_fatal(result->mismatches);
    result->bytes = c->bytes;
    result->time_us = (now_ns() - c->start_ns) / SCALE_US;
    return result;
}

static bool may_check(Error **errp)
{
    const char *why = NULL;

    if (checking.active) {
        why = "another check is in progress";
    } else if (migration_is_running()) {
        why = "There's a migration process in progress";
    } else if (runstate_check(RUN_STATE_INMIGRATE)) {
        why = "Guest is waiting for an incoming migration";
    } else if (runstate_check(RUN_STATE_POSTMIGRATE)) {
        why = "the guest was migrated away";
    }
    if (why) {
        error_setg(errp, "%s", why);
    }
    return !why && migration_permits(MIGRATION_ACT_MIGRATE, errp);
}

MigrationCheck *coroutine_fn source_check(const MigrationAddress *addr,
                                          Error **errp)
{
    Check c = { .start_ns = now_ns(), .end_ms = now_ms() + SOURCE_CHECK_MS };
    MigrationCheck *result = NULL;

    if (!may_check(errp)) {
        return NULL;
    }
    checking.active = true;
    checking.give_up = false;
    if (check_collect(&c, errp) && (!addr || check_talk(&c, addr, errp))) {
        result = check_result(&c, addr);
    }
    if (addr) {
        check_close(&c);
    }
    g_clear_pointer(&checking.own, inventory_free);
    checking.active = false;
    return result;
}
