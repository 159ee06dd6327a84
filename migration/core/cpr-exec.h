/*
 * The new QEMU takes the place of the old one in its process (cpr-exec)
 *
 * The old QEMU writes the state of CPR, descriptors by number, to a memfd that
 * it leaves open, with its number in the environment, and executes the command
 * cpr-exec-command.  The new QEMU reads it before it creates its devices.  Name
 * and format are those of QEMU 10.2: either side may be that.
 *
 * Nothing but the descriptors of guest memory and the memfd are left open, and
 * these not before the last moment: QEMU starts other programs, too.
 *
 * cpr_exec_output(), cpr_exec_has_state() and cpr_exec_input() are called by
 * cpr.c (migration/cpr.h).  All functions: main loop, with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_CPR_EXEC_H
#define MIGRATION_CORE_CPR_EXEC_H

#include "qapi/qapi-builtin-types.h"

/* The environment variable with the number of the memfd */
#define CPR_EXEC_STATE_VARIABLE "QEMU_CPR_EXEC_STATE"

/* False, with the reason, if @command has no program that could be executed. */
bool cpr_exec_command_check(const strList *command, Error **errp);

/*
 * Executes @command, if the state was saved.  It only returns if that fails:
 * then everything is as before.
 */
void cpr_exec_replace(const strList *command, Error **errp);

#endif
