/*
 * virtio-balloon: a guest that gives memory back and tells what it needs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Here are properties, features, configuration space, VMState and life; what
 * the queues are for is in virtio-balloon-{pages,stats,hints}.c.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "qapi/qapi-events-machine.h"
#include "hw/boards.h"
#include "hw/mem/pc-dimm.h"
#include "hw/qdev-properties.h"
#include "hw/resettable.h"
#include "migration/vmstate.h"
#include "system/balloon.h"
#include "trace.h"
#include "virtio-balloon-private.h"

#define QUEUE_SIZE 128
#define REPORT_QUEUE_SIZE 32

static bool offers(const VirtIOBalloon *s, unsigned feature)
{
    return virtio_has_feature(s->host_features, feature);
}

/*
 * Sizes
 */

static uint64_t ram_bytes(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());
    uint64_t plugged = machine->device_memory ?
                       machine->device_memory->dimm_size : 0;

    return machine->ram_size + plugged;
}

/* What is left to the guest, whatever it says of the balloon */
static uint64_t guest_bytes(const VirtIOBalloon *s)
{
    uint64_t ram = ram_bytes();
    uint64_t balloon = (uint64_t)s->actual << VIRTIO_BALLOON_PFN_SHIFT;

    return ram - MIN(ram, balloon);
}

static void tell_size(void *opaque, BalloonInfo *info)
{
    info->actual = guest_bytes(opaque);
}

static void set_size(void *opaque, ram_addr_t bytes)
{
    VirtIOBalloon *s = opaque;
    uint64_t ram = ram_bytes();

    bytes = MIN(bytes, ram);
    if (bytes) {
        s->num_pages = (ram - bytes) >> VIRTIO_BALLOON_PFN_SHIFT;
        virtio_notify_config(VIRTIO_DEVICE(s));
    }
    trace_virtio_balloon_to_target(bytes, s->num_pages);
}

/*
 * Features and configuration space
 */

static uint64_t get_features(VirtIODevice *vdev, uint64_t features,
                             Error **errp)
{
    features |= VIRTIO_BALLOON(vdev)->host_features;
    virtio_add_feature(&features, VIRTIO_BALLOON_F_STATS_VQ);
    return features;
}

/*
 * Bytes of it that there are: all, or up to the last word that is good for
 * something.  Guests of some older machine types have always seen all.
 */
static size_t config_size(const VirtIOBalloon *s)
{
    unsigned words = 2;

    if (offers(s, VIRTIO_BALLOON_F_PAGE_POISON) || s->qemu_4_0_config_size) {
        words = 4;
    } else if (offers(s, VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        words = 3;
    }
    return words * sizeof(uint32_t);
}

static void get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    struct virtio_balloon_config config = {
        .num_pages = cpu_to_le32(s->num_pages),
        .actual = cpu_to_le32(s->actual),
        .free_page_hint_cmd_id = cpu_to_le32(balloon_hints_config(s)),
        .poison_val = cpu_to_le32(s->poison_val),
    };

    trace_virtio_balloon_get_config(s->num_pages, s->actual);
    memcpy(data, &config, config_size(s));
}

static bool poison_negotiated(void *opaque)
{
    return virtio_vdev_has_feature(VIRTIO_DEVICE(opaque),
                                   VIRTIO_BALLOON_F_PAGE_POISON);
}

static void set_config(VirtIODevice *vdev, const uint8_t *data)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    struct virtio_balloon_config config = { };
    uint32_t before = s->actual;

    memcpy(&config, data, config_size(s));
    s->actual = le32_to_cpu(config.actual);
    s->poison_val = poison_negotiated(s) ? le32_to_cpu(config.poison_val) : 0;
    if (s->actual != before) {
        qapi_event_send_balloon_change(guest_bytes(s));
    }
    trace_virtio_balloon_set_config(s->actual, before);
}

/*
 * VMState
 */

static int hints_post_load(void *opaque, int version_id)
{
    Error *err = NULL;

    if (!balloon_hints_loaded(opaque, &err)) {
        error_report_err(err);
        return -EINVAL;
    }
    return 0;
}

static int device_post_load(void *opaque, int version_id)
{
    balloon_stats_loaded(opaque);
    return 0;
}

#define FIRST_VERSION(state) \
    .name = (state), .version_id = 1, .minimum_version_id = 1
#define NUMBER(member) VMSTATE_UINT32(member, VirtIOBalloon)

