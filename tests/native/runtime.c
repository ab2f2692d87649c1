/* The life of a runtime: start, run, stop, start again, and the codes of what is not right. */
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>

static void nothing(void *unused) { UNUSED(unused); }

static void sleep_200_ms(void *unused)
{
    UNUSED(unused);
    golibx_sleep(200 * MS);
}

static void stop_of_a_goroutine(void *code) { *(int *)code = golibx_stop(0); }
static void start_of_a_goroutine(void *code) { *(int *)code = golibx_start(NULL); }

static void run_within(void *count)
{
    for (int i = 0; i < 10; i++)
        OK(golibx_run(NULL, nothing, NULL));
    *(int *)count = 10;
}

static void no_python_in_the_process(void)
{
    void *process = dlopen(NULL, RTLD_LAZY);
    CHECK(process != NULL);
    CHECK(dlsym(process, "Py_IsInitialized") == NULL);
    CHECK(dlsym(process, "golibx_go") != NULL);
}

static void versions(void)
{
    EQUAL(golibx_abi_version(), GOLIBX_ABI_VERSION);
    const char *version = golibx_version();
    CHECK(version != NULL && version[0] >= '0' && version[0] <= '9' && strchr(version, '.'));
}

static void every_code_has_a_text(void)
{
    for (int code = GOLIBX_SYSTEM; code <= GOLIBX_OK; code++) {
        CHECK(golibx_strerror(code) != NULL && strlen(golibx_strerror(code)) > 1);
        for (int other = code + 1; other <= GOLIBX_OK; other++)
            CHECK(strcmp(golibx_strerror(code), golibx_strerror(other)) != 0);
    }
    int unknown[] = {1, -10, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++)
        CHECK(golibx_strerror(unknown[i]) != NULL && *golibx_strerror(unknown[i]));
}

static void nanotime_is_monotonic(void)
{
    int64_t before = golibx_nanotime();
    CHECK(before > 0);
    usleep(2000);
    int64_t after = golibx_nanotime();
    CHECK(after - before >= 2 * MS);
    for (int i = 0; i < 1000; i++) {
        before = after;
        after = golibx_nanotime();
        CHECK(after >= before);
    }
}

static void nothing_runs_before_start(void)
{
    CODE(golibx_go(nothing, NULL), GOLIBX_NOT_RUNNING);
    CODE(golibx_stop(0), GOLIBX_NOT_RUNNING);
    EQUAL(golibx_goid(), 0);
    golibx_gosched();
}

static void start_and_stop(void)
{
    OK(golibx_start(NULL));
    CODE(golibx_start(NULL), GOLIBX_RUNNING);
    OK(golibx_stop(GOLIBX_FOREVER));
    CODE(golibx_stop(GOLIBX_FOREVER), GOLIBX_NOT_RUNNING);
    CODE(golibx_go(nothing, NULL), GOLIBX_NOT_RUNNING);
}

static void starts_again(void)
{
    for (int i = 0; i < 20; i++) {
        OK(golibx_start(NULL));
        for (int k = 0; k < 100; k++)
            OK(golibx_go(nothing, NULL));
        OK(golibx_stop(soon()));
    }
}

static void stop_waits_for_goroutines(void)
{
    OK(golibx_start(NULL));
    int64_t began = golibx_nanotime();
    OK(golibx_go(sleep_200_ms, NULL));
    CODE(golibx_stop(0), GOLIBX_TIMEOUT);
    CODE(golibx_stop(in(5 * MS)), GOLIBX_TIMEOUT);
    CODE(golibx_start(NULL), GOLIBX_RUNNING); /* it runs on */
    OK(golibx_go(nothing, NULL));
    OK(golibx_stop(soon()));
    CHECK(golibx_nanotime() - began >= 200 * MS);
}

static void stop_by_a_goroutine_is_a_misuse(void)
{
    int code = 1;
    OK(golibx_run(NULL, stop_of_a_goroutine, &code));
    CODE(code, GOLIBX_INVALID);
}

static void start_by_a_goroutine(void)
{
    int code = 1;
    OK(golibx_run(NULL, start_of_a_goroutine, &code));
    CODE(code, GOLIBX_RUNNING);
}

static void run_inside_a_running_runtime(void)
{
    int count = 0;
    OK(golibx_run(NULL, run_within, &count));
    EQUAL(count, 10);
    golibx_stop(soon());

    OK(golibx_start(NULL));
    count = 0;
    OK(golibx_run(NULL, run_within, &count));
    EQUAL(count, 10);
    OK(golibx_stop(soon()));
}

static void configured(void *gomaxprocs) { *(int *)gomaxprocs = golibx_gomaxprocs(0); }

static void configuration(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    EQUAL(config.size, sizeof config);
    config.gomaxprocs = 3;
    config.preempt_slice_ns = 5 * MS;
    config.sysmon_sleep_min_ns = 50000;
    config.sysmon_sleep_max_ns = 5 * MS;
    config.retake_threshold_ns = 100000;
    config.retake_threshold_idle_ns = 20 * MS;
    config.stack_size = 64 * 1024;
    config.stack_keep = 1024 * 1024;
    config.max_threads = 50;
    config.seed = 42;
    OK(golibx_start(&config));
    EQUAL(golibx_gomaxprocs(0), 3);
    EQUAL(counters().gomaxprocs, 3);
    int n = 0;
    OK(golibx_run(&config, configured, &n));
    EQUAL(n, 3);
    OK(golibx_stop(soon()));
}

