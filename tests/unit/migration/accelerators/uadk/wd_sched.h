/*
 * See wd_comp.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKE_WD_SCHED_H
#define FAKE_WD_SCHED_H

#include <linux/types.h>

enum sched_policy_type { SCHED_POLICY_RR };

struct sched_params {
    int numa_id;
    __u8 type;
    __u8 mode;
    __u32 begin, end;
};

#endif