static const VMStateDescription vmstate_hints = {
    FIRST_VERSION("virtio-balloon-device/free-page-report"),
    .needed = balloon_hints_negotiated,
    .post_load = hints_post_load,
    .fields = (const VMStateField[]) {
        NUMBER(free_page_hint_cmd_id),
        NUMBER(free_page_hint_status),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_poison = {
    FIRST_VERSION("virtio-balloon-device/page-poison"),
    .needed = poison_negotiated,
    .fields = (const VMStateField[]) {
        NUMBER(poison_val),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_device = {
    FIRST_VERSION("virtio-balloon-device"),
    .post_load = device_post_load,
    .subsections = (const VMStateDescription * const []) {
        &vmstate_hints, &vmstate_poison, NULL
    },
    .fields = (const VMStateField[]) {
        NUMBER(num_pages),
        NUMBER(actual),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_virtio = {
    FIRST_VERSION("virtio-balloon"),
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};

/*
 * Life
 */

static void make_queues(VirtIOBalloon *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    s->inflate_vq = virtio_add_queue(vdev, QUEUE_SIZE, balloon_handle_inflate);
    s->deflate_vq = virtio_add_queue(vdev, QUEUE_SIZE, balloon_handle_deflate);
    s->stats_vq = virtio_add_queue(vdev, QUEUE_SIZE, balloon_handle_stats);
    if (offers(s, VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        s->hint_vq = virtio_add_queue(vdev, VIRTQUEUE_MAX_SIZE,
                                      balloon_handle_hints);
    }
    if (offers(s, VIRTIO_BALLOON_F_REPORTING)) {
        s->report_vq = virtio_add_queue(vdev, REPORT_QUEUE_SIZE,
                                        balloon_handle_report);
    }
}

static void delete_queues(VirtIOBalloon *s)
{
    VirtQueue **queues[] = {
        &s->inflate_vq, &s->deflate_vq, &s->stats_vq, &s->hint_vq,
        &s->report_vq,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(queues); i++) {
        if (*queues[i]) {
            virtio_delete_queue(*queues[i]);
            *queues[i] = NULL;
        }
    }
}

static void realize(DeviceState *dev, Error **errp)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(dev);
    bool hints = offers(s, VIRTIO_BALLOON_F_FREE_PAGE_HINT);

    if (hints && !s->iothread) {
        error_setg(errp, "'free-page-hint' requires 'iothread' to be set: "
                   "add -object iothread,id=ID and iothread=ID");
        return;
    }
    if (qemu_add_balloon_handler(set_size, tell_size, s) < 0) {
        error_setg(errp, "Only one balloon device is supported");
        return;
    }
    virtio_init(VIRTIO_DEVICE(s), VIRTIO_ID_BALLOON, config_size(s));
    make_queues(s);
    if (hints) {
        balloon_hints_realize(s);
    }
    balloon_stats_forget(s);
    s->stats.updated = 0;
}

static void unrealize(DeviceState *dev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(dev);

    balloon_hints_unrealize(s);
    balloon_stats_cleanup(s);
    balloon_stats_reset(s);
    qemu_remove_balloon_handler(s);
    delete_queues(s);
    virtio_cleanup(VIRTIO_DEVICE(s));
}

static void set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    if (balloon_is_live(s, status)) {
        balloon_stats_resume(s);
    }
    balloon_hints_set_status(s, status);
}

/* Of the driver, not of the machine.  The status has been set to 0. */
static void reset(VirtIODevice *vdev)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);

    balloon_stats_reset(s);
    s->poison_val = 0;
}

/* Of the machine: a guest that only slept has not changed. */
static void reset_enter(Object *obj, ResetType type)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(obj);

    if (type != RESET_TYPE_WAKEUP) {
        balloon_stats_forget(s);
        s->stats.updated = 0;
    }
}

static void instance_init(Object *obj)
{
    balloon_stats_init(VIRTIO_BALLOON(obj));
}

#define FEATURE(name, bit, on) \
    DEFINE_PROP_BIT(name, VirtIOBalloon, host_features, \
                    VIRTIO_BALLOON_F_##bit, on)

static const Property properties[] = {
    FEATURE("deflate-on-oom", DEFLATE_ON_OOM, false),
    FEATURE("free-page-hint", FREE_PAGE_HINT, false),
    FEATURE("page-poison", PAGE_POISON, true),
    FEATURE("free-page-reporting", REPORTING, false),
    DEFINE_PROP_LINK("iothread", VirtIOBalloon, iothread, TYPE_IOTHREAD,
                     IOThread *),
    /* machine types of QEMU 4.0, see config_size() */
    DEFINE_PROP_BOOL("qemu-4-0-config-size", VirtIOBalloon,
                     qemu_4_0_config_size, false),
};

static void class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);

    RESETTABLE_CLASS(klass)->phases.enter = reset_enter;
    dc->vmsd = &vmstate_virtio;
    vdc->vmsd = &vmstate_device;
    vdc->get_features = get_features;
    vdc->get_config = get_config;
    vdc->set_config = set_config;
    vdc->set_status = set_status;
    vdc->reset = reset;
    vdc->realize = realize;
    vdc->unrealize = unrealize;
    device_class_set_props(dc, properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo types[] = {
    {
        .parent = TYPE_VIRTIO_DEVICE,
        .name = TYPE_VIRTIO_BALLOON,
        .class_init = class_init,
        .instance_init = instance_init,
        .instance_size = sizeof(VirtIOBalloon),
    },
};

DEFINE_TYPES(types)
