/*
 * Unit tests of what vmstate.c does with lengths that a stream made up, and
 * with state of parts that are not there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "setup.h"
#include "migration/vmstate.h"

#define ROOM 16

/* Loads @len bytes at @data as @vmsd; 0 or a negative error. */
static int load(const VMStateDescription *vmsd, void *opaque,
                const void *data, size_t len)
{
    QEMUFile *f = test_input(data, len);
    int ret = vmstate_load_state(f, vmsd, opaque, 1);

    qemu_fclose(f);
    return ret;
}

/*
 * Arrays with a length before them
 */

typedef struct Numbers {
    uint32_t count;
    uint32_t *numbers;
    uint32_t behind;
} Numbers;

static const VMStateDescription vmstate_numbers = {
    .name = "numbers",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(count, Numbers),
        VMSTATE_VARRAY_UINT32_ALLOC(numbers, Numbers, count, 1,
                                    vmstate_info_uint32, uint32_t),
        VMSTATE_UINT32(behind, Numbers),
        VMSTATE_END_OF_LIST()
    }
};

/* @count elements are announced, two and what is behind them follow. */
static int load_numbers(Numbers *numbers, uint32_t count)
{
    uint32_t data[] = { cpu_to_be32(count), cpu_to_be32(11), cpu_to_be32(22),
                        cpu_to_be32(33) };

    return load(&vmstate_numbers, numbers, data, sizeof(data));
}

static void test_array(void)
{
    Numbers numbers = { };

    g_assert_cmpint(load_numbers(&numbers, 2), ==, 0);
    g_assert_cmpuint(numbers.numbers[0], ==, 11);
    g_assert_cmpuint(numbers.numbers[1], ==, 22);
    g_assert_cmpuint(numbers.behind, ==, 33);
    g_free(numbers.numbers);
}

static void test_array_none(void)
{
    Numbers numbers = { };

    g_assert_cmpint(load_numbers(&numbers, 0), ==, 0);
    g_assert_null(numbers.numbers);
    g_assert_cmpuint(numbers.behind, ==, 11);
}

/* More than can be, more than there are in the stream */
static void test_array_lies(void)
{
    static const uint32_t lies[] = {
        UINT32_MAX, UINT32_MAX - 1, 1u << 31, (1u << 31) + 1, INT32_MAX,
        1u << 30, 4,
    };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        Numbers numbers = { };

        g_assert_cmpint(load_numbers(&numbers, lies[i]), <, 0);
        g_free(numbers.numbers);
    }
}

/* What was not in the stream is not what was in that memory before. */
static void test_array_cut(void)
{
    Numbers numbers = { };

    g_assert_cmpint(load_numbers(&numbers, 1000), <, 0);
    g_assert_nonnull(numbers.numbers);
    for (int i = 3; i < 1000; i++) {
        g_assert_cmpuint(numbers.numbers[i], ==, 0);
    }
    g_free(numbers.numbers);
}

/*
 * Buffers with a size before them
 */

typedef struct Blob {
    uint32_t size;
    uint8_t *bytes;
    uint8_t room[ROOM];
    uint8_t behind[ROOM];
} Blob;

static const VMStateDescription vmstate_allocated = {
    .name = "allocated",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(size, Blob),
        VMSTATE_VBUFFER_ALLOC_UINT32(bytes, Blob, 1, NULL, size),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_present = {
    .name = "present",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(size, Blob),
        VMSTATE_VBUFFER_UINT32(bytes, Blob, 1, NULL, size),
        VMSTATE_END_OF_LIST()
    }
};

static int load_blob(const VMStateDescription *vmsd, Blob *blob,
                     uint32_t size)
{
    uint8_t data[4 + ROOM];

    stl_be_p(data, size);
    memset(data + 4, 0x5a, ROOM);
    return load(vmsd, blob, data, sizeof(data));
}

static void test_buffer(void)
{
    Blob blob = { };

    g_assert_cmpint(load_blob(&vmstate_allocated, &blob, ROOM), ==, 0);
    g_assert_cmpuint(blob.bytes[ROOM - 1], ==, 0x5a);
    g_free(blob.bytes);
}

static void test_buffer_lies(void)
{
    static const uint32_t lies[] = {
        UINT32_MAX, 1u << 31, (1u << 31) + 1, INT32_MAX, ROOM + 1,
    };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        Blob blob = { };

        g_assert_cmpint(load_blob(&vmstate_allocated, &blob, lies[i]), <, 0);
        g_free(blob.bytes);
    }
}

