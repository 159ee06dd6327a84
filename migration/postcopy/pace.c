/*
 * How much of the background may be under way, so that it is not in the way
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/wire/wire.h"
#include "pace.h"

/* PINGs in a window: fewer of them tell less, more of them cost more. */
#define PINGS_PER_WINDOW 4
/* What is believed of a speed that was measured once, at the next time */
#define SPEED_FADES 0.98
/* Windows of what the way there holds */
#define WINDOWS 2

#define NS_PER_S 1e9

QEMU_BUILD_BUG_ON(PACE_PINGS <= PINGS_PER_WINDOW * WINDOWS);

void pace_init(Pace *p, bool on, uint64_t position, int64_t now)
{
    *p = (Pace) {
        .on = on,
        .position = position,
        .read = position,
        .heard_ns = now,
        .window = PACE_WINDOW_MIN,
    };
}

uint64_t pace_allows(const Pace *p, uint64_t position, int64_t now)
{
    uint64_t under_way = position - p->read;

    if (!p->on || (p->sent != p->answered &&
                   now - p->heard_ns > PACE_PATIENCE_NS &&
                   now - p->pings[p->answered % PACE_PINGS].at_ns >
                   PACE_PATIENCE_NS)) {
        return UINT64_MAX;
    }
    if (under_way >= p->window) {
        /* No answer is to come that would open it again: ask for one. */
        return p->sent == p->answered ? p->window / PINGS_PER_WINDOW : 0;
    }
    return MIN(p->window - under_way, p->window / PINGS_PER_WINDOW);
}

bool pace_ping(Pace *p, uint64_t position, int64_t now, uint32_t *value)
{
    if (!p->on || p->sent - p->answered == PACE_PINGS ||
        position - p->position < p->window / PINGS_PER_WINDOW) {
        return false;
    }
    p->pings[p->sent % PACE_PINGS] = (PacePing) { position, p->read, now };
    p->position = position;
    *value = WIRE_PING_PACE | (p->sent++ & ~WIRE_PING_PACE_MASK);
    return true;
}

static void learn(Pace *p, const PacePing *ping, int64_t now)
{
    uint64_t trip = MAX(now - ping->at_ns, 1);
    double speed = (ping->position - ping->read) * NS_PER_S / trip;
    double holds;

    p->trip_ns = p->trip_ns ? MIN(p->trip_ns, trip) : trip;
    p->speed = MAX(speed, p->speed * SPEED_FADES);
    holds = p->speed * MAX(WINDOWS * p->trip_ns, PACE_WAIT_NS) / NS_PER_S;
    p->window = CLAMP(holds, PACE_WINDOW_MIN, PACE_WINDOW_MAX);
}

/* Of several that have come the last one says it all. */
void pace_pong(Pace *p, uint32_t value, int64_t now)
{
    uint32_t number = p->answered +
        ((value - p->answered) & ~WIRE_PING_PACE_MASK);
    PacePing *ping = &p->pings[number % PACE_PINGS];

    if ((value & WIRE_PING_PACE_MASK) != WIRE_PING_PACE ||
        number - p->answered >= p->sent - p->answered) {
        return;
    }
    learn(p, ping, now);
    p->answered = number + 1;
    p->read = ping->position;
    p->heard_ns = now;
}
