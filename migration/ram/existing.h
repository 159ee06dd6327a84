/*
 * How much of the guest's memory exists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_EXISTING_H
#define MIGRATION_RAM_EXISTING_H

/*
 * Bytes of memory that a migration would send in its first pass: what was ever
 * written to, as far as that can be found out, of all blocks that are not
 * shared with the destination.  A page of zeros that exists counts, though it
 * takes few bytes on the wire.  It takes microseconds a gigabyte.  BQL.
 */
uint64_t ram_existing_bytes(void);

#endif
