/*
 * How the pages of a packet are compressed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
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

bool codec_exists(MultiFDCompression method, Error **errp)
{
    if (method == MULTIFD_COMPRESSION_NONE || codec_find(method)) {
        return true;
    }
    error_setg(errp, "multifd-compression '%s' is not available in this "
               "version of Ferry", MultiFDCompression_str(method));
    return false;
}
