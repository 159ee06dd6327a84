/*
 * How the pages of a packet are compressed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wire/wire.h"
#include "codec.h"

const Codec *codec_find(MultiFDCompression method)
{
    switch (method) {
    case MULTIFD_COMPRESSION_ZLIB:
        return &codec_zlib;
#ifdef CONFIG_ZSTD
    case MULTIFD_COMPRESSION_ZSTD:
        return &codec_zstd;
#endif
    default:
        return NULL;
    }
}

const Codec *codec_automatic(void)
{
#ifdef CONFIG_ZSTD
    return &codec_zstd;
#else
    return NULL;
#endif
}

bool codec_by_flag(uint32_t flag, MultiFDCompression *method)
{
    static const MultiFDCompression known[] = {
        MULTIFD_COMPRESSION_ZLIB,
#ifdef CONFIG_ZSTD
        MULTIFD_COMPRESSION_ZSTD,
#endif
    };

    *method = MULTIFD_COMPRESSION_NONE;
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        const Codec *codec = codec_find(known[i]);

        if (codec && codec->flag == flag) {
            *method = known[i];
        }
    }
    return flag == WIRE_MULTIFD_NONE || *method != MULTIFD_COMPRESSION_NONE;
}

bool codec_exists(MultiFDCompression method, Error **errp)
{
    if (method == MULTIFD_COMPRESSION_NONE || codec_find(method) ||
        (method == MULTIFD_COMPRESSION_AUTO && codec_automatic())) {
        return true;
    }
    error_setg(errp, "multifd-compression '%s' is not available in this "
               "version of Ferry", MultiFDCompression_str(method));
    return false;
}
