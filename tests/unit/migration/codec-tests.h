/*
 * Tests of compressed packets that are the same for each method
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is decoded goes to pages that have others around them, which must stay
 * as they are.  A test program is a method's own tests and these.
 */

#ifndef CODEC_TESTS_H
#define CODEC_TESTS_H

#include "migration/multifd/codec.h"

#define PAGE 4096u
#define PAGES 128u              /* of a packet, at most */

/* A sender and a receiver, and the packet between them */
typedef struct Pair {
    const Codec *codec;
    void *encoder, *decoder;
    uint8_t *from;              /* PAGES of them */
    uint8_t *to;                /* twice as many: each other one is a guard */
    uint8_t *packet;            /* as large as it may be */
    size_t len;
    struct iovec from_runs[PAGES], to_runs[PAGES];
    unsigned pages;             /* of the packet */
} Pair;

Pair *pair_new(const Codec *codec, int level);
void pair_free(Pair *p);

/* What has been decoded so far is forgotten. */
void pair_new_decoder(Pair *p);

/* Content of pages; MIXED: each has one of the others. */
typedef enum Content { RANDOM, ZERO, TEXT, MIXED, CONTENTS } Content;

/* The first @pages, as they are, become the packet. */
void pair_encode(Pair *p, unsigned pages);

/* ... with new content */
void pair_encode_new(Pair *p, Content content, unsigned pages);

/*
 * To the first @pages, which alone may be written to.  The decoder is given
 * memory that ends where the bytes do, so that a tool sees what reads beyond.
 */
bool pair_decode_bytes(Pair *p, const uint8_t *bytes, size_t len,
                       unsigned pages, Error **errp);

/* So many bytes of the packet */
bool pair_decode(Pair *p, size_t len, unsigned pages, Error **errp);

/* Whether the pages of the packet are what they were */
bool pair_is_same(const Pair *p);
void pair_assert_arrives(Pair *p);

/* The packet is an error that says @text. */
void pair_assert_refused(Pair *p, size_t len, unsigned pages, const char *text);

/*
 * 400 packets of pages of @content, of which each fourth has one wrong bit:
 * they do no harm, and at least @least of them are refused.
 */
void codec_test_damaged(const Codec *codec, Content content, unsigned least);

/* The path is /multifd/codec/METHOD/@name; @test is given @codec. */
void codec_test_add(const Codec *codec, const char *name, GTestDataFunc test);

/* All that are the same for each method */
void codec_tests_add(const Codec *codec);

#endif
