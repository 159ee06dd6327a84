/*
 * How the pages of a packet are compressed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An encoder and a decoder belong to one channel, and to one thread: what they
 * saw of one packet may shorten the next one.  So packets of a channel that
 * have the same method are decoded in the order in which they were encoded, and
 * none is left out.  A pristine decoder does not take a change of the level.
 */

#ifndef MIGRATION_MULTIFD_CODEC_H
#define MIGRATION_MULTIFD_CODEC_H

#include "qapi/qapi-types-migration.h"

typedef struct Codec {
    uint32_t flag;              /* in the packet: WIRE_MULTIFD_* */
    const char *name;           /* as in 'multifd-compression' */

    /*
     * At that level, as 'multifd-NAME-level' has it; of memory in pages of
     * @page bytes.
     */
    void *(*encoder_new)(int level, size_t page, Error **errp);
    void (*encoder_free)(void *encoder);
    /* What is encoded from now on is at that level. */
    void (*encoder_level)(void *encoder, int level);
    /*
     * Memory of @runs, @n of them, to at most @room bytes at @out.  Somebody
     * may write to that memory meanwhile.  Each run is of whole pages, except
     * where codec_automatic() is tried.  Returns how many bytes, or -1.
     */
    ssize_t (*encode)(void *encoder, const struct iovec *runs, unsigned n,
                      uint8_t *out, size_t room, Error **errp);

    void *(*decoder_new)(size_t page, Error **errp);
    void (*decoder_free)(void *decoder);
    /*
     * The @len bytes at @in to memory of @runs, which they have to fill, and
     * no more.  Nothing is believed of @in.
     */
    bool (*decode)(void *decoder, const uint8_t *in, size_t len,
                   const struct iovec *runs, unsigned n, Error **errp);
} Codec;

extern const Codec codec_zlib;
#ifdef CONFIG_ZSTD
extern const Codec codec_zstd;
#endif

/* Of libraries for accelerators; there are tests without these libraries. */
extern const Codec codec_qpl;
extern const Codec codec_uadk;
extern const Codec codec_qatzip;

/* NULL for all that is not a method of compression that was compiled in */
const Codec *codec_find(MultiFDCompression method);

/* What MULTIFD_COMPRESSION_AUTO uses while it compresses; or NULL */
const Codec *codec_automatic(void);

/*
 * The method with @flag, WIRE_MULTIFD_*; NONE is one as well.  False if it is
 * not known here.
 */
bool codec_by_flag(uint32_t flag, MultiFDCompression *method);

/*
 * One of those that a packet to a peer with WIRE_PEER_ANY_METHOD may have
 * whatever is set there, or AUTO, which chooses among these
 */
bool codec_is_for_any_peer(MultiFDCompression method);

/* False if the method was not compiled in, or is not available here. */
bool codec_exists(MultiFDCompression method, Error **errp);

#endif
