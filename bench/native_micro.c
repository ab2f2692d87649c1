/* The benchmarks on golibx's native lane.  usage: native_micro CASE OPERATIONS
 *
 * Beside gopeer/micro.go, cpu.go and scale.go, whose algorithms, channel sizes and operation counts
 * these are. The number of processors comes from the environment (GOMAXPROCS), as there. Results
 * are printed as lines of "name<TAB>value"; `native_micro version` prints the library's version.
 *
 * What goroutines share lies in static variables: one case is run a process. A channel is freed
 * only after those who used it have reported their end to `tasks`.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "golibx.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static golibx_waitgroup tasks; /* at zero between the passes of a case */

/* ---- results and errors ---- */

static void emit(const char *name, double value) {
    printf("%s\t%.3f\n", name, value);
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("native_micro: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    fflush(NULL);
    _exit(1);
}

static inline void must(int code, const char *call) {
    if (__builtin_expect(code < 0, 0)) fail("%s: %s", call, golibx_strerror(code));
}
#define MUST(call) must((call), #call)

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) fail("no memory for %zu times %zu bytes", count, size);
    return memory;
}

static golibx_chan *channel(size_t elem_size, size_t capacity) {
    golibx_chan *made = golibx_chan_new(elem_size, capacity);
    if (made == NULL) fail("no memory for a channel");
    return made;
}

static void wait_for_tasks(void) {
    MUST(golibx_wg_wait(&tasks, GOLIBX_FOREVER));
}

static double seconds_since(int64_t start) {
    return (double)(golibx_nanotime() - start) / 1e9;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof *values, ascending);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* ---- switching ---- */

static int64_t yields_each;

static void yielder(void *unused) {
    (void)unused;
    for (int64_t left = yields_each; left > 0; left--) golibx_gosched();
    MUST(golibx_wg_done(&tasks));
}

static void yield(int64_t count, int64_t n) {
    yields_each = n / count;
    MUST(golibx_wg_add(&tasks, count));
    for (int64_t i = 0; i < count; i++) MUST(golibx_go(yielder, NULL));
    wait_for_tasks();
}

static void yield2(int64_t n) {
    yield(2, n);
}

static void yield1000(int64_t n) {
    yield(1000, n);
}

static void nothing(void *unused) {
    (void)unused;
    MUST(golibx_wg_done(&tasks));
}

static void spawn(int64_t n) {
    MUST(golibx_wg_add(&tasks, n));
    for (int64_t i = 0; i < n; i++) MUST(golibx_go(nothing, NULL));
    wait_for_tasks();
}

/* ---- channels ---- */

struct court {
    golibx_chan *there, *back;
    int64_t rounds;
};

static struct court new_court(int64_t rounds) {
    return (struct court){channel(sizeof(int64_t), 0), channel(sizeof(int64_t), 0), rounds};
}

static void free_court(struct court *court) {
    golibx_chan_free(court->there);
    golibx_chan_free(court->back);
}

static void opponent(void *argument) {
    struct court court = *(struct court *)argument;
    for (int64_t left = court.rounds; left > 0; left--) {
        int64_t ball;
        MUST(golibx_chan_recv(court.there, &ball));
        MUST(golibx_chan_send(court.back, &ball));
    }
    MUST(golibx_wg_done(&tasks));
}

/* Sends n messages: n/2 there, n/2 back. */
static void pingpong(int64_t n) {
    static struct court court;
    court = new_court(n / 2);
    golibx_chan *there = court.there, *back = court.back;
    MUST(golibx_wg_add(&tasks, 1));
    MUST(golibx_go(opponent, &court));
    for (int64_t i = 0; i < n / 2; i++) {
        MUST(golibx_chan_send(there, &i));
        MUST(golibx_chan_recv(back, NULL));
    }
    wait_for_tasks();
    free_court(&court);
}

struct source {
    golibx_chan *messages;
    int64_t count;
};

static void produce(void *argument) {
    struct source source = *(struct source *)argument;
    for (int64_t i = 0; i < source.count; i++) MUST(golibx_chan_send(source.messages, &i));
    MUST(golibx_wg_done(&tasks));
}

