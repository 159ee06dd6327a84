/*
 * Threads that read memory from its places in a file
 *
 * Each has the file open for itself.  They share out the pages that are to be
 * read piece by piece: whoever has read one takes the next.
 *
 * file_readers_begin(), _end(): main loop, BQL, while nothing is loaded.
 * file_readers_load(): the thread that loads RAM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_MULTIFD_FILE_READERS_H
#define MIGRATION_MULTIFD_FILE_READERS_H

#include "migration/ram/load.h"
#include "migration/ram/mapped.h"

/* Takes over the @count @files: input, at any position. */
void file_readers_begin(QEMUFile **files, unsigned count);

/* The read_places() of a RamLoader */
RamReadPlaces file_readers_load;

/* Closes the files.  Idempotent. */
void file_readers_end(void);

#endif
