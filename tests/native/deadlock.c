/* detect_deadlock: what it finds and says, and above all what it must not take for a deadlock.
 *
 * A case runs this program again as a child, with the name of a scene; the child ends by itself, by
 * golibx's report, or by the alarm that it has set.
 */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#define DEADLOCK 2
/* Much longer than the runtime takes to find a deadlock, which is some 30 ms. */
#define LATE (400 * MS)

static const char *self;
static golibx_config on = GOLIBX_CONFIG_INIT;
static golibx_chan *never, *wakes;

static void late(void) { usleep(LATE / 1000); }

/* ---- scenes: what the child does ---- */

static void wait_for_it(void)
{
    OK(golibx_chan_recv(wakes, NULL));
    _exit(0);
}

void exported_start(void *c) { golibx_chan_recv(c, NULL); }

static void in_mutex(void *m)
{
    golibx_mutex_lock(m);
    failed("deadlock.c", 0, "it got the mutex");
}

static void in_select(void *unused)
{
    UNUSED(unused);
    golibx_select(NULL, 0, GOLIBX_FOREVER);
}

static void in_park(void *unused)
{
    UNUSED(unused);
    OK(golibx_lock_os_thread());
    golibx_park(GOLIBX_FOREVER);
}

static void all_wait(void *unused)
{
    UNUSED(unused);
    static golibx_mutex mutex;
    golibx_mutex_lock(&mutex);
    OK(golibx_go(exported_start, never));
    OK(golibx_go(in_mutex, &mutex));
    OK(golibx_go(in_select, NULL));
    OK(golibx_go(in_park, NULL));
    golibx_waitgroup wg = {{0}};
    OK(golibx_wg_add(&wg, 1));
    OK(golibx_wg_wait(&wg, GOLIBX_FOREVER));
}

static void many_wait(void *unused)
{
    UNUSED(unused);
    for (int i = 0; i < 500; i++)
        OK(golibx_go(exported_start, never));
    exported_start(never);
}

static void after_work(void *unused)
{
    UNUSED(unused);
    golibx_sleep(20 * MS);
    int64_t sum = 0;
    for (int i = 0; i < 1000; i++) {
        golibx_gosched();
        sum += i;
    }
    EQUAL(sum, 499500);
    exported_start(never);
}

static void a_sleeper(void *unused)
{
    UNUSED(unused);
    golibx_sleep(LATE);
    OK(golibx_chan_send(wakes, NULL));
}

static void sleeper(void *unused)
{
    UNUSED(unused);
    OK(golibx_go(a_sleeper, NULL));
    wait_for_it();
}

static void deadline(void *unused)
{
    UNUSED(unused);
    CODE(golibx_chan_recv_until(never, NULL, in(LATE)), GOLIBX_TIMEOUT);
    _exit(0);
}

static void fires(void *unused)
{
    UNUSED(unused);
    OK(golibx_chan_send(wakes, NULL));
}

static void timer(void *unused)
{
    UNUSED(unused);
    golibx_timer *t = golibx_timer_new(fires, NULL);
    CODE(golibx_timer_reset(t, in(LATE)), 0);
    wait_for_it();
}

static int pipe_ends[2];

static void a_reader(void *unused)
{
    UNUSED(unused);
    golibx_fd *d = golibx_fd_open(pipe_ends[0]);
    CHECK(d != NULL);
    OK(golibx_fd_wait(d, GOLIBX_READ, GOLIBX_FOREVER));
    OK(golibx_chan_send(wakes, NULL));
}

/* Another process writes. */
static void descriptor(void *unused)
{
    UNUSED(unused);
    OK(golibx_go(a_reader, NULL));
    wait_for_it();
}

static void a_caller(void *unused)
{
    UNUSED(unused);
    golibx_entersyscall();
    late();
    golibx_exitsyscall();
    OK(golibx_chan_send(wakes, NULL));
}

static void system_call(void *unused)
{
    UNUSED(unused);
    OK(golibx_go(a_caller, NULL));
    wait_for_it();
}

static void a_hog(void *unused)
{
    UNUSED(unused);
    for (int64_t end = golibx_nanotime() + LATE; golibx_nanotime() < end;)
        ;
    OK(golibx_chan_send(wakes, NULL));
}

static void hog(void *unused)
{
    UNUSED(unused);
    OK(golibx_go(a_hog, NULL));
    wait_for_it();
}

