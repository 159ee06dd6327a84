/*
 * The source: the guest runs there while its memory is still here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/base/clock.h"
#include "migration/core/notify.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram/ram-source.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "postcopy.h"
#include "save.h"
#include "state.h"
#include "switchover.h"
#include "throttle.h"

/* What cannot follow later, and what must not be used there. */
static bool send_before_package(Switchover *s, Error **errp)
{
    int ret = qemu_savevm_state_complete_precopy_iterable(source.to_dst, true);

    if (!switchover_saved(ret, errp)) {
        return false;
    }
    if (migrate_postcopy_ram()) {
        ram_source_sync_last();
        postcopy_enter(false);
        if (!postcopy_discard_dirty(source.to_dst, errp)) {
            return false;
        }
    }
    if (source.return_path) {
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_POSTCOPY);
    }
    switchover_memory_sent(s);
    return stream_check(source.to_dst, errp);
}

/*
 * The last byte of @order has the destination run the guest.  As long as not
 * all of it went out, the guest is here; whatever fails after that, it is not.
 * Under the BQL, but for the time that it takes to write.
 */
static bool leave_hand_over(Switchover *s, const GByteArray *order,
                            Error **errp)
{
    QEMUFile *f = source.to_dst;
    uint64_t end = 0;
    bool ok;

    stream_keep(f, true);
    ok = switchover_saved(qemu_fflush(f), errp) && source_hand_over(errp);
    if (ok) {
        postcopy_open_requests();
        end = stream_position(f) + order->len;
        qemu_put_buffer(f, order->data, order->len);
    }
    stream_keep(f, false);
    if (!ok) {
        return false;
    }
    bql_unlock();
    qemu_fflush(f);
    bql_lock();
    switchover_part(s, DOWNTIME_PART_FLUSH);
    if (stream_position(f) < end) {
        stream_check(f, errp);
        return false;
    }
    return true;
}

static bool leave_send_guest(Switchover *s, Error **errp)
{
    g_autoptr(GByteArray) package = NULL, order = NULL;

    trace_postcopy_start_set_run();
    if (!switchover_leave(s, errp) || !send_before_package(s, errp)) {
        return false;
    }
    package = savevm_make_package(source.return_path, errp);
    switchover_part(s, DOWNTIME_PART_DEVICE_SAVE);
    if (!package) {
        return false;
    }
    order = command_package(package);
    return leave_hand_over(s, order, errp);
}

static void enter_postcopy(void)
{
    source.postcopy = true;
    throttle_set(0);
    notify_event(MIG_EVENT_PRECOPY_DONE, NULL);
    if (source.return_path) {
        /* It goes out with the first page. */
        stream_keep(source.to_dst, true);
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_PACKAGE_SENT);
        stream_keep(source.to_dst, false);
    }
    postcopy_release_sent();
    migration_rate_set(migrate_max_postcopy_bandwidth());
    notify_phase_set(&source_phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
}

static void left(const Switchover *s, bool loaded)
{
    trace_vmstate_downtime_checkpoint("src-downtime-end");
    switchover_show(s, (now_ns() - source.stopped_ns) / SCALE_MS);
    switchover_expect_start(s, loaded);
    enter_postcopy();
}

bool switchover_to_postcopy(Policy *policy, Error **errp)
{
    Switchover s = { .policy = policy };
    bool ok;

    trace_postcopy_start();
    bql_lock();
    stream_keep(source.to_dst, true);
    ok = leave_send_guest(&s, errp);
    stream_keep(source.to_dst, false);
    if (ok) {
        left(&s, false);
    }
    bql_unlock();
    return ok;
}

bool switchover_commit(Switchover *s, const GByteArray *order, bool held,
                       Error **errp)
{
    vmstate_without_description();
    postcopy_enter(held);
    if (!leave_hand_over(s, order, errp)) {
        return false;
    }
    left(s, held);
    return true;
}
