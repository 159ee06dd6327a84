/*
 * Strict downtime with memory that follows: a model of one page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * strict-downtime.pml is about who may run the guest; this is about what it
 * finds when it does.  The page is written to whenever the guest runs at the
 * source.  It may have been sent before, is thrown away, asked for by whoever
 * loads the devices, and sent again, over attempts that may be given up at any
 * step.  "make check-model" has spin look at all interleavings, and for each
 * of these mistakes:
 *
 *   MISTAKE=1   what is thrown away counts as sent
 *   MISTAKE=2   after an abort a page that is there is kept, not replaced
 *   MISTAKE=3   an abort does not wait until nobody loads the state
 *   MISTAKE=4   the destination starts as soon as it is ready
 *   MISTAKE=5   after COMMIT a broken link has the source resume
 *   MISTAKE=6   the dirty log is not collected before the page is discarded
 *   MISTAKE=7   an answer takes the page off the map, and an abort forgets it
 *   MISTAKE=8   an abort leaves who waits for a page where it is
 */

#ifndef MISTAKE
#define MISTAKE 0
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#define WRITES 2

mtype = { HOLD, DISCARD, STATE, PAGE, COMMIT, ABORT, END,
          REQUEST, READY, STARTED };

chan main_channel = [3] of { mtype, byte };
chan return_path = [2] of { mtype, byte };

bool cut, broken;               /* the link; and nobody wanted it to be */

bool source_runs = true, destination_runs;
mtype = { IDLE, OPEN, COMMITTED, ABORTED };
mtype attempt_state = IDLE;
byte attempt;                   /* counted from 1 */
mtype = { UNDECIDED, DONE, FAILED, LOST };
mtype verdict = UNDECIDED;

/* The page at the source: its content, by the number of writes */
byte content;
bool logged = true;             /* written to since the log was collected */
bool dirty;                     /* to be sent, as far as the map knows */

/* And at the destination */
byte copy;
bool present;
bool listening;                 /* touching it there can be noticed */
byte held;                      /* the attempt that HOLD announced */
byte state;                     /* of which the state is to be loaded; or 0 */
byte loaded;                    /* and has been */
byte ready;
bool destination_over;

inline check()
{
    assert(!(source_runs && destination_runs))
}

#define hung_up (broken || (cut && empty(return_path)))

/* A link that is cut takes no more, so it loses all from a point on. */
inline send(channel, what, value)
{
    if
    :: atomic { !cut && nfull(channel) -> channel!what, value }
    :: cut -> skip
    fi
}

active proctype guest()
{
    do
    :: atomic { source_runs && content < WRITES -> content++; logged = true }
    :: verdict != UNDECIDED -> break
    od
}

active proctype deadline()
{
    do
    :: atomic {
        attempt_state == OPEN -> attempt_state = ABORTED; source_runs = true;
        check()
       }
    :: verdict != UNDECIDED -> break
    od
}

inline abort_attempt()
{
    atomic {
        if
        :: attempt_state == OPEN -> attempt_state = ABORTED; source_runs = true
        :: else -> skip
        fi
    }
}

inline sync()
{
    dirty = dirty || logged;
    logged = false
}

