/*
 * The source: the guest goes on in a new QEMU on the same host (CPR)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "io/channel.h"
#include "migration/core/cpr-exec.h"
#include "migration/cpr.h"
#include "migration/options.h"
#include "cpr-source.h"

bool cpr_stops_guest(void)
{
    return migrate_mode() != MIG_MODE_NORMAL;
}

/*
 * What needs a guest that runs, or a source that stays
 */
static const char *conflict(void)
{
    return migrate_postcopy() ? "postcopy-ram or dirty-bitmaps" :
           migrate_background_snapshot() ? "background-snapshot" :
           migrate_strict_downtime() ? "strict-downtime" :
           migrate_colo() ? "x-colo" : NULL;
}

static MigrationChannel *entry_for_cpr(const MigrationChannelList *channels)
{
    for (; channels; channels = channels->next) {
        if (channels->value->channel_type == MIGRATION_CHANNEL_TYPE_CPR) {
            return channels->value;
        }
    }
    return NULL;
}

/* What the new QEMU reads, when this one is gone */
static bool can_exec(const MigrationAddress *addr, Error **errp)
{
    if (addr->transport != MIGRATION_ADDRESS_TYPE_FILE) {
        error_setg(errp, "Migration mode 'cpr-exec' needs file:PATH, as there "
                   "is nobody to connect to before the new QEMU is executed");
        return false;
    }
    return cpr_exec_command_check(migrate_cpr_exec_command(), errp);
}

bool cpr_possible(const MigrationAddress *addr,
                  const MigrationChannelList *channels, Error **errp)
{
    const char *mode = MigMode_str(migrate_mode());

    if (cpr_stops_guest() && conflict()) {
        error_setg(errp, "Migration mode '%s' stops the guest first, which "
                   "capability %s cannot do with", mode, conflict());
        return false;
    }
    if (migrate_mode() == MIG_MODE_CPR_TRANSFER && !entry_for_cpr(channels)) {
        error_setg(errp, "Migration mode '%s' needs an entry of type 'cpr' in "
                   "'channels': a UNIX socket where the new QEMU listens "
                   "first", mode);
        return false;
    }
    return migrate_mode() != MIG_MODE_CPR_EXEC || can_exec(addr, errp);
}

static struct {
    GSource *watch;             /* of what the new QEMU has been given */
    void (*ready)(void);
} handing_over;

static gboolean cpr_taken(QIOChannel *ioc, GIOCondition condition,
                          gpointer opaque)
{
    void (*ready)(void) = handing_over.ready;

    cpr_hand_over_end();
    ready();
    return G_SOURCE_REMOVE;
}

/*
 * What is given stays open here, too: the guest runs on if the new QEMU fails.
 */
bool cpr_hand_over(MigrationChannelList *channels, void (*ready)(void),
                   Error **errp)
{
    MigMode mode = migrate_mode();

    if ((mode == MIG_MODE_CPR_TRANSFER || mode == MIG_MODE_CPR_EXEC) &&
        cpr_state_save(entry_for_cpr(channels), errp)) {
        error_prepend(errp, "The new QEMU cannot be given what is open here: ");
        return false;
    }
    if (mode != MIG_MODE_CPR_TRANSFER) {
        ready();
        return true;
    }
    handing_over.ready = ready;
    handing_over.watch = qio_channel_create_watch(cpr_state_ioc(), G_IO_HUP);
    g_source_set_callback(handing_over.watch, (GSourceFunc)cpr_taken, NULL,
                          NULL);
    g_source_attach(handing_over.watch, NULL);
    return true;
}

bool cpr_become_new(Error **errp)
{
    if (migrate_mode() != MIG_MODE_CPR_EXEC) {
        return true;
    }
    cpr_exec_replace(migrate_cpr_exec_command(), errp);
    return false;
}

void cpr_hand_over_end(void)
{
    if (handing_over.watch) {
        g_source_destroy(handing_over.watch);
        g_clear_pointer(&handing_over.watch, g_source_unref);
    }
    cpr_state_close();
}