static void produce_and_close(void *argument) {
    golibx_chan *messages = ((struct source *)argument)->messages;
    int64_t count = ((struct source *)argument)->count;
    for (int64_t i = 0; i < count; i++) MUST(golibx_chan_send(messages, &i));
    MUST(golibx_chan_close(messages));
    MUST(golibx_wg_done(&tasks));
}

static void buffered(int64_t n) {
    static struct source source;
    golibx_chan *messages = channel(sizeof(int64_t), 128);
    source = (struct source){messages, n};
    MUST(golibx_wg_add(&tasks, 1));
    MUST(golibx_go(produce_and_close, &source));
    int64_t received = 0, message;
    while (golibx_chan_recv(messages, &message) == GOLIBX_OK) {
        if (message != received++) fail("message %" PRId64 " out of order", message);
    }
    if (received != n) fail("%" PRId64 " messages of %" PRId64 " came", received, n);
    wait_for_tasks();
    golibx_chan_free(messages);
}

static void select4(int64_t n) {
    static struct source sources[4];
    golibx_case cases[4];
    MUST(golibx_wg_add(&tasks, 4));
    for (size_t i = 0; i < 4; i++) {
        sources[i] = (struct source){channel(sizeof(int64_t), 0), n / 4};
        cases[i] = (golibx_case){sources[i].messages, GOLIBX_RECV, 0, NULL};
        MUST(golibx_go(produce, &sources[i]));
    }
    for (int64_t left = n / 4 * 4; left > 0; left--) MUST(golibx_select(cases, 4, GOLIBX_FOREVER));
    wait_for_tasks();
    for (size_t i = 0; i < 4; i++) golibx_chan_free(sources[i].messages);
}

struct filter {
    golibx_chan *in, *out;
    int64_t prime;
};

static void generate(void *argument) {
    golibx_chan *out = argument;
    for (int64_t i = 2;; i++) MUST(golibx_chan_send(out, &i));
}

static void keep_indivisible(void *argument) {
    struct filter filter = *(struct filter *)argument;
    free(argument);
    for (;;) {
        int64_t i;
        MUST(golibx_chan_recv(filter.in, &i));
        if (i % filter.prime != 0) MUST(golibx_chan_send(filter.out, &i));
    }
}

/* Finds the n-th prime with a chain of filters, a goroutine for each prime. They never end. */
static void sieve(int64_t n) {
    int64_t start = golibx_nanotime(), prime = 0;
    golibx_chan *numbers = channel(sizeof(int64_t), 0);
    MUST(golibx_go(generate, numbers));
    for (int64_t i = 0; i < n; i++) {
        MUST(golibx_chan_recv(numbers, &prime));
        struct filter *filter = allocate(1, sizeof *filter);
        *filter = (struct filter){numbers, channel(sizeof(int64_t), 0), prime};
        numbers = filter->out;
        MUST(golibx_go(keep_indivisible, filter));
    }
    emit("ms", seconds_since(start) * 1e3);
    if ((n == 1000 && prime != 7919) || (n == 100 && prime != 541))
        fail("%" PRId64 " is not prime number %" PRId64, prime, n);
}

/* ---- memory ---- */

static golibx_chan *gate;
static atomic_int_fast64_t started;

static void waiter(void *unused) {
    (void)unused;
    atomic_fetch_add(&started, 1);
    if (golibx_chan_recv(gate, NULL) != GOLIBX_CLOSED) fail("the gate let a waiter through");
    MUST(golibx_wg_done(&tasks));
}

