/*
 * Commands: their rules, and sending them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "commands.h"

/*
 * Rules
 */

typedef enum CommandPlace {
    PLACE_STREAM = 1 << 0,
    PLACE_PACKAGE = 1 << 1,
    PLACE_ANY = PLACE_STREAM | PLACE_PACKAGE
} CommandPlace;

typedef struct CommandRule {
    const char *name;
    uint32_t len_min;
    uint32_t len_max;
    uint32_t len_step;      /* 0: every length from min to max */
    unsigned steps;         /* bits by LoadStep */
    CommandPlace place;
} CommandRule;

#define AT(step) (1u << STEP_##step)
#define RULE(name_, min, max, step, place_, steps_)                    \
    [WIRE_CMD_##name_] = {                                              \
        .name = #name_, .len_min = (min), .len_max = (max),             \
        .len_step = (step), .place = PLACE_##place_, .steps = (steps_), \
    }
#define FIXED(name_, place_, steps_)                                   \
    RULE(name_, WIRE_CMD_##name_##_LEN, WIRE_CMD_##name_##_LEN, 0,      \
         place_, steps_)

static const CommandRule base_rules[] = {
    FIXED(OPEN_RETURN_PATH, STREAM, AT(PRECOPY)),
    FIXED(PING, ANY, AT(PRECOPY) | AT(ADVISED) | AT(DISCARDING) |
                     AT(LISTENING) | AT(RUNNING)),
    RULE(POSTCOPY_ADVISE, 0, WIRE_CMD_POSTCOPY_ADVISE_LEN,
         WIRE_CMD_POSTCOPY_ADVISE_LEN, STREAM, AT(PRECOPY)),
    FIXED(POSTCOPY_LISTEN, PACKAGE, AT(ADVISED) | AT(DISCARDING) | AT(HELD) |
                                    AT(HELD_DISCARDING)),
    FIXED(POSTCOPY_RUN, PACKAGE, AT(LISTENING)),
    RULE(POSTCOPY_DISCARD, WIRE_CMD_POSTCOPY_DISCARD_MIN, WIRE_CMD_PAYLOAD_MAX,
         0, STREAM, AT(ADVISED) | AT(DISCARDING) | AT(HELD) |
         AT(HELD_DISCARDING)),
    FIXED(PACKAGED, STREAM, AT(ADVISED) | AT(DISCARDING)),
    FIXED(ENABLE_COLO, STREAM, AT(PRECOPY) | AT(ADVISED)),
    /* A device that is being loaded may need a page to go on. */
    FIXED(POSTCOPY_RESUME, STREAM, AT(LISTENING) | AT(RUNNING)),
    RULE(RECV_BITMAP, 1 + 1, 1 + WIRE_NAME_MAX, 0, STREAM,
         AT(LISTENING) | AT(RUNNING)),
    FIXED(SWITCHOVER_START, STREAM, AT(SNAPSHOT) | AT(PRECOPY) | AT(ADVISED) |
                                    AT(LAZY) | AT(HELD) | AT(HELD_DISCARDING)),
};

#undef RULE
#define RULE(name_, min, max, step, place_, steps_)                    \
    [WIRE_CMD_##name_ - WIRE_CMD_PEER_FIRST] = {                        \
        .name = #name_, .len_min = (min), .len_max = (max),             \
        .len_step = (step), .place = PLACE_##place_, .steps = (steps_), \
    }

static const CommandRule peer_rules[] = {
    FIXED(HOLD, STREAM, AT(PRECOPY) | AT(ADVISED) | AT(DISCARDING)),
    FIXED(STATE, STREAM, AT(HELD) | AT(HELD_DISCARDING)),
    FIXED(COMMIT, STREAM, AT(READY) | AT(READY_LISTENING)),
    FIXED(ABORT, STREAM, AT(HELD) | AT(HELD_DISCARDING) | AT(HELD_LISTENING) |
                         AT(READY) | AT(READY_LISTENING)),
    /* They belong to the greeting, which is over when rules are asked for. */
    FIXED(INVENTORY, STREAM, 0),
    FIXED(WITHDRAW, STREAM, 0),
    RULE(LAYOUTS, WIRE_CMD_LAYOUTS_MIN, WIRE_CMD_LAYOUTS_MAX, 0, STREAM, 0),
    FIXED(CHECKPOINT, STREAM, AT(PRECOPY) | AT(EPOCHS)),
    FIXED(CHECKPOINT_END, STREAM, AT(EPOCHS)),
    FIXED(CHECKPOINT_DISKS, STREAM, AT(PRECOPY)),
};

static const CommandRule *find_rule(unsigned command)
{
    const CommandRule *rule = NULL;

    if (command < ARRAY_SIZE(base_rules)) {
        rule = &base_rules[command];
    } else if (command >= WIRE_CMD_PEER_FIRST &&
               command - WIRE_CMD_PEER_FIRST < ARRAY_SIZE(peer_rules)) {
        rule = &peer_rules[command - WIRE_CMD_PEER_FIRST];
    }
    return rule && rule->name ? rule : NULL;
}

static const char *const step_names[STEP__COUNT] = {
    [STEP_SNAPSHOT] = "while loading a file",
    [STEP_PRECOPY] = "during precopy",
    [STEP_ADVISED] = "during precopy that may become postcopy",
    [STEP_DISCARDING] = "while postcopy discards pages",
    [STEP_LISTENING] = "before postcopy started the guest",
    [STEP_RUNNING] = "during postcopy",
    [STEP_LAZY] = "while a file is loaded lazily",
    [STEP_ENDED] = "after the guest was started",
    [STEP_HELD] = "while the guest is being held",
    [STEP_HELD_DISCARDING] = "while the guest is being held",
    [STEP_HELD_LISTENING] = "while the guest is being held",
    [STEP_READY] = "when the guest is ready to be started",
    [STEP_READY_LISTENING] = "when the guest is ready to be started",
    [STEP_EPOCHS] = "while checkpoints are received",
};

