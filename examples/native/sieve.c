/* The first primes, from a chain of goroutines: the program that every text about channels has.
 *
 * Each prime gets a goroutine that passes on what it does not divide. What comes out of the end of the
 * chain is the next prime. When the main goroutine has enough, the others end with the process.
 *
 *     ./sieve 30
 */
#include "golibx.h"

#include <stdio.h>
#include <stdlib.h>

/* One link of the chain. */
struct filter {
    golibx_chan *in, *out;
    int prime;
};

static void generate(void *out)
{
    for (int n = 2;; n++)
        golibx_chan_send(out, &n);
}

static void filter(void *argument)
{
    struct filter f = *(struct filter *)argument;
    free(argument);
    for (;;) {
        int n;
        golibx_chan_recv(f.in, &n);
        if (n % f.prime != 0)
            golibx_chan_send(f.out, &n);
    }
}

static void sieve(void *count)
{
    golibx_chan *chain = golibx_chan_new(sizeof(int), 0);
    golibx_go(generate, chain);
    for (int left = *(int *)count; left > 0; left--) {
        int prime;
        golibx_chan_recv(chain, &prime);
        printf("%d%c", prime, left > 1 ? ' ' : '\n');

        struct filter *next = malloc(sizeof *next);
        golibx_chan *out = golibx_chan_new(sizeof(int), 0);
        *next = (struct filter){chain, out, prime};
        golibx_go(filter, next); /* which frees it, perhaps at once */
        chain = out;
    }
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 20;
    int code = golibx_run(NULL, sieve, &count);
    if (code != GOLIBX_OK)
        fprintf(stderr, "sieve: %s\n", golibx_strerror(code));
    return code != GOLIBX_OK;
}
