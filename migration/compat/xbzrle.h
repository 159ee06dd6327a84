/*
 * The name under which other files include the XBZRLE codec
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_XBZRLE_H
#define QEMU_MIGRATION_XBZRLE_H

#include "migration/ram/xbzrle.h"

#endif
