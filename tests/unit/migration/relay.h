/*
 * Between the two sides: a relay that stops, cuts and counts
 *
 * The source connects to the relay, which connects to the destination, as often
 * as the source does.  A test names a record that it waits for, in one
 * direction: when the relay comes to it, it holds back all that follows, in
 * that direction or in both, and the test decides how to go on.  So what a side
 * has sent, and what the other one knows of it, is exact at that moment,
 * however slow the machine is.
 *
 * A thread of its own; all functions are called by the test's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_RELAY_H
#define TEST_RELAY_H

typedef enum RelayWay {
    TO_DESTINATION,
    TO_SOURCE,
    RELAY_WAYS,
} RelayWay;

/* What begins a record is unlike anything that precedes it by chance. */
#define RELAY_PATTERN_MAX 8

typedef struct RelayStop {
    RelayWay way;
    uint8_t pattern[RELAY_PATTERN_MAX];
    unsigned length;            /* of the pattern */
    unsigned record;            /* bytes that pass nevertheless; 0: none */
    bool message;               /* all of it passes, as its length says */
    unsigned skip;              /* so many records like it pass before */
} RelayStop;

typedef struct Relay Relay;

/* Both are paths of UNIX sockets. */
Relay *relay_new(const char *listen_at, const char *connect_to);
void relay_free(Relay *relay);

/* From now on, once; only one at a time, in whatever connection. */
void relay_stop_at(Relay *relay, const RelayStop *stop);

/* Until it has come to it.  Fails the test after a long time. */
void relay_wait(Relay *relay);

/* It has come to it. */
bool relay_has_stopped(Relay *relay);

/* What was held back passes, and all that follows. */
void relay_go_on(Relay *relay);

/* Nothing passes in @way any more, as of now, until relay_go_on(). */
void relay_hold(Relay *relay, RelayWay way);

/* Closes all connections; what is held back is lost.  New ones may come. */
void relay_cut(Relay *relay);

/* The same of one alone: @number counts those that there have been, from 0. */
void relay_cut_one(Relay *relay, unsigned number);

/* How many connections there have been. */
unsigned relay_connections(Relay *relay);

/* Bytes that have passed, of all connections */
uint64_t relay_bytes(Relay *relay, RelayWay way);

#endif
