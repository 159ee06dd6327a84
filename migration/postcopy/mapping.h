/*
 * Mappings that postcopy makes of its own
 *
 * Any thread.  Where the host has no mmap() there is no userfaultfd either,
 * and postcopy is refused before one of these is called: they only fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_MAPPING_H
#define MIGRATION_POSTCOPY_MAPPING_H

/* @size bytes of zeros that are only read, or also written; NULL with errno */
void *mapping_zeros(size_t size, bool writable);

/* A second mapping of @size bytes of shared memory; NULL with errno */
void *mapping_again(int fd, uint64_t offset, size_t size);

/* Undo one of these; @at may be NULL. */
void mapping_end(void *at, size_t size);

/* No memory of this process is locked.  False with errno */
bool mapping_unlock_all(void);

#endif
