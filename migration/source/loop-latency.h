/*
 * How late the main loop is
 *
 * A timer that ends an attempt in time must fire early by the usual latency of
 * the main loop, which is late if the host has no CPU for it, or if another
 * thread holds the BQL.  A timer of our own measures that while the guest runs.
 *
 * With the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_LOOP_LATENCY_H
#define MIGRATION_SOURCE_LOOP_LATENCY_H

/* Begin, and end, to watch; both may be repeated. */
void loop_latency_watch(void);
void loop_latency_forget(void);

/* The worst of the last seconds, ns; what is past counts for less. */
int64_t loop_latency_ns(void);

#endif
