/* Select: fairness, defaults, deadlines, closed channels, and many selects that compete. */
#include "check.h"

#include <pthread.h>

static golibx_waitgroup running;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, soon())); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

static golibx_case receive(golibx_chan *c, void *elem)
{
    return (golibx_case){c, GOLIBX_RECV, 77, elem};
}

static golibx_case sending(golibx_chan *c, void *elem)
{
    return (golibx_case){c, GOLIBX_SEND, 77, elem};
}

static void the_case_that_can_go_on(void)
{
    golibx_chan *empty = golibx_chan_new(sizeof(int), 1), *full = golibx_chan_new(sizeof(int), 1);
    int seven = 7, got = 0;
    OK(golibx_chan_send(full, &seven));
    golibx_case cases[] = {receive(empty, &got), receive(full, &got)};
    EQUAL(golibx_select(cases, 2, GOLIBX_FOREVER), 1);
    EQUAL(got, 7);
    OK(cases[1].result);
    EQUAL(golibx_chan_len(full), 0);

    golibx_case sends[] = {receive(full, &got), sending(empty, &seven)};
    EQUAL(golibx_select(sends, 2, 0), 1);
    OK(sends[1].result);
    OK(golibx_chan_recv(empty, &got));
    EQUAL(got, 7);
    golibx_chan_free(empty);
    golibx_chan_free(full);
}

static void nothing_can_go_on(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    int value = 5;
    golibx_case cases[] = {receive(c, &value), sending(c, &value), receive(NULL, NULL)};
    CODE(golibx_select(cases, 3, 0), GOLIBX_WOULD_BLOCK);
    int64_t began = golibx_nanotime();
    CODE(golibx_select(cases, 3, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    NOT_NOW(golibx_select(cases, 3, began));
    CODE(golibx_select(cases, 0, 0), GOLIBX_WOULD_BLOCK);
    CODE(golibx_select(NULL, 0, in(2 * MS)), GOLIBX_TIMEOUT);
    EQUAL(value, 5);
    CODE(golibx_chan_recv_until(c, &value, 0), GOLIBX_WOULD_BLOCK); /* none was left queued */
    CODE(golibx_chan_send_until(c, &value, 0), GOLIBX_WOULD_BLOCK);
    golibx_chan_free(c);
}

static void null_never_fires(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 1);
    int value = 3;
    for (int i = 0; i < 100; i++) {
        golibx_case cases[] = {receive(NULL, &value), sending(c, &value), sending(NULL, &value)};
        EQUAL(golibx_select(cases, 3, GOLIBX_FOREVER), 1);
        OK(golibx_chan_recv(c, NULL));
    }
    golibx_case none[] = {receive(NULL, &value), sending(NULL, &value)};
    CODE(golibx_select(none, 2, in(2 * MS)), GOLIBX_TIMEOUT);
    golibx_chan_free(c);
}

static void closed_channels(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 1), *other = golibx_chan_new(sizeof(int), 0);
    int value = 6;
    OK(golibx_chan_send(c, &value));
    OK(golibx_chan_close(c));
    value = 0;
    golibx_case cases[] = {receive(other, NULL), receive(c, &value)};
    EQUAL(golibx_select(cases, 2, GOLIBX_FOREVER), 1);
    OK(cases[1].result);
    EQUAL(value, 6);
    EQUAL(golibx_select(cases, 2, GOLIBX_FOREVER), 1);
    CODE(cases[1].result, GOLIBX_CLOSED);
    EQUAL(value, 0);
    golibx_case sends[] = {receive(other, NULL), sending(c, &value)};
    EQUAL(golibx_select(sends, 2, 0), 1);
    CODE(sends[1].result, GOLIBX_CLOSED);
    golibx_chan_free(c);
    golibx_chan_free(other);
}

