/*
 * The disks of an internal snapshot
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "block/block_int.h"
#include "system/block-backend.h"
#include "snapshot-disks.h"

typedef struct SnapshotDisk {
    BlockDriverState *bs;
    char *name;                 /* for messages */
    GPtrArray *replaced;        /* ids of what has the new one's name */
    char made[sizeof_field(QEMUSnapshotInfo, id_str)];
    QEMUSnapshotInfo chosen;    /* to be reverted to */
} SnapshotDisk;

struct SnapshotDisks {
    unsigned count;
    SnapshotDisk *disk;
};

static bool GRAPH_RDLOCK snapdisk_is_meant(BlockDriverState *bs)
{
    return bdrv_is_inserted(bs) && !bdrv_is_read_only(bs) &&
           (bdrv_has_blk(bs) || QLIST_EMPTY(&bs->parents));
}

/* The caller has looked whether all names exist. */
static GPtrArray * GRAPH_RDLOCK
snapdisk_find_nodes(bool has_list, strList *devices)
{
    GPtrArray *nodes = g_ptr_array_new();
    BlockDriverState *bs;
    BdrvNextIterator it;

    for (; has_list && devices; devices = devices->next) {
        g_ptr_array_add(nodes, bdrv_find_node(devices->value));
    }
    if (has_list) {
        return nodes;
    }
    for (bs = bdrv_first(&it); bs; bs = bdrv_next(&it)) {
        if (snapdisk_is_meant(bs)) {
            g_ptr_array_add(nodes, bs);
        }
    }
    return nodes;
}

/* To the block layer such a node is merely one that cannot be written to. */
static bool GRAPH_RDLOCK
snapdisk_all_active(bool has_list, strList *devices, Error **errp)
{
    g_autoptr(GPtrArray) nodes = snapdisk_find_nodes(has_list, devices);

    for (unsigned i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);

        if (bs && bdrv_is_inactive(bs)) {
            error_setg(errp, "Device '%s' is inactive: another QEMU may be "
                       "using its image", bdrv_get_device_or_node_name(bs));
            return false;
        }
    }
    return true;
}

SnapshotDisks *snapshot_disks_new(bool has_list, strList *devices,
                                  Error **errp)
{
    g_autoptr(GPtrArray) nodes = NULL;
    SnapshotDisks *disks;

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (!snapdisk_all_active(has_list, devices, errp) ||
        !bdrv_all_can_snapshot(has_list, devices, errp)) {
        return NULL;
    }
    nodes = snapdisk_find_nodes(has_list, devices);
    disks = g_new0(SnapshotDisks, 1);
    disks->count = nodes->len;
    disks->disk = g_new0(SnapshotDisk, nodes->len);
    for (unsigned i = 0; i < nodes->len; i++) {
        SnapshotDisk *d = &disks->disk[i];

        d->bs = g_ptr_array_index(nodes, i);
        d->name = g_strdup(bdrv_get_device_or_node_name(d->bs));
        bdrv_ref(d->bs);
    }
    return disks;
}

void snapshot_disks_free(SnapshotDisks *disks)
{
    for (unsigned i = 0; disks && i < disks->count; i++) {
        bdrv_unref(disks->disk[i].bs);
        g_free(disks->disk[i].name);
        g_clear_pointer(&disks->disk[i].replaced, g_ptr_array_unref);
    }
    if (disks) {
        g_free(disks->disk);
        g_free(disks);
    }
}

bool snapshot_disks_any(const SnapshotDisks *disks, const char *name)
{
    QEMUSnapshotInfo info;

    for (unsigned i = 0; i < disks->count; i++) {
        if (!bdrv_snapshot_find(disks->disk[i].bs, &info, name)) {
            return true;
        }
    }
    return false;
}

static SnapshotDisk *snapdisk_of(const SnapshotDisks *disks, const char *node)
{
    for (unsigned i = 0; i < disks->count; i++) {
        if (!strcmp(bdrv_get_node_name(disks->disk[i].bs), node)) {
            return &disks->disk[i];
        }
    }
    return NULL;
}

/* All of them can have snapshots, or there would be no SnapshotDisks. */
static SnapshotDisk *
snapdisk_disk_for_state(const SnapshotDisks *disks, const char *vmstate,
                        Error **errp)
{
    SnapshotDisk *d = vmstate ? snapdisk_of(disks, vmstate)
                              : disks->count ? disks->disk : NULL;

    if (!d && vmstate) {
        error_setg(errp, "vmstate block device '%s' does not exist", vmstate);
    } else if (!d) {
        error_setg(errp, "no block device can store vmstate for snapshot");
    }
    return d;
}