/* Memory that the device has: a negative size is not a large one. */
static void test_buffer_negative(void)
{
    static const uint8_t untouched[ROOM];
    Blob blob = { };

    blob.bytes = blob.room;
    g_assert_cmpint(load_blob(&vmstate_present, &blob, UINT32_MAX), <, 0);
    g_assert_cmpint(load_blob(&vmstate_present, &blob, 1u << 31), <, 0);
    g_assert_cmpmem(blob.room, ROOM, untouched, ROOM);
    g_assert_cmpmem(blob.behind, ROOM, untouched, ROOM);
    g_assert_cmpint(load_blob(&vmstate_present, &blob, ROOM), ==, 0);
}

/* A buffer that this VM does not have */
static void test_buffer_missing(void)
{
    Blob blob = { };

    g_assert_cmpint(load_blob(&vmstate_present, &blob, ROOM), <, 0);
    g_assert_cmpint(load_blob(&vmstate_present, &blob, 0), ==, 0);
}

/*
 * Parts that are not there
 */

typedef struct Part {
    uint32_t value;
} Part;

typedef struct Whole {
    Part *part;
    uint32_t *number;
} Whole;

static const VMStateDescription vmstate_part = {
    .name = "part",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(value, Part),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_whole = {
    .name = "whole",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT_POINTER(part, Whole, vmstate_part, Part),
        VMSTATE_POINTER(number, Whole, 1, vmstate_info_uint32, uint32_t *),
        VMSTATE_END_OF_LIST()
    }
};

static void test_missing(void)
{
    const uint32_t data[] = { cpu_to_be32(1), cpu_to_be32(2) };
    uint32_t number = 0;
    Part part = { };
    Whole none = { }, no_number = { .part = &part },
          whole = { .part = &part, .number = &number };

    g_assert_cmpint(load(&vmstate_whole, &none, data, 8), <, 0);
    g_assert_cmpint(load(&vmstate_whole, &no_number, data, 8), <, 0);
    g_assert_cmpint(load(&vmstate_whole, &whole, data, 8), ==, 0);
    g_assert_cmpuint(part.value, ==, 1);
    g_assert_cmpuint(number, ==, 2);
}

/* A subsection of this section that nobody knows, and one of another */
static void test_subsections(void)
{
    static const uint8_t unknown[] = { 0, 0, 0, 7, 5, 6, 'p', 'a', 'r', 't',
                                       '/', 'x', 0, 0, 0, 1 };
    Part part = { };

    g_assert_cmpint(load(&vmstate_part, &part, unknown, sizeof(unknown)), ==,
                    -ENOENT);
    g_assert_cmpuint(part.value, ==, 7);
}

/*
 * Lists
 */

typedef struct Item {
    uint32_t value;
    QTAILQ_ENTRY(Item) next;
} Item;

typedef struct List {
    QTAILQ_HEAD(, Item) items;
} List;

static const VMStateDescription vmstate_item = {
    .name = "item",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(value, Item),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_list = {
    .name = "list",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_QTAILQ_V(items, List, 1, vmstate_item, Item, next),
        VMSTATE_END_OF_LIST()
    }
};

static unsigned drop_items(List *list)
{
    unsigned count = 0;
    Item *item;

    while ((item = QTAILQ_FIRST(&list->items))) {
        QTAILQ_REMOVE(&list->items, item, next);
        g_free(item);
        count++;
    }
    return count;
}

/* Cut off at each byte: what is in the list was loaded whole. */
static void test_list(void)
{
    static const uint8_t data[] = { 1, 0, 0, 0, 1, 1, 0, 0, 0, 2, 0 };

    for (size_t len = 0; len <= sizeof(data); len++) {
        List list;
        int ret;

        QTAILQ_INIT(&list.items);
        ret = load(&vmstate_list, &list, data, len);
        if (len == sizeof(data)) {
            g_assert_cmpint(ret, ==, 0);
        } else {
            g_assert_cmpint(ret, <, 0);
        }
        g_assert_cmpuint(drop_items(&list), ==, len / 5);
    }
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/vmstate/array", test_array);
    g_test_add_func("/vmstate/array/none", test_array_none);
    g_test_add_func("/vmstate/array/lies", test_array_lies);
    g_test_add_func("/vmstate/array/cut", test_array_cut);
    g_test_add_func("/vmstate/buffer", test_buffer);
    g_test_add_func("/vmstate/buffer/lies", test_buffer_lies);
    g_test_add_func("/vmstate/buffer/negative", test_buffer_negative);
    g_test_add_func("/vmstate/buffer/missing", test_buffer_missing);
    g_test_add_func("/vmstate/missing", test_missing);
    g_test_add_func("/vmstate/subsections", test_subsections);
    g_test_add_func("/vmstate/list", test_list);
    return g_test_run();
}
