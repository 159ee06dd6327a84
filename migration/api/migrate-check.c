/*
 * The commands that compare both sides of a migration that may come
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "migration/source/check.h"
#include "migration/transport/transport.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qobject/qdict.h"

/* Answers come on the same connection, and only there. */
static bool can_be_checked(const MigrationAddress *addr, Error **errp)
{
    if (addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET) {
        return true;
    }
    error_setg(errp, "only a destination that listens on a socket can be "
               "checked: use tcp:, unix:, vsock: or fd:");
    return false;
}

MigrationCheck *coroutine_fn qmp_migrate_check(const char *uri,
                                               bool has_channels,
                                               MigrationChannelList *channels,
                                               Error **errp)
{
    g_autoptr(MigrationAddress) addr = NULL;

    if (!uri && !has_channels) {
        return source_check(NULL, errp);
    }
    if (!transport_parse(uri, channels, &addr, errp) ||
        !can_be_checked(addr, errp)) {
        return NULL;
    }
    return source_check(addr, errp);
}
