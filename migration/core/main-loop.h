/*
 * Work for the main loop, and whether QEMU is about to end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_MAIN_LOOP_H
#define MIGRATION_CORE_MAIN_LOOP_H

#include "qemu/main-loop.h"

/* Runs @fn once in the main loop, with the BQL. Any thread. */
void main_loop_run(QEMUBHFunc *fn, void *opaque);

/*
 * Runs @fn there, and returns when it has: for work that must not be done by a
 * coroutine, such as opening disks and resetting devices.  Main thread.
 */
void coroutine_fn main_loop_run_and_wait(void (*fn)(void));

/* QEMU is about to end: no guest is to be started any more.  BQL. */
bool main_loop_is_ending(void);
void main_loop_set_ending(void);

#endif
