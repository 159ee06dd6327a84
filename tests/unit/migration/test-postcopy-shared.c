/*
 * Unit tests of the processes that share the guest's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A process is a pipe into which the test writes what a kernel would say of a
 * fault.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/thread.h"
#include "migration/postcopy/shared.h"
#include "setup.h"

#ifdef CONFIG_LINUX

#include <linux/userfaultfd.h>

#define BASE 0x700000000000ull      /* of the memory, as the process sees it */
#define SIZE 0x100000ull
#define PAGE 0x1000ull
#define ALIVE 0x616c697665ull
#define TURNS 2000

typedef struct Device {
    struct PostCopyFD shared;
    int to;                         /* the other end */
    uint64_t state;                 /* ALIVE until it is freed */
    unsigned woken;                 /* atomic */
    uint64_t woken_at;
} Device;

static RAMBlock *const memory = (RAMBlock *)&memory;
static GArray *wanted;              /* SharedFault */

static int handle(struct PostCopyFD *shared, void *message)
{
    struct uffd_msg *msg = message;
    Device *d = shared->data;
    uint64_t offset = msg->arg.pagefault.address - BASE;

    g_assert_cmphex(d->state, ==, ALIVE);
    if (offset >= SIZE) {
        return -1;
    }
    return postcopy_request_shared_page(shared, memory, BASE + offset, offset);
}

static int wake(struct PostCopyFD *shared, RAMBlock *block, uint64_t offset)
{
    Device *d = shared->data;

    g_assert_cmphex(d->state, ==, ALIVE);
    d->woken_at = offset;
    qatomic_inc(&d->woken);
    return 0;
}

static Device *new_device(void)
{
    Device *d = g_new0(Device, 1);
    int fds[2];

    g_assert(g_unix_open_pipe(fds, FD_CLOEXEC, NULL));
    g_assert(g_unix_set_fd_nonblocking(fds[0], true, NULL));
    d->to = fds[1];
    d->state = ALIVE;
    d->shared = (struct PostCopyFD) {
        .idstr = "test0", .fd = fds[0], .handler = handle, .waker = wake,
        .data = d,
    };
    postcopy_register_shared_ufd(&d->shared);
    return d;
}

static void free_device(Device *d)
{
    postcopy_unregister_shared_ufd(&d->shared);
    close(d->shared.fd);
    close(d->to);
    d->state = 0;
    g_free(d);
}

static void fault(Device *d, unsigned event, uint64_t offset)
{
    struct uffd_msg msg = {
        .event = event, .arg.pagefault.address = BASE + offset,
    };

    g_assert_cmpint(write(d->to, &msg, sizeof(msg)), ==, sizeof(msg));
}

static void want(void *opaque, const SharedFault *f)
{
    shared_any();                   /* would hang if the lock was held */
    g_assert(opaque == memory);
    g_array_append_val(wanted, *f);
}

static void begin(void)
{
    wanted = g_array_new(false, false, sizeof(SharedFault));
    g_assert(!shared_any());
}

static void end(void)
{
    g_assert(!shared_any());
    g_array_free(wanted, true);
}

/* All that is there is asked for, in its order. */
static void test_serve(void)
{
    Device *d;

    begin();
    d = new_device();
    shared_serve(d->shared.fd, want, memory);
    g_assert_cmpuint(wanted->len, ==, 0);
    for (unsigned i = 0; i < 20; i++) {
        fault(d, UFFD_EVENT_PAGEFAULT, i * PAGE + 8);
    }
    fault(d, UFFD_EVENT_REMAP, 0);
    shared_serve(d->shared.fd, want, memory);
    g_assert_cmpuint(wanted->len, ==, 20);
    for (unsigned i = 0; i < wanted->len; i++) {
        SharedFault *f = &g_array_index(wanted, SharedFault, i);

        g_assert_cmpstr(f->who, ==, "test0");
        g_assert(f->rb == memory);
        g_assert_cmphex(f->offset, ==, i * PAGE + 8);
    }
    shared_serve(d->shared.fd, want, memory);
    g_assert_cmpuint(wanted->len, ==, 20);
    free_device(d);
    end();
}

/* Where the guest has no memory */
static void test_outside(void)
{
    Device *d;

    begin();
    d = new_device();
    fault(d, UFFD_EVENT_PAGEFAULT, SIZE);
    fault(d, UFFD_EVENT_PAGEFAULT, PAGE);
    shared_serve(d->shared.fd, want, memory);
    g_assert_cmpuint(wanted->len, ==, 1);
    free_device(d);
    end();
}

/* What one who has gone had to say is of no interest, nor is that it has. */
static void test_gone(void)
{
    g_autoptr(GArray) fds = NULL;
    Device *d, *other;

    begin();
    d = new_device();
    other = new_device();
    fds = shared_list();
    g_assert_cmpuint(fds->len, ==, 2);
    fault(d, UFFD_EVENT_PAGEFAULT, PAGE);
    postcopy_unregister_shared_ufd(&d->shared);
    shared_serve(g_array_index(fds, int, 0), want, memory);
    g_assert_cmpuint(wanted->len, ==, 0);
    shared_lost(g_array_index(fds, int, 0));
    g_assert(shared_any());
    shared_lost(other->shared.fd);
    g_assert(!shared_any());
    free_device(d);
    free_device(other);
    end();
}

