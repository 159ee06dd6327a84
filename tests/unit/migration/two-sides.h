/*
 * A migration from one process to another
 *
 * A side of a migration has one object for the life of QEMU, so that both sides
 * cannot be in one process.  A test forks two, each with an emulator as
 * fake-emulator.h makes it up; in between is a relay (relay.h).  The test
 * itself is in a third process.  It has a function run by the main loop of a
 * side and gets what that returns; code and constants are the same in all of
 * them, so that a pointer to a function serves as its name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_TWO_SIDES_H
#define TEST_TWO_SIDES_H

#include "qapi/qapi-types-migration.h"
#include "migration/wire/wire.h"
#include "fake-emulator.h"
#include "relay.h"

/* Both start, with a guest that runs on the source. */
void sides_start(void);

/*
 * Both end.  Fails if something was noticed that must not be, or if the guest
 * that was last looked at does not have the memory that it should.
 */
void sides_stop(void);

/* Ends the process of @side at once.  It must not be used any more. */
void side_kill(SideId side);

/*
 * Runs @fn in the main loop of @side, under the BQL, and returns what it does.
 * @arg is a copy of @len bytes.  @text has room for SIDE_TEXT_MAX bytes, and
 * can be read with side_text() until the next call.
 */
#define SIDE_TEXT_MAX 1024
typedef int64_t SideFn(const void *arg, char *text);

int64_t side_call(SideId side, SideFn *fn, const void *arg, size_t len);
const char *side_text(void);

Relay *sides_relay(void);
Witness *sides_witness(void);

/*
 * Where the relay can stop (RelayStop)
 */

#define HIGH_BYTE(value) ((value) >> 8)
#define LOW_BYTE(value) ((value) & 0xff)

#define COMMAND_BYTES(name) \
    { WIRE_COMMAND, HIGH_BYTE(WIRE_CMD_##name), LOW_BYTE(WIRE_CMD_##name), \
      HIGH_BYTE(WIRE_CMD_##name##_LEN), LOW_BYTE(WIRE_CMD_##name##_LEN) }
#define BEFORE_COMMAND(name) \
    { .way = TO_DESTINATION, .pattern = COMMAND_BYTES(name), .length = 5 }
#define AFTER_COMMAND(name) \
    { .way = TO_DESTINATION, .pattern = COMMAND_BYTES(name), .length = 5, \
      .record = 5 + WIRE_CMD_##name##_LEN }

/* A report; all are shorter than 256 bytes */
#define BEFORE_REPORT(name) \
    { .way = TO_SOURCE, .length = 3, \
      .pattern = { HIGH_BYTE(WIRE_RP_##name), LOW_BYTE(WIRE_RP_##name) } }
#define AFTER_REPORT(name) \
    { .way = TO_SOURCE, .length = 3, .message = true, \
      .pattern = { HIGH_BYTE(WIRE_RP_##name), LOW_BYTE(WIRE_RP_##name) } }

/* Of the first section that has devices, its name; then their description */
#define BEFORE_DEVICE \
    { .way = TO_DESTINATION, .pattern = "\013fake-de", .length = 8 }
#define BEFORE_DESCRIPTION \
    { .way = TO_DESTINATION, .pattern = "{\"config", .length = 8 }

/*
 * Settings
 */

void sides_capability(MigrationCapability cap);         /* of both */
void side_parameters(SideId side, MigrateSetParameters *params);
void side_faults(SideId side, const FaultSet *set);
/* As the property x-fault-delay has it */
void side_delays(SideId side, const char *text);

/*
 * Commands; they fail the test if they fail.
 */

void sides_listen(void);
void sides_migrate(void);       /* both of them */
/* The same, until what is sent is at @stop, where it stays for now. */
void sides_migrate_up_to(const RelayStop *stop);
/* The same; the guest leaves as soon as its memory can follow. */
void sides_migrate_by_postcopy(void);
void side_cancel(void);
void side_continue(void);
void side_pause(SideId side);   /* migrate-pause */
void sides_recover(void);       /* migrate-recover, and migrate with resume */

/* False if it is refused: side_text() has the reason. */
bool side_may_cancel(void);
void side_cont(SideId side);
void side_request_reset(SideId side);

/*
 * What becomes of it
 */

MigrationStatus side_phase(SideId side);
/* Until it is in @phase.  Fails if it is in an end instead, or takes long. */
void side_wait(SideId side, MigrationStatus phase);
/* The same of both */
void sides_wait(MigrationStatus phase);
/* As side_wait(), until the phase is one of the end; it need not have begun. */
MigrationStatus side_wait_end(SideId side);
/* error-desc of query-migrate, or "" */
const char *side_error(SideId side);
RunState side_run_state(SideId side);
/* Attempts to switch over that there have been; source */
unsigned sides_attempts(void);
unsigned side_events(SideId side, QAPIEvent event);
/* Until an attempt has been given up */
void sides_wait_for_aborted(void);
/* "setup active device completed " */
const char *side_phases(SideId side);

/*
 * The guest runs on @side and nowhere else, and does so for a while.  Then it
 * is stopped: its memory is what it has to be after all it has done, in each
 * byte.  So is that of a source that it has left, after what it did there.
 */
void sides_expect_guest(SideId side);

/*
 * The source has written all of it, and does not know what became of it.  It
 * keeps the guest stopped; the user, who knows, has it go on.
 */
void sides_expect_lost(void);

/* What is to be found in GUEST_DEVICE_WORD from now on; 0 at first. */
void sides_expect_word(uint64_t value);

/* Memory of the source does not count any more. */
void sides_forget_source(void);

/*
 * The same for one that does not run, as it waits for its user: it is on @side,
 * where it is in @state.
 */
void sides_expect_stopped_guest(SideId side, RunState state);

/* Until the guest has done @steps more, wherever it is */
void sides_let_guest_run(unsigned long steps);

/* A program: tests are added by g_test_add_func() before it runs. */
void sides_init(int *argc, char ***argv);

#endif
