/* Storms for the native lane: each sub-command is one, checks its own results and repeats until its
 * time is up. What is lost, run twice or corrupted ends the program with one line; what hangs does so
 * after a while, with the scheduler's figures.
 *
 *     stress NAME [--procs N] [--slice-us N] [--no-preempt] [--register | --no-register]
 *                 [--seconds N] [--seed N] [--patience N]
 *
 * The names: `stress --help`. With --register (the default) goroutines are preempted by switching away
 * inside the signal handler, with --no-register always with their thread. A slice is 100 us.
 * STRESS_GDB=1 has gdb print all stacks of a run that hangs.
 */
#define _GNU_SOURCE

#include "golibx.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define US ((int64_t)1000)
#define MS ((int64_t)1000000)
#define SECOND (1000 * MS)
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* What --register registers where the whole program cannot be: linked statically, that would be the
 * C library too. */
#ifdef STRESS_STATIC
#define HOT __attribute__((section("stress_text"), noinline))
extern const char __start_stress_text[], __stop_stress_text[];
#else
#define HOT __attribute__((noinline))
#endif

static struct {
    int procs, no_preempt, no_register;
    int64_t slice_us, patience;
    double seconds;
    uint64_t seed;
} options = {.slice_us = 100, .seconds = 2, .patience = 30, .seed = 1};

static const char *scenario = "?";
static int64_t deadline_of_run;
/* Moves on as long as something happens. */
static atomic_ulong beat;

/* ---- ends ---- */

static void print_figures(void)
{
    golibx_counters c = {.size = sizeof c};
    if (golibx_stats(&c) != GOLIBX_OK)
        return;
#define ITEM(name) fprintf(stderr, " %s=%" PRIu64, #name, (uint64_t)c.name)
    ITEM(gomaxprocs), ITEM(goroutines), ITEM(spawns), ITEM(switches), ITEM(steals), ITEM(threads),
        ITEM(threads_idle), ITEM(thread_limit_hits), ITEM(handoffs), ITEM(retakes), ITEM(netpolls),
        ITEM(netpoll_wakeups), ITEM(timers), ITEM(timer_fires), ITEM(timer_steals),
        ITEM(preempt_requests), ITEM(preempt_yields), ITEM(preempt_klt), ITEM(preempt_coop),
        ITEM(preempt_refused_runtime), ITEM(preempt_refused_idle), ITEM(preempt_refused_stale),
        ITEM(preempt_refused_stack), ITEM(preempt_refused_thread), ITEM(preempt_refused_alone),
        ITEM(stacks), ITEM(stacks_free);
#undef ITEM
    fputc('\n', stderr);
}

_Noreturn static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "stress %s: %s\n", scenario, text);
    fflush(NULL);
    abort();
}

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            fail("line %d: not true: %s", __LINE__, #condition); \
    } while (0)

#define EQUAL(is, wanted) \
    do { \
        int64_t is_ = (int64_t)(is), wanted_ = (int64_t)(wanted); \
        if (is_ != wanted_) \
            fail("line %d: %s is %" PRId64 ", not %" PRId64, __LINE__, #is, is_, wanted_); \
    } while (0)

#define OK(is) EQUAL(is, GOLIBX_OK)

static void print_stacks(void)
{
    if (getenv("STRESS_GDB") == NULL)
        return;
    char command[200];
    snprintf(command, sizeof command,
             "gdb -q -batch -p %d -ex 'set print frame-arguments scalars' "
             "-ex 'thread apply all backtrace 14' 1>&2", getpid());
    if (system(command) != 0)
        fprintf(stderr, "no gdb\n");
}

/* On the thread's alternate stack: a goroutine's may be the problem. */
static void on_fault(int number, siginfo_t *info, void *unused)
{
    (void)unused;
    signal(number, SIG_DFL);
    alarm(20);
    fprintf(stderr, "stress %s: signal %d at %p\n", scenario, number, info->si_addr);
    print_stacks();
    print_figures();
    raise(number);
}

static void report_faults(void)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    action.sa_sigaction = on_fault;
    for (size_t i = 0; i < COUNT(numbers); i++)
        sigaction(numbers[i], &action, NULL);
}

/* Says what the scheduler did when nothing has happened for `patience` seconds. */
static void *watchdog(void *unused)
{
    (void)unused;
    unsigned long seen = 0;
    for (int64_t still = 0;; still++) {
        sleep(1);
        unsigned long now = atomic_load(&beat);
        if (now != seen)
            still = 0;
        seen = now;
        if (still < options.patience)
            continue;
        fprintf(stderr, "stress %s: nothing has happened for %" PRId64 " s\n", scenario, still);
        abort();
    }
}

/* ---- means ---- */

static inline uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

struct random {
    uint64_t state;
};

static inline uint64_t next(struct random *r) { return mix(r->state += 0x632BE59BD9B4E019u); }
static inline uint64_t below(struct random *r, uint64_t n) { return next(r) % n; }

static inline struct random seeded(uint64_t with)
{
    return (struct random){mix(options.seed) ^ mix(with)};
}

static int time_is_up(void)
{
    atomic_fetch_add(&beat, 1);
    return golibx_nanotime() >= deadline_of_run;
}

static golibx_waitgroup running;

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

static void start_number(void (*fn)(void *), size_t number)
{
    start(fn, (void *)(uintptr_t)number);
}

static void finished(void)
{
    atomic_fetch_add_explicit(&beat, 1, memory_order_relaxed);
    OK(golibx_wg_done(&running));
}

static void wait_for_all(void) { OK(golibx_wg_wait(&running, GOLIBX_FOREVER)); }

/* ---- cpu: results to the bit ---- */

struct result {
    uint64_t integer;
    double fp, vector[4];
    float single;
    long double longest;
};

enum { cpu_workers = 75000, cpu_kinds = 509 };
static struct result cpu_wanted[cpu_kinds];
static atomic_ulong cpu_sum;

