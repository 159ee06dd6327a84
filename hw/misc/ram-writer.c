/*
 * A device for tests, which writes to guest memory when it should not
 *
 * Some devices write to memory when they are reset, when their state has been
 * loaded, when the guest stops, or on a timer of the host while it is stopped.
 * This one does each of them on demand, so that tests find out whether such
 * writes are lost, or survive, in a migration:
 *
 *   -device ram-writer,addr=0x300000,len=8192,on-reset=on,how=dma
 *
 * Each time it fills the range with the next byte of a counter, which begins
 * at "fill".  "how" is dma (through the memory API), pointer (by host address,
 * with the dirty log told afterwards), or discard (the content is given up,
 * as a balloon does).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qom/object.h"
#include "system/reset.h"
#include "system/runstate.h"

#define TYPE_RAM_WRITER "ram-writer"
OBJECT_DECLARE_SIMPLE_TYPE(RamWriter, RAM_WRITER)

struct RamWriter {
    DeviceState parent_obj;

    uint64_t addr;              /* guest physical */
    uint64_t len;
    uint8_t fill;
    char *how;
    bool on_reset, on_load, on_stop;
    uint32_t period_ms;         /* 0: never */

    uint32_t loads;             /* migrated, so that there is a state */
    QEMUTimer *timer;
    VMChangeStateEntry *entry;
};

/* Everything under the BQL. */

static void write_through(RamWriter *s, void *host, MemoryRegion *mr,
                          hwaddr offset)
{
    memset(host, s->fill, s->len);
    memory_region_set_dirty(mr, offset, s->len);
}

static void write_memory(RamWriter *s)
{
    MemoryRegionSection part = memory_region_find(get_system_memory(), s->addr,
                                                  s->len);
    g_autofree uint8_t *bytes = g_malloc(s->len);

    if (!part.mr) {
        return;
    }
    if (!memory_region_is_ram(part.mr) || int128_get64(part.size) < s->len) {
        memory_region_unref(part.mr);
        return;
    }
    if (!strcmp(s->how, "pointer")) {
        write_through(s, (uint8_t *)memory_region_get_ram_ptr(part.mr) +
                      part.offset_within_region, part.mr,
                      part.offset_within_region);
    } else if (!strcmp(s->how, "discard")) {
        ram_block_discard_range(part.mr->ram_block, part.offset_within_region,
                                s->len);
    } else {
        memset(bytes, s->fill, s->len);
        address_space_write(&address_space_memory, s->addr,
                            MEMTXATTRS_UNSPECIFIED, bytes, s->len);
    }
    s->fill++;
    memory_region_unref(part.mr);
}

static void machine_reset(void *opaque)
{
    RamWriter *s = opaque;

    if (s->on_reset) {
        write_memory(s);
    }
}

static int post_load(void *opaque, int version_id)
{
    RamWriter *s = opaque;

    s->loads++;
    if (s->on_load) {
        write_memory(s);
    }
    return 0;
}

static void state_changed(void *opaque, bool running, RunState state)
{
    RamWriter *s = opaque;

    if (!running && s->on_stop) {
        write_memory(s);
    }
}

static void tick(void *opaque)
{
    RamWriter *s = opaque;

    write_memory(s);
    timer_mod(s->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + s->period_ms);
}

static void realize(DeviceState *dev, Error **errp)
{
    RamWriter *s = RAM_WRITER(dev);

    if (!s->how) {
        s->how = g_strdup("dma");
    }
    if (strcmp(s->how, "dma") && strcmp(s->how, "pointer") &&
        strcmp(s->how, "discard")) {
        error_setg(errp, "'how' must be dma, pointer or discard");
        return;
    }
    qemu_register_reset(machine_reset, s);
    s->entry = qemu_add_vm_change_state_handler(state_changed, s);
    if (s->period_ms) {
        s->timer = timer_new_ms(QEMU_CLOCK_REALTIME, tick, s);
        timer_mod(s->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  s->period_ms);
    }
}

static void unrealize(DeviceState *dev)
{
    RamWriter *s = RAM_WRITER(dev);

    timer_free(s->timer);
    qemu_del_vm_change_state_handler(s->entry);
    qemu_unregister_reset(machine_reset, s);
}

static const VMStateDescription vmstate = {
    .name = TYPE_RAM_WRITER,
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(loads, RamWriter),
        VMSTATE_END_OF_LIST()
    },
};

static const Property properties[] = {
    DEFINE_PROP_UINT64("addr", RamWriter, addr, 0),
    DEFINE_PROP_UINT64("len", RamWriter, len, 4096),
    DEFINE_PROP_UINT8("fill", RamWriter, fill, 1),
    DEFINE_PROP_STRING("how", RamWriter, how),
    DEFINE_PROP_BOOL("on-reset", RamWriter, on_reset, false),
    DEFINE_PROP_BOOL("on-load", RamWriter, on_load, false),
    DEFINE_PROP_BOOL("on-stop", RamWriter, on_stop, false),
    DEFINE_PROP_UINT32("period-ms", RamWriter, period_ms, 0),
};

static void class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = realize;
    dc->unrealize = unrealize;
    dc->vmsd = &vmstate;
    dc->desc = "writes to memory when it should not, for tests of migration";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, properties);
}

static const TypeInfo info = {
    .name = TYPE_RAM_WRITER,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(RamWriter),
    .class_init = class_init,
};

static void register_type(void)
{
    type_register_static(&info);
}

type_init(register_type)