static void *a_thread(void *unused)
{
    UNUSED(unused);
    late();
    OK(golibx_chan_send(wakes, NULL));
    return NULL;
}

static void thread(void *unused)
{
    UNUSED(unused);
    pthread_t t;
    EQUAL(pthread_create(&t, NULL, a_thread, NULL), 0);
    wait_for_it();
}

static void nothing(void *unused) { UNUSED(unused); }

/* It has been in golibx_run(), and comes back. */
static void *runs_then_wakes(void *unused)
{
    OK(golibx_run(NULL, nothing, NULL));
    return a_thread(unused);
}

static void thread_after_run(void *unused)
{
    UNUSED(unused);
    pthread_t t;
    EQUAL(pthread_create(&t, NULL, runs_then_wakes, NULL), 0);
    wait_for_it();
}

/* It waits as goroutines do, until its deadline. */
static void *waits_then_wakes(void *unused)
{
    CODE(golibx_chan_recv_until(never, NULL, in(LATE)), GOLIBX_TIMEOUT);
    OK(golibx_chan_send(wakes, NULL));
    return unused;
}

static void thread_in_a_call(void *unused)
{
    UNUSED(unused);
    pthread_t t;
    EQUAL(pthread_create(&t, NULL, waits_then_wakes, NULL), 0);
    wait_for_it();
}

/* Idle times, poller and timers in turn: none of it may look like a deadlock. */
static void echoes(void *fd)
{
    golibx_fd *d = fd;
    char byte;
    for (int i = 0; i < 300; i++) {
        EQUAL(golibx_read(d, &byte, 1, GOLIBX_FOREVER), 1);
        EQUAL(golibx_write(d, &byte, 1, GOLIBX_FOREVER), 1);
    }
}

static void busy_and_idle(void *unused)
{
    UNUSED(unused);
    golibx_fd *listener = golibx_tcp_listen("127.0.0.1", 0, 4);
    CHECK(listener != NULL);
    golibx_fd *client = golibx_tcp_dial("127.0.0.1", (uint16_t)golibx_tcp_port(listener), soon());
    golibx_fd *server = golibx_tcp_accept(listener, soon());
    CHECK(client != NULL && server != NULL);
    OK(golibx_go(echoes, server));
    char byte = 'x';
    for (int i = 0; i < 300; i++) {
        EQUAL(golibx_write(client, &byte, 1, GOLIBX_FOREVER), 1);
        EQUAL(golibx_read(client, &byte, 1, GOLIBX_FOREVER), 1);
        if (i % 30 == 0)
            golibx_sleep(30 * MS); /* long enough for sysmon to look */
    }
    _exit(0);
}

static void interrupted(int signal)
{
    UNUSED(signal);
    _exit(3);
}

static const struct scene {
    const char *name;
    void (*run)(void *);
} scenes[] = {
    {"all_wait", all_wait},       {"many_wait", many_wait},
    {"after_work", after_work},   {"sleeper", sleeper},
    {"deadline", deadline},       {"timer", timer},
    {"descriptor", descriptor},   {"system_call", system_call},
    {"hog", hog},                 {"thread", thread},
    {"thread_after_run", thread_after_run}, {"thread_in_a_call", thread_in_a_call},
    {"busy_and_idle", busy_and_idle},
};

/* In the child. */
static int play(const char *name, int detect, int procs)
{
    current_case = name;
    alarm(20);
    on.detect_deadlock = (uint32_t)detect;
    on.gomaxprocs = (uint32_t)procs;
    if (strcmp(name, "descriptor") == 0) {
        EQUAL(pipe(pipe_ends), 0);
        if (fork() == 0) {
            late();
            _exit(write(pipe_ends[1], "x", 1) == 1 ? 0 : 1);
        }
    }
    if (!detect) {
        signal(SIGALRM, interrupted);
        ualarm(LATE / 1000, 0);
    }
    OK(golibx_start(&on));
    never = golibx_chan_new(0, 0);
    wakes = golibx_chan_new(0, 1);
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        if (strcmp(name, scenes[i].name) == 0)
            OK(golibx_run(NULL, scenes[i].run, NULL));
    return 4;
}

/* ---- cases ---- */

static char said[64 * 1024];