/* Everything that has registers of its own: integers, scalars, vectors, and on x86 the x87. */
HOT static void cpu_compute(struct result *out, uint64_t kind)
{
    uint64_t integer = mix(kind);
    double x = 0.1 + (double)(kind % 97) / 100, sum = 0, carry = 0;
    double vector[4] = {x, x + 1, x + 2, x + 3};
    float single = (float)x;
    long double longest = x;
    int rounds = kind % 64 == 0 ? 20000 : 300; /* some are preempted more than once */
    for (int i = 1; i <= rounds; i++) {
        integer ^= integer << 13, integer ^= integer >> 7, integer ^= integer << 17;
        integer += integer / (uint64_t)(i + 1);
        x = 3.99 * x * (1 - x);
        double y = x / i - carry, t = sum + y;
        carry = (t - sum) - y;
        sum = t;
        for (int k = 0; k < 4; k++)
            vector[k] = vector[k] * 0.999 + x * (k + 1);
        single = single * 0.5f + (float)__builtin_sqrt(x);
        longest = longest * 1.0000001L + 1.0L / (longest + i);
    }
    memset(out, 0, sizeof *out);
    out->integer = integer;
    out->fp = sum;
    memcpy(out->vector, vector, sizeof vector);
    out->single = single;
    out->longest = longest;
}

static int same(const struct result *a, const struct result *b)
{
    return a->integer == b->integer && memcmp(&a->fp, &b->fp, sizeof a->fp) == 0 &&
           memcmp(a->vector, b->vector, sizeof a->vector) == 0 &&
           memcmp(&a->single, &b->single, sizeof a->single) == 0 && a->longest == b->longest;
}

static void cpu_worker(void *number)
{
    uint64_t kind = (uintptr_t)number % cpu_kinds;
    struct result r;
    cpu_compute(&r, kind);
    if (!same(&r, &cpu_wanted[kind]))
        fail("kind %" PRIu64 ": %" PRIx64 " %a %a %La, not %" PRIx64 " %a %a %La", kind, r.integer,
             r.fp, r.vector[3], r.longest, cpu_wanted[kind].integer, cpu_wanted[kind].fp,
             cpu_wanted[kind].vector[3], cpu_wanted[kind].longest);
    atomic_fetch_add(&cpu_sum, r.integer);
    finished();
}

static void cpu(void)
{
    unsigned long wanted = 0;
    for (size_t i = 0; i < cpu_kinds; i++)
        cpu_compute(&cpu_wanted[i], i);
    for (size_t i = 0; i < cpu_workers; i++)
        wanted += cpu_wanted[i % cpu_kinds].integer;
    do {
        atomic_store(&cpu_sum, 0);
        for (size_t i = 0; i < cpu_workers; i++)
            start_number(cpu_worker, i);
        wait_for_all();
        CHECK(atomic_load(&cpu_sum) == wanted);
    } while (!time_is_up());
}

/* ---- select: many channels, senders, receivers, and closes ---- */

enum { select_channels = 24, select_goroutines = 16, select_values = 400 };
static golibx_chan *select_chan[select_channels];
static golibx_waitgroup select_senders;
static atomic_ulong select_sent, select_received, select_count;

/* Sends each value once, to whichever of some channels takes it. */
static void select_send(void *number)
{
    struct random r = seeded((uintptr_t)number);
    for (int i = 0; i < select_values; i++) {
        uint64_t value = next(&r) >> 20, unused;
        golibx_case cases[12];
        size_t n = 1 + below(&r, COUNT(cases));
        memset(cases, 0, sizeof cases);
        for (size_t k = 0; k < n; k++) {
            uint64_t at = below(&r, select_channels + 2);
            cases[k] = (golibx_case){at < select_channels ? select_chan[at] : NULL, GOLIBX_SEND, 0, &value};
        }
        int at = -1;
        switch (below(&r, 4)) {
        case 0: at = golibx_select(cases, n, 0); break;
        case 1: at = golibx_select(cases, n, golibx_nanotime() + (int64_t)below(&r, 100) * US); break;
        case 2: /* a receiver too, of a channel that never has a value */
            cases[n - 1] = (golibx_case){NULL, GOLIBX_RECV, 0, &unused};
            at = golibx_select(cases, n, golibx_nanotime() + 200 * US);
            break;
        default:
            if (cases[0].chan == NULL)
                cases[0].chan = select_chan[0];
            at = golibx_select(cases, n, GOLIBX_FOREVER);
            CHECK(at >= 0);
        }
        if (at < 0) {
            CHECK(at == GOLIBX_WOULD_BLOCK || at == GOLIBX_TIMEOUT);
            OK(golibx_chan_send(select_chan[below(&r, select_channels)], &value));
        } else {
            CHECK((size_t)at < n && cases[at].dir == GOLIBX_SEND && cases[at].chan != NULL);
            OK(cases[at].result);
        }
        atomic_fetch_add(&select_sent, value);
    }
    OK(golibx_wg_done(&select_senders));
    finished();
}

/* Receives until all channels are closed. */
static void select_receive(void *number)
{
    struct random r = seeded((uintptr_t)number + 1000);
    golibx_case cases[select_channels];
    uint64_t values[select_channels];
    size_t n = below(&r, 2) ? select_channels : 7; /* up to 8 lie on the stack in the library */
    size_t first = below(&r, select_channels), open = n;
    for (size_t i = 0; i < n; i++)
        cases[i] = (golibx_case){select_chan[(first + i) % select_channels], GOLIBX_RECV, 0, &values[i]};
    while (open > 0) {
        int64_t wait = below(&r, 3) ? GOLIBX_FOREVER : golibx_nanotime() + (int64_t)below(&r, 50) * US;
        int at = golibx_select(cases, n, wait);
        if (at < 0) {
            CHECK(wait != GOLIBX_FOREVER && at == GOLIBX_TIMEOUT);
        } else if (cases[at].result == GOLIBX_CLOSED) {
            EQUAL(values[at], 0);
            cases[at].chan = NULL;
            open--;
        } else {
            OK(cases[at].result);
            atomic_fetch_add(&select_received, values[at]);
            atomic_fetch_add(&select_count, 1);
            atomic_fetch_add(&beat, 1);
        }
    }
    finished();
}

/* Of no channel, or none that exists: nothing but the deadline ends it. */
static void select_nothing(void *number)
{
    struct random r = seeded((uintptr_t)number + 2000);
    golibx_case none[3] = {{NULL, GOLIBX_SEND, 0, NULL}, {NULL, GOLIBX_RECV, 0, NULL}, {NULL, GOLIBX_RECV, 0, NULL}};
    for (int i = 0; i < 200; i++)
        EQUAL(golibx_select(none, below(&r, 4), golibx_nanotime() + (int64_t)below(&r, 20) * US), GOLIBX_TIMEOUT);
    finished();
}

