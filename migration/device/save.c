/*
 * Saving sections
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/base/clock.h"
#include "migration/base/reported.h"
#include "migration/migration-stats.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "save.h"
#include "sections.h"

/*
 * Framing
 */

static void put_head(const DeviceSave *save, const Section *s, uint8_t type)
{
    WireSection head = { .type = type };
    WireSectionInstance instance;

    trace_savevm_section_start(s->name, s->id);
    stl_be_p(&head.section_id, s->id);
    qemu_put_buffer(save->f, (uint8_t *)&head, sizeof(head));
    if (type == WIRE_SECTION_START || type == WIRE_SECTION_FULL) {
        stl_be_p(&instance.instance_id, s->instance_id);
        stl_be_p(&instance.version_id, s->version_id);
        qemu_put_counted_string(save->f, s->name);
        qemu_put_buffer(save->f, (uint8_t *)&instance, sizeof(instance));
    }
}

static void put_footer(const DeviceSave *save, const Section *s, int ret)
{
    WireSectionFooter footer = { .type = WIRE_SECTION_FOOTER };

    trace_savevm_section_end(s->name, s->id, ret);
    if (save->footers) {
        stl_be_p(&footer.section_id, s->id);
        qemu_put_buffer(save->f, (uint8_t *)&footer, sizeof(footer));
    }
}

void device_save_header(const DeviceSave *save, const Configuration *config)
{
    trace_savevm_state_header();
    qemu_put_be32(save->f, WIRE_FILE_MAGIC);
    qemu_put_be32(save->f, WIRE_FILE_VERSION);

    /* Closed by device_save_end() */
    if (save->desc) {
        json_writer_start_object(save->desc, NULL);
    }
    if (!config) {
        return;
    }
    if (save->desc) {
        json_writer_start_object(save->desc, "configuration");
    }
    configuration_save(save->f, config, save->desc);
    if (save->desc) {
        json_writer_end_object(save->desc);
    }
}

void device_save_end(const DeviceSave *save)
{
    WireVmDescription head = { .type = WIRE_VMDESCRIPTION };
    const char *text;
    size_t len;

    qemu_put_byte(save->f, WIRE_EOF);
    if (!save->desc) {
        return;
    }
    json_writer_end_array(save->desc);
    json_writer_end_object(save->desc);
    text = json_writer_get(save->desc);
    len = strlen(text);
    stl_be_p(&head.len, len);
    qemu_put_buffer(save->f, (uint8_t *)&head, sizeof(head));
    qemu_put_buffer(save->f, (const uint8_t *)text, len);
}

/*
 * Live sections
 */

/*
 * A hook failed with @ret, and @reported something, or NULL.  What broke the
 * stream, if anything did, says more than that.
 */
static void hook_failed(const DeviceSave *save, const Section *s,
                        const char *doing, int ret, const char *reported,
                        Error **errp)
{
    Error *err = NULL;

    if (stream_check(save->f, &err)) {
        error_setg_errno(&err, -ret, "Cannot %s section '%s'%s%s", doing,
                         s->name, reported ? ": " : "", reported ?: "");
        qemu_file_set_error_obj(save->f, ret, error_copy(err));
    }
    error_propagate(errp, err);
}

typedef int (*SaveHook)(QEMUFile *f, void *opaque);

/* A record that @hook fills. Returns what the hook does. */
static int save_record(const DeviceSave *save, const Section *s, uint8_t type,
                       SaveHook hook, Error **errp)
{
    g_autofree char *said = NULL;
    Reported reported;
    int ret;

    put_head(save, s, type);
    reported_begin(&reported);
    ret = hook(save->f, s->opaque);
    said = reported_end(&reported);
    put_footer(save, s, ret);
    if (ret < 0) {
        hook_failed(save, s, "save", ret, said, errp);
    }
    return ret;
}

/* @s was saved, which began at @start_ns. */
static void note_time(const DeviceSave *save, const Section *s,
                      const char *kind, int64_t start_ns)
{
    int64_t took = now_ns() - start_ns;

    if (save->times) {
        ledger_device(save->times, s->name, s->instance_id, took);
    }
    trace_vmstate_downtime_save(kind, s->name, s->instance_id,
                                took / SCALE_US);
}

