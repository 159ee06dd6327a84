/*
 * Channels that are there as soon as they are opened: fd, exec, file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/type-helpers.h"
#include "qemu/error-report.h"
#include "io/channel-file.h"
#include "io/channel-util.h"
#include "migration/options.h"
#include "monitor/monitor.h"
#include "private.h"

const SocketAddress *transport_endpoint(const MigrationAddress *addr)
{
    bool is_endpoint = addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET &&
                       addr->u.socket.type != SOCKET_ADDRESS_TYPE_FD;

    return is_endpoint ? &addr->u.socket : NULL;
}

/* Some hosts have no sockets among their files. */
static bool is_socket_or_pipe(const struct stat *st)
{
#ifdef S_ISSOCK
    if (S_ISSOCK(st->st_mode)) {
        return true;
    }
#endif
    return S_ISFIFO(st->st_mode);
}

/*
 * Channels to regular files are what old scripts make: they work, but whoever
 * means a file is better off with a name.
 */
static QIOChannel *open_fd(const MigrationAddress *addr, bool incoming,
                           Error **errp)
{
    int fd = monitor_fd_param(monitor_cur(), addr->u.socket.u.fd.str, errp);
    QIOChannel *ioc;
    struct stat st;

    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Cannot migrate over file descriptor "
                         "'%s'", addr->u.socket.u.fd.str);
        return NULL;
    }
    if (!is_socket_or_pipe(&st)) {
        warn_report("fd: is for sockets and pipes; that it takes a file is "
                    "deprecated, use file:PATH");
    }
    ioc = qio_channel_new_fd(fd, errp);
    if (!ioc) {
        close(fd);
    }
    return ioc;
}

static QIOChannel *open_exec(const MigrationAddress *addr, bool incoming,
                             Error **errp)
{
    g_auto(GStrv) argv = strv_from_str_list(addr->u.exec.args);

    return transport_open_child((const char *const *)argv, errp);
}

/*
 * What lies before the offset is the user's; what comes after it goes.
 *
 * A device has its size, a FIFO none.  A file that has the length already is
 * not truncated: ext4 writes one that was to the disk as soon as it is closed.
 */
static int compare_length(QIOChannelFile *file, uint64_t offset)
{
    struct stat st;

    if (fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        st.st_size == offset) {
        return 0;
    }
    return st.st_size > offset ? 1 : -1;
}

bool transport_file_is_longer(const MigrationAddress *addr, QIOChannel *ioc)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_FILE &&
           compare_length(QIO_CHANNEL_FILE(ioc), addr->u.file.offset) > 0;
}

bool transport_file_truncate(QIOChannel *ioc, uint64_t offset, Error **errp)
{
    if (ftruncate(QIO_CHANNEL_FILE(ioc)->fd, offset) < 0) {
        error_setg_errno(errp, errno, "Cannot make the file %" PRIu64
                         " bytes long", offset);
        return false;
    }
    return true;
}

/* To be longer costs a file nothing. */
static bool make_longer(QIOChannelFile *file, uint64_t offset, Error **errp)
{
    return compare_length(file, offset) >= 0 ||
           transport_file_truncate(QIO_CHANNEL(file), offset, errp);
}

/*
 * A FIFO that nobody has opened at its other end is waited for when there is
 * data to be read, but not in order to write.
 */
static QIOChannelFile *open_path(const char *path, int flags, Error **errp)
{
    ERRP_GUARD();
    QIOChannelFile *file;
    struct stat st;

#ifdef O_NONBLOCK
    flags |= O_NONBLOCK;
#endif
    file = qio_channel_file_new_path(path, flags, 0600, errp);
    if (!file && stat(path, &st) == 0 && S_ISFIFO(st.st_mode)) {
        error_prepend(errp, "A FIFO must have a reader before a migration to "
                      "it starts: ");
    }
    return file;
}

static QIOChannel *open_plain_file(const MigrationAddress *addr, bool incoming,
                                   Error **errp)
{
    const FileMigrationArgs *args = &addr->u.file;
    int flags = incoming ? O_RDONLY : O_WRONLY | O_CREAT;
    g_autoptr(QIOChannelFile) file = NULL;

    if (migrate_tls()) {
        error_setg(errp, "TLS needs a peer, which a file is not; reset "
                   "'tls-creds' or migrate over a socket");
        return NULL;
    }
    file = open_path(args->filename, flags, errp);
    if (!file || (!incoming && !make_longer(file, args->offset, errp))) {
        return NULL;
    }
    if (args->offset && qio_channel_io_seek(QIO_CHANNEL(file), args->offset,
                                            SEEK_SET, errp) < 0) {
        return NULL;
    }
    return QIO_CHANNEL(g_steal_pointer(&file));
}

QIOChannel *transport_reopen_file(const MigrationAddress *addr, bool incoming,
                                  bool direct, Error **errp)
{
    ERRP_GUARD();
    int flags = incoming ? O_RDONLY : O_WRONLY;
    QIOChannelFile *file;

#ifdef O_DIRECT
    flags |= direct ? O_DIRECT : 0;
#endif
    file = open_path(addr->u.file.filename, flags, errp);
    if (!file) {
        error_prepend(errp, "One more channel to the file cannot be opened%s: ",
                      direct ? " with 'direct-io'" : "");
        return NULL;
    }
    qio_channel_set_name(QIO_CHANNEL(file), "migration-file");
    return QIO_CHANNEL(file);
}

static const struct {
    QIOChannel *(*open)(const MigrationAddress *addr, bool incoming,
                        Error **errp);
    const char *name;
} kinds[MIGRATION_ADDRESS_TYPE__MAX] = {
    [MIGRATION_ADDRESS_TYPE_SOCKET] = { open_fd, "migration-fd" },
    [MIGRATION_ADDRESS_TYPE_EXEC] = { open_exec, "migration-exec" },
    [MIGRATION_ADDRESS_TYPE_FILE] = { open_plain_file, "migration-file" },
};

QIOChannel *transport_open(const MigrationAddress *addr, bool incoming,
                           Error **errp)
{
    QIOChannel *ioc;

    assert(!transport_endpoint(addr) && kinds[addr->transport].open);
    ioc = kinds[addr->transport].open(addr, incoming, errp);
    if (ioc) {
        qio_channel_set_name(ioc, kinds[addr->transport].name);
    }
    return ioc;
}
