/*
 * The commands of QMP that start and steer migrations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "migration/destination/postcopy.h"
#include "migration/destination/start.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/source/postcopy-resume.h"
#include "migration/source/start.h"
#include "migration/source/state.h"
#include "migration/transport/transport.h"

/* The address is the caller's to free.  Any thread. */
static MigrationAddress *address_from(const char *uri,
                                      MigrationChannelList *channels,
                                      Error **errp)
{
    MigrationAddress *addr;

    return transport_parse(uri, channels, &addr, errp) ? addr : NULL;
}

/* Pages at fixed places: what cannot be written in any order has none. */
static bool has_places(const MigrationAddress *addr, Error **errp)
{
    if (migrate_mapped_ram() &&
        addr->transport != MIGRATION_ADDRESS_TYPE_FILE) {
        error_setg(errp, "The capability 'mapped-ram' gives each page a place "
                   "in a file: migrate to or from file:PATH, or turn it off");
        return false;
    }
    return true;
}

/*
 * More connections can only be made to what listens; more channels to a file
 * are for pages that have places there.
 */
static bool has_enough_channels(const MigrationAddress *addr, Error **errp)
{
    if (migrate_file_channels()) {
        return true;
    }
    if ((migrate_postcopy_preempt() || migrate_multifd()) &&
        (addr->transport != MIGRATION_ADDRESS_TYPE_SOCKET ||
         addr->u.socket.type == SOCKET_ADDRESS_TYPE_FD)) {
        error_setg(errp, addr->transport == MIGRATION_ADDRESS_TYPE_FILE
                   ? "Several channels to a file are for pages with places "
                     "there: turn 'mapped-ram' on, or 'multifd' off"
                   : "Migration requires multi-channel URIs (e.g. tcp)");
        return false;
    }
    return true;
}

/* Requests can only be answered while the file is there to be read. */
static bool can_save(Error **errp)
{
    if (migrate_lazy_restore()) {
        error_setg(errp, "The capability 'postcopy-ram' with 'mapped-ram' is "
                   "for who loads a file while the guest runs: turn it off to "
                   "save one");
        return false;
    }
    return true;
}

static bool can_use(const MigrationAddress *addr, Error **errp)
{
    return has_places(addr, errp) && has_enough_channels(addr, errp);
}

void qmp_migrate(const char *uri, bool has_channels,
                 MigrationChannelList *channels, bool has_detach, bool detach,
                 bool has_resume, bool resume, Error **errp)
{
    g_autoptr(MigrationAddress) addr = NULL;

    addr = address_from(uri, channels, errp);
    if (!addr || !can_use(addr, errp) || !can_save(errp)) {
        return;
    }
    if (has_resume && resume) {
        source_resume(addr, errp);
    } else {
        source_start(addr, has_channels ? channels : NULL, errp);
    }
}

void qmp_migrate_incoming(const char *uri, bool has_channels,
                          MigrationChannelList *channels,
                          bool has_exit_on_error, bool exit_on_error,
                          Error **errp)
{
    g_autoptr(MigrationAddress) addr = NULL;

    if (channels && channels->next) {
        error_setg(errp, "Channel list must have only one entry, for type "
                   "'main'");
        return;
    }
    addr = address_from(uri, channels, errp);
    if (addr && can_use(addr, errp)) {
        destination_start(addr, !has_exit_on_error || exit_on_error, errp);
    }
}

void qmp_migrate_cancel(Error **errp)
{
    source_cancel(errp);
}

void qmp_migrate_continue(MigrationStatus state, Error **errp)
{
    source_continue(state, errp);
}

/* Postcopy and what belongs to it */

void qmp_migrate_start_postcopy(Error **errp)
{
    source_start_postcopy(errp);
}

/*
 * In the monitor's thread, while the main loop may be about to end what it is
 * about: it goes by the phase and what is under locks, and by nothing else.
 */
void qmp_migrate_recover(const char *uri, Error **errp)
{
    g_autoptr(MigrationAddress) addr = address_from(uri, NULL, errp);

    if (addr && has_enough_channels(addr, errp)) {
        postcopy_dest_recover(addr, errp);
    }
}

void qmp_migrate_pause(Error **errp)
{
    if (source_can_pause()) {
        source_pause(errp);
        return;
    }
    if (postcopy_dest_pause(errp)) {
        return;
    }
    error_setg(errp, "migrate-pause is currently only supported during "
               "postcopy-active or postcopy-recover state");
}
