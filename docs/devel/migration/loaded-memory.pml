/*
 * Loaded memory: a model of one page that something else writes to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * strict-downtime.pml is about who may run the guest; this is about what one
 * page of its memory holds then.  The guest writes to it while it runs on the
 * source; a reset may write to it on the source while the guest is stopped, and
 * on the destination whenever an attempt is given up.  The guest must never
 * start with anything but what the source has.
 *
 *   MISTAKE=1   what a reset wrote on the destination is not told
 *   MISTAKE=2   the source does not wait for the answer to ABORT
 *   MISTAKE=3   the source does not look again before COMMIT
 *   MISTAKE=4   what changed before STATE does not end the attempt
 */

#ifndef MISTAKE
#define MISTAKE 0
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 3
#endif

mtype = { PAGE, STATE, ABORT, COMMIT, READY, CHANGED, ABORTED };

/* Each keeps its order. */
chan to_destination = [4] of { mtype, byte };
chan to_source = [6] of { mtype };

#define STRAY 9                 /* a content that nobody sent */
#define WRITES 3                /* of the guest, in all */

byte here = 1, there;           /* what the page holds */
bool dirty = true;              /* as the source sees it */
bool logged;                    /* by the destination: not the loader's */
bool guest_stopped;             /* on the source */
bool handed_over;
byte writes;

/* The guest, and a reset of the machine on the source */
active proctype writer()
{
    do
    :: atomic { writes < WRITES && !handed_over ->
                writes++; here = here % 4 + 1; dirty = true }
    :: handed_over -> break
    :: writes == WRITES -> break
    od
}

/* Sends the page if it is dirty; with the log looked at just before. */
inline send_memory()
{
    byte content;

    if
    :: atomic { dirty -> dirty = false; content = here }
       to_destination!PAGE, content
    :: !dirty -> skip
    fi
}

active proctype source_thread()
{
    byte attempt;
    bool changed;
    mtype what;

    do
    :: attempt < ATTEMPTS ->
        attempt++;
        changed = false;
        send_memory();
        to_destination!STATE, 0;
        do
        :: to_source?what ->
            if
            :: what == CHANGED -> changed = true
            :: what == READY -> break
            :: else -> skip
            fi
        od;
        /* the decision, and with it the last look, is one step: the BQL */
        if
        :: atomic {
#if MISTAKE != 3
            !dirty &&
#endif
#if MISTAKE != 4
            !changed &&
#endif
            true -> handed_over = true
           }
           to_destination!COMMIT, 0;
           break
        :: to_destination!ABORT, 0;
#if MISTAKE != 2
           do
           :: to_source?what ->
               if
               :: what == CHANGED -> changed = true
               :: what == ABORTED -> break
               fi
           od;
           if
           :: changed -> dirty = true
           :: else -> skip
           fi
#endif
        fi
    :: attempt == ATTEMPTS -> break
    od
}

/* What is not the loader's */
inline stray_write()
{
    atomic { there = STRAY; logged = true }
}

inline tell_changes()
{
#if MISTAKE != 1
    if
    :: atomic { logged -> logged = false }
       to_source!CHANGED
    :: !logged -> skip
    fi
#else
    logged = false
#endif
}

active proctype destination()
{
    mtype what;
    byte content;
    bool stray = false, loaded = false;

end:
    do
    :: to_destination?what, content ->
        if
        :: what == PAGE -> there = content
        :: what == STATE ->
            loaded = true;
            tell_changes();
            to_source!READY
        :: what == ABORT ->
            if
            :: stray_write()
            :: skip
            fi;
            loaded = false;
            tell_changes();
            to_source!ABORTED
        :: what == COMMIT ->
            assert(there == here);
            break
        fi
    /* once, before devices are loaded: what those write is part of that */
    :: !stray && !loaded ->
        stray = true;
        stray_write()
    od
}
