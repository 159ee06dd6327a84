/*
 * The part of UADK's interface that is used, for tests without that library
 *
 * Names and values are those of UADK 2.6.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKE_WD_COMP_H
#define FAKE_WD_COMP_H

#include <stdint.h>
#include <linux/types.h>

typedef unsigned long long handle_t;

#define WD_EEXIST 17

enum alg_task_type { TASK_MIX, TASK_HW, TASK_INSTR };

enum wd_comp_alg_type { WD_DEFLATE, WD_ZLIB, WD_GZIP };

enum wd_comp_op_type { WD_DIR_COMPRESS, WD_DIR_DECOMPRESS };

enum wd_comp_level { WD_COMP_L1 = 1 };

enum wd_comp_winsz_type { WD_COMP_WS_4K };

struct wd_comp_req {
    void *src;
    __u32 src_len;
    void *dst;
    __u32 dst_len;
    enum wd_comp_op_type op_type;
    __u32 status;
};

struct wd_comp_sess_setup {
    enum wd_comp_alg_type alg_type;
    enum wd_comp_level comp_lv;
    enum wd_comp_winsz_type win_sz;
    enum wd_comp_op_type op_type;
    void *sched_param;
};

struct wd_ctx_params;

int wd_comp_init2_(char *alg, __u32 sched_type, int task_type,
                   struct wd_ctx_params *params);
#define wd_comp_init2(alg, sched_type, task_type) \
    wd_comp_init2_(alg, sched_type, task_type, NULL)
void wd_comp_uninit2(void);
handle_t wd_comp_alloc_sess(struct wd_comp_sess_setup *setup);
void wd_comp_free_sess(handle_t session);
int wd_do_comp_sync(handle_t session, struct wd_comp_req *request);

#endif
