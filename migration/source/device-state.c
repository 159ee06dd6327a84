/*
 * The source: devices whose state is saved by threads of their own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/base/first-error.h"
#include "migration/device/sections.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/wire/stream.h"
#include "device-state.h"
#include "multifd.h"
#include "state.h"

typedef struct SaveThread {
    SaveLiveCompletePrecopyThreadData data;
    QemuThread thread;
} SaveThread;

static GPtrArray *save_threads;         /* migration thread; NULL: none */
static bool save_threads_stop;          /* atomic; asked for by the threads */
static QemuSemaphore save_ended;        /* a post for each thread */
static FirstError save_error;

/* How often it is looked whether the migration was cancelled */
#define SAVE_POLL_MS 50

static void __attribute__((constructor)) save_threads_init(void)
{
    first_error_init(&save_error);
    qemu_sem_init(&save_ended, 0);
}

/*
 * A switchover in two phases may be repeated, and postcopy starts the guest
 * before its devices are there: then devices are saved on the main channel.
 * Both sides ask this, and have to have the same settings.
 */
bool multifd_device_state_supported(void)
{
    return migrate_multifd() && !migrate_mapped_ram() &&
           !migrate_strict_downtime() && !migrate_postcopy_ram() &&
           migrate_multifd_compression() == MULTIFD_COMPRESSION_NONE;
}

bool multifd_queue_device_state(char *idstr, uint32_t instance_id, char *data,
                                size_t len)
{
    return source.senders &&
           senders_queue_device(source.senders, idstr, instance_id, data, len);
}

bool multifd_device_state_save_thread_should_exit(void)
{
    return qatomic_read(&save_threads_stop);
}

static void *save_thread(void *opaque)
{
    SaveThread *t = opaque;
    Error *err = NULL;

    if (!t->data.hdlr(&t->data, &err)) {
        if (!err) {
            error_setg(&err, "it does not say why");
        }
        error_prepend(&err, "Cannot save device '%s' instance %" PRIu32 ": ",
                      t->data.idstr, t->data.instance_id);
        first_error_set(&save_error, err);
        error_free(err);
        qatomic_set(&save_threads_stop, true);
    }
    qemu_sem_post(&save_ended);
    return NULL;
}

static void start_save_thread(const Section *s)
{
    SaveThread *t = g_new0(SaveThread, 1);

    t->data = (SaveLiveCompletePrecopyThreadData) {
        .hdlr = s->ops->save_live_complete_precopy_thread,
        .idstr = g_strdup(s->name),
        .instance_id = s->instance_id,
        .handler_opaque = s->opaque,
    };
    qemu_thread_create(&t->thread, "mig/src/save", save_thread, t,
                       QEMU_THREAD_JOINABLE);
    g_ptr_array_add(save_threads, t);
}

void save_threads_begin(void)
{
    Section *s;

    if (!multifd_device_state_supported() || !source.senders) {
        return;
    }
    qatomic_set(&save_threads_stop, false);
    first_error_clear(&save_error);
    save_threads = g_ptr_array_new();
    FOR_EACH_SECTION_WITH(s, save_live_complete_precopy_thread) {
        if (section_active(s)) {
            start_save_thread(s);
        }
    }
}

static void stop_save_threads(void)
{
    qatomic_set(&save_threads_stop, true);
    senders_drop_devices(source.senders);
}

/* They end by themselves, or because the migration does. */
static void join_save_threads(void)
{
    for (guint left = save_threads->len; left; ) {
        if (qemu_sem_timedwait(&save_ended, SAVE_POLL_MS) == 0) {
            left--;
        } else if (!source_may_go_on(NULL)) {
            stop_save_threads();
        }
    }
    for (guint i = 0; i < save_threads->len; i++) {
        SaveThread *t = g_ptr_array_index(save_threads, i);

        qemu_thread_join(&t->thread);
        g_free(t->data.idstr);
        g_free(t);
    }
    g_clear_pointer(&save_threads, g_ptr_array_unref);
}

bool save_threads_join(Error **errp)
{
    bool some = save_threads && save_threads->len;
    Error *err;

    if (save_threads) {
        join_save_threads();
    }
    if (!some) {
        return true;
    }
    if (!source_may_go_on(errp)) {
        return false;
    }
    err = first_error_get(&save_error);
    if (!err && !senders_settle_devices(source.senders)) {
        error_setg(&err, "The channels of multifd were closed before the "
                   "state of all devices was sent");
    }
    error_propagate(errp, err);
    return !err;
}

void save_threads_abort(void)
{
    if (save_threads) {
        stop_save_threads();
        join_save_threads();
    }
}
