/*
 * What a host may lack for what is switched on, found before memory is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_HOST_LIMITS_H
#define MIGRATION_CORE_HOST_LIMITS_H

/*
 * A warning, or NULL if @needed bytes can be locked where @lockable may be.
 * @what requires it.  The caller frees it.  Pure.
 */
char *host_limits_locked(const char *what, uint64_t needed, uint64_t lockable);

/*
 * The same of a RAM block @name of @bytes in pages of @page_size, none of which
 * are reserved, where the host has @spare pages of that size.  Pure.
 */
char *host_limits_huge_pages(const char *name, uint64_t bytes,
                             uint64_t page_size, uint64_t spare);

/* Bytes that this process may lock; UINT64_MAX if there is no limit. */
uint64_t host_limits_lockable(void);

/* From the text of /proc/self/status: whether limits do not count.  Pure. */
bool host_limits_may_lock_all(const char *status);

/*
 * Pages of @page_size that are free and reserved by nobody; false if the host
 * does not say.
 */
bool host_limits_spare_pages(uint64_t page_size, uint64_t *spare);

#endif
