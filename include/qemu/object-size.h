/*
 * The size of an object
 *
 * Apart from qom/object.h, which nearly every file includes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_OBJECT_SIZE_H
#define QEMU_OBJECT_SIZE_H

#include "qom/object.h"

/*
 * How many bytes the structure of @obj's type has, those of its parents
 * included.  Any thread, while @obj exists.
 */
size_t object_get_size(const Object *obj);

#endif
