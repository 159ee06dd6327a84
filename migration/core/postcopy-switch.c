/*
 * The source: the guest goes on over there while its memory is still here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "ctx.h"
#include "postcopy-source.h"
#include "source.h"
#include "switchover.h"
#include "vmstate.h"

/* What cannot follow later, and what must not be used over there. */
static bool send_before_package(Switchover *s, Error **errp)
{
    int ret = qemu_savevm_state_complete_precopy_iterable(source.to_dst, true);

    if (!switchover_saved(ret, errp) ||
        (migrate_postcopy_ram() &&
         !postcopy_discard_dirty(source.to_dst, errp))) {
        return false;
    }
    if (source.return_path) {
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_POSTCOPY);
    }
    switchover_memory_sent(s);
    return stream_check(source.to_dst, errp);
}

/*
 * The last byte of the package is an order to run the guest.  As long as not
 * all of it went out, the guest is here; whatever fails after that, it is not.
 */
static bool hand_over_package(Switchover *s, const GByteArray *package,
                              Error **errp)
{
    QEMUFile *f = source.to_dst;
    uint64_t end;

    if (!switchover_saved(qemu_fflush(f), errp) || !source_hand_over(errp)) {
        return false;
    }
    postcopy_open_requests();
    end = stream_position(f) + sizeof(WireCommand) + sizeof(WirePackaged) +
          package->len;
    savevm_send_package(f, package);
    qemu_fflush(f);
    switchover_part(s, POLICY_PART_FLUSH);
    if (stream_position(f) < end) {
        stream_check(f, errp);
        return false;
    }
    return true;
}

static bool send_guest(Switchover *s, Error **errp)
{
    g_autoptr(GByteArray) package = NULL;

    trace_postcopy_start_set_run();
    if (!switchover_stop(s, errp) || !switchover_enter_device(s, errp) ||
        !switchover_disks(errp)) {
        return false;
    }
    migration_rate_set(RATE_LIMIT_DISABLED);
    switchover_announce();
    qemu_savevm_maybe_send_switchover_start(source.to_dst);
    if (!send_before_package(s, errp)) {
        return false;
    }
    package = savevm_make_package(source.return_path, errp);
    switchover_part(s, POLICY_PART_DEVICE_SAVE);
    return package && hand_over_package(s, package, errp);
}

static void enter_postcopy(void)
{
    source.postcopy = true;
    ctx_notify(MIG_EVENT_PRECOPY_DONE, NULL);
    if (source.return_path) {
        qemu_savevm_send_ping(source.to_dst, WIRE_PING_PACKAGE_SENT);
    }
    postcopy_release_sent();
    migration_rate_set(migrate_max_postcopy_bandwidth());
    ctx_phase_set(&source.phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
}

bool switchover_to_postcopy(Policy *policy, Error **errp)
{
    Switchover s = { .policy = policy };
    bool ok;

    trace_postcopy_start();
    bql_lock();
    ok = send_guest(&s, errp);
    if (ok) {
        trace_vmstate_downtime_checkpoint("src-downtime-end");
        switchover_show(&s, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) -
                            source.downtime_start_ms);
        enter_postcopy();
    }
    bql_unlock();
    return ok;
}
