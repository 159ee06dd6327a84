/*
 * Strict downtime: a model of who may run the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two sides, a link and a clock.  The steps are those of strict-downtime.rst;
 * time is not counted: a deadline that may pass between any two steps stands
 * for every possible delay.  "make check-model" has spin look at all
 * interleavings, once as it is and once for each of the mistakes below, which
 * it must find.
 *
 *   MISTAKE=1   the deadline resumes the guest without asking who was first
 *   MISTAKE=2   the answer to an earlier attempt is taken for that to this one
 *   MISTAKE=3   the destination starts as soon as it is ready
 *   MISTAKE=4   after COMMIT a broken link has the source resume
 *   MISTAKE=5   an abort forgets to resume
 *   MISTAKE=6   the destination starts without having all memory
 */

#ifndef MISTAKE
#define MISTAKE 0
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif

mtype = { HOLD, STATE, COMMIT, ABORT, READY, STARTED, REFUSED };

/*
 * Each channel keeps its order, and knows nothing of the others: memory may
 * come over several.  A link that is cut loses what is on its way from any
 * point on.
 */
chan main_channel = [4] of { mtype, byte };
chan memory_channel = [4] of { byte };
chan return_path = [4] of { mtype, byte };

bool cut;                       /* the link, as both sides see it */
bool broken;                    /* and nobody wanted it to be */
bool source_alive = true, destination_alive = true;

/* Whose vCPUs run */
bool source_runs = true, destination_runs;

/* What the source and its deadline agree on by one compare-and-swap */
mtype = { IDLE, OPEN, COMMITTED, ABORTED };
mtype attempt_state = IDLE;
byte attempt;                   /* counted from 1 */

/* How it ended on the source */
mtype = { UNDECIDED, DONE, FAILED, LOST };
mtype verdict = UNDECIDED;

byte ready;                     /* the attempt that the destination has all of */
bool destination_over;          /* it will not start the guest any more */

/* Neither side may start a guest that runs on the other. */
inline check()
{
    assert(!(source_runs && destination_runs))
}

/* A side that has died does nothing any more. */
inline resume()
{
#if MISTAKE != 5
    source_runs = source_alive;
#endif
    check()
}

inline start()
{
    destination_runs = destination_alive;
    check()
}

/*
 * The end of the return path: what had been sent before it can be read, if the
 * link is whole.
 */
#define hung_up (broken || (cut && empty(return_path)))

/* A sender that waits for room in a link that is cut waits no longer. */
inline send(channel, what, whose)
{
    if
    :: channel!what, whose
    :: cut -> skip
    fi
}

/* A timer in the source's main loop: it can pass at any time. */
active proctype deadline()
{
    do
    :: atomic {
        source_alive && attempt_state == OPEN ->
            attempt_state = ABORTED;
            resume()
       }
#if MISTAKE == 1
    :: atomic {
        source_alive && attempt_state == COMMITTED && verdict == UNDECIDED ->
            attempt_state = ABORTED;
            resume()
       }
#endif
    :: verdict != UNDECIDED || !source_alive -> break
    od
}

/* By the migration thread, which may find that the deadline was first. */
inline abort_attempt()
{
    atomic {
        if
        :: attempt_state == OPEN -> attempt_state = ABORTED; resume()
        :: else -> skip
        fi
    }
}

active proctype source_thread()
{
    mtype what;
    byte whose;

    do
    :: attempt < ATTEMPTS ->
        /* stop the guest; the deadline is set */
        atomic {
            attempt++;
            source_runs = false;
            attempt_state = OPEN
        }
        send(main_channel, HOLD, attempt);
        if
        :: memory_channel!attempt
        :: cut -> skip
        fi;
        send(main_channel, STATE, attempt);

        /* the answer, or a reason not to wait for it any longer */
        do
        :: attempt_state == ABORTED -> break
        :: hung_up -> abort_attempt(); break
        :: return_path?what, whose ->
            if
            :: what == REFUSED -> abort_attempt(); verdict = FAILED; break
#if MISTAKE == 2
            :: what == READY ->
#else
            :: what == READY && whose == attempt ->
#endif
                if
                :: atomic {
                    attempt_state == OPEN -> attempt_state = COMMITTED
                   };
                   break
                /* what is left to do would not fit any more */
                :: abort_attempt(); break
                fi
            :: else -> skip         /* of an attempt that is over */
            fi
        od;

        if
        :: attempt_state == COMMITTED -> break
        :: attempt_state == ABORTED && verdict == FAILED -> goto over
        :: attempt_state == ABORTED && verdict != FAILED ->
            send(main_channel, ABORT, attempt);
            attempt_state = IDLE
        fi
    :: attempt == ATTEMPTS -> verdict = FAILED; goto over
    od;

    assert(ready == attempt || cut);
    send(main_channel, COMMIT, attempt);
    do
    :: return_path?what, whose ->
        if
        :: what == STARTED -> verdict = DONE; goto over
        /* it says that it has not started the guest and never will */
        :: what == REFUSED -> resume(); verdict = FAILED; goto over
        :: else -> skip
        fi
    :: hung_up ->
#if MISTAKE == 4
        resume();
        verdict = FAILED;
#else
        verdict = LOST;
#endif
        goto over
    od;
over:
    cut = true
}

active proctype destination()
{
    mtype what;
    byte whose, memory;

    do
    /* a broken link before COMMIT: the guest is not ours */
    :: cut -> goto over
    :: memory_channel?memory
    :: main_channel?what, whose ->
        if
        :: what == HOLD -> ready = 0
        :: what == STATE ->
            /* memory may come later than the devices, or never */
            do
            :: memory_channel?memory
#if MISTAKE == 6
            :: true -> break
#else
            :: memory >= whose -> break
#endif
            :: cut -> goto over
            od;
            if
            :: ready = whose;
               send(return_path, READY, whose);
#if MISTAKE == 3
               atomic { start() }
#endif
            /* a device cannot be loaded */
            :: send(return_path, REFUSED, whose);
               goto over
            fi
        :: what == ABORT -> ready = 0
        :: what == COMMIT ->
            assert(ready == whose && memory >= whose);
            if
            :: atomic { start() };
               send(return_path, STARTED, whose)
            /* the disks cannot be opened */
            :: send(return_path, REFUSED, whose)
            fi;
            goto over
        fi
    od;
over:
    destination_over = true;
    cut = true
}

/*
 * The world: the link breaks, or either side dies, at any time or never.  With
 * a side die its guest and the link.
 */
active proctype world()
{
    if
    :: broken = true
    :: atomic { broken = true; source_alive = false; source_runs = false }
    :: atomic { broken = true; destination_alive = false;
                destination_runs = false }
    :: goto well
    fi;
    cut = true;
well:
    skip
}

/* When nothing more happens */
active proctype judge()
{
    timeout;
    check();
    /* it ends: nobody waits for ever */
    assert(!source_alive || verdict != UNDECIDED);
    assert(!source_alive || verdict != DONE || !source_runs);
    /* an abort leaves the guest running where it was */
    assert(!source_alive || verdict != FAILED || source_runs);
    assert(destination_over);
    /* nobody gives a guest up while both could talk about it */
    assert(broken || source_runs || destination_runs);
    /* what is done is done */
    assert(!destination_alive || verdict != DONE || destination_runs);
    /* only what nobody can know is left to people */
    assert(verdict != LOST || broken)
}
