/*
 * Errors that are printed, for others than who reads the log
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_ERROR_REPORT_HOOK_H
#define QEMU_ERROR_REPORT_HOOK_H

/*
 * If set, called with each error that error_report() and the like print, as
 * soon as it is printed and in the same thread and coroutine: the text alone,
 * without location and line end.  Not for warnings.  Atomic.
 */
extern void (*error_report_hook)(const char *text);

#endif
