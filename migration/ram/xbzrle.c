/*
 * XBZRLE: a page as its difference from the version the peer already has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The encoder compares a stripe of up to 4096 bytes at a time, by vectors, and
 * leaves one bit a byte: 1 where the two differ.  Runs are read off these
 * bits, by a count of trailing zeros for each end of a run.  When a quarter of
 * what is worth writing has been written, the bits tell how much the rest will
 * take at least, so a page that cannot be encoded with profit is given up
 * early.
 *
 * Only the comparison depends on the host.  The rest is inlined into one
 * encoder per instruction set, as counting bits profits from newer ones too.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "migration/ram/xbzrle.h"

#if defined(CONFIG_AVX2_OPT) || defined(CONFIG_AVX512BW_OPT)
#include <immintrin.h>
#include "host/cpuinfo.h"
#define HAVE_SSE2
#endif

#define BLOCK 64                /* bytes that one word of the map is about */
#define STRIPE (64 * BLOCK)     /* bytes that one map is about */
#define COPY_UNIT 32            /* short runs are copied in one such piece */
#define DOUBTFUL 4              /* this part used: count if the rest can fit */

/* The map is written before it is read; clearing it first would cost. */
#if G_GNUC_CHECK_VERSION(12, 0)
#define UNINITIALIZED __attribute__((uninitialized))
#else
#define UNINITIALIZED
#endif

typedef struct DiffMap {
    uint64_t blocks;            /* bit b: block b differs */
    uint64_t words[1 + 64 + 1]; /* bit i of words[1 + b]: its byte i differs */
} DiffMap;

/* Compare @n whole blocks; set word[0..n) and return which are not zero. */
typedef uint64_t DiffFn(const uint8_t *a, const uint8_t *b, unsigned n,
                        uint64_t *word);

typedef int EncodeFn(const uint8_t *old, const uint8_t *new, size_t size,
                     uint8_t *dst, size_t room);

/* Runs found so far, and the encoding of those that have ended */
typedef struct Encoder {
    const uint8_t *new;
    size_t size;
    uint8_t *dst;
    size_t room;                /* bytes of dst that may be written */
    size_t limit;               /* the longest encoding worth having */
    size_t used;                /* bytes of dst that are written */
    size_t kept_from;           /* end of the last run that is written */
    size_t start;               /* of the run that is open */
    bool open;
} Encoder;

/* Bit i of the result: byte i of @x is not zero */
static inline uint64_t nonzero_bytes(uint64_t x)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7full;

    x = (((x & low) + low) | x) & ~low;
    return (x >> 7) * 0x0102040810204080ull >> 56;
}

static uint64_t diff_plain(const uint8_t *a, const uint8_t *b, unsigned n,
                           uint64_t *word)
{
    uint64_t blocks = 0;

    for (unsigned i = 0; i < n; i++, a += BLOCK, b += BLOCK) {
        uint64_t bits = 0;

        for (unsigned j = 0; j < BLOCK; j += 8) {
            uint64_t x = ldq_le_p(a + j) ^ ldq_le_p(b + j);

            if (x) {
                bits |= nonzero_bytes(x) << j;
            }
        }
        word[i] = bits;
        blocks |= (uint64_t)!!bits << i;
    }
    return blocks;
}

#ifdef HAVE_SSE2
#define TARGET_SSE2 __attribute__((target("sse2")))

static inline TARGET_SSE2
uint64_t differ_sse2(const uint8_t *a, const uint8_t *b)
{
    __m128i x = _mm_loadu_si128((const __m128i *)a);
    __m128i y = _mm_loadu_si128((const __m128i *)b);

    return 0xffff ^ _mm_movemask_epi8(_mm_cmpeq_epi8(x, y));
}

