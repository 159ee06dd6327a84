/*
 * The secondary of checkpoints, given streams that end at each of their bytes
 *
 * The emulator is made up: memory and devices are bytes that are written down,
 * and so is what the primary would be told.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "migration/base/load-step.h"
#include "migration/base/sides.h"
#include "migration/checkpoint/epoch.h"
#include "migration/checkpoint/possible.h"
#include "migration/checkpoint/replicated-disks.h"
#include "migration/checkpoint/secondary.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/destination/return-path.h"
#include "migration/destination/state.h"
#include "migration/options.h"
#include "mock-channel.h"
#include "setup.h"

#define EPOCHS 3
#define MEMORY(n) (30 + (n))    /* bytes of epoch n */
#define DEVICES(n) (20 + (n))
#define LARGEST 64

Destination destination;

static unsigned disks;          /* that are replicated here */

/* What the secondary did in the migration that is tested */
static struct {
    unsigned acks, loaded;      /* epochs */
    unsigned commits;           /* of disks */
    bool commit_fails, over;    /* the last commit; the disks are taken over */
    unsigned started;           /* epoch that the guest was started from */
    unsigned accepted;          /* times that the primary was told so */
    bool acks_fail, devices_fail;
    bool hasty;                 /* it is taken over when it acknowledges */
    GThread *takeover;
    char *why;                  /* it failed */
    QEMUBHFunc *later;          /* is to be done by the main loop */
} did;

static uint8_t fill(unsigned number, unsigned at, bool memory)
{
    return number * 64 + at + (memory ? 0 : 131);
}

/* The whole of @f must be the part of epoch @number. */
static void check_part(QEMUFile *f, unsigned number, bool memory)
{
    unsigned len = memory ? MEMORY(number) : DEVICES(number);
    uint8_t read[LARGEST];

    g_assert_cmpuint(qemu_get_buffer(f, read, LARGEST), ==, len);
    for (unsigned i = 0; i < len; i++) {
        g_assert_cmphex(read[i], ==, fill(number, i, memory));
    }
}

/*
 * What the secondary uses of others
 */

bool migrate_checkpoint(void)
{
    return true;
}

bool checkpoint_disks_possible(bool primary, unsigned *count, Error **errp)
{
    g_assert_false(primary);
    *count = disks;
    return true;
}

bool replicated_disks_commit(bool first, Error **errp)
{
    g_assert_cmpint(first, ==, !did.commits);
    did.commits++;
    if (did.commit_fails && did.commits == EPOCHS) {
        error_setg(errp, "a disk");
        return false;
    }
    return true;
}

void replicated_disks_take_over(void)
{
    g_assert_cmpuint(did.started, ==, 0);
    did.over = true;
}

bool epochs_load_memory(QEMUFile *f, Error **errp)
{
    check_part(f, ++did.loaded, true);
    return true;
}

bool epochs_load_devices(QEMUFile *f, Error **errp)
{
    check_part(f, did.loaded, false);
    if (did.devices_fail) {
        error_setg(errp, "a device");
    }
    return !did.devices_fail;
}

void epochs_take_over(void)
{
    g_assert_cmpuint(did.started, ==, 0);
    did.started = did.loaded;
}

void epochs_fail(Error *err)
{
    notify_error(err);
}

static void *take_over(void *opaque)
{
    g_assert_true(secondary_failover(&error_abort));
    return NULL;
}

/* From here on the primary may know of it. */
static void begin_takeover(void)
{
    did.takeover = g_thread_new("takeover", take_over, NULL);
    g_usleep(20 * 1000);        /* for the command to come this early */
}

bool reply_checkpoint_ack(uint64_t number)
{
    if (did.acks_fail) {
        return false;
    }
    g_assert_cmpuint(number, ==, ++did.acks);
    /* Nothing of it is in place before that. */
    g_assert_cmpuint(did.loaded, ==, number - 1);
    /* Its disks are. */
    g_assert_cmpuint(did.commits, ==, disks ? number : 0);
    if (did.hasty) {
        begin_takeover();
    }
    return true;
}

bool reply_error(const char *why)
{
    return true;
}

bool reply_accept(void)
{
    did.accepted++;
    return true;
}

void notify_error(Error *err)
{
    g_free(did.why);
    did.why = g_strdup(error_get_pretty(err));
    error_free(err);
}

void notify_clear_error(void)
{
    g_clear_pointer(&did.why, g_free);
}