static void misuse(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 1);
    static golibx_case cases[1025];
    for (int i = 0; i < 1025; i++)
        cases[i] = receive(c, NULL);
    CODE(golibx_select(cases, 1025, 0), GOLIBX_INVALID);
    CODE(golibx_select(cases, 1024, 0), GOLIBX_WOULD_BLOCK);
    OK(golibx_chan_send(c, &(int){1}));
    CHECK(golibx_select(cases, 1024, 0) >= 0);
    cases[0].dir = 3;
    CODE(golibx_select(cases, 1, 0), GOLIBX_INVALID);
    cases[0].dir = 0;
    CODE(golibx_select(cases, 1, 0), GOLIBX_INVALID);
    golibx_chan_free(c);
}

static void each_ready_case_is_as_likely(void)
{
    enum { channels = 4, rounds = 8000 };
    golibx_chan *c[channels];
    golibx_case cases[channels];
    int counts[channels] = {0};
    for (int i = 0; i < channels; i++) {
        c[i] = golibx_chan_new(0, 1);
        OK(golibx_chan_send(c[i], NULL));
        cases[i] = receive(c[i], NULL);
    }
    for (int i = 0; i < rounds; i++) {
        int chosen = golibx_select(cases, channels, 0);
        CHECK(chosen >= 0 && chosen < channels);
        counts[chosen]++;
        OK(golibx_chan_send(c[chosen], NULL));
    }
    for (int i = 0; i < channels; i++) { /* 2000 each, with a deviation of 39 */
        CHECK(counts[i] > 1700 && counts[i] < 2300);
        golibx_chan_free(c[i]);
    }
}

/* ---- waiting ---- */

struct waiter {
    golibx_chan *chan[3];
    int chosen, result, value;
    int64_t deadline;
};

static void wait_for_three(void *argument)
{
    struct waiter *w = argument;
    golibx_case cases[] = {receive(w->chan[0], &w->value), receive(w->chan[1], &w->value),
                           sending(w->chan[2], &w->value)};
    w->chosen = golibx_select(cases, 3, w->deadline);
    w->result = w->chosen >= 0 ? cases[w->chosen].result : 0;
    golibx_wg_done(&running);
}

static void a_waiting_select_is_served(void)
{
    struct waiter w = {.deadline = GOLIBX_FOREVER};
    for (int i = 0; i < 3; i++)
        w.chan[i] = golibx_chan_new(sizeof(int), 0);
    for (int i = 0; i < 3; i++) {
        w.value = 40;
        start(wait_for_three, &w);
        golibx_sleep(5 * MS);
        int value = 50 + i;
        if (i < 2)
            OK(golibx_chan_send_until(w.chan[i], &value, 0));
        else
            OK(golibx_chan_recv_until(w.chan[i], &value, 0));
        wait_for_all();
        EQUAL(w.chosen, i);
        OK(w.result);
        if (i < 2)
            EQUAL(w.value, 50 + i);
        else
            EQUAL(value, 40);
        for (int k = 0; k < 2; k++) /* it has left the other queues */
            CODE(golibx_chan_send_until(w.chan[k], &value, 0), GOLIBX_WOULD_BLOCK);
    }
    for (int i = 0; i < 3; i++) {
        start(wait_for_three, &w);
        golibx_sleep(5 * MS);
        golibx_chan *closing = w.chan[i];
        OK(golibx_chan_close(closing));
        wait_for_all();
        EQUAL(w.chosen, i);
        CODE(w.result, GOLIBX_CLOSED);
        golibx_chan_free(closing);
        w.chan[i] = golibx_chan_new(sizeof(int), 0);
    }
    for (int i = 0; i < 3; i++)
        golibx_chan_free(w.chan[i]);
}

static void the_same_channel_twice(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    struct waiter w = {.chan = {c, c, c}, .deadline = GOLIBX_FOREVER};
    start(wait_for_three, &w);
    golibx_sleep(5 * MS);
    int value = 4;
    OK(golibx_chan_send_until(c, &value, 0));
    wait_for_all();
    CHECK(w.chosen == 0 || w.chosen == 1);
    EQUAL(w.value, 4);
    golibx_chan_free(c);
}

