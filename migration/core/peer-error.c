/*
 * Why the destination failed: the text in WIRE_RP_ERROR
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "peer-error.h"

#define CUT "..."

/* The longest prefix of at most @max bytes that ends between two characters */
static size_t fitting(const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);

    if (len <= max) {
        return len;
    }
    len = max;
    /* Bytes 10xxxxxx continue a character. */
    while (len && (text[len] & 0xc0) == 0x80) {
        len--;
    }
    return len;
}

size_t peer_error_encode(const char *text, uint8_t payload[WIRE_RP_ERROR_MAX])
{
    size_t len = fitting(text, WIRE_RP_ERROR_MAX);

    if (text[len]) {
        len = fitting(text, WIRE_RP_ERROR_MAX - strlen(CUT));
        memcpy(payload + len, CUT, strlen(CUT));
        memcpy(payload, text, len);
        return len + strlen(CUT);
    }
    memcpy(payload, text, len);
    return len;
}

/* How many bytes at @p are a character that can be printed, or 0 */
static size_t printable(const uint8_t *p, size_t left)
{
    gunichar c;

    if (*p < 0x80) {
        return g_ascii_isprint(*p);
    }
    c = g_utf8_get_char_validated((const char *)p, left);
    if (c == (gunichar)-1 || c == (gunichar)-2 || !g_unichar_isprint(c)) {
        return 0;
    }
    return g_unichar_to_utf8(c, NULL);
}

char *peer_error_decode(const uint8_t *payload, size_t len)
{
    GString *text = g_string_sized_new(len);
    const uint8_t *end = payload + len;

    for (const uint8_t *p = payload; p < end;) {
        size_t n = printable(p, end - p);

        if (n) {
            g_string_append_len(text, (const char *)p, n);
            p += n;
        } else {
            g_string_append_printf(text, "\\x%02x", *p++);
        }
    }
    return g_string_free(text, false);
}
