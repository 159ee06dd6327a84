/*
 * The memory map of the old QEMU outlives it for a moment (cpr-exec)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "cpr-unmap.h"

#ifdef CONFIG_LINUX
#include <glib-unix.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

static bool stalls;             /* for tests: the helper is never ready */

void cpr_unmap_stall(bool on)
{
    stalls = on;
}

#if defined(CONFIG_LINUX) && defined(SYS_close_range) && \
    defined(SYS_pidfd_send_signal) && defined(CLONE_PIDFD)

/* Three system calls need little. */
#define STACK_BYTES (64 * 1024)
/* How long the helper may take to close its descriptors */
#define READY_US (1000 * 1000)
#define READY_POLL_US 50
/* How long one that has been killed is waited for */
#define KILLED_MS 1000

typedef enum HelperState {
    HELPER_STARTS,
    HELPER_READY,
    HELPER_FAILED,
} HelperState;

/* Of both processes, which share it; never freed, as the helper may end last */
typedef struct UnmapHelper {
    int end;                    /* the end of the pipe that it reads */
    int pid;
    int pidfd;                  /* of it, in this process and the middle one */
    int state;                  /* HelperState; atomic */
    uint8_t stacks[2][STACK_BYTES] QEMU_ALIGNED(64);
} UnmapHelper;

/* An image whose descriptor it kept would stay locked. */
static bool close_all_but(unsigned fd)
{
    return (!fd || !syscall(SYS_close_range, 0u, fd - 1, 0u)) &&
           !syscall(SYS_close_range, fd + 1, ~0u, 0u);
}

/* The helper.  It shares errno, too: with a thread that waits or executes. */
static int unmap_helper_run(void *opaque)
{
    UnmapHelper *h = opaque;
    char byte;

    while (qatomic_read(&stalls)) {
        g_usleep(READY_POLL_US);
    }
    if (!close_all_but(h->end)) {
        qatomic_set(&h->state, HELPER_FAILED);
        _exit(1);
    }
    qatomic_set(&h->state, HELPER_READY);
    while (read(h->end, &byte, 1) < 0 && errno == EINTR) {
        /* again */
    }
    _exit(0);
}

/*
 * A process in between, so that nobody has to wait for the helper.  It shares
 * the table of descriptors, in which the helper's own comes to lie.
 */
static int unmap_helper_start(void *opaque)
{
    UnmapHelper *h = opaque;

    h->pid = clone(unmap_helper_run, h->stacks[1] + STACK_BYTES,
                   CLONE_VM | CLONE_PIDFD, h, &h->pidfd);
    if (h->pid < 0) {
        qatomic_set(&h->state, HELPER_FAILED);
    }
    _exit(0);
}

static bool helper_is_ready(UnmapHelper *h)
{
    for (int us = 0; us < READY_US; us += READY_POLL_US) {
        int state = qatomic_read(&h->state);

        if (state != HELPER_STARTS) {
            return state == HELPER_READY;
        }
        g_usleep(READY_POLL_US);
    }
    return false;
}

/*
 * As long as it lives it may have our descriptors, and so the locks of images
 * that the new QEMU is about to open.
 */
static void kill_helper(const UnmapHelper *h)
{
    struct pollfd ended = { .fd = h->pidfd, .events = POLLIN };

    syscall(SYS_pidfd_send_signal, h->pidfd, SIGKILL, NULL, 0u);
    RETRY_ON_EINTR(poll(&ended, 1, KILLED_MS));
}

/* Handlers of signals are for this process only. */
static bool start_helper(UnmapHelper *h)
{
    sigset_t all, before;
    int middle;
    bool ready;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    middle = clone(unmap_helper_start, h->stacks[0] + STACK_BYTES,
                   CLONE_VM | CLONE_VFORK | CLONE_FILES, h);
    if (middle > 0) {
        waitpid(middle, NULL, __WCLONE);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ready = middle > 0 && helper_is_ready(h);
    if (h->pidfd >= 0 && !ready) {
        kill_helper(h);
    }
    if (h->pidfd >= 0) {
        close(h->pidfd);
    }
    return ready;
}

void cpr_unmap_begin(CprUnmap *unmap)
{
    UnmapHelper *h = g_new0(UnmapHelper, 1);
    int fds[2];

    *unmap = (CprUnmap) { .fd = -1 };
    if (!g_unix_open_pipe(fds, FD_CLOEXEC, NULL)) {
        return;
    }
    h->end = fds[0];
    h->pidfd = -1;
    if (start_helper(h)) {
        *unmap = (CprUnmap) { .fd = fds[1], .pid = h->pid };
    } else {
        close(fds[1]);
    }
    close(fds[0]);
}
#else
void cpr_unmap_begin(CprUnmap *unmap)
{
    *unmap = (CprUnmap) { .fd = -1 };
}
#endif

void cpr_unmap_end(CprUnmap *unmap)
{
    if (unmap->fd >= 0) {
        close(unmap->fd);
    }
    unmap->fd = -1;
}
