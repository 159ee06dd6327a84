/*
 * QPL without a device, see fake.h
 *
 * A job that is submitted is done when it is waited for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <assert.h>
#include <string.h>
#include <zlib.h>
#include <qpl/qpl.h>
#include "fake.h"

/* So that whoever allocates less than was said is found out */
#define HIDDEN 512
#define LEVEL 1

static __thread unsigned queued;

static uint8_t *hidden(qpl_job *job)
{
    return (uint8_t *)(job + 1);
}

qpl_status qpl_get_job_size(qpl_path_t path, uint32_t *size)
{
    if (accelerator_fails("qpl_get_job_size")) {
        return QPL_STS_PATH_ERR;
    }
    *size = sizeof(qpl_job) + HIDDEN;
    return QPL_STS_OK;
}

qpl_status qpl_init_job(qpl_path_t path, qpl_job *job)
{
    if (path == qpl_path_hardware && !accelerator_has_device()) {
        return QPL_INIT_HW_NOT_SUPPORTED;
    }
    if (accelerator_fails("qpl_init_job")) {
        return QPL_STS_LIBRARY_INTERNAL_ERR;
    }
    memset(job, 0, sizeof(*job) + HIDDEN);
    job->data_ptr.path = path;
    accelerator_made(1);
    return QPL_STS_OK;
}

qpl_status qpl_fini_job(qpl_job *job)
{
    assert(!job->data_ptr.submitted);
    accelerator_made(-1);
    return QPL_STS_OK;
}

static qpl_status run(qpl_job *job)
{
    uint32_t out = job->available_out;
    int ret;

    assert(job->flags ==
           (QPL_FLAG_FIRST | QPL_FLAG_LAST | QPL_FLAG_OMIT_VERIFY));
    hidden(job)[HIDDEN - 1]++;
    if (job->op == qpl_op_compress) {
        assert(job->level == qpl_level_1);
        ret = accelerator_compress(FORMAT_RAW, LEVEL, job->next_in_ptr,
                                   job->available_in, job->next_out_ptr, &out);
    } else {
        ret = accelerator_decompress(FORMAT_RAW, job->next_in_ptr,
                                     job->available_in, job->next_out_ptr,
                                     &out, NULL);
    }
    job->total_in = job->available_in;
    job->total_out = out;
    return ret == Z_OK ? QPL_STS_OK
           : ret == Z_BUF_ERROR ? QPL_STS_MORE_OUTPUT_NEEDED
                                : QPL_STS_INVALID_BLOCK_TYPE;
}

qpl_status qpl_execute_job(qpl_job *job)
{
    assert(job->data_ptr.path == qpl_path_software);
    if (accelerator_fails("qpl_execute_job")) {
        return QPL_STS_LIBRARY_INTERNAL_ERR;
    }
    return run(job);
}

qpl_status qpl_submit_job(qpl_job *job)
{
    assert(job->data_ptr.path == qpl_path_hardware);
    assert(!job->data_ptr.submitted);
    if (accelerator_fails("qpl_submit_job")) {
        return QPL_STS_LIBRARY_INTERNAL_ERR;
    }
    if (queued >= accelerator_queue_size() ||
        accelerator_fails("qpl_submit_job busy")) {
        return QPL_STS_QUEUES_ARE_BUSY_ERR;
    }
    queued++;
    job->data_ptr.submitted = 1;
    return QPL_STS_OK;
}

qpl_status qpl_wait_job(qpl_job *job)
{
    assert(job->data_ptr.submitted);
    job->data_ptr.submitted = 0;
    queued--;
    if (accelerator_fails("qpl_wait_job")) {
        return QPL_STS_LIBRARY_INTERNAL_ERR;
    }
    accelerator_worked();
    return run(job);
}
