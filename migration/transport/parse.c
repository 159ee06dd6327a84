/*
 * Addresses of a migration: from URIs and from lists of channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/sockets.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "migration/misc.h"
#include "transport.h"

#define FILE_OFFSET ",offset="

#define KNOWN_FORMS "tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, fd:NAME, " \
                    "exec:COMMAND, file:PATH[,offset=BYTES], rdma:HOST:PORT"

/* Each fills in @addr from what follows the scheme. */
typedef bool ParseScheme(const char *uri, const char *rest,
                         MigrationAddress *addr, Error **errp);

static bool parse_socket(const char *uri, const char *rest,
                         MigrationAddress *addr, Error **errp)
{
    SocketAddress *parsed = socket_parse(uri, errp);

    if (!parsed) {
        return false;
    }
    addr->transport = MIGRATION_ADDRESS_TYPE_SOCKET;
    addr->u.socket = *parsed;
    g_free(parsed);         /* what it points to is addr's now */
    return true;
}

static bool parse_exec(const char *uri, const char *rest,
                       MigrationAddress *addr, Error **errp)
{
    const char *const argv[] = { "/bin/sh", "-c", rest };
    strList **tail = &addr->u.exec.args;

    if (!*rest) {
        error_setg(errp, "'%s' names no command; use exec:COMMAND", uri);
        return false;
    }
    addr->transport = MIGRATION_ADDRESS_TYPE_EXEC;
    for (int i = 0; i < ARRAY_SIZE(argv); i++) {
        QAPI_LIST_APPEND(tail, g_strdup(argv[i]));
    }
    return true;
}

static bool parse_file(const char *uri, const char *rest,
                       MigrationAddress *addr, Error **errp)
{
    const char *option = strstr(rest, FILE_OFFSET);
    size_t len = option ? option - rest : strlen(rest);

    if (option && qemu_strtosz(option + strlen(FILE_OFFSET), NULL,
                               &addr->u.file.offset) < 0) {
        error_setg(errp, "'%s' is no offset into a file; use a number of "
                   "bytes, which may end in k, M, G, ...",
                   option + strlen(FILE_OFFSET));
        return false;
    }
    addr->transport = MIGRATION_ADDRESS_TYPE_FILE;
    addr->u.file.filename = g_strndup(rest, len);
    return true;
}

static bool parse_rdma(const char *uri, const char *rest,
                       MigrationAddress *addr, Error **errp)
{
    addr->transport = MIGRATION_ADDRESS_TYPE_RDMA;
    return inet_parse(&addr->u.rdma, rest, errp) == 0;
}

static const struct {
    const char *prefix;
    ParseScheme *parse;
} schemes[] = {
    { "tcp:",   parse_socket },
    { "unix:",  parse_socket },
    { "vsock:", parse_socket },
    { "fd:",    parse_socket },
    { "exec:",  parse_exec },
    { "file:",  parse_file },
    { "rdma:",  parse_rdma },
};

static bool parse_uri(const char *uri, MigrationAddress *addr, Error **errp)
{
    const char *rest;

    for (int i = 0; i < ARRAY_SIZE(schemes); i++) {
        if (strstart(uri, schemes[i].prefix, &rest)) {
            return schemes[i].parse(uri, rest, addr, errp);
        }
    }
    error_setg(errp, "'%s' is no address of a migration; known are "
               KNOWN_FORMS, uri);
    return false;
}

/* The entry 'main'; NULL and @errp if there is not exactly one */
static MigrationChannel *main_entry(MigrationChannelList *channels,
                                    Error **errp)
{
    MigrationChannel *entry[MIGRATION_CHANNEL_TYPE__MAX] = { NULL };

    for (; channels; channels = channels->next) {
        MigrationChannelType type = channels->value->channel_type;

        if (entry[type]) {
            error_setg(errp, "The list of channels has more than one of type "
                       "'%s'", MigrationChannelType_str(type));
            return NULL;
        }
        entry[type] = channels->value;
    }
    if (!entry[MIGRATION_CHANNEL_TYPE_MAIN]) {
        error_setg(errp, "The list of channels has none of type 'main'");
    }
    return entry[MIGRATION_CHANNEL_TYPE_MAIN];
}

/* What QAPI takes for a name may still be none. */
static bool check_socket(const SocketAddress *addr, Error **errp)
{
    const char *name = "-";

    if (addr->type == SOCKET_ADDRESS_TYPE_UNIX) {
        name = addr->u.q_unix.path;
    } else if (addr->type == SOCKET_ADDRESS_TYPE_FD) {
        name = addr->u.fd.str;
    }
    if (!*name) {
        error_setg(errp, "The address of type '%s' is empty",
                   SocketAddressType_str(addr->type));
    }
    return *name;
}

static bool check_address(const MigrationAddress *addr, Error **errp)
{
    switch (addr->transport) {
    case MIGRATION_ADDRESS_TYPE_SOCKET:
        return check_socket(&addr->u.socket, errp);
    case MIGRATION_ADDRESS_TYPE_EXEC:
        if (!addr->u.exec.args || !*addr->u.exec.args->value) {
            error_setg(errp, "The list of arguments to execute names no "
                       "command");
            return false;
        }
        return true;
    case MIGRATION_ADDRESS_TYPE_FILE:
        if (!*addr->u.file.filename) {
            error_setg(errp, "The name of the file to migrate to or from is "
                       "empty; use file:PATH[,offset=BYTES]");
            return false;
        }
        if (addr->u.file.offset > INT64_MAX) {
            error_setg(errp, "Offset %" PRIu64 " lies beyond the end of any "
                       "file", addr->u.file.offset);
            return false;
        }
        return true;
    case MIGRATION_ADDRESS_TYPE_RDMA:
#ifdef CONFIG_RDMA
        return true;
#else
        error_setg(errp, "this QEMU was built without RDMA; use "
                   "tcp:HOST:PORT");
        return false;
#endif
    default:
        g_assert_not_reached();
    }
}

bool transport_parse(const char *uri, MigrationChannelList *channels,
                     MigrationAddress **out, Error **errp)
{
    g_autoptr(MigrationAddress) addr = NULL;

    if (!uri == !channels) {
        error_setg(errp, "Exactly one of 'uri' and 'channels' is needed");
        return false;
    }
    if (uri) {
        addr = g_new0(MigrationAddress, 1);
        if (!parse_uri(uri, addr, errp)) {
            return false;
        }
    } else {
        MigrationChannel *entry = main_entry(channels, errp);

        if (!entry) {
            return false;
        }
        addr = QAPI_CLONE(MigrationAddress, entry->addr);
    }
    if (!check_address(addr, errp)) {
        return false;
    }
    *out = g_steal_pointer(&addr);
    return true;
}

/*
 * The command line and HMP make channels of what they are given
 */

bool migrate_is_uri(const char *uri)
{
    const char *end = uri;

    while (g_ascii_isalpha(*end)) {
        end++;
    }
    return end > uri && *end == ':';
}

bool migrate_uri_parse(const char *uri, MigrationChannel **channel,
                       Error **errp)
{
    MigrationAddress *addr;

    if (!transport_parse(uri, NULL, &addr, errp)) {
        return false;
    }
    *channel = g_new0(MigrationChannel, 1);
    (*channel)->channel_type = MIGRATION_CHANNEL_TYPE_MAIN;
    (*channel)->addr = addr;
    return true;
}
