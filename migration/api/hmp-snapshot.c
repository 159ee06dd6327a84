/*
 * Snapshots in the human monitor: savevm, loadvm and delvm
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "block/qapi.h"
#include "block/snapshot.h"
#include "migration/snapshot.h"
#include "migration/snapshot/snapshot.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qobject/qdict.h"

/* Without a name one is made up; what has that name already is replaced. */
void hmp_savevm(Monitor *mon, const QDict *qdict)
{
    const char *name = qdict_get_try_str(qdict, "name");
    Error *err = NULL;

    if (!save_snapshot(name, true, NULL, false, NULL, &err)) {
        hmp_handle_error(mon, err);
    }
}

void hmp_loadvm(Monitor *mon, const QDict *qdict)
{
    const char *name = qdict_get_str(qdict, "name");
    Error *err = NULL;

    if (!snapshot_restore(name, NULL, false, NULL, &err)) {
        hmp_handle_error(mon, err);
    }
}

void hmp_delvm(Monitor *mon, const QDict *qdict)
{
    const char *name = qdict_get_str(qdict, "name");
    Error *err = NULL;

    if (!delete_snapshot(name, false, NULL, &err)) {
        hmp_handle_error(mon, err);
    }
}

static void offer_snapshots_of(ReadLineState *rs, const char *typed,
                               BlockDriverState *bs)
{
    SnapshotInfoList *snapshots = NULL;

    if (!bdrv_can_snapshot(bs) ||
        bdrv_query_snapshot_info_list(bs, &snapshots, NULL) < 0) {
        return;
    }
    for (SnapshotInfoList *s = snapshots; s; s = s->next) {
        readline_add_completion_of(rs, typed, s->value->name);
        readline_add_completion_of(rs, typed, s->value->id);
    }
    qapi_free_SnapshotInfoList(snapshots);
}

/* Names and ids of the snapshots on any disk, for the first argument. */
static void offer_snapshots(ReadLineState *rs, int nb_args, const char *typed)
{
    BdrvNextIterator it;

    if (nb_args != 2) {
        return;
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    readline_set_completion_index(rs, strlen(typed));
    for (BlockDriverState *bs = bdrv_first(&it); bs; bs = bdrv_next(&it)) {
        offer_snapshots_of(rs, typed, bs);
    }
}

void delvm_completion(ReadLineState *rs, int nb_args, const char *typed)
{
    offer_snapshots(rs, nb_args, typed);
}

void loadvm_completion(ReadLineState *rs, int nb_args, const char *typed)
{
    offer_snapshots(rs, nb_args, typed);
}
