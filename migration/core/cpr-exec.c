/*
 * The new QEMU takes the place of the old one in its process (cpr-exec)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/memfd.h"
#include "io/channel-file.h"
#include "migration/cpr.h"
#include "migration/qemu-file.h"
#include "cpr-exec.h"
#include "cpr-unmap.h"

/*
 * The state
 */

static QEMUFile *state_file(int fd, bool input)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd));
    QEMUFile *f;

    qio_channel_set_name(ioc, "cpr-exec-state");
    f = input ? qemu_file_new_input(ioc) : qemu_file_new_output(ioc);
    object_unref(OBJECT(ioc));
    return f;
}

QEMUFile *cpr_exec_output(Error **errp)
{
    int fd = qemu_memfd_create("cpr-exec-state", 0, false, 0, 0, errp);

    return fd >= 0 ? state_file(fd, false) : NULL;
}

bool cpr_exec_has_state(void)
{
    return g_getenv(CPR_EXEC_STATE_VARIABLE);
}

#ifndef _WIN32
/* Whether who is executed has it open, too */
static void set_inherited(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFD);

    if (flags >= 0) {
        fcntl(fd, F_SETFD, on ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC);
    }
}

static void inherit(int fd)
{
    set_inherited(fd, true);
}

static void keep(int fd)
{
    set_inherited(fd, false);
}

QEMUFile *cpr_exec_input(Error **errp)
{
    const char *text = g_getenv(CPR_EXEC_STATE_VARIABLE);
    struct stat st;
    int fd;

    if (qemu_strtoi(text, NULL, 10, &fd) < 0 || fd < 0 ||
        fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        lseek(fd, 0, SEEK_SET) < 0) {
        error_setg(errp, "%s is '%s', which is no descriptor of a state that "
                   "an old QEMU has left", CPR_EXEC_STATE_VARIABLE, text);
        return NULL;
    }
    g_unsetenv(CPR_EXEC_STATE_VARIABLE);
    keep(fd);
    return state_file(fd, true);
}

/*
 * The command
 */

bool cpr_exec_command_check(const strList *command, Error **errp)
{
    g_autofree char *path = NULL;

    if (!command) {
        error_setg(errp, "Migration mode 'cpr-exec' needs parameter "
                   "'cpr-exec-command': the new QEMU and its arguments");
        return false;
    }
    path = g_find_program_in_path(command->value);
    if (!path) {
        error_setg(errp, "Parameter 'cpr-exec-command': there is no program "
                   "'%s' that could be executed", command->value);
        return false;
    }
    return true;
}

static char **argv_of(const strList *command)
{
    GPtrArray *argv = g_ptr_array_new();

    for (; command; command = command->next) {
        g_ptr_array_add(argv, g_strdup(command->value));
    }
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, false);
}

void cpr_exec_replace(const strList *command, Error **errp)
{
    g_auto(GStrv) argv = argv_of(command);
    int fd = QIO_CHANNEL_FILE(cpr_state_ioc())->fd;
    g_autofree char *number = g_strdup_printf("%d", fd);
    sigset_t none, blocked;
    CprUnmap unmap;

    g_setenv(CPR_EXEC_STATE_VARIABLE, number, true);
    inherit(fd);
    cpr_foreach_fd(inherit);
    /* Which signals this thread takes by other means is not inherited. */
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &blocked);
    cpr_unmap_begin(&unmap);
    execvp(argv[0], argv);
    error_setg_errno(errp, errno, "The new QEMU '%s' cannot be executed",
                     argv[0]);
    cpr_unmap_end(&unmap);
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    cpr_foreach_fd(keep);
    keep(fd);
    g_unsetenv(CPR_EXEC_STATE_VARIABLE);
}
#else
QEMUFile *cpr_exec_input(Error **errp)
{
    error_setg(errp, "This host has no cpr-exec");
    return NULL;
}

bool cpr_exec_command_check(const strList *command, Error **errp)
{
    error_setg(errp, "Migration mode 'cpr-exec' is not available on this host");
    return false;
}

void cpr_exec_replace(const strList *command, Error **errp)
{
    g_assert_not_reached();
}
#endif
