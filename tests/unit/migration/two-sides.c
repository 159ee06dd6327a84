/*
 * A migration from one process to another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <glib/gstdio.h>
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "migration/base/sides.h"
#include "migration/core/fault-inject.h"
#include "migration/core/notify.h"
#include "migration/migration.h"
#include "migration/source/state.h"
#include "system/runstate.h"
#include "fake-memory.h"
#include "time-limit.h"
#include "two-sides.h"

/* For one test, and for one thing that is waited for */
#define TEST_SECONDS 100
#define PATIENCE_MS 40000
#define POLL_US 1000
/* How far a guest has to come to be one that runs */
#define STEPS_OF_LIFE 100

#define ARGUMENT_MAX 2048

typedef struct Order {
    SideFn *fn;
    uint8_t arg[ARGUMENT_MAX];
} Order;

typedef struct Answer {
    int64_t value;
    char text[SIDE_TEXT_MAX];
} Answer;

typedef struct Process {
    pid_t pid;                  /* 0: it was ended */
    int control;
    int output;                 /* what it has printed */
} Process;

static Process processes[SIDES];
static Witness *witness;
static Relay *relay;
static char *folder;
static Answer last_answer;
static uint64_t device_word;    /* what the device has written */
static bool source_counts;

static const char *const side_names[SIDES] = { "source", "destination" };

/*
 * A side's process
 */

static void take_order(void *opaque)
{
    int control = GPOINTER_TO_INT(opaque);
    Answer answer = { .value = 0 };
    Order order;
    ssize_t len = recv(control, &order, sizeof(order), 0);

    if (len != sizeof(order)) {
        _exit(0);
    }
    answer.value = order.fn(order.arg, answer.text);
    if (send(control, &answer, sizeof(answer), MSG_NOSIGNAL) < 0) {
        _exit(0);
    }
}

static void G_NORETURN side_main(SideId side, int control, int output)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(0);
    if (!getenv("TWO_SIDES_VERBOSE")) {
        dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
    } else {
        dup2(STDERR_FILENO, STDOUT_FILENO);
    }
    emulator_init(side, witness);
    qemu_set_fd_handler(control, take_order, NULL, GINT_TO_POINTER(control));
    for (;;) {
        emulator_round();
    }
}

static void start_process(SideId side)
{
    Process *p = &processes[side];
    int pair[2];

    g_assert_false(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                              pair));
    p->output = memfd_create(side_names[side], MFD_CLOEXEC);
    g_assert_cmpint(p->output, >=, 0);
    p->pid = fork();
    g_assert_cmpint(p->pid, >=, 0);
    if (!p->pid) {
        close(pair[0]);
        side_main(side, pair[1], p->output);
    }
    close(pair[1]);
    p->control = pair[0];
}

static void end_process(SideId side)
{
    Process *p = &processes[side];

    if (p->pid) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
        close(p->control);
        close(p->output);
        p->pid = 0;
    }
}

/*
 * Failures
 */

static void show_output(SideId side)
{
    Process *p = &processes[side];
    char text[4096];
    ssize_t len;
    off_t end;

    if (!p->pid) {
        return;
    }
    end = lseek(p->output, 0, SEEK_END);
    len = pread(p->output, text, sizeof(text) - 1,
                MAX(end - (off_t)sizeof(text) + 1, 0));
    if (len > 0) {
        text[len] = 0;
        g_printerr("# %s has printed:\n%s\n", side_names[side], text);
    }
}

