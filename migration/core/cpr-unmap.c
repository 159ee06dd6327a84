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
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

#if defined(CONFIG_LINUX) && defined(SYS_close_range)

/* Three system calls need little. */
#define STACK_BYTES (64 * 1024)
/* How long the helper may take to close its descriptors */
#define READY_US (1000 * 1000)
#define READY_POLL_US 50

typedef enum HelperState {
    HELPER_STARTS,
    HELPER_READY,
    HELPER_FAILED,
} HelperState;

/* Of both processes, which share it; never freed, as the helper may end last */
typedef struct UnmapHelper {
    int end;                    /* the end of the pipe that it reads */
    int pid;
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

/* A process in between, so that nobody has to wait for the helper. */
static int unmap_helper_start(void *opaque)
{
    UnmapHelper *h = opaque;

    h->pid = clone(unmap_helper_run, h->stacks[1] + STACK_BYTES, CLONE_VM, h);
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
    kill(h->pid, SIGKILL);
    return false;
}

/* Handlers of signals are for this process only. */
static bool start_helper(UnmapHelper *h)
{
    sigset_t all, before;
    int middle;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    middle = clone(unmap_helper_start, h->stacks[0] + STACK_BYTES,
                   CLONE_VM | CLONE_VFORK, h);
    if (middle > 0) {
        waitpid(middle, NULL, __WCLONE);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return middle > 0 && helper_is_ready(h);
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
