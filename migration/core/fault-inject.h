/*
 * Faults for tests: parts of a switchover that take longer than they have to,
 * and CPUs that cannot be reset
 *
 * The property x-fault-delay of the migration object has them, on each side
 * for itself: "stop:20,device-load:50" adds so many milliseconds whenever that
 * part is done.  A part that the side does not do is not delayed; see
 * strict-downtime.rst for who does what, and under which lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_FAULT_INJECT_H
#define MIGRATION_CORE_FAULT_INJECT_H

#include "migration/base/downtime-part.h"

/* The longest of a part, ms */
#define FAULT_INJECT_MAX_MS 60000

/*
 * All delays become those of @text, parts that it does not name have none;
 * "" stands for no delay at all.  What cannot be read changes nothing.  Before
 * a migration starts.
 */
bool fault_inject_set(const char *text, Error **errp);

/*
 * The property x-fault-gate: a folder, "" stands for none.  A part that has a
 * delay makes the file @folder/PART when it begins, and goes on when somebody
 * removes that, or when its time is over; it leaves no file.  So who tests
 * knows that the part is under way, and for how long.  If there is no such
 * folder the part is not delayed.  Before a migration starts.
 */
void fault_inject_set_gate(const char *folder);
const char *fault_inject_gate(void);

/*
 * The property x-fault-cpus-stay: CPUs are taken for such that cannot be reset,
 * as those of a confidential guest.
 */
void fault_inject_set_cpus_stay(bool stay);
bool fault_inject_cpus_stay(void);

/* As fault_inject_set() takes it; the caller frees it. */
char *fault_inject_text(void);

/*
 * What there is to wait for @part, at most if there is a gate; 0 if nothing
 * is.  Any thread.
 */
unsigned fault_inject_delay_ms(DowntimePart part);

/*
 * The delay itself.  Whoever calls it keeps the locks he has: a disk that
 * hangs would not release them either.
 */
void fault_inject_delay(DowntimePart part);

#endif
