/*
 * A check that all state of devices is saved and loaded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "block/block.h"
#include "hw/qdev-core.h"
#include "migration/base/clock.h"
#include "migration/blocker.h"
#include "migration/core/reset.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/permit.h"
#include "migration/snapshot.h"
#include "migration/snapshot/snapshot.h"
#include "qom/object.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "guest-memory.h"
#include "object-copies.h"
#include "saved-state.h"
#include "vmstate-check.h"

/* One check, from the stop of the guest on */
typedef struct Check {
    SavedState before, after;
    GuestMemory *memory;
    ObjectCopies *objects;
    VmstateCheckResult *result;
    bool reset;                 /* devices are not as they were */
} Check;

/*
 * Whether it can be done
 */

/* Types of devices that share memory with other guests */
#define IVSHMEM_PREFIX "ivshmem"

/*
 * A reset completes an unplug, and the state would be that of a device more.
 * Memory of other guests changes while this one is stopped, and must not be
 * put back.
 */
static int is_in_the_way(Object *obj, void *opaque)
{
    Error **errp = opaque;
    DeviceState *dev = (DeviceState *)object_dynamic_cast(obj, TYPE_DEVICE);
    g_autofree char *path = NULL;

    if (dev && dev->pending_deleted_event) {
        path = object_get_canonical_path(obj);
        error_setg(errp, "the guest has not completed the unplug of '%s'",
                   path);
    } else if (dev && g_str_has_prefix(object_get_typename(obj),
                                       IVSHMEM_PREFIX)) {
        path = object_get_canonical_path(obj);
        error_setg(errp, "the memory of '%s' is shared with others, who may "
                   "write to it meanwhile", path);
    }
    return path != NULL;
}

static bool check_possible(Error **errp)
{
    ERRP_GUARD();
    bool possible;

    if (!migration_permits(MIGRATION_ACT_CHECK_DEVICES, errp)) {
        return false;
    }
    if (replay_mode != REPLAY_MODE_NONE) {
        error_setg(errp, "record/replay is in use");
        possible = false;
    } else {
        possible = !migration_is_blocked(errp) && reset_reaches_devices(errp) &&
                   saved_state_possible(errp) &&
                   !object_child_foreach_recursive(object_get_root(),
                                                   is_in_the_way, errp);
    }
    if (!possible) {
        error_prepend(errp, "Cannot check the state of devices: ");
    }
    return possible;
}

/*
 * The steps, with the guest stopped
 */

/* Adds to *@part what has passed since *@since, which becomes now. */
static void step_took(uint64_t *part, int64_t *since)
{
    int64_t now = now_ns();

    *part += (now - *since) / SCALE_US;
    *since = now;
}

static void reset_devices(Check *c)
{
    c->reset = true;
    reset_devices_alone();
    guest_memory_put_back(c->memory, VMSTATE_CHECK_STEP_RESET);
}

/* What has failed half-way is tried once more from the start. */
static bool load_devices(Check *c, Error **errp)
{
    ERRP_GUARD();

    if (saved_state_load(&c->before, NULL)) {
        return true;
    }
    reset_devices(c);
    if (saved_state_load(&c->before, errp)) {
        return true;
    }
    error_prepend(errp, "The state of devices was saved, but cannot be loaded: "
                  );
    error_append_hint(errp, "The guest stays stopped.  'system_reset' or "
                      "'loadvm' gives it a complete state.\n");
    return false;
}

static bool check_stopped(Check *c, Error **errp)
{
    VmstateCheckResult *r = c->result;
    int64_t since = now_ns();

    if (!saved_state_take(&c->before, errp)) {
        return false;
    }
    step_took(&r->save_us, &since);
    c->memory = guest_memory_keep(errp);
    if (!c->memory) {
        return false;
    }
    c->objects = object_copies_take();
    step_took(&r->copy_us, &since);
    reset_devices(c);
    object_copies_note_reset(c->objects);
    step_took(&r->reset_us, &since);
    if (!load_devices(c, errp)) {
        guest_memory_put_back(c->memory, VMSTATE_CHECK_STEP_LOAD);
        return false;
    }
    step_took(&r->load_us, &since);
    r->not_restored = object_copies_compare(c->objects);
    if (!saved_state_take(&c->after, errp)) {
        /* The guest has been loaded; what it would save now is not known. */
        c->reset = false;
    }
    guest_memory_put_back(c->memory, VMSTATE_CHECK_STEP_LOAD);
    step_took(&r->copy_us, &since);
    return c->reset;
}

/*
 * Around them
 */

static void check_end(Check *c, bool ok)
{
    VmstateCheckResult *r = c->result;
    SavedBytes before, after;
    StateDifferences differences;

    if (ok) {
        before = saved_state_bytes(&c->before);
        after = saved_state_bytes(&c->after);
        differences = state_compare(&before, &after);
        r->sections = before.sections->len;
        r->bytes = c->before.stream->len;
        r->objects = object_copies_count(c->objects);
        r->memory = guest_memory_bytes(c->memory);
        r->differences = differences.found;
        r->differences_count = differences.count;
        r->expected = differences.expected;
        r->memory_changes = guest_memory_changes(c->memory);
    }
    saved_state_clear(&c->before);
    saved_state_clear(&c->after);
    guest_memory_free(c->memory);
    object_copies_free(c->objects);
}

/*
 * The disks are quiet, and stay as they are.  The run state that is saved is
 * that of now.
 */
static bool check_guest(Check *c, Error **errp)
{
    RunState before = runstate_get();
    int64_t start = now_ns();
    bool ok;

    global_state_store();
    vm_stop(RUN_STATE_RESTORE_VM);
    bdrv_drain_all_begin();
    migrate_snapshot_begin();
    ok = check_stopped(c, errp);
    migrate_snapshot_end();
    bdrv_drain_all_end();
    if (ok || !c->reset) {
        load_snapshot_resume(before);
    } else {
        snapshot_set_incomplete();
    }
    c->result->pause_us = (now_ns() - start) / SCALE_US;
    return ok;
}

VmstateCheckResult *vmstate_check_run(bool *stopped, Error **errp)
{
    ERRP_GUARD();
    Check check = {};
    bool ok;

    *stopped = false;
    if (!check_possible(errp)) {
        return NULL;
    }
    if (!snapshot_begin_turn(errp)) {
        error_prepend(errp, "Cannot check the state of devices: ");
        return NULL;
    }
    *stopped = true;
    check.result = g_new0(VmstateCheckResult, 1);
    ok = check_guest(&check, errp);
    snapshot_end_turn();
    check_end(&check, ok);
    if (!ok) {
        qapi_free_VmstateCheckResult(check.result);
        return NULL;
    }
    return check.result;
}
