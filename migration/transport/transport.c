/*
 * Channels of a migration: what connecting and listening have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/yank.h"
#include "io/channel.h"
#include "migration/yank_functions.h"
#include "private.h"

QemuRecMutex transport_lock;
static bool in_yank;

static void __attribute__((constructor)) init_lock(void)
{
    qemu_rec_mutex_init(&transport_lock);
}

bool transport_yank_enter(bool *here, Error **errp)
{
    *here = !in_yank;
    if (!in_yank) {
        in_yank = yank_register_instance(MIGRATION_YANK_INSTANCE, errp);
    }
    return in_yank;
}

void transport_yank_leave(void)
{
    if (in_yank) {
        yank_unregister_instance(MIGRATION_YANK_INSTANCE);
        in_yank = false;
    }
}

bool transport_hand_over(QIOChannel *ioc, Error **errp)
{
    if (qio_channel_set_blocking(ioc, true, errp) < 0) {
        return false;
    }
    migration_ioc_register_yank(ioc);
    return true;
}

void transport_end(void)
{
    transport_connect_cancel();
    transport_listen_stop();
    transport_addresses_drop();
    transport_yank_leave();
}
