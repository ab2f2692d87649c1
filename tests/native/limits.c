/* What happens when threads or memory are short, and how many goroutines there can be. */
#include "check.h"

#include <pthread.h>
#include <sys/resource.h>

static golibx_waitgroup running;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, in(40 * SECOND))); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

/* The size of this process's address space; 0 where /proc does not say. */
static size_t address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages = 0;
    if (file == NULL)
        return 0;
    if (fscanf(file, "%zu", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void no_memory_to_start(void)
{
    struct rlimit before, limit;
    size_t now = address_space();
    if (now == 0)
        return;
    EQUAL(getrlimit(RLIMIT_AS, &before), 0);
    limit = before;
    limit.rlim_cur = now + 256 * 1024;
    EQUAL(setrlimit(RLIMIT_AS, &limit), 0);
    int code = golibx_start(NULL);
    golibx_chan *c = golibx_chan_new(65536, 1000);
    EQUAL(setrlimit(RLIMIT_AS, &before), 0);
    if (code != GOLIBX_THREAD_LIMIT)
        CODE(code, GOLIBX_NO_MEMORY);
    CHECK(c == NULL);
    OK(golibx_start(NULL)); /* nothing of the failed start is in the way */
    OK(golibx_stop(soon()));
}

static void block(void *unused)
{
    UNUSED(unused);
    golibx_entersyscall();
    usleep(30000);
    golibx_exitsyscall();
    golibx_wg_done(&running);
}

/* More calls block than there may be threads: the others wait for one, and all come to their end. */
static void more_system_calls_than_threads(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.max_threads = 4;
    config.gomaxprocs = 2;
    OK(golibx_start(&config));
    for (int i = 0; i < 40; i++)
        start(block, NULL);
    wait_for_all();
    golibx_counters c = counters();
    CHECK(c.threads <= 4);
    CHECK(c.thread_limit_hits > 0);
    OK(golibx_stop(soon()));
}

static atomic_int stop;

static void hog(void *rounds)
{
    while (!atomic_load(&stop))
        ++*(volatile uint64_t *)rounds;
    golibx_wg_done(&running);
}

/* Hogs that cannot be preempted with their threads, for want of threads, keep their processors. */
static void more_hogs_than_threads(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.max_threads = 2;
    config.gomaxprocs = 2;
    config.preempt_slice_ns = 2 * MS;
    OK(golibx_start(&config));
    uint64_t rounds[4] = {0};
    stop = 0;
    for (int i = 0; i < 4; i++)
        start(hog, &rounds[i]);
    usleep(100000);
    stop = 1;
    wait_for_all();
    golibx_counters c = counters();
    CHECK(c.threads <= 2);
    CHECK(c.preempt_refused_thread > 0);
    OK(golibx_stop(soon()));
}

static void own_a_thread(void *unused)
{
    UNUSED(unused);
    OK(golibx_lock_os_thread());
    golibx_sleep(20 * MS);
    OK(golibx_unlock_os_thread());
    golibx_wg_done(&running);
}

static void many_threads_come_and_go(void)
{
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 50; i++)
            start(own_a_thread, NULL);
        wait_for_all();
    }
    CHECK(counters().threads < 200);
}

static golibx_chan *gate;

static void wait_at_the_gate(void *unused)
{
    UNUSED(unused);
    CODE(golibx_chan_recv(gate, NULL), GOLIBX_CLOSED);
    golibx_wg_done(&running);
}

static void many_goroutines(void)
{
    enum { n = 30000 };
    gate = golibx_chan_new(0, 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < n; i++)
            start(wait_at_the_gate, NULL);
        CHECK(counters().goroutines >= n);
        OK(golibx_chan_close(gate));
        wait_for_all();
        golibx_chan_free(gate);
        gate = golibx_chan_new(0, 0);
    }
    golibx_counters c = counters();
    CHECK(c.stacks >= n && c.stacks < n + n / 2); /* the second round used those of the first */
    golibx_chan_free(gate);
}

static void nothing(void *unused)
{
    UNUSED(unused);
    golibx_wg_done(&running);
}

static void many_short_lives(void)
{
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 3000; i++)
            start(nothing, NULL);
        wait_for_all();
    }
}

/* With the smallest stacks, and the largest. */
static void stack_sizes(void)
{
    size_t sizes[] = {16 * 1024, 64 * 1024, 1024 * 1024, 64 * 1024 * 1024};
    for (int i = 0; i < 4; i++) {
        golibx_config config = GOLIBX_CONFIG_INIT;
        config.stack_size = sizes[i];
        OK(golibx_start(&config));
        for (int k = 0; k < 500; k++)
            start(nothing, NULL);
        wait_for_all();
        OK(golibx_stop(soon()));
    }
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(no_memory_to_start),
        CASE_OUTSIDE(more_system_calls_than_threads),
        CASE_OUTSIDE(more_hogs_than_threads),
        CASE_OUTSIDE(stack_sizes),
        CASE(many_threads_come_and_go),
        CASE(many_goroutines),
        CASE(many_short_lives),
    };
    return RUN_CASES(NULL, cases);
}
