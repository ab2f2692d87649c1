/* Mutex, condition, wait group and semaphore: among goroutines, and between them and threads. */
#include "check.h"

#include <pthread.h>

static golibx_waitgroup running;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, in(40 * SECOND))); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

/* ---- mutex ---- */

static golibx_mutex mutex;
static long counter;

static void mutex_is_exclusive(void)
{
    golibx_mutex m = {{0}};
    OK(golibx_mutex_trylock(&m));
    CODE(golibx_mutex_trylock(&m), GOLIBX_WOULD_BLOCK);
    OK(golibx_mutex_unlock(&m));
    CODE(golibx_mutex_unlock(&m), GOLIBX_INVALID);
    golibx_mutex_lock(&m);
    CODE(golibx_mutex_trylock(&m), GOLIBX_WOULD_BLOCK);
    OK(golibx_mutex_unlock(&m));
    CODE(golibx_mutex_unlock(&m), GOLIBX_INVALID);
    OK(golibx_mutex_trylock(&m)); /* the misuse changed nothing */
    OK(golibx_mutex_unlock(&m));
}

static void increment(void *rounds)
{
    for (int i = 0; i < (int)(intptr_t)rounds; i++) {
        golibx_mutex_lock(&mutex);
        long value = counter;
        if (i % 64 == 0)
            golibx_gosched();
        counter = value + 1;
        OK(golibx_mutex_unlock(&mutex));
    }
    golibx_wg_done(&running);
}

static void *increment_in_a_thread(void *rounds)
{
    increment(rounds);
    return NULL;
}

static void mutex_under_contention(void)
{
    counter = 0;
    pthread_t threads[4];
    for (int i = 0; i < 16; i++)
        start(increment, (void *)5000);
    for (int i = 0; i < 4; i++) {
        OK(golibx_wg_add(&running, 1));
        EQUAL(pthread_create(&threads[i], NULL, increment_in_a_thread, (void *)5000), 0);
    }
    wait_for_all();
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    EQUAL(counter, 20 * 5000);
}

static atomic_int hog_done;

static void lock_again_and_again(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&hog_done)) {
        golibx_mutex_lock(&mutex);
        int64_t end = in(MS / 5);
        while (golibx_nanotime() < end) {
        }
        OK(golibx_mutex_unlock(&mutex));
    }
    golibx_wg_done(&running);
}

/* One that holds the lock nearly always must not keep the others from it for ever. */
static void mutex_does_not_starve(void)
{
    hog_done = 0;
    for (int i = 0; i < 4; i++)
        start(lock_again_and_again, NULL);
    for (int i = 0; i < 20; i++) {
        int64_t began = golibx_nanotime();
        golibx_mutex_lock(&mutex);
        CHECK(golibx_nanotime() - began < 5 * SECOND);
        OK(golibx_mutex_unlock(&mutex));
    }
    hog_done = 1;
    wait_for_all();
}

static void unlock_it(void *m)
{
    OK(golibx_mutex_unlock(m));
    golibx_wg_done(&running);
}

static void another_goroutine_may_unlock(void)
{
    golibx_mutex m = {{0}};
    golibx_mutex_lock(&m);
    start(unlock_it, &m);
    golibx_mutex_lock(&m);
    OK(golibx_mutex_unlock(&m));
    wait_for_all();
}

/* ---- condition ---- */

static golibx_cond cond;
static int tickets, waiting, served;

static void wait_for_a_ticket(void *unused)
{
    UNUSED(unused);
    golibx_mutex_lock(&mutex);
    waiting++;
    while (tickets == 0)
        OK(golibx_cond_wait(&cond, &mutex, GOLIBX_FOREVER));
    tickets--;
    served++;
    OK(golibx_mutex_unlock(&mutex));
    golibx_wg_done(&running);
}

static void *wait_in_a_thread(void *unused)
{
    wait_for_a_ticket(unused);
    return NULL;
}

static int number(int *variable)
{
    golibx_mutex_lock(&mutex);
    int value = *variable;
    OK(golibx_mutex_unlock(&mutex));
    return value;
}

static void give(int n, int all)
{
    golibx_mutex_lock(&mutex);
    tickets += n;
    if (all)
        golibx_cond_broadcast(&cond);
    else
        golibx_cond_signal(&cond);
    OK(golibx_mutex_unlock(&mutex));
}

