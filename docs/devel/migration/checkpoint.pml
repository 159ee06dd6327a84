/*
 * Checkpoints: a model of epochs, of output and of who may run the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two sides, a link, the gate of the guest's network, and an arbiter outside of
 * both.  The steps are those of checkpoint.rst; time is not counted: a link that
 * may break between any two steps, and a primary that may lose patience at any
 * moment, stand for every possible delay.  "make check-model" has spin look at
 * all interleavings, once as it is and once for each of the mistakes below,
 * which it must find.
 *
 *   MISTAKE=1   output leaves before its epoch is acknowledged
 *   MISTAKE=2   an acknowledgement releases what was sent after the mark as well
 *   MISTAKE=3   half an epoch is acknowledged
 *   MISTAKE=4   the guest starts from an epoch older than the acknowledged one
 *   MISTAKE=5   the secondary starts by itself when the link breaks
 *   MISTAKE=6   the arbiter starts the secondary and leaves the primary alone
 *   MISTAKE=7   a primary that stops because of a loss lets its output leave
 *   MISTAKE=8   the arbiter starts a secondary that the primary has given up
 *   MISTAKE=9   a primary that goes on without a secondary keeps its output
 *   MISTAKE=10  a failover starts the guest before the first epoch is whole
 */

#ifndef MISTAKE
#define MISTAKE 0
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2              /* epochs */
#endif

mtype = { BEGINNING, REST };    /* of an epoch */

/* A link that is cut loses what is on its way from any point on. */
chan main_channel = [2] of { mtype, byte };
chan return_path = [2] of { byte };
bool cut;

bool primary_alive = true, secondary_alive = true;

/* Whose vCPUs run */
bool primary_runs = true, secondary_runs;

/*
 * The guest sends at most one packet an epoch, with the number of the epoch.
 * Its state at the mark of epoch N knows all packets up to N.
 */
bool waits[ATTEMPTS + 2];       /* in the gate */
bool gate_open;
byte guest_epoch = 1;           /* that the guest is in, on the primary */
byte marked;
byte seen;                      /* the last packet that somebody outside got */

/* checkpoint-on-loss, and what became of it */
bool stop_on_loss;
mtype = { PROTECTED, STOPPED, UNPROTECTED };
mtype protection = PROTECTED;

bool primary_over;              /* protection has ended, or the primary has */

/* On the secondary: epochs, 0 before the first */
byte partial, complete, applied;
bool secondary_over;            /* it starts no guest any more */

/* The arbiter's word to the secondary, and that there will be none */
bool failover_requested, no_failover;

/* Neither side may run a guest that runs on the other. */
inline check_one_guest()
{
    assert(!(primary_runs && secondary_runs))
}

/* In order */
inline leave(number)
{
    assert(number > seen);
    seen = number
}

/* All that waits and belongs to epoch @until or to an older one */
inline release(until)
{
    d_step {
        byte n = 1;

        do
        :: n <= until && n < ATTEMPTS + 2 ->
            if
            :: waits[n] -> waits[n] = false; leave(n)
            :: else -> skip
            fi;
            n++
        :: else -> break
        od;
        n = 0
    }
}

inline start_secondary(from)
{
    /* nothing is known outside that the guest does not know */
    assert(seen <= from);
    assert(from > 0);
    secondary_runs = secondary_alive;
    check_one_guest()
}

/* The guest on the primary: it may send at any time. */
active proctype guest()
{
    do
    :: atomic {
        primary_runs && !gate_open && !waits[guest_epoch] ->
            waits[guest_epoch] = true
#if MISTAKE == 1
            ; release(guest_epoch)
#endif
       }
    :: atomic {
        primary_runs && gate_open && seen < guest_epoch -> leave(guest_epoch)
       }
    :: primary_over -> break
    od
}

/* The guest goes on here, and nobody else may have it. */
inline go_on_unprotected()
{
    protection = UNPROTECTED;
    primary_runs = true;
#if MISTAKE != 9
    release(guest_epoch);
    gate_open = true;
#endif
    check_one_guest()
}

/* Patience ends, or the link is seen to be cut. */
inline lose_secondary()
{
    cut = true;
    atomic {
        if
        :: !primary_alive -> skip
        :: primary_alive && stop_on_loss ->
#if MISTAKE == 7
            release(guest_epoch);
#endif
            primary_runs = false;
            protection = STOPPED
        :: primary_alive && !stop_on_loss -> go_on_unprotected()
        fi
    }
}

