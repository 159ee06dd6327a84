/*
 * Which pages of a run are zero
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * buffer_is_zero() looks at a page as fast as memory delivers it.  Wider
 * vectors, longer strides and fetching the next pages ahead were all measured
 * and gain nothing; what is worth avoiding is to look at all.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "migration/ram/classify.h"

unsigned classify_pages(const void *pages, size_t page_size, unsigned count,
                        ZeroPages *result)
{
    const uint8_t *page = pages;
    unsigned zeros = 0;

    assert(count <= CLASSIFY_MAX);
    memset(result->zero, 0, sizeof(result->zero));
    result->count = count;
    for (unsigned i = 0; i < count; i++, page += page_size) {
        /* one look at memory instead of three for most other pages */
        bool zero = !*(const uint64_t *)page && buffer_is_zero(page, page_size);

        result->zero[i / 64] |= (uint64_t)zero << i % 64;
        zeros += zero;
    }
    return zeros;
}

unsigned classify_segment(const ZeroPages *result, unsigned from, bool *zero)
{
    unsigned end = from;

    if (from >= result->count) {
        return 0;
    }
    *zero = result->zero[from / 64] >> from % 64 & 1;
    while (end < result->count) {
        uint64_t other = result->zero[end / 64] ^ (*zero ? UINT64_MAX : 0);
        unsigned n = ctz64(other >> end % 64);

        if (n < 64 - end % 64) {
            end += n;
            break;
        }
        end += 64 - end % 64;
    }
    return MIN(end, result->count) - from;
}
