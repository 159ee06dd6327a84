/*
 * Channels of a migration: the end of connecting and listening
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "private.h"

void transport_end(void)
{
    transport_connect_cancel();
    transport_listen_stop();
    transport_addresses_drop();
    transport_yank_leave();
}
