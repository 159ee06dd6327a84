/*
 * Scripts: sequences of puts whose bytes and matching gets are known
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "script.h"

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

uint8_t *noise(uint32_t seed, size_t len)
{
    uint8_t *p = g_malloc(len + 1);

    for (size_t i = 0; i < len; i++) {
        p[i] = next_random(&seed);
    }
    p[len] = 0;
    return p;
}

/* On purpose not by the byte swapping helpers that the stream uses. */
static void wire_number(GByteArray *wire, uint64_t value, int bytes)
{
    while (bytes--) {
        uint8_t b = value >> (8 * bytes);

        g_byte_array_append(wire, &b, 1);
    }
}

static int number_size(ItemKind kind)
{
    switch (kind) {
    case ITEM_BYTE:
        return 1;
    case ITEM_BE16:
        return 2;
    case ITEM_BE32:
        return 4;
    case ITEM_BE64:
        return 8;
    default:
        return 0;
    }
}

static void item_init(Item *it, uint32_t *random, size_t largest,
                      GByteArray *wire)
{
    int bytes;

    it->kind = next_random(random) % ITEM_KINDS;
    it->wire_start = wire->len;
    bytes = number_size(it->kind);
    if (bytes) {
        it->value = (uint64_t)next_random(random) << 40 ^
                    (uint64_t)next_random(random) << 20 ^ next_random(random);
        it->value >>= 64 - 8 * bytes;
        wire_number(wire, it->value, bytes);
    } else {
        if (it->kind == ITEM_STRING) {
            it->size = next_random(random) % 256;
        } else {
            it->size = 1 + next_random(random) % largest;
        }
        it->data = noise(next_random(random), it->size);
        if (it->kind == ITEM_STRING) {
            for (size_t i = 0; i < it->size; i++) {
                it->data[i] |= 1;
            }
            wire_number(wire, it->size, 1);
        }
        g_byte_array_append(wire, it->data, it->size);
    }
    it->wire_size = wire->len - it->wire_start;
}

Script *script_new(uint32_t seed, size_t count, size_t largest)
{
    Script *s = g_new0(Script, 1);

    s->items = g_new0(Item, count);
    s->count = count;
    s->wire = g_byte_array_new();
    for (size_t i = 0; i < count; i++) {
        item_init(&s->items[i], &seed, largest, s->wire);
    }
    return s;
}

void script_free(Script *s)
{
    for (size_t i = 0; i < s->count; i++) {
        g_free(s->items[i].data);
    }
    g_free(s->items);
    g_byte_array_unref(s->wire);
    g_free(s);
}

void coroutine_mixed_fn script_put(Script *s, QEMUFile *f)
{
    for (size_t i = 0; i < s->count; i++) {
        Item *it = &s->items[i];

        switch (it->kind) {
        case ITEM_BYTE:
            qemu_put_byte(f, it->value);
            break;
        case ITEM_BE16:
            qemu_put_be16(f, it->value);
            break;
        case ITEM_BE32:
            qemu_put_be32(f, it->value);
            break;
        case ITEM_BE64:
            qemu_put_be64(f, it->value);
            break;
        case ITEM_STRING:
            qemu_put_counted_string(f, (const char *)it->data);
            break;
        case ITEM_REFERENCE:
            qemu_put_buffer_async(f, it->data, it->size, false);
            break;
        default:
            qemu_put_buffer(f, it->data, it->size);
        }
    }
}

static uint64_t get_number(QEMUFile *f, ItemKind kind)
{
    switch (kind) {
    case ITEM_BYTE:
        return qemu_get_byte(f);
    case ITEM_BE16:
        return qemu_get_be16(f);
    case ITEM_BE32:
        return qemu_get_be32(f);
    default:
        return qemu_get_be64(f);
    }
}

/* Gets the bytes of @it; those that it returns must be right. */
static size_t get_bytes(QEMUFile *f, Item *it)
{
    g_autofree uint8_t *copy = g_malloc0(it->size + 256);
    uint8_t *p = copy;
    size_t len;

    switch (it->kind) {
    case ITEM_STRING:
        len = qemu_get_counted_string(f, (char *)p);
        if (len) {
            g_assert_cmpuint(p[len], ==, 0);
        }
        break;
    case ITEM_IN_PLACE:
        len = qemu_get_buffer_in_place(f, &p, it->size);
        break;
    case ITEM_PEEK:
        len = qemu_peek_buffer(f, &p, it->size, 0);
        break;
    default:
        len = qemu_get_buffer(f, p, it->size);
    }
    g_assert_cmpmem(p, len, it->data, len);
    if (it->kind == ITEM_PEEK) {
        qemu_file_skip(f, len);
    }
    return len;
}

size_t coroutine_mixed_fn script_get(Script *s, QEMUFile *f, uint64_t end)
{
    for (size_t i = 0; i < s->count; i++) {
        Item *it = &s->items[i];
        uint64_t left = end - MIN(end, it->wire_start);
        bool whole = left >= it->wire_size;

        if (number_size(it->kind)) {
            g_assert_cmphex(get_number(f, it->kind), ==,
                            whole ? it->value : 0);
        } else {
            size_t expected = it->size;

            if (!whole) {
                expected = it->kind == ITEM_STRING ? 0 : left;
            }
            g_assert_cmpuint(get_bytes(f, it), ==, expected);
        }
        if (!whole) {
            g_assert_cmpint(qemu_file_get_error(f), ==, -EIO);
            return i;
        }
        g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    }
    return s->count;
}

void coroutine_mixed_fn script_get_faulty(Script *s, QEMUFile *f)
{
    bool bad = false;

    for (size_t i = 0; i < s->count; i++) {
        Item *it = &s->items[i];

        if (number_size(it->kind)) {
            uint64_t value = get_number(f, it->kind);

            g_assert_true(value == it->value || value == 0);
        } else {
            get_bytes(f, it);
        }
        bad = bad || qemu_file_get_error(f);
        if (bad) {
            /* The script is out of step from here on. */
            g_assert_cmpint(qemu_file_get_error(f), ==, -EIO);
            break;
        }
    }
    if (bad) {
        uint8_t rest[16] = { 0 };

        /* What is left in the window comes first. */
        while (qemu_get_buffer(f, rest, sizeof(rest)) == sizeof(rest)) {
            continue;
        }
        g_assert_cmphex(qemu_get_be64(f), ==, 0);
        g_assert_cmphex(qemu_get_be32(f), ==, 0);
        g_assert_cmphex(qemu_get_be16(f), ==, 0);
        g_assert_cmphex(qemu_get_byte(f), ==, 0);
        g_assert_cmpuint(qemu_get_buffer(f, rest, 1), ==, 0);
    }
}
