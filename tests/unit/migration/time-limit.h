/*
 * How long a test program may take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_TIME_LIMIT_H
#define TEST_TIME_LIMIT_H

/* Seconds that count in place of a program's own: sanitizers take longer. */
#define TEST_TIME_LIMIT_VARIABLE "FERRY_TEST_SECONDS"

/* If it hangs it is ended after so many @seconds, however it was started. */
static inline void test_limit_time(unsigned seconds)
{
    const char *limit = g_getenv(TEST_TIME_LIMIT_VARIABLE);

    alarm(limit ? atoi(limit) : seconds);
}

#endif
