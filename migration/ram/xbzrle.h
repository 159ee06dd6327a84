/*
 * XBZRLE: a page as its difference from the version the peer already has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An encoding is a sequence of pairs; each says how many bytes to keep, then
 * how many to overwrite, then brings those bytes:
 *
 *     page  = pair { pair }
 *     pair  = keep write byte{write}
 *     keep, write = ULEB128 of one or two bytes, so at most XBZRLE_RUN_MAX
 *
 * Only the first keep may be zero, and no write is.  What follows the last
 * pair is kept.  Bytes that are overwritten need not differ: the encoder
 * overwrites a single equal byte between two changes, because to end one pair
 * and begin another costs two.
 *
 * Both functions are pure and may be called from any thread.
 */

#ifndef MIGRATION_RAM_XBZRLE_H
#define MIGRATION_RAM_XBZRLE_H

/* Longest run a length field can state: two groups of seven bits */
#define XBZRLE_RUN_MAX 0x3fff

/*
 * Encode the change from @old_buf to @new_buf, @slen bytes each, of any
 * alignment, into @dst, which holds @dlen.
 *
 * Returns the length of the encoding, which is less than @slen; 0 if nothing
 * changed; -1 if the encoding would not fit @dlen, or would not be shorter
 * than the page, or a run is longer than the format can say.  @dst is then
 * undefined.
 *
 * @new_buf may be guest memory that changes during the call.  The result is
 * then still a valid encoding, of some state in between: who needs to know
 * which one, to have the same bytes as the peer, decodes it.
 */
int xbzrle_encode_buffer(uint8_t *old_buf, uint8_t *new_buf, int slen,
                         uint8_t *dst, int dlen);

/*
 * Apply the encoding @src of @slen bytes, which comes from an untrusted peer,
 * to the page @dst of @dlen bytes.
 *
 * Returns the offset of the byte behind the last one written, at most @dlen;
 * 0 for an empty encoding; -1 if it is not well-formed, leaves the page, or
 * has a length of two bytes where one is enough.  @dst then holds the result
 * of the pairs before the wrong one.
 */
int xbzrle_decode_buffer(uint8_t *src, int slen, uint8_t *dst, int dlen);

/*
 * For tests and benchmarks: have xbzrle_encode_buffer() use the @n'th of the
 * encoders that this machine can run, the plainest being 0, and return its
 * name; or return NULL if there are not so many.  Not to be called while
 * another thread encodes.
 */
const char *xbzrle_test_use_encoder(unsigned n);

#endif
