/*
 * The source: one more channel to where the main one goes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/core/main-loop.h"
#include "migration/transport/transport.h"
#include "channel.h"
#include "state.h"

/* How often the thread looks whether it still needs the channel */
#define POLL_MS 50

/* One attempt, which lives on the stack of the thread that waits for it. */
typedef struct Attempt {
    const char *name;
    QemuSemaphore ended;
    bool connecting;            /* main loop */
    /* main loop, until it has ended: */
    QEMUFile *file;
    Error *err;
} Attempt;

static void end(Attempt *a, Error *err)
{
    a->connecting = false;
    a->err = err;
    qemu_sem_post(&a->ended);
}

/* Takes over @ioc and @err, of which there is one. */
static void channel_connected(QIOChannel *ioc, Error *err, void *opaque)
{
    Attempt *a = opaque;

    if (ioc) {
        qio_channel_set_name(ioc, a->name);
        qio_channel_set_delay(ioc, false);
        a->file = qemu_file_new_output(ioc);
        object_unref(OBJECT(ioc));
    }
    end(a, err);
}

static void channel_start(void *opaque)
{
    Attempt *a = opaque;
    Error *err = NULL;

    a->connecting = true;
    if (!transport_connect(source.addr, true, channel_connected, a,
                           &err)) {
        end(a, err);
    }
}

/* The thread gives it up: it may have been made meanwhile. */
static void call_off(void *opaque)
{
    Attempt *a = opaque;
    Error *err = NULL;

    if (a->connecting) {
        transport_connect_cancel();
        error_setg(&err, "nobody waits for it any more");
        end(a, err);
    }
    qemu_sem_post(&a->ended);
}

QEMUFile *source_channel_connect(const char *name, Error **errp)
{
    Attempt a = { .name = name };
    bool wanted = true;

    qemu_sem_init(&a.ended, 0);
    main_loop_run(channel_start, &a);
    while (qemu_sem_timedwait(&a.ended, POLL_MS)) {
        wanted = source_may_go_on(NULL);
        if (!wanted) {
            /* two ends are to come: that of the attempt, and this one's */
            main_loop_run(call_off, &a);
            qemu_sem_wait(&a.ended);
            qemu_sem_wait(&a.ended);
            break;
        }
    }
    qemu_sem_destroy(&a.ended);
    error_propagate(errp, a.err);
    return a.file;
}
