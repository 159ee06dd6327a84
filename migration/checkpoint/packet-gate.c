/*
 * Checkpoints: the packets that wait in one gate
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/queue.h"
#include "packet-gate.h"

typedef struct HeldPacket {
    QSIMPLEQ_ENTRY(HeldPacket) next;
    uint64_t epoch;
    unsigned flags;
    int header;
    size_t size;
    uint8_t data[];
} HeldPacket;

typedef enum GateState {
    GATE_OPEN, GATE_CLOSED, GATE_DROPPING,
} GateState;

/* Epochs count from 1: what waited before protection began is of this one. */
enum { BEFORE_ALL = 0 };

struct PacketGate {
    GateState state;
    uint64_t epoch;             /* of a packet that comes now */
    uint64_t released;          /* this epoch and all before it */
    uint64_t limit;
    bool running;               /* packet_gate_run() calls back */
    GateSendFn *send;
    void *opaque;
    PacketGateCounts counts;
    /* In the order in which they came; epochs never descend. */
    QSIMPLEQ_HEAD(, HeldPacket) held;
};

PacketGate *packet_gate_new(uint64_t limit, GateSendFn *send, void *opaque)
{
    PacketGate *gate = g_new0(PacketGate, 1);

    gate->limit = limit;
    gate->send = send;
    gate->opaque = opaque;
    gate->released = UINT64_MAX;
    QSIMPLEQ_INIT(&gate->held);
    return gate;
}

static size_t held_size(size_t size)
{
    return sizeof(HeldPacket) + size;
}

static HeldPacket *remove_first(PacketGate *gate)
{
    HeldPacket *p = QSIMPLEQ_FIRST(&gate->held);

    QSIMPLEQ_REMOVE_HEAD(&gate->held, next);
    gate->counts.packets--;
    gate->counts.bytes -= p->size;
    gate->counts.held -= held_size(p->size);
    return p;
}

static void drop_all(PacketGate *gate)
{
    while (!QSIMPLEQ_EMPTY(&gate->held)) {
        g_free(remove_first(gate));
        gate->counts.dropped++;
    }
}

void packet_gate_free(PacketGate *gate)
{
    if (gate) {
        assert(!gate->running);
        drop_all(gate);
        g_free(gate);
    }
}

void packet_gate_close(PacketGate *gate)
{
    HeldPacket *p;

    assert(!gate->running);
    QSIMPLEQ_FOREACH(p, &gate->held, next) {
        p->epoch = BEFORE_ALL;
    }
    gate->state = GATE_CLOSED;
    gate->epoch = BEFORE_ALL + 1;
    gate->released = BEFORE_ALL;
    gate->counts.released = gate->counts.dropped = 0;
    gate->counts.peak = gate->counts.held;
}

void packet_gate_mark(PacketGate *gate, uint64_t epoch)
{
    if (gate->state == GATE_CLOSED) {
        assert(epoch >= gate->epoch);
        gate->epoch = epoch + 1;
    }
}

void packet_gate_release(PacketGate *gate, uint64_t epoch)
{
    if (gate->state == GATE_CLOSED) {
        gate->released = MAX(gate->released, MIN(epoch, gate->epoch - 1));
    }
}

void packet_gate_open(PacketGate *gate)
{
    gate->state = GATE_OPEN;
    gate->released = UINT64_MAX;
}

void packet_gate_drop(PacketGate *gate)
{
    assert(!gate->running);
    gate->state = GATE_DROPPING;
    drop_all(gate);
}

bool packet_gate_idle(const PacketGate *gate)
{
    return gate->state == GATE_OPEN && QSIMPLEQ_EMPTY(&gate->held) &&
           !gate->running;
}

bool packet_gate_take(PacketGate *gate, unsigned flags, int header,
                      const struct iovec *iov, int iovcnt)
{
    size_t size = iov_size(iov, iovcnt);
    HeldPacket *p;

    if (packet_gate_idle(gate)) {
        return false;
    }
    if (gate->state == GATE_DROPPING ||
        gate->counts.held + held_size(size) > gate->limit) {
        gate->counts.dropped++;
        return true;
    }
    p = g_malloc(held_size(size));
    p->epoch = gate->epoch;
    p->flags = flags;
    p->header = header;
    p->size = size;
    iov_to_buf(iov, iovcnt, 0, p->data, size);
    QSIMPLEQ_INSERT_TAIL(&gate->held, p, next);
    gate->counts.packets++;
    gate->counts.bytes += size;
    gate->counts.held += held_size(size);
    gate->counts.peak = MAX(gate->counts.peak, gate->counts.held);
    return true;
}

/* False if it could not be sent now. */
static bool send_first(PacketGate *gate)
{
    HeldPacket *p = QSIMPLEQ_FIRST(&gate->held);
    GatePacket packet = {
        .flags = p->flags, .header = p->header, .data = p->data,
        .size = p->size,
    };
    GateSent sent;

    /* It stays the first one: what comes meanwhile is behind it. */
    gate->running = true;
    sent = gate->send(gate->opaque, &packet);
    gate->running = false;
    if (sent == GATE_BUSY) {
        return false;
    }
    g_free(remove_first(gate));
    if (sent == GATE_SENT) {
        gate->counts.released++;
    } else {
        gate->counts.dropped++;
    }
    return true;
}

bool packet_gate_run(PacketGate *gate)
{
    if (gate->running) {
        return false;
    }
    while (!QSIMPLEQ_EMPTY(&gate->held) &&
           QSIMPLEQ_FIRST(&gate->held)->epoch <= gate->released) {
        if (!send_first(gate)) {
            return true;
        }
    }
    return false;
}

PacketGateCounts packet_gate_counts(const PacketGate *gate)
{
    return gate->counts;
}
