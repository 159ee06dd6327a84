/*
 * Saving a VM: what savevm.h promises, by means of the device modules
 *
 * Here the context of the migration is known, which the modules below are
 * given piece by piece, and here their errors become the migration's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "system/hw_accel.h"
#include "system/cpus.h"
#include "system/system.h"
#include "migration/colo.h"
#include "migration/device/commands.h"
#include "migration/device/save.h"
#include "migration/device/sections.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "vmstate.h"

static DeviceSave save_to(QEMUFile *f)
{
    MigrationState *s = migrate_get_current();

    return (DeviceSave) {
        .f = f,
        .desc = s->vmdesc,
        .footers = s->send_section_footer,
    };
}

const Configuration *vmstate_configuration(Configuration *here)
{
    MigrationState *s = migrate_get_current();

    *here = (Configuration) {
        .machine = MACHINE_GET_CLASS(current_machine)->name,
        .page_bits = qemu_target_page_bits(),
        .page_bits_min = qemu_target_page_bits_min(),
        .capabilities = s->capabilities,
        .validate_uuid = migrate_validate_uuid(),
        .uuid = qemu_uuid_set ? &qemu_uuid : NULL,
    };
    return s->send_configuration ? here : NULL;
}

bool should_send_vmdesc(void)
{
    return !current_machine->suppress_vmdesc;
}

/*
 * @err is the reason why saving to @f failed: keep it where query-migrate
 * finds it, and return what callers know failures by.
 */
static int failed(QEMUFile *f, Error *err)
{
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
    return qemu_file_get_error(f) ?: -EINVAL;
}

/*
 * Before
 */

bool qemu_savevm_state_blocked(Error **errp)
{
    return sections_blocked(errp);
}

void qemu_savevm_non_migratable_list(strList **reasons)
{
    sections_blockers(reasons);
}

bool qemu_savevm_state_guest_unplug_pending(void)
{
    Section *s;

    FOR_EACH_SECTION(s) {
        if (s->vmsd && s->vmsd->dev_unplug_pending &&
            s->vmsd->dev_unplug_pending(s->opaque)) {
            return true;
        }
    }
    return false;
}

int qemu_savevm_state_prepare(Error **errp)
{
    return device_save_prepare(errp) ? 0 : -EINVAL;
}

/*
 * Live
 */

void qemu_savevm_state_header(QEMUFile *f)
{
    DeviceSave save = save_to(f);
    Configuration here;

    device_save_header(&save, vmstate_configuration(&here));
}

int qemu_savevm_state_setup(QEMUFile *f, Error **errp)
{
    DeviceSave save = save_to(f);

    if (!device_save_setup(&save, qemu_target_page_size(), errp)) {
        return qemu_file_get_error(f);
    }
    return precopy_notify(PRECOPY_NOTIFY_SETUP, errp);
}

int qemu_savevm_state_iterate(QEMUFile *f, bool postcopy)
{
    DeviceSave save = save_to(f);
    bool finished;
    Error *err = NULL;

    if (!device_save_iterate(&save, postcopy, &finished, &err)) {
        /* The migration thread acts on what is latched in the stream. */
        error_free(err);
        return qemu_file_get_error(f);
    }
    return finished;
}

void qemu_savevm_state_pending_estimate(uint64_t *must_precopy,
                                        uint64_t *can_postcopy)
{
    device_save_pending(PENDING_ESTIMATE, must_precopy, can_postcopy);
}

void qemu_savevm_state_pending_exact(uint64_t *must_precopy,
                                     uint64_t *can_postcopy)
{
    device_save_pending(PENDING_EXACT, must_precopy, can_postcopy);
}

int qemu_savevm_state_resume_prepare(MigrationState *s)
{
    Error *err = NULL;

    if (!device_save_resume(s, &err)) {
        error_report_err(err);
        return -EINVAL;
    }
    return 0;
}

void qemu_savevm_state_cleanup(void)
{
    Error *err = NULL;

    if (precopy_notify(PRECOPY_NOTIFY_CLEANUP, &err)) {
        error_report_err(err);
    }
    device_save_cleanup();
}

/*
 * Completion
 */

/* Threads that send device state over multifd while we save here. */
static void spawn_save_threads(bool in_postcopy)
{
    Section *s;

    FOR_EACH_SECTION_WITH(s, save_live_complete_precopy_thread) {
        if (!in_postcopy || !section_has_postcopy(s)) {
            multifd_spawn_device_state_save_thread(
                s->ops->save_live_complete_precopy_thread, s->name,
                s->instance_id, s->opaque);
        }
    }
}

static bool join_save_threads(QEMUFile *f, bool saved)
{
    if (!saved || migrate_has_error(migrate_get_current())) {
        multifd_abort_device_state_save_threads();
    }
    if (!multifd_join_device_state_save_threads()) {
        qemu_file_set_error(f, -EINVAL);
        return false;
    }
    return saved;
}

