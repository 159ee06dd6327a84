/*
 * The memory map of the old QEMU outlives it for a moment (cpr-exec)
 *
 * To execute a program ends the memory map of the process first, page by page,
 * while the guest is stopped: 137 ms were measured for 2 GiB.  The kernel does
 * so with the last process that has the map.  A helper that shares it, and has
 * no descriptors, takes over that work: it ends when the new program has begun,
 * beside it.
 *
 * Main loop, shortly before execve(2).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_CPR_UNMAP_H
#define MIGRATION_CORE_CPR_UNMAP_H

typedef struct CprUnmap {
    int fd;                     /* the helper ends when it is closed; or -1 */
    int pid;                    /* of the helper, which is no child of ours */
} CprUnmap;

/*
 * Starts the helper.  It ends with a successful execve(), which closes the
 * descriptor.  Where there can be none, executing takes longer, and no more.
 * One that has not closed its descriptors within a second is killed, and has
 * ended when this returns.
 */
void cpr_unmap_begin(CprUnmap *unmap);

/* For tests: those that are started while this is on are never ready. */
void cpr_unmap_stall(bool on);

/* Nothing was executed: the helper ends. */
void cpr_unmap_end(CprUnmap *unmap);

#endif