bool device_save_prepare(Error **errp)
{
    Section *s;

    FOR_EACH_SECTION_WITH(s, save_prepare) {
        if (section_active(s) && s->ops->save_prepare(s->opaque, errp) < 0) {
            return false;
        }
    }
    return true;
}

/* The hook may have failed without saying why. */
static bool setup_live(const DeviceSave *save, const Section *s, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *said = NULL;
    Reported reported;
    int ret;

    put_head(save, s, WIRE_SECTION_START);
    reported_begin(&reported);
    ret = s->ops->save_setup(save->f, s->opaque, errp);
    said = reported_end(&reported);
    put_footer(save, s, ret);
    if (ret >= 0) {
        return true;
    }
    if (*errp) {
        qemu_file_set_error(save->f, ret);
    } else {
        hook_failed(save, s, "set up", ret, said, errp);
    }
    return false;
}

bool device_save_iterate(const DeviceSave *save, bool in_postcopy,
                         bool *finished, Error **errp)
{
    bool all_finished = true;
    Section *s;
    int ret;

    trace_savevm_state_iterate();
    *finished = false;
    FOR_EACH_SECTION_WITH(s, save_live_iterate) {
        if (!section_active(s) ||
            (s->ops->is_active_iterate &&
             !s->ops->is_active_iterate(s->opaque))) {
            continue;
        }
        /* Without postcopy it was completed when the guest was stopped. */
        if (in_postcopy && !section_has_postcopy(s)) {
            continue;
        }
        if (!in_postcopy && migration_rate_exceeded(save->f)) {
            return true;
        }
        ret = save_record(save, s, WIRE_SECTION_PART,
                          s->ops->save_live_iterate, errp);
        if (ret < 0) {
            return false;
        }
        all_finished &= ret > 0;
    }
    *finished = all_finished;
    return true;
}

bool device_save_iterate_one(const DeviceSave *save, const char *name,
                             bool *finished, Error **errp)
{
    Section *s;
    int ret;

    *finished = true;
    FOR_EACH_SECTION_WITH(s, save_live_iterate) {
        if (strcmp(s->name, name) || !section_active(s)) {
            continue;
        }
        ret = save_record(save, s, WIRE_SECTION_PART,
                          s->ops->save_live_iterate, errp);
        if (ret < 0) {
            return false;
        }
        *finished &= ret > 0;
    }
    return true;
}

bool device_save_complete(const DeviceSave *save, bool in_postcopy,
                          Error **errp)
{
    Section *s;

    FOR_EACH_SECTION_WITH(s, save_live_complete_precopy) {
        int64_t start = now_ns();

        if ((in_postcopy && section_has_postcopy(s)) || !section_active(s)) {
            continue;
        }
        if (save_record(save, s, WIRE_SECTION_END,
                        s->ops->save_live_complete_precopy, errp) < 0) {
            return false;
        }
        note_time(save, s, "iterable", start);
    }
    return true;
}

bool device_save_complete_postcopy(const DeviceSave *save, Error **errp)
{
    Section *s;

    FOR_EACH_SECTION_WITH(s, save_live_complete_postcopy) {
        if (section_active(s) && section_has_postcopy(s) &&
            save_record(save, s, WIRE_SECTION_END,
                        s->ops->save_live_complete_postcopy, errp) < 0) {
            return false;
        }
    }
    qemu_put_byte(save->f, WIRE_EOF);
    qemu_fflush(save->f);
    return stream_check(save->f, errp);
}

void qemu_savevm_state_pending_estimate(uint64_t *must_precopy,
                                        uint64_t *can_postcopy)
{
    Section *s;

    *must_precopy = *can_postcopy = 0;
    FOR_EACH_SECTION_WITH(s, state_pending_estimate) {
        if (section_active(s)) {
            s->ops->state_pending_estimate(s->opaque, must_precopy,
                                           can_postcopy);
        }
    }
}

void qemu_savevm_state_pending_exact(uint64_t *must_precopy,
                                     uint64_t *can_postcopy)
{
    Section *s;

    *must_precopy = *can_postcopy = 0;
    FOR_EACH_SECTION_WITH(s, state_pending_exact) {
        if (section_active(s)) {
            s->ops->state_pending_exact(s->opaque, must_precopy,
                                        can_postcopy);
        }
    }
}

