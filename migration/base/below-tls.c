/*
 * What a channel is, with or without TLS
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#ifndef _WIN32
#include <poll.h>
#endif
#include "io/channel-tls.h"
#include "below-tls.h"

QIOChannel *channel_below_tls(QIOChannel *ioc)
{
    QIOChannelTLS *tls = (QIOChannelTLS *)
        object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_TLS);

    return tls ? tls->master : ioc;
}

QIOChannelSocket *channel_socket(QIOChannel *ioc)
{
    return (QIOChannelSocket *)object_dynamic_cast(
        OBJECT(channel_below_tls(ioc)), TYPE_QIO_CHANNEL_SOCKET);
}

#ifdef POLLRDHUP
bool channel_peer_closed(QIOChannel *ioc)
{
    QIOChannelSocket *socket = channel_socket(ioc);
    struct pollfd end = { .events = POLLRDHUP };

    if (!socket) {
        return false;
    }
    end.fd = socket->fd;
    return poll(&end, 1, 0) > 0;
}
#else
bool channel_peer_closed(QIOChannel *ioc)
{
    return false;
}
#endif
