/*
 * A machine's memory, as far as migration/ needs one
 *
 * Two RAM blocks of anonymous memory, and a dirty log that behaves as that of
 * KVM does with manual protection: it begins with all bits set and nothing
 * protected; a page is protected only when its bit is cleared, which happens
 * to those bits alone that a collection has shown; and only the first write to
 * a protected page is recorded.  So a sync that reads a page before it has
 * cleared the log there, or clears what nobody has looked at, loses a write.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_FAKE_MEMORY_H
#define TEST_FAKE_MEMORY_H

/* Once a process, after the main loop is there */
void memory_init(bool filled);

/* All of it, in order of the guest's addresses: GUEST_BYTES to @to */
void memory_copy(uint8_t *to);

/* What a vCPU does: step @n of the guest.  Its thread. */
void memory_guest_step(uint64_t n);

/*
 * What a device does: writes @value to the word at @offset.  BQL.
 * memory_device_read() may have to wait for a page.
 */
void memory_device_write(size_t offset, uint64_t value);
uint64_t memory_device_read(size_t offset);

/* Somebody records writes. */
bool memory_is_logged(void);

#endif