static void select_storm(void)
{
    do {
        for (size_t i = 0; i < select_channels; i++)
            CHECK((select_chan[i] = golibx_chan_new(8, i % 3 == 0 ? 0 : i)) != NULL);
        atomic_store(&select_sent, 0), atomic_store(&select_received, 0), atomic_store(&select_count, 0);
        OK(golibx_wg_add(&select_senders, select_goroutines));
        for (size_t i = 0; i < select_goroutines; i++) {
            start_number(select_send, i);
            start_number(select_receive, i);
            if (i % 4 == 0)
                start_number(select_nothing, i);
        }
        for (size_t i = 0; i < select_channels; i++) /* so that each channel has a receiver */
            start_number(select_receive, 100 + i);
        OK(golibx_wg_wait(&select_senders, GOLIBX_FOREVER));
        for (size_t i = 0; i < select_channels; i++)
            OK(golibx_chan_close(select_chan[i]));
        wait_for_all();
        EQUAL(atomic_load(&select_count), select_goroutines * select_values);
        CHECK(atomic_load(&select_sent) == atomic_load(&select_received));
        for (size_t i = 0; i < select_channels; i++)
            golibx_chan_free(select_chan[i]);
    } while (!time_is_up());
}

/* ---- cond: a bounded buffer, shared with threads that are no goroutines ---- */

enum { cond_room = 5, cond_each = 600, cond_pairs = 12, cond_threads = 2 };
static golibx_mutex cond_lock;
static golibx_cond cond_filled, cond_emptied;
static uint64_t cond_buffer[cond_room], cond_in, cond_out, cond_put, cond_got;

static void cond_produce(void *number)
{
    struct random r = seeded((uintptr_t)number);
    for (int i = 0; i < cond_each; i++) {
        uint64_t value = next(&r) >> 16;
        golibx_mutex_lock(&cond_lock);
        while (cond_in - cond_out == cond_room)
            golibx_cond_wait(&cond_emptied, &cond_lock,
                             below(&r, 3) ? GOLIBX_FOREVER : golibx_nanotime() + 50 * US);
        cond_buffer[cond_in++ % cond_room] = value;
        cond_put += value;
        if (below(&r, 8) == 0)
            golibx_cond_broadcast(&cond_filled);
        else
            golibx_cond_signal(&cond_filled);
        OK(golibx_mutex_unlock(&cond_lock));
    }
}

static void cond_consume(void *number)
{
    struct random r = seeded((uintptr_t)number + 1000);
    for (int i = 0; i < cond_each; i++) {
        if (below(&r, 16) == 0 && golibx_mutex_trylock(&cond_lock) == GOLIBX_OK)
            OK(golibx_mutex_unlock(&cond_lock));
        golibx_mutex_lock(&cond_lock);
        while (cond_in == cond_out)
            golibx_cond_wait(&cond_filled, &cond_lock,
                             below(&r, 3) ? GOLIBX_FOREVER : golibx_nanotime() + 50 * US);
        cond_got += cond_buffer[cond_out++ % cond_room];
        golibx_cond_signal(&cond_emptied);
        OK(golibx_mutex_unlock(&cond_lock));
        if (i % 64 == 0)
            atomic_fetch_add(&beat, 1);
    }
}

static void cond_producer(void *number) { cond_produce(number), finished(); }
static void cond_consumer(void *number) { cond_consume(number), finished(); }
static void *cond_producer_thread(void *number) { return cond_produce(number), NULL; }
static void *cond_consumer_thread(void *number) { return cond_consume(number), NULL; }

