/*
 * Why the destination failed: the text in WIRE_RP_ERROR
 *
 * Both functions are pure.  What is decoded came from a peer that is not
 * trusted: the result is one line of valid UTF-8 without control characters,
 * whatever the bytes were.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_PEER_ERROR_H
#define MIGRATION_CORE_PEER_ERROR_H

#include "migration/wire/wire.h"

/*
 * Puts @text into @payload; one that is too long is cut between two characters
 * and ends with "...".  Returns the length; 0 if there is nothing to send.
 */
size_t peer_error_encode(const char *text, uint8_t payload[WIRE_RP_ERROR_MAX]);

/*
 * The text in the @len bytes of @payload, at least one, with everything that
 * cannot be printed as \xNN.  The caller frees it.
 */
char *peer_error_decode(const uint8_t *payload, size_t len);

#endif
