/*
 * The destination: what a source sends first, read for a guest that is refused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/wire/wire.h"
#include "greeting.h"
#include "return-path.h"

/* OPEN_RETURN_PATH and three PINGs; later versions may send a few more. */
#define GREETING_COMMANDS_MAX 16

/* Whether there may be more */
static bool greeting_take_command(QEMUFile *f)
{
    bool command = qemu_get_byte(f) == WIRE_COMMAND;
    uint16_t type = command ? qemu_get_be16(f) : 0;
    uint16_t len = command ? qemu_get_be16(f) : 0;
    uint32_t value;

    if (!command || qemu_file_get_error(f)) {
        return false;
    }
    if (type == WIRE_CMD_OPEN_RETURN_PATH) {
        return len == WIRE_CMD_OPEN_RETURN_PATH_LEN && reply_open(f);
    }
    if (type != WIRE_CMD_PING || len != WIRE_CMD_PING_LEN) {
        return false;
    }
    value = qemu_get_be32(f);
    return !qemu_file_get_error(f) && reply_pong(value) &&
           value != WIRE_PING_START;
}

void greeting_read(QEMUFile *f)
{
    for (int i = 0; i < GREETING_COMMANDS_MAX && greeting_take_command(f);
         i++) {
        /* the next one */
    }
}
