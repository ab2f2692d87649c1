/* Goroutines: starting, sleeping, parking, threads of their own, system calls. */
#include "check.h"

#include <pthread.h>

static golibx_waitgroup running;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, soon())); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

/* ---- go ---- */

static atomic_long sum;

static void add_number(void *number)
{
    atomic_fetch_add(&sum, (long)(intptr_t)number);
    golibx_wg_done(&running);
}

static void go_runs_each_with_its_argument(void)
{
    sum = 0;
    for (long n = 1; n <= 10000; n++)
        start(add_number, (void *)(intptr_t)n);
    wait_for_all();
    EQUAL(sum, 10000L * 10001 / 2);
    CODE(golibx_go(NULL, NULL), GOLIBX_INVALID);
}

static void spawn_tree(void *depth)
{
    long d = (long)(intptr_t)depth;
    if (d > 0) {
        start(spawn_tree, (void *)(intptr_t)(d - 1));
        start(spawn_tree, (void *)(intptr_t)(d - 1));
    }
    atomic_fetch_add(&sum, 1);
    golibx_wg_done(&running);
}

static void goroutines_start_goroutines(void)
{
    sum = 0;
    start(spawn_tree, (void *)13);
    wait_for_all();
    EQUAL(sum, (1 << 14) - 1);
}

static void *start_from_a_thread(void *unused)
{
    UNUSED(unused);
    for (long n = 1; n <= 1000; n++)
        start(add_number, (void *)(intptr_t)n);
    return NULL;
}

