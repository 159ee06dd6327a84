/*
 * Channels to commands: exec:
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A command ends when it likes.  Nobody who holds the BQL waits for that: each
 * has a thread that collects its exit status, and to close the channel closes
 * the pipes and no more.  transport_finish() waits, in a thread that may.
 *
 * The pipes never block, so that whoever reads or writes can look now and then
 * whether it is to go on; shutdown is a flag that is seen then.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qom/object.h"
#include "io/channel-command.h"
#include "migration/base/below-tls.h"
#include "private.h"

int transport_exit_ms = 10 * 60 * 1000;

#ifdef CONFIG_POSIX
#include <glib-unix.h>
#include <sys/wait.h>

/*
 * Between the end of a command's pipes and that of itself, for those who want
 * to know why a pipe ended
 */
#define WHY_MS 200

/* One command, of the channel and of the thread that waits for its end */
typedef struct Child {
    int refs;                   /* atomic */
    GPid pid;
    QemuMutex lock;             /* of all below */
    QemuCond changed;
    bool ended;                 /* with @status, as of waitpid() */
    int status;
    bool cut;                   /* the channel was shut down; read atomically */
} Child;

#define TYPE_TRANSPORT_CHILD "transport-child"
OBJECT_DECLARE_SIMPLE_TYPE(TransportChild, TRANSPORT_CHILD)

struct TransportChild {
    QIOChannelCommand parent_obj;   /* with the pipes, and without a process */
    Child *child;
    bool closed;
};

static QIOChannelClass *command_class;

/*
 * The process
 */

static void child_unref(Child *child)
{
    if (qatomic_fetch_dec(&child->refs) == 1) {
        qemu_cond_destroy(&child->changed);
        qemu_mutex_destroy(&child->lock);
        g_free(child);
    }
}

/* Its number stays valid until that is said under the lock. */
static void *child_thread(void *opaque)
{
    Child *child = opaque;
    siginfo_t info;

    while (waitid(P_PID, child->pid, &info, WEXITED | WNOWAIT) < 0 &&
           errno == EINTR) {
        /* again */
    }
    WITH_QEMU_LOCK_GUARD(&child->lock) {
        if (waitpid(child->pid, &child->status, 0) != child->pid) {
            child->status = 0;      /* somebody else has collected it */
        }
        g_spawn_close_pid(child->pid);
        child->ended = true;
        qemu_cond_broadcast(&child->changed);
    }
    child_unref(child);
    return NULL;
}

static Child *child_new(GPid pid)
{
    Child *child = g_new0(Child, 1);
    QemuThread thread;

    child->refs = 2;
    child->pid = pid;
    qemu_mutex_init(&child->lock);
    qemu_cond_init(&child->changed);
    qemu_thread_create(&thread, "mig/exec", child_thread, child,
                       QEMU_THREAD_DETACHED);
    return child;
}

/* Under the lock: waits for the end, at most @timeout_ms. */
static bool child_wait(Child *child, int timeout_ms)
{
    int64_t end = g_get_monotonic_time() + timeout_ms * 1000LL;

    while (!child->ended && !child->cut) {
        int64_t left_us = end - g_get_monotonic_time();

        if (left_us <= 0) {
            break;
        }
        qemu_cond_timedwait(&child->changed, &child->lock,
                            DIV_ROUND_UP(left_us, 1000));
    }
    return child->ended;
}

/* Under the lock, after the end: false if it was a bad one. */
static bool child_ended_well(const Child *child, Error **errp)
{
    if (WIFSIGNALED(child->status)) {
        error_setg(errp, "the command of exec: was killed by signal %d (%s)",
                   WTERMSIG(child->status), strsignal(WTERMSIG(child->status)));
        return false;
    }
    if (WEXITSTATUS(child->status)) {
        error_setg(errp, "the command of exec: failed with exit status %d",
                   WEXITSTATUS(child->status));
        return false;
    }
    return true;
}

/*
 * The channel
 */

/*
 * A pipe is broken: says so by what became of the command, if that is known by
 * now or will be at once.  Nobody waits in the main loop.
 */
static void child_explain(Child *child, Error **errp)
{
    Error *why = NULL;

    QEMU_LOCK_GUARD(&child->lock);
    if (errp && child_wait(child, qemu_in_coroutine() ? 0 : WHY_MS) &&
        !child_ended_well(child, &why)) {
        error_free(*errp);
        *errp = why;
    }
}

static bool was_cut(TransportChild *tc, Error **errp)
{
    bool cut = qatomic_read(&tc->child->cut);

    if (cut) {
        error_setg(errp, "the connection to the command of exec: was shut "
                   "down");
    }
    return cut;
}

static ssize_t child_writev(QIOChannel *ioc, const struct iovec *iov,
                            size_t niov, int *fds, size_t nfds, int flags,
                            Error **errp)
{
    TransportChild *tc = TRANSPORT_CHILD(ioc);
    ssize_t ret;

    if (was_cut(tc, errp)) {
        return -1;
    }
    ret = command_class->io_writev(ioc, iov, niov, fds, nfds, flags, errp);
    if (ret < 0 && ret != QIO_CHANNEL_ERR_BLOCK) {
        child_explain(tc->child, errp);
    }
    return ret;
}

static ssize_t child_readv(QIOChannel *ioc, const struct iovec *iov,
                           size_t niov, int **fds, size_t *nfds, int flags,
                           Error **errp)
{
    TransportChild *tc = TRANSPORT_CHILD(ioc);
    Error *why = NULL;
    ssize_t ret;

    if (was_cut(tc, errp)) {
        return -1;
    }
    ret = command_class->io_readv(ioc, iov, niov, fds, nfds, flags, errp);
    if (ret == 0) {
        child_explain(tc->child, &why);
    }
    if (why) {
        error_propagate(errp, why);
        return -1;
    }
    return ret;
}

