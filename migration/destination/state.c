/*
 * The destination: what its modules know of the migration in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "state.h"

Destination destination;