static TARGET_SSE2
uint64_t diff_sse2(const uint8_t *a, const uint8_t *b, unsigned n,
                   uint64_t *word)
{
    uint64_t blocks = 0;

    for (unsigned i = 0; i < n; i++, a += BLOCK, b += BLOCK) {
        uint64_t bits = differ_sse2(a, b) |
                        differ_sse2(a + 16, b + 16) << 16 |
                        differ_sse2(a + 32, b + 32) << 32 |
                        differ_sse2(a + 48, b + 48) << 48;

        word[i] = bits;
        blocks |= (uint64_t)!!bits << i;
    }
    return blocks;
}
#endif

#ifdef CONFIG_AVX2_OPT
#define TARGET_AVX2 __attribute__((target("avx2,bmi,popcnt")))

static inline TARGET_AVX2
uint64_t equal_avx2(const uint8_t *a, const uint8_t *b)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)a);
    __m256i y = _mm256_loadu_si256((const __m256i *)b);

    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y));
}

static TARGET_AVX2
uint64_t diff_avx2(const uint8_t *a, const uint8_t *b, unsigned n,
                   uint64_t *word)
{
    uint64_t blocks = 0;

    for (unsigned i = 0; i < n; i++, a += BLOCK, b += BLOCK) {
        uint64_t bits = ~(equal_avx2(a, b) | equal_avx2(a + 32, b + 32) << 32);

        word[i] = bits;
        blocks |= (uint64_t)!!bits << i;
    }
    return blocks;
}
#endif

#ifdef CONFIG_AVX512BW_OPT
#define TARGET_AVX512 __attribute__((target("avx512bw,bmi,popcnt")))

/* old | (a[i] ^ b[i]) */
static inline TARGET_AVX512
__m512i collect_avx512(__m512i old, const uint8_t *a, const uint8_t *b,
                       unsigned i)
{
    return _mm512_ternarylogic_epi64(old, _mm512_loadu_si512(a + i * BLOCK),
                                     _mm512_loadu_si512(b + i * BLOCK), 0xf6);
}

static inline TARGET_AVX512
bool group_equal_avx512(const uint8_t *a, const uint8_t *b)
{
    __m512i x = collect_avx512(_mm512_setzero_si512(), a, b, 0);
    __m512i y = collect_avx512(_mm512_setzero_si512(), a, b, 1);

    x = collect_avx512(x, a, b, 2);
    y = collect_avx512(y, a, b, 3);
    return !_mm512_test_epi64_mask(x | y, x | y);
}

static TARGET_AVX512
uint64_t diff_avx512(const uint8_t *a, const uint8_t *b, unsigned n,
                     uint64_t *word)
{
    uint64_t blocks = 0;

    for (unsigned i = 0; i < n;) {
        unsigned end = MIN(i + 4, n);

        if (end == i + 4 && group_equal_avx512(a + i * BLOCK, b + i * BLOCK)) {
            memset(word + i, 0, 4 * sizeof(*word));
            i = end;
            continue;
        }
        for (; i < end; i++) {
            word[i] = _mm512_cmpneq_epi8_mask(
                _mm512_loadu_si512(a + i * BLOCK),
                _mm512_loadu_si512(b + i * BLOCK));
            blocks |= (uint64_t)!!word[i] << i;
        }
    }
    return blocks;
}
#endif

static inline size_t length_size(size_t length)
{
    return length < 0x80 ? 1 : 2;
}

static inline uint8_t *put_length(uint8_t *p, size_t length)
{
    p[0] = length;
    if (length < 0x80) {
        return p + 1;
    }
    p[0] |= 0x80;
    p[1] = length >> 7;
    return p + 2;
}

/* The run from e->start ends at @end: write the pair. */
static inline bool put_run(Encoder *e, size_t end)
{
    size_t keep = e->start - e->kept_from;
    size_t length = end - e->start;
    size_t need = length_size(keep) + length_size(length) + length;
    const uint8_t *from = e->new + e->start;
    uint8_t *to = e->dst + e->used;

    if (need > e->limit - e->used || MAX(keep, length) > XBZRLE_RUN_MAX) {
        return false;
    }
    to = put_length(put_length(to, keep), length);
    if (length <= COPY_UNIT && e->size - e->start >= COPY_UNIT
        && e->room - e->used >= 4 + COPY_UNIT) {
        /* what is copied too much is overwritten or behind the end */
        memcpy(to, from, COPY_UNIT);
    } else {
        memcpy(to, from, length);
    }
    e->used += need;
    e->kept_from = end;
    return true;
}