static void cond(void)
{
    do {
        pthread_t threads[2 * cond_threads];
        cond_put = cond_got = 0;
        for (size_t i = 0; i < cond_threads; i++) {
            CHECK(pthread_create(&threads[2 * i], NULL, cond_producer_thread, (void *)(i + 100)) == 0);
            CHECK(pthread_create(&threads[2 * i + 1], NULL, cond_consumer_thread, (void *)(i + 100)) == 0);
        }
        for (size_t i = 0; i < cond_pairs; i++) {
            start_number(cond_producer, i);
            start_number(cond_consumer, i);
        }
        wait_for_all();
        golibx_entersyscall();
        for (size_t i = 0; i < COUNT(threads); i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        golibx_exitsyscall();
        EQUAL(cond_in, cond_out);
        CHECK(cond_put == cond_got);
        cond_in = cond_out = 0;
    } while (!time_is_up());
}

/* ---- steal: one processor makes all the work ---- */

enum { steal_most = 3000 };
static atomic_uchar steal_done[steal_most];

static void steal_work(void *number)
{
    uint64_t x = (uintptr_t)number;
    for (uint64_t i = 0; i < x % 200; i++)
        x = mix(x);
    if (x == 1)
        fail("cannot be");
    atomic_fetch_add(&steal_done[(uintptr_t)number], 1);
    finished();
}

static void steal(void)
{
    struct random r = seeded(0);
    do {
        size_t n = 1 + below(&r, below(&r, 3) ? 40 : steal_most);
        for (size_t i = 0; i < n; i++)
            start_number(steal_work, i);
        if (below(&r, 2))
            golibx_sleep((int64_t)below(&r, 200) * US);
        wait_for_all();
        for (size_t i = 0; i < n; i++)
            EQUAL(atomic_exchange(&steal_done[i], 0), 1);
    } while (!time_is_up());
}

/* ---- syscall: processors that are taken away and come back ---- */

enum { syscall_goroutines = 48, syscall_rounds = 150 };
static atomic_ulong syscall_count;

static void syscall_worker(void *number)
{
    struct random r = seeded((uintptr_t)number);
    int fds[2];
    CHECK(pipe(fds) == 0);
    for (int i = 0; i < syscall_rounds; i++) {
        char out = (char)i, in = 0;
        switch (below(&r, 6)) {
        case 0:
            golibx_entersyscall();
            usleep((useconds_t)below(&r, 300));
            golibx_exitsyscall();
            break;
        case 1:
            golibx_entersyscall();
            CHECK(write(fds[1], &out, 1) == 1 && read(fds[0], &in, 1) == 1);
            golibx_exitsyscall();
            CHECK(in == out);
            break;
        case 2:
            golibx_entersyscall();
            golibx_exitsyscall();
            golibx_entersyscall();
            sched_yield();
            golibx_exitsyscall();
            break;
        case 3:
            golibx_entersyscall();
            for (int k = 0; k < 20; k++)
                CHECK(syscall(SYS_getpid) > 0);
            golibx_exitsyscall();
            break;
        case 4: golibx_gosched(); break;
        default: {
            struct result result;
            uint64_t kind = below(&r, 60) + 1;
            cpu_compute(&result, kind);
            CHECK(same(&result, &cpu_wanted[kind]));
        }
        }
        atomic_fetch_add(&syscall_count, 1);
        atomic_fetch_add(&beat, 1);
    }
    close(fds[0]), close(fds[1]);
    finished();
}

static void syscalls(void)
{
    for (size_t i = 0; i < cpu_kinds; i++)
        cpu_compute(&cpu_wanted[i], i);
    do {
        atomic_store(&syscall_count, 0);
        for (size_t i = 0; i < syscall_goroutines; i++)
            start_number(syscall_worker, i);
        wait_for_all();
        EQUAL(atomic_load(&syscall_count), syscall_goroutines * syscall_rounds);
    } while (!time_is_up());
}

/* ---- timer: sleepers, and timers that are moved and stopped while they fire ---- */

enum { timer_sleepers = 400, timer_timers = 24, timer_movers = 3 };
static struct timed {
    golibx_timer *timer;
    atomic_long armed, cancelled, fired;
} timed[timer_timers];

static void timer_fired(void *raw)
{
    struct timed *t = raw;
    atomic_fetch_add(&t->fired, 1);
}

static void timer_sleeper(void *number)
{
    struct random r = seeded((uintptr_t)number);
    for (int i = 0; i < 5; i++) {
        int64_t ns = (int64_t)below(&r, 3000) * US, began = golibx_nanotime();
        golibx_sleep(ns);
        CHECK(golibx_nanotime() - began >= ns);
    }
    finished();
}

static void timer_mover(void *number)
{
    struct random r = seeded((uintptr_t)number + 5000);
    struct timed *t = &timed[(uintptr_t)number % timer_timers];
    for (int i = 0; i < 60; i++) {
        if (below(&r, 3)) {
            atomic_fetch_add(&t->armed, 1);
            int pending = golibx_timer_reset(t->timer, golibx_nanotime() + (int64_t)below(&r, 200) * US);
            CHECK(pending == 0 || pending == 1);
            atomic_fetch_add(&t->cancelled, pending);
        } else {
            int pending = golibx_timer_stop(t->timer);
            CHECK(pending == 0 || pending == 1);
            atomic_fetch_add(&t->cancelled, pending);
        }
        if (below(&r, 2))
            golibx_sleep((int64_t)below(&r, 150) * US);
    }
    finished();
}

static void *timer_thread(void *number)
{
    OK(golibx_wg_add(&running, 1));
    timer_mover(number);
    return NULL;
}

static void timer(void)
{
    do {
        for (size_t i = 0; i < timer_timers; i++) {
            atomic_store(&timed[i].armed, 0), atomic_store(&timed[i].cancelled, 0);
            atomic_store(&timed[i].fired, 0);
            CHECK((timed[i].timer = golibx_timer_new(timer_fired, &timed[i])) != NULL);
        }
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, timer_thread, NULL) == 0);
        for (size_t i = 0; i < timer_timers * timer_movers; i++)
            start_number(timer_mover, i);
        for (size_t i = 0; i < timer_sleepers; i++)
            start_number(timer_sleeper, i);
        wait_for_all();
        golibx_entersyscall();
        CHECK(pthread_join(thread, NULL) == 0);
        golibx_exitsyscall();
        /* Each time that one was set, it has fired, or was stopped or moved before. */
        for (size_t i = 0; i < timer_timers; i++) {
            struct timed *t = &timed[i];
            while (atomic_load(&t->fired) < atomic_load(&t->armed) - atomic_load(&t->cancelled))
                golibx_sleep(100 * US);
            golibx_timer_free(t->timer);
            EQUAL(atomic_load(&t->fired), atomic_load(&t->armed) - atomic_load(&t->cancelled));
        }
    } while (!time_is_up());
}

/* ---- create: goroutines that begin and end, some with a thread of their own ---- */

static atomic_ulong create_count;

static void create_node(void *raw)
{
    uintptr_t depth = (uintptr_t)raw & 0xff, seed = (uintptr_t)raw >> 8;
    uint64_t chance = mix(seed ^ options.seed);
    int locked = chance % 64 == 0;
    if (locked)
        OK(golibx_lock_os_thread());
    pthread_t thread = pthread_self();
    if (depth > 0) {
        start_number(create_node, (seed * 2 + 1) << 8 | (depth - 1));
        start_number(create_node, (seed * 2 + 2) << 8 | (depth - 1));
    }
    if (chance % 8 == 1)
        golibx_gosched();
    if (locked) {
        golibx_gosched();
        if (chance & 256)
            golibx_sleep(20 * US);
        if (chance & 2048) {
            golibx_entersyscall();
            sched_yield();
            golibx_exitsyscall();
        }
        CHECK(pthread_equal(thread, pthread_self()));
        if (chance & 512)
            OK(golibx_unlock_os_thread()); /* else the thread ends with it */
    }
    atomic_fetch_add(&create_count, 1);
    finished();
}

static void *create_thread(void *raw)
{
    for (size_t i = 0; i < 500; i++)
        start_number(create_node, ((uintptr_t)raw + i) << 8);
    return NULL;
}

static void create(void)
{
    struct random r = seeded(0);
    do {
        atomic_store(&create_count, 0);
        size_t depth = below(&r, 12);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, create_thread, (void *)(uintptr_t)below(&r, 1000)) == 0);
        start_number(create_node, below(&r, 1000) << 8 | depth);
        golibx_entersyscall();
        CHECK(pthread_join(thread, NULL) == 0);
        golibx_exitsyscall();
        wait_for_all();
        EQUAL(atomic_load(&create_count), 500 + ((size_t)2 << depth) - 1);
    } while (!time_is_up());
}

/* ---- park: the pair that other primitives are built from ---- */

enum { park_pairs = 24, park_turns = 400 };
static struct pair {
    _Atomic(golibx_g) side[2];
    atomic_int turn;
} pairs[park_pairs];
static atomic_ulong park_count;