int qemu_savevm_state_complete_precopy_iterable(QEMUFile *f, bool in_postcopy)
{
    bool threads = multifd_device_state_supported();
    DeviceSave save = save_to(f);
    bool ok;

    if (threads) {
        spawn_save_threads(in_postcopy);
    }
    ok = device_save_complete(&save, in_postcopy, NULL);
    if (threads) {
        ok = join_save_threads(f, ok);
    }
    if (!ok) {
        return -1;
    }
    trace_vmstate_downtime_checkpoint("src-iterable-saved");
    return 0;
}

int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f,
                                                    bool in_postcopy)
{
    DeviceSave save = save_to(f);
    Error *err = NULL;

    cpu_synchronize_all_states();
    if (!device_save_state(&save, DEVICES_AFTER_SETUP, &err)) {
        return failed(f, err);
    }
    if (!in_postcopy) {
        device_save_end(&save);
    }
    trace_vmstate_downtime_checkpoint("src-non-iterable-saved");
    return 0;
}

int qemu_savevm_state_complete_precopy(QEMUFile *f, bool iterable_only)
{
    int ret = qemu_savevm_state_complete_precopy_iterable(f, false);

    if (!ret && !iterable_only) {
        ret = qemu_savevm_state_complete_precopy_non_iterable(f, false);
    }
    return ret ?: qemu_fflush(f);
}

void qemu_savevm_state_complete_postcopy(QEMUFile *f)
{
    DeviceSave save = save_to(f);

    device_save_complete_postcopy(&save, NULL);
}

/*
 * All at once, or half of it
 */

static bool save_stream(QEMUFile *f, Error **errp)
{
    int ret = qemu_savevm_state_setup(f, errp);

    if (ret) {
        return false;
    }
    do {
        ret = qemu_savevm_state_iterate(f, false);
    } while (!ret && !qemu_file_get_error(f));

    if (ret > 0) {
        qemu_savevm_maybe_send_switchover_start(f);
        qemu_savevm_state_complete_precopy(f, false);
    }
    if (qemu_file_get_error_obj(f, errp)) {
        error_prepend(errp, "Cannot write the state of the VM: ");
        return false;
    }
    return true;
}

bool savevm_save_all(QEMUFile *f, Error **errp)
{
    ERRP_GUARD();
    MigrationState *s = migrate_get_current();
    bool ok;

    if (migration_is_running()) {
        error_setg(errp, "There's a migration process in progress");
        return false;
    }
    if (migrate_init(s, errp)) {
        return false;
    }
    s->to_dst_file = f;
    qemu_savevm_state_header(f);
    ok = save_stream(f, errp);
    qemu_savevm_state_cleanup();
    migrate_set_state(&s->state, MIGRATION_STATUS_SETUP,
                      ok ? MIGRATION_STATUS_COMPLETED
                         : MIGRATION_STATUS_FAILED);
    s->to_dst_file = NULL;
    g_clear_pointer(&s->vmdesc, json_writer_free);
    return ok;
}

void qemu_savevm_live_state(QEMUFile *f)
{
    qemu_savevm_state_complete_precopy(f, true);
    qemu_put_byte(f, WIRE_EOF);
}

/* Checkpoints follow a stream that had a header. */
int qemu_save_device_state(QEMUFile *f)
{
    DeviceSave save = save_to(f);
    Error *err = NULL;

    save.desc = NULL;
    if (!migration_in_colo_state()) {
        device_save_header(&save, NULL);
    }
    cpu_synchronize_all_states();
    if (!device_save_state(&save, DEVICES_NOT_LIVE, &err)) {
        return failed(f, err);
    }
    device_save_end(&save);
    return qemu_file_get_error(f);
}

/*
 * Commands that depend on settings; the others are in device/commands.c
 */

void qemu_savevm_maybe_send_switchover_start(QEMUFile *f)
{
    if (migrate_send_switchover_start()) {
        command_send(f, WIRE_CMD_SWITCHOVER_START, NULL, 0);
    }
}

void qemu_savevm_send_postcopy_advise(QEMUFile *f)
{
    command_send_advise(f, migrate_postcopy_ram() ? ram_pagesize_summary() : 0,
                        qemu_target_page_size());
}

int qemu_savevm_send_packaged(QEMUFile *f, const uint8_t *buf, size_t len)
{
    WirePackaged package;
    Error *err = NULL;

    if (len > WIRE_PACKAGED_MAX) {
        error_setg(&err, "%zu bytes of device state are more than can be sent "
                   "at once for postcopy, which is %u", len,
                   WIRE_PACKAGED_MAX);
        return failed(f, err);
    }
    trace_qemu_savevm_send_packaged();
    stl_be_p(&package.len, len);
    command_send(f, WIRE_CMD_PACKAGED, &package, sizeof(package));
    qemu_put_buffer(f, buf, len);
    return 0;
}
