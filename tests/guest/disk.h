/*
 * Pages of the test guest that go to its disk and come back from there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * They go past all caches, so it is the disk, or whoever plays it, that reads
 * and writes them where they lie.  Page N has its place at N * PAGE_BYTES.
 */
#ifndef FERRY_GUEST_DISK_H
#define FERRY_GUEST_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "pages.h"

/*
 * @count pages from @first on, which must exist and not change meanwhile.
 * Returns NULL, or what failed.
 */
const char *disk_store(Pages *p, uint64_t first, uint64_t count);
const char *disk_fetch(Pages *p, uint64_t first, uint64_t count);

#endif
