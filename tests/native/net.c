/* Descriptors and TCP: waiting, deadlines, closing under a waiter, and which code may wait. */
#include "check.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

static golibx_waitgroup running;

static void wait_for_all(void) { OK(golibx_wg_wait(&running, in(40 * SECOND))); }

static void start(void (*fn)(void *), void *argument)
{
    OK(golibx_wg_add(&running, 1));
    OK(golibx_go(fn, argument));
}

/* Two connected sockets that do not block, known to the poller. */
struct pair {
    int fd[2];
    golibx_fd *d[2];
};

static struct pair open_pair(void)
{
    struct pair p;
    EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, p.fd), 0);
    for (int i = 0; i < 2; i++) {
        EQUAL(fcntl(p.fd[i], F_SETFL, fcntl(p.fd[i], F_GETFL) | O_NONBLOCK), 0);
        p.d[i] = golibx_fd_open(p.fd[i]);
        CHECK(p.d[i] != NULL);
        EQUAL(golibx_fd_number(p.d[i]), p.fd[i]);
    }
    return p;
}

static void close_pair(struct pair *p)
{
    OK(golibx_fd_close(p->d[0], 1));
    OK(golibx_fd_close(p->d[1], 1));
}

static int is_open(int fd) { return fcntl(fd, F_GETFD) != -1; }

/* ---- descriptors ---- */

static void write_later(void *argument)
{
    struct pair *p = argument;
    golibx_sleep(10 * MS);
    EQUAL(write(p->fd[1], "x", 1), 1);
    golibx_wg_done(&running);
}

static void wait_until_readable(void)
{
    struct pair p = open_pair();
    char byte;
    for (int i = 0; i < 10; i++) {
        EQUAL(read(p.fd[0], &byte, 1), -1);
        ERRNO(EAGAIN);
        start(write_later, &p);
        OK(golibx_fd_wait(p.d[0], GOLIBX_READ, i % 2 ? GOLIBX_FOREVER : soon()));
        EQUAL(read(p.fd[0], &byte, 1), 1);
        wait_for_all();
    }
    close_pair(&p);
}

static void wait_until_writable(void)
{
    struct pair p = open_pair();
    OK(golibx_fd_wait(p.d[0], GOLIBX_WRITE, soon()));
    static char block[65536];
    while (write(p.fd[0], block, sizeof block) > 0) {
    }
    ERRNO(EAGAIN);
    int64_t began = golibx_nanotime();
    int code;
    /* A wake-up from before may still be there, as in Go: then the write says EAGAIN again. */
    while ((code = golibx_fd_wait(p.d[0], GOLIBX_WRITE, began + 20 * MS)) == GOLIBX_OK)
        EQUAL(write(p.fd[0], block, 1), -1);
    CODE(code, GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 20 * MS);
    while (read(p.fd[1], block, sizeof block) > 0) {
    }
    OK(golibx_fd_wait(p.d[0], GOLIBX_WRITE, soon()));
    EQUAL(write(p.fd[0], block, 1), 1);
    close_pair(&p);
}

