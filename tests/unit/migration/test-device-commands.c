/*
 * Unit tests of commands: what may come when, and the bytes of each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "io/channel-buffer.h"
#include "setup.h"
#include "migration/savevm.h"
#include "migration/wire/commands.h"

/*
 * Each line is one thing that an honest source does: command, lengths, the
 * steps by a letter (Snapshot, Precopy, Advised, Discarding, Listening,
 * Running, Ended, Held, held and discardinG, held and lIstening, readY, ready
 * and listeniNg, Checkpoints), and Outside or Inside of a package.
 */
typedef struct Legal {
    unsigned command;
    unsigned lens[3];
    unsigned n;
    const char *steps;
    const char *places;
} Legal;

static const Legal legal[] = {
    { 1, { 0 }, 1, "P", "O" },
    { 2, { 4 }, 1, "PADLR", "OI" },
    { 3, { 0, 16 }, 2, "P", "O" },
    { 4, { 0 }, 1, "ADHG", "I" },
    { 5, { 0 }, 1, "L", "I" },
    { 6, { 20, 36, 65535 }, 3, "ADHG", "O" },
    { 7, { 4 }, 1, "AD", "O" },
    { 8, { 0 }, 1, "PA", "O" },
    { 9, { 0 }, 1, "LR", "O" },
    { 10, { 2, 7, 256 }, 3, "LR", "O" },
    { 11, { 0 }, 1, "SPAZHG", "O" },
    { 0x4600, { 8 }, 1, "PAD", "O" },
    { 0x4601, { 8 }, 1, "HG", "O" },
    { 0x4602, { 4 }, 1, "YN", "O" },
    { 0x4603, { 4 }, 1, "HGIYN", "O" },
    { 0x460a, { 16 }, 1, "PC", "O" },
    { 0x460b, { 8 }, 1, "C", "O" },
    { 0x460c, { 4 }, 1, "P", "O" },
};

static const char step_letters[] = "SPADLRZEHGIYNC";

static bool is_legal(unsigned command, unsigned len, int step, bool inside)
{
    for (int i = 0; i < ARRAY_SIZE(legal); i++) {
        const Legal *l = &legal[i];

        if (l->command != command || !strchr(l->steps, step_letters[step])
            || !strchr(l->places, inside ? 'I' : 'O')) {
            continue;
        }
        for (unsigned k = 0; k < l->n; k++) {
            if (l->lens[k] == len) {
                return true;
            }
        }
    }
    return false;
}

/* Every command in every step and place, with legal and other lengths. */
static unsigned check_rules(unsigned from, unsigned to)
{
    static const unsigned lens[] = {
        0, 2, 4, 7, 8, 16, 20, 36, 256, 65535
    };
    unsigned accepted = 0;

    g_assert_cmpuint(strlen(step_letters), ==, STEP__COUNT);
    for (unsigned command = from; command < to; command++) {
        for (int l = 0; l < ARRAY_SIZE(lens); l++) {
            for (int i = 0; i < 2 * STEP__COUNT; i++) {
                bool want = is_legal(command, lens[l], i / 2, i & 1);
                Error *err = NULL;
                bool got;

                /* Variable ones take these, too. */
                if (command == 6 && lens[l] == 256) {
                    continue;
                }
                if (command == 10 && lens[l] >= 2 && lens[l] <= 256) {
                    want = is_legal(command, 7, i / 2, i & 1);
                }
                got = command_check(command, lens[l], i / 2, i & 1, &err);
                g_assert_cmpint(got, ==, want);
                g_assert_true(got == !err);
                if (err && strcmp(command_name(command), "unknown")) {
                    g_assert_nonnull(strstr(error_get_pretty(err),
                                            command_name(command)));
                }
                error_free(err);
                accepted += got;
            }
        }
    }
    return accepted;
}

static void test_rules(void)
{
    g_assert_cmpuint(check_rules(0, 20), >, 20);
    g_assert_cmpuint(check_rules(0x45f0, 0x4610), ==, 16);
}

static void test_names(void)
{
    /* They belong to the greeting, and may come nowhere else. */
    g_assert_cmpstr(command_name(WIRE_CMD_INVENTORY), ==, "INVENTORY");
    g_assert_cmpstr(command_name(WIRE_CMD_WITHDRAW), ==, "WITHDRAW");
    g_assert_cmpstr(command_name(WIRE_CMD_LAYOUTS), ==, "LAYOUTS");
    g_assert_cmpstr(command_name(0), ==, "unknown");
    g_assert_cmpstr(command_name(2), ==, "PING");
    g_assert_cmpstr(command_name(WIRE_CMD_SWITCHOVER_START + 1), ==, "unknown");
    g_assert_cmpstr(command_name(UINT_MAX), ==, "unknown");
}

/* What the senders put, as QEMU 10.0 does. */
static void test_bytes(void)
{
    static const uint8_t want[] = {
        8, 0, 1, 0, 0,
        8, 0, 2, 0, 4, 0xde, 0xad, 0xbe, 0xef,
        8, 0, 3, 0, 16, 0, 0, 0, 0, 0, 0x20, 0x10, 0,
                        0, 0, 0, 0, 0, 0, 0x10, 0,
        8, 0, 3, 0, 0,
        8, 0, 4, 0, 0,
        8, 0, 5, 0, 0,
        8, 0, 6, 0, 38, 0, 3, 'r', 'a', 'm', 0,
                        0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0,
                        0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0,
        8, 0, 8, 0, 0,
        8, 0, 9, 0, 0,
        8, 0, 10, 0, 4, 3, 'r', 'a', 'm',
    };
    QIOChannelBuffer *buffer = qio_channel_buffer_new(0);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(buffer));
    uint64_t starts[] = { 0x1000, 0x10000000000 };
    uint64_t lens[] = { 0x2000, 0x1000 };
    char name[] = "ram";

    qemu_savevm_send_open_return_path(f);
    qemu_savevm_send_ping(f, 0xdeadbeef);
    command_send_advise(f, 0x201000, 0x1000);
    command_send_advise(f, 0, 0x1000);
    qemu_savevm_send_postcopy_listen(f);
    qemu_savevm_send_postcopy_run(f);
    qemu_savevm_send_postcopy_ram_discard(f, "ram", 2, starts, lens);
    qemu_savevm_send_colo_enable(f);
    qemu_savevm_send_postcopy_resume(f);
    qemu_savevm_send_recv_bitmap(f, name);
    /* Each was flushed. */
    g_assert_cmpmem(buffer->data, buffer->usage, want, sizeof(want));
    qemu_fclose(f);
    object_unref(OBJECT(buffer));
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/migration/commands/rules", test_rules);
    g_test_add_func("/migration/commands/names", test_names);
    g_test_add_func("/migration/commands/bytes", test_bytes);
    return g_test_run();
}