void device_save_cleanup(void)
{
    Section *s;

    trace_savevm_state_cleanup();
    FOR_EACH_SECTION_WITH(s, save_cleanup) {
        s->ops->save_cleanup(s->opaque);
    }
}

/*
 * Devices
 */

/* Devices that are no VMState say no more of themselves than a length. */
static void save_opaque(const DeviceSave *save, const Section *s)
{
    uint64_t start = stream_position(save->f);
    int64_t size;

    s->ops->save_state(save->f, s->opaque);
    if (!save->desc) {
        return;
    }
    size = stream_position(save->f) - start;
    json_writer_int64(save->desc, "size", size);
    json_writer_start_array(save->desc, "fields");
    json_writer_start_object(save->desc, NULL);
    json_writer_str(save->desc, "name", "data");
    json_writer_int64(save->desc, "size", size);
    json_writer_str(save->desc, "type", "buffer");
    json_writer_end_object(save->desc);
    json_writer_end_array(save->desc);
}

static bool save_vmstate(const DeviceSave *save, const Section *s,
                         Error **errp)
{
    g_autoptr(Error) err = NULL;
    g_autofree char *said = NULL;
    Reported reported;
    int ret;

    reported_begin(&reported);
    ret = vmstate_save_state_with_err(save->f, s->vmsd, s->opaque, save->desc,
                                      &err);
    said = reported_end(&reported);
    if (!ret) {
        return true;
    }
    if (err) {
        error_setg(errp, "Cannot save device '%s' instance %" PRIu32 ": %s%s%s",
                   s->name, s->instance_id, error_get_pretty(err),
                   said ? ": " : "", said ?: "");
        qemu_file_set_error(save->f, ret);
    } else {
        hook_failed(save, s, "save", ret, said, errp);
    }
    return false;
}

static bool has_state(const Section *s)
{
    if (s->vmsd) {
        if (vmstate_section_needed(s->vmsd, s->opaque)) {
            return true;
        }
        trace_savevm_section_skip(s->name, s->id);
        return false;
    }
    return s->ops->save_state;
}

bool device_save_one(const DeviceSave *save, const Section *s, Error **errp)
{
    if (!has_state(s)) {
        return true;
    }
    put_head(save, s, WIRE_SECTION_FULL);
    if (save->desc) {
        json_writer_start_object(save->desc, NULL);
        json_writer_str(save->desc, "name", s->name);
        json_writer_int64(save->desc, "instance_id", s->instance_id);
    }
    trace_vmstate_save(s->name, s->vmsd ? s->vmsd->name : "(old)");
    if (!s->vmsd) {
        save_opaque(save, s);
    } else if (!save_vmstate(save, s, errp)) {
        return false;
    }
    put_footer(save, s, 0);
    if (save->desc) {
        json_writer_end_object(save->desc);
    }
    return true;
}

static bool saved_at_setup(const Section *s)
{
    return s->vmsd && s->vmsd->early_setup;
}

bool device_save_setup(const DeviceSave *save, uint64_t target_page_size,
                       Error **errp)
{
    Section *s;

    trace_savevm_state_setup();
    if (save->desc) {
        json_writer_int64(save->desc, "page_size", target_page_size);
        json_writer_start_array(save->desc, "devices");
    }
    FOR_EACH_SECTION(s) {
        if (saved_at_setup(s)) {
            if (!device_save_one(save, s, errp)) {
                return false;
            }
        } else if (section_is_live(s) && section_active(s)) {
            if (!setup_live(save, s, errp)) {
                return false;
            }
        }
    }
    return true;
}

bool device_save_state(const DeviceSave *save, DeviceSet set, Error **errp)
{
    Section *s;

    FOR_EACH_SECTION(s) {
        int64_t start = now_ns();

        if (set == DEVICES_NOT_LIVE ? section_is_live(s) : saved_at_setup(s)) {
            continue;
        }
        if (!device_save_one(save, s, errp)) {
            return false;
        }
        note_time(save, s, "non-iterable", start);
    }
    return true;
}