static void deadlines(void)
{
    struct pair p = open_pair();
    char byte;
    EQUAL(read(p.fd[0], &byte, 1), -1);
    int64_t began = golibx_nanotime();
    CODE(golibx_fd_wait(p.d[0], GOLIBX_READ, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    NOT_NOW(golibx_fd_wait(p.d[0], GOLIBX_READ, 0));
    NOT_NOW(golibx_fd_wait(p.d[0], GOLIBX_READ, began));
    NOT_NOW(golibx_read(p.d[0], &byte, 1, 0));
    began = golibx_nanotime();
    CODE(golibx_read(p.d[0], &byte, 1, in(10 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    EQUAL(write(p.fd[1], "x", 1), 1); /* it can be used after a deadline has passed */
    EQUAL(golibx_read(p.d[0], &byte, 1, soon()), 1);
    close_pair(&p);
}

static void misuse(void)
{
    struct pair p = open_pair();
    CODE(golibx_fd_wait(p.d[0], 0, 0), GOLIBX_INVALID);
    CODE(golibx_fd_wait(p.d[0], 4, 0), GOLIBX_INVALID);
    close_pair(&p);

    clear_errno();
    CHECK(golibx_fd_open(-1) == NULL);
    CHECK(golibx_errno() != 0);
    clear_errno();
    CHECK(golibx_fd_open(100000) == NULL);
    ERRNO(EBADF);
}

static void a_file_is_refused(void)
{
    FILE *file = tmpfile();
    CHECK(file != NULL);
    clear_errno();
    golibx_fd *d = golibx_fd_open(fileno(file));
#ifdef __linux__
    CHECK(d == NULL);
    ERRNO(EPERM); /* epoll's word for it */
#endif
    if (d != NULL)
        golibx_fd_close(d, 0);
    fclose(file);
}

struct waiting {
    golibx_fd *d;
    int code, mode;
    int64_t deadline;
};

static void wait_for_it(void *argument)
{
    struct waiting *w = argument;
    w->code = golibx_fd_wait(w->d, w->mode, w->deadline);
    golibx_wg_done(&running);
}

static void one_waits_a_direction(void)
{
    struct pair p = open_pair();
    struct waiting reader = {p.d[0], 1, GOLIBX_READ, soon()};
    start(wait_for_it, &reader);
    golibx_sleep(10 * MS);
    CODE(golibx_fd_wait(p.d[0], GOLIBX_READ, soon()), GOLIBX_INVALID);
    OK(golibx_fd_wait(p.d[0], GOLIBX_WRITE, soon())); /* the other direction is free */
    EQUAL(write(p.fd[1], "x", 1), 1);
    wait_for_all();
    OK(reader.code);
    close_pair(&p);
}

static void closing_wakes_who_waits(void)
{
    for (int close_file = 0; close_file < 2; close_file++) {
        struct pair p = open_pair();
        static char block[65536];
        while (write(p.fd[0], block, sizeof block) > 0) {
        }
        golibx_fd_wait(p.d[0], GOLIBX_WRITE, 0); /* takes an old wake-up, if there is one */
        struct waiting reader = {p.d[0], 1, GOLIBX_READ, GOLIBX_FOREVER};
        struct waiting writer = {p.d[0], 1, GOLIBX_WRITE, soon()};
        start(wait_for_it, &reader);
        start(wait_for_it, &writer);
        golibx_sleep(10 * MS);
        OK(golibx_fd_close(p.d[0], close_file));
        wait_for_all();
        CODE(reader.code, GOLIBX_CLOSED);
        CODE(writer.code, GOLIBX_CLOSED);
        EQUAL(is_open(p.fd[0]), !close_file);
        if (!close_file) /* it can be registered again */
            OK(golibx_fd_close(golibx_fd_open(p.fd[0]), 1));
        OK(golibx_fd_close(p.d[1], 1));
    }
}

/* Every call on `d` says that it is closed. */
static void check_closed(golibx_fd *d)
{
    char byte = 0;
    for (int i = 0; i < 2; i++) {
        int64_t deadline = i == 0 ? 0 : GOLIBX_FOREVER;
        CODE(golibx_fd_wait(d, GOLIBX_READ, deadline), GOLIBX_CLOSED);
        CODE(golibx_fd_wait(d, GOLIBX_WRITE, deadline), GOLIBX_CLOSED);
        CODE(golibx_read(d, &byte, 1, deadline), GOLIBX_CLOSED);
        CODE(golibx_write(d, &byte, 1, deadline), GOLIBX_CLOSED);
        clear_errno();
        CHECK(golibx_tcp_accept(d, deadline) == NULL);
        ERRNO(EBADF);
    }
    CODE(golibx_fd_number(d), GOLIBX_CLOSED);
    CODE(golibx_tcp_port(d), GOLIBX_CLOSED);
    CODE(golibx_fd_close(d, 0), GOLIBX_CLOSED);
    CODE(golibx_fd_close(d, 1), GOLIBX_CLOSED);
}

/* The number and the descriptor get used again and again; the handle stays closed. */
static void a_closed_handle_stays_closed(void)
{
    enum { times = 200 };
    golibx_fd *old[times];
    struct pair p = open_pair();
    int number = p.fd[0];
    for (int i = 0; i < times; i++) {
        old[i] = p.d[0];
        close_pair(&p);
        p = open_pair();
        EQUAL(p.fd[0], number);
        EQUAL(write(p.fd[1], "x", 1), 1); /* it could be read, and written to */
        for (int k = 0; k <= i; k++) {
            CHECK(old[k] != p.d[0]);
            CODE(golibx_fd_number(old[k]), GOLIBX_CLOSED);
        }
        check_closed(old[i]);
        check_closed(old[i / 2]);
    }
    char byte;
    EQUAL(golibx_read(p.d[0], &byte, 1, 0), 1);
    EQUAL(golibx_write(p.d[0], "y", 1, 0), 1);
    EQUAL(read(p.fd[1], &byte, 1), 1);
    NOT_NOW(golibx_read(p.d[0], &byte, 1, 0));
    close_pair(&p);
}

static void what_is_no_handle(void)
{
    char byte = 0;
    static char object[64];
    golibx_fd *none[] = {NULL, (golibx_fd *)object, (golibx_fd *)(uintptr_t)-1,
                         (golibx_fd *)(uintptr_t)-2, (golibx_fd *)1, (golibx_fd *)2};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        int code = golibx_fd_wait(none[i], GOLIBX_READ, 0);
        CHECK(code == GOLIBX_CLOSED || (none[i] == NULL && code == GOLIBX_INVALID));
        CODE(golibx_read(none[i], &byte, 1, 0), code);
        CODE(golibx_write(none[i], &byte, 1, 0), code);
        CODE(golibx_fd_number(none[i]), code);
        CODE(golibx_tcp_port(none[i]), code);
        CODE(golibx_fd_close(none[i], 1), code);
        CHECK(golibx_tcp_accept(none[i], 0) == NULL);
    }
}

struct reading {
    golibx_fd *d;
    ptrdiff_t result;
    char byte;
};

static void read_one(void *argument)
{
    struct reading *r = argument;
    r->result = golibx_read(r->d, &r->byte, 1, GOLIBX_FOREVER);
    golibx_wg_done(&running);
}

static void close_it(void *argument)
{
    struct reading *r = argument;
    r->result = golibx_fd_close(r->d, 1);
    golibx_wg_done(&running);
}

/* Its number belongs to another file, which has something to read, before the reader can run. */
static void a_reader_meets_no_other_file(void)
{
    for (int i = 0; i < 100; i++) {
        struct pair p = open_pair();
        struct reading reader = {.d = p.d[0]};
        start(read_one, &reader);
        for (int k = 0; k < i % 4; k++)
            golibx_gosched(); /* the reader waits already, or does not */
        OK(golibx_fd_close(p.d[0], i % 2));
        if (i % 2 == 0)
            EQUAL(close(p.fd[0]), 0);
        struct pair q = open_pair();
        EQUAL(q.fd[0], p.fd[0]);
        EQUAL(write(q.fd[1], "x", 1), 1);
        wait_for_all();
        CODE(reader.result, GOLIBX_CLOSED);
        EQUAL(golibx_read(q.d[0], &reader.byte, 1, 0), 1);
        close_pair(&q);
        OK(golibx_fd_close(p.d[1], 1));
    }
}

static void one_of_many_closes(void)
{
    enum { closers = 10 };
    struct pair p = open_pair();
    struct reading reader = {.d = p.d[0]}, closer[closers];
    start(read_one, &reader);
    for (int i = 0; i < closers; i++) {
        closer[i] = (struct reading){.d = p.d[0]};
        start(close_it, &closer[i]);
    }
    wait_for_all();
    int closed = 0;
    for (int i = 0; i < closers; i++) {
        if (closer[i].result != GOLIBX_OK)
            CODE(closer[i].result, GOLIBX_CLOSED);
        closed += closer[i].result == GOLIBX_OK;
    }
    EQUAL(closed, 1);
    CODE(reader.result, GOLIBX_CLOSED);
    CHECK(!is_open(p.fd[0]));
    OK(golibx_fd_close(p.d[1], 1));
}

static void *read_in_a_thread(void *argument)
{
    struct reading *r = argument;
    do /* another one waits */
        r->result = golibx_read(r->d, &r->byte, 1, GOLIBX_FOREVER);
    while (r->result == GOLIBX_INVALID);
    return NULL;
}

/* What is open at the end is closed, with its waiters, which are no goroutines; the handle is so in
 * the next runtime too, where the file can be registered again. */
static void the_end_closes_handles(void)
{
    OK(golibx_start(NULL));
    struct pair p = open_pair();
    struct reading reader = {.d = p.d[0]};
    pthread_t thread;
    EQUAL(pthread_create(&thread, NULL, read_in_a_thread, &reader), 0);
    while (golibx_fd_wait(p.d[0], GOLIBX_READ, in(MS)) != GOLIBX_INVALID) { /* it does not wait yet */
    }
    OK(golibx_stop(soon()));
    pthread_join(thread, NULL);
    CODE(reader.result, GOLIBX_CLOSED);
    check_closed(p.d[0]);
    OK(golibx_start(NULL));
    check_closed(p.d[0]);
    golibx_fd *again = golibx_fd_open(p.fd[0]);
    CHECK(again != NULL && again != p.d[0] && again != p.d[1]);
    check_closed(p.d[0]);
    EQUAL(write(p.fd[1], "x", 1), 1);
    EQUAL(golibx_read(again, &reader.byte, 1, soon()), 1);
    OK(golibx_fd_close(again, 1));
    EQUAL(close(p.fd[1]), 0);
    OK(golibx_stop(soon()));
}

struct pipe_end {
    golibx_fd *d;
    size_t size;
};

static void write_all(void *argument)
{
    struct pipe_end *e = argument;
    unsigned char *data = malloc(e->size);
    for (size_t i = 0; i < e->size; i++)
        data[i] = (unsigned char)(i * 31 + i / 251);
    EQUAL(golibx_write(e->d, data, e->size, soon()), e->size);
    OK(golibx_fd_close(e->d, 1));
    free(data);
    golibx_wg_done(&running);
}

static void everything_arrives(int from, int to)
{
    struct pipe_end out = {golibx_fd_open(to), 3 * 1024 * 1024 + 17};
    golibx_fd *d = golibx_fd_open(from);
    CHECK(out.d != NULL && d != NULL);
    start(write_all, &out);
    size_t total = 0;
    unsigned char buffer[5000];
    ptrdiff_t n;
    while ((n = golibx_read(d, buffer, sizeof buffer, soon())) > 0)
        for (ptrdiff_t i = 0; i < n; i++, total++)
            EQUAL(buffer[i], (unsigned char)(total * 31 + total / 251));
    CODE(n, 0); /* the end */
    EQUAL(total, out.size);
    wait_for_all();
    OK(golibx_fd_close(d, 1));
}

static void write_writes_everything(void)
{
    struct pair p = open_pair();
    for (int i = 0; i < 2; i++)
        OK(golibx_fd_close(p.d[i], 0));
    everything_arrives(p.fd[0], p.fd[1]);
}

static void a_pipe_is_a_descriptor_too(void)
{
    int fd[2];
    EQUAL(pipe(fd), 0);
    for (int i = 0; i < 2; i++)
        EQUAL(fcntl(fd[i], F_SETFL, O_NONBLOCK), 0);
    everything_arrives(fd[0], fd[1]);
}

static void write_to_nobody(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct pair p = open_pair();
    OK(golibx_fd_close(p.d[1], 1));
    clear_errno();
    CODE(golibx_write(p.d[0], "x", 1, soon()), GOLIBX_SYSTEM);
    ERRNO(EPIPE);
    char byte;
    EQUAL(golibx_read(p.d[0], &byte, 1, soon()), 0);
    OK(golibx_fd_close(p.d[0], 1));
}

static void a_write_has_a_deadline(void)
{
    struct pair p = open_pair();
    static char block[4 * 1024 * 1024];
    int64_t began = golibx_nanotime();
    CODE(golibx_write(p.d[0], block, sizeof block, in(20 * MS)), GOLIBX_TIMEOUT);
    CHECK(golibx_nanotime() - began >= 20 * MS);
    close_pair(&p);
}

/* Two goroutines fail again and again, for different reasons, while hogs have them preempted: each
 * finds its own reason in errno. */
static atomic_int stop;

static void write_in_vain(void *unused)
{
    UNUSED(unused);
    signal(SIGPIPE, SIG_IGN);
    struct pair p = open_pair();
    OK(golibx_fd_close(p.d[1], 1));
    while (!atomic_load(&stop)) {
        CODE(golibx_write(p.d[0], "x", 1, soon()), GOLIBX_SYSTEM);
        ERRNO(EPIPE);
    }
    OK(golibx_fd_close(p.d[0], 1));
    golibx_wg_done(&running);
}

static void open_in_vain(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop)) {
        CHECK(golibx_fd_open(100000) == NULL);
        ERRNO(EBADF);
    }
    golibx_wg_done(&running);
}

static void errno_is_the_callers(void)
{
    golibx_config config = GOLIBX_CONFIG_INIT;
    config.gomaxprocs = 2;
    config.preempt_slice_ns = MS;
    config.sysmon_sleep_max_ns = MS;
    OK(golibx_start(&config));
    stop = 0;
    for (int i = 0; i < 3; i++) {
        start(write_in_vain, NULL);
        start(open_in_vain, NULL);
    }
    golibx_sleep(500 * MS);
    atomic_store(&stop, 1);
    wait_for_all();
    OK(golibx_stop(soon()));
}

/* ---- TCP ---- */

static void accept_one(void *argument)
{
    golibx_fd **both = argument; /* the listener, then the connection */
    both[1] = golibx_tcp_accept(both[0], soon());
    golibx_wg_done(&running);
}

static void connect_on(const char *host)
{
    golibx_fd *listener = golibx_tcp_listen(host, 0, 10);
    CHECK(listener != NULL);
    int port = golibx_tcp_port(listener);
    CHECK(port > 0 && port < 65536);
    golibx_fd *server[2] = {listener, NULL};
    start(accept_one, server);
    golibx_fd *client = golibx_tcp_dial(host, (uint16_t)port, soon());
    CHECK(client != NULL);
    CHECK(golibx_tcp_port(client) > 0 && golibx_tcp_port(client) != port);
    wait_for_all();
    CHECK(server[1] != NULL);
    EQUAL(golibx_tcp_port(server[1]), port);
    CHECK(golibx_fd_number(client) >= 0 && is_open(golibx_fd_number(client)));

    char text[6] = "";
    EQUAL(golibx_write(client, "hello", 5, soon()), 5);
    EQUAL(golibx_read(server[1], text, 5, soon()), 5);
    CHECK(strcmp(text, "hello") == 0);
    OK(golibx_fd_close(server[1], 1));
    EQUAL(golibx_read(client, text, 5, soon()), 0);
    OK(golibx_fd_close(client, 1));
    OK(golibx_fd_close(listener, 1));
}

/* The port is free when the listener is closed, also with a goroutine in accept. */
static void a_port_can_be_used_again(void)
{
    golibx_fd *both[2] = {golibx_tcp_listen("127.0.0.1", 0, 10), NULL};
    uint16_t port = (uint16_t)golibx_tcp_port(both[0]);
    for (int i = 0; i < 20; i++) {
        start(accept_one, both);
        for (int k = 0; k < i % 3; k++)
            golibx_gosched();
        golibx_fd *old = both[0];
        OK(golibx_fd_close(old, 1));
        golibx_fd *listener = golibx_tcp_listen("127.0.0.1", port, 10);
        CHECK(listener != NULL);
        wait_for_all();
        CHECK(both[1] == NULL);
        check_closed(old);
        EQUAL(golibx_tcp_port(listener), port);
        both[0] = listener;
    }
    OK(golibx_fd_close(both[0], 1));
}

static void tcp_v4(void) { connect_on("127.0.0.1"); }

static void tcp_v6(void)
{
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int there = probe >= 0 && bind(probe, (struct sockaddr *)&loopback, sizeof loopback) == 0;
    if (probe >= 0)
        close(probe);
    if (there)
        connect_on("::1");
}

static void tcp_failures(void)
{
    clear_errno();
    CHECK(golibx_tcp_listen("not an address", 0, 10) == NULL);
    CHECK(golibx_errno() != 0);
    clear_errno();
    CHECK(golibx_tcp_dial("localhost.", 1, soon()) == NULL); /* a name is no numeric address */
    CHECK(golibx_errno() != 0);
    clear_errno();
    CHECK(golibx_tcp_listen("192.0.2.1", 0, 10) == NULL); /* not an address of this machine */
    CHECK(golibx_errno() != 0);

    golibx_fd *listener = golibx_tcp_listen("127.0.0.1", 0, 10);
    uint16_t port = (uint16_t)golibx_tcp_port(listener);
    clear_errno();
    CHECK(golibx_tcp_listen("127.0.0.1", port, 10) == NULL);
    ERRNO(EADDRINUSE);
    OK(golibx_fd_close(listener, 1));
    clear_errno();
    CHECK(golibx_tcp_dial("127.0.0.1", port, soon()) == NULL);
    ERRNO(ECONNREFUSED);

    struct pair p = open_pair();
    CHECK(golibx_tcp_port(p.d[0]) < 0); /* no TCP */
    close_pair(&p);
}

static void accept_has_a_deadline(void)
{
    golibx_fd *listener = golibx_tcp_listen("127.0.0.1", 0, 10);
    int64_t began = golibx_nanotime();
    clear_errno();
    CHECK(golibx_tcp_accept(listener, in(10 * MS)) == NULL);
    ERRNO(ETIMEDOUT);
    CHECK(golibx_nanotime() - began >= 10 * MS);
    CHECK(golibx_tcp_accept(listener, 0) == NULL);
    OK(golibx_fd_close(listener, 1));
}

static void closing_ends_accept(void)
{
    golibx_fd *both[2] = {golibx_tcp_listen("127.0.0.1", 0, 10), (golibx_fd *)&both};
    start(accept_one, both);
    golibx_sleep(10 * MS);
    OK(golibx_fd_close(both[0], 1));
    wait_for_all();
    CHECK(both[1] == NULL);
}

/* ---- many ---- */

enum { connections = 200, messages = 30 };
static atomic_int echoed;

static void echo(void *connection)
{
    char buffer[1000];
    ptrdiff_t n;
    while ((n = golibx_read(connection, buffer, sizeof buffer, soon())) > 0)
        EQUAL(golibx_write(connection, buffer, (size_t)n, soon()), n);
    EQUAL(n, 0);
    OK(golibx_fd_close(connection, 1));
    golibx_wg_done(&running);
}

static void serve(void *listener)
{
    for (int i = 0; i < connections; i++) {
        golibx_fd *connection = golibx_tcp_accept(listener, soon());
        CHECK(connection != NULL);
        start(echo, connection);
    }
    golibx_wg_done(&running);
}

static void talk(void *port)
{
    golibx_fd *d = golibx_tcp_dial("127.0.0.1", (uint16_t)(intptr_t)port, soon());
    CHECK(d != NULL);
    for (int i = 0; i < messages; i++) {
        uint64_t sent = golibx_goid() * 1000 + (uint64_t)i, got = 0;
        EQUAL(golibx_write(d, &sent, sizeof sent, soon()), sizeof sent);
        for (size_t have = 0; have < sizeof got;) {
            ptrdiff_t n = golibx_read(d, (char *)&got + have, sizeof got - have, soon());
            CHECK(n > 0);
            have += (size_t)n;
        }
        CHECK(got == sent);
        atomic_fetch_add(&echoed, 1);
    }
    OK(golibx_fd_close(d, 1));
    golibx_wg_done(&running);
}

static void many_connections(void)
{
    echoed = 0;
    golibx_fd *listener = golibx_tcp_listen("127.0.0.1", 0, 1024);
    CHECK(listener != NULL);
    uint64_t wakeups = counters().netpoll_wakeups;
    start(serve, listener);
    for (int i = 0; i < connections; i++)
        start(talk, (void *)(intptr_t)golibx_tcp_port(listener));
    wait_for_all();
    EQUAL(echoed, connections * messages);
    CHECK(counters().netpoll_wakeups > wakeups);
    OK(golibx_fd_close(listener, 1));
}

static void *talk_in_a_thread(void *port)
{
    talk(port);
    return NULL;
}

static void serve_two(void *listener)
{
    for (int i = 0; i < 2; i++) {
        golibx_fd *connection = golibx_tcp_accept(listener, soon());
        CHECK(connection != NULL);
        start(echo, connection);
    }
    golibx_wg_done(&running);
}

/* Threads that are no goroutines wait for the network too. */
static void threads_use_the_network(void)
{
    OK(golibx_start(NULL));
    golibx_fd *listener = golibx_tcp_listen("127.0.0.1", 0, 10);
    CHECK(listener != NULL);
    start(serve_two, listener);
    void *port = (void *)(intptr_t)golibx_tcp_port(listener);
    OK(golibx_wg_add(&running, 2));
    pthread_t thread;
    EQUAL(pthread_create(&thread, NULL, talk_in_a_thread, port), 0);
    talk(port);
    pthread_join(thread, NULL);
    wait_for_all();
    OK(golibx_fd_close(listener, 1));
    OK(golibx_stop(soon()));
}

int main(int argc, char **argv)
{
    struct test_case cases[] = {
        CASE_OUTSIDE(threads_use_the_network),
        CASE_OUTSIDE(errno_is_the_callers),
        CASE_OUTSIDE(the_end_closes_handles),
        CASE(wait_until_readable),
        CASE(wait_until_writable),
        CASE(deadlines),
        CASE(misuse),
        CASE(a_file_is_refused),
        CASE(one_waits_a_direction),
        CASE(closing_wakes_who_waits),
        CASE(a_closed_handle_stays_closed),
        CASE(what_is_no_handle),
        CASE(a_reader_meets_no_other_file),
        CASE(one_of_many_closes),
        CASE(write_writes_everything),
        CASE(a_pipe_is_a_descriptor_too),
        CASE(write_to_nobody),
        CASE(a_write_has_a_deadline),
        CASE(tcp_v4),
        CASE(tcp_v6),
        CASE(tcp_failures),
        CASE(accept_has_a_deadline),
        CASE(closing_ends_accept),
        CASE(a_port_can_be_used_again),
        CASE(many_connections),
    };
    return RUN_CASES(NULL, cases);
}
