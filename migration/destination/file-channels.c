/*
 * The destination: several channels to the file that is loaded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/multifd/file-readers.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/transport/transport.h"
#include "file-channels.h"
#include "lazy.h"

/* Threads that read mapped RAM where no number of channels was set */
#define HELPERS 2

/* All of them, or none */
static bool open_all(const MigrationAddress *addr, QIOChannel **files,
                     unsigned count, Error **errp)
{
    for (unsigned made = 0; made < count; made++) {
        files[made] = transport_reopen_file(addr, true, migrate_direct_io(),
                                            errp);
        if (!files[made]) {
            while (made) {
                object_unref(OBJECT(files[--made]));
            }
            return false;
        }
    }
    return true;
}

static void give_to_readers(QIOChannel **channels, unsigned count)
{
    g_autofree QEMUFile **files = g_new0(QEMUFile *, count);

    for (unsigned i = 0; i < count; i++) {
        files[i] = qemu_file_new_input(channels[i]);
        object_unref(OBJECT(channels[i]));
    }
    file_readers_begin(files, count);
    ram_load_set_readers(file_readers_load);
}

/*
 * One thread copies from the page cache as fast as one CPU can, which is not
 * what the machine can.  Nobody has requested these channels, so it is no error
 * if they cannot be opened: the main one reads all then.
 */
static void open_helpers(const MigrationAddress *addr)
{
    QIOChannel *files[HELPERS];

    if (addr->transport == MIGRATION_ADDRESS_TYPE_FILE && migrate_mapped_ram()
        && open_all(addr, files, HELPERS, NULL)) {
        give_to_readers(files, HELPERS);
    }
}

bool file_channels_open(const MigrationAddress *addr, Error **errp)
{
    bool lazy = migrate_lazy_restore();
    unsigned count = migrate_multifd() ? migrate_multifd_channels() : 1;
    g_autofree QIOChannel **files = NULL;

    if (!migrate_file_channels() && !lazy) {
        open_helpers(addr);
        return true;
    }
    /* one more is for pages that are requested */
    count += lazy;
    files = g_new0(QIOChannel *, count);
    if (!open_all(addr, files, count, errp)) {
        return false;
    }
    if (lazy) {
        return lazy_restore_open(files, count, errp);
    }
    give_to_readers(files, count);
    return true;
}

void file_channels_close(void)
{
    lazy_restore_end();
    ram_load_set_readers(NULL);
    file_readers_end();
}