static void park_side(void *raw)
{
    struct pair *p = &pairs[(uintptr_t)raw / 2];
    int me = (int)((uintptr_t)raw % 2);
    struct random r = seeded((uintptr_t)raw);
    atomic_store(&p->side[me], golibx_self());
    while (atomic_load(&p->side[1 - me]) == NULL)
        golibx_gosched();
    golibx_g other = atomic_load(&p->side[1 - me]);
    for (int i = 0; i < park_turns; i++) {
        while (atomic_load(&p->turn) != 2 * i + me) {
            int64_t wait = GOLIBX_FOREVER;
            switch (below(&r, 4)) {
            case 0: wait = golibx_nanotime() + (int64_t)below(&r, 30) * US; break;
            case 1: wait = below(&r, 8) ? GOLIBX_FOREVER : 0; break;
            }
            int code = golibx_park(wait);
            CHECK(code == GOLIBX_OK || (wait == 0 ? code == GOLIBX_WOULD_BLOCK
                                                  : wait != GOLIBX_FOREVER && code == GOLIBX_TIMEOUT));
        }
        atomic_store(&p->turn, 2 * i + me + 1);
        atomic_fetch_add(&park_count, 1);
        atomic_fetch_add(&beat, 1);
        /* The other one may end after its last turn: a wake-up for it must come before that. */
        if (i < park_turns - 1 || me == 0)
            golibx_ready(other);
    }
    if (me == 0) /* side 1 takes its last turn after ours, and needs us no more */
        while (atomic_load(&p->turn) != 2 * park_turns)
            golibx_gosched();
    finished();
}

static void park(void)
{
    do {
        atomic_store(&park_count, 0);
        for (size_t i = 0; i < park_pairs; i++) {
            atomic_store(&pairs[i].side[0], NULL), atomic_store(&pairs[i].side[1], NULL);
            atomic_store(&pairs[i].turn, 0);
        }
        for (size_t i = 0; i < 2 * park_pairs; i++)
            start_number(park_side, i);
        wait_for_all();
        EQUAL(atomic_load(&park_count), 2 * park_pairs * park_turns);
    } while (!time_is_up());
}

/* ---- klt: preempted where a thread cannot be left ---- */

static __thread volatile int klt_own;

static int compare(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, 4), memcpy(&y, b, 4);
    return x < y ? -1 : x > y;
}

/* Never in registered text's reach for long: the C library does the work. */
static void klt_worker(void *number)
{
    struct random r = seeded((uintptr_t)number);
    for (int round = 0; round < 4; round++) {
        size_t n = 200 + below(&r, 4000);
        uint32_t *values = malloc(n * 4), *copy = malloc(n * 4);
        CHECK(values != NULL && copy != NULL);
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += values[i] = (uint32_t)next(&r);
        for (int i = 0; i < 20; i++)
            memcpy(copy, values, n * 4);
        CHECK(memcmp(copy, values, n * 4) == 0);
        qsort(copy, n, 4, compare);
        for (size_t i = 0; i < n; i++) {
            sum -= copy[i];
            CHECK(i == 0 || copy[i - 1] <= copy[i]);
        }
        CHECK(sum == 0);
        free(values);
        free(copy);
        void *blocks[64] = {0};
        for (int i = 0; i < 2000; i++) {
            size_t at = below(&r, COUNT(blocks));
            if (blocks[at] != NULL)
                CHECK(*(size_t *)blocks[at] == at);
            free(blocks[at]);
            CHECK((blocks[at] = malloc(8 + below(&r, 3000))) != NULL);
            *(size_t *)blocks[at] = at;
        }
        for (size_t i = 0; i < COUNT(blocks); i++)
            free(blocks[i]);
        char text[64], wanted[64];
        double x = (double)(int)next(&r) / 1024;
        snprintf(wanted, sizeof wanted, "%.10f %d", x, round);
        for (int i = 0; i < 200; i++) {
            snprintf(text, sizeof text, "%.10f %d", x, round);
            CHECK(strcmp(text, wanted) == 0);
            CHECK(strtod(text, NULL) == x);
        }
        atomic_fetch_add(&beat, 1);
    }
    finished();
}

/* With nothing registered, code may keep what is the thread's as long as it makes no call. */
__attribute__((noinline)) static void klt_keep_thread(void)
{
    volatile int *own = &klt_own;
    __asm__ volatile("" : "+r"(own)); /* the address, not the thread-local, from here on */
    for (int i = 0; i < 300000; i++)
        *own = i;
    int last = *own;
    volatile int *again = &klt_own;
    __asm__ volatile("" : "+r"(again));
    EQUAL(last, 299999);
    if (own != again)
        fail("the thread has changed in text that is not registered");
}

static void klt_keeper(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++)
        klt_keep_thread();
    finished();
}

static void klt(void)
{
    for (size_t round = 0;; round++) {
        for (size_t i = 0; i < 12; i++)
            start_number(klt_worker, round * 16 + i);
        if (options.no_register)
            for (size_t i = 0; i < 6; i++)
                start(klt_keeper, NULL);
        wait_for_all();
        if (time_is_up())
            return;
    }
}

/* ---- net: echoes over loopback, with deadlines and closes ---- */

enum { net_clients = 24, net_messages = 40, net_size = 96 };
static golibx_fd *net_listener;
static atomic_ulong net_echoed, net_served;

static ptrdiff_t read_all(golibx_fd *d, char *to, ptrdiff_t size, int64_t deadline)
{
    for (ptrdiff_t have = 0; have < size;) {
        ptrdiff_t n = golibx_read(d, to + have, (size_t)(size - have), deadline);
        if (n <= 0)
            return n;
        have += n;
    }
    return size;
}

static void net_serve(void *raw)
{
    golibx_fd *d = raw;
    char message[net_size];
    for (;;) {
        int64_t wait = golibx_nanotime() + 5 * SECOND;
        ptrdiff_t n = golibx_read(d, message, sizeof message, wait);
        if (n <= 0 || golibx_write(d, message, (size_t)n, wait) != n)
            break;
    }
    OK(golibx_fd_close(d, 1));
    atomic_fetch_add(&net_served, 1);
    finished();
}

