/* The spectral norm of a matrix, on all processors: as many goroutines as processors, a wait group
 * after each step.
 *
 * The matrix is A(i, j) = 1 / ((i + j) (i + j + 1) / 2 + i + 1), as in the Computer Language
 * Benchmarks Game. Each step multiplies a vector by A or its transpose; a goroutine computes a part
 * of the rows. The sums are the same whatever the number of parts, to the last bit.
 *
 *     ./parallel 2000
 */
#include "golibx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int n = 1000;

static double a(int i, int j) { return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1); }

/* Rows `first` to `last` of A times x, or of A transposed. */
struct part {
    const double *x;
    double *result;
    int first, last;
    int transposed;
    golibx_waitgroup *running;
};

static void multiply_rows(void *argument)
{
    struct part p = *(struct part *)argument;
    for (int i = p.first; i < p.last; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++)
            sum += (p.transposed ? a(j, i) : a(i, j)) * p.x[j];
        p.result[i] = sum;
    }
    golibx_wg_done(p.running);
}

static void multiply(const double *x, double *result, int transposed, int parts)
{
    golibx_waitgroup running = {{0}};
    struct part *all = calloc((size_t)parts, sizeof *all);
    golibx_wg_add(&running, parts);
    for (int i = 0; i < parts; i++) {
        int first = (int)((long)n * i / parts), last = (int)((long)n * (i + 1) / parts);
        all[i] = (struct part){x, result, first, last, transposed, &running};
        golibx_go(multiply_rows, &all[i]);
    }
    golibx_wg_wait(&running, GOLIBX_FOREVER);
    free(all);
}

static double spectral_norm(int parts)
{
    double *u = malloc((size_t)n * sizeof *u), *v = malloc((size_t)n * sizeof *v);
    double *w = malloc((size_t)n * sizeof *w);
    for (int i = 0; i < n; i++)
        u[i] = 1;
    for (int round = 0; round < 10; round++) {
        multiply(u, w, 0, parts);
        multiply(w, v, 1, parts);
        multiply(v, w, 0, parts);
        multiply(w, u, 1, parts);
    }
    double uv = 0, vv = 0;
    for (int i = 0; i < n; i++) {
        uv += u[i] * v[i];
        vv += v[i] * v[i];
    }
    free(u);
    free(v);
    free(w);
    return sqrt(uv / vv);
}

static void compare(void *unused)
{
    (void)unused;
    int all = golibx_gomaxprocs(0);
    double norm[2], seconds[2];
    for (int run = 0; run < 2; run++) {
        int processors = run == 0 ? 1 : all;
        golibx_gomaxprocs(processors);
        int64_t began = golibx_nanotime();
        norm[run] = spectral_norm(processors);
        seconds[run] = (double)(golibx_nanotime() - began) / 1e9;
        printf("%d processor%s: %.9f in %.3f s\n", processors, processors == 1 ? "" : "s",
               norm[run], seconds[run]);
    }
    printf("%.2f times as fast, the same result: %s\n", seconds[0] / seconds[1],
           norm[0] == norm[1] ? "yes" : "no");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        n = atoi(argv[1]);
    int code = golibx_run(NULL, compare, NULL);
    if (code != GOLIBX_OK)
        fprintf(stderr, "parallel: %s\n", golibx_strerror(code));
    return code != GOLIBX_OK;
}
