/* Channels: what Go's are, in every combination of waiting sides. */
#include "check.h"

#include <pthread.h>

static golibx_waitgroup running;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, soon())); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

/* ---- one goroutine ---- */

static void buffered(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 3);
    CHECK(c != NULL);
    EQUAL(golibx_chan_cap(c), 3);
    for (int i = 0; i < 10; i++) { /* around the buffer more than once */
        for (int k = 0; k < 3; k++) {
            int value = 10 * i + k;
            EQUAL(golibx_chan_len(c), k);
            OK(golibx_chan_send(c, &value));
        }
        EQUAL(golibx_chan_len(c), 3);
        int extra = -1;
        CODE(golibx_chan_send_until(c, &extra, 0), GOLIBX_WOULD_BLOCK);
        for (int k = 0; k < 3; k++) {
            int value = 0;
            OK(golibx_chan_recv(c, &value));
            EQUAL(value, 10 * i + k);
        }
        int value = 5;
        CODE(golibx_chan_recv_until(c, &value, 0), GOLIBX_WOULD_BLOCK);
        EQUAL(value, 5);
    }
    golibx_chan_free(c);
}

static void closed_channel(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 2);
    int value = 8;
    OK(golibx_chan_send(c, &value));
    OK(golibx_chan_close(c));
    CODE(golibx_chan_close(c), GOLIBX_CLOSED);
    CODE(golibx_chan_send(c, &value), GOLIBX_CLOSED);
    CODE(golibx_chan_send_until(c, &value, 0), GOLIBX_CLOSED);
    CODE(golibx_chan_send_until(c, &value, soon()), GOLIBX_CLOSED);
    value = 0;
    OK(golibx_chan_recv(c, &value)); /* what was sent before can still be received */
    EQUAL(value, 8);
    CODE(golibx_chan_recv(c, &value), GOLIBX_CLOSED);
    EQUAL(value, 0); /* zeroed */
    value = 8;
    CODE(golibx_chan_recv_until(c, &value, 0), GOLIBX_CLOSED);
    EQUAL(value, 0);
    CODE(golibx_chan_recv_until(c, NULL, soon()), GOLIBX_CLOSED);
    EQUAL(golibx_chan_len(c), 0);
    EQUAL(golibx_chan_cap(c), 2);
    golibx_chan_free(c);
}