static void net_accept(void *unused)
{
    (void)unused;
    for (;;) {
        golibx_fd *d = golibx_tcp_accept(net_listener, GOLIBX_FOREVER);
        if (d == NULL)
            break;
        start(net_serve, d);
    }
    finished();
}

struct cut {
    golibx_fd *d;
    int64_t after;
    golibx_waitgroup done;
};

static void net_closer(void *raw)
{
    struct cut *c = raw;
    golibx_sleep(c->after);
    OK(golibx_fd_close(c->d, 1));
    OK(golibx_wg_done(&c->done));
    finished();
}

static void net_client(void *number)
{
    struct random r = seeded((uintptr_t)number);
    golibx_fd *d = golibx_tcp_dial("127.0.0.1", (uint16_t)golibx_tcp_port(net_listener),
                                   golibx_nanotime() + 20 * SECOND);
    CHECK(d != NULL);
    char out[net_size], in[net_size];
    for (int i = 0; i < net_messages; i++) {
        ptrdiff_t size = (ptrdiff_t)(1 + below(&r, net_size));
        memset(out, (int)next(&r), (size_t)size);
        memcpy(out, &number, (size_t)(size < 8 ? size : 8));
        if (below(&r, 4) == 0) { /* nothing was written yet */
            ptrdiff_t n = golibx_read(d, in, sizeof in, golibx_nanotime() + (int64_t)below(&r, 60) * US);
            EQUAL(n, GOLIBX_TIMEOUT);
        }
        EQUAL(golibx_write(d, out, (size_t)size, golibx_nanotime() + 20 * SECOND), size);
        EQUAL(read_all(d, in, size, golibx_nanotime() + 20 * SECOND), size);
        CHECK(memcmp(in, out, (size_t)size) == 0);
        atomic_fetch_add(&net_echoed, 1);
        atomic_fetch_add(&beat, 1);
    }
    if (below(&r, 2)) { /* closed by another while this one reads */
        struct cut cut = {.d = d, .after = (int64_t)below(&r, 300) * US};
        OK(golibx_wg_add(&cut.done, 1));
        start(net_closer, &cut);
        EQUAL(golibx_read(d, in, sizeof in, golibx_nanotime() + 20 * SECOND), GOLIBX_CLOSED);
        OK(golibx_wg_wait(&cut.done, GOLIBX_FOREVER));
    } else {
        OK(golibx_fd_close(d, 1));
    }
    finished();
}

static void net(void)
{
    size_t round = 0;
    do {
        CHECK((net_listener = golibx_tcp_listen("127.0.0.1", 0, 128)) != NULL);
        atomic_store(&net_served, 0), atomic_store(&net_echoed, 0);
        start(net_accept, NULL);
        for (size_t i = 0; i < net_clients; i++)
            start_number(net_client, round * 1000 + i + 1);
        while (atomic_load(&net_served) < net_clients)
            golibx_sleep(200 * US);
        OK(golibx_fd_close(net_listener, 1));
        wait_for_all();
        EQUAL(atomic_load(&net_echoed), net_clients * net_messages);
        round++;
    } while (!time_is_up());
}

/* ---- close: handles in use while others close them, and their numbers are used again ---- */

enum { close_slots = 6, close_users = 12, close_closers = 3, close_times = 60, close_memory = 4 };

/* What a handle was given for. It outlives the handle: code that has it goes on using that, however
 * stale. Everything that is written to a socket or to its peer is its tag. */
struct file {
    golibx_fd *d;
    uint64_t tag;
    int number, peer, port; /* port: of a listener, else 0 */
    atomic_int closed;      /* after a close has returned */
    struct file *before;
};

static _Atomic(struct file *) close_slot[close_slots];
static _Atomic(struct file *) close_files;
static atomic_ulong close_tag, close_done;
static atomic_int close_stop;
static golibx_waitgroup close_closing;

static struct file *close_open(struct random *r, size_t slot)
{
    struct file *f = calloc(1, sizeof *f);
    CHECK(f != NULL);
    f->tag = atomic_fetch_add(&close_tag, 1) + 1;
    if (slot == 0) {
        CHECK((f->d = golibx_tcp_listen("127.0.0.1", 0, 16)) != NULL);
        CHECK((f->port = golibx_tcp_port(f->d)) > 0);
        CHECK((f->number = golibx_fd_number(f->d)) >= 0);
    } else {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        for (int i = 0; i < 2; i++)
            CHECK(fcntl(pair[i], F_SETFL, O_NONBLOCK) == 0);
        f->number = pair[0], f->peer = pair[1];
        for (uint64_t n = below(r, 6); n > 0; n--)
            CHECK(write(f->peer, &f->tag, sizeof f->tag) == sizeof f->tag);
        CHECK((f->d = golibx_fd_open(f->number)) != NULL);
    }
    struct file *before = atomic_load(&close_files);
    do
        f->before = before;
    while (!atomic_compare_exchange_weak(&close_files, &before, f));
    return f;
}

/* One of those that try. Once it is closed, no call uses the file: what was written is there, and
 * then the end of the stream. */
static void close_close(struct random *r, struct file *f)
{
    int close_file = f->port != 0 || below(r, 2);
    int code = golibx_fd_close(f->d, close_file);
    if (code == GOLIBX_CLOSED)
        return;
    OK(code);
    atomic_store(&f->closed, 1);
    atomic_fetch_add(&close_done, 1);
    if (!close_file)
        CHECK(close(f->number) == 0);
    if (f->port != 0)
        return;
    uint64_t word;
    ssize_t n;
    for (;;) {
        n = read(f->peer, &word, sizeof word);
        if (n < 0 && golibx_errno() == EAGAIN) {
            /* A process that forks has the file a moment longer: ThreadSanitizer does, to name a
             * function. */
            struct pollfd end = {.fd = f->peer, .events = POLLIN};
            golibx_entersyscall();
            int seen = poll(&end, 1, 20000);
            golibx_exitsyscall();
            CHECK(seen != 0);
            continue;
        }
        if (n <= 0)
            break;
        EQUAL(n, sizeof word);
        EQUAL(word, f->tag);
    }
    if (n < 0) /* something was left that was not read */
        EQUAL(golibx_errno(), ECONNRESET);
    CHECK(close(f->peer) == 0);
}