static double resident_bytes(void) {
    FILE *statm = fopen("/proc/self/statm", "r");
    long pages;
    if (statm == NULL || fscanf(statm, "%*d %ld", &pages) != 1) fail("cannot read statm");
    fclose(statm);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* Measures n goroutines that all wait to receive from one channel. */
static void parked(int64_t n) {
    double before = resident_bytes();
    int64_t start = golibx_nanotime();
    gate = channel(sizeof(bool), 0);
    MUST(golibx_wg_add(&tasks, n));
    for (int64_t i = 0; i < n; i++) MUST(golibx_go(waiter, NULL));
    while (atomic_load(&started) < n) golibx_gosched();
    double created = seconds_since(start);
    emit("bytes", (resident_bytes() - before) / (double)n);
    emit("create_ns", created * 1e9 / (double)n);
    start = golibx_nanotime();
    MUST(golibx_chan_close(gate));
    wait_for_tasks();
    emit("wake_ns", seconds_since(start) * 1e9 / (double)n);
    golibx_chan_free(gate);
}

/* ---- timers ---- */

enum { NAPS = 2 };

static double *late_ms; /* of each nap */

/* The user and system time of all threads so far, in seconds. */
static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* 1 to 1000 ms, different for each number and the same in Go: splitmix64. */
static int64_t nap_ns(uint64_t number) {
    uint64_t x = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return (int64_t)(1000000 + x % 999000000);
}

static void sleeper(void *argument) {
    double *late = argument;
    uint64_t number = (uint64_t)(late - late_ms);
    for (uint64_t i = 0; i < NAPS; i++) {
        int64_t nap = nap_ns(number + i), start = golibx_nanotime();
        golibx_sleep(nap);
        late[i] = (double)(golibx_nanotime() - start - nap) / 1e6;
    }
    MUST(golibx_wg_done(&tasks));
}

/* Returns the CPU time of a timer in nanoseconds; its goroutine's start and end are part of it. */
static double cpu_of_timers(int64_t n) {
    double before = cpu_seconds();
    MUST(golibx_wg_add(&tasks, n));
    for (int64_t i = 0; i < n; i++) MUST(golibx_go(sleeper, &late_ms[NAPS * i]));
    wait_for_tasks();
    return (cpu_seconds() - before) * 1e9 / (double)(NAPS * n);
}

static void timers(int64_t n) {
    size_t naps = NAPS * (size_t)n;
    late_ms = allocate(naps, sizeof *late_ms);
    emit("cold_cpu_ns", cpu_of_timers(n));
    emit("cpu_ns", cpu_of_timers(n));
    qsort(late_ms, naps, sizeof *late_ms, ascending);
    if (late_ms[0] < 0) fail("a sleep was %.3f ms too short", -late_ms[0]);
    emit("late_p99_ms", late_ms[(naps - 1) * 99 / 100]);
}

/* ---- processors ---- */

enum { ROUNDS = 5 };

static inline uint64_t next(uint64_t x) {
    x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    __asm__ volatile("" : "+r"(x)); /* keeps the compiler from doing some steps at once */
    return x;
}

static void burn(void *loops) {
    uint64_t x = 1;
    for (int64_t left = *(int64_t *)loops; left > 0; left--) x = next(x);
    MUST(golibx_wg_done(&tasks));
}

/* Two goroutines that compute n steps each: one after the other, and both at once. */
static void speedup(int64_t n) {
    double ratio[ROUNDS], serial_ms[ROUNDS], parallel_ms[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = golibx_nanotime();
        for (int i = 0; i < 2; i++) {
            MUST(golibx_wg_add(&tasks, 1));
            MUST(golibx_go(burn, &n));
            wait_for_tasks();
        }
        serial_ms[round] = seconds_since(start) * 1e3;
        start = golibx_nanotime();
        MUST(golibx_wg_add(&tasks, 2));
        for (int i = 0; i < 2; i++) MUST(golibx_go(burn, &n));
        wait_for_tasks();
        parallel_ms[round] = seconds_since(start) * 1e3;
        ratio[round] = serial_ms[round] / parallel_ms[round];
    }
    emit("speedup", median(ratio, ROUNDS));
    emit("serial_ms", median(serial_ms, ROUNDS));
    emit("parallel_ms", median(parallel_ms, ROUNDS));
}

/* ---- fairness ----
 *
 * One hog for each processor and one more, and a goroutine that sleeps 1 ms again and again. The hogs
 * call nothing of golibx, and sit in libc or in text that nobody registered.
 */

enum { KEYS = 2000, BLOCK = 256 * 1024 };

static atomic_bool enough;

static int by_key(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void spin_once(void *space) {
    volatile uint32_t *word = space;
    for (int i = 0; i < 10000; i++) *word += 1;
}

static void sort_once(void *space) {
    uint32_t *keys = space, x = 1;
    for (int i = 0; i < KEYS; i++) keys[i] = x = x * 1664525u + 1013904223u;
    qsort(keys, KEYS, sizeof *keys, by_key);
}

static void copy_once(void *space) {
    memcpy(space, (char *)space + BLOCK, BLOCK);
}

static void allocate_once(void *unused) {
    (void)unused;
    void *blocks[64];
    for (size_t i = 0; i < COUNT(blocks); i++) blocks[i] = malloc(16 + 200 * i);
    for (size_t i = 0; i < COUNT(blocks); i++) free(blocks[i]);
}

static const struct labour {
    const char *name;
    void (*once)(void *space);
} labours[] = {
    {"spin", spin_once}, {"qsort", sort_once}, {"memcpy", copy_once}, {"malloc", allocate_once}};

struct hog {
    const struct labour *labour;
    void *space;
    uint64_t rounds;
};

static void hog(void *argument) {
    struct hog *h = argument;
    while (!atomic_load_explicit(&enough, memory_order_relaxed)) {
        h->labour->once(h->space);
        h->rounds++;
    }
    MUST(golibx_wg_done(&tasks));
}

static void napper(void *worst) {
    while (!atomic_load_explicit(&enough, memory_order_relaxed)) {
        int64_t due = golibx_nanotime() + 1000000;
        golibx_sleep(1000000);
        double late = (double)(golibx_nanotime() - due) / 1e6;
        if (late > *(double *)worst) *(double *)worst = late;
    }
    MUST(golibx_wg_done(&tasks));
}

/* How far the share of one hog is from an equal one at most, in percent of that. */
static double among_hogs(const struct labour *labour, int64_t length_ns, double *late_ms) {
    int count = golibx_gomaxprocs(0) + 1;
    struct hog *hogs = allocate((size_t)count, sizeof *hogs);
    atomic_store(&enough, false);
    MUST(golibx_wg_add(&tasks, count + 1));
    for (int i = 0; i < count; i++) {
        hogs[i].labour = labour;
        hogs[i].space = allocate(2, BLOCK);
        MUST(golibx_go(hog, &hogs[i]));
    }
    MUST(golibx_go(napper, late_ms));
    golibx_sleep(length_ns);
    atomic_store(&enough, true);
    wait_for_tasks();
    double total = 0, worst = 0;
    for (int i = 0; i < count; i++) total += (double)hogs[i].rounds;
    for (int i = 0; i < count; i++) {
        double off = fabs((double)hogs[i].rounds * count / total - 1) * 100;
        if (off > worst) worst = off;
        free(hogs[i].space);
    }
    free(hogs);
    return worst;
}

/* Each labour for n milliseconds, in unregistered text, and spinning in registered text too. */
static void fair(int64_t n) {
    double worst_off = 0, worst_late = 0;
    for (size_t i = 0; i <= COUNT(labours); i++) {
        const struct labour *labour = &labours[i % COUNT(labours)];
        if (i == COUNT(labours)) MUST(golibx_register_module((const void *)fair));
        double late = 0, off = among_hogs(labour, n * 1000000, &late);
        char name[32];
        snprintf(name, sizeof name, "%s%s", labour->name, i == COUNT(labours) ? "_registered" : "");
        char whole[64];
        snprintf(whole, sizeof whole, "off_%s", name);
        emit(whole, off);
        snprintf(whole, sizeof whole, "late_%s", name);
        emit(whole, late);
        worst_off = fmax(worst_off, off);
        worst_late = fmax(worst_late, late);
    }
    emit("off_pct", worst_off);
    emit("late_ms", worst_late);
}

/* ---- preemption ----
 *
 * More goroutines than processors compute spectral norms, each its own, over and over, for a fixed
 * time; they call nothing of golibx meanwhile. What counts is how many rows of products they have
 * done together by its end. With a fixed amount of work instead, processors would run out of it up
 * to a slice apart, and that would look like a cost of preemption.
 */

enum {
    TURNS = 15,            /* of each mode */
    SIZE = 1000,           /* of the matrix */
    ITERATIONS = 10,       /* of the power method, four products each */
    ROWS_A_LOOK = 20,      /* at the clock */
    TASKS_A_PROCESSOR = 4,
    COUNT_OF_THREADS = 64, /* that are told of: more processors are not measured */
};

static struct {
    int64_t end;           /* the time to stop, by now() */
    double expected;       /* the norm */
    atomic_int_fast64_t rows;
    atomic_int places, begun;
    pthread_t threads[COUNT_OF_THREADS];
} contest;

/* The clock of the system itself: golibx_nanotime() would be a call of golibx. */
static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static inline double element(int i, int j) {
    return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1);
}

/* out = A in, or the transpose of A; adds to *rows those that were done before `end`. False if it
 * came meanwhile. */
static bool multiply(const double *in, double *out, bool transposed, int64_t end, int64_t *rows) {
    for (int i = 0; i < SIZE; i++) {
        double sum = 0;
        if (transposed)
            for (int j = 0; j < SIZE; j++) sum += element(j, i) * in[j];
        else
            for (int j = 0; j < SIZE; j++) sum += element(i, j) * in[j];
        out[i] = sum;
        if ((i + 1) % ROWS_A_LOOK == 0) {
            if (now() >= end) return false;
            *rows += ROWS_A_LOOK;
        }
    }
    return true;
}

/* NAN if `end` came first. `space` holds three vectors. */
static double spectral_norm(double *space, int64_t end, int64_t *rows) {
    double *u = space, *v = u + SIZE, *half = v + SIZE;
    for (int i = 0; i < SIZE; i++) u[i] = 1;
    for (int i = 0; i < ITERATIONS; i++) {
        if (!multiply(u, half, false, end, rows) || !multiply(half, v, true, end, rows) ||
            !multiply(v, half, false, end, rows) || !multiply(half, u, true, end, rows))
            return NAN;
    }
    double uv = 0, vv = 0;
    for (int i = 0; i < SIZE; i++) uv += u[i] * v[i], vv += v[i] * v[i];
    return sqrt(uv / vv);
}

static void contestant(void *space) {
    int64_t rows = 0;
    int place = atomic_fetch_add(&contest.places, 1);
    if (place < COUNT_OF_THREADS) contest.threads[place] = pthread_self();
    atomic_fetch_add(&contest.begun, 1);
    for (;;) {
        double norm = spectral_norm(space, contest.end, &rows);
        if (isnan(norm)) break;
        if (norm != contest.expected) fail("norm %.17g, not %.17g", norm, contest.expected);
    }
    atomic_fetch_add(&contest.rows, rows);
    MUST(golibx_wg_done(&tasks));
}

/* A way to be preempted, and what came of it. */
struct mode {
    const char *name;
    uint32_t no_async_preempt;
    uint64_t slice_ns;
    bool signalled;
};
static const struct mode modes[] = {
    {"off", 1, 0, false},
    {"10ms", 0, 10000000, false},
    {"1ms", 0, 1000000, false},
    {"10ms_floor", 1, 10000000, true},
    {"1ms_floor", 1, 1000000, true},
};

static void ignore(int number) {
    (void)number;
}

/* What the system takes for slices, whoever preempts in them: a thread wakes up once a slice and sends
 * each thread that computes a signal, in a program that is not preempted. */
static void *signal_slices(void *slice_ns) {
    struct timespec slice = {0, (long)*(const uint64_t *)slice_ns};
    while (now() < contest.end) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &slice, NULL);
        int count = golibx_gomaxprocs(0);
        if (atomic_load(&contest.begun) != count) continue;
        for (int i = 0; i < count && i < COUNT_OF_THREADS; i++)
            pthread_kill(contest.threads[i], SIGURG);
    }
    return NULL;
}