active proctype source_thread()
{
    mtype what;
    byte value;
    bool may;

    do
    :: attempt < ATTEMPTS ->
        /* precopy: a page is taken off the map before it is read */
        atomic { sync() };
        if
        :: dirty ->
            dirty = false;
            value = content;
            send(main_channel, PAGE, value)
        :: true -> skip
        fi;

        atomic { attempt++; source_runs = false; attempt_state = OPEN };
        send(main_channel, HOLD, attempt);
        /* with the lock that whoever resumes the guest needs as well */
        atomic {
            if
            :: attempt_state == OPEN ->
#if MISTAKE != 6
                sync()
#endif
            :: else -> skip
            fi
        };
        if
        :: dirty ->
            send(main_channel, DISCARD, 0);
#if MISTAKE == 1
            dirty = false
#endif
        :: else -> skip
        fi;
        send(main_channel, STATE, attempt);

        do
        :: attempt_state == ABORTED -> break
        :: hung_up -> abort_attempt(); break
        :: return_path?what, value ->
            if
            :: what == REQUEST ->
                /* copied while nobody can resume the guest; it stays dirty */
                atomic {
                    may = attempt_state == OPEN;
                    value = content;
#if MISTAKE == 7
                    dirty = false
#endif
                };
                if
                :: may -> send(main_channel, PAGE, value)
                :: else -> skip
                fi
            :: what == READY && value == attempt ->
                if
                :: atomic {
                    attempt_state == OPEN -> attempt_state = COMMITTED
                   };
                   break
                :: abort_attempt(); break
                fi
            :: else -> skip
            fi
        od;

        if
        :: attempt_state == COMMITTED -> break
        :: else ->
            send(main_channel, ABORT, attempt);
            attempt_state = IDLE
        fi
    :: attempt == ATTEMPTS -> verdict = FAILED; goto over
    od;

    send(main_channel, COMMIT, attempt);
    if
    :: dirty ->
        dirty = false;
        send(main_channel, PAGE, content)
    :: else -> skip
    fi;
    send(main_channel, END, 0);
    do
    :: return_path?what, value ->
        if
        :: what == STARTED -> verdict = DONE; break
        :: else -> skip
        fi
    :: hung_up ->
#if MISTAKE == 5
        source_runs = true;
        check();
        verdict = FAILED;
#else
        verdict = LOST;
#endif
        break
    od;
    /* until it has been read, or the link is lost */
    if
    :: verdict == DONE -> destination_over || broken
    :: else -> skip
    fi;
over:
    cut = true
}

/* The main loop, which may have to wait for the page */
active proctype loader()
{
    byte mine;

    do
    :: state != 0 ->
        mine = state;
        if
        :: skip                     /* no device looks at the page */
        :: present ->
            assert(attempt_state != OPEN || mine != attempt ||
                   held != attempt || copy == content)
        :: !present && listening ->
            send(return_path, REQUEST, 0);
            if
            :: present -> skip
            :: !listening -> skip   /* zeros, for a state nobody wants */
            fi
        fi;
        if
        :: listening ->
            atomic { loaded = mine; ready = held; state = 0 };
            send(return_path, READY, ready);
#if MISTAKE == 4
            atomic { destination_runs = true; check() }
#endif
        :: else -> state = 0
        fi
    :: destination_over && state == 0 -> break
    od
}

/* The incoming thread */
active proctype destination()
{
    mtype what;
    byte value;

    do
    :: cut && !destination_runs -> goto over
    :: broken -> goto over
    :: main_channel?what, value ->
        if
        :: what == HOLD -> held = value
        :: what == DISCARD -> present = false
        :: what == PAGE ->
            if
#if MISTAKE == 2
            :: held > 0 && present -> skip
#else
            :: listening && present -> skip
#endif
            :: else -> atomic { copy = value; present = true }
            fi
        :: what == STATE -> atomic { listening = true; state = value }
        :: what == ABORT ->
#if MISTAKE != 8
            listening = false;
#endif
#if MISTAKE != 3
            if
            :: state == 0 -> skip
            :: cut -> listening = false
            fi;
            state == 0;
#endif
            listening = false;
            ready = 0
        :: what == COMMIT ->
            assert(ready == value && loaded == value);
            atomic { destination_runs = true; check() };
            send(return_path, STARTED, value)
        :: what == END ->
            /* all is here, and it is ordinary memory again */
            assert(present && copy == content);
            goto over
        fi
    od;
over:
    listening = false;
    state == 0;
    destination_over = true
}

/* What the guest finds over there, if it does not have to wait */
active proctype moved_guest()
{
    if
    :: destination_runs && present -> assert(copy == content)
    :: destination_over -> skip
    fi
}

active proctype world()
{
    if
    :: broken = true; cut = true
    :: skip
    fi
}

active proctype judge()
{
    timeout;
    check();
    assert(verdict != UNDECIDED && destination_over);
    assert(verdict != FAILED || source_runs);
    assert(verdict != DONE || destination_runs);
    assert(broken || source_runs || destination_runs);
    assert(verdict != LOST || broken)
}
