/*
 * How long threads have a CPU that others wait for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "turns.h"

#include <sched.h>

#ifdef CONFIG_LINUX
#include <sys/syscall.h>

/*
 * What sched_setattr(2) takes: its first version.  C libraries that declare it
 * are newer than some that we build with.
 */
typedef struct Attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;           /* ns; of ordinary threads: their turns */
    uint64_t deadline;
    uint64_t period;
} Attributes;
QEMU_BUILD_BUG_ON(sizeof(Attributes) != 48);

bool turns_short(void)
{
    Attributes a = { };

    if (syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0) ||
        a.policy != SCHED_OTHER) {
        return false;
    }
    a.runtime = TURNS_SHORT_NS;
    return !syscall(SYS_sched_setattr, 0, &a, 0);
}
#else
bool turns_short(void)
{
    return false;
}
#endif

void turns_give_way(void)
{
    sched_yield();
}
