/* A TCP server that sends back what it gets, and its clients, in one process: a goroutine each.
 *
 * Reads and writes look as if they blocked; a goroutine whose socket is not ready gives its processor
 * to another one. Every operation has a deadline, after which it fails with GOLIBX_TIMEOUT.
 *
 *     ./echo 100 50     100 clients, 50 messages each
 */
#include "golibx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { message_size = 128 };
static const int64_t limit_ns = 20 * 1000000000ll;

static int clients = 100, messages = 50;
static int port;
static golibx_waitgroup connected, serving;
static golibx_mutex counting;
static long echoed, refused, damaged, connections;

static int64_t limit(void) { return golibx_nanotime() + limit_ns; }

static void add(long *counter, long n)
{
    golibx_mutex_lock(&counting);
    *counter += n;
    golibx_mutex_unlock(&counting);
}

/* ---- the server ---- */

static void serve_one(void *connection)
{
    char buffer[4096];
    ptrdiff_t n;
    while ((n = golibx_read(connection, buffer, sizeof buffer, limit())) > 0)
        if (golibx_write(connection, buffer, (size_t)n, limit()) < 0)
            break;
    golibx_fd_close(connection, 1);
    add(&connections, 1);
    golibx_wg_done(&serving);
}

static void serve(void *listener)
{
    golibx_fd *connection;
    while ((connection = golibx_tcp_accept(listener, GOLIBX_FOREVER)) != NULL) {
        golibx_wg_add(&serving, 1);
        golibx_go(serve_one, connection);
    }
    golibx_wg_done(&serving); /* the listener was closed */
}

/* ---- a client ---- */

static int read_all(golibx_fd *d, char *buffer, size_t size)
{
    while (size > 0) {
        ptrdiff_t n = golibx_read(d, buffer, size, limit());
        if (n <= 0)
            return 0;
        buffer += n;
        size -= (size_t)n;
    }
    return 1;
}

static void talk(void *unused)
{
    (void)unused;
    long good = 0;
    golibx_fd *d = golibx_tcp_dial("127.0.0.1", (uint16_t)port, limit());
    if (d == NULL) {
        add(&refused, 1);
    } else {
        char sent[message_size], got[message_size];
        for (int i = 0; i < messages; i++) {
            memset(sent, 'a' + i % 26, sizeof sent);
            if (golibx_write(d, sent, sizeof sent, limit()) != sizeof sent ||
                !read_all(d, got, sizeof got))
                break;
            good += memcmp(sent, got, sizeof got) == 0;
        }
        golibx_fd_close(d, 1);
        add(&echoed, good);
        add(&damaged, messages - good);
    }
    golibx_wg_done(&connected);
}

static void echo(void *unused)
{
    (void)unused;
    golibx_fd *listener = golibx_tcp_listen("127.0.0.1", 0, 1024);
    if (listener == NULL) {
        fprintf(stderr, "echo: cannot listen: %s\n", strerror(golibx_errno()));
        exit(1);
    }
    port = golibx_tcp_port(listener);
    golibx_wg_add(&serving, 1);
    golibx_go(serve, listener);

    golibx_wg_add(&connected, clients);
    for (int i = 0; i < clients; i++)
        golibx_go(talk, NULL);
    golibx_wg_wait(&connected, GOLIBX_FOREVER);
    golibx_fd_close(listener, 1); /* accept returns NULL */
    golibx_wg_wait(&serving, GOLIBX_FOREVER);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        clients = atoi(argv[1]);
    if (argc > 2)
        messages = atoi(argv[2]);
    int code = golibx_run(NULL, echo, NULL);
    if (code != GOLIBX_OK) {
        fprintf(stderr, "echo: %s\n", golibx_strerror(code));
        return 1;
    }
    printf("%d clients: %ld messages came back, %ld did not, %ld clients were refused\n", clients,
           echoed, damaged, refused);
    printf("the server had %ld connections\n", connections);
    return echoed != (long)clients * messages;
}