static void deadlines(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    int value = 1;
    int64_t began = golibx_nanotime();
    CODE(golibx_chan_recv_until(c, &value, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    EQUAL(value, 1);
    began = golibx_nanotime();
    CODE(golibx_chan_send_until(c, &value, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    NOT_NOW(golibx_chan_recv_until(c, &value, began));
    NOT_NOW(golibx_chan_send_until(c, &value, began));
    CODE(golibx_chan_recv_until(c, &value, 0), GOLIBX_WOULD_BLOCK); /* none is left queued */
    EQUAL(golibx_chan_len(c), 0);
    golibx_chan_free(c);
}

static void every_element_size(void)
{
    size_t sizes[] = {0, 1, 2, 3, 4, 7, 8, 9, 16, 100, 4096, 65536};
    static unsigned char sent[65536], got[65537];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        golibx_chan *c = golibx_chan_new(sizes[i], 4);
        CHECK(c != NULL);
        for (size_t k = 0; k < sizes[i]; k++)
            sent[k] = (unsigned char)(k * 7 + i + 1);
        memset(got, 0xee, sizeof got);
        for (int round = 0; round < 9; round++) {
            OK(golibx_chan_send(c, sent));
            OK(golibx_chan_recv(c, got));
            EQUAL(memcmp(sent, got, sizes[i]), 0);
            EQUAL(got[sizes[i]], 0xee); /* nothing beyond it was written */
        }
        OK(golibx_chan_send(c, sent));
        OK(golibx_chan_recv(c, NULL));
        OK(golibx_chan_close(c));
        memset(got, 0xee, sizeof got);
        CODE(golibx_chan_recv(c, got), GOLIBX_CLOSED);
        for (size_t k = 0; k < sizes[i]; k++)
            EQUAL(got[k], 0);
        EQUAL(got[sizes[i]], 0xee);
        golibx_chan_free(c);
    }
    golibx_chan *without_values = golibx_chan_new(0, 1);
    OK(golibx_chan_send(without_values, NULL));
    CODE(golibx_chan_send_until(without_values, NULL, 0), GOLIBX_WOULD_BLOCK);
    OK(golibx_chan_recv(without_values, NULL));
    golibx_chan_free(without_values);
}

static void too_large(void)
{
    CHECK(golibx_chan_new(65537, 1) == NULL);
    CHECK(golibx_chan_new(SIZE_MAX, 1) == NULL);
    CHECK(golibx_chan_new(8, SIZE_MAX) == NULL);
    CHECK(golibx_chan_new(8, SIZE_MAX / 8) == NULL);
    CHECK(golibx_chan_new(65536, (size_t)1 << 48) == NULL);
    golibx_chan_free(NULL);
}

/* ---- two ---- */

struct letter {
    golibx_chan *chan;
    int value, code;
    int64_t deadline;
    atomic_int done;
};

static void send_letter(void *argument)
{
    struct letter *l = argument;
    l->code = golibx_chan_send_until(l->chan, &l->value, l->deadline);
    atomic_store(&l->done, 1);
    golibx_wg_done(&running);
}

static void receive_letter(void *argument)
{
    struct letter *l = argument;
    l->code = golibx_chan_recv_until(l->chan, &l->value, l->deadline);
    atomic_store(&l->done, 1);
    golibx_wg_done(&running);
}

static void a_receiver_waits_for_a_sender(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    struct letter l = {.chan = c, .value = -1, .deadline = GOLIBX_FOREVER, .code = 1};
    start(receive_letter, &l);
    golibx_sleep(10 * MS);
    EQUAL(l.done, 0);
    int value = 99;
    OK(golibx_chan_send_until(c, &value, 0)); /* it waits: this need not */
    wait_for_all();
    OK(l.code);
    EQUAL(l.value, 99);
    golibx_chan_free(c);
}

static void a_sender_waits_for_a_receiver(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    struct letter l = {.chan = c, .value = 98, .deadline = GOLIBX_FOREVER, .code = 1};
    start(send_letter, &l);
    golibx_sleep(10 * MS);
    EQUAL(l.done, 0);
    EQUAL(golibx_chan_len(c), 0);
    int value = -1;
    OK(golibx_chan_recv_until(c, &value, 0));
    EQUAL(value, 98);
    wait_for_all();
    OK(l.code);
    golibx_chan_free(c);
}

static void senders_of_a_full_channel_keep_their_order(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 2);
    struct letter l[5];
    for (int i = 0; i < 5; i++) {
        l[i] = (struct letter){.chan = c, .value = i, .deadline = GOLIBX_FOREVER, .code = 1};
        start(send_letter, &l[i]);
        golibx_sleep(5 * MS);
        EQUAL(l[i].done, i < 2);
    }
    EQUAL(golibx_chan_len(c), 2);
    for (int i = 0; i < 5; i++) {
        int value = -1;
        OK(golibx_chan_recv(c, &value));
        EQUAL(value, i);
    }
    wait_for_all();
    golibx_chan_free(c);
}

static void close_wakes_receivers(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 3);
    struct letter l[20];
    for (int i = 0; i < 20; i++) {
        l[i] = (struct letter){.chan = c, .value = i + 1, .code = 1};
        l[i].deadline = i % 2 ? GOLIBX_FOREVER : soon();
        start(receive_letter, &l[i]);
    }
    golibx_sleep(10 * MS);
    OK(golibx_chan_close(c));
    wait_for_all();
    for (int i = 0; i < 20; i++) {
        CODE(l[i].code, GOLIBX_CLOSED);
        EQUAL(l[i].value, 0);
    }
    golibx_chan_free(c);
}

static void close_wakes_senders(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    struct letter l[20];
    for (int i = 0; i < 20; i++) {
        l[i] = (struct letter){.chan = c, .value = i + 1, .code = 1};
        l[i].deadline = i % 2 ? GOLIBX_FOREVER : soon();
        start(send_letter, &l[i]);
    }
    golibx_sleep(10 * MS);
    OK(golibx_chan_close(c));
    wait_for_all();
    for (int i = 0; i < 20; i++) {
        CODE(l[i].code, GOLIBX_CLOSED);
        EQUAL(l[i].value, i + 1); /* still the caller's */
    }
    golibx_chan_free(c);
}

static void a_deadline_races_with_a_sender(void)
{
    golibx_chan *c = golibx_chan_new(sizeof(int), 0);
    for (int i = 0; i < 500; i++) {
        struct letter l = {.chan = c, .value = -1, .code = 1};
        l.deadline = in(500000);
        start(receive_letter, &l);
        while (golibx_nanotime() < l.deadline - 20000 + 100 * i)
            golibx_gosched();
        int value = i;
        int sent = golibx_chan_send_until(c, &value, 0);
        wait_for_all();
        if (sent == GOLIBX_OK) {
            OK(l.code);
            EQUAL(l.value, i);
        } else {
            CODE(sent, GOLIBX_WOULD_BLOCK);
            CODE(l.code, GOLIBX_TIMEOUT);
            EQUAL(l.value, -1);
        }
    }
    golibx_chan_free(c);
}

/* ---- many ---- */

enum { workers = 8, letters_each = 20000 };
static golibx_chan *post;
static atomic_llong received_sum, received_count;

static void post_all(void *first)
{
    int value = (int)(intptr_t)first;
    for (int i = 0; i < letters_each; i++, value += workers)
        OK(golibx_chan_send(post, &value));
    golibx_wg_done(&running);
}

static golibx_waitgroup receiving;

static void receive_all(void *unused)
{
    UNUSED(unused);
    int value;
    int last[workers];
    memset(last, -1, sizeof last);
    while (golibx_chan_recv(post, &value) == GOLIBX_OK) {
        atomic_fetch_add(&received_sum, value);
        atomic_fetch_add(&received_count, 1);
        CHECK(value > last[value % workers]); /* of one sender, in the order sent */
        last[value % workers] = value;
    }
    golibx_wg_done(&receiving);
}

static void *post_from_a_thread(void *first)
{
    post_all(first);
    return NULL;
}

static void *receive_in_a_thread(void *unused)
{
    receive_all(unused);
    return NULL;
}

static void many_to_many(size_t capacity, int with_threads)
{
    post = golibx_chan_new(sizeof(int), capacity);
    received_sum = received_count = 0;
    pthread_t threads[2 * workers];
    for (int i = 0; i < workers; i++) {
        void *first = (void *)(intptr_t)i;
        int thread = with_threads && i % 2;
        OK(golibx_wg_add(&running, 1));
        OK(golibx_wg_add(&receiving, 1));
        if (thread) {
            EQUAL(pthread_create(&threads[2 * i], NULL, post_from_a_thread, first), 0);
            EQUAL(pthread_create(&threads[2 * i + 1], NULL, receive_in_a_thread, NULL), 0);
        } else {
            OK(golibx_go(post_all, first));
            OK(golibx_go(receive_all, NULL));
        }
    }
    OK(golibx_wg_wait(&running, in(40 * SECOND)));
    OK(golibx_chan_close(post));
    OK(golibx_wg_wait(&receiving, soon()));
    for (int i = 1; with_threads && i < workers; i += 2) {
        pthread_join(threads[2 * i], NULL);
        pthread_join(threads[2 * i + 1], NULL);
    }
    long long n = (long long)workers * letters_each;
    EQUAL(received_count, n);
    EQUAL(received_sum, n * (n - 1) / 2);
    golibx_chan_free(post);
}

static void many_to_many_unbuffered(void) { many_to_many(0, 0); }
static void many_to_many_buffered(void) { many_to_many(16, 0); }
static void many_to_many_with_threads(void) { many_to_many(4, 1); }

/* ---- threads that are no goroutines ---- */

static void *thread_sends_and_receives(void *argument)
{
    golibx_chan **c = argument;
    for (int i = 0; i < 2000; i++) {
        int value;
        OK(golibx_chan_recv_until(c[0], &value, soon()));
        EQUAL(value, i);
        value *= 2;
        OK(golibx_chan_send(c[1], &value));
    }
    int value;
    CODE(golibx_chan_recv_until(c[0], &value, 0), GOLIBX_WOULD_BLOCK);
    CODE(golibx_chan_recv_until(c[0], &value, in(5 * MS)), GOLIBX_TIMEOUT);
    CODE(golibx_chan_send_until(c[1], &value, in(5 * MS)), GOLIBX_TIMEOUT);
    CODE(golibx_chan_recv(c[2], &value), GOLIBX_CLOSED);
    return NULL;
}

static void a_thread_blocks(void)
{
    golibx_chan *c[3];
    for (int i = 0; i < 3; i++)
        c[i] = golibx_chan_new(sizeof(int), 0);
    pthread_t thread;
    EQUAL(pthread_create(&thread, NULL, thread_sends_and_receives, c), 0);
    for (int i = 0; i < 2000; i++) {
        int value = i;
        OK(golibx_chan_send(c[0], &value));
        OK(golibx_chan_recv(c[1], &value));
        EQUAL(value, 2 * i);
    }
    golibx_sleep(30 * MS);
    OK(golibx_chan_close(c[2]));
    pthread_join(thread, NULL);
    for (int i = 0; i < 3; i++)
        golibx_chan_free(c[i]);
}

static void double_it(void *argument)
{
    golibx_chan **c = argument;
    int value;
    while (golibx_chan_recv(c[0], &value) == GOLIBX_OK) {
        value *= 2;
        OK(golibx_chan_send(c[1], &value));
    }
    OK(golibx_chan_close(c[1]));
}

static void the_main_thread_talks_to_a_goroutine(void)
{
    OK(golibx_start(NULL));
    golibx_chan *c[2] = {golibx_chan_new(sizeof(int), 0), golibx_chan_new(sizeof(int), 1)};
    OK(golibx_go(double_it, c));
    int value;
    for (int i = 0; i < 2000; i++) {
        OK(golibx_chan_send(c[0], &i));
        OK(golibx_chan_recv(c[1], &value));
        EQUAL(value, 2 * i);
    }
    OK(golibx_chan_close(c[0]));
    CODE(golibx_chan_recv(c[1], &value), GOLIBX_CLOSED);
    OK(golibx_stop(soon()));
    golibx_chan_free(c[0]);
    golibx_chan_free(c[1]);
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(the_main_thread_talks_to_a_goroutine),
        CASE(buffered),
        CASE(closed_channel),
        CASE(deadlines),
        CASE(every_element_size),
        CASE(too_large),
        CASE(a_receiver_waits_for_a_sender),
        CASE(a_sender_waits_for_a_receiver),
        CASE(senders_of_a_full_channel_keep_their_order),
        CASE(close_wakes_receivers),
        CASE(close_wakes_senders),
        CASE(a_deadline_races_with_a_sender),
        CASE(many_to_many_unbuffered),
        CASE(many_to_many_buffered),
        CASE(many_to_many_with_threads),
        CASE(a_thread_blocks),
    };
    return RUN_CASES(NULL, cases);
}
