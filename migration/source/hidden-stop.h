/*
 * The source: stops that management does not learn of
 *
 * A guest that is protected by checkpoints is stopped many times a second, for
 * a moment each.  The event STOP of such a stop is held back.  If the guest
 * resumes, the event RESUME is left out as well; if it does not, STOP is sent
 * late.
 *
 * All of this with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_HIDDEN_STOP_H
#define MIGRATION_SOURCE_HIDDEN_STOP_H

/* Between true and false stops by the calling thread are such stops. */
void hidden_stop_set(bool on);

/* The guest stays stopped, if it is: that is an event now. */
void hidden_stop_show(void);

#endif
