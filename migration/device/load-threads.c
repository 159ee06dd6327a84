/*
 * Threads that load device state beside the main channel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "block/thread-pool.h"
#include "migration/base/first-error.h"
#include "migration/misc.h"
#include "load-threads.h"

typedef struct LoadThread {
    MigrationLoadThread function;
    void *opaque;
} LoadThread;

static ThreadPool *pool;
static bool used;               /* atomic; there is something to wait for */
static bool closing;            /* atomic; read by the threads */
static bool joined;             /* BQL; no more are started */
static FirstError load_error;

static void __attribute__((constructor)) load_threads_init(void)
{
    first_error_init(&load_error);
}

static int load_thread(void *opaque)
{
    LoadThread *thread = opaque;
    Error *err = NULL;

    if (!thread->function(thread->opaque, &closing, &err)) {
        if (!err) {
            error_setg(&err, "a thread of a device failed without a reason");
        }
        first_error_set(&load_error, err);
        error_free(err);
    }
    return 0;
}

void qemu_loadvm_start_load_thread(MigrationLoadThread function, void *opaque)
{
    LoadThread *thread = g_new(LoadThread, 1);

    /* It would never be waited for. */
    assert(pool && !joined);
    *thread = (LoadThread) { .function = function, .opaque = opaque };
    qatomic_set(&used, true);
    thread_pool_submit_immediate(pool, load_thread, thread, g_free);
}

void load_threads_open(void)
{
    assert(!pool);
    closing = used = joined = false;
    pool = thread_pool_new();
}

bool load_threads_join(Error **errp)
{
    Error *err;

    /* The guest is stopped: whoever got the lock would keep it waiting. */
    if (qatomic_read(&used)) {
        bql_unlock();
        thread_pool_wait(pool);
        bql_lock();
    }

    joined = true;
    qatomic_set(&closing, true);
    err = first_error_get(&load_error);
    error_propagate(errp, err);
    return !err;
}

void load_threads_give_up(void)
{
    qatomic_set(&closing, true);
}

void load_threads_close(void)
{
    if (!pool) {
        return;
    }
    joined = true;
    qatomic_set(&closing, true);
    bql_unlock();
    g_clear_pointer(&pool, thread_pool_free);
    bql_lock();
    first_error_clear(&load_error);
}