static void fail(const char *fmt, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;

static void fail(const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    show_output(SOURCE);
    show_output(DESTINATION);
    if (witness->accused) {
        g_printerr("# noticed before: %s\n", witness->accusation);
    }
    g_error("%s", text);
}

/*
 * Orders
 */

static bool exchange(SideId side, const Order *order)
{
    struct pollfd fd = { processes[side].control, POLLIN };

    return send(fd.fd, order, sizeof(*order), MSG_NOSIGNAL) > 0 &&
           poll(&fd, 1, PATIENCE_MS) > 0 &&
           recv(fd.fd, &last_answer, sizeof(last_answer), 0) > 0;
}

int64_t side_call(SideId side, SideFn *fn, const void *arg, size_t len)
{
    Order order = { .fn = fn };

    g_assert_cmpint(processes[side].pid, >, 0);
    g_assert_cmpuint(len, <=, sizeof(order.arg));
    if (len) {
        memcpy(order.arg, arg, len);
    }
    if (!exchange(side, &order)) {
        fail("the %s does not answer", side_names[side]);
    }
    return last_answer.value;
}

const char *side_text(void)
{
    return last_answer.text;
}

/* For commands: whether it worked */
static int64_t told(Error *err, char *text)
{
    if (err) {
        pstrcpy(text, SIDE_TEXT_MAX, error_get_pretty(err));
        error_free(err);
    }
    return !err;
}

static void command(SideId side, SideFn *fn, const void *arg, size_t len)
{
    if (!side_call(side, fn, arg, len)) {
        fail("the %s refuses a command: %s", side_names[side], side_text());
    }
}

/*
 * Settings
 */

static int64_t set_capability(const void *arg, char *text)
{
    MigrationCapabilityStatus status = {
        .capability = *(const MigrationCapability *)arg, .state = true,
    };
    MigrationCapabilityStatusList list = { .value = &status };
    Error *err = NULL;

    qmp_migrate_set_capabilities(&list, &err);
    return told(err, text);
}

void sides_capability(MigrationCapability cap)
{
    command(SOURCE, set_capability, &cap, sizeof(cap));
    command(DESTINATION, set_capability, &cap, sizeof(cap));
}

static int64_t set_parameters(const void *arg, char *text)
{
    MigrateSetParameters params = *(const MigrateSetParameters *)arg;
    Error *err = NULL;

    qmp_migrate_set_parameters(&params, &err);
    return told(err, text);
}

void side_parameters(SideId side, MigrateSetParameters *params)
{
    command(side, set_parameters, params, sizeof(*params));
}

static int64_t set_faults(const void *arg, char *text)
{
    faults = *(const FaultSet *)arg;
    return true;
}

void side_faults(SideId side, const FaultSet *set)
{
    command(side, set_faults, set, sizeof(*set));
}

static int64_t set_delays(const void *arg, char *text)
{
    Error *err = NULL;

    fault_inject_set(arg, &err);
    return told(err, text);
}

void side_delays(SideId side, const char *text)
{
    command(side, set_delays, text, strlen(text) + 1);
}

/*
 * Commands
 */

static char *path_of(const char *name)
{
    return g_strdup_printf("%s/%s", folder, name);
}

static char *uri_of(const char *name)
{
    return g_strdup_printf("unix:%s/%s", folder, name);
}

static int64_t listen_at(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate_incoming(arg, false, NULL, true, false, &err);
    return told(err, text);
}

void sides_listen(void)
{
    g_autofree char *uri = uri_of("destination");

    command(DESTINATION, listen_at, uri, strlen(uri) + 1);
}

static int64_t migrate_to(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate(arg, false, NULL, false, false, false, false, &err);
    return told(err, text);
}

void sides_migrate(void)
{
    g_autofree char *uri = uri_of("relay");

    sides_listen();
    command(SOURCE, migrate_to, uri, strlen(uri) + 1);
}

void sides_migrate_up_to(const RelayStop *stop)
{
    relay_stop_at(sides_relay(), stop);
    sides_migrate();
    relay_wait(sides_relay());
}

static int64_t cancel(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate_cancel(&err);
    return told(err, text);
}

bool side_may_cancel(void)
{
    return side_call(SOURCE, cancel, NULL, 0);
}

void side_cancel(void)
{
    command(SOURCE, cancel, NULL, 0);
}

static int64_t cont(const void *arg, char *text)
{
    emulator_cont();
    return 0;
}

void side_cont(SideId side)
{
    side_call(side, cont, NULL, 0);
}

static int64_t request_reset(const void *arg, char *text)
{
    emulator_request_reset();
    return 0;
}

void side_request_reset(SideId side)
{
    side_call(side, request_reset, NULL, 0);
}

/* Nothing is decided before the main loop goes on. */
static int64_t migrate_by_postcopy(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate(arg, false, NULL, false, false, false, false, &err);
    if (!err) {
        qmp_migrate_start_postcopy(&err);
    }
    return told(err, text);
}

void sides_migrate_by_postcopy(void)
{
    g_autofree char *uri = uri_of("relay");

    sides_listen();
    command(SOURCE, migrate_by_postcopy, uri, strlen(uri) + 1);
}

static int64_t continue_it(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate_continue(MIGRATION_STATUS_PRE_SWITCHOVER, &err);
    return told(err, text);
}

void side_continue(void)
{
    command(SOURCE, continue_it, NULL, 0);
}

static int64_t pause_it(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate_pause(&err);
    return told(err, text);
}

void side_pause(SideId side)
{
    command(side, pause_it, NULL, 0);
}

static int64_t recover_at(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate_recover(arg, &err);
    return told(err, text);
}

static int64_t resume_to(const void *arg, char *text)
{
    Error *err = NULL;

    qmp_migrate(arg, false, NULL, false, false, true, true, &err);
    return told(err, text);
}

void sides_recover(void)
{
    g_autofree char *here = path_of("destination");
    g_autofree char *at = uri_of("destination");
    g_autofree char *to = uri_of("relay");

    unlink(here);
    command(DESTINATION, recover_at, at, strlen(at) + 1);
    command(SOURCE, resume_to, to, strlen(to) + 1);
}

/*
 * What becomes of it
 */

static int64_t source_phase_is(const void *arg, char *text)
{
    return phase_get(&source_phase);
}

static int64_t destination_phase_is(const void *arg, char *text)
{
    return phase_get(&destination_phase);
}

MigrationStatus side_phase(SideId side)
{
    return side_call(side, side == SOURCE ? source_phase_is
                                          : destination_phase_is, NULL, 0);
}

static bool is_end(MigrationStatus phase)
{
    return phase == MIGRATION_STATUS_COMPLETED ||
           phase == MIGRATION_STATUS_FAILED ||
           phase == MIGRATION_STATUS_CANCELLED;
}

static int64_t deadline(void)
{
    return g_get_monotonic_time() + PATIENCE_MS * 1000;
}

static void out_of_patience(SideId side, const char *what)
{
    g_autofree char *phase =
        g_strdup(MigrationStatus_str(side_phase(side)));

    fail("the %s is %s, and not %s; error: %s", side_names[side], phase, what,
         side_error(side));
}

void side_wait(SideId side, MigrationStatus phase)
{
    int64_t end = deadline();
    MigrationStatus now;

    while ((now = side_phase(side)) != phase) {
        if (is_end(now) || g_get_monotonic_time() > end) {
            out_of_patience(side, MigrationStatus_str(phase));
        }
        g_usleep(POLL_US);
    }
}

void sides_wait(MigrationStatus phase)
{
    side_wait(SOURCE, phase);
    side_wait(DESTINATION, phase);
}

MigrationStatus side_wait_end(SideId side)
{
    int64_t end = deadline();
    MigrationStatus now;

    while (!is_end(now = side_phase(side))) {
        if (g_get_monotonic_time() > end) {
            out_of_patience(side, "at an end");
        }
        g_usleep(POLL_US);
    }
    return now;
}

static int64_t get_error(const void *arg, char *text)
{
    g_autoptr(Error) err = notify_first_error();

    pstrcpy(text, SIDE_TEXT_MAX, err ? error_get_pretty(err) : "");
    return 0;
}

const char *side_error(SideId side)
{
    side_call(side, get_error, NULL, 0);
    return side_text();
}

static int64_t get_run_state(const void *arg, char *text)
{
    return runstate_get();
}

RunState side_run_state(SideId side)
{
    return side_call(side, get_run_state, NULL, 0);
}

static int64_t get_attempts(const void *arg, char *text)
{
    SourceView view;

    source_look(&view);
    pstrcpy(text, SIDE_TEXT_MAX, view.strict.why);
    return view.strict.attempts;
}

unsigned sides_attempts(void)
{
    return side_call(SOURCE, get_attempts, NULL, 0);
}

static int64_t get_events(const void *arg, char *text)
{
    return emulator_events(*(const QAPIEvent *)arg);
}

unsigned side_events(SideId side, QAPIEvent event)
{
    return side_call(side, get_events, &event, sizeof(event));
}

void sides_wait_for_aborted(void)
{
    int64_t end = deadline();

    while (!side_events(SOURCE, QAPI_EVENT_MIGRATION_SWITCHOVER_ABORTED)) {
        if (g_get_monotonic_time() > end || is_end(side_phase(SOURCE))) {
            fail("no attempt is given up; error: %s", side_error(SOURCE));
        }
        g_usleep(POLL_US);
    }
}

static int64_t get_phases(const void *arg, char *text)
{
    g_autofree char *phases = emulator_phases();

    pstrcpy(text, SIDE_TEXT_MAX, phases);
    return 0;
}

const char *side_phases(SideId side)
{
    side_call(side, get_phases, NULL, 0);
    return side_text();
}

/*
 * The guest
 */

void sides_let_guest_run(unsigned long steps)
{
    unsigned long before = qatomic_read(&witness->steps);
    int64_t end = deadline();

    while (qatomic_read(&witness->steps) - before < steps) {
        if (g_get_monotonic_time() > end || witness->accused) {
            fail("the guest does not run: %s", witness->accusation);
        }
        g_usleep(POLL_US);
    }
}

static int64_t copy_memory(const void *arg, char *text)
{
    memory_copy(witness->memory[*(const SideId *)arg]);
    return emulator_steps();
}

static int64_t stop_and_copy(const void *arg, char *text)
{
    emulator_stop();
    return copy_memory(arg, text);
}

/* The first byte that differs */
static void compare_memory(SideId side, uint64_t steps)
{
    g_autofree uint8_t *expected = g_malloc0(GUEST_BYTES);
    const uint8_t *found = witness->memory[side];

    guest_fill(expected);
    guest_replay(expected, steps);
    memcpy(expected + GUEST_DEVICE_WORD, &device_word, sizeof(device_word));
    for (size_t i = 0; i < GUEST_BYTES; i++) {
        if (found[i] != expected[i]) {
            fail("after %" PRIu64 " steps, byte %zu of page %zu of the guest "
                 "on the %s is 0x%02x instead of 0x%02x", steps,
                 i % GUEST_PAGE_SIZE, i / GUEST_PAGE_SIZE, side_names[side],
                 found[i], expected[i]);
        }
    }
}

static void check_memory(SideId side)
{
    uint64_t steps = side_call(side, stop_and_copy, &side, sizeof(side));

    if (steps != qatomic_read(&witness->steps)) {
        fail("the guest on the %s has done %" PRIu64 " steps of %lu",
             side_names[side], steps, witness->steps);
    }
    compare_memory(side, steps);
    if (side == DESTINATION && source_counts && processes[SOURCE].pid) {
        side = SOURCE;
        steps = side_call(side, copy_memory, &side, sizeof(side));
        compare_memory(side, steps);
    }
}

void sides_expect_lost(void)
{
    side_wait(SOURCE, MIGRATION_STATUS_FAILED);
    g_assert_cmpint(side_run_state(SOURCE), ==, RUN_STATE_POSTMIGRATE);
    g_assert_nonnull(strstr(side_error(SOURCE), "cannot run twice"));
}

void sides_expect_word(uint64_t value)
{
    device_word = value;
}

void sides_forget_source(void)
{
    source_counts = false;
}

void sides_expect_guest(SideId side)
{
    sides_let_guest_run(STEPS_OF_LIFE);
    if (qatomic_read(&witness->guest_at) != side + 1) {
        fail("the guest does not run on the %s", side_names[side]);
    }
    g_assert_cmpint(side_run_state(side), ==, RUN_STATE_RUNNING);
    g_assert_cmpint(witness->disks_at, ==, 1 << side);
    check_memory(side);
}

void sides_expect_stopped_guest(SideId side, RunState state)
{
    g_assert_cmpint(qatomic_read(&witness->guest_at), ==, 0);
    g_assert_cmpstr(RunState_str(side_run_state(side)), ==,
                    RunState_str(state));
    check_memory(side);
}

/*
 * Beginning and end
 */

Relay *sides_relay(void)
{
    return relay;
}

Witness *sides_witness(void)
{
    return witness;
}

void side_kill(SideId side)
{
    end_process(side);
    /* A guest that ran there is gone as well. */
    qatomic_cmpxchg(&witness->guest_at, side + 1, 0);
    qatomic_and(&witness->disks_at, ~(1 << side));
}

static void enable_events(void)
{
    sides_capability(MIGRATION_CAPABILITY_EVENTS);
}

void sides_start(void)
{
    g_autofree char *at = NULL, *to = NULL;

    test_limit_time(TEST_SECONDS);
    device_word = 0;
    source_counts = true;
    witness = mmap(NULL, sizeof(*witness), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert(witness != MAP_FAILED);
    folder = g_dir_make_tmp("two-sides-XXXXXX", NULL);
    g_assert_nonnull(folder);
    start_process(SOURCE);
    start_process(DESTINATION);
    at = path_of("relay");
    to = path_of("destination");
    relay = relay_new(at, to);
    enable_events();
}

static void remove_folder(void)
{
    g_autofree char *at = path_of("relay"), *to = path_of("destination");

    unlink(at);
    unlink(to);
    g_rmdir(folder);
    g_clear_pointer(&folder, g_free);
}

void sides_stop(void)
{
    if (witness->accused) {
        fail("%s", witness->accusation);
    }
    end_process(SOURCE);
    end_process(DESTINATION);
    relay_free(g_steal_pointer(&relay));
    remove_folder();
    munmap(witness, sizeof(*witness));
}

void sides_init(int *argc, char ***argv)
{
    g_test_init(argc, argv, NULL);
    signal(SIGPIPE, SIG_IGN);
}