static void refuses(golibx_config config)
{
    int code = golibx_start(&config);
    if (code == GOLIBX_OK)
        golibx_stop(soon());
    CODE(code, GOLIBX_INVALID);
}

static void configuration_out_of_range(void)
{
    const golibx_config good = GOLIBX_CONFIG_INIT;
    golibx_config c = good;
    c.gomaxprocs = 1025;
    refuses(c);
    c = good;
    c.stack_size = 8 * 1024; /* too small */
    refuses(c);
    c = good;
    c.stack_size = 128 * 1024 * 1024; /* too large */
    refuses(c);
    c = good;
    c.stack_size = 100000; /* no power of two */
    refuses(c);
    c = good;
    c.size = 0;
    refuses(c);
    c = good;
    c.size = 3;
    refuses(c);
    CODE(golibx_go(nothing, NULL), GOLIBX_NOT_RUNNING); /* none of them started anything */
}

/* A program that was compiled with an older header, where golibx_config ended earlier. */
static void configuration_of_an_older_program(void)
{
    struct { uint32_t size, gomaxprocs, max_threads, no_async_preempt; } older = {16, 2, 0, 0};
    OK(golibx_start((const golibx_config *)(const void *)&older));
    EQUAL(golibx_gomaxprocs(0), 2);
    OK(golibx_stop(soon()));
}

static void gomaxprocs(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.gomaxprocs = 2;
    OK(golibx_start(&config));
    EQUAL(golibx_gomaxprocs(0), 2);
    EQUAL(golibx_gomaxprocs(4), 2);
    EQUAL(golibx_gomaxprocs(0), 4);
    EQUAL(counters().gomaxprocs, 4);
    CHECK(golibx_gomaxprocs(-1) < 0);
    CODE(golibx_gomaxprocs(1025), GOLIBX_INVALID);
    EQUAL(golibx_gomaxprocs(1), 4);
    for (int i = 0; i < 100; i++) {
        OK(golibx_go(nothing, NULL));
        EQUAL(golibx_gomaxprocs(1 + (i + 1) % 8), 1 + i % 8);
    }
    OK(golibx_stop(soon()));
}

static void gomaxprocs_of_the_environment(void)
{
    setenv("GOMAXPROCS", "5", 1);
    OK(golibx_start(NULL));
    EQUAL(golibx_gomaxprocs(0), 5);
    OK(golibx_stop(soon()));
    unsetenv("GOMAXPROCS");
    OK(golibx_start(NULL));
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    CHECK(golibx_gomaxprocs(0) >= 1 && golibx_gomaxprocs(0) <= cpus);
    OK(golibx_stop(soon()));
}

static int many_done;
static void count_many(void *unused)
{
    UNUSED(unused);
    __atomic_fetch_add(&many_done, 1, __ATOMIC_RELAXED);
}

static void *run_on_a_thread(void *unused)
{
    UNUSED(unused);
    OK(golibx_run(NULL, count_many, NULL));
    return NULL;
}

static void run_by_several_threads(void)
{
    OK(golibx_start(NULL));
    pthread_t threads[8];
    many_done = 0;
    for (int i = 0; i < 8; i++)
        EQUAL(pthread_create(&threads[i], NULL, run_on_a_thread, NULL), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    EQUAL(many_done, 8);
    OK(golibx_stop(soon()));
}

static void stats_of_another_size(void)
{
    OK(golibx_start(NULL));
    golibx_counters c;
    memset(&c, 0x55, sizeof c);
    c.size = 16; /* an older program's: only so much is written */
    OK(golibx_stats(&c));
    EQUAL(c.spawns, 0x5555555555555555);
    c.size = 0;
    CODE(golibx_stats(&c), GOLIBX_INVALID);
    OK(golibx_stop(soon()));
}

static void threads_end_with_the_runtime(void)
{
    OK(golibx_start(NULL));
    for (int i = 0; i < 1000; i++)
        OK(golibx_go(sleep_200_ms, NULL));
    OK(golibx_stop(soon()));
    FILE *status = fopen("/proc/self/status", "r");
    if (status == NULL)
        return; /* not Linux */
    char line[200];
    int threads = 0;
    while (fgets(line, sizeof line, status))
        sscanf(line, "Threads: %d", &threads);
    fclose(status);
    EQUAL(threads, 1);
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(no_python_in_the_process),
        CASE_OUTSIDE(versions),
        CASE_OUTSIDE(every_code_has_a_text),
        CASE_OUTSIDE(nanotime_is_monotonic),
        CASE_OUTSIDE(nothing_runs_before_start),
        CASE_OUTSIDE(start_and_stop),
        CASE_OUTSIDE(starts_again),
        CASE_OUTSIDE(stop_waits_for_goroutines),
        CASE_OUTSIDE(configuration),
        CASE_OUTSIDE(configuration_out_of_range),
        CASE_OUTSIDE(configuration_of_an_older_program),
        CASE_OUTSIDE(gomaxprocs),
        CASE_OUTSIDE(gomaxprocs_of_the_environment),
        CASE_OUTSIDE(run_by_several_threads),
        CASE_OUTSIDE(stats_of_another_size),
        CASE_OUTSIDE(threads_end_with_the_runtime),
        /* golibx_run() leaves a runtime running: last. */
        CASE_OUTSIDE(stop_by_a_goroutine_is_a_misuse),
        CASE_OUTSIDE(start_by_a_goroutine),
        CASE_OUTSIDE(run_inside_a_running_runtime),
    };
    return RUN_CASES(NULL, cases);
}