/* Every letter is received once, whichever of the selects gets it. */
enum { posts = 3, selectors = 6, senders = 3, letters_each = 10000 };
static golibx_chan *post[posts];
static atomic_llong sum, count;
static golibx_waitgroup receiving;
static golibx_chan *stop;

static void select_until_stopped(void *unused)
{
    UNUSED(unused);
    for (;;) {
        long long value = -1;
        golibx_case cases[posts + 1];
        for (int i = 0; i < posts; i++)
            cases[i] = receive(post[i], &value);
        cases[posts] = receive(stop, NULL);
        int chosen = golibx_select(cases, posts + 1, GOLIBX_FOREVER);
        CHECK(chosen >= 0);
        if (chosen == posts)
            break;
        OK(cases[chosen].result);
        CHECK(value >= 0);
        atomic_fetch_add(&sum, value);
        atomic_fetch_add(&count, 1);
    }
    golibx_wg_done(&receiving);
}

static void select_sends(void *first)
{
    long long value = (long long)(intptr_t)first;
    for (int i = 0; i < letters_each; i++, value += senders) {
        golibx_case cases[posts];
        for (int k = 0; k < posts; k++)
            cases[k] = sending(post[k], &value);
        int chosen = golibx_select(cases, posts, i % 3 ? GOLIBX_FOREVER : soon());
        CHECK(chosen >= 0);
        OK(cases[chosen].result);
    }
    golibx_wg_done(&running);
}

static void *select_in_a_thread(void *unused)
{
    select_until_stopped(unused);
    return NULL;
}

static void selects_compete(int threads)
{
    pthread_t thread[selectors];
    sum = count = 0;
    stop = golibx_chan_new(0, 0);
    for (int i = 0; i < posts; i++)
        post[i] = golibx_chan_new(sizeof(long long), (size_t)i);
    OK(golibx_wg_add(&receiving, selectors));
    for (int i = 0; i < selectors; i++) {
        if (i < threads)
            EQUAL(pthread_create(&thread[i], NULL, select_in_a_thread, NULL), 0);
        else
            OK(golibx_go(select_until_stopped, NULL));
    }
    for (int i = 0; i < senders; i++)
        start(select_sends, (void *)(intptr_t)i);
    OK(golibx_wg_wait(&running, in(40 * SECOND)));
    EVENTUALLY(atomic_load(&count) == (long long)senders * letters_each);
    OK(golibx_chan_close(stop));
    OK(golibx_wg_wait(&receiving, soon()));
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    long long n = (long long)senders * letters_each;
    EQUAL(sum, n * (n - 1) / 2);
    for (int i = 0; i < posts; i++)
        golibx_chan_free(post[i]);
    golibx_chan_free(stop);
}

static void goroutines_compete(void) { selects_compete(0); }
static void threads_compete(void) { selects_compete(2); }

static void deadlines_race_with_senders(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0), *d = golibx_chan_new(sizeof(int), 0);
    for (int i = 0; i < 400; i++) {
        struct waiter w = {.chan = {c, d, NULL}, .value = -1, .deadline = in(500000)};
        start(wait_for_three, &w);
        while (golibx_nanotime() < w.deadline - 20000 + 100 * i)
            golibx_gosched();
        int value = i;
        int sent = golibx_chan_send_until(i % 2 ? c : d, &value, 0);
        wait_for_all();
        if (sent == GOLIBX_OK) {
            EQUAL(w.chosen, i % 2 ? 0 : 1);
            EQUAL(w.value, i);
        } else {
            CODE(w.chosen, GOLIBX_TIMEOUT);
            EQUAL(w.value, -1);
        }
    }
    golibx_chan_free(c);
    golibx_chan_free(d);
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE(the_case_that_can_go_on),
        CASE(nothing_can_go_on),
        CASE(null_never_fires),
        CASE(closed_channels),
        CASE(misuse),
        CASE(each_ready_case_is_as_likely),
        CASE(a_waiting_select_is_served),
        CASE(the_same_channel_twice),
        CASE(goroutines_compete),
        CASE(threads_compete),
        CASE(deadlines_race_with_senders),
    };
    return RUN_CASES(NULL, cases);
}