/* Runs a scene in a child; returns its exit status, and what it wrote to stderr in `said`. */
static int child(const char *name, int detect, int procs)
{
    int ends[2];
    EQUAL(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        char number[12];
        snprintf(number, sizeof number, "%d", procs);
        execl(self, self, "scene", name, detect ? "1" : "0", number, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; (n = read(ends[0], said + length, sizeof said - 1 - length)) != 0;)
        if (n > 0)
            length += (size_t)n;
    said[length] = 0;
    close(ends[0]);
    int status = 0;
    EQUAL(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    return WEXITSTATUS(status);
}

static int lines_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void is_deadlock(const char *name, int procs)
{
    EQUAL(child(name, 1, procs), DEADLOCK);
    const char *first = "golibx: all goroutines are asleep: deadlock\ngoroutine ";
    if (strncmp(said, first, strlen(first)) != 0)
        failed(__FILE__, __LINE__, said);
}

static void is_none(const char *name)
{
    for (int procs = 1; procs <= 2; procs++) {
        int status = child(name, 1, procs);
        if (status != 0)
            failed(__FILE__, __LINE__, said);
        EQUAL(strlen(said), 0);
    }
}

static void a_deadlock_is_reported(void)
{
    for (int procs = 1; procs <= 4; procs++) {
        is_deadlock("all_wait", procs);
        EQUAL(lines_of(said), 6);
        CHECK(strstr(said, " [waitgroup wait]: "));
        CHECK(strstr(said, " [chan receive]: "));
        CHECK(strstr(said, " [sync.Mutex.Lock]: "));
        CHECK(strstr(said, " [select (no cases)]: "));
        CHECK(strstr(said, ", locked to its thread]: "));
    }
}

/* The function that golibx_run() was given, by its place in this file: it has no exported name. */
static void functions_have_names_or_places(void)
{
    is_deadlock("all_wait", 2);
    const char *main_line = strstr(said, "[waitgroup wait]: ");
    CHECK(main_line != NULL);
    const char *name = strrchr(self, '/');
    const char *file = strstr(main_line, name ? name + 1 : self);
    CHECK(file != NULL && file < strchr(main_line, '\n'));
    CHECK(strstr(file, "+0x"));
}

static void long_reports_are_cut(void)
{
    is_deadlock("many_wait", 2);
    EQUAL(lines_of(said), 102);
    CHECK(strstr(said, "\nand 401 more\n"));
}

static void found_after_work(void) { is_deadlock("after_work", 2); }

static void not_by_itself(void) { EQUAL(child("all_wait", 0, 2), 3); }

static void not_with_a_sleeper(void) { is_none("sleeper"); }
static void not_with_a_deadline(void) { is_none("deadline"); }
static void not_with_a_timer(void) { is_none("timer"); }
static void not_with_a_descriptor(void) { is_none("descriptor"); }
static void not_with_a_system_call(void) { is_none("system_call"); }
static void not_with_a_hog(void) { is_none("hog"); }
static void not_with_a_thread(void) { is_none("thread"); }
static void not_with_a_thread_after_run(void) { is_none("thread_after_run"); }
static void not_with_a_thread_in_a_call(void) { is_none("thread_in_a_call"); }
static void not_in_idle_times(void) { is_none("busy_and_idle"); }

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc == 5 && strcmp(argv[1], "scene") == 0)
        return play(argv[2], atoi(argv[3]), atoi(argv[4]));
    struct test_case cases[] = {
        CASE_OUTSIDE(a_deadlock_is_reported),
        CASE_OUTSIDE(functions_have_names_or_places),
        CASE_OUTSIDE(long_reports_are_cut),
        CASE_OUTSIDE(found_after_work),
        CASE_OUTSIDE(not_by_itself),
        CASE_OUTSIDE(not_with_a_sleeper),
        CASE_OUTSIDE(not_with_a_deadline),
        CASE_OUTSIDE(not_with_a_timer),
        CASE_OUTSIDE(not_with_a_descriptor),
        CASE_OUTSIDE(not_with_a_system_call),
        CASE_OUTSIDE(not_with_a_hog),
        CASE_OUTSIDE(not_with_a_thread),
        CASE_OUTSIDE(not_with_a_thread_after_run),
        CASE_OUTSIDE(not_with_a_thread_in_a_call),
        CASE_OUTSIDE(not_in_idle_times),
    };
    return RUN_CASES(NULL, cases);
}
