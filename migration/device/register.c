/*
 * How devices and live parts of the VM enter the registry
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "migration/vmstate.h"
#include "system/qtest.h"
#include "system/system.h"
#include "sections.h"

/*
 * Most callers cannot handle an error and ignore it.  A VM with a part that
 * is not registered still works, but must not be migrated.
 */
static int added(Section *s, Error *err, Error **errp)
{
    if (s) {
        return 0;
    }
    if (errp) {
        error_propagate(errp, err);
    } else {
        error_reportf_err(error_copy(err), "This VM cannot be migrated: ");
        sections_block_forever(err);
    }
    return -1;
}

int register_savevm_live(const char *idstr, uint32_t instance_id,
                         int version_id, const SaveVMHandlers *ops,
                         void *opaque)
{
    SectionSpec spec = {
        .name = idstr,
        .instance_id = instance_id,
        .alias_id = -1,
        .version_id = version_id,
        .ops = ops,
        .opaque = opaque,
    };
    Error *err = NULL;
    Section *s = section_add(&spec, &err);

    return added(s, err, NULL);
}

/* Asserts that it is well-formed, with all that it contains. */
static void check_description(const VMStateDescription *vmsd)
{
    const VMStateDescription *const *sub = vmsd->subsections;
    const VMStateField *field = vmsd->fields;

    for (; field && field->name; field++) {
        if (field->flags & (VMS_STRUCT | VMS_VSTRUCT)) {
            check_description(field->vmsd);
        }
    }
    /* Without its end mark the array goes on with whatever is behind it. */
    g_assert(!field || field->flags == VMS_END);

    for (; sub && *sub; sub++) {
        /* That is how a loader knows whose subsection it is. */
        g_assert(strstart((*sub)->name, vmsd->name, NULL));
        check_description(*sub);
    }
}

int vmstate_register_with_alias_id(VMStateIf *obj, uint32_t instance_id,
                                   const VMStateDescription *vmsd, void *base,
                                   int alias_id, int required_for_version,
                                   Error **errp)
{
    g_autofree char *path = vmstate_if_get_id(obj);
    SectionSpec spec = {
        .path = path,
        .name = vmsd->name,
        .instance_id = instance_id,
        .alias_id = alias_id,
        .version_id = vmsd->version_id,
        .vmsd = vmsd,
        .opaque = base,
    };
    Error *err = NULL;
    Section *s;

    /* Nothing that old can be loaded any more, so the alias is of no use. */
    assert(alias_id == -1 || required_for_version >= vmsd->minimum_version_id);
    if (qtest_enabled()) {
        check_description(vmsd);
    }
    s = section_add(&spec, &err);
    return added(s, err, errp);
}

void unregister_savevm(VMStateIf *obj, const char *idstr, void *opaque)
{
    g_autofree char *path = vmstate_if_get_id(obj);
    g_autofree char *name = path ? g_strdup_printf("%s/%s", path, idstr)
                                 : g_strdup(idstr);
    Section *s, *after;

    FOR_EACH_SECTION_SAFE(s, after) {
        if (s->opaque == opaque && !strcmp(s->name, name)) {
            section_remove(s);
        }
    }
}

void vmstate_unregister(VMStateIf *obj, const VMStateDescription *vmsd,
                        void *opaque)
{
    Section *s, *after;

    FOR_EACH_SECTION_SAFE(s, after) {
        if (s->opaque == opaque && s->vmsd == vmsd) {
            section_remove(s);
        }
    }
}

bool vmstate_check_only_migratable(const VMStateDescription *vmsd)
{
    return !only_migratable || !vmsd || !vmsd->unmigratable;
}
