/*
 * A running QEMU, as far as migration/ needs one: what is not there
 *
 * No accelerator but what fake-memory.c has of KVM, no network, no block layer,
 * no monitor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "block/block.h"
#include "block/dirty-bitmap.h"
#include "hw/qdev-properties-system.h"
#include "hw/virtio/vhost.h"
#include "migration/check/vmstate-check.h"
#include "migration/checkpoint/checkpoint.h"
#include "migration/core/inventory.h"
#include "migration/cpr.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "monitor/monitor.h"
#include "net/announce.h"
#include "system/cpus.h"
#include "system/dirtylimit.h"
#include "system/hw_accel.h"
#include "system/kvm.h"
#include "system/os-posix.h"
#include "system/system.h"
#include "system/tcg.h"
#include "system/xen.h"

bool kvm_allowed = true;
bool tcg_allowed;
bool xen_allowed;
int only_migratable;
MlockState mlock_state;
QemuUUID qemu_uuid;
bool qemu_uuid_set;

bool kvm_hwpoisoned_mem(void)
{
    return false;
}

bool kvm_dirty_ring_enabled(void)
{
    return false;
}

void cpu_synchronize_all_states(void)
{
}

void cpu_synchronize_all_post_reset(void)
{
}

void cpu_synchronize_all_post_init(void)
{
}

void cpu_synchronize_all_pre_loadvm(void)
{
}

bool cpus_are_resettable(void)
{
    return true;
}

void qmp_set_vcpu_dirty_limit(bool has_cpu, int64_t cpu, uint64_t rate,
                              Error **errp)
{
    error_setg(errp, "no dirty ring");
}

void qmp_cancel_vcpu_dirty_limit(bool has_cpu, int64_t cpu, Error **errp)
{
}

void qemu_announce_self(AnnounceTimer *timer, AnnounceParameters *params)
{
}

/* Nothing sets these properties by name, and their presets are 0. */

static void no_preset(ObjectProperty *op, const Property *prop)
{
}

#define ENUMERATION(name) \
    const PropertyInfo name = { \
        .type = #name, .set_default_value = no_preset \
    }

ENUMERATION(qdev_prop_mig_mode);
ENUMERATION(qdev_prop_multifd_compression);
ENUMERATION(qdev_prop_zero_page_detection);

/*
 * Locked memory, the dirty limit
 */

bool should_mlock(MlockState state)
{
    return false;
}

bool is_mlock_on_fault(MlockState state)
{
    return false;
}

int os_mlock(bool on_fault)
{
    g_assert_not_reached();
}

bool dirtylimit_in_service(void)
{
    return false;
}

uint64_t dirtylimit_throttle_time_per_round(void)
{
    return 0;
}

uint64_t dirtylimit_ring_full_time(void)
{
    return 0;
}

/*
 * The block layer
 */

BlockDriverState *bdrv_next_all_states(BlockDriverState *bs)
{
    return NULL;
}

bool bdrv_has_named_bitmaps(BlockDriverState *bs)
{
    return false;
}

bool check_dirty_bitmap_mig_alias_map(const BitmapMigrationNodeAliasList *map,
                                      Error **errp)
{
    return true;
}

void dirty_bitmap_mig_init(void)
{
}

void dirty_bitmap_mig_before_vm_start(void)
{
}

void dirty_bitmap_mig_cancel_outgoing(void)
{
}

void dirty_bitmap_mig_cancel_incoming(void)
{
}

bool vhost_supports_device_state(struct vhost_dev *dev)
{
    return false;
}

/*
 * What both sides are made of: the same
 */

Inventory *inventory_collect(bool source)
{
    Inventory *inventory = inventory_new();

    inventory_add(inventory, WIRE_INVENTORY_MACHINE, "fake", NULL);
    return inventory;
}

Inventory *inventory_layouts(const GPtrArray *types)
{
    return inventory_new();
}

/*
 * Others
 */

void checkpoint_init(void)
{
}

MigrationCheckpoint *checkpoint_query(bool outgoing)
{
    return NULL;
}

void vmstate_check_init(void)
{
}

void vmstate_check_shutdown(void)
{
}

MigMode cpr_get_incoming_mode(void)
{
    return MIG_MODE_NONE;
}

void cpr_set_incoming_mode(MigMode mode)
{
}

int cpr_state_save(MigrationChannel *channel, Error **errp)
{
    error_setg(errp, "no CPR");
    return -1;
}

QIOChannel *cpr_state_ioc(void)
{
    return NULL;
}

void cpr_state_close(void)
{
}

void cpr_foreach_fd(void (*fn)(int fd))
{
}

void migration_reset_vfio_bytes_transferred(void)
{
}

void migration_populate_vfio_info(MigrationInfo *info)
{
}

int monitor_fd_param(Monitor *mon, const char *fdname, Error **errp)
{
    error_setg(errp, "no monitor");
    return -1;
}

Monitor *monitor_cur(void)
{
    return NULL;
}

Monitor *monitor_set_cur(Coroutine *co, Monitor *mon)
{
    return NULL;
}

int monitor_vprintf(Monitor *mon, const char *fmt, va_list ap)
{
    g_assert_not_reached();
}