void main_loop_run(QEMUBHFunc *fn, void *opaque)
{
    g_assert_null(did.later);
    did.later = fn;
}

bool main_loop_is_ending(void)
{
    return false;
}

/* What is wrong is told on stderr as well. */
int error_vprintf(const char *fmt, va_list ap)
{
    return 0;
}

/*
 * Streams
 */

/* All epochs as they are sent, from the payload of the first command on */
typedef struct Epochs {
    GByteArray *bytes;
    size_t ends[EPOCHS];        /* offset behind each */
} Epochs;

static void put_command(GByteArray *bytes, unsigned command, unsigned len)
{
    uint8_t head[5] = { WIRE_COMMAND };

    stw_be_p(head + 1, command);
    stw_be_p(head + 3, len);
    g_byte_array_append(bytes, head, sizeof(head));
}

static void put_part(GByteArray *bytes, unsigned number, bool memory)
{
    unsigned len = memory ? MEMORY(number) : DEVICES(number);

    for (unsigned i = 0; i < len; i++) {
        uint8_t byte = fill(number, i, memory);

        g_byte_array_append(bytes, &byte, 1);
    }
}

/* Who calls begin() has read the first command, but for its payload. */
static void epochs_make(Epochs *e)
{
    e->bytes = g_byte_array_new();
    for (unsigned number = 1; number <= EPOCHS; number++) {
        WireCheckpoint wire;

        epoch_head_encode(&(EpochHead) { number, MEMORY(number),
                                         DEVICES(number) }, &wire);
        if (number > 1) {
            put_command(e->bytes, WIRE_CMD_CHECKPOINT, sizeof(wire));
        }
        g_byte_array_append(e->bytes, (uint8_t *)&wire, sizeof(wire));
        put_part(e->bytes, number, true);
        put_part(e->bytes, number, false);
        e->ends[number - 1] = e->bytes->len;
    }
}

static unsigned whole_epochs(const Epochs *e, size_t len)
{
    unsigned whole = 0;

    while (whole < EPOCHS && e->ends[whole] <= len) {
        whole++;
    }
    return whole;
}

static void ignore_shutdown(void *opaque)
{
}

static unsigned announced;      /* replicated disks of the primary */

/* CHECKPOINT_DISKS, in a stream of its own */
static bool take_disks(unsigned count, Error **errp)
{
    uint8_t wire[WIRE_CMD_CHECKPOINT_DISKS_LEN];
    MockChannel *mc;
    QEMUFile *f;
    bool ok;

    if (!count) {
        return true;
    }
    stl_be_p(wire, count);
    mc = mock_channel_reader(wire, sizeof(wire));
    f = qemu_file_new_input(QIO_CHANNEL(mc));
    object_unref(OBJECT(mc));
    ok = destination.epochs->disks(f, errp);
    qemu_fclose(f);
    return ok;
}

/* A migration of which @len bytes come; what the incoming thread says of it. */
static bool receive(const uint8_t *bytes, size_t len, Error **errp)
{
    MockChannel *mc = mock_channel_reader(bytes, len);

    mc->on_shutdown = ignore_shutdown;
    qio_channel_set_feature(QIO_CHANNEL(mc), QIO_CHANNEL_FEATURE_SHUTDOWN);
    destination.from_src = qemu_file_new_input(QIO_CHANNEL(mc));
    object_unref(OBJECT(mc));
    phase_set(&destination_phase, MIGRATION_STATUS_SETUP);
    phase_set(&destination_phase, MIGRATION_STATUS_ACTIVE);
    load_step_begin(STEP_PRECOPY);
    return take_disks(announced, errp) &&
           destination.epochs->begin(destination.from_src, errp) &&
           destination.epochs->receive(destination.from_src, errp);
}

static void end(void)
{
    destination.epochs->forget();
    load_step_end();
    phase_set(&destination_phase, MIGRATION_STATUS_FAILED);
    qemu_fclose(destination.from_src);
    g_free(did.why);
    memset(&did, 0, sizeof(did));
}

static void check_state(MigrationCheckpointState state, unsigned epoch)
{
    g_autoptr(MigrationCheckpoint) told = secondary_query();

    g_assert_cmpstr(MigrationCheckpointState_str(told->state), ==,
                    MigrationCheckpointState_str(state));
    g_assert_cmpuint(told->epoch, ==, epoch);
}

