/*
 * -dump-vmstate: the formats of all devices, to compare QEMU versions by
 *
 * scripts/vmstate-static-checker.py reads it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qobject/json-writer.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "migration/misc.h"
#include "migration/vmstate.h"

static void dump_description(JSONWriter *out, const char *key,
                             const VMStateDescription *vmsd);

static void dump_versions(JSONWriter *out, const char *name_key,
                          const char *name, const VMStateDescription *vmsd)
{
    json_writer_str(out, name_key, name);
    json_writer_int64(out, "version_id", vmsd->version_id);
    json_writer_int64(out, "minimum_version_id", vmsd->minimum_version_id);
}

static void dump_field(JSONWriter *out, const VMStateField *field)
{
    json_writer_start_object(out, NULL);
    json_writer_str(out, "field", field->name);
    json_writer_int64(out, "version_id", field->version_id);
    json_writer_bool(out, "field_exists", field->field_exists);
    if (field->flags & VMS_ARRAY) {
        json_writer_int64(out, "num", field->num);
    }
    json_writer_int64(out, "size", field->size);
    if (field->vmsd) {
        dump_description(out, "Description", field->vmsd);
    }
    json_writer_end_object(out);
}

/* @key is NULL in an array. */
static void dump_description(JSONWriter *out, const char *key,
                             const VMStateDescription *vmsd)
{
    const VMStateDescription *const *sub = vmsd->subsections;
    const VMStateField *field = vmsd->fields;

    json_writer_start_object(out, key);
    dump_versions(out, "name", vmsd->name, vmsd);
    if (field) {
        json_writer_start_array(out, "Fields");
        for (; field->name; field++) {
            /* VMSTATE_VALIDATE: nothing of it is in a stream */
            if (!(field->flags & VMS_MUST_EXIST)) {
                dump_field(out, field);
            }
        }
        assert(field->flags == VMS_END);
        json_writer_end_array(out);
    }
    if (sub) {
        json_writer_start_array(out, "Subsections");
        for (; *sub; sub++) {
            dump_description(out, NULL, *sub);
        }
        json_writer_end_array(out);
    }
    json_writer_end_object(out);
}

static void dump_class(gpointer data, gpointer opaque)
{
    const DeviceClass *dc = DEVICE_CLASS(data);
    const char *name = object_class_get_name(data);
    JSONWriter *out = opaque;

    if (!dc->vmsd) {
        return;
    }
    json_writer_start_object(out, name);
    dump_versions(out, "Name", name, dc->vmsd);
    dump_description(out, "Description", dc->vmsd);
    json_writer_end_object(out);
}

void dump_vmstate_json_to_file(FILE *out_file)
{
    g_autoptr(JSONWriter) out = json_writer_new(true);
    GSList *classes = object_class_get_list(TYPE_DEVICE, true);

    json_writer_start_object(out, NULL);
    json_writer_start_object(out, "vmschkmachine");
    json_writer_str(out, "Name", MACHINE_GET_CLASS(current_machine)->name);
    json_writer_end_object(out);
    g_slist_foreach(classes, dump_class, out);
    json_writer_end_object(out);
    g_slist_free(classes);

    if (fprintf(out_file, "%s\n", json_writer_get(out)) < 0 ||
        fclose(out_file)) {
        error_report("Cannot write the description of all devices: %s",
                     strerror(errno));
    }
}