struct outcome {
    double rate;        /* rows a second */
    double cpu_rate;    /* rows a second of CPU time */
    double preemptions; /* a second */
};

struct order {
    struct mode mode;
    bool registered;
    int64_t duration_ns;
    struct outcome outcome;
};

static uint64_t preemptions(void) {
    golibx_counters counters = {.size = sizeof counters};
    MUST(golibx_stats(&counters));
    return counters.preempt_yields + counters.preempt_klt;
}

static void hold_contest(void *argument) {
    struct order *order = argument;
    int count = TASKS_A_PROCESSOR * golibx_gomaxprocs(0);
    double *space = allocate((size_t)count, 3 * SIZE * sizeof *space);
    int64_t ignored = 0;
    if (order->registered) MUST(golibx_register_module((const void *)hold_contest));
    contest.expected = spectral_norm(space, INT64_MAX, &ignored);
    if (fabs(contest.expected - 1.274224) > 1e-5) fail("a norm of %.9f", contest.expected);

    uint64_t before = preemptions();
    double cpu_before = cpu_seconds();
    int64_t start = now();
    contest.end = start + order->duration_ns;
    MUST(golibx_wg_add(&tasks, count));
    pthread_t signaller;
    uint64_t slice_ns = order->mode.slice_ns;
    if (order->mode.signalled) {
        signal(SIGURG, ignore);
        if (pthread_create(&signaller, NULL, signal_slices, &slice_ns) != 0) fail("no thread");
    }
    for (int i = 0; i < count; i++) MUST(golibx_go(contestant, space + 3 * SIZE * (size_t)i));
    wait_for_tasks();
    if (order->mode.signalled) pthread_join(signaller, NULL);
    double rows = (double)atomic_load(&contest.rows);
    double seconds = (double)order->duration_ns / 1e9;
    order->outcome.rate = rows / seconds;
    order->outcome.cpu_rate = rows / (cpu_seconds() - cpu_before);
    order->outcome.preemptions = (double)(preemptions() - before) / seconds;
    free(space);
}

