/*
 * The source: more channels to where the main one goes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/core/main-loop.h"
#include "migration/transport/transport.h"
#include "migration/wire/stream.h"
#include "channel.h"
#include "state.h"

/* How often the thread looks whether it still needs the channels */
#define POLL_MS 50
/* Each takes a thread of its own until it is connected. */
#define AT_ONCE 16

typedef struct Attempt {
    struct Attempts *all;
    unsigned i;
} Attempt;

/* They live as long as the thread waits for them. */
typedef struct Attempts {
    const char *name;
    SourceChannelMade *made;    /* or NULL */
    unsigned count;             /* 0: one, without a number in its name */
    Attempt *list;
    QemuSemaphore ended;
    /* main loop, until they have ended: */
    QEMUFile **files;
    bool begun;
    unsigned started, over;
    unsigned failed;            /* which of them, if there is an error */
    Error *err;                 /* the first one; no other is started then */
} Attempts;

static unsigned channels_due(const Attempts *a)
{
    return MAX(a->count, 1);
}

static void channel_start(Attempts *a);

/* Takes over @err.  Those that are under way are given up. */
static void channels_failed(Attempts *a, unsigned i, Error *err)
{
    a->failed = i;
    a->err = err;
    transport_connect_cancel();
    a->over = a->started;
}

static bool all_over(const Attempts *a)
{
    return a->over == a->started && (a->err || a->started == channels_due(a));
}

static void channel_go_on(Attempts *a)
{
    if (!a->err) {
        channel_start(a);
    }
    if (all_over(a)) {
        qemu_sem_post(&a->ended);
    }
}

static void channel_made(Attempts *a, unsigned i, QIOChannel *ioc)
{
    g_autofree char *name = a->count ? g_strdup_printf("%s-%u", a->name, i)
                                     : g_strdup(a->name);

    qio_channel_set_name(ioc, name);
    qio_channel_set_delay(ioc, false);
    a->files[i] = qemu_file_new_output(ioc);
    object_unref(OBJECT(ioc));
    if (a->made) {
        a->made(a->files[i], i);
    }
}

/* Takes over @ioc and @err, of which there is one. */
static void channel_connected(QIOChannel *ioc, Error *err, void *opaque)
{
    Attempt *attempt = opaque;
    Attempts *a = attempt->all;

    a->over++;
    if (ioc) {
        channel_made(a, attempt->i, ioc);
    } else {
        channels_failed(a, attempt->i, err);
    }
    channel_go_on(a);
}

/* As many as may be under way */
static void channel_start(Attempts *a)
{
    Error *err = NULL;

    while (a->started < channels_due(a) && a->started - a->over < AT_ONCE) {
        unsigned i = a->started;

        a->list[i] = (Attempt) { .all = a, .i = i };
        if (!transport_connect_more(source.addr, true, channel_connected,
                                    &a->list[i], &err)) {
            channels_failed(a, i, err);
            return;
        }
        a->started++;
    }
}

static void channels_begin(void *opaque)
{
    Attempts *a = opaque;

    a->begun = true;
    channel_go_on(a);
}

/*
 * The thread gives them up: they may have been made meanwhile.  This may also
 * come before channels_begin(), as the main loop keeps no order; that ends them
 * then.
 */
static void call_off(void *opaque)
{
    Attempts *a = opaque;
    bool over = a->begun && all_over(a);
    Error *err = NULL;

    if (!over) {
        error_setg(&err, "nobody waits for it any more");
        channels_failed(a, 0, err);
    }
    if (a->begun && !over) {
        qemu_sem_post(&a->ended);
    }
    qemu_sem_post(&a->ended);
}

static void wait_until_over(Attempts *a)
{
    main_loop_run(channels_begin, a);
    while (qemu_sem_timedwait(&a->ended, POLL_MS)) {
        if (!source_may_go_on(NULL)) {
            /* two ends are to come: that of the attempts, and this one's */
            main_loop_run(call_off, a);
            qemu_sem_wait(&a->ended);
            qemu_sem_wait(&a->ended);
            return;
        }
    }
}

static void close_all(QEMUFile **files, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (files[i]) {
            qemu_file_set_error(files[i], -ECANCELED);
            stream_close(g_steal_pointer(&files[i]));
        }
    }
}

static bool connect_all(Attempts *a, Error **errp)
{
    a->list = g_new(Attempt, channels_due(a));
    memset(a->files, 0, channels_due(a) * sizeof(*a->files));
    qemu_sem_init(&a->ended, 0);
    wait_until_over(a);
    qemu_sem_destroy(&a->ended);
    g_free(a->list);
    if (a->err) {
        close_all(a->files, channels_due(a));
        error_propagate(errp, a->err);
        return false;
    }
    return true;
}

QEMUFile *source_channel_connect(const char *name, Error **errp)
{
    QEMUFile *f;
    Attempts a = { .name = name, .files = &f };

    return connect_all(&a, errp) ? f : NULL;
}

bool source_channels_connect(const char *name, QEMUFile **files, unsigned count,
                             SourceChannelMade *made, unsigned *failed,
                             Error **errp)
{
    Attempts a = {
        .name = name, .files = files, .count = count, .made = made,
    };
    bool ok;

    assert(count);
    ok = connect_all(&a, errp);
    *failed = a.failed;
    return ok;
}
