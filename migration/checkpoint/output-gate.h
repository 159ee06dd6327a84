/*
 * Checkpoints: what the guest sends waits until its epoch is acknowledged
 *
 * A guest that is replaced by the copy of an earlier moment must not have told
 * anybody what happened since then.  Every filter-checkpoint object is a gate
 * of one network backend: packets from the guest wait in it, those to the guest
 * pass.  The calls below are about all gates at once:
 *
 *     open --begin--> closed --open--> open
 *                        |               ^
 *                       drop --> dropping-+
 *
 *     open       packets pass, behind those that still wait for the backend
 *     closed     packets wait, each as part of the epoch it was sent in
 *     dropping   packets of the guest are dropped
 *
 * Order: packets of one backend leave in the order in which they were sent, in
 * whatever state.  A backend that cannot take a packet is tried again every
 * millisecond; what waits for it stays in the gate, also after
 * output_gate_open().  A guest that is stopped is no reason to wait.
 *
 * Bounds: a gate holds at most as many bytes as the property max-bytes of its
 * object says (OUTPUT_GATE_BYTES unless set), bookkeeping included.  A packet
 * that does not fit is dropped and counted, as by a full queue of a network: no
 * back-pressure reaches the guest.  A warning tells of the first one.  Whoever
 * reads the statistics can end the epoch earlier.
 *
 * While packets wait: object-del of the filter, and setting its status to
 * "off", are refused unless the gate is open and empty.  netdev_del cannot be
 * refused here: what waits is dropped, as there is nobody to take it.  So it is
 * if the network device is unplugged, or has come to send headers (vnet-hdr) of
 * another length than when the packet was sent.  A filter that is added while
 * the gates are closed is closed too.
 *
 * A filter can be made useless by other ways: a netdev without one can get a
 * device, another filter can be put in front, and queue=tx can be set.
 * output_gate_possible() finds these; ask it in each epoch.
 *
 * All functions: main loop, or another thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECKPOINT_OUTPUT_GATE_H
#define MIGRATION_CHECKPOINT_OUTPUT_GATE_H

#include "qemu/units.h"

/* What one gate may hold, unless its object says otherwise, and at least */
#define OUTPUT_GATE_BYTES (64 * MiB)
#define OUTPUT_GATE_BYTES_MIN (128 * KiB)

typedef struct OutputGateStats {
    uint64_t packets;           /* that wait now */
    uint64_t bytes;             /* of these, without bookkeeping */
    uint64_t peak_bytes;        /* the most at once in a gate, by max-bytes */
    uint64_t released;          /* packets since output_gate_begin() */
    uint64_t dropped;           /* packets since then, for any reason */
} OutputGateStats;

/*
 * Whether every network device of the guest is connected to a backend whose
 * filter-checkpoint is on and is the first to get what the guest sends.  If
 * not, the error names the device, its backend and what to do.  A device
 * without a backend sends nothing.
 */
bool output_gate_possible(Error **errp);

/*
 * From now on nothing leaves until it is released; the guest is in epoch 1.
 * What waits since an earlier protection has been released and leaves first.
 */
void output_gate_begin(void);

/*
 * The guest is stopped, and its state is that of epoch @epoch: what it has
 * sent before belongs to it, what it sends from now on to the next one.  Epochs
 * ascend.  Without effect unless the gates are closed.
 */
void output_gate_mark(uint64_t epoch);

/*
 * Epoch @epoch is acknowledged: what belongs to it, or to older ones, leaves.
 * What was sent after the last mark stays, whatever @epoch is: it belongs to no
 * epoch yet that could have been acknowledged.  An epoch that is older than the
 * last one released changes nothing.  Without effect unless the gates are
 * closed.
 */
void output_gate_release(uint64_t epoch);

/*
 * Protection is over and the guest goes on here: all that waits leaves, and
 * nothing is held any more.  Harmless if it is open.
 */
void output_gate_open(void);

/*
 * The guest will not run here any more: what waits is dropped, released or
 * not, and so is all that the guest sends before output_gate_open() or
 * output_gate_begin().  Whoever resumes the guest here has to call one of them.
 */
void output_gate_drop(void);

/* Of all gates together, those that are gone included as far as counters go */
void output_gate_stats(OutputGateStats *stats);

#endif
