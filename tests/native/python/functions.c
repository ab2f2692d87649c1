/* What tests/test_native.py and test_events.py call from Python. */
#include "golibx.h"

#include <stdint.h>
#include <unistd.h>

/* ---- calls ---- */

int64_t integers8(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g,
                  int64_t h)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}

double doubles8(double a, double b, double c, double d, double e, double f, double g, double h)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}

/* More of either than there are registers. */
double doubles12(double a, double b, double c, double d, double e, double f, double g, double h,
                 double i, float j, double k, float l)
{
    return doubles8(a, b, c, d, e, f, g, h) + 9 * i + 10 * j + 11 * k + 12 * l;
}

double mixed(int8_t a, double b, uint16_t c, float d, int32_t e, float f, const int32_t *g,
             double h, uint64_t i, _Bool j)
{
    return a + 2 * b + 3 * c + 4 * d + 5.0 * e + 6 * f + 7.0 * *g + 8 * h + 9.0 * (double)i + 10 * j;
}

double mixed20(int64_t a, double b, int64_t c, double d, int64_t e, double f, int64_t g, double h,
               int64_t i, double j, int64_t k, double l, int64_t m, double n, int64_t o, double p,
               int64_t q, double r, int64_t s, double t)
{
    return (double)(a + 3 * c + 5 * e + 7 * g + 9 * i + 11 * k + 13 * m + 15 * o + 17 * q + 19 * s) +
           2 * b + 4 * d + 6 * f + 8 * h + 10 * j + 12 * l + 14 * n + 16 * p + 18 * r + 20 * t;
}

float half(float x) { return x / 2; }
int8_t minus1_8(void) { return -1; }
int16_t minus1_16(void) { return -1; }
int32_t minus1_32(void) { return -1; }
int64_t minus1_64(void) { return -1; }
uint8_t all_8(void) { return UINT8_MAX; }
uint16_t all_16(void) { return UINT16_MAX; }
uint32_t all_32(void) { return UINT32_MAX; }
uint64_t all_64(void) { return UINT64_MAX; }
_Bool is_even(int x) { return x % 2 == 0; }
char letter(int n) { return (char)('a' + n); }
const char *greeting(int which) { return which ? "hello" : NULL; }

/* The goroutine's number: every call is a goroutine. */
uint64_t goid(void) { return golibx_goid(); }

/* ---- goroutines ---- */

void store(void *arg) { __atomic_store_n((int32_t *)arg, 1, __ATOMIC_SEQ_CST); }
void add_one(void *arg) { __atomic_fetch_add((int32_t *)arg, 1, __ATOMIC_SEQ_CST); }

/* Until another thread stores something else there. Computes, and never gives way. */
void spin_while_zero(void *arg)
{
    while (__atomic_load_n((int32_t *)arg, __ATOMIC_SEQ_CST) == 0)
        ;
}

void sleep_while_zero(void *arg)
{
    while (__atomic_load_n((int32_t *)arg, __ATOMIC_SEQ_CST) == 0)
        golibx_sleep(1000000);
}

/* Counts itself in and computes until the other has too; returns how many turns that took. */
uint64_t meet(int32_t *count, int32_t wanted)
{
    uint64_t turns = 1;
    __atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(count, __ATOMIC_SEQ_CST) < wanted)
        turns++;
    return turns;
}

struct link {
    golibx_chan *in;
    golibx_chan *out;
    int64_t first;
    int64_t count;
    int64_t sum;
};

/* Sends first, first + 1, … and closes `out` if it is to. */
void produce(void *arg)
{
    struct link *l = arg;
    for (int64_t i = l->first; i < l->first + l->count; i++)
        golibx_chan_send(l->out, &i);
    l->sum = -1;
}

void produce_slowly(void *arg)
{
    struct link *l = arg;
    uint64_t x = 88172645463325252u;
    for (int64_t i = l->first; i < l->first + l->count; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        golibx_sleep((int64_t)(x % 60000));
        golibx_chan_send(l->out, &i);
    }
    golibx_chan_close(l->out);
}

void produce_and_close(void *arg)
{
    produce(arg);
    golibx_chan_close(((struct link *)arg)->out);
}

void consume(void *arg)
{
    struct link *l = arg;
    int64_t value;
    while (golibx_chan_recv(l->in, &value) == GOLIBX_OK) {
        l->sum += value;
        l->count++;
    }
}

void consume_slowly(void *arg)
{
    struct link *l = arg;
    uint64_t x = 88172645463325252u;
    int64_t value;
    while (golibx_chan_recv(l->in, &value) == GOLIBX_OK) {
        l->sum += value;
        l->count++;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        golibx_sleep((int64_t)(x % 60000));
    }
}

void increment(void *arg)
{
    struct link *l = arg;
    int64_t value;
    while (golibx_chan_recv(l->in, &value) == GOLIBX_OK) {
        value++;
        golibx_chan_send(l->out, &value);
    }
    golibx_chan_close(l->out);
}

struct point {
    double x;
    double y;
    int32_t name;
};

void move_points(void *arg)
{
    struct link *l = arg;
    struct point p;
    while (golibx_chan_recv(l->in, &p) == GOLIBX_OK) {
        p.x += 1;
        p.y *= 2;
        p.name++;
        golibx_chan_send(l->out, &p);
    }
}

/* ---- Python that C calls back ---- */

int64_t call_back(int64_t (*function)(int64_t), int64_t n)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += function(i);
    return sum;
}

void call_for_ever(void *arg)
{
    void (*function)(void) = (void (*)(void))(uintptr_t)arg;
    while (1)
        function();
}

void write_for_ever(void *arg)
{
    volatile unsigned char *bytes = arg;
    while (1)
        for (int i = 0; i < 4096; i++)
            bytes[i]++;
}

/* ---- for events ---- */

static void wait_group_done(void *wg) { golibx_wg_done(wg); }

/* Starts `n` goroutines, which end at once, and waits for them. */
void start_many(int32_t n)
{
    golibx_waitgroup wg = {{0}};
    golibx_wg_add(&wg, n);
    for (int32_t i = 0; i < n; i++)
        golibx_go(wait_group_done, &wg);
    golibx_wg_wait(&wg, GOLIBX_FOREVER);
}

/* A system call that blocks until another thread writes to the pipe. */
void block_in_read(int32_t fd)
{
    char byte;
    golibx_entersyscall();
    while (read(fd, &byte, 1) < 0)
        ;
    golibx_exitsyscall();
}

/* Waits in the native lane's poller until `fd` is readable. */
int32_t wait_readable(int32_t fd)
{
    golibx_fd *d = golibx_fd_open(fd);
    int32_t result = golibx_fd_wait(d, GOLIBX_READ, GOLIBX_FOREVER);
    golibx_fd_close(d, 0);
    return result;
}

void receive(void *chan) { golibx_chan_recv(chan, NULL); }
