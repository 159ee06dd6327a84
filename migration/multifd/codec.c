/*
 * How the pages of a packet are compressed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wire/wire.h"
#include "codec.h"

static const Codec *const codecs[MULTIFD_COMPRESSION__MAX] = {
    [MULTIFD_COMPRESSION_ZLIB] = &codec_zlib,
#ifdef CONFIG_ZSTD
    [MULTIFD_COMPRESSION_ZSTD] = &codec_zstd,
#endif
#ifdef CONFIG_QPL
    [MULTIFD_COMPRESSION_QPL] = &codec_qpl,
#endif
#ifdef CONFIG_UADK
    [MULTIFD_COMPRESSION_UADK] = &codec_uadk,
#endif
#ifdef CONFIG_QATZIP
    [MULTIFD_COMPRESSION_QATZIP] = &codec_qatzip,
#endif
};

const Codec *codec_find(MultiFDCompression method)
{
    return codecs[method];
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
    *method = MULTIFD_COMPRESSION_NONE;
    for (unsigned i = 0; i < ARRAY_SIZE(codecs); i++) {
        if (codecs[i] && codecs[i]->flag == flag) {
            *method = i;
        }
    }
    return flag == WIRE_MULTIFD_NONE || *method != MULTIFD_COMPRESSION_NONE;
}

bool codec_is_for_any_peer(MultiFDCompression method)
{
    switch (method) {
    case MULTIFD_COMPRESSION_NONE:
    case MULTIFD_COMPRESSION_ZLIB:
#ifdef CONFIG_ZSTD
    case MULTIFD_COMPRESSION_ZSTD:
#endif
    case MULTIFD_COMPRESSION_AUTO:
        return true;
    default:
        return false;
    }
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
