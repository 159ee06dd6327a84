/*
 * Channels of a migration: what connecting and listening have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/yank.h"
#include "io/channel-socket.h"
#include "migration/base/below-tls.h"
#include "migration/yank_functions.h"
#include "private.h"

QemuRecMutex transport_lock;
static bool in_yank;
static const TransportForeign *foreigners[MIGRATION_ADDRESS_TYPE__MAX];

void transport_set_foreign(MigrationAddressType type,
                           const TransportForeign *foreign)
{
    foreigners[type] = foreign;
}

const TransportForeign *transport_foreign(const MigrationAddress *addr)
{
    return foreigners[addr->transport];
}

static void __attribute__((constructor)) transport_init_lock(void)
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

/*
 * In postcopy either side may have nothing to say for as long as the other one
 * is silent, and only who says something learns that nobody is there any more.
 * The kernel's settings say when; on a socket of the local machine it has none.
 */
static void keep_alive(QIOChannelSocket *socket)
{
    int on = 1;

    setsockopt(socket->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/*
 * Only a socket may block: to shut it down wakes whoever waits for it, while
 * nothing ends a system call that waits for a pipe.
 */
bool transport_hand_over(QIOChannel *ioc, Error **errp)
{
    QIOChannelSocket *socket = channel_socket(ioc);

    if (qio_channel_set_blocking(ioc, socket, errp) < 0) {
        return false;
    }
    if (socket) {
        keep_alive(socket);
    }
    migration_ioc_register_yank(ioc);
    return true;
}