active proctype primary()
{
    byte acknowledged;

    if
    :: stop_on_loss = true
    :: stop_on_loss = false
    fi;
    do
    :: guest_epoch <= ATTEMPTS ->
        /* stop and collect */
        atomic {
            if
            :: primary_alive -> primary_runs = false
            :: else -> goto over
            fi
        };
        /* mark; the guest resumes in the next epoch */
        atomic {
            if
            :: primary_alive ->
                marked = guest_epoch;
                guest_epoch++;
                primary_runs = true;
                check_one_guest()
            :: else -> goto over
            fi
        };
        if
        :: main_channel!BEGINNING, marked
        :: cut -> lose_secondary(); goto over
        fi;
        if
        :: main_channel!REST, marked
        :: cut -> lose_secondary(); goto over
        fi;
        if
        :: return_path?acknowledged
        :: lose_secondary(); goto over
        fi;
        atomic {
            if
            :: primary_alive ->
                assert(acknowledged == marked);
#if MISTAKE == 2
                release(acknowledged + 1)
#else
                release(acknowledged)
#endif
            :: else -> goto over
            fi
        }
    :: guest_epoch > ATTEMPTS -> break
    od;
    /* as by migrate_cancel */
    cut = true;
    atomic {
        if
        :: primary_alive -> go_on_unprotected()
        :: else -> skip
        fi
    };
over:
    primary_over = true
}

inline acknowledge(number)
{
    if
    :: return_path!number
    :: cut -> skip
    fi
}

active proctype secondary()
{
    byte number;

    do
    :: main_channel?BEGINNING, number ->
        partial = number
#if MISTAKE == 3
        ; acknowledge(number)
#endif
    :: main_channel?REST, number ->
        assert(partial == number);
        /* whole, in one step, if the secondary is there to read it */
        atomic {
            if
            :: secondary_alive -> complete = number
            :: else -> goto over
            fi
        };
#if MISTAKE != 3
        acknowledge(number);
#endif
        /* it is in the guest's memory before the next one is acknowledged */
        if
        :: applied = number
        :: failover_requested -> break
        fi
    :: failover_requested -> break
    :: cut && no_failover ->
#if MISTAKE == 5
        atomic {
            if
            :: complete > 0 -> start_secondary(complete)
            :: else -> skip
            fi
        };
#endif
        goto over
    od;
    atomic {
        if
        :: secondary_alive ->
#if MISTAKE != 4
            applied = complete;
#endif
            start_secondary(applied)
        :: else -> skip
        fi
    };
over:
    secondary_over = true
}

/*
 * One decision at most.  For the secondary: the primary is fenced first, or is
 * seen to have stopped for good, and the guest has not gone on unprotected.
 * The links of the arbiter are not those of the migration.
 */
active proctype arbiter()
{
    if
    :: atomic {
#if MISTAKE == 10
        secondary_alive && protection != UNPROTECTED ->
#elif MISTAKE == 8
        complete > 0 && secondary_alive ->
#else
        complete > 0 && secondary_alive && protection != UNPROTECTED ->
#endif
#if MISTAKE != 6
            if
            :: protection == STOPPED -> skip
            :: protection != STOPPED ->
                primary_alive = false;
                primary_runs = false
            fi;
#endif
            failover_requested = true
       };
       cut = true
    :: no_failover = true
    fi
}

/* The world: the link breaks, or either side dies, at any time or never. */
active proctype world()
{
    if
    :: cut = true
    :: atomic { cut = true; primary_alive = false; primary_runs = false }
    :: atomic { cut = true; secondary_alive = false; secondary_runs = false }
    :: goto well
    fi;
well:
    skip
}

/* When nothing more happens */
active proctype judge()
{
    timeout;
    check_one_guest();
    assert(secondary_over);
    /* a failover that was requested is done, if there is somebody to do it */
    assert(!failover_requested || !secondary_alive || secondary_runs);
    /* a primary that goes on, or that nothing has happened to, has the guest */
    assert(protection != UNPROTECTED || !primary_alive || primary_runs);
    assert(!primary_alive || protection != PROTECTED || primary_runs);
    /* and what its guest has sent is not kept back */
    assert(protection != UNPROTECTED || !primary_alive || gate_open)
}