/* `is` is what a call has returned that began when the file was `late`, closed already, or not. */
static void close_expect(int late, ptrdiff_t is, ptrdiff_t wanted)
{
    if (late)
        EQUAL(is, GOLIBX_CLOSED);
    else if (is != GOLIBX_CLOSED && is != GOLIBX_TIMEOUT && is != GOLIBX_WOULD_BLOCK &&
             is != GOLIBX_INVALID)
        EQUAL(is, wanted);
}

static void close_accept(struct file *f, int late, int64_t until)
{
    golibx_fd *d = golibx_tcp_accept(f->d, until);
    if (d == NULL) {
        int why = golibx_errno();
        if (late || (why != ETIMEDOUT && why != EBUSY && why != EAGAIN))
            EQUAL(why, EBADF);
        return;
    }
    CHECK(!late);
    EQUAL(golibx_tcp_port(d), f->port);
    OK(golibx_fd_close(d, 1));
}

static void close_dial(struct file *f)
{
    golibx_fd *d = golibx_tcp_dial("127.0.0.1", (uint16_t)f->port, golibx_nanotime() + 5 * MS);
    if (d != NULL)
        OK(golibx_fd_close(d, 1));
}

static void close_use_one(struct random *r, struct file *f)
{
    int64_t untils[] = {0, golibx_nanotime() + (int64_t)below(r, 300) * US, GOLIBX_FOREVER};
    int64_t until = untils[below(r, 3)];
    int late = atomic_load(&f->closed);
    uint64_t word = 0;
    switch (below(r, 6)) {
    case 0:
        return close_expect(late, golibx_fd_number(f->d), f->number);
    case 1:
        if (f->port != 0)
            return close_expect(late, golibx_tcp_port(f->d), f->port);
        return close_expect(late, golibx_fd_wait(f->d, GOLIBX_WRITE, until), GOLIBX_OK);
    case 2:
        if (f->port == 0)
            return close_expect(late, golibx_fd_wait(f->d, GOLIBX_READ, until), GOLIBX_OK);
        if (below(r, 4) == 0)
            close_dial(f);
        return;
    case 3:
        if (f->port == 0)
            return close_expect(late, golibx_write(f->d, &f->tag, sizeof word, until), sizeof word);
        return close_accept(f, late, until);
    default:
        if (f->port != 0)
            return close_accept(f, late, until);
        ptrdiff_t n = golibx_read(f->d, &word, sizeof word, until);
        close_expect(late, n, sizeof word);
        if (n > 0)
            EQUAL(word, f->tag);
    }
}

static void close_use(size_t number)
{
    struct random r = seeded(number);
    struct file *known[close_memory] = {NULL};
    while (!atomic_load(&close_stop)) {
        struct file **f = &known[below(&r, close_memory)];
        if (*f == NULL || below(&r, 4) == 0)
            *f = atomic_load(&close_slot[below(&r, close_slots)]);
        close_use_one(&r, *f);
        if (below(&r, 32) == 0)
            close_close(&r, *f);
        atomic_fetch_add_explicit(&beat, 1, memory_order_relaxed);
        golibx_gosched();
    }
}

static void close_user(void *number) { close_use((uintptr_t)number), finished(); }
static void *close_thread(void *number) { return close_use((uintptr_t)number), NULL; }

static void close_closer(void *number)
{
    struct random r = seeded((uintptr_t)number + 1000000);
    for (int i = 0; i < close_times; i++) {
        size_t slot = below(&r, close_slots);
        close_close(&r, atomic_exchange(&close_slot[slot], close_open(&r, slot)));
        if (below(&r, 2))
            golibx_sleep((int64_t)below(&r, 200) * US);
    }
    OK(golibx_wg_done(&close_closing));
    finished();
}

static void close_storm(void)
{
    size_t round = 0;
    do {
        struct random r = seeded(round + 2000000);
        atomic_store(&close_stop, 0), atomic_store(&close_done, 0);
        for (size_t i = 0; i < close_slots; i++)
            atomic_store(&close_slot[i], close_open(&r, i));
        OK(golibx_wg_add(&close_closing, close_closers));
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, close_thread, (void *)(round * 100 + 99)) == 0);
        for (size_t i = 0; i < close_users; i++)
            start_number(close_user, round * 100 + i);
        for (size_t i = 0; i < close_closers; i++)
            start_number(close_closer, round * 100 + i);
        OK(golibx_wg_wait(&close_closing, GOLIBX_FOREVER));
        atomic_store(&close_stop, 1);
        for (size_t i = 0; i < close_slots; i++)
            close_close(&r, atomic_load(&close_slot[i]));
        wait_for_all();
        golibx_entersyscall();
        CHECK(pthread_join(thread, NULL) == 0);
        golibx_exitsyscall();
        /* Each was closed once, by one of those that tried. */
        size_t files = 0;
        for (struct file *f = atomic_exchange(&close_files, NULL); f != NULL; files++) {
            struct file *before = f->before;
            CHECK(atomic_load(&f->closed));
            free(f);
            f = before;
        }
        EQUAL(atomic_load(&close_done), files);
        round++;
    } while (!time_is_up());
}

/* ---- procs: GOMAXPROCS changes while everything runs ---- */

static atomic_int procs_stop;
static golibx_chan *procs_ring[6];

static void procs_pass(void *number)
{
    size_t at = (uintptr_t)number;
    uint64_t value;
    while (golibx_chan_recv(procs_ring[at], &value) == GOLIBX_OK) {
        value++;
        if (golibx_chan_send(procs_ring[(at + 1) % COUNT(procs_ring)], &value) != GOLIBX_OK)
            break;
        atomic_fetch_add(&beat, 1);
    }
    finished();
}

static void procs_sleep(void *number)
{
    struct random r = seeded((uintptr_t)number);
    while (!atomic_load(&procs_stop))
        golibx_sleep((int64_t)below(&r, 400) * US);
    finished();
}

static void procs_call(void *number)
{
    struct random r = seeded((uintptr_t)number);
    while (!atomic_load(&procs_stop)) {
        golibx_entersyscall();
        usleep((useconds_t)below(&r, 100));
        golibx_exitsyscall();
    }
    finished();
}

static void procs_compute(void *number)
{
    for (uint64_t i = (uintptr_t)number; !atomic_load(&procs_stop); i++) {
        struct result result;
        uint64_t kind = i % cpu_kinds;
        cpu_compute(&result, kind);
        CHECK(same(&result, &cpu_wanted[kind]));
        if (i % 16 == 0)
            golibx_gosched();
    }
    finished();
}

