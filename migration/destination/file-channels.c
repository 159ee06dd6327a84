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

bool file_channels_open(const MigrationAddress *addr, Error **errp)
{
    unsigned count = migrate_multifd_channels(), made = 0;
    g_autofree QEMUFile **files = g_new0(QEMUFile *, count);

    while (made < count) {
        QIOChannel *ioc = transport_reopen_file(addr, true, migrate_direct_io(),
                                                errp);

        if (!ioc) {
            while (made) {
                qemu_fclose(files[--made]);
            }
            return false;
        }
        files[made++] = qemu_file_new_input(ioc);
        object_unref(OBJECT(ioc));
    }
    file_readers_begin(files, count);
    ram_load_set_readers(file_readers_load);
    return true;
}

void file_channels_close(void)
{
    ram_load_set_readers(NULL);
    file_readers_end();
}
