/*
 * Loading a VM: what savevm.h promises, by means of the device modules
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/yank.h"
#include "exec/cpu-common.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/xen.h"
#include "migration/colo.h"
#include "migration/device/load-threads.h"
#include "migration/device/load.h"
#include "migration/device/sections.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/postcopy/incoming.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "vmstate.h"

/* The one load under way or, so that checkpoints can follow, the last one. */
static DeviceLoad current_load;
static bool from_file;      /* it is a snapshot, nobody to answer */

/*
 * Commands
 */

static bool load_live_records(QEMUFile *f, Error **errp);

static bool open_return_path(MigrationIncomingState *mis, QEMUFile *f,
                             uint16_t len, Error **errp)
{
    int ret = 0;

    if (mis->to_src_file) {
        error_setg(errp, "The return path is open already");
        return false;
    }
    mis->to_src_file = qemu_file_get_return_path(f);

    /* Nobody here will ask for time, so do not let the source wait. */
    if (migrate_switchover_ack() && !mis->switchover_ack_pending_num) {
        ret = migrate_send_rp_switchover_ack(mis);
    }
    if (ret) {
        error_setg_errno(errp, -ret, "Cannot agree to the switchover");
    }
    return !ret;
}

static bool ping(MigrationIncomingState *mis, QEMUFile *f, uint16_t len,
                 Error **errp)
{
    uint32_t value = qemu_get_be32(f);

    if (!stream_check(f, errp)) {
        return false;
    }
    trace_loadvm_process_command_ping(value);
    if (!mis->to_src_file) {
        error_setg(errp, "There is no return path for the answer");
        return false;
    }
    migrate_send_rp_pong(mis, value);
    return true;
}

static bool listen_from_now(MigrationIncomingState *mis, QEMUFile *f,
                            uint16_t len, Error **errp)
{
    return postcopy_incoming_listen(mis, load_live_records, errp);
}

static bool enable_colo(MigrationIncomingState *mis, QEMUFile *f,
                        uint16_t len, Error **errp)
{
    if (migration_incoming_enable_colo()) {
        error_setg(errp, "COLO cannot be enabled here");
        return false;
    }
    if (colo_init_ram_cache()) {
        migration_incoming_disable_colo();
        error_setg(errp, "There is not enough memory for the RAM cache");
        return false;
    }
    return true;
}

static bool switchover_start(MigrationIncomingState *mis, QEMUFile *f,
                             uint16_t len, Error **errp)
{
    return device_load_switchover_start(errp);
}

static bool (*const handlers[COMMAND_COUNT])(MigrationIncomingState *,
                                             QEMUFile *, uint16_t,
                                             Error **) = {
    [WIRE_CMD_OPEN_RETURN_PATH] = open_return_path,
    [WIRE_CMD_PING] = ping,
    [WIRE_CMD_POSTCOPY_ADVISE] = postcopy_incoming_advise,
    [WIRE_CMD_POSTCOPY_LISTEN] = listen_from_now,
    [WIRE_CMD_POSTCOPY_RUN] = postcopy_incoming_run,
    [WIRE_CMD_POSTCOPY_DISCARD] = postcopy_incoming_discard,
    [WIRE_CMD_ENABLE_COLO] = enable_colo,
    [WIRE_CMD_POSTCOPY_RESUME] = postcopy_incoming_resume,
    [WIRE_CMD_RECV_BITMAP] = postcopy_incoming_recv_bitmap,
    [WIRE_CMD_SWITCHOVER_START] = switchover_start,
};

static bool take_command(void *opaque, unsigned command, QEMUFile *f,
                         uint16_t len, Error **errp)
{
    return handlers[command](opaque, f, len, errp);
}

static CommandPhase phase_now(void *opaque)
{
    static const CommandPhase phases[] = {
        [POSTCOPY_INCOMING_NONE] = COMMAND_PRECOPY,
        [POSTCOPY_INCOMING_ADVISE] = COMMAND_ADVISED,
        [POSTCOPY_INCOMING_DISCARD] = COMMAND_DISCARDING,
        [POSTCOPY_INCOMING_LISTENING] = COMMAND_LISTENING,
        [POSTCOPY_INCOMING_RUNNING] = COMMAND_RUNNING,
        [POSTCOPY_INCOMING_END] = COMMAND_ENDED,
    };

    return from_file ? COMMAND_SNAPSHOT : phases[postcopy_state_get()];
}

/* The channel for urgent pages has no other way to say that it broke. */
static bool proceed(void *opaque, Error **errp)
{
    MigrationIncomingState *mis = opaque;
    QEMUFile *urgent = mis->postcopy_qemufile_dst;

    return !urgent || stream_check(urgent, errp);
}

static const DeviceLoadOps load_ops = {
    .phase = phase_now,
    .command = take_command,
    .package_ready = postcopy_incoming_wait_preempt,
    .proceed = proceed,
};

/*
 * Records
 */

