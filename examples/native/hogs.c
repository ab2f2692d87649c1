/* Goroutines that never call golibx, one more than there are processors, and one that sleeps: all
 * get their share, because what computes for 10 ms is preempted.
 *
 * It runs twice. At first golibx knows nothing of this program's code, and preempts a hog together with
 * the thread it is on, which works anywhere. Then golibx_register_module() says that this program's code
 * keeps no address of a thread-local: a preempted hog may continue on any thread, and costs none.
 *
 *     ./hogs 2000       milliseconds
 */
#include "golibx.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t length_ns = 1000 * 1000000ll;
static const int64_t nap_ns = 1000000;

static atomic_int stop;
static golibx_waitgroup running;

struct hog {
    uint64_t rounds;
    char line[56]; /* its own cache line: hogs should not slow each other down */
};

struct sleeper {
    int64_t worst_ns; /* how much later than asked for it woke */
    int64_t naps;
};

static void hog(void *argument)
{
    struct hog *h = argument;
    uint64_t rounds = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        rounds++;
    h->rounds = rounds;
    golibx_wg_done(&running);
}

static void sleeper(void *argument)
{
    struct sleeper *s = argument;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        int64_t wanted = golibx_nanotime() + nap_ns;
        golibx_sleep(nap_ns);
        int64_t late = golibx_nanotime() - wanted;
        if (late > s->worst_ns)
            s->worst_ns = late;
        s->naps++;
    }
    golibx_wg_done(&running);
}

static golibx_counters counters(void)
{
    golibx_counters now = {.size = sizeof now};
    golibx_stats(&now);
    return now;
}

/* Returns 1 if every goroutine got something. */
static int run(const char *title)
{
    int processors = golibx_gomaxprocs(0), count = processors + 1;
    struct hog *hogs = calloc((size_t)count, sizeof *hogs);
    struct sleeper s = {0, 0};
    golibx_counters before = counters();

    atomic_store(&stop, 0);
    golibx_wg_add(&running, count + 1);
    for (int i = 0; i < count; i++)
        golibx_go(hog, &hogs[i]);
    golibx_go(sleeper, &s);
    golibx_sleep(length_ns);
    atomic_store(&stop, 1);
    golibx_wg_wait(&running, GOLIBX_FOREVER);

    golibx_counters after = counters();
    double total = 0;
    int all = s.naps > 0;
    for (int i = 0; i < count; i++)
        total += (double)hogs[i].rounds;
    printf("%s: %d hogs on %d processors\n ", title, count, processors);
    for (int i = 0; i < count; i++) {
        printf(" %.1f%%", 100 * (double)hogs[i].rounds / total);
        all &= hogs[i].rounds > 0;
    }
    printf(" of the rounds; the sleeper woke %.1f ms late at worst, of %" PRId64 " naps\n",
           (double)s.worst_ns / 1e6, s.naps);
    printf("  preempted %" PRIu64 " times with their thread, %" PRIu64 " times without\n",
           after.preempt_klt - before.preempt_klt, after.preempt_yields - before.preempt_yields);
    free(hogs);
    return all;
}

static void compare(void *unused)
{
    (void)unused;
    int all = run("unregistered");
    int code = golibx_register_module((const void *)hog);
    if (code != GOLIBX_OK)
        fprintf(stderr, "hogs: cannot register: %s\n", golibx_strerror(code));
    all &= run("registered");
    printf("everybody got a share: %s\n", all ? "yes" : "no");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        length_ns = atoll(argv[1]) * 1000000;
    int code = golibx_run(NULL, compare, NULL);
    if (code != GOLIBX_OK)
        fprintf(stderr, "hogs: %s\n", golibx_strerror(code));
    return code != GOLIBX_OK;
}