static void test_wake(void)
{
    Device *d, *other;

    begin();
    shared_wake(memory, PAGE, 0, SIZE);
    d = new_device();
    other = new_device();
    shared_wake(memory, PAGE, 3 * PAGE, 2 * PAGE);
    g_assert_cmpuint(d->woken, ==, 2);
    g_assert_cmpuint(other->woken, ==, 2);
    g_assert_cmphex(d->woken_at, ==, 4 * PAGE);
    free_device(other);
    shared_wake(memory, PAGE, 0, PAGE);
    g_assert_cmpuint(d->woken, ==, 3);
    free_device(d);
    end();
}

/* Devices come and go while others serve and wake them. */

static bool over;                   /* atomic */
static unsigned seen;               /* atomic */

static void count(void *opaque, const SharedFault *f)
{
    qatomic_inc(&seen);
}

static void *serve_all(void *opaque)
{
    while (!qatomic_read(&over)) {
        g_autoptr(GArray) fds = shared_list();

        for (unsigned i = 0; i < fds->len; i++) {
            shared_serve(g_array_index(fds, int, i), count, NULL);
        }
    }
    return NULL;
}

static void *wake_all(void *opaque)
{
    while (!qatomic_read(&over)) {
        shared_wake(memory, PAGE, 0, 4 * PAGE);
    }
    return NULL;
}

static void test_come_and_go(void)
{
    QemuThread server, waker;

    begin();
    over = false;
    seen = 0;
    qemu_thread_create(&server, "serve", serve_all, NULL, QEMU_THREAD_JOINABLE);
    qemu_thread_create(&waker, "wake", wake_all, NULL, QEMU_THREAD_JOINABLE);
    for (unsigned i = 0; i < TURNS; i++) {
        Device *d = new_device();

        fault(d, UFFD_EVENT_PAGEFAULT, PAGE);
        if (i % 4 == 0) {
            unsigned before = qatomic_read(&seen);

            while (qatomic_read(&seen) == before &&
                   !qatomic_read(&d->woken)) {
                sched_yield();
            }
        }
        free_device(d);
    }
    qatomic_set(&over, true);
    qemu_thread_join(&server);
    qemu_thread_join(&waker);
    g_assert_cmpuint(seen, <=, TURNS);
    end();
}

/* That a backend has gone matters while memory is missing, and only then. */
static void test_missing(void)
{
    if (g_test_subprocess()) {
        Device *d;

        begin();
        free_device(new_device());          /* says nothing */
        g_assert(!postcopy_memory_is_missing());
        shared_set_missing(true);
        g_assert(postcopy_memory_is_missing());
        d = new_device();
        free_device(d);
        shared_set_missing(false);
        free_device(new_device());
        end();
        return;
    }
    g_test_trap_subprocess(NULL, 20 * G_USEC_PER_SEC, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*test0 has lost its backend*");
    g_test_trap_assert_stderr_unmatched("*test0*test0*");
}

static int refuse(NotifierWithReturn *notifier, void *data, Error **errp)
{
    struct PostcopyNotifyData *notice = data;

    if (notice->reason == POSTCOPY_NOTIFY_PROBE) {
        error_setg(errp, "not this one");
    }
    return notice->reason == POSTCOPY_NOTIFY_INBOUND_END ? 0 : -1;
}

/* A refusal always has a reason. */
static void test_notify(void)
{
    NotifierWithReturn notifier = { .notify = refuse };
    Error *err = NULL;

    postcopy_add_notifier(&notifier);
    g_assert(!shared_notify(POSTCOPY_NOTIFY_PROBE, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "not this one");
    error_free(err);
    err = NULL;
    g_assert(!shared_notify(POSTCOPY_NOTIFY_INBOUND_ADVISE, &err));
    g_assert_nonnull(err);
    error_free(err);
    g_assert(shared_notify(POSTCOPY_NOTIFY_INBOUND_END, &error_abort));
    postcopy_remove_notifier(&notifier);
    g_assert(shared_notify(POSTCOPY_NOTIFY_PROBE, &error_abort));
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/postcopy/shared/serve", test_serve);
    g_test_add_func("/postcopy/shared/outside", test_outside);
    g_test_add_func("/postcopy/shared/gone", test_gone);
    g_test_add_func("/postcopy/shared/wake", test_wake);
    g_test_add_func("/postcopy/shared/come-and-go", test_come_and_go);
    g_test_add_func("/postcopy/shared/missing", test_missing);
    g_test_add_func("/postcopy/shared/notify", test_notify);
    return g_test_run();
}

#else

int main(void)
{
    return 0;
}

#endif
