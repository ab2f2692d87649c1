/* What the C tests share: checks that name the line, and cases that name themselves.
 *
 * A program is a list of cases. Those of CASE() run as goroutines, one after the other, in one runtime;
 * those of CASE_OUTSIDE() run on the main thread, without one. The first check that fails ends the
 * program: "chan.c:45: closed: golibx_chan_len(c) is 3, not 2".
 *
 *     program          runs all cases
 *     program NAME     runs one
 */
#ifndef CHECK_H
#define CHECK_H

#define _DEFAULT_SOURCE  /* POSIX, besides -std=c11 */
#define _DARWIN_C_SOURCE

#include "golibx.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS ((int64_t)1000000)
#define SECOND (1000 * MS)
#define UNUSED(x) ((void)(x))

static const char *current_case = "?";

_Noreturn static void failed(const char *file, int line, const char *text)
{
    const char *name = strrchr(file, '/');
    fprintf(stderr, "%s:%d: %s: %s\n", name ? name + 1 : file, line, current_case, text);
    fflush(NULL);
    _Exit(1);
}

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            failed(__FILE__, __LINE__, "not true: " #condition); \
    } while (0)

static inline void check_equal(const char *file, int line, const char *text, int64_t is,
                               int64_t wanted)
{
    if (is == wanted)
        return;
    char message[400];
    snprintf(message, sizeof message, "%s is %" PRId64 ", not %" PRId64, text, is, wanted);
    failed(file, line, message);
}

/* Both are integers. */
#define EQUAL(is, wanted) \
    check_equal(__FILE__, __LINE__, #is, (int64_t)(is), (int64_t)(wanted))

static inline void check_code(const char *file, int line, const char *text, int64_t is,
                              int64_t wanted)
{
    if (is == wanted)
        return;
    char message[400];
    snprintf(message, sizeof message, "%s is %" PRId64 " (%s), not %" PRId64 " (%s)", text, is,
             is <= 0 ? golibx_strerror((int)is) : "a number", wanted,
             wanted <= 0 ? golibx_strerror((int)wanted) : "a number");
    failed(file, line, message);
}

/* `is` is what a function returned: a code or a number. */
#define CODE(is, wanted) check_code(__FILE__, __LINE__, #is, (int64_t)(is), (int64_t)(wanted))
#define OK(is) CODE(is, GOLIBX_OK)

/* What the system call said that a NULL or GOLIBX_SYSTEM is about. */
#define ERRNO(wanted) EQUAL(golibx_errno(), wanted)

/* What cannot be done at once, asked with deadline 0 or one that has passed. */
#define NOT_NOW(is) \
    do { \
        int64_t code_ = (is); \
        if (code_ != GOLIBX_WOULD_BLOCK) \
            CODE(code_, GOLIBX_TIMEOUT); \
    } while (0)

/* Not inlined: compilers keep the address of errno over calls that change the thread. */
__attribute__((noinline, unused)) static void clear_errno(void) { errno = 0; }

/* In `ns` from now, as a deadline. */
static inline int64_t in(int64_t ns) { return golibx_nanotime() + ns; }

/* A deadline that only a program that hangs reaches. */
static inline int64_t soon(void) { return in(20 * SECOND); }

static inline golibx_counters counters(void)
{
    golibx_counters now;
    memset(&now, 0, sizeof now);
    now.size = sizeof now;
    OK(golibx_stats(&now));
    return now;
}

/* Waits until the condition holds; for what no primitive reports. */
#define EVENTUALLY(condition) \
    do { \
        for (int64_t end_ = soon(); !(condition); golibx_sleep(MS)) \
            if (golibx_nanotime() > end_) \
                failed(__FILE__, __LINE__, "never true: " #condition); \
    } while (0)

/* ---- cases ---- */

struct test_case {
    const char *name;
    void (*run)(void);
    int outside;
};
#define CASE(function) {#function, function, 0}
#define CASE_OUTSIDE(function) {#function, function, 1}

static void run_as_goroutine(void *argument) { ((struct test_case *)argument)->run(); }

/* Runs what the command line asks for. `config` may be NULL. */
static inline int run_cases(const golibx_config *config, struct test_case *cases, size_t count,
                            int argc, char **argv)
{
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
            continue;
        current_case = cases[i].name;
        if (cases[i].outside)
            cases[i].run();
        else
            OK(golibx_run(config, run_as_goroutine, &cases[i]));
        done++;
    }
    if (done == 0) {
        fprintf(stderr, "there is no case %s\n", argc > 1 ? argv[1] : "");
        return 2;
    }
    printf("%zu passed\n", done);
    return 0;
}

#define RUN_CASES(config, cases) \
    run_cases(config, cases, sizeof cases / sizeof *cases, argc, argv)

#endif
