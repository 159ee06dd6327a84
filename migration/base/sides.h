/*
 * The phase of each side of migration, and what everybody may ask about it
 *
 * A QEMU can be the source of one migration at a time, and the destination of
 * one.  Only the module that drives a side changes its phase, by
 * means of core/notify.h.  What other files of QEMU ask, such as
 * migration_is_running(), is declared in migration/misc.h and in
 * migration/migration.h.
 *
 * Any thread may read; each read is a single atomic access.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_SIDES_H
#define MIGRATION_BASE_SIDES_H

#include "phase.h"

extern Phase source_phase;
extern Phase destination_phase;

#endif
