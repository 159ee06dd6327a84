/*
 * A device for tests, whose state is saved or loaded wrongly
 *
 * It has some registers, which its guest sets when it first runs and a reset
 * clears.  "fault" says what is wrong with saving or loading them:
 *
 *   -device state-faults,fault=left-out
 *
 *   none        nothing
 *   left-out    a register is not part of the state
 *   version     a register is part of a version of the state that is never
 *               written
 *   lossy       a register is saved in fewer bits than it has
 *   post-load   what follows from a register is not computed after the load
 *   saving      saving changes a register
 *   test        whether a register is loaded depends on one that is loaded
 *               later, so that the state cannot be loaded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qom/object.h"
#include "system/reset.h"
#include "system/runstate.h"

#define TYPE_STATE_FAULTS "state-faults"
OBJECT_DECLARE_SIMPLE_TYPE(StateFaults, STATE_FAULTS)

struct StateFaults {
    DeviceState parent_obj;

    char *fault;
    bool programmed;            /* by the guest; no reset clears that */
    VMChangeStateEntry *entry;

    /* Registers */
    uint32_t control;
    uint32_t counter;
    uint32_t wide;
    uint32_t derived;           /* of control */
    uint8_t narrow;             /* of wide, while it is saved and loaded */
};

/* Everything under the BQL. */

static uint32_t derive(const StateFaults *s)
{
    return s->control * 3;
}

static int derive_again(void *opaque, int version_id)
{
    StateFaults *s = opaque;

    s->derived = derive(s);
    return 0;
}

static int count_saves(void *opaque)
{
    StateFaults *s = opaque;

    s->counter++;
    return 0;
}

static int narrow_down(void *opaque)
{
    StateFaults *s = opaque;

    s->narrow = s->wide;
    return 0;
}

static int widen(void *opaque, int version_id)
{
    StateFaults *s = opaque;

    s->wide = s->narrow;
    return derive_again(opaque, version_id);
}

static bool is_controlled(void *opaque, int version_id)
{
    StateFaults *s = opaque;

    return s->control;
}

#define CONTROL VMSTATE_UINT32(control, StateFaults)
#define COUNTER VMSTATE_UINT32(counter, StateFaults)
#define WIDE VMSTATE_UINT32(wide, StateFaults)

#define STATE(variable, hooks, ...)                     \
    static const VMStateDescription variable = {        \
        .name = TYPE_STATE_FAULTS,                      \
        .version_id = 1,                                \
        .minimum_version_id = 1,                        \
        hooks                                           \
        .fields = (const VMStateField[]) {              \
            __VA_ARGS__,                                \
            VMSTATE_END_OF_LIST()                       \
        }                                               \
    }
#define HOOKS(before, after) .pre_save = before, .post_load = after,

STATE(no_fault, HOOKS(NULL, derive_again), CONTROL, COUNTER, WIDE);
STATE(left_out, HOOKS(NULL, derive_again), CONTROL, WIDE);
STATE(later_version, HOOKS(NULL, derive_again), CONTROL,
      VMSTATE_UINT32_V(counter, StateFaults, 2), WIDE);
STATE(lossy, HOOKS(narrow_down, widen), CONTROL, COUNTER,
      VMSTATE_UINT8(narrow, StateFaults));
STATE(no_post_load, HOOKS(NULL, NULL), CONTROL, COUNTER, WIDE);
STATE(saving, HOOKS(count_saves, derive_again), CONTROL, COUNTER, WIDE);
STATE(test_too_early, HOOKS(NULL, derive_again),
      VMSTATE_UINT32_TEST(counter, StateFaults, is_controlled), CONTROL, WIDE);

static const struct {
    const char *fault;
    const VMStateDescription *state;
} faults[] = {
    { "none", &no_fault },
    { "left-out", &left_out },
    { "version", &later_version },
    { "lossy", &lossy },
    { "post-load", &no_post_load },
    { "saving", &saving },
    { "test", &test_too_early },
};

static const VMStateDescription *state_of(const char *fault)
{
    for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
        if (!strcmp(faults[i].fault, fault)) {
            return faults[i].state;
        }
    }
    return NULL;
}

static void machine_reset(void *opaque)
{
    StateFaults *s = opaque;

    s->control = s->counter = s->wide = s->derived = 0;
    s->narrow = 0;
}

static void state_changed(void *opaque, bool running, RunState state)
{
    StateFaults *s = opaque;

    if (running && !s->programmed) {
        s->programmed = true;
        s->control = 0x11111111;
        s->counter = 0x2222;
        s->wide = 0x33334444;
        s->derived = derive(s);
    }
}

static void realize(DeviceState *dev, Error **errp)
{
    StateFaults *s = STATE_FAULTS(dev);
    const VMStateDescription *state = state_of(s->fault ?: "none");

    if (!state) {
        error_setg(errp, "'fault' is not known: %s", s->fault);
        return;
    }
    if (vmstate_register_any(VMSTATE_IF(dev), state, s) < 0) {
        error_setg(errp, "Its state cannot be registered");
        return;
    }
    qemu_register_reset(machine_reset, s);
    s->entry = qemu_add_vm_change_state_handler(state_changed, s);
}

static void unrealize(DeviceState *dev)
{
    StateFaults *s = STATE_FAULTS(dev);

    qemu_del_vm_change_state_handler(s->entry);
    qemu_unregister_reset(machine_reset, s);
    vmstate_unregister(VMSTATE_IF(dev), state_of(s->fault ?: "none"), s);
}

static const Property properties[] = {
    DEFINE_PROP_STRING("fault", StateFaults, fault),
};

static void class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = realize;
    dc->unrealize = unrealize;
    dc->desc = "is saved or loaded wrongly, for tests of migration";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, properties);
}

static const TypeInfo info = {
    .name = TYPE_STATE_FAULTS,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(StateFaults),
    .class_init = class_init,
};

static void register_type(void)
{
    type_register_static(&info);
}

type_init(register_type)
