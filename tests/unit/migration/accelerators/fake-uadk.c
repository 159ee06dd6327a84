/*
 * UADK without a device, see fake.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <uadk/wd_comp.h>
#include <uadk/wd_sched.h>
#include "fake.h"

#define LEVEL 1

typedef struct Session {
    enum wd_comp_op_type op;
} Session;

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static bool begun;
static unsigned sessions;

int wd_comp_init2_(char *alg, __u32 sched_type, int task_type,
                   struct wd_ctx_params *params)
{
    int ret = 0;

    assert(!strcmp(alg, "zlib") && task_type == TASK_HW && !params);
    if (!accelerator_has_device() || accelerator_fails("wd_comp_init2_")) {
        return -ENODEV;
    }
    pthread_mutex_lock(&library_lock);
    if (begun) {
        ret = -WD_EEXIST;
    } else {
        begun = true;
        accelerator_made(1);
    }
    pthread_mutex_unlock(&library_lock);
    return ret;
}

void wd_comp_uninit2(void)
{
    pthread_mutex_lock(&library_lock);
    assert(begun && !sessions);
    begun = false;
    accelerator_made(-1);
    pthread_mutex_unlock(&library_lock);
}

static void count_sessions(int more)
{
    pthread_mutex_lock(&library_lock);
    assert(begun);
    sessions += more;
    accelerator_made(more);
    pthread_mutex_unlock(&library_lock);
}

handle_t wd_comp_alloc_sess(struct wd_comp_sess_setup *setup)
{
    struct sched_params *turns = setup->sched_param;
    Session *s;

    assert(setup->alg_type == WD_ZLIB && turns->type == setup->op_type);
    if (accelerator_fails("wd_comp_alloc_sess")) {
        return 0;
    }
    s = calloc(1, sizeof(*s));
    s->op = setup->op_type;
    count_sessions(1);
    return (uintptr_t)s;
}

void wd_comp_free_sess(handle_t session)
{
    count_sessions(-1);
    free((Session *)(uintptr_t)session);
}

/* A page of text that is too long for its room is an error of the request. */
int wd_do_comp_sync(handle_t session, struct wd_comp_req *request)
{
    Session *s = (Session *)(uintptr_t)session;
    int ret;

    assert(request->op_type == s->op && request->src_len);
    if (accelerator_fails("wd_do_comp_sync")) {
        return -EIO;
    }
    if (s->op == WD_DIR_COMPRESS) {
        ret = accelerator_compress(FORMAT_ZLIB, LEVEL, request->src,
                                   request->src_len, request->dst,
                                   &request->dst_len);
    } else {
        ret = accelerator_decompress(FORMAT_ZLIB, request->src,
                                     request->src_len, request->dst,
                                     &request->dst_len, NULL);
    }
    accelerator_worked();
    request->status = ret != Z_OK || accelerator_fails("status");
    return 0;
}