/*
 * The changes of a block, and with them every single equal byte between two
 * changed ones.
 */
static inline uint64_t changes(const DiffMap *map, unsigned b)
{
    const uint64_t *word = map->words + 1 + b;

    return *word | ((*word << 1 | word[-1] >> 63) &
                    (*word >> 1 | word[1] << 63));
}

/* The least that encoding blocks @left of the stripe can take */
static inline size_t least_size(const DiffMap *map, uint64_t left)
{
    size_t size = 0;

    for (; left; left &= left - 1) {
        uint64_t word = map->words[1 + ctz64(left)];
        uint64_t closed = word | (word << 1 & word >> 1);

        /* the first two bytes may belong to a run of the block before */
        size += ctpop64(closed) + 2 * ctpop64(closed & ~(closed << 1) & ~3ull);
    }
    return size;
}

/* If a run is open, it ends before block @b of the stripe at @base. */
static inline bool end_run(Encoder *e, size_t base, unsigned b)
{
    bool was_open = e->open;

    e->open = false;
    return !was_open || put_run(e, base + b * BLOCK);
}

/* Write the runs of the stripe at @base, which consists of @n blocks. */
static inline QEMU_ALWAYS_INLINE
bool put_stripe(Encoder *e, const DiffMap *map, size_t base, unsigned n)
{
    bool doubtful = true;
    unsigned next = 0;

    for (uint64_t left = map->blocks; left; left &= left - 1) {
        unsigned b = ctz64(left);
        uint64_t word = changes(map, b);
        uint64_t edges;

        if (b != next && !end_run(e, base, next)) {
            return false;
        }
        next = b + 1;
        if (e->open && word == UINT64_MAX) {
            continue;
        }
        edges = word ^ (word << 1 | e->open);
        for (; edges; edges &= edges - 1) {
            size_t at = base + b * BLOCK + ctz64(edges);

            if (!e->open) {
                e->start = at;
            } else if (!put_run(e, at)) {
                return false;
            }
            e->open = !e->open;
        }
        if (doubtful && e->used > e->limit / DOUBTFUL) {
            doubtful = false;
            if (e->used + least_size(map, left & (left - 1)) > e->limit) {
                return false;
            }
        }
    }
    return next == n || end_run(e, base, next);
}

/* The same as a DiffFn for less than a block: what is missing is equal. */
static uint64_t diff_tail(const uint8_t *a, const uint8_t *b, size_t size,
                          uint64_t *word)
{
    uint8_t old[BLOCK] = {}, new[BLOCK] = {};

    memcpy(old, a, size);
    memcpy(new, b, size);
    return diff_plain(old, new, 1, word);
}

static inline QEMU_ALWAYS_INLINE
int encode(const uint8_t *old, const uint8_t *new, size_t size,
           uint8_t *dst, size_t room, DiffFn *diff)
{
    UNINITIALIZED DiffMap map;
    Encoder e = {
        .new = new, .size = size, .dst = dst, .room = room,
        .limit = MIN(room, size - 1),
    };

    for (size_t base = 0; base < size; base += STRIPE) {
        size_t here = MIN(size - base, STRIPE);
        unsigned n = here / BLOCK;

        map.words[0] = (uint64_t)e.open << 63;
        map.blocks = diff(old + base, new + base, n, map.words + 1);
        if (here % BLOCK) {
            size_t done = base + n * BLOCK;

            map.blocks |= diff_tail(old + done, new + done, here % BLOCK,
                                    map.words + 1 + n) << n;
            n++;
        }
        map.words[1 + n] = 0;
        if (!put_stripe(&e, &map, base, n)) {
            return -1;
        }
    }
    if (e.open && !put_run(&e, size)) {
        return -1;
    }
    return e.used;
}

