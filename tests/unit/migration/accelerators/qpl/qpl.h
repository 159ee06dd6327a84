/*
 * The part of QPL's interface that is used, for tests without that library
 *
 * Names and values are those of QPL 1.5.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKE_QPL_H
#define FAKE_QPL_H

#include <stdint.h>

typedef enum {
    QPL_STS_OK = 0,
    QPL_STS_MORE_OUTPUT_NEEDED = 2,
    QPL_STS_QUEUES_ARE_BUSY_ERR = 5,
    QPL_STS_LIBRARY_INTERNAL_ERR = 6,
    QPL_STS_PATH_ERR = 54,
    QPL_STS_INVALID_BLOCK_TYPE = 213,
    QPL_INIT_HW_NOT_SUPPORTED = 500,
} qpl_status;

typedef enum {
    qpl_path_auto,
    qpl_path_hardware,
    qpl_path_software,
} qpl_path_t;

typedef enum {
    qpl_op_decompress,
    qpl_op_compress,
} qpl_operation;

typedef enum {
    qpl_level_1 = 1,
    qpl_level_3 = 3,
} qpl_compression_levels;

#define QPL_FLAG_FIRST          0x0001u
#define QPL_FLAG_LAST           0x0002u
#define QPL_FLAG_OMIT_VERIFY    0x4000u

typedef struct {
    uint8_t *next_in_ptr;
    uint32_t available_in;
    uint32_t total_in;
    uint8_t *next_out_ptr;
    uint32_t available_out;
    uint32_t total_out;
    qpl_operation op;
    uint32_t flags;
    qpl_compression_levels level;
    struct {
        qpl_path_t path;
        int submitted;
    } data_ptr;
} qpl_job;

qpl_status qpl_get_job_size(qpl_path_t path, uint32_t *size);
qpl_status qpl_init_job(qpl_path_t path, qpl_job *job);
qpl_status qpl_execute_job(qpl_job *job);
qpl_status qpl_submit_job(qpl_job *job);
qpl_status qpl_wait_job(qpl_job *job);
qpl_status qpl_fini_job(qpl_job *job);

#endif
