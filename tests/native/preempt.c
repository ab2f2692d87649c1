/* Preemption: of loops that never call golibx, in code that golibx knows and in code it does not.
 *
 * The order of the cases matters: what is registered stays registered.
 */
#include "check.h"

#include <math.h>
#include <pthread.h>

static golibx_waitgroup running;
static atomic_int stop;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, in(40 * SECOND))); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

static void hog(void *argument)
{
    volatile uint64_t *rounds = argument;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        ++*rounds;
    golibx_wg_done(&running);
}

/* More hogs than processors, and this goroutine, which sleeps: all of them run. Returns what was
 * counted meanwhile. */
static golibx_counters share(int processors, int hogs)
{
    uint64_t rounds[16] = {0};
    int before_n = golibx_gomaxprocs(processors);
    golibx_counters before = counters();
    stop = 0;
    for (int i = 0; i < hogs; i++)
        start(hog, &rounds[i]);
    int64_t worst = 0;
    for (int i = 0; i < 15; i++) {
        int64_t wanted = in(2 * MS);
        golibx_sleep(2 * MS);
        if (golibx_nanotime() - wanted > worst)
            worst = golibx_nanotime() - wanted;
    }
    stop = 1;
    wait_for_all();
    for (int i = 0; i < hogs; i++)
        CHECK(rounds[i] > 0);
    CHECK(worst < 2 * SECOND);
    golibx_gomaxprocs(before_n);
    golibx_counters after = counters();
    after.preempt_requests -= before.preempt_requests;
    after.preempt_klt -= before.preempt_klt;
    after.preempt_yields -= before.preempt_yields;
    return after;
}

/* Nothing is registered yet: hogs are preempted with their threads. */
static void unknown_code_on_one_processor(void)
{
    golibx_counters c = share(1, 1);
    CHECK(c.preempt_klt > 0);
    EQUAL(c.preempt_yields, 0);
    CHECK(c.preempt_requests >= c.preempt_klt);
}

static void unknown_code_on_more_processors(void)
{
    golibx_counters c = share(2, 5);
    CHECK(c.preempt_klt > 0);
    EQUAL(c.preempt_yields, 0);
}

/* Long inside libc: its code is never registered. */
static void sort_for_long(void *unused)
{
    UNUSED(unused);
    char *text = malloc(1 << 20);
    memset(text, 'a', (1 << 20) - 1);
    text[(1 << 20) - 1] = 0;
    size_t total = 0;
    while (!atomic_load(&stop)) {
        total += strlen(text);
        free(malloc(1000 + total % 1000));
    }
    free(text);
    golibx_wg_done(&running);
}

static void inside_libc(void)
{
    int before = golibx_gomaxprocs(1);
    stop = 0;
    start(sort_for_long, NULL);
    start(sort_for_long, NULL);
    for (int i = 0; i < 30; i++) {
        golibx_sleep(5 * MS);
        free(malloc(5000)); /* none was left with malloc's lock for ever */
    }
    stop = 1;
    wait_for_all();
    golibx_gomaxprocs(before);
}

static void register_refuses(void)
{
    CODE(golibx_register_text(NULL, 100), GOLIBX_INVALID);
    CODE(golibx_register_text((const void *)hog, 0), GOLIBX_INVALID);
    CODE(golibx_register_text((const void *)hog, SIZE_MAX), GOLIBX_INVALID);
    CODE(golibx_register_module(NULL), GOLIBX_INVALID);
    int on_the_stack = 0;
    CODE(golibx_register_module(&on_the_stack), GOLIBX_INVALID);
}

static void a_registered_function(void)
{
    OK(golibx_register_text((const void *)hog, 256)); /* at least its loop */
    golibx_counters c = share(1, 2);
    CHECK(c.preempt_yields > 0);
}

static void a_registered_module(void)
{
    OK(golibx_register_module((const void *)hog));
    OK(golibx_register_module((const void *)hog)); /* again: nothing changes */
    golibx_counters c = share(2, 5);
    CHECK(c.preempt_yields > 0);
}

/* Every register has its value after a preemption, vector registers included. */
static void compute(void *result)
{
    double sum = 0, factor = 1.0000001;
    float vector[16];
    for (int i = 0; i < 16; i++)
        vector[i] = (float)i;
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < 12000000; i++) {
        sum = sum * factor + 1.0 / (i + 1);
        for (int k = 0; k < 16; k++)
            vector[k] = vector[k] * 0.999f + (float)(i & 15);
        hash = (hash ^ (uint64_t)i) * 1099511628211u;
    }
    double *out = result;
    out[0] = sum;
    out[1] = 0;
    for (int i = 0; i < 16; i++)
        out[1] += vector[i];
    out[2] = (double)hash;
    golibx_wg_done(&running);
}

