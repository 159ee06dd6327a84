/*
 * Saving a VM: what savevm.h promises, by means of device/
 *
 * Here the context of the migration is known, which the modules below are
 * given piece by piece, and here their errors become the migration's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "io/channel-buffer.h"
#include "migration/core/vmstate.h"
#include "migration/device/save.h"
#include "migration/device/sections.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram/ram-source.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/commands.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/system.h"
#include "save.h"
#include "state.h"

/* Describes what is saved; from the header to the cleanup, if wanted. */
static JSONWriter *vmdesc;

static DeviceSave save_to(QEMUFile *f)
{
    return (DeviceSave) {
        .f = f,
        .desc = vmdesc,
        .footers = migrate_get_current()->send_section_footer,
    };
}

/*
 * @err is the reason why saving to @f failed: keep it where query-migrate
 * finds it, and return what callers know failures by.
 */
static int save_failed(QEMUFile *f, Error *err)
{
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
    return qemu_file_get_error(f) ?: -EINVAL;
}

/*
 * Before
 */

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
    Configuration here;
    DeviceSave save;

    if (should_send_vmdesc()) {
        vmdesc = json_writer_new(false);
    }
    save = save_to(f);
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

int vmstate_save_ram(QEMUFile *f)
{
    DeviceSave save = save_to(f);
    bool finished;
    Error *err = NULL;

    if (!device_save_iterate_one(&save, WIRE_RAM_NAME, &finished, &err)) {
        error_free(err);
        return qemu_file_get_error(f) ?: -EINVAL;
    }
    return finished;
}

void qemu_savevm_state_cleanup(void)
{
    Error *err = NULL;

    if (precopy_notify(PRECOPY_NOTIFY_CLEANUP, &err)) {
        error_report_err(err);
    }
    device_save_cleanup();
    g_clear_pointer(&vmdesc, json_writer_free);
}

/*
 * Completion
 */

int qemu_savevm_state_complete_precopy_iterable(QEMUFile *f, bool in_postcopy)
{
    DeviceSave save = save_to(f);

    if (!device_save_complete(&save, in_postcopy, NULL)) {
        return -1;
    }
    trace_vmstate_downtime_checkpoint("src-iterable-saved");
    return 0;
}

int vmstate_save_devices(QEMUFile *f, LedgerDevices *times)
{
    DeviceSave save = save_to(f);
    Error *err = NULL;

    save.times = times;
    cpu_synchronize_all_states();
    if (!device_save_state(&save, DEVICES_AFTER_SETUP, &err)) {
        return save_failed(f, err);
    }
    trace_vmstate_downtime_checkpoint("src-non-iterable-saved");
    return 0;
}

bool vmstate_save_again(QEMUFile *f, LedgerDevices *times, Error **errp)
{
    DeviceSave save = save_to(f);

    save.desc = NULL;
    save.times = times;
    cpu_synchronize_all_states();
    return device_save_state(&save, DEVICES_AFTER_SETUP, errp);
}

int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f)
{
    return vmstate_save_devices(f, NULL);
}

void qemu_savevm_state_end(QEMUFile *f)
{
    DeviceSave save = save_to(f);

    device_save_end(&save);
}

void vmstate_without_description(void)
{
    g_clear_pointer(&vmdesc, json_writer_free);
}

int qemu_savevm_state_complete_postcopy(QEMUFile *f)
{
    DeviceSave save = save_to(f);
    Error *err = NULL;

    if (!device_save_complete_postcopy(&save, &err)) {
        /* The migration thread acts on what is latched in the stream. */
        error_free(err);
        return qemu_file_get_error(f) ?: -EINVAL;
    }
    return 0;
}

/*
 * Postcopy
 */

void qemu_savevm_send_postcopy_advise(QEMUFile *f)
{
    uint64_t sizes = migrate_postcopy_ram() ? ram_source_host_page_sizes() : 0;

    trace_qemu_savevm_send_postcopy_advise();
    command_send_advise(f, sizes, qemu_target_page_size());
}

bool vmstate_fits_package(const GByteArray *package, Error **errp)
{
    if (package->len <= WIRE_PACKAGED_MAX) {
        return true;
    }
    error_setg(errp, "The state of the devices has %u MiB, and a destination "
               "takes %u MiB at most", package->len >> 20,
               WIRE_PACKAGED_MAX >> 20);
    return false;
}

GByteArray *savevm_make_package(bool ping, Error **errp)
{
    g_autoptr(QIOChannelBuffer) buffer = qio_channel_buffer_new(64 * KiB);
    g_autoptr(QEMUFile) f = qemu_file_new_output(QIO_CHANNEL(buffer));
    g_autoptr(GByteArray) package = g_byte_array_new();

    qio_channel_set_name(QIO_CHANNEL(buffer), "migration-postcopy-package");
    vmstate_without_description();

    qemu_savevm_send_postcopy_listen(f);
    if (qemu_savevm_state_complete_precopy_non_iterable(f)) {
        error_setg(errp, "The state of the guest cannot be saved");
        return NULL;
    }
    if (ping) {
        qemu_savevm_send_ping(f, WIRE_PING_DEVICES_LOADED);
    }
    qemu_savevm_send_postcopy_run(f);
    if (qemu_fflush(f)) {
        qemu_file_get_error_obj(f, errp);
        return NULL;
    }
    g_byte_array_append(package, buffer->data, buffer->usage);
    return vmstate_fits_package(package, errp) ? g_steal_pointer(&package)
                                               : NULL;
}

int qemu_save_device_state(QEMUFile *f)
{
    DeviceSave save = save_to(f);
    Error *err = NULL;

    /* The description is of a migration that may be under way. */
    save.desc = NULL;
    device_save_header(&save, NULL);
    cpu_synchronize_all_states();
    if (!device_save_state(&save, DEVICES_NOT_LIVE, &err)) {
        return save_failed(f, err);
    }
    device_save_end(&save);
    return qemu_file_get_error(f);
}

/* A command that depends on a setting; the others are in wire/commands.c */
void qemu_savevm_maybe_send_switchover_start(QEMUFile *f)
{
    if (migrate_send_switchover_start()) {
        command_send(f, WIRE_CMD_SWITCHOVER_START, NULL, 0);
    }
}
