/*
 * The source: why a migration failed, as far as the destination knows it
 *
 * A destination that fails says why and closes the connection.  What breaks
 * here then, such as a write, is a consequence, and may be noticed first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_FAILURE_H
#define MIGRATION_SOURCE_FAILURE_H

#include "qapi/error.h"

/*
 * No stream to the destination has broken.  Otherwise @errp is what the
 * destination says, if it says something, or the error of the stream; waits
 * shortly for it.  Migration thread.
 */
bool source_streams_intact(Error **errp);

/*
 * The error to be told: @err, which it takes over and which may be NULL, with
 * the reason of the destination, unless it has it already.  Migration thread,
 * as long as the return path is open.
 */
Error *source_failure_complete(Error *err);

#endif
