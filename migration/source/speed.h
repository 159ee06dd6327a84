/*
 * The source: how fast it sends, as query-migrate shows it
 *
 * Speeds are those of the last 100 ms or more, and in the end those of the
 * whole migration.  They go to source.view, under its lock.  Migration thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_SPEED_H
#define MIGRATION_SOURCE_SPEED_H

/* What has been sent until now does not count. */
void speed_begin(void);

/* To be called often: does something when a period is over. */
void speed_measure(void);

/* Nothing more will be sent. */
void speed_show_average(void);

#endif
