/*
 * The destination: what a source sends first, before anything is prepared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "migration/core/inventory.h"
#include "migration/trace.h"
#include "migration/wire/wire.h"
#include "greeting.h"
#include "return-path.h"

/* OPEN_RETURN_PATH and three PINGs; later versions may send a few more. */
#define GREETING_COMMANDS_MAX 16

typedef struct Greeting {
    QEMUFile *f;
    bool asked;                 /* the source was sent the inventory */
    bool asked_layouts;         /* and fields */
    bool withdrawn;
} Greeting;

/* What comes next, if it is a command; nothing is taken from the stream. */
static bool peek_command(QEMUFile *f, uint16_t *type, uint16_t *len)
{
    uint8_t *bytes;

    if (qemu_peek_buffer(f, &bytes, 1, 0) < 1 || bytes[0] != WIRE_COMMAND ||
        qemu_peek_buffer(f, &bytes, sizeof(WireCommand), 0) <
        sizeof(WireCommand)) {
        return false;
    }
    *type = lduw_be_p(bytes + offsetof(WireCommand, command));
    *len = lduw_be_p(bytes + offsetof(WireCommand, len));
    return true;
}

static void skip_head(QEMUFile *f)
{
    uint8_t head[sizeof(WireCommand)];

    qemu_get_buffer(f, head, sizeof(head));
}

static bool take_ping(QEMUFile *f)
{
    uint32_t value;

    skip_head(f);
    value = qemu_get_be32(f);
    if (qemu_file_get_error(f)) {
        return false;
    }
    trace_loadvm_process_command_ping(value);
    /* If the source is gone, reading the stream fails. */
    reply_pong(value);
    return true;
}

/* Takes over @inventory. */
static bool answer_with(Inventory *inventory)
{
    g_autoptr(GByteArray) bytes = inventory_encode(inventory);

    trace_migration_inventory(inventory->items->len, bytes->len);
    inventory_free(inventory);
    return reply_inventory(bytes->data, bytes->len);
}

static bool send_inventory(Greeting *g)
{
    Inventory *inventory;

    skip_head(g->f);
    g->asked = true;
    bql_lock();
    inventory = inventory_collect(false);
    bql_unlock();
    return answer_with(inventory);
}

/* NULL if the payload is none: the command is left to be read then. */
static GPtrArray *peek_types(QEMUFile *f, uint16_t len)
{
    size_t size = sizeof(WireCommand) + len;
    uint8_t *bytes;

    if (qemu_peek_buffer(f, &bytes, size, 0) < size) {
        return NULL;
    }
    return inventory_decode_types(bytes + sizeof(WireCommand), len);
}

static bool send_layouts(Greeting *g, uint16_t len)
{
    g_autoptr(GPtrArray) types = peek_types(g->f, len);
    Inventory *inventory;

    if (!types) {
        return false;
    }
    qemu_file_skip(g->f, sizeof(WireCommand) + len);
    g->asked_layouts = true;
    bql_lock();
    inventory = inventory_layouts(types);
    bql_unlock();
    return answer_with(inventory);
}

/*
 * Whether there may be more.  What is out of place is left to be read by those
 * who say why it is refused.
 */
static bool greeting_take_command(Greeting *g)
{
    uint16_t type, len;

    if (!peek_command(g->f, &type, &len)) {
        return false;
    }
    if (type == WIRE_CMD_OPEN_RETURN_PATH) {
        if (len != WIRE_CMD_OPEN_RETURN_PATH_LEN || !reply_open(g->f)) {
            return false;
        }
        skip_head(g->f);
        return true;
    }
    if (type == WIRE_CMD_PING) {
        return len == WIRE_CMD_PING_LEN && reply_is_open() && take_ping(g->f);
    }
    if (type == WIRE_CMD_INVENTORY) {
        return len == WIRE_CMD_INVENTORY_LEN && !g->asked &&
               (reply_peer_features() & WIRE_PEER_INVENTORY) &&
               send_inventory(g);
    }
    if (type == WIRE_CMD_LAYOUTS) {
        return len >= WIRE_CMD_LAYOUTS_MIN && len <= WIRE_CMD_LAYOUTS_MAX &&
               g->asked && !g->asked_layouts && send_layouts(g, len);
    }
    if (type == WIRE_CMD_WITHDRAW && len == WIRE_CMD_WITHDRAW_LEN && g->asked) {
        skip_head(g->f);
        g->withdrawn = true;
    }
    return false;
}

bool greeting_read(QEMUFile *f)
{
    Greeting g = { .f = f };

    for (int i = 0; i < GREETING_COMMANDS_MAX && greeting_take_command(&g);
         i++) {
        /* the next one */
    }
    return !g.withdrawn && !(g.asked && qemu_file_get_error(f));
}
