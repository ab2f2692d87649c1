/* Timers: set, moved, stopped, fired, and freed while pending. */
#include "check.h"

static atomic_int fired;
static atomic_llong fired_at, fired_in;

static void note(void *counter)
{
    atomic_store(&fired_at, golibx_nanotime());
    atomic_store(&fired_in, (long long)golibx_goid());
    atomic_fetch_add((atomic_int *)counter, 1);
}

static void fires_in_a_goroutine_at_its_time(void)
{
    fired = 0;
    golibx_timer *t = golibx_timer_new(note, &fired);
    CHECK(t != NULL);
    int64_t when = in(20 * MS);
    EQUAL(golibx_timer_reset(t, when), 0);
    EVENTUALLY(fired == 1);
    CHECK(fired_at >= when);
    CHECK(fired_in != 0 && (uint64_t)fired_in != golibx_goid());
    EQUAL(golibx_timer_stop(t), 0);
    golibx_timer_free(t);
}

static void fires_at_once_when_its_time_has_passed(void)
{
    fired = 0;
    golibx_timer *t = golibx_timer_new(note, &fired);
    golibx_timer_reset(t, golibx_nanotime() - SECOND);
    EVENTUALLY(fired == 1);
    golibx_timer_reset(t, 0);
    EVENTUALLY(fired == 2);
    golibx_timer_free(t);
}

static void stopped_in_time(void)
{
    fired = 0;
    golibx_timer *t = golibx_timer_new(note, &fired);
    EQUAL(golibx_timer_stop(t), 0); /* never set */
    EQUAL(golibx_timer_reset(t, in(20 * MS)), 0);
    EQUAL(golibx_timer_stop(t), 1);
    EQUAL(golibx_timer_stop(t), 0);
    golibx_sleep(40 * MS);
    EQUAL(fired, 0);
    EQUAL(golibx_timer_reset(t, in(5 * MS)), 0); /* it can be set again */
    EVENTUALLY(fired == 1);
    golibx_timer_free(t);
}

static void moved(void)
{
    fired = 0;
    golibx_timer *t = golibx_timer_new(note, &fired);
    EQUAL(golibx_timer_reset(t, in(10 * SECOND)), 0);
    EQUAL(golibx_timer_reset(t, in(10 * MS)), 1); /* to an earlier time */
    EVENTUALLY(fired == 1);
    EQUAL(golibx_timer_reset(t, in(10 * MS)), 0);
    int64_t when = in(40 * MS);
    EQUAL(golibx_timer_reset(t, when), 1); /* to a later one */
    EVENTUALLY(fired == 2);
    CHECK(fired_at >= when);
    EQUAL(golibx_timer_reset(t, GOLIBX_FOREVER), 0); /* never */
    EQUAL(golibx_timer_stop(t), 1);
    golibx_timer_free(t);
}

static void freed_while_pending(void)
{
    fired = 0;
    golibx_timer *t[100];
    uint64_t before = counters().timers;
    for (int i = 0; i < 100; i++) {
        t[i] = golibx_timer_new(note, &fired);
        golibx_timer_reset(t[i], in(20 * MS));
    }
    CHECK(counters().timers >= before + 100);
    for (int i = 0; i < 100; i++)
        golibx_timer_free(t[i]);
    golibx_sleep(40 * MS);
    EQUAL(fired, 0);
    golibx_timer_free(NULL);
}

static void misuse(void) { CHECK(golibx_timer_new(NULL, NULL) == NULL); }

struct ticker {
    golibx_timer *timer;
    atomic_int ticks;
    golibx_waitgroup done;
};

static void tick(void *argument)
{
    struct ticker *t = argument;
    if (atomic_fetch_add(&t->ticks, 1) + 1 < 20)
        golibx_timer_reset(t->timer, in(MS));
    else
        golibx_wg_done(&t->done);
}

static void its_function_sets_it_again(void)
{
    struct ticker t = {.ticks = 0};
    t.timer = golibx_timer_new(tick, &t);
    OK(golibx_wg_add(&t.done, 1));
    golibx_timer_reset(t.timer, in(MS));
    OK(golibx_wg_wait(&t.done, soon()));
    EQUAL(t.ticks, 20);
    golibx_timer_free(t.timer);
}

struct order {
    golibx_timer *timer;
    int64_t when;
    atomic_int *count;
};

static void check_time(void *argument)
{
    struct order *o = argument;
    CHECK(golibx_nanotime() >= o->when);
    atomic_fetch_add(o->count, 1);
}

static void many_timers(void)
{
    enum { n = 5000 };
    static struct order orders[n];
    atomic_int count = 0;
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < n; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        orders[i] = (struct order){golibx_timer_new(check_time, &orders[i]), 0, &count};
        CHECK(orders[i].timer != NULL);
        orders[i].when = in((int64_t)(seed % (100 * MS)));
        golibx_timer_reset(orders[i].timer, orders[i].when);
    }
    EVENTUALLY(count == n);
    for (int i = 0; i < n; i++)
        golibx_timer_free(orders[i].timer);
}

static atomic_int starts, stops;

static void count_start(void *unused)
{
    UNUSED(unused);
    atomic_fetch_add(&starts, 1);
}

/* It fires, or it is stopped: never both, never neither. */
static void stop_races_with_firing(void)
{
    starts = stops = 0;
    golibx_timer *t = golibx_timer_new(count_start, NULL);
    for (int i = 0; i < 1000; i++) {
        int64_t when = in(100000);
        golibx_timer_reset(t, when);
        while (golibx_nanotime() < when - 20000 + i * 50)
            golibx_gosched();
        if (golibx_timer_stop(t))
            atomic_fetch_add(&stops, 1);
        else
            EVENTUALLY(starts + stops == i + 1);
        EQUAL(starts + stops, i + 1);
    }
    golibx_timer_free(t);
}

static golibx_timer *of_the_main_thread;

static void set_by_the_main_thread(void)
{
    OK(golibx_start(NULL));
    fired = 0;
    of_the_main_thread = golibx_timer_new(note, &fired);
    int64_t when = in(20 * MS);
    EQUAL(golibx_timer_reset(of_the_main_thread, when), 0);
    EVENTUALLY(fired == 1);
    CHECK(fired_at >= when);
    EQUAL(golibx_timer_reset(of_the_main_thread, in(SECOND)), 0);
    EQUAL(golibx_timer_stop(of_the_main_thread), 1);
    golibx_timer_free(of_the_main_thread);
    OK(golibx_stop(soon()));
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(set_by_the_main_thread),
        CASE(fires_in_a_goroutine_at_its_time),
        CASE(fires_at_once_when_its_time_has_passed),
        CASE(stopped_in_time),
        CASE(moved),
        CASE(freed_while_pending),
        CASE(misuse),
        CASE(its_function_sets_it_again),
        CASE(many_timers),
        CASE(stop_races_with_firing),
    };
    return RUN_CASES(NULL, cases);
}
