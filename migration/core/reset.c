/*
 * A reset of devices that a state is about to be loaded into, or was
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/virtio.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/reset.h"
#include "reset.h"

void reset_devices_alone(void)
{
    MachineClass *mc = MACHINE_GET_CLASS(current_machine);

    cpu_synchronize_all_states();
    if (mc->reset) {
        mc->reset(current_machine, RESET_TYPE_WAKEUP);
    } else {
        qemu_devices_reset(RESET_TYPE_WAKEUP);
    }
    cpu_synchronize_all_post_reset();
}

static int back_end_forgets(Object *obj, void *opaque)
{
    Error **errp = opaque;
    VirtIODevice *vdev = (VirtIODevice *)
        object_dynamic_cast(obj, TYPE_VIRTIO_DEVICE);
    VirtioDeviceClass *k = vdev ? VIRTIO_DEVICE_GET_CLASS(vdev) : NULL;
    struct vhost_dev *vhost = k && k->get_vhost ? k->get_vhost(vdev) : NULL;
    g_autofree char *path = NULL;

    if (!vhost || !vhost_supports_device_state(vhost)) {
        return 0;
    }
    path = object_get_canonical_path(obj);
    error_setg(errp, "the state of the back-end of '%s' can be loaded only "
               "once", path);
    return 1;
}

bool reset_reaches_devices(Error **errp)
{
    return !object_child_foreach_recursive(object_get_root(), back_end_forgets,
                                           errp);
}
