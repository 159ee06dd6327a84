/*
 * Checkpoints: the packets that wait in one gate
 *
 * Nothing of a network or a migration is known here: packets are bytes, each
 * with the number of the epoch in which it was sent, and leave by a callback.
 * What the states mean is said in output-gate.h.
 *
 * One thread at a time.  The callback may cause further packets to be sent; of
 * the functions below it may call packet_gate_take() alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_PACKET_GATE_H
#define MIGRATION_CHECKPOINT_PACKET_GATE_H

typedef struct PacketGate PacketGate;

typedef struct GatePacket {
    unsigned flags;             /* the sender's, and */
    int header;                 /* the length of its headers: kept as given */
    const uint8_t *data;
    size_t size;
} GatePacket;

typedef enum GateSent {
    GATE_SENT,                  /* it is gone */
    GATE_BUSY,                  /* not now: it stays the first one */
    GATE_NOWHERE,               /* there is nobody to take it: dropped */
} GateSent;

/* Sends a packet on. */
typedef GateSent GateSendFn(void *opaque, const GatePacket *packet);

typedef struct PacketGateCounts {
    uint64_t packets;           /* that wait now */
    uint64_t bytes;             /* of these */
    uint64_t held;              /* the same with bookkeeping: what is limited */
    uint64_t peak;              /* the most that @held has been */
    uint64_t released;          /* that were sent on after they had waited */
    uint64_t dropped;
} PacketGateCounts;

/* An open gate that holds up to @limit bytes, bookkeeping included. */
PacketGate *packet_gate_new(uint64_t limit, GateSendFn *send, void *opaque);

/* What waits is dropped. */
void packet_gate_free(PacketGate *gate);

/* What waits has been released; what comes belongs to epoch 1.  Counters: 0. */
void packet_gate_close(PacketGate *gate);

/* What comes from now on belongs to epoch @epoch + 1. */
void packet_gate_mark(PacketGate *gate, uint64_t epoch);

/*
 * Epochs up to @epoch are released, as far as they are marked;
 * packet_gate_run() sends them.
 */
void packet_gate_release(PacketGate *gate, uint64_t epoch);

/* Everything is released, and what comes passes when nothing waits. */
void packet_gate_open(PacketGate *gate);

/* What waits is dropped, and so is what comes. */
void packet_gate_drop(PacketGate *gate);

/*
 * Offers a packet of @flags and @header, which is in @iov.  True if the gate
 * has it, or has dropped it; false if it is to pass at once.
 */
bool packet_gate_take(PacketGate *gate, unsigned flags, int header,
                      const struct iovec *iov, int iovcnt);

/*
 * Sends what is released.  True if some of it still waits, as the callback was
 * busy: call again.  Within the callback it does nothing.
 */
bool packet_gate_run(PacketGate *gate);

/* Open, and nothing waits */
bool packet_gate_idle(const PacketGate *gate);

PacketGateCounts packet_gate_counts(const PacketGate *gate);

#endif