static void signal_wakes_one_and_broadcast_all(void)
{
    pthread_t thread;
    tickets = waiting = served = 0;
    golibx_cond_signal(&cond); /* no goroutine waits: nothing is kept */
    golibx_cond_broadcast(&cond);
    for (int i = 0; i < 9; i++)
        start(wait_for_a_ticket, NULL);
    OK(golibx_wg_add(&running, 1));
    EQUAL(pthread_create(&thread, NULL, wait_in_a_thread, NULL), 0);
    EVENTUALLY(number(&waiting) == 10);
    golibx_sleep(5 * MS);
    EQUAL(number(&served), 0);
    for (int i = 1; i <= 3; i++) {
        give(1, 0);
        EVENTUALLY(number(&served) == i);
    }
    give(7, 1);
    wait_for_all();
    pthread_join(thread, NULL);
    EQUAL(served, 10);
    EQUAL(tickets, 0);
}

static void cond_wait_has_a_deadline(void)
{
    golibx_mutex m = {{0}};
    golibx_cond c = {{0}};
    golibx_mutex_lock(&m);
    int64_t began = golibx_nanotime();
    CODE(golibx_cond_wait(&c, &m, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    CODE(golibx_mutex_trylock(&m), GOLIBX_WOULD_BLOCK); /* locked again */
    NOT_NOW(golibx_cond_wait(&c, &m, began));
    CODE(golibx_mutex_trylock(&m), GOLIBX_WOULD_BLOCK);
    OK(golibx_mutex_unlock(&m));
    CODE(golibx_cond_wait(&c, &m, in(10 * MS)), GOLIBX_INVALID); /* without the lock */
}

/* ---- wait group ---- */

static void wait_group_counts(void)
{
    golibx_waitgroup w = {{0}};
    OK(golibx_wg_wait(&w, GOLIBX_FOREVER));
    OK(golibx_wg_wait(&w, 0));
    OK(golibx_wg_add(&w, 2));
    NOT_NOW(golibx_wg_wait(&w, 0));
    int64_t began = golibx_nanotime();
    CODE(golibx_wg_wait(&w, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    OK(golibx_wg_done(&w));
    CODE(golibx_wg_add(&w, -2), GOLIBX_INVALID);
    NOT_NOW(golibx_wg_wait(&w, 0)); /* unchanged: one is missing */
    OK(golibx_wg_add(&w, 0));
    OK(golibx_wg_add(&w, -1));
    OK(golibx_wg_wait(&w, GOLIBX_FOREVER));
    CODE(golibx_wg_done(&w), GOLIBX_INVALID);
    OK(golibx_wg_wait(&w, GOLIBX_FOREVER));
}

static golibx_waitgroup gate;
static atomic_int through;

static void pass_the_gate(void *unused)
{
    UNUSED(unused);
    OK(golibx_wg_wait(&gate, soon()));
    atomic_fetch_add(&through, 1);
    golibx_wg_done(&running);
}

static void *pass_in_a_thread(void *unused)
{
    pass_the_gate(unused);
    return NULL;
}

static void many_wait_for_one_group(void)
{
    pthread_t threads[4];
    through = 0;
    OK(golibx_wg_add(&gate, 1));
    for (int i = 0; i < 50; i++)
        start(pass_the_gate, NULL);
    for (int i = 0; i < 4; i++) {
        OK(golibx_wg_add(&running, 1));
        EQUAL(pthread_create(&threads[i], NULL, pass_in_a_thread, NULL), 0);
    }
    golibx_sleep(20 * MS);
    EQUAL(through, 0);
    OK(golibx_wg_done(&gate));
    wait_for_all();
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    EQUAL(through, 54);
    OK(golibx_wg_add(&gate, 1)); /* and again */
    NOT_NOW(golibx_wg_wait(&gate, 0));
    OK(golibx_wg_done(&gate));
}

static void finish(void *w) { OK(golibx_wg_done(w)); }

static void a_wait_group_is_used_again_and_again(void)
{
    golibx_waitgroup w = {{0}};
    for (int i = 0; i < 5000; i++) {
        OK(golibx_wg_add(&w, 3));
        for (int k = 0; k < 3; k++)
            OK(golibx_go(finish, &w));
        OK(golibx_wg_wait(&w, soon()));
    }
}

/* ---- semaphore ---- */

static void semaphore_counts(void)
{
    golibx_sem s = {{0}};
    NOT_NOW(golibx_sem_acquire(&s, 0)); /* a zeroed one has none */
    golibx_sem_init(&s, 2);
    OK(golibx_sem_acquire(&s, GOLIBX_FOREVER));
    OK(golibx_sem_acquire(&s, 0));
    NOT_NOW(golibx_sem_acquire(&s, 0));
    int64_t began = golibx_nanotime();
    CODE(golibx_sem_acquire(&s, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    golibx_sem_release(&s);
    OK(golibx_sem_acquire(&s, 0));
    for (int i = 0; i < 100; i++)
        golibx_sem_release(&s);
    for (int i = 0; i < 100; i++)
        OK(golibx_sem_acquire(&s, 0));
    NOT_NOW(golibx_sem_acquire(&s, 0));
}

static void a_semaphore_says_that_it_is_full(void)
{
    golibx_sem s;
    golibx_sem_init(&s, UINT64_MAX);
    CODE(golibx_sem_release(&s), GOLIBX_INVALID);
    OK(golibx_sem_acquire(&s, 0));
    OK(golibx_sem_release(&s));
    CODE(golibx_sem_release(&s), GOLIBX_INVALID);
}

static golibx_sem permits;
static atomic_int inside, most;

static void go_inside(void *unused)
{
    UNUSED(unused);
    for (int i = 0; i < 200; i++) {
        OK(golibx_sem_acquire(&permits, i % 2 ? GOLIBX_FOREVER : soon()));
        int now = atomic_fetch_add(&inside, 1) + 1;
        CHECK(now <= 3);
        if (now > atomic_load(&most))
            atomic_store(&most, now);
        golibx_gosched();
        atomic_fetch_sub(&inside, 1);
        golibx_sem_release(&permits);
    }
    golibx_wg_done(&running);
}

static void *go_inside_in_a_thread(void *unused)
{
    go_inside(unused);
    return NULL;
}

static void a_semaphore_limits(void)
{
    pthread_t threads[2];
    golibx_sem_init(&permits, 3);
    inside = most = 0;
    for (int i = 0; i < 30; i++)
        start(go_inside, NULL);
    for (int i = 0; i < 2; i++) {
        OK(golibx_wg_add(&running, 1));
        EQUAL(pthread_create(&threads[i], NULL, go_inside_in_a_thread, NULL), 0);
    }
    wait_for_all();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        OK(golibx_sem_acquire(&permits, 0)); /* all came back */
    NOT_NOW(golibx_sem_acquire(&permits, 0));
}

static void acquire_then_done(void *code)
{
    *(int *)code = golibx_sem_acquire(&permits, soon());
    golibx_wg_done(&running);
}

static void release_wakes_who_waits(void)
{
    golibx_sem_init(&permits, 0);
    int code = 1;
    start(acquire_then_done, &code);
    golibx_sleep(10 * MS);
    EQUAL(code, 1);
    golibx_sem_release(&permits);
    wait_for_all();
    OK(code);
}

/* ---- on the main thread, which is no goroutine ---- */

static void the_main_thread_waits(void)
{
    OK(golibx_start(NULL));
    counter = 0;
    for (int i = 0; i < 8; i++)
        start(increment, (void *)1000);
    OK(golibx_wg_add(&running, 1));
    increment((void *)1000);
    wait_for_all();
    EQUAL(counter, 9000);

    golibx_sem_init(&permits, 0);
    int code = 1;
    start(acquire_then_done, &code);
    golibx_sem_release(&permits);
    wait_for_all();
    OK(code);
    CODE(golibx_sem_acquire(&permits, in(5 * MS)), GOLIBX_TIMEOUT);

    golibx_mutex m = {{0}};
    golibx_cond c = {{0}};
    golibx_mutex_lock(&m);
    CODE(golibx_cond_wait(&c, &m, in(5 * MS)), GOLIBX_TIMEOUT);
    OK(golibx_mutex_unlock(&m));
    OK(golibx_stop(soon()));
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(the_main_thread_waits),
        CASE(mutex_is_exclusive),
        CASE(mutex_under_contention),
        CASE(mutex_does_not_starve),
        CASE(another_goroutine_may_unlock),
        CASE(signal_wakes_one_and_broadcast_all),
        CASE(cond_wait_has_a_deadline),
        CASE(wait_group_counts),
        CASE(many_wait_for_one_group),
        CASE(a_wait_group_is_used_again_and_again),
        CASE(semaphore_counts),
        CASE(a_semaphore_says_that_it_is_full),
        CASE(a_semaphore_limits),
        CASE(release_wakes_who_waits),
    };
    return RUN_CASES(NULL, cases);
}