static int child_set_blocking(QIOChannel *ioc, bool enabled, Error **errp)
{
    return 0;
}

static int child_shutdown(QIOChannel *ioc, QIOChannelShutdown how,
                          Error **errp)
{
    Child *child = TRANSPORT_CHILD(ioc)->child;

    QEMU_LOCK_GUARD(&child->lock);
    qatomic_set(&child->cut, true);
    qemu_cond_broadcast(&child->changed);
    return 0;
}

static void close_pipe(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static int child_close(QIOChannel *ioc, Error **errp)
{
    QIOChannelCommand *command = QIO_CHANNEL_COMMAND(ioc);

    TRANSPORT_CHILD(ioc)->closed = true;
    close_pipe(&command->writefd);
    close_pipe(&command->readfd);
    return 0;
}

/* One that nobody came to use has nothing to finish. */
static void child_finalize(Object *obj)
{
    TransportChild *tc = TRANSPORT_CHILD(obj);
    Child *child = tc->child;

    if (!child) {
        return;
    }
    if (!tc->closed) {
        QEMU_LOCK_GUARD(&child->lock);
        if (!child->ended) {
            kill(child->pid, SIGTERM);
        }
    }
    child_unref(child);
}

static void child_class_init(ObjectClass *klass, void *data)
{
    QIOChannelClass *ioc_class = QIO_CHANNEL_CLASS(klass);

    command_class = QIO_CHANNEL_CLASS(object_class_get_parent(klass));
    ioc_class->io_writev = child_writev;
    ioc_class->io_readv = child_readv;
    ioc_class->io_set_blocking = child_set_blocking;
    ioc_class->io_shutdown = child_shutdown;
    ioc_class->io_close = child_close;
}

static const TypeInfo child_info = {
    .parent = TYPE_QIO_CHANNEL_COMMAND,
    .name = TYPE_TRANSPORT_CHILD,
    .instance_size = sizeof(TransportChild),
    .instance_finalize = child_finalize,
    .class_init = child_class_init,
};

static void child_register_type(void)
{
    type_register_static(&child_info);
}

type_init(child_register_type)

/*
 * For the others
 */

static bool never_block(int fd, Error **errp)
{
    g_autoptr(GError) err = NULL;

    if (!g_unix_set_fd_nonblocking(fd, true, &err)) {
        error_setg(errp, "Cannot prepare a pipe to the command of exec:: %s",
                   err->message);
        return false;
    }
    return true;
}

QIOChannel *transport_open_child(const char *const *argv, Error **errp)
{
    g_autoptr(GError) err = NULL;
    TransportChild *tc;
    QIOChannelCommand *command;
    int in, out;
    GPid pid;

    if (!g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                  G_SPAWN_CLOEXEC_PIPES |
                                  G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                                  &pid, &in, &out, NULL, &err)) {
        error_setg(errp, "%s", err->message);
        return NULL;
    }
    tc = TRANSPORT_CHILD(object_new(TYPE_TRANSPORT_CHILD));
    tc->child = child_new(pid);
    command = QIO_CHANNEL_COMMAND(tc);
    command->writefd = in;
    command->readfd = out;
    qio_channel_set_feature(QIO_CHANNEL(tc), QIO_CHANNEL_FEATURE_SHUTDOWN);
    if (!never_block(in, errp) || !never_block(out, errp)) {
        object_unref(OBJECT(tc));
        return NULL;
    }
    return QIO_CHANNEL(tc);
}

/* What @ioc leads to, if that is a command; else NULL */
static TransportChild *child_of(QIOChannel *ioc)
{
    return (TransportChild *)object_dynamic_cast(
        OBJECT(channel_below_tls(ioc)), TYPE_TRANSPORT_CHILD);
}

bool transport_finish(QIOChannel *ioc, Error **errp)
{
    TransportChild *tc = child_of(ioc);

    if (!tc) {
        return true;
    }
    close_pipe(&QIO_CHANNEL_COMMAND(tc)->writefd);
    QEMU_LOCK_GUARD(&tc->child->lock);
    if (child_wait(tc->child, transport_exit_ms)) {
        return child_ended_well(tc->child, errp);
    }
    if (!was_cut(tc, errp)) {
        error_setg(errp, "the command of exec: has not ended within %d "
                   "seconds of the end of its input",
                   transport_exit_ms / 1000);
    }
    return false;
}

bool transport_writer_ended(QIOChannel *ioc, Error **errp)
{
    TransportChild *tc = child_of(ioc);
    GPollFD end = { .events = G_IO_IN };

    if (!tc) {
        return true;
    }
    end.fd = QIO_CHANNEL_COMMAND(tc)->readfd;
    if (g_poll(&end, 1, WHY_MS) <= 0 || end.revents & G_IO_IN) {
        return true;                    /* it lives on */
    }
    QEMU_LOCK_GUARD(&tc->child->lock);
    return !child_wait(tc->child, WHY_MS) ||
           child_ended_well(tc->child, errp);
}

#else

QIOChannel *transport_open_child(const char *const *argv, Error **errp)
{
    return (QIOChannel *)qio_channel_command_new_spawn(argv, O_RDWR, errp);
}

bool transport_finish(QIOChannel *ioc, Error **errp)
{
    return true;
}

bool transport_writer_ended(QIOChannel *ioc, Error **errp)
{
    return true;
}

#endif