static void procs_empty(void *unused)
{
    (void)unused;
    finished();
}

static void procs_spawn(void *unused)
{
    (void)unused;
    while (!atomic_load(&procs_stop)) {
        for (int i = 0; i < 20; i++)
            start(procs_empty, NULL);
        golibx_sleep(50 * US);
    }
    finished();
}

static void procs(void)
{
    struct random r = seeded(0);
    int before = golibx_gomaxprocs(0);
    for (size_t i = 0; i < cpu_kinds; i++)
        cpu_compute(&cpu_wanted[i], i);
    for (size_t round = 0;; round++) {
        /* Without and with something that always runs: an idle processor is left in another way. */
        int busy = round % 2 == 1;
        atomic_store(&procs_stop, 0);
        for (size_t i = 0; i < COUNT(procs_ring); i++)
            CHECK((procs_ring[i] = golibx_chan_new(8, i % 2)) != NULL);
        for (size_t i = 0; i < COUNT(procs_ring); i++)
            start_number(procs_pass, i);
        for (size_t i = 0; i < 4; i++) {
            start_number(procs_sleep, i);
            start_number(procs_call, i);
            if (busy)
                start_number(procs_compute, i);
        }
        start(procs_spawn, NULL);
        for (uint64_t i = 0; i < 3; i++)
            OK(golibx_chan_send(procs_ring[i], &i));
        for (int i = 0; i < 200; i++) {
            int n = 1 + (int)below(&r, 8);
            CHECK(golibx_gomaxprocs(n) > 0);
            EQUAL(golibx_gomaxprocs(0), n);
            if (below(&r, 3))
                golibx_sleep((int64_t)below(&r, 500) * US);
            if (time_is_up() && i > 20)
                break;
        }
        atomic_store(&procs_stop, 1);
        for (size_t i = 0; i < COUNT(procs_ring); i++)
            golibx_chan_close(procs_ring[i]);
        wait_for_all();
        for (size_t i = 0; i < COUNT(procs_ring); i++)
            golibx_chan_free(procs_ring[i]);
        CHECK(golibx_gomaxprocs(before) > 0);
        if (time_is_up())
            return;
    }
}

/* ---- the program ---- */

static const struct scenario {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"cpu", cpu},     {"select", select_storm}, {"cond", cond},     {"steal", steal},
    {"syscall", syscalls}, {"timer", timer},    {"procs", procs},   {"create", create},
    {"net", net},     {"klt", klt},             {"park", park},     {"close", close_storm},
};

static void (*chosen)(void);

static void run_chosen(void *unused)
{
    (void)unused;
    chosen();
}

_Noreturn static void usage(const char *problem)
{
    fprintf(stderr, "%s\nstress NAME [--procs N] [--slice-us N] [--no-preempt] [--register | --no-register]"
                    " [--seconds N] [--seed N] [--patience N]\nNAME is one of:", problem);
    for (size_t i = 0; i < COUNT(scenarios); i++)
        fprintf(stderr, " %s", scenarios[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

static int64_t number_after(int *at, int argc, char **argv)
{
    char *end = NULL;
    if (*at + 1 >= argc)
        usage("a number is missing");
    int64_t value = strtoll(argv[++*at], &end, 10);
    if (end == argv[*at] || *end != 0 || value < 0)
        usage("this is no number");
    return value;
}

static double seconds_after(int *at, int argc, char **argv)
{
    char *end = NULL;
    if (*at + 1 >= argc)
        usage("a number is missing");
    double value = strtod(argv[++*at], &end);
    if (end == argv[*at] || *end != 0 || !(value >= 0 && value < 1e6))
        usage("these are no seconds");
    return value;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        usage("which one?");
    for (size_t i = 0; i < COUNT(scenarios); i++)
        if (strcmp(argv[1], scenarios[i].name) == 0)
            chosen = scenarios[i].run;
    if (chosen == NULL)
        usage("there is no such storm");
    scenario = argv[1];
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--procs") == 0)
            options.procs = (int)number_after(&i, argc, argv);
        else if (strcmp(argv[i], "--slice-us") == 0)
            options.slice_us = number_after(&i, argc, argv);
        else if (strcmp(argv[i], "--seconds") == 0)
            options.seconds = seconds_after(&i, argc, argv);
        else if (strcmp(argv[i], "--seed") == 0)
            options.seed = (uint64_t)number_after(&i, argc, argv);
        else if (strcmp(argv[i], "--patience") == 0)
            options.patience = number_after(&i, argc, argv);
        else if (strcmp(argv[i], "--no-preempt") == 0)
            options.no_preempt = 1;
        else if (strcmp(argv[i], "--register") == 0)
            options.no_register = 0;
        else if (strcmp(argv[i], "--no-register") == 0)
            options.no_register = 1;
        else
            usage("there is no such option");
    }
    report_faults();
    pthread_t thread;
    if (pthread_create(&thread, NULL, watchdog, NULL) != 0)
        return 1;
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.gomaxprocs = (uint32_t)options.procs;
    config.no_async_preempt = (uint32_t)options.no_preempt;
    config.preempt_slice_ns = (uint64_t)(options.slice_us * US);
    config.seed = options.seed;
    OK(golibx_start(&config));
    if (!options.no_register) {
#ifdef STRESS_STATIC
        OK(golibx_register_text(__start_stress_text, (size_t)(__stop_stress_text - __start_stress_text)));
#else
        OK(golibx_register_module((const void *)(uintptr_t)main));
#endif
    }
    deadline_of_run = golibx_nanotime() + (int64_t)(options.seconds * SECOND);
    OK(golibx_run(NULL, run_chosen, NULL));
    golibx_counters c = {.size = sizeof c};
    OK(golibx_stats(&c));
    OK(golibx_stop(golibx_nanotime() + 20 * SECOND));
    printf("%s: passed; %" PRIu64 " goroutines, %" PRIu64 " switches, %" PRIu64 " steals, %" PRIu64
           " preemptions, %" PRIu64 " with their thread, %" PRIu64 " retakes\n",
           scenario, c.spawns, c.switches, c.steals, c.preempt_yields + c.preempt_klt, c.preempt_klt, c.retakes);
    return 0;
}
