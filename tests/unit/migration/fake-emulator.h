/*
 * A running QEMU, as far as migration/ needs one
 *
 * Real are the main loop, threads, timers, coroutines, channels, VMState, QOM
 * and RCU.  Made up are the BQL, which is a mutex here, one vCPU that runs the
 * guest of fake-guest.h, run states, a device, disks, and what somebody may
 * request of the machine.  What goes wrong is said by FaultSet.
 *
 * There is one emulator a process.  Processes of both sides share a Witness,
 * which notices when the guest runs on both, runs twice through the same time,
 * or has its disks on both sides.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_FAKE_EMULATOR_H
#define TEST_FAKE_EMULATOR_H

#include "qapi/qapi-emit-events.h"
#include "qapi/qapi-types-run-state.h"
#include "fake-guest.h"

typedef enum SideId {
    SOURCE,
    DESTINATION,
    SIDES,
} SideId;

/* In memory that all processes share; atomic */
typedef struct Witness {
    unsigned long steps;        /* that the guest has done, wherever */
    int guest_at;               /* SideId + 1 of who runs it, or 0 */
    int disks_at;               /* bits by SideId: they are active */
    unsigned starts[SIDES];     /* how often it was started */
    unsigned resets[SIDES];     /* of all devices */
    int accused;                /* the text is there, or is being written */
    char accusation[256];       /* the first thing that must not be */
    uint8_t memory[SIDES][GUEST_BYTES];     /* copies, for comparison */
} Witness;

/* What the device writes to memory, if it does so at all */
enum {
    DEVICE_STOPPED = 0x5709,
    DEVICE_LOADED = 0x10ad,
    DEVICE_RESET = 0x4e5e,
};

/* What goes wrong in this process; BQL */
typedef struct FaultSet {
    bool flush_fails;           /* of disks, when the guest stops */
    bool inactivate_fails;      /* of disks */
    bool activate_fails;
    bool save_fails;            /* of the device's state */
    bool load_fails;
    unsigned save_ms, load_ms;  /* so long they take */
    bool load_writes;           /* to memory */
    bool load_reads;            /* memory that may not be there */
    bool reset_writes;          /* a reset, to memory */
    bool stop_writes;           /* the device, after the guest has stopped */
    bool release_writes;        /* the same, when disks are released */
    unsigned bursts;            /* so often the guest, told to stop, does */
    unsigned burst_steps;       /* so many steps before */
} FaultSet;

extern FaultSet faults;

/*
 * Sets up all of it, and what migration/ has: the guest runs on the source,
 * and is awaited on the destination.  Main thread; takes the BQL.
 */
void emulator_init(SideId side, Witness *witness);

/* A round of the main loop, and what was requested meanwhile.  BQL. */
void emulator_round(void);

/* What users and devices do; BQL. */
void emulator_stop(void);
void emulator_cont(void);
void emulator_request_reset(void);

/* Steps that this side's vCPU has done; BQL. */
uint64_t emulator_steps(void);

/* The phases that were announced, each with a blank after it.  Any thread. */
char *emulator_phases(void);

/* How often @event was announced.  Any thread. */
unsigned emulator_events(QAPIEvent event);

#endif