/* Holds a contest in a process of its own, since a configuration is for a whole runtime. */
static struct outcome contest_apart(struct order order) {
    int ends[2];
    if (pipe(ends) != 0) fail("pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) fail("fork: %s", strerror(errno));
    if (child == 0) {
        golibx_config config = GOLIBX_CONFIG_INIT;
        config.no_async_preempt = order.mode.no_async_preempt;
        config.preempt_slice_ns = order.mode.slice_ns;
        MUST(golibx_run(&config, hold_contest, &order));
        if (write(ends[1], &order.outcome, sizeof order.outcome) != sizeof order.outcome)
            fail("write: %s", strerror(errno));
        _exit(0);
    }
    close(ends[1]);
    int status;
    struct outcome outcome;
    ssize_t size = read(ends[0], &outcome, sizeof outcome);
    close(ends[0]);
    if (waitpid(child, &status, 0) != child) fail("waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status)) fail("preempt %s: signal %d", order.mode.name, WTERMSIG(status));
    if (status != 0 || size != sizeof outcome) fail("preempt %s: no result", order.mode.name);
    return outcome;
}

static void emit_of(const char *name, const struct mode *mode, double value) {
    char whole[32];
    snprintf(whole, sizeof whole, "%s_%s", name, mode->name);
    emit(whole, value);
}

/* Contests of n milliseconds in all modes, by turns. Each is compared with the one without
 * preemption of the same turn. */
static void preempt(int64_t n, bool registered) {
    struct outcome outcomes[COUNT(modes)][TURNS];
    for (size_t turn = 0; turn < TURNS; turn++) {
        for (size_t k = 0; k < COUNT(modes); k++) {
            size_t i = (k + turn) % COUNT(modes);
            struct order order = {modes[i], registered, n * 1000000, {0, 0, 0}};
            outcomes[i][turn] = contest_apart(order);
        }
    }
    for (size_t i = 0; i < COUNT(modes); i++) {
        double krows[TURNS], kept[TURNS], cpu_kept[TURNS], preempts[TURNS];
        for (size_t turn = 0; turn < TURNS; turn++) {
            const struct outcome *with = &outcomes[i][turn], *without = &outcomes[0][turn];
            krows[turn] = with->rate / 1e3;
            kept[turn] = 100 * with->rate / without->rate;
            cpu_kept[turn] = 100 * with->cpu_rate / without->cpu_rate;
            preempts[turn] = with->preemptions;
        }
        emit_of("krows", &modes[i], median(krows, TURNS));
        if (i == 0) continue;
        emit_of("kept", &modes[i], median(kept, TURNS));
        emit_of("cpu_kept", &modes[i], median(cpu_kept, TURNS));
        if (!modes[i].signalled) emit_of("preempts", &modes[i], median(preempts, TURNS));
    }
}

/* ---- many at once ----
 *
 * What scale.py runs: cases in which any number of processors has something to do. Each leaves a sum of
 * what its goroutines did, which has to be the same in Go.
 */

enum {
    SPAWNERS = 64,
    PAIRS = 64,
    ENDS = 32,      /* that send, and as many that receive */
    SELECTORS = 32,
    STEPS = 1000,   /* of a task that is fanned out */
};

static atomic_uint_fast64_t sum;
static atomic_int senders_left;

static void spawner(void *count) {
    for (int64_t left = *(int64_t *)count; left > 0; left--) MUST(golibx_go(nothing, NULL));
    atomic_fetch_add(&sum, (uint64_t) * (int64_t *)count);
    MUST(golibx_wg_done(&tasks));
}

/* n goroutines that do nothing, started by many. */
static void storm(int64_t n) {
    static int64_t each;
    each = n / SPAWNERS;
    MUST(golibx_wg_add(&tasks, SPAWNERS + SPAWNERS * each));
    for (int i = 0; i < SPAWNERS; i++) MUST(golibx_go(spawner, &each));
    wait_for_tasks();
}

static void player(void *argument) {
    struct court court = *(struct court *)argument;
    uint64_t returned = 0;
    for (int64_t i = 0; i < court.rounds; i++) {
        int64_t ball;
        MUST(golibx_chan_send(court.there, &i));
        MUST(golibx_chan_recv(court.back, &ball));
        returned += (uint64_t)ball;
    }
    atomic_fetch_add(&sum, returned);
    MUST(golibx_wg_done(&tasks));
}

/* Sends n messages between the two of many pairs. */
static void pairs(int64_t n) {
    static struct court courts[PAIRS];
    MUST(golibx_wg_add(&tasks, 2 * PAIRS));
    for (int i = 0; i < PAIRS; i++) {
        courts[i] = new_court(n / 2 / PAIRS);
        MUST(golibx_go(opponent, &courts[i]));
        MUST(golibx_go(player, &courts[i]));
    }
    wait_for_tasks();
    for (int i = 0; i < PAIRS; i++) free_court(&courts[i]);
}

static void hot_sender(void *argument) {
    struct source source = *(struct source *)argument;
    for (int64_t i = 0; i < source.count; i++) MUST(golibx_chan_send(source.messages, &i));
    if (atomic_fetch_sub(&senders_left, 1) == 1) MUST(golibx_chan_close(source.messages));
    MUST(golibx_wg_done(&tasks));
}

static void hot_receiver(void *messages) {
    uint64_t received = 0;
    int64_t message;
    while (golibx_chan_recv(messages, &message) == GOLIBX_OK) received += (uint64_t)message;
    atomic_fetch_add(&sum, received);
    MUST(golibx_wg_done(&tasks));
}

/* n messages through one channel, from many to many. */
static void hot(int64_t n) {
    static struct source source;
    source = (struct source){channel(sizeof(int64_t), 128), n / ENDS};
    atomic_store(&senders_left, ENDS);
    MUST(golibx_wg_add(&tasks, 2 * ENDS));
    for (int i = 0; i < ENDS; i++) {
        MUST(golibx_go(hot_sender, &source));
        MUST(golibx_go(hot_receiver, source.messages));
    }
    wait_for_tasks();
    golibx_chan_free(source.messages);
}

static void selector(void *argument) {
    struct source *sources = argument;
    int64_t message;
    uint64_t received = 0;
    golibx_case cases[4];
    for (int i = 0; i < 4; i++)
        cases[i] = (golibx_case){sources[i].messages, GOLIBX_RECV, 0, &message};
    for (int64_t left = 4 * sources[0].count; left > 0; left--) {
        MUST(golibx_select(cases, 4, GOLIBX_FOREVER));
        received += (uint64_t)message;
    }
    atomic_fetch_add(&sum, received);
    MUST(golibx_wg_done(&tasks));
}

/* n messages, each received by a select over four channels; many such selects. */
static void selects(int64_t n) {
    static struct source sources[SELECTORS][4];
    MUST(golibx_wg_add(&tasks, 5 * SELECTORS));
    for (int i = 0; i < SELECTORS; i++) {
        for (int j = 0; j < 4; j++) {
            sources[i][j] = (struct source){channel(sizeof(int64_t), 0), n / SELECTORS / 4};
            MUST(golibx_go(produce, &sources[i][j]));
        }
        MUST(golibx_go(selector, sources[i]));
    }
    wait_for_tasks();
    for (int i = 0; i < 4 * SELECTORS; i++) golibx_chan_free(sources[i / 4][i % 4].messages);
}

static void compute(void *argument) {
    uint64_t x = *(uint64_t *)argument;
    for (int left = STEPS; left > 0; left--) x = next(x);
    *(uint64_t *)argument = x;
    MUST(golibx_wg_done(&tasks));
}

/* One goroutine starts n that compute for a microsecond or two: other processors have to steal them. */
static void fanout(int64_t n) {
    uint64_t *values = allocate((size_t)n, sizeof *values), added = 0;
    MUST(golibx_wg_add(&tasks, n));
    for (int64_t i = 0; i < n; i++) {
        values[i] = (uint64_t)i;
        MUST(golibx_go(compute, &values[i]));
    }
    wait_for_tasks();
    for (int64_t i = 0; i < n; i++) added += values[i] >> 40;
    atomic_fetch_add(&sum, added);
    free(values);
}

static void one_norm(void *space) {
    int64_t ignored = 0;
    double norm = spectral_norm(space, INT64_MAX, &ignored);
    if (fabs(norm - 1.274224) > 1e-5) fail("a norm of %.9f", norm);
    atomic_fetch_add(&sum, (uint64_t)llround(norm * 1e9));
    MUST(golibx_wg_done(&tasks));
}

/* n spectral norms at once. */
static void norms(int64_t n) {
    double *space = allocate((size_t)n, 3 * SIZE * sizeof *space);
    MUST(golibx_wg_add(&tasks, n));
    for (int64_t i = 0; i < n; i++) MUST(golibx_go(one_norm, space + 3 * SIZE * i));
    wait_for_tasks();
    free(space);
}

/* ---- the command line ---- */

/* Those with `once` say themselves how they went. */
static const struct work {
    const char *name;
    void (*repeated)(int64_t n);
    void (*once)(int64_t n);
} works[] = {
    {"yield2", yield2, NULL},     {"yield1000", yield1000, NULL}, {"pingpong", pingpong, NULL},
    {"buffered", buffered, NULL}, {"spawn", spawn, NULL},         {"select4", select4, NULL},
    {"sieve", NULL, sieve},       {"parked", NULL, parked},       {"timers", NULL, timers},
    {"speedup", NULL, speedup},   {"fair", NULL, fair},           {"storm", storm, NULL},
    {"pairs", pairs, NULL},       {"hot", hot, NULL},             {"selects", selects, NULL},
    {"fanout", fanout, NULL},     {"norms", norms, NULL},
};

static const struct work *work;
static int64_t operations;

static double ns_per_operation(void) {
    int64_t start = golibx_nanotime();
    work->repeated(operations);
    return seconds_since(start) * 1e9 / (double)operations;
}

static void measure(void *unused) {
    (void)unused;
    if (work->once != fair) MUST(golibx_register_module((const void *)measure));
    if (work->once != NULL) {
        work->once(operations);
        return;
    }
    if (work->repeated == spawn)
        emit("cold_ns", ns_per_operation());
    else
        work->repeated(operations / 10);
    atomic_store(&sum, 0);
    emit("ns", ns_per_operation());
    if (atomic_load(&sum) != 0) emit("sum", (double)atomic_load(&sum));
}

__attribute__((noreturn)) static void usage(void) {
    fputs("usage: native_micro {preempt,preempt-klt", stderr);
    for (size_t i = 0; i < COUNT(works); i++) fprintf(stderr, ",%s", works[i].name);
    fputs("} OPERATIONS\n", stderr);
    exit(2);
}

int main(int argc, char **argv) {
    if (golibx_abi_version() != GOLIBX_ABI_VERSION)
        fail("golibx.h is version %d, the library %d", GOLIBX_ABI_VERSION, golibx_abi_version());
    if (argc == 2 && strcmp(argv[1], "version") == 0) {
        puts(golibx_version());
        return 0;
    }
    if (argc != 3) usage();
    char *rest;
    operations = strtoll(argv[2], &rest, 10);
    if (operations < 1 || *rest != '\0') usage();
    if (strncmp(argv[1], "preempt", 7) == 0) {
        if (strcmp(argv[1], "preempt") != 0 && strcmp(argv[1], "preempt-klt") != 0) usage();
        preempt(operations, strcmp(argv[1], "preempt") == 0);
        return 0;
    }
    for (size_t i = 0; i < COUNT(works); i++)
        if (strcmp(argv[1], works[i].name) == 0) work = &works[i];
    if (work == NULL) usage();
    MUST(golibx_run(NULL, measure, NULL));
    return 0;
}
