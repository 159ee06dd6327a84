/*
 * The name under which other files find migration/base/stats.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_STATS_H
#define QEMU_MIGRATION_STATS_H

#include "migration/base/stats.h"

#endif
