/*
 * How much of the background may be under way, so that it is not in the way
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page that is requested has to wait for all that was sent before it on the
 * same connection, and the buffers of two hosts and what lies between them
 * hold megabytes.  So no more is sent than the way there holds: after some
 * bytes a PING follows, and its PONG says that they have been read.  From both
 * the speed and the shortest round trip are learnt; their product, twice, is
 * enough to keep the way full, unless whoever reads is not there at once: so it
 * is never less than what is sent in PACE_WAIT_NS.
 *
 * A destination that stays silent for PACE_PATIENCE_NS is not waited for.
 *
 * Pure: times are nanoseconds of one clock, positions are bytes in the stream.
 * Migration thread.
 */

#ifndef MIGRATION_POSTCOPY_PACE_H
#define MIGRATION_POSTCOPY_PACE_H

#define PACE_WINDOW_MIN (256 * 1024)
#define PACE_WAIT_NS (400 * 1000ll)
#define PACE_WINDOW_MAX (64 * 1024 * 1024)
#define PACE_PATIENCE_NS (1000 * 1000 * 1000ll)

#define PACE_PINGS 32

typedef struct PacePing {
    uint64_t position;          /* behind what it follows */
    uint64_t read;              /* what was known to have been read then */
    int64_t at_ns;
} PacePing;

typedef struct Pace {
    bool on;
    uint64_t position;          /* behind the last PING */
    uint64_t read;              /* before that all has been read */
    uint32_t sent, answered;    /* PINGs; these wrap around */
    PacePing pings[PACE_PINGS];
    int64_t heard_ns;           /* when the last PONG came */
    uint64_t trip_ns;           /* the shortest; 0: unknown */
    double speed;               /* bytes/s */
    uint64_t window;            /* bytes under way at most */
} Pace;

/* A connection at @position; with @on false there is no limit. */
void pace_init(Pace *p, bool on, uint64_t position, int64_t now);

/* How many bytes may follow at once; UINT64_MAX if there is no limit */
uint64_t pace_allows(const Pace *p, uint64_t position, int64_t now);

/* Whether a PING is due, and its value: WIRE_PING_PACE with a number. */
bool pace_ping(Pace *p, uint64_t position, int64_t now, uint32_t *value);

/* A PONG has come: @value is that of the PING, or anything else. */
void pace_pong(Pace *p, uint32_t value, int64_t now);

#endif