const char *command_name(unsigned command)
{
    const CommandRule *rule = find_rule(command);

    return rule ? rule->name : "unknown";
}

bool command_check(unsigned command, unsigned len, LoadStep step,
                   bool in_package, Error **errp)
{
    const CommandRule *rule = find_rule(command);

    if (!rule) {
        error_setg(errp, "Received the unknown migration command 0x%x with "
                   "%u bytes", command, len);
    } else if (len < rule->len_min || len > rule->len_max ||
               (rule->len_step && len % rule->len_step)) {
        error_setg(errp, "Received the migration command %s with %u bytes",
                   rule->name, len);
    } else if (!(rule->steps & (1u << step))) {
        error_setg(errp, "Received the migration command %s %s",
                   rule->name, step_names[step]);
    } else if (!(rule->place & (in_package ? PLACE_PACKAGE : PLACE_STREAM))) {
        error_setg(errp, "Received the migration command %s %s a package",
                   rule->name, in_package ? "inside of" : "outside of");
    } else {
        return true;
    }
    return false;
}

/*
 * Sending
 */

static WireCommand head_of(unsigned command, size_t len)
{
    WireCommand head = { .type = WIRE_COMMAND };

    assert(len <= WIRE_CMD_PAYLOAD_MAX);
    trace_savevm_command_send(command, len);
    stw_be_p(&head.command, command);
    stw_be_p(&head.len, len);
    return head;
}

GByteArray *command_bytes(unsigned command, const void *payload, size_t len)
{
    WireCommand head = head_of(command, len);
    GByteArray *bytes = g_byte_array_sized_new(sizeof(head) + len);

    g_byte_array_append(bytes, (uint8_t *)&head, sizeof(head));
    g_byte_array_append(bytes, payload, len);
    return bytes;
}

GByteArray *command_package(const GByteArray *package)
{
    WirePackaged head;
    GByteArray *bytes;

    trace_qemu_savevm_send_packaged();
    stl_be_p(&head.len, package->len);
    bytes = command_bytes(WIRE_CMD_PACKAGED, &head, sizeof(head));
    g_byte_array_append(bytes, package->data, package->len);
    return bytes;
}

void command_send(QEMUFile *f, unsigned command, const void *payload,
                  size_t len)
{
    WireCommand head = head_of(command, len);

    qemu_put_buffer(f, (uint8_t *)&head, sizeof(head));
    qemu_put_buffer(f, payload, len);
    qemu_fflush(f);
}

void qemu_savevm_send_open_return_path(QEMUFile *f)
{
    command_send(f, WIRE_CMD_OPEN_RETURN_PATH, NULL, 0);
}

void qemu_savevm_send_ping(QEMUFile *f, uint32_t value)
{
    WirePing ping;

    stl_be_p(&ping.value, value);
    command_send(f, WIRE_CMD_PING, &ping, sizeof(ping));
}

void qemu_savevm_send_colo_enable(QEMUFile *f)
{
    command_send(f, WIRE_CMD_ENABLE_COLO, NULL, 0);
}

void command_send_advise(QEMUFile *f, uint64_t host_page_sizes,
                         uint64_t target_page_size)
{
    WirePostcopyAdvise advise;

    stq_be_p(&advise.host_page_sizes, host_page_sizes);
    stq_be_p(&advise.target_page_size, target_page_size);
    command_send(f, WIRE_CMD_POSTCOPY_ADVISE, &advise,
                 host_page_sizes ? sizeof(advise) : 0);
}

void qemu_savevm_send_postcopy_ram_discard(QEMUFile *f, const char *name,
                                           uint16_t len, uint64_t *start_list,
                                           uint64_t *length_list)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    const uint8_t head[] = { WIRE_POSTCOPY_DISCARD_VERSION, strlen(name) };
    WireRange range;

    assert(strlen(name) <= WIRE_NAME_MAX);
    trace_qemu_savevm_send_postcopy_ram_discard(name, len);
    g_byte_array_append(payload, head, sizeof(head));
    g_byte_array_append(payload, (const uint8_t *)name, head[1] + 1);
    for (unsigned i = 0; i < len; i++) {
        stq_be_p(&range.start, start_list[i]);
        stq_be_p(&range.len, length_list[i]);
        g_byte_array_append(payload, (uint8_t *)&range, sizeof(range));
    }
    command_send(f, WIRE_CMD_POSTCOPY_DISCARD, payload->data, payload->len);
}

void qemu_savevm_send_postcopy_listen(QEMUFile *f)
{
    command_send(f, WIRE_CMD_POSTCOPY_LISTEN, NULL, 0);
}

void qemu_savevm_send_postcopy_run(QEMUFile *f)
{
    command_send(f, WIRE_CMD_POSTCOPY_RUN, NULL, 0);
}

void qemu_savevm_send_postcopy_resume(QEMUFile *f)
{
    command_send(f, WIRE_CMD_POSTCOPY_RESUME, NULL, 0);
}

void qemu_savevm_send_recv_bitmap(QEMUFile *f, char *block_name)
{
    uint8_t payload[1 + WIRE_NAME_MAX];
    size_t len = strlen(block_name);

    assert(len <= WIRE_NAME_MAX);
    payload[0] = len;
    memcpy(payload + 1, block_name, len);
    command_send(f, WIRE_CMD_RECV_BITMAP, payload, 1 + len);
}
