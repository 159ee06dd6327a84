/*
 * Scripts: sequences of puts whose bytes and matching gets are known
 *
 * A script is made from a seed, says what it must look like on the wire by
 * its own means, and can be played to an output or from an input stream.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_SCRIPT_H
#define TEST_SCRIPT_H

#include "migration/qemu-file.h"

typedef enum {
    ITEM_BYTE,
    ITEM_BE16,
    ITEM_BE32,
    ITEM_BE64,
    ITEM_STRING,        /* counted */
    ITEM_BUFFER,
    ITEM_REFERENCE,     /* put by reference, got like ITEM_BUFFER */
    ITEM_IN_PLACE,      /* put like ITEM_BUFFER, got in place */
    ITEM_PEEK,          /* put like ITEM_BUFFER, peeked at, then skipped */
    ITEM_KINDS
} ItemKind;

typedef struct Item {
    ItemKind kind;
    uint64_t value;     /* of the numbers */
    uint8_t *data;      /* of the others; strings are terminated */
    size_t size;        /* of data */
    size_t wire_size;   /* bytes in the stream */
    size_t wire_start;  /* where they begin there */
} Item;

typedef struct Script {
    Item *items;
    size_t count;
    GByteArray *wire;   /* what all of it looks like in the stream */
} Script;

/* @count items; buffers have up to @largest bytes, strings up to 255. */
Script *script_new(uint32_t seed, size_t count, size_t largest);
void script_free(Script *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Script, script_free)

/* Puts everything; neither flushes nor looks at errors. */
void coroutine_mixed_fn script_put(Script *s, QEMUFile *f);

/*
 * Gets one item after the other and checks it, up to the end of the script
 * or until an error is latched.  Bytes from @end on cannot be had, whatever
 * the reason: an item that needs them must come back as zero or short, with
 * the error latched, and what comes before must be right and without error.
 * Returns how many items were complete.
 */
size_t coroutine_mixed_fn script_get(Script *s, QEMUFile *f, uint64_t end);

/*
 * Gets everything like script_get(), but an error may come at any item; what
 * comes after it must then be zero or short or right, and never wrong.
 */
void coroutine_mixed_fn script_get_faulty(Script *s, QEMUFile *f);

/* @len bytes that depend on @seed and position, to be freed. */
uint8_t *noise(uint32_t seed, size_t len);

#endif