static void registers_survive(void)
{
    enum { n = 5 };
    double alone[3], together[n][3];
    int before_n = golibx_gomaxprocs(2);
    OK(golibx_wg_add(&running, 1));
    compute(alone);
    uint64_t before = counters().preempt_yields + counters().preempt_klt;
    for (int i = 0; i < n; i++)
        start(compute, together[i]);
    wait_for_all();
    for (int i = 0; i < n; i++)
        EQUAL(memcmp(alone, together[i], sizeof alone), 0);
    CHECK(counters().preempt_yields + counters().preempt_klt > before);
    golibx_gomaxprocs(before_n);
}

static void locked_hog(void *argument)
{
    OK(golibx_lock_os_thread());
    pthread_t mine = pthread_self();
    hog(argument);
    CHECK(pthread_equal(mine, pthread_self()));
    OK(golibx_unlock_os_thread());
    golibx_wg_done(&running);
}

static void a_goroutine_with_its_own_thread_is_preempted(void)
{
    int before = golibx_gomaxprocs(1);
    uint64_t rounds[2] = {0, 0};
    stop = 0;
    for (int i = 0; i < 2; i++) {
        OK(golibx_wg_add(&running, 1)); /* hog() has one too */
        start(locked_hog, &rounds[i]);
    }
    golibx_sleep(150 * MS);
    stop = 1;
    wait_for_all();
    CHECK(rounds[0] > 0 && rounds[1] > 0);
    golibx_gomaxprocs(before);
}

static atomic_int waits;

static void count_waits(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop)) {
        golibx_gosched();
        atomic_fetch_add(&waits, 1);
    }
    golibx_wg_done(&running);
}

/* Calls of golibx are interrupted at any instruction; the runtime must come out of it whole. */
static void preempted_in_the_runtime(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 2);
    uint64_t rounds[2] = {0, 0};
    stop = 0;
    waits = 0;
    for (int i = 0; i < 2; i++)
        start(hog, &rounds[i]);
    for (int i = 0; i < 4; i++)
        start(count_waits, NULL);
    int64_t end = in(500 * MS);
    for (int i = 0; golibx_nanotime() < end; i++) {
        int value = i;
        OK(golibx_chan_send(c, &value));
        OK(golibx_chan_recv(c, &value));
        EQUAL(value, i);
    }
    stop = 1;
    wait_for_all();
    CHECK(waits > 0);
    golibx_chan_free(c);
}

static void run_for_200_ms(void *rounds)
{
    int64_t end = in(200 * MS);
    while (golibx_nanotime() < end)
        ++*(uint64_t *)rounds;
    atomic_store(&stop, 1);
    golibx_wg_done(&running);
}

/* Switched off: a hog keeps its processor until it calls golibx. */
static void switched_off(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.gomaxprocs = 1;
    config.no_async_preempt = 1;
    OK(golibx_start(&config));
    uint64_t rounds = 0;
    start(run_for_200_ms, &rounds);
    wait_for_all();
    golibx_counters c = counters();
    EQUAL(c.preempt_klt, 0);
    EQUAL(c.preempt_yields, 0);
    EQUAL(c.preempt_requests, 0);
    OK(golibx_stop(soon()));

    setenv("GOLIB_ASYNCPREEMPT_OFF", "1", 1);
    config.no_async_preempt = 0;
    OK(golibx_start(&config));
    start(run_for_200_ms, &rounds);
    wait_for_all();
    EQUAL(counters().preempt_requests, 0);
    OK(golibx_stop(soon()));
    unsetenv("GOLIB_ASYNCPREEMPT_OFF");
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(switched_off),
        CASE(unknown_code_on_one_processor),
        CASE(unknown_code_on_more_processors),
        CASE(inside_libc),
        CASE(register_refuses),
        CASE(a_registered_function),
        CASE(a_registered_module),
        CASE(registers_survive),
        CASE(a_goroutine_with_its_own_thread_is_preempted),
        CASE(preempted_in_the_runtime),
    };
    return RUN_CASES(NULL, cases);
}