/* Also for the listen thread, which goes on after a recovery. */
static bool load_live_records(QEMUFile *f, Error **errp)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    Error *err = NULL;

    while (!device_load_records(&current_load, f, &err)) {
        qemu_file_set_error(f, -EINVAL);
        dirty_bitmap_mig_cancel_incoming();
        if (!postcopy_incoming_pause(mis)) {
            error_propagate(errp, err);
            return false;
        }
        error_reportf_err(err, "Postcopy was interrupted: ");
        err = NULL;
        f = mis->from_src_file;
    }
    return true;
}

int qemu_loadvm_state_main(QEMUFile *f, MigrationIncomingState *mis)
{
    Error *err = NULL;

    if (!load_live_records(f, &err)) {
        error_report_err(err);
        return qemu_file_get_error(f) ?: -EINVAL;
    }
    return 0;
}

int qemu_load_device_state(QEMUFile *f)
{
    int ret = qemu_loadvm_state_main(f, migration_incoming_get_current());

    if (!ret) {
        cpu_synchronize_all_post_init();
    }
    return ret;
}

/*
 * The whole
 */

static void begin(MigrationIncomingState *mis)
{
    if (current_load.started) {
        device_load_destroy(&current_load);
    }
    device_load_init(&current_load, &load_ops, mis);
    current_load.footers = migrate_get_current()->send_section_footer;
    current_load.refuse_live = xen_enabled();
    load_threads_open();
}

/*
 * Precopy: all is loaded but what the threads still do, and the end of the
 * stream.  A stream that breaks off there tells that the source will go on
 * with the guest.  In files the end may always have been missing.
 */
static bool finish_precopy(QEMUFile *f, Error **errp)
{
    Error *err = NULL;

    if (!load_threads_join(errp)) {
        return false;
    }
    if (!from_file && migrate_has_error(migrate_get_current())) {
        error_setg(errp, "Another channel failed");
        return false;
    }
    if (!stream_check(f, errp)) {
        return false;
    }
    if (should_send_vmdesc() && !device_load_description(f, &err)) {
        if (!from_file) {
            error_propagate(errp, err);
            return false;
        }
        error_free(err);
    }
    return true;
}

static bool load_stream(QEMUFile *f, MigrationIncomingState *mis, Error **errp)
{
    Configuration here;
    bool ok;

    if (sections_blocked(errp)) {
        return false;
    }
    begin(mis);
    if (!device_load_header(f, vmstate_configuration(&here), errp) ||
        !device_load_setup(f, errp)) {
        return false;
    }
    if (migrate_switchover_ack()) {
        mis->switchover_ack_pending_num = device_load_count_acks();
    }
    cpu_synchronize_all_pre_loadvm();

    ok = load_live_records(f, errp);
    postcopy_incoming_devices_loaded(mis, ok);
    trace_qemu_loadvm_state_post_main(ok ? 0 : -1);
    if (mis->have_listen_thread) {
        /* It goes on; the CPUs are set up when the guest is started. */
        return ok;
    }
    ok = ok && finish_precopy(f, errp);
    cpu_synchronize_all_post_init();
    return ok;
}

void savevm_load_failed(Error *err)
{
    MigrationState *s = migrate_get_current();

    error_prepend(&err, "load of migration failed: ");
    /* Otherwise it is printed as QEMU's last words. */
    if (!migration_incoming_get_current()->exit_on_error &&
        !migrate_has_error(s)) {
        error_report_err(error_copy(err));
    }
    migrate_set_error(s, err);
    error_free(err);
}

int qemu_loadvm_state(QEMUFile *f)
{
    Error *err = NULL;

    from_file = false;
    if (!load_stream(f, migration_incoming_get_current(), &err)) {
        savevm_load_failed(err);
        return qemu_file_get_error(f) ?: -EINVAL;
    }
    return 0;
}

bool savevm_load_all(QEMUFile *f, Error **errp)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    bool ok;

    mis->from_src_file = f;
    ok = yank_register_instance(MIGRATION_YANK_INSTANCE, errp);
    if (!ok) {
        mis->from_src_file = NULL;
        qemu_fclose(f);
        return false;
    }
    from_file = true;
    ok = load_stream(f, mis, errp);
    migration_incoming_state_destroy();
    return ok;
}

void qemu_loadvm_state_cleanup(MigrationIncomingState *mis)
{
    device_load_cleanup();
    load_threads_close();
}

int qemu_loadvm_approve_switchover(void)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (!mis->switchover_ack_pending_num) {
        return -EINVAL;
    }
    mis->switchover_ack_pending_num--;
    trace_loadvm_approve_switchover(mis->switchover_ack_pending_num);
    return mis->switchover_ack_pending_num
           ? 0 : migrate_send_rp_switchover_ack(mis);
}

bool qemu_loadvm_load_state_buffer(const char *idstr, uint32_t instance_id,
                                   char *buf, size_t len, Error **errp)
{
    return device_load_buffer(idstr, instance_id, buf, len, errp);
}