static void threads_start_goroutines(void)
{
    sum = 0;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        EQUAL(pthread_create(&threads[i], NULL, start_from_a_thread, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    wait_for_all();
    EQUAL(sum, 4 * 1000L * 1001 / 2);
}

static void use_stack(void *bytes)
{
    size_t size = (size_t)(intptr_t)bytes;
    volatile char *memory = __builtin_alloca(size);
    for (size_t i = 0; i < size; i += 512)
        memory[i] = (char)i;
    for (size_t i = 0; i < size; i += 512)
        if (memory[i] != (char)i)
            failed(__FILE__, __LINE__, "the stack was changed");
    golibx_gosched();
    for (size_t i = 0; i < size; i += 512)
        if (memory[i] != (char)i)
            failed(__FILE__, __LINE__, "the stack was changed by a switch");
    golibx_wg_done(&running);
}

static void a_stack_holds_what_it_promises(void)
{
    for (int i = 0; i < 64; i++)
        start(use_stack, (void *)(200 * 1024));
    wait_for_all();
}

static double twice(double x) { return x + x; }

static void compute(void *result)
{
    double x = 1;
    for (int i = 0; i < 1000; i++) {
        x = twice(x) / 2 + 0.5;
        golibx_gosched();
    }
    *(double *)result = x;
    golibx_wg_done(&running);
}

static void floating_point_survives_switches(void)
{
    double results[50];
    for (int i = 0; i < 50; i++)
        start(compute, &results[i]);
    wait_for_all();
    for (int i = 0; i < 50; i++)
        CHECK(results[i] == 501.0);
}

static void stack_alignment(void *unused)
{
    UNUSED(unused);
    _Alignas(16) volatile char memory[16];
    EQUAL((uintptr_t)memory % 16, 0);
    char text[64]; /* printf of a double uses aligned vector stores where the ABI promises them */
    snprintf(text, sizeof text, "%.3f", 1.5);
    CHECK(strcmp(text, "1.500") == 0);
    golibx_wg_done(&running);
}

static void stacks_are_aligned(void)
{
    start(stack_alignment, NULL);
    wait_for_all();
}

/* ---- gosched, goid ---- */

static atomic_int turn;

static void take_turns(void *which)
{
    int mine = (int)(intptr_t)which;
    for (int i = 0; i < 100; i++) {
        while (atomic_load(&turn) != mine)
            golibx_gosched();
        atomic_store(&turn, 1 - mine);
    }
    golibx_wg_done(&running);
}

static void gosched_lets_others_run(void)
{
    int before = golibx_gomaxprocs(1);
    turn = 0;
    start(take_turns, (void *)0);
    start(take_turns, (void *)1);
    wait_for_all();
    golibx_gomaxprocs(before);
}

static uint64_t ids[1000];

static void note_id(void *slot)
{
    *(uint64_t *)slot = golibx_goid();
    golibx_gosched();
    EQUAL(golibx_goid(), *(uint64_t *)slot);
    golibx_wg_done(&running);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void every_goroutine_has_a_number(void)
{
    for (int i = 0; i < 1000; i++)
        start(note_id, &ids[i]);
    wait_for_all();
    qsort(ids, 1000, sizeof *ids, by_value);
    CHECK(ids[0] >= 1);
    for (int i = 1; i < 1000; i++)
        CHECK(ids[i] != ids[i - 1]);
    CHECK(golibx_goid() != 0);
}

static void outside_of_a_goroutine(void)
{
    OK(golibx_start(NULL));
    EQUAL(golibx_goid(), 0);
    CHECK(golibx_self() == NULL);
    golibx_gosched();
    int64_t began = golibx_nanotime();
    golibx_sleep(20 * MS);
    CHECK(golibx_nanotime() - began >= 20 * MS);
    CODE(golibx_park(0), GOLIBX_INVALID);
    CODE(golibx_lock_os_thread(), GOLIBX_INVALID);
    CODE(golibx_unlock_os_thread(), GOLIBX_INVALID);
    golibx_entersyscall(); /* nothing happens */
    golibx_exitsyscall();
    OK(golibx_stop(soon()));
}

/* ---- sleep ---- */

static void sleep_lasts_at_least_that_long(void)
{
    int64_t lengths[] = {0, 1, 1000, 100000, MS, 5 * MS, 30 * MS};
    for (int i = 0; i < 7; i++) {
        int64_t began = golibx_nanotime();
        golibx_sleep(lengths[i]);
        CHECK(golibx_nanotime() - began >= lengths[i]);
    }
    golibx_sleep(-5);
}

static void sleep_100_ms(void *unused)
{
    UNUSED(unused);
    golibx_sleep(100 * MS);
    golibx_wg_done(&running);
}

static void sleepers_sleep_together(void)
{
    int64_t began = golibx_nanotime();
    for (int i = 0; i < 5000; i++)
        start(sleep_100_ms, NULL);
    wait_for_all();
    int64_t took = golibx_nanotime() - began;
    CHECK(took >= 100 * MS && took < 10 * SECOND);
}

/* ---- park and ready ---- */

struct seat {
    _Atomic(golibx_g) sitter;
    atomic_int woken;
    int code;
    int64_t deadline;
};

static void sit(void *argument)
{
    struct seat *s = argument;
    atomic_store(&s->sitter, golibx_self());
    s->code = golibx_park(s->deadline);
    atomic_fetch_add(&s->woken, 1);
    golibx_wg_done(&running);
}

static void ready_wakes_who_parked(void)
{
    struct seat s = {.deadline = GOLIBX_FOREVER, .code = 1};
    start(sit, &s);
    EVENTUALLY(atomic_load(&s.sitter) != NULL);
    golibx_sleep(10 * MS);
    EQUAL(atomic_load(&s.woken), 0);
    golibx_ready(s.sitter);
    wait_for_all();
    OK(s.code);
}

static void park_has_a_deadline(void)
{
    int64_t began = golibx_nanotime();
    CODE(golibx_park(in(20 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 20 * MS);
    NOT_NOW(golibx_park(0));
    NOT_NOW(golibx_park(began - SECOND));
}

static void one_early_wake_up_is_kept(void)
{
    golibx_g self = golibx_self();
    CHECK(self != NULL);
    CHECK(self == golibx_self());
    golibx_ready(self);
    golibx_ready(self);
    golibx_ready(self);
    OK(golibx_park(GOLIBX_FOREVER));
    CODE(golibx_park(in(5 * MS)), GOLIBX_TIMEOUT);
    golibx_ready(self);
    OK(golibx_park(0));
}

static void *ready_from_a_thread(void *argument)
{
    struct seat *s = argument;
    usleep(10000);
    golibx_ready(s->sitter);
    return NULL;
}

static void a_thread_may_wake(void)
{
    for (int i = 0; i < 20; i++) {
        struct seat s = {.sitter = golibx_self()};
        pthread_t thread;
        EQUAL(pthread_create(&thread, NULL, ready_from_a_thread, &s), 0);
        OK(golibx_park(soon()));
        pthread_join(thread, NULL);
    }
}

static struct seat duel[2];

static void wake_each_other(void *which)
{
    int mine = (int)(intptr_t)which;
    atomic_store(&duel[mine].sitter, golibx_self());
    while (atomic_load(&duel[1 - mine].sitter) == NULL)
        golibx_gosched();
    for (int i = 0; i < 20000; i++) {
        if (mine == 0)
            golibx_ready(duel[1].sitter);
        OK(golibx_park(soon()));
        if (mine == 1)
            golibx_ready(duel[0].sitter);
    }
    golibx_wg_done(&running);
}

static void parks_and_wake_ups_in_turn(void)
{
    memset(duel, 0, sizeof duel);
    start(wake_each_other, (void *)0);
    start(wake_each_other, (void *)1);
    wait_for_all();
}

struct racer {
    _Atomic(golibx_g) self;
    atomic_int back, readied;
    int64_t deadline;
    int code;
};

static void race(void *argument)
{
    struct racer *r = argument;
    atomic_store(&r->self, golibx_self());
    r->code = golibx_park(r->deadline);
    atomic_store(&r->back, 1);
    while (!atomic_load(&r->readied))
        golibx_gosched();
    /* The one wake-up either ended the park or is still there. */
    if (r->code == GOLIBX_OK)
        NOT_NOW(golibx_park(0));
    else
        OK(golibx_park(0));
    golibx_wg_done(&running);
}

static void a_wake_up_races_with_the_deadline(void)
{
    for (int i = 0; i < 300; i++) {
        struct racer r = {.deadline = in(MS), .code = 1};
        start(race, &r);
        while (atomic_load(&r.self) == NULL)
            golibx_gosched();
        while (golibx_nanotime() < r.deadline - 20000 + i * 200)
            golibx_gosched();
        golibx_ready(r.self);
        atomic_store(&r.readied, 1);
        wait_for_all();
        if (r.code != GOLIBX_OK)
            CODE(r.code, GOLIBX_TIMEOUT);
    }
}

static golibx_chan *letters;

static void receive_then_park(void *argument)
{
    struct racer *r = argument;
    atomic_store(&r->self, golibx_self());
    int letter = 0;
    OK(golibx_chan_recv(letters, &letter));
    EQUAL(letter, 7);
    atomic_store(&r->back, 1);
    OK(golibx_park(soon()));
    golibx_wg_done(&running);
}

static void a_wake_up_is_no_letter(void)
{
    letters = golibx_chan_new(sizeof(int), 0);
    struct racer r = {0};
    start(receive_then_park, &r);
    EVENTUALLY(atomic_load(&r.self) != NULL);
    golibx_sleep(5 * MS); /* it waits for a letter now */
    golibx_ready(r.self);
    golibx_sleep(10 * MS);
    EQUAL(atomic_load(&r.back), 0);
    int letter = 7;
    OK(golibx_chan_send(letters, &letter));
    wait_for_all();
    golibx_chan_free(letters);
}

/* ---- threads ---- */

static void stay_on_the_thread(void *unused)
{
    UNUSED(unused);
    OK(golibx_lock_os_thread());
    pthread_t mine = pthread_self();
    for (int i = 0; i < 200; i++) {
        if (i % 50 == 0)
            golibx_sleep(MS);
        golibx_gosched();
        CHECK(pthread_equal(mine, pthread_self()));
    }
    OK(golibx_unlock_os_thread());
    golibx_wg_done(&running);
}

static void locked_goroutines_stay_on_their_threads(void)
{
    for (int i = 0; i < 20; i++)
        start(stay_on_the_thread, NULL);
    wait_for_all();
}

static atomic_int strangers;
static pthread_t owned;

static void visit(void *unused)
{
    UNUSED(unused);
    for (int i = 0; i < 20; i++) {
        if (pthread_equal(owned, pthread_self()))
            atomic_fetch_add(&strangers, 1);
        golibx_gosched();
    }
    golibx_wg_done(&running);
}

static void own_a_thread(void *unused)
{
    UNUSED(unused);
    OK(golibx_lock_os_thread());
    OK(golibx_lock_os_thread());
    OK(golibx_unlock_os_thread()); /* still locked once */
    owned = pthread_self();
    for (int i = 0; i < 100; i++)
        start(visit, NULL);
    golibx_sleep(20 * MS);
    CHECK(pthread_equal(owned, pthread_self()));
    OK(golibx_unlock_os_thread());
    CODE(golibx_unlock_os_thread(), GOLIBX_INVALID);
    golibx_wg_done(&running);
}

static void nobody_else_runs_on_a_locked_thread(void)
{
    strangers = 0;
    start(own_a_thread, NULL);
    golibx_sleep(10 * MS);
    wait_for_all();
    EQUAL(strangers, 0);
}

static pthread_key_t at_thread_end;

static void thread_ended(void *flag) { atomic_store((atomic_int *)flag, 1); }

static void end_locked(void *flag)
{
    OK(golibx_lock_os_thread());
    pthread_setspecific(at_thread_end, flag);
    golibx_wg_done(&running);
}

static void a_thread_ends_with_its_locked_goroutine(void)
{
    static atomic_int ended;
    EQUAL(pthread_key_create(&at_thread_end, thread_ended), 0);
    start(end_locked, &ended);
    wait_for_all();
    EVENTUALLY(atomic_load(&ended));
}

/* ---- system calls ---- */

static atomic_int calls_left;

static void block(void *unused)
{
    UNUSED(unused);
    golibx_entersyscall();
    usleep(200000);
    golibx_exitsyscall();
    atomic_fetch_sub(&calls_left, 1);
    golibx_wg_done(&running);
}

static void a_system_call_does_not_keep_the_processor(void)
{
    int before = golibx_gomaxprocs(1);
    uint64_t retakes = counters().retakes;
    calls_left = 3;
    for (int i = 0; i < 3; i++)
        start(block, NULL);
    int64_t began = golibx_nanotime();
    int rounds = 0;
    while (atomic_load(&calls_left) > 0) {
        golibx_sleep(MS);
        rounds++;
    }
    wait_for_all();
    int64_t took = golibx_nanotime() - began;
    CHECK(took < 550 * MS); /* they blocked at the same time */
    CHECK(rounds > 20);     /* and we ran meanwhile, on the one processor */
    CHECK(counters().retakes > retakes);
    golibx_gomaxprocs(before);
}

static void short_calls(void *unused)
{
    UNUSED(unused);
    for (int i = 0; i < 20000; i++) {
        golibx_entersyscall();
        getppid();
        golibx_exitsyscall();
    }
    golibx_wg_done(&running);
}

static void many_short_system_calls(void)
{
    for (int i = 0; i < 8; i++)
        start(short_calls, NULL);
    wait_for_all();
}

/* ---- the figures ---- */

static void counters_count(void)
{
    EVENTUALLY(counters().goroutines == 1); /* those of the case before have ended */
    golibx_counters before = counters();
    CHECK(before.threads >= 1);
    CHECK(before.gomaxprocs >= 1);
    for (int i = 0; i < 100; i++)
        start(sleep_100_ms, NULL);
    golibx_sleep(20 * MS);
    golibx_counters during = counters();
    EQUAL(during.spawns - before.spawns, 100);
    EQUAL(during.goroutines - before.goroutines, 100);
    CHECK(during.timers >= 100);
    CHECK(during.switches > before.switches);
    CHECK(during.stacks >= 100);
    wait_for_all();
    EVENTUALLY(counters().goroutines == before.goroutines);
    golibx_counters after = counters();
    CHECK(after.timer_fires - before.timer_fires >= 100);
    CHECK(after.stacks_free <= after.stacks);
    CHECK(after.threads_idle <= after.threads);
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(outside_of_a_goroutine),
        CASE(go_runs_each_with_its_argument),
        CASE(goroutines_start_goroutines),
        CASE(threads_start_goroutines),
        CASE(a_stack_holds_what_it_promises),
        CASE(floating_point_survives_switches),
        CASE(stacks_are_aligned),
        CASE(gosched_lets_others_run),
        CASE(every_goroutine_has_a_number),
        CASE(sleep_lasts_at_least_that_long),
        CASE(sleepers_sleep_together),
        CASE(ready_wakes_who_parked),
        CASE(park_has_a_deadline),
        CASE(one_early_wake_up_is_kept),
        CASE(a_thread_may_wake),
        CASE(parks_and_wake_ups_in_turn),
        CASE(a_wake_up_races_with_the_deadline),
        CASE(a_wake_up_is_no_letter),
        CASE(locked_goroutines_stay_on_their_threads),
        CASE(nobody_else_runs_on_a_locked_thread),
        CASE(a_thread_ends_with_its_locked_goroutine),
        CASE(a_system_call_does_not_keep_the_processor),
        CASE(many_short_system_calls),
        CASE(counters_count),
    };
    return RUN_CASES(NULL, cases);
}
