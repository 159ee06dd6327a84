/*
 * The name under which other files include the cache of sent pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PAGE_CACHE_H
#define PAGE_CACHE_H

#include "migration/ram/page-cache.h"

#endif
