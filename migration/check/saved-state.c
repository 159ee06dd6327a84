/*
 * The state of all devices, in memory: saved, and loaded again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "io/channel-buffer.h"
#include "migration/base/load-step.h"
#include "migration/device/load-threads.h"
#include "migration/device/load.h"
#include "migration/device/save.h"
#include "migration/device/sections.h"
#include "migration/migration.h"
#include "migration/wire/commands.h"
#include "migration/wire/stream.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "saved-state.h"

/*
 * Sections of many records have state that only a migration can take out of
 * them, and that the reset would be the end of.
 */
static bool stays_where_it_is(const Section *s)
{
    return !strcmp(s->name, WIRE_RAM_NAME) ||
           !strcmp(s->name, WIRE_BITMAPS_NAME) || !section_active(s);
}

bool saved_state_possible(Error **errp)
{
    Section *s;

    FOR_EACH_SECTION(s) {
        if (section_is_live(s) && !stays_where_it_is(s)) {
            error_setg(errp, "the state of '%s' is saved in many parts, and "
                       "can be loaded by a migration only", s->name);
            return false;
        }
    }
    return true;
}

/*
 * Saving
 */

static void section_clear(void *opaque)
{
    SavedSection *s = opaque;

    g_free(s->name);
    g_free(s->description);
}

static size_t head_size(const Section *s)
{
    return sizeof(WireSection) + 1 + strlen(s->name) +
           sizeof(WireSectionInstance);
}

/* Each has a description of its own, as not all of them can be read. */
static bool take_section(SavedState *state, DeviceSave *save, const Section *s,
                         Error **errp)
{
    g_autoptr(JSONWriter) desc = json_writer_new(false);
    size_t at = stream_position(save->f);
    size_t around = head_size(s) +
                    (save->footers ? sizeof(WireSectionFooter) : 0);
    SavedSection saved;
    size_t end;

    save->desc = desc;
    if (!device_save_one(save, s, errp)) {
        return false;
    }
    end = stream_position(save->f);
    if (end == at) {
        return true;
    }
    saved = (SavedSection) {
        .name = g_strdup(s->name), .instance_id = s->instance_id,
        .at = at + head_size(s), .len = end - at - around,
        .description = g_strdup(json_writer_get(desc)),
    };
    g_array_append_val(state->sections, saved);
    return true;
}

static bool take_sections(SavedState *state, QEMUFile *f, Error **errp)
{
    DeviceSave save = {
        .f = f,
        .footers = migrate_get_current()->send_section_footer,
    };
    Section *s;

    device_save_header(&save, NULL);
    FOR_EACH_SECTION(s) {
        if (!section_is_live(s) && !take_section(state, &save, s, errp)) {
            return false;
        }
    }
    qemu_put_byte(f, WIRE_EOF);
    qemu_fflush(f);
    return stream_check(f, errp);
}

bool saved_state_take(SavedState *state, Error **errp)
{
    QIOChannelBuffer *out = qio_channel_buffer_new(256 * KiB);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(out));
    bool ok;

    qio_channel_set_name(QIO_CHANNEL(out), "migration-check");
    state->stream = g_byte_array_new();
    state->sections = g_array_new(false, false, sizeof(SavedSection));
    g_array_set_clear_func(state->sections, section_clear);
    cpu_synchronize_all_states();
    ok = take_sections(state, f, errp);
    g_byte_array_append(state->stream, out->data, out->usage);
    qemu_fclose(f);
    object_unref(OBJECT(out));
    return ok;
}

SavedBytes saved_state_bytes(const SavedState *s)
{
    return (SavedBytes) { s->stream->data, s->sections };
}

void saved_state_clear(SavedState *s)
{
    if (s->stream) {
        g_byte_array_unref(s->stream);
        g_array_unref(s->sections);
    }
    *s = (SavedState) {};
}

/*
 * Loading
 */

static bool refuse_command(void *opaque, unsigned command, QEMUFile *f,
                           uint16_t len, Error **errp)
{
    error_setg(errp, "Command %s in a state of devices", command_name(command));
    return false;
}

static const DeviceLoadOps load_ops = { .command = refuse_command };

static bool load_saved(QEMUFile *f, Error **errp)
{
    DeviceLoad load;
    bool ok;

    load_step_begin(STEP_SNAPSHOT);
    device_load_init(&load, &load_ops, NULL);
    load.footers = migrate_get_current()->send_section_footer;
    load.refuse_live = true;
    load_threads_open();
    cpu_synchronize_all_pre_loadvm();
    ok = device_load_header(f, NULL, errp) &&
         device_load_records(&load, f, errp) && load_threads_join(errp) &&
         stream_check(f, errp);
    cpu_synchronize_all_post_init();
    load_step_end();
    load_threads_close();
    device_load_destroy(&load);
    return ok;
}

/* A channel is read to its end once: so it is given a copy. */
bool saved_state_load(const SavedState *s, Error **errp)
{
    QIOChannelBuffer *in = qio_channel_buffer_new(s->stream->len);
    QEMUFile *f;
    bool ok;

    qio_channel_set_name(QIO_CHANNEL(in), "migration-check");
    memcpy(in->data, s->stream->data, s->stream->len);
    in->usage = s->stream->len;
    f = qemu_file_new_input(QIO_CHANNEL(in));
    object_unref(OBJECT(in));
    ok = load_saved(f, errp);
    qemu_fclose(f);
    return ok;
}
