/* The child of a fork, in programs without Python. */
#include "check.h"

#include <sys/wait.h>

static golibx_chan *never;
static golibx_mutex held, contended;
static golibx_cond changed;
static golibx_waitgroup everybody;
static golibx_sem permits;
static golibx_timer *timer;
static int ends[2];
static golibx_fd *handle;
static atomic_int waiting, ran;

static void count(void *unused)
{
    UNUSED(unused);
    ran++;
}

static void receive(void *unused)
{
    UNUSED(unused);
    waiting++;
    golibx_chan_recv(never, NULL);
}

static void lock(void *unused)
{
    UNUSED(unused);
    waiting++;
    golibx_mutex_lock(&held);
}

static void wait_for_change(void *unused)
{
    UNUSED(unused);
    golibx_mutex_lock(&contended);
    waiting++;
    golibx_cond_wait(&changed, &contended, GOLIBX_FOREVER);
}

static void wait_for_everybody(void *unused)
{
    UNUSED(unused);
    waiting++;
    golibx_wg_wait(&everybody, GOLIBX_FOREVER);
}

static void acquire(void *unused)
{
    UNUSED(unused);
    waiting++;
    golibx_sem_acquire(&permits, GOLIBX_FOREVER);
}

static void wait_for_data(void *unused)
{
    UNUSED(unused);
    waiting++;
    golibx_fd_wait(handle, GOLIBX_READ, GOLIBX_FOREVER);
}

static void busy(void *unused)
{
    UNUSED(unused);
    waiting++;
    for (volatile int i = 0;; i++)
        ;
}

static void (*const all[])(void *) = {
    receive, lock, wait_for_change, wait_for_everybody, acquire, wait_for_data, busy,
};

/* Goroutines that wait for each object, and one that computes. */
static void others_wait(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.gomaxprocs = 2;
    OK(golibx_start(&config));
    never = golibx_chan_new(0, 0);
    golibx_mutex_lock(&held);
    OK(golibx_wg_add(&everybody, 1));
    golibx_sem_init(&permits, 0);
    EQUAL(pipe(ends), 0);
    CHECK((handle = golibx_fd_open(ends[0])) != NULL);
    timer = golibx_timer_new(count, NULL);
    EQUAL(golibx_timer_reset(timer, golibx_nanotime() + 3600 * SECOND), 0);
    int n = (int)(sizeof all / sizeof *all);
    for (int i = 0; i < n; i++)
        OK(golibx_go(all[i], NULL));
    while (waiting < n)
        golibx_sleep(MS);
    golibx_sleep(10 * MS);
}

/* What the child may do: the objects are made anew. */
static void use_everything(void)
{
    golibx_counters c = {.size = sizeof c};
    OK(golibx_stats(&c));
    EQUAL(c.goroutines, 0);
    EQUAL(c.threads, 0);
    CODE(golibx_go(count, NULL), GOLIBX_NOT_RUNNING);
    OK(golibx_start(NULL));

    never = golibx_chan_new(0, 0);
    memset(&held, 0, sizeof held);
    memset(&contended, 0, sizeof contended);
    memset(&changed, 0, sizeof changed);
    memset(&everybody, 0, sizeof everybody);
    golibx_sem_init(&permits, 0);
    timer = golibx_timer_new(count, NULL);
    CODE(golibx_fd_number(handle), GOLIBX_CLOSED);
    CODE(golibx_fd_wait(handle, GOLIBX_READ, 0), GOLIBX_CLOSED);
    CODE(golibx_fd_close(handle, 0), GOLIBX_CLOSED);
    CHECK((handle = golibx_fd_open(ends[0])) != NULL);

    golibx_mutex_lock(&held);
    OK(golibx_wg_add(&everybody, 1));
    waiting = 0;
    int n = (int)(sizeof all / sizeof *all) - 1; /* without busy */
    for (int i = 0; i < n; i++)
        OK(golibx_go(all[i], NULL));
    EQUAL(golibx_timer_reset(timer, golibx_nanotime()), 0);
    while (waiting < n || ran < 1)
        golibx_sleep(MS);
    OK(golibx_chan_close(never));
    OK(golibx_mutex_unlock(&held));
    golibx_mutex_lock(&contended);
    golibx_cond_broadcast(&changed);
    OK(golibx_mutex_unlock(&contended));
    OK(golibx_wg_done(&everybody));
    OK(golibx_sem_release(&permits));
    EQUAL(write(ends[1], "x", 1), 1);
    OK(golibx_stop(golibx_nanotime() + 20 * SECOND));
}

static void child_ends(pid_t pid)
{
    CHECK(pid > 0);
    int status;
    EQUAL(waitpid(pid, &status, 0), pid);
    EQUAL(status, 0);
}

static void the_child_starts_anew(void)
{
    others_wait();
    for (int i = 0; i < 5; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            use_everything();
            _exit(0);
        }
        child_ends(pid);
    }
}

static void fork_and_use(void *returns)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        EQUAL(golibx_goid(), 0);
        use_everything();
        if (returns)
            return;
        _exit(0);
    }
    child_ends(pid);
    ran = 100;
}

static void a_goroutine_forks(void)
{
    for (int i = 0; i < 4; i++) {
        ran = 0;
        OK(golibx_go(fork_and_use, i % 2 ? "returns" : NULL));
        while (ran != 100)
            golibx_sleep(MS);
    }
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(the_child_starts_anew),
        /* In the runtime that the case before it has started. */
        CASE_OUTSIDE(a_goroutine_forks),
    };
    return RUN_CASES(NULL, cases);
}