BlockDriverState *snapshot_disks_for_state(const SnapshotDisks *disks,
                                           const char *vmstate, Error **errp)
{
    SnapshotDisk *d = snapdisk_disk_for_state(disks, vmstate, errp);

    return d ? d->bs : NULL;
}

/*
 * Deleting
 */

static bool snapdisk_delete_one(const SnapshotDisk *d, const char *id,
                                const char *name, Error **errp)
{
    ERRP_GUARD();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (bdrv_snapshot_delete(d->bs, id, name, errp) < 0) {
        error_prepend(errp, "Could not delete snapshot '%s' on '%s': ", name,
                      d->name);
        return false;
    }
    return true;
}

bool snapshot_disks_delete(const SnapshotDisks *disks, const char *name,
                           Error **errp)
{
    QEMUSnapshotInfo info;

    for (unsigned i = 0; i < disks->count; i++) {
        const SnapshotDisk *d = &disks->disk[i];

        while (!bdrv_snapshot_find(d->bs, &info, name)) {
            if (!snapdisk_delete_one(d, info.id_str, info.name, errp)) {
                return false;
            }
        }
    }
    return true;
}

/*
 * Making
 */

static void snapdisk_note_replaced(SnapshotDisk *d, const char *name)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    int count = bdrv_snapshot_list(d->bs, &list);

    g_clear_pointer(&d->replaced, g_ptr_array_unref);
    d->replaced = g_ptr_array_new_with_free_func(g_free);
    for (int i = 0; i < count; i++) {
        if (!strcmp(list[i].name, name)) {
            g_ptr_array_add(d->replaced, g_strdup(list[i].id_str));
        }
    }
}

static bool snapdisk_delete_replaced(SnapshotDisk *d, const char *name,
                                     Error **errp)
{
    while (d->replaced->len) {
        const char *id = g_ptr_array_index(d->replaced, 0);

        if (!snapdisk_delete_one(d, id, name, errp)) {
            return false;
        }
        g_ptr_array_remove_index(d->replaced, 0);
    }
    return true;
}

static int snapdisk_make_one(SnapshotDisk *d, const QEMUSnapshotInfo *info,
                             uint64_t size)
{
    QEMUSnapshotInfo made = *info;
    int ret;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    made.id_str[0] = '\0';
    made.vm_state_size = size;
    ret = bdrv_snapshot_create(d->bs, &made);
    if (ret >= 0) {
        pstrcpy(d->made, sizeof(d->made),
                *made.id_str ? made.id_str : made.name);
    }
    return ret;
}

/* A driver may have no room for two of a name, or for one more at all. */
static bool snapdisk_make(SnapshotDisk *d, const QEMUSnapshotInfo *info,
                          uint64_t size, Error **errp)
{
    int ret = snapdisk_make_one(d, info, size);

    if ((ret == -EEXIST || ret == -EFBIG) && d->replaced->len) {
        if (!snapdisk_delete_replaced(d, info->name, errp)) {
            return false;
        }
        ret = snapdisk_make_one(d, info, size);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not create snapshot '%s' on '%s'",
                         info->name, d->name);
    }
    return ret >= 0;
}

bool snapshot_disks_create(SnapshotDisks *disks, const QEMUSnapshotInfo *info,
                           BlockDriverState *state, uint64_t size,
                           Error **errp)
{
    ERRP_GUARD();
    unsigned i;

    for (i = 0; i < disks->count; i++) {
        snapdisk_note_replaced(&disks->disk[i], info->name);
    }
    for (i = 0; i < disks->count; i++) {
        SnapshotDisk *d = &disks->disk[i];

        if (!snapdisk_make(d, info, d->bs == state ? size : 0, errp)) {
            while (i-- > 0) {
                snapdisk_delete_one(&disks->disk[i], disks->disk[i].made,
                                    info->name, NULL);
            }
            return false;
        }
    }
    for (i = 0; i < disks->count; i++) {
        if (!snapdisk_delete_replaced(&disks->disk[i], info->name, errp)) {
            error_prepend(errp, "The new snapshot is complete, but the old "
                          "one could not be removed: ");
            return false;
        }
    }
    return true;
}

/*
 * Reverting
 */

static bool snapdisk_same_time(const QEMUSnapshotInfo *a,
                               const QEMUSnapshotInfo *b)
{
    return a->date_sec == b->date_sec && a->date_nsec == b->date_nsec &&
           a->vm_clock_nsec == b->vm_clock_nsec;
}

/* One of disks only can have the name of one with the state of the VM. */
static bool snapdisk_is_better(const QEMUSnapshotInfo *a,
                               const QEMUSnapshotInfo *b)
{
    if (!a->vm_state_size != !b->vm_state_size) {
        return a->vm_state_size;
    }
    return a->date_sec != b->date_sec ? a->date_sec > b->date_sec
                                      : a->date_nsec >= b->date_nsec;
}