static void check_refused(const char *part)
{
    Error *err = NULL;

    g_assert_false(secondary_failover(&err));
    g_assert_nonnull(strstr(error_get_pretty(err), part));
    error_free(err);
    g_assert_null(did.later);
}

static void main_loop_goes_on(void)
{
    QEMUBHFunc *fn = did.later;

    did.later = NULL;
    fn(NULL);
}

/*
 * Cuts
 */

/* Without a whole epoch there is nothing to start the guest from. */
static void check_none(bool ok, Error *err, size_t len)
{
    g_assert_false(ok);
    g_assert_nonnull(strstr(error_get_pretty(err), "stream ends"));
    g_assert_cmpuint(did.acks + did.loaded, ==, 0);
    if (len >= sizeof(WireCheckpoint)) {
        check_state(MIGRATION_CHECKPOINT_STATE_ENDED, 0);
        check_refused("has ended the protection");
    }
}

/*
 * The guest is started from epoch @whole, by a command that is given when the
 * thread has ended, or, if it is @early, before.
 */
static void check_kept(bool ok, unsigned whole, bool early)
{
    g_assert_true(ok);
    g_assert_cmpuint(did.acks, ==, whole);
    g_assert_cmpuint(did.loaded, ==, whole);
    g_assert_nonnull(strstr(did.why, "stream ends"));
    /* Nor would another migration be accepted yet. */
    check_state(MIGRATION_CHECKPOINT_STATE_PROTECTED, whole);
    if (early) {
        g_assert_true(secondary_failover(&error_abort));
        destination.epochs->ended();
    } else {
        destination.epochs->ended();
        check_state(MIGRATION_CHECKPOINT_STATE_WAITING, whole);
        g_assert_true(secondary_failover(&error_abort));
        g_assert_cmpuint(did.started, ==, 0);
        main_loop_goes_on();
    }
    g_assert_cmpuint(did.started, ==, whole);
    g_assert_cmpuint(did.accepted, ==, 0);
    check_state(MIGRATION_CHECKPOINT_STATE_FAILOVER, whole);
    check_refused("it is being done");
}

static void check_cuts(bool early)
{
    Epochs e;

    epochs_make(&e);
    for (size_t len = 0; len <= e.bytes->len; len++) {
        unsigned whole = whole_epochs(&e, len);
        Error *err = NULL;
        bool ok = receive(e.bytes->data, len, &err);

        if (whole) {
            check_kept(ok, whole, early);
        } else {
            check_none(ok, err, len);
        }
        error_free(err);
        end();
    }
    g_byte_array_unref(e.bytes);
}

static void test_cut(void)
{
    check_cuts(false);
}

static void test_cut_early(void)
{
    check_cuts(true);
}

/* The end of the protection counts when all of its bytes have come. */
static void test_cut_end(void)
{
    uint8_t number[WIRE_CMD_CHECKPOINT_END_LEN];
    Error *err = NULL;
    Epochs e;

    epochs_make(&e);
    put_command(e.bytes, WIRE_CMD_CHECKPOINT_END, sizeof(number));
    stq_be_p(number, EPOCHS);
    g_byte_array_append(e.bytes, number, sizeof(number));
    for (size_t len = e.ends[EPOCHS - 1]; len < e.bytes->len; len++) {
        check_kept(receive(e.bytes->data, len, &error_abort), EPOCHS, false);
        end();
    }
    g_assert_false(receive(e.bytes->data, e.bytes->len, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "after epoch 3"));
    error_free(err);
    check_state(MIGRATION_CHECKPOINT_STATE_ENDED, EPOCHS);
    check_refused("has ended the protection");
    end();
    g_byte_array_unref(e.bytes);
}

/*
 * An epoch that is here and cannot be acknowledged is as good; nothing after
 * it counts.
 */
static void test_no_ack(void)
{
    Epochs e;

    epochs_make(&e);
    did.acks_fail = true;
    g_assert_true(receive(e.bytes->data, e.bytes->len, &error_abort));
    g_assert_cmpuint(did.loaded, ==, 1);
    g_assert_nonnull(strstr(did.why, "cannot be acknowledged"));
    destination.epochs->ended();
    check_state(MIGRATION_CHECKPOINT_STATE_WAITING, 1);
    end();
    g_byte_array_unref(e.bytes);
}

