/*
 * One attempt to switch over within a limit: who decides how it ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/base/clock.h"
#include "attempt.h"

typedef enum AttemptState {
    ATTEMPT_IDLE,
    ATTEMPT_OPEN,
    ATTEMPT_COMMITTED,
    ATTEMPT_ABORTED,
} AttemptState;

/* There is one at a time. */
static struct {
    int state;                  /* AttemptState; atomic */
    const char *step;           /* atomic */
    QEMUTimer *timer;           /* BQL, and all that follows */
    void (*resume)(void);
    AttemptEnd end;
} attempt;

static bool attempt_decide(AttemptState how)
{
    return qatomic_cmpxchg(&attempt.state, ATTEMPT_OPEN, how) == ATTEMPT_OPEN;
}

void attempt_step(const char *step)
{
    qatomic_set(&attempt.step, step);
}

bool attempt_open(void)
{
    return qatomic_read(&attempt.state) == ATTEMPT_OPEN;
}

bool attempt_commit(void)
{
    assert(bql_locked());
    attempt.end.committed = attempt_decide(ATTEMPT_COMMITTED);
    return attempt.end.committed;
}

void attempt_abort(const char *reason)
{
    assert(bql_locked());
    if (attempt_decide(ATTEMPT_ABORTED)) {
        attempt.resume();
        attempt.end.resumed_ns = now_ns();
        pstrcpy(attempt.end.reason, sizeof(attempt.end.reason), reason);
    }
}

static void time_is_over(void *opaque)
{
    g_autofree char *reason = g_strdup_printf(
        "time was over during '%s'", qatomic_read(&attempt.step));

    attempt_abort(reason);
}

bool attempt_in_time(void)
{
    assert(bql_locked());
    if (timer_expired(attempt.timer, now_ns())) {
        time_is_over(NULL);
    }
    return attempt_open();
}

void attempt_begin(int64_t deadline_ns, void (*resume)(void))
{
    assert(bql_locked() && !attempt_open());
    attempt.resume = resume;
    attempt.end = (AttemptEnd) { 0 };
    attempt_step("stop");
    qatomic_set(&attempt.state, ATTEMPT_OPEN);
    attempt.timer = timer_new_ns(QEMU_CLOCK_REALTIME, time_is_over, NULL);
    timer_mod(attempt.timer, deadline_ns);
}

AttemptEnd attempt_end(void)
{
    assert(bql_locked() && !attempt_open());
    timer_free(attempt.timer);
    attempt.timer = NULL;
    qatomic_set(&attempt.state, ATTEMPT_IDLE);
    return attempt.end;
}