/*
 * Of those of that name the one made with @like, or without that the newest.
 * Returns how many there are, or a negative errno; d->chosen is set if there
 * is one.  @matches: it was made with @like.
 */
static int snapdisk_choose_one(SnapshotDisk *d, const char *name,
                               const QEMUSnapshotInfo *like, bool *matches)
{
    g_autofree QEMUSnapshotInfo *list = NULL;
    int count = bdrv_snapshot_list(d->bs, &list), found = 0;

    *matches = false;
    for (int i = 0; i < count; i++) {
        const QEMUSnapshotInfo *s = &list[i];
        bool matched = like && snapdisk_same_time(s, like);

        if (strcmp(s->name, name)) {
            continue;
        }
        if (!found++ || matched ||
            (!*matches && snapdisk_is_better(s, &d->chosen))) {
            d->chosen = *s;
        }
        *matches |= matched;
    }
    return count < 0 ? count : found;
}

static bool snapdisk_choose_newest(SnapshotDisk *d, const char *name,
                                   Error **errp)
{
    bool matches;
    int found = snapdisk_choose_one(d, name, NULL, &matches);

    if (found < 0) {
        error_setg_errno(errp, -found, "Could not check snapshot '%s' on '%s'",
                         name, d->name);
    } else if (!found) {
        error_setg(errp, "Snapshot '%s' does not exist in one or more devices",
                   name);
    }
    return found > 0;
}

/* Where the state is.  @vmstate is the only place for it that is accepted. */
static SnapshotDisk *
snapdisk_state_of(SnapshotDisks *disks, const char *name, const char *vmstate,
                  Error **errp)
{
    SnapshotDisk *wanted = snapdisk_disk_for_state(disks, vmstate, errp);

    if (!wanted || wanted->chosen.vm_state_size) {
        return wanted;
    }
    for (unsigned i = 0; i < disks->count; i++) {
        SnapshotDisk *d = &disks->disk[i];

        if (!d->chosen.vm_state_size) {
            continue;
        }
        if (!vmstate) {
            return d;
        }
        error_setg(errp, "The VM state of snapshot '%s' is on '%s', not on "
                   "'%s'", name, bdrv_get_node_name(d->bs), vmstate);
        return NULL;
    }
    error_setg(errp, "Snapshot '%s' has no VM state on any of its disks; "
               "revert the disks with qemu-img while the VM is off", name);
    return NULL;
}

static bool snapdisk_choose_rest(SnapshotDisks *disks, const char *name,
                                 const SnapshotDisk *state, Error **errp)
{
    for (unsigned i = 0; i < disks->count; i++) {
        SnapshotDisk *d = &disks->disk[i];
        bool matches;

        if (d == state) {
            continue;
        }
        if (snapdisk_choose_one(d, name, &state->chosen, &matches) > 1 &&
            !matches) {
            error_setg(errp, "'%s' has several snapshots '%s', and none was "
                       "made together with the one on '%s'", d->name, name,
                       state->name);
            return false;
        }
    }
    return true;
}

/* The block layer would notice when other disks have been reverted. */
static bool snapdisk_can_revert(const SnapshotDisks *disks, const char *name,
                                Error **errp)
{
    for (unsigned i = 0; i < disks->count; i++) {
        if (!QLIST_EMPTY(&disks->disk[i].bs->dirty_bitmaps)) {
            error_setg(errp, "Could not load snapshot '%s' on '%s': Device "
                       "has active dirty bitmaps", name, disks->disk[i].name);
            return false;
        }
    }
    return true;
}

BlockDriverState *snapshot_disks_choose(SnapshotDisks *disks,
                                        const char *name, const char *vmstate,
                                        Error **errp)
{
    SnapshotDisk *state;

    for (unsigned i = 0; i < disks->count; i++) {
        if (!snapdisk_choose_newest(&disks->disk[i], name, errp)) {
            return NULL;
        }
    }
    state = snapdisk_state_of(disks, name, vmstate, errp);
    return state && snapdisk_choose_rest(disks, name, state, errp) &&
           snapdisk_can_revert(disks, name, errp) ? state->bs : NULL;
}

bool snapshot_disks_revert(const SnapshotDisks *disks, Error **errp)
{
    ERRP_GUARD();

    for (unsigned i = 0; i < disks->count; i++) {
        const SnapshotDisk *d = &disks->disk[i];

        if (bdrv_snapshot_goto(d->bs, d->chosen.id_str, errp) < 0) {
            error_prepend(errp, "Could not load snapshot '%s' on '%s': ",
                          d->chosen.name, d->name);
            return false;
        }
    }
    return true;
}