/* Whoever sees that the first epoch is acknowledged takes the guest over. */
static void test_takeover_at_once(void)
{
    Epochs e;

    epochs_make(&e);
    did.hasty = true;
    g_assert_true(receive(e.bytes->data, e.ends[0], &error_abort));
    g_thread_join(did.takeover);
    destination.epochs->ended();
    g_assert_cmpuint(did.started, ==, 1);
    check_state(MIGRATION_CHECKPOINT_STATE_FAILOVER, 1);
    end();
    g_byte_array_unref(e.bytes);
}

/* Given up for another migration: not before the thread has ended, and once. */
static void test_give_up(void)
{
    Epochs e;

    epochs_make(&e);
    g_assert_true(receive(e.bytes->data, e.ends[1], &error_abort));
    g_assert_false(destination.epochs->give_up());
    destination.epochs->ended();
    g_assert_true(destination.epochs->give_up());
    g_assert_nonnull(strstr(did.why, "epoch 2 was given up"));
    check_state(MIGRATION_CHECKPOINT_STATE_ENDED, 2);
    g_assert_false(destination.epochs->give_up());
    check_refused("goes on with the guest");
    end();
    g_byte_array_unref(e.bytes);
}

/* Devices that do not load: the guest is not started. */
static void test_devices_fail(void)
{
    Epochs e;

    epochs_make(&e);
    g_assert_true(receive(e.bytes->data, e.bytes->len, &error_abort));
    destination.epochs->ended();
    did.devices_fail = true;
    g_assert_true(secondary_failover(&error_abort));
    main_loop_goes_on();
    g_assert_cmpuint(did.started, ==, 0);
    g_assert_nonnull(strstr(did.why, "from epoch 3: a device"));
    end();
    g_byte_array_unref(e.bytes);
}

/* Disks of an epoch are committed before it is acknowledged. */
static void test_disks(void)
{
    Epochs e;

    epochs_make(&e);
    disks = announced = 2;
    check_kept(receive(e.bytes->data, e.bytes->len, &error_abort), EPOCHS,
               false);
    g_assert_cmpuint(did.commits, ==, EPOCHS);
    g_assert_true(did.over);
    end();
    /* Half an epoch commits nothing. */
    check_kept(receive(e.bytes->data, e.bytes->len - 1, &error_abort),
               EPOCHS - 1, false);
    g_assert_cmpuint(did.commits, ==, EPOCHS - 1);
    end();
    disks = announced = 0;
    g_byte_array_unref(e.bytes);
}

/* Disks that may be those of no epoch: nothing is started from them. */
static void test_disks_fail(void)
{
    Error *err = NULL;
    Epochs e;

    epochs_make(&e);
    disks = announced = 1;
    did.commit_fails = true;
    g_assert_false(receive(e.bytes->data, e.bytes->len, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "a disk"));
    error_free(err);
    g_assert_cmpuint(did.acks, ==, EPOCHS - 1);
    check_refused("has ended the protection");
    end();
    disks = announced = 0;
    g_byte_array_unref(e.bytes);
}

static void check_disks_differ(unsigned there, unsigned here)
{
    Error *err = NULL;
    Epochs e;

    epochs_make(&e);
    announced = there;
    disks = here;
    g_assert_false(receive(e.bytes->data, e.bytes->len, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "replicated on both"));
    error_free(err);
    g_assert_cmpuint(did.acks + did.loaded + did.commits, ==, 0);
    end();
    disks = announced = 0;
    g_byte_array_unref(e.bytes);
}

static void test_disks_differ(void)
{
    check_disks_differ(0, 1);
    check_disks_differ(1, 0);
    check_disks_differ(1, 2);
    check_disks_differ(UINT32_MAX, 1);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    secondary_init();
    g_test_add_func("/secondary/cut", test_cut);
    g_test_add_func("/secondary/disks", test_disks);
    g_test_add_func("/secondary/disks/fail", test_disks_fail);
    g_test_add_func("/secondary/disks/differ", test_disks_differ);
    g_test_add_func("/secondary/cut/told-early", test_cut_early);
    g_test_add_func("/secondary/cut/end", test_cut_end);
    g_test_add_func("/secondary/no-ack", test_no_ack);
    g_test_add_func("/secondary/takeover-at-once", test_takeover_at_once);
    g_test_add_func("/secondary/give-up", test_give_up);
    g_test_add_func("/secondary/devices-fail", test_devices_fail);
    return g_test_run();
}
