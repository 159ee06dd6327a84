/*
 * Unit tests of executing a new QEMU in the process of the old one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The new QEMU is this program, with an argument: it reads what the old one has
 * left, and its exit status says whether all is right.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "migration/core/cpr-exec.h"
#include "migration/core/cpr-unmap.h"
#include "migration/cpr.h"
#include "setup.h"

#ifdef CONFIG_LINUX
#include <sched.h>
#endif

#define WORD 0x46455252u        /* in the state */

enum { GIVEN = 100, KEPT, FDS };

static const char *program;
static QEMUFile *state;

/* What cpr.c has */

QIOChannel *cpr_state_ioc(void)
{
    return qemu_file_get_ioc(state);
}

void cpr_foreach_fd(void (*fn)(int fd))
{
    fn(GIVEN);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static bool is_inherited(int fd)
{
    return is_open(fd) && !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

/*
 * The helper that outlives an executed QEMU shares its memory.  The thread
 * sanitizer takes every clone() for a fork(): both processes set up its data
 * anew then, and if they share it, its check fails and it ends the process.
 */
#ifdef CONFIG_LINUX
static int end_at_once(void *opaque)
{
    _exit(0);
}

static void share_memory(void)
{
    static uint8_t stack[64 * 1024] QEMU_ALIGNED(64);

    close(STDERR_FILENO);
    clone(end_at_once, stack + sizeof(stack),
          CLONE_VM | CLONE_VFORK | CLONE_FILES, NULL);
    /* A host that refuses it is no reason to skip a test. */
    _exit(0);
}

static bool can_share_memory(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        share_memory();
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (WIFEXITED(status) && !WEXITSTATUS(status)) {
        return true;
    }
    g_test_skip("a process that shares memory with a child is ended here");
    return false;
}
#else
static bool can_share_memory(void)
{
    return true;
}
#endif

/* The new QEMU; 0 if all is as it should be */
static int be_new(void)
{
    int wrong = 0, signals = 0;
    sigset_t blocked;

    if (!cpr_exec_has_state()) {
        return 1;
    }
    state = cpr_exec_input(&error_abort);
    wrong |= qemu_get_be32(state) == WORD ? 0 : 2;
    wrong |= is_open(GIVEN) ? 0 : 4;
    wrong |= is_open(KEPT) ? 8 : 0;
    /* Nobody else is to find it. */
    wrong |= cpr_exec_has_state() ? 16 : 0;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    for (int i = 1; i < 32; i++) {
        signals += sigismember(&blocked, i) == 1;
    }
    wrong |= signals ? 32 : 0;
    qemu_fclose(state);
    return wrong;
}

static strList *command_of(const char *first, const char *second)
{
    strList *list = NULL, **tail = &list;

    QAPI_LIST_APPEND(tail, g_strdup(first));
    if (second) {
        QAPI_LIST_APPEND(tail, g_strdup(second));
    }
    return list;
}

/* The state is written, and there are two descriptors. */
static void be_old(void)
{
    for (int fd = GIVEN; fd < FDS; fd++) {
        g_assert_cmpint(dup3(STDERR_FILENO, fd, O_CLOEXEC), ==, fd);
    }
    state = cpr_exec_output(&error_abort);
    qemu_put_be32(state, WORD);
    g_assert_cmpint(qemu_fflush(state), ==, 0);
}

static void test_execute(void)
{
    int status;
    pid_t pid;

    if (!can_share_memory()) {
        return;
    }
    pid = fork();
    if (!pid) {
        strList *command = command_of(program, "--new");

        be_old();
        cpr_exec_replace(command, &error_abort);
        _exit(99);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

/* Everything is as it was before. */
static void test_cannot(void)
{
    strList *command = command_of("/no/such/program", NULL);
    Error *err = NULL;

    if (!can_share_memory()) {
        qapi_free_strList(command);
        return;
    }
    be_old();
    cpr_exec_replace(command, &err);
    g_assert_nonnull(strstr(error_get_pretty(err), "/no/such/program"));
    error_free(err);
    g_assert_false(cpr_exec_has_state());
    g_assert_false(is_inherited(GIVEN));
    g_assert_false(is_inherited(KEPT));
    for (int fd = GIVEN; fd < FDS; fd++) {
        close(fd);
    }
    qemu_fclose(state);
    qapi_free_strList(command);
}

static void expect_refusal(strList *command, const char *what)
{
    Error *err = NULL;

    g_assert_false(cpr_exec_command_check(command, &err));
    g_test_message("%s", error_get_pretty(err));
    g_assert_nonnull(strstr(error_get_pretty(err), what));
    error_free(err);
    qapi_free_strList(command);
}

static void test_command(void)
{
    strList *good = command_of("sh", "-c");

    g_assert_true(cpr_exec_command_check(good, &error_abort));
    qapi_free_strList(good);
    expect_refusal(NULL, "cpr-exec-command");
    expect_refusal(command_of("", NULL), "no program ''");
    expect_refusal(command_of("/no/such/program", NULL), "/no/such/program");
    expect_refusal(command_of("/dev/null", NULL), "/dev/null");
}

/* The environment is what somebody else may have written. */
static void test_no_state(void)
{
    static const char *const bad[] = {
        "", "x", "-1", "1x", "99999999999999999999", "4000",
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        Error *err = NULL;

        g_setenv(CPR_EXEC_STATE_VARIABLE, bad[i], true);
        g_assert_null(cpr_exec_input(&err));
        g_assert_nonnull(strstr(error_get_pretty(err), bad[i]));
        error_free(err);
    }
    g_unsetenv(CPR_EXEC_STATE_VARIABLE);
}

/* It has ended, whether somebody has waited for it or not. */
static bool has_ended(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid);
    g_autofree char *text = NULL;

    return !g_file_get_contents(path, &text, NULL, NULL) ||
           strstr(text, ") Z ");
}

static void expect_end(int pid)
{
    for (int i = 0; i < 5000 && !has_ended(pid); i++) {
        g_usleep(1000);
    }
    g_assert_true(has_ended(pid));
}

static bool begin_unmap(CprUnmap *unmap)
{
    if (!can_share_memory()) {
        return false;
    }
    cpr_unmap_begin(unmap);
    if (unmap->fd < 0) {
        g_test_skip("there can be no helper here");
    }
    return unmap->fd >= 0;
}

/* The helper has none of our descriptors, and ends when it is told to. */
static void test_unmap(void)
{
    GPollFD wait = { .events = G_IO_IN };
    CprUnmap unmap;
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    if (begin_unmap(&unmap)) {
        close(fds[1]);
        wait.fd = fds[0];
        g_assert_cmpint(g_poll(&wait, 1, 5000), ==, 1);
        g_assert_true(wait.revents & G_IO_HUP);
        g_assert_false(has_ended(unmap.pid));
        cpr_unmap_end(&unmap);
        expect_end(unmap.pid);
    }
    close(fds[0]);
}

/* One that does not close its descriptors has ended before others go on. */
static void test_unmap_stalls(void)
{
    GPollFD wait = { .events = G_IO_IN };
    CprUnmap unmap;
    int fds[2];

    if (!begin_unmap(&unmap)) {
        return;
    }
    cpr_unmap_end(&unmap);
    g_assert_cmpint(pipe(fds), ==, 0);
    cpr_unmap_stall(true);
    cpr_unmap_begin(&unmap);
    g_assert_cmpint(unmap.fd, ==, -1);
    close(fds[1]);
    wait.fd = fds[0];
    g_assert_cmpint(g_poll(&wait, 1, 0), ==, 1);
    g_assert_true(wait.revents & G_IO_HUP);
    cpr_unmap_stall(false);
    close(fds[0]);
}

/* A process that executes another program: the helper ends by that. */
static void test_unmap_executed(void)
{
    CprUnmap unmap;
    int fds[2], status, pid;

    if (!can_share_memory()) {
        return;
    }
    g_assert_cmpint(pipe(fds), ==, 0);
    pid = fork();
    if (!pid) {
        cpr_unmap_begin(&unmap);
        if (write(fds[1], &unmap, sizeof(unmap)) == sizeof(unmap)) {
            execlp("true", "true", NULL);
        }
        _exit(1);
    }
    g_assert_cmpint(read(fds[0], &unmap, sizeof(unmap)), ==, sizeof(unmap));
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
    if (unmap.fd < 0) {
        g_test_skip("there can be no helper here");
    } else {
        expect_end(unmap.pid);
    }
    close(fds[0]);
    close(fds[1]);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--new")) {
        module_call_init(MODULE_INIT_QOM);
        return be_new();
    }
    test_setup(&argc, &argv);
    program = argv[0];
    g_test_add_func("/cpr-exec/execute", test_execute);
    g_test_add_func("/cpr-exec/cannot", test_cannot);
    g_test_add_func("/cpr-exec/command", test_command);
    g_test_add_func("/cpr-exec/no-state", test_no_state);
    g_test_add_func("/cpr-exec/unmap", test_unmap);
    g_test_add_func("/cpr-exec/unmap-stalls", test_unmap_stalls);
    g_test_add_func("/cpr-exec/unmap-executed", test_unmap_executed);
    return g_test_run();
}
