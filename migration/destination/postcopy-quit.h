/*
 * QEMU ends while the guest of a postcopy waits for memory
 *
 * A thread that waits for a page cannot be stopped, and what it waits for must
 * not be made up: it might end up on a disk.  So whoever waits is left alone
 * until the process ends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_POSTCOPY_QUIT_H
#define MIGRATION_DESTINATION_POSTCOPY_QUIT_H

/*
 * No page will come any more.  Stops the vCPUs, and declares those stopped that
 * wait for one, or the end of QEMU would wait for them.  BQL, which is let go
 * meanwhile.
 */
void postcopy_quit_stop_cpus(void);

/*
 * While it is paused, every now and then: if QEMU was told to end long enough
 * ago for the main loop to have seen it, whoever waits for a page has the BQL,
 * and there is nobody who could end QEMU but the caller, who does.  *@since
 * is the caller's, 0 at first.  Without locks.
 */
void postcopy_quit_watch(int64_t *since);

#endif
