/* Goroutines, a channel and a wait group.
 *
 * Some goroutines send a square each. Another one waits for all of them and closes the channel, which
 * ends the loop that adds up what arrives: in Go, `for square := range squares`.
 *
 *     cc hello.c $(python -m golibx.include --cflags --libs) -o hello && ./hello
 */
#include "golibx.h"

#include <stdio.h>

enum { workers = 10 };

static golibx_chan *squares;
static golibx_waitgroup working; /* zeroes: ready to use */
static int numbers[workers];

static void square(void *number)
{
    int n = *(int *)number;
    int result = n * n;
    golibx_chan_send(squares, &result);
    golibx_wg_done(&working);
}

static void close_when_done(void *unused)
{
    (void)unused;
    golibx_wg_wait(&working, GOLIBX_FOREVER);
    golibx_chan_close(squares);
}

static void start_goroutines(void *unused)
{
    (void)unused;
    squares = golibx_chan_new(sizeof(int), 0);
    golibx_wg_add(&working, workers);
    for (int n = 0; n < workers; n++) {
        numbers[n] = n;
        golibx_go(square, &numbers[n]);
    }
    golibx_go(close_when_done, NULL);

    int sum = 0, result;
    while (golibx_chan_recv(squares, &result) == GOLIBX_OK)
        sum += result;
    printf("%d\n", sum);
    golibx_chan_free(squares);
}

int main(void)
{
    int code = golibx_run(NULL, start_goroutines, NULL);
    if (code != GOLIBX_OK)
        fprintf(stderr, "hello: %s\n", golibx_strerror(code));
    return code != GOLIBX_OK;
}