static int encode_plain(const uint8_t *old, const uint8_t *new, size_t size,
                        uint8_t *dst, size_t room)
{
    return encode(old, new, size, dst, room, diff_plain);
}

#ifdef HAVE_SSE2
static TARGET_SSE2
int encode_sse2(const uint8_t *old, const uint8_t *new, size_t size,
                uint8_t *dst, size_t room)
{
    return encode(old, new, size, dst, room, diff_sse2);
}
#endif

#ifdef CONFIG_AVX2_OPT
static TARGET_AVX2
int encode_avx2(const uint8_t *old, const uint8_t *new, size_t size,
                uint8_t *dst, size_t room)
{
    return encode(old, new, size, dst, room, diff_avx2);
}
#endif

#ifdef CONFIG_AVX512BW_OPT
static TARGET_AVX512
int encode_avx512(const uint8_t *old, const uint8_t *new, size_t size,
                  uint8_t *dst, size_t room)
{
    return encode(old, new, size, dst, room, diff_avx512);
}
#endif

/* From the plainest to the best */
static const struct {
    const char *name;
    EncodeFn *encode;
    unsigned needs;             /* CPUINFO_ bits, all of them */
} encoders[] = {
    { "plain", encode_plain },
#ifdef HAVE_SSE2
    { "sse2", encode_sse2, CPUINFO_SSE2 },
#endif
#ifdef CONFIG_AVX2_OPT
    { "avx2", encode_avx2, CPUINFO_AVX2 | CPUINFO_BMI1 | CPUINFO_POPCNT },
#endif
#ifdef CONFIG_AVX512BW_OPT
    { "avx512bw", encode_avx512,
      CPUINFO_AVX512BW | CPUINFO_BMI1 | CPUINFO_POPCNT },
#endif
};

static EncodeFn *best_encoder = encode_plain;

const char *xbzrle_test_use_encoder(unsigned n)
{
    unsigned have = 0;

#ifdef HAVE_SSE2
    have = cpuinfo_init();
#endif
    for (unsigned i = 0; i < ARRAY_SIZE(encoders); i++) {
        if (!(encoders[i].needs & ~have) && n-- == 0) {
            best_encoder = encoders[i].encode;
            return encoders[i].name;
        }
    }
    return NULL;
}

static void __attribute__((constructor)) choose_encoder(void)
{
    unsigned n = 0;

    while (xbzrle_test_use_encoder(n)) {
        n++;
    }
}

int xbzrle_encode_buffer(uint8_t *old_buf, uint8_t *new_buf, int slen,
                         uint8_t *dst, int dlen)
{
    if (slen <= 0 || dlen < 0) {
        return slen ? -1 : 0;
    }
    return best_encoder(old_buf, new_buf, slen, dst, dlen);
}

/* Takes a length off the front of [*p, @end). */
static inline bool get_length(const uint8_t **p, const uint8_t *end,
                              size_t *length)
{
    const uint8_t *at = *p;

    if (at == end) {
        return false;
    }
    *length = at[0] & 0x7f;
    *p = at + 1;
    if (at[0] & 0x80) {
        /* a third byte would be too much, and a second one of 0 is needless */
        if (at + 1 == end || at[1] == 0 || at[1] & 0x80) {
            return false;
        }
        *length |= at[1] << 7;
        *p = at + 2;
    }
    return true;
}

int xbzrle_decode_buffer(uint8_t *src, int slen, uint8_t *dst, int dlen)
{
    const uint8_t *p = src, *end;
    size_t done = 0;

    if (slen <= 0 || dlen < 0) {
        return slen ? -1 : 0;
    }
    for (end = p + slen; p < end;) {
        size_t keep, write;

        if (!get_length(&p, end, &keep) || (done && !keep) ||
            keep > dlen - done) {
            return -1;
        }
        done += keep;
        if (!get_length(&p, end, &write) || !write ||
            write > dlen - done || write > end - p) {
            return -1;
        }
        memcpy(dst + done, p, write);
        done += write;
        p += write;
    }
    return done;
}
