/* Two goroutines play a ball back and forth: select over two channels, and a timeout.
 *
 * A player waits for the ball, for the whistle and, in the same select, for too much time to pass. The
 * first player stops after a number of hits, so that the other one waits in vain: its select
 * times out. Then the whistle is blown, by closing its channel, which all players see.
 */
#include "golibx.h"

#include <stdio.h>

static const int64_t patience_ns = 500 * 1000 * 1000;

struct player {
    const char *name;
    golibx_chan *from, *to;
    int hits_max, hits;
    int timeouts;
};

static golibx_chan *whistle, *gave_up;
static golibx_waitgroup playing;

/* Returns when the ball stays away, or the whistle is blown. */
static void rally(struct player *p)
{
    for (;;) {
        int ball = 0;
        golibx_case cases[] = {
            {.chan = p->from, .dir = GOLIBX_RECV, .elem = &ball},
            {.chan = whistle, .dir = GOLIBX_RECV},
        };
        int chosen = golibx_select(cases, 2, golibx_nanotime() + patience_ns);
        if (chosen == GOLIBX_TIMEOUT)
            p->timeouts++;
        if (chosen != 0)
            return;
        p->hits++;
        if (p->hits == p->hits_max)
            return; /* keeps the ball */
        ball++;
        golibx_chan_send(p->to, &ball);
    }
}

static void play(void *argument)
{
    struct player *p = argument;
    rally(p);
    golibx_chan_send(gave_up, &p);
    golibx_chan_recv(whistle, NULL); /* returns GOLIBX_CLOSED */
    golibx_wg_done(&playing);
}

static void game(void *unused)
{
    (void)unused;
    golibx_chan *table[2] = {golibx_chan_new(sizeof(int), 0), golibx_chan_new(sizeof(int), 0)};
    whistle = golibx_chan_new(0, 0);
    gave_up = golibx_chan_new(sizeof(struct player *), 2);
    struct player ping = {"ping", table[0], table[1], 1000, 0, 0};
    struct player pong = {"pong", table[1], table[0], 1000, 0, 0};

    golibx_wg_add(&playing, 2);
    golibx_go(play, &ping);
    golibx_go(play, &pong);
    int ball = 0;
    golibx_chan_send(table[0], &ball);

    for (int i = 0; i < 2; i++) {
        struct player *p;
        golibx_chan_recv(gave_up, &p);
        printf("%s: %d hits, %s\n", p->name, p->hits,
               p->timeouts ? "then no ball in time" : "then kept the ball");
    }
    golibx_chan_close(whistle);
    golibx_wg_wait(&playing, GOLIBX_FOREVER);
    puts("game over");
}

int main(void)
{
    int code = golibx_run(NULL, game, NULL);
    if (code != GOLIBX_OK)
        fprintf(stderr, "pingpong: %s\n", golibx_strerror(code));
    return code != GOLIBX_OK;
}
