/* golibx.h: Go's concurrency for native code.
 *
 * Goroutines are C functions with one argument. They run in parallel on GOMAXPROCS processors, are
 * preempted wherever they are, and wait for each other over channels, select and the primitives of
 * Go's package sync. Programs written in C need no Python; in a Python process the same library
 * serves both, and channels join the two.
 *
 * Conventions
 *  - Functions that can fail return GOLIBX_OK (0) or one of the negative codes of enum golibx_error;
 *    golibx_strerror() names them. Functions that make an object return NULL when memory is short.
 *  - Durations and times are nanoseconds. Times are those of golibx_nanotime(), a monotonic clock.
 *    A deadline is such a time; GOLIBX_FOREVER waits without one, 0 does not wait: what would have to
 *    wait then returns GOLIBX_WOULD_BLOCK. A deadline that has passed returns GOLIBX_TIMEOUT.
 *  - What waits may be called by goroutines and by any other thread while the runtime runs; other
 *    threads block. Exceptions to that say so.
 *  - Objects must outlive their use, and no more: a call touches the object no more once it has
 *    returned, or once a waiter has seen its effect; only a mutex must outlive the calls that unlock
 *    it. Freeing an object that a goroutine or thread waits on is an error of the program.
 *  - The child of a fork has no goroutines and no running runtime: golibx_start() starts one. There, make
 *    each object anew that the parent had in use: zero a mutex, cond or waitgroup, golibx_sem_init() a
 *    semaphore, make new channels and timers, open descriptors again. Others may have held the old ones or
 *    waited for them, and are gone: a call on one may wait for ever. Of those, call nothing but
 *    golibx_fd_close(), which returns GOLIBX_CLOSED: no handle outlives a fork, but the files do. Memory of
 *    the old channels and timers is lost. A goroutine that forks is none in the child, but a thread on the
 *    goroutine's stack; if its function returns there, the process ends at once with status 0, without exit
 *    handlers and without flushing stdio.
 *  - A goroutine may continue on another thread after any call of this file, and, in text registered
 *    by golibx_register_text(), anywhere. Do not keep the address of a thread-local across them.
 */
#ifndef GOLIBX_H
#define GOLIBX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every change that old programs would notice; golibx_abi_version() is the library's. */
#define GOLIBX_ABI_VERSION 1

#define GOLIBX_FOREVER INT64_MAX

enum golibx_error {
    GOLIBX_OK = 0,
    GOLIBX_CLOSED = -1,       /* the channel or descriptor is closed (receiving: and drained) */
    GOLIBX_WOULD_BLOCK = -2,  /* it cannot be done at once */
    GOLIBX_TIMEOUT = -3,      /* the deadline passed first */
    GOLIBX_NO_MEMORY = -4,
    GOLIBX_THREAD_LIMIT = -5, /* no more threads: max_threads, or the system's limit */
    GOLIBX_INVALID = -6,      /* an argument is out of range, or the call is a misuse */
    GOLIBX_NOT_RUNNING = -7,  /* the runtime was not started, or is stopping */
    GOLIBX_RUNNING = -8,      /* the runtime was started already */
    GOLIBX_SYSTEM = -9        /* the operating system refused: golibx_errno() says why */
};

int golibx_abi_version(void);
const char *golibx_version(void);
const char *golibx_strerror(int code);

/* errno of the call that has just failed. Goroutines must use this instead of errno: compilers keep
 * the address of errno over calls that change the thread. */
int golibx_errno(void);

/* ---- the runtime -------------------------------------------------------------------------------- */

/* What golibx_start() takes. Initialize with GOLIBX_CONFIG_INIT, then set what should differ; 0
 * stands for the default that the comment names. GOLIBX_INVALID for a value out of range, or a size
 * that is larger than this library's. In a process with Python the fields from preempt_slice_ns to
 * retake_threshold_idle_ns hold for its goroutines too, until the next golibx.run(), and 0 leaves
 * them as they are. */
typedef struct golibx_config {
    uint32_t size;               /* sizeof(golibx_config) */
    uint32_t gomaxprocs;         /* GOMAXPROCS, or the CPUs this process may use; at most 1024 */
    uint32_t max_threads;        /* 10000 */
    uint32_t no_async_preempt;   /* 1: preempt at calls of golibx only. Also GOLIB_ASYNCPREEMPT_OFF=1 */
    uint64_t preempt_slice_ns;   /* 10 ms */
    uint64_t sysmon_sleep_min_ns; /* 20 us */
    uint64_t sysmon_sleep_max_ns; /* 10 ms */
    uint64_t retake_threshold_ns; /* 20 us: how long a system call keeps its P while others wait */
    uint64_t retake_threshold_idle_ns; /* 10 ms: how long when none do */
    size_t stack_size;           /* 256 KiB of address space a goroutine, guard included; a power of
                                    two from 16 KiB to 64 MiB */
    size_t stack_keep;           /* 64 MiB: free stacks that stay resident */
    uint64_t seed;               /* of the random choices; by default a different one each time */
    uint32_t detect_deadlock;    /* 1: when no goroutine can ever run again, print what each waits for
                                    and exit with status 2. See golibx_run() */
} golibx_config;

#define GOLIBX_CONFIG_INIT { sizeof(golibx_config), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Starts the runtime; NULL is the default configuration. GOLIBX_RUNNING if it runs already. */
int golibx_start(const golibx_config *config);

/* Waits until no goroutine is left or `deadline` has passed, then ends the runtime's threads.
 * GOLIBX_TIMEOUT: goroutines were left, the runtime runs on. A goroutine must not call it. */
int golibx_stop(int64_t deadline);

/* Starts the runtime, runs fn(arg) as a goroutine and returns when that has ended, without waiting
 * for others, which end with the process, as in Go: the runtime runs on, golibx_stop() ends it. Inside
 * a running runtime it ignores the configuration and only waits for fn.
 *
 * With detect_deadlock, the process ends if all goroutines wait for each other for ever: a line says so
 * on stderr, one more for each goroutine says what it waits for and which function it was started with,
 * and the exit status is 2, as Go's. Exit handlers do not run, and stdio is not flushed. That is done
 * only where it is certain (on Linux): no timer is set, no goroutine waits for a descriptor or is in a system
 * call, and all threads of the process are golibx's own or wait in golibx_run(). A thread of your own,
 * wherever it is, or Python in the process, switches it off. It is not on by itself, because a
 * program may mean to wait until a signal ends it. */
int golibx_run(const golibx_config *config, void (*fn)(void *), void *arg);

/* Sets the number of processors and returns the one before; 0 only asks. Surplus processors hand
 * their goroutines over when these next stop. GOLIBX_INVALID beyond 1024, GOLIBX_NOT_RUNNING. */
int golibx_gomaxprocs(int n);

int64_t golibx_nanotime(void);

/* ---- goroutines --------------------------------------------------------------------------------- */

/* Starts fn(arg) as a goroutine. */
int golibx_go(void (*fn)(void *), void *arg);

/* Lets others run. Outside of a goroutine it yields the thread. */
void golibx_gosched(void);

/* The number of the calling goroutine, from 1; 0 outside of one. */
uint64_t golibx_goid(void);

/* Parks for at least that long. */
void golibx_sleep(int64_t ns);

/* Waits for a wake-up: the pair that other primitives are built from.
 *
 *     golibx_g self = golibx_self();   publish it where the waker finds it, then
 *     golibx_park(GOLIBX_FOREVER);     returns GOLIBX_OK after a call of golibx_ready(self)
 *
 * A wake-up that comes before the park is kept: one, not more. GOLIBX_TIMEOUT after the deadline.
 * golibx_ready() must not be called for a goroutine that has ended. Only for goroutines. */
typedef struct golibx_goroutine *golibx_g;
golibx_g golibx_self(void);
int golibx_park(int64_t deadline);
void golibx_ready(golibx_g g);

/* Ties the goroutine to its thread, and the thread to it, until as many unlocks. If the
 * goroutine ends locked, the thread ends with it. Only for goroutines. */
int golibx_lock_os_thread(void);
int golibx_unlock_os_thread(void);

/* Around calls that may block: the processor may be taken for other goroutines meanwhile. The
 * goroutine must not call anything else of this file in between. Without them a preemption signal may
 * end sleeps and polls of the C library early, with EINTR, as any signal may. */
void golibx_entersyscall(void);
void golibx_exitsyscall(void);

/* Code from `start` on, `size` bytes, may be preempted by switching away inside the signal handler.
 * It must keep no address of a thread-local (errno is one) and hold no lock of a library that knows
 * nothing of goroutines. Other code is preempted too, at the cost of a thread. */
int golibx_register_text(const void *start, size_t size);
/* As golibx_register_text, for all code of the program or shared library that holds `address`. */
int golibx_register_module(const void *address);

/* ---- channels ----------------------------------------------------------------------------------- */

/* Carries values of elem_size bytes, copied; 0 is allowed. Elements are at most 64 KiB. */
typedef struct golibx_chan golibx_chan;
/* NULL too if elem_size is larger. */
golibx_chan *golibx_chan_new(size_t elem_size, size_t capacity);
void golibx_chan_free(golibx_chan *c);
size_t golibx_chan_len(golibx_chan *c);
size_t golibx_chan_cap(golibx_chan *c);

/* GOLIBX_OK or GOLIBX_CLOSED; with a deadline GOLIBX_TIMEOUT too, or GOLIBX_WOULD_BLOCK for
 * deadline 0. A value that was not sent is still the caller's. GOLIBX_INVALID to send NULL, unless
 * elements have no size. On a channel that is NULL an operation waits for ever. */
int golibx_chan_send(golibx_chan *c, const void *elem);
int golibx_chan_recv(golibx_chan *c, void *elem); /* elem may be NULL. Closed: elem is zeroed. */
int golibx_chan_send_until(golibx_chan *c, const void *elem, int64_t deadline);
int golibx_chan_recv_until(golibx_chan *c, void *elem, int64_t deadline);
/* GOLIBX_CLOSED if it was closed before. */
int golibx_chan_close(golibx_chan *c);

enum golibx_direction { GOLIBX_SEND = 1, GOLIBX_RECV = 2 };
typedef struct golibx_case {
    golibx_chan *chan; /* NULL never fires */
    uint32_t dir;      /* enum golibx_direction */
    int32_t result;    /* of the chosen case: GOLIBX_OK or GOLIBX_CLOSED */
    void *elem;        /* what to send, or where the received value goes (may be NULL) */
} golibx_case;

/* Does one of the cases that can go on, each with the same probability, and returns its index; waits
 * if there is none. Deadline 0 is Go's default case: GOLIBX_WOULD_BLOCK. At most 1024 cases. */
int golibx_select(golibx_case *cases, size_t count, int64_t deadline);

/* ---- package sync ------------------------------------------------------------------------------- */

/* All of these start as zeroes and need no end. */
typedef struct golibx_mutex { uint64_t opaque[4]; } golibx_mutex;
void golibx_mutex_lock(golibx_mutex *m);
int golibx_mutex_trylock(golibx_mutex *m); /* GOLIBX_OK or GOLIBX_WOULD_BLOCK */
int golibx_mutex_unlock(golibx_mutex *m);  /* GOLIBX_INVALID if it is not locked */

typedef struct golibx_cond { uint64_t opaque[4]; } golibx_cond;
/* With `m` locked, which it is again afterwards; GOLIBX_INVALID if it was not. */
int golibx_cond_wait(golibx_cond *c, golibx_mutex *m, int64_t deadline);
void golibx_cond_signal(golibx_cond *c);
void golibx_cond_broadcast(golibx_cond *c);

typedef struct golibx_waitgroup { uint64_t opaque[4]; } golibx_waitgroup;
int golibx_wg_add(golibx_waitgroup *w, int64_t delta); /* GOLIBX_INVALID below zero: unchanged */
int golibx_wg_done(golibx_waitgroup *w);
int golibx_wg_wait(golibx_waitgroup *w, int64_t deadline);

/* Counts; a zeroed one has no permits. */
typedef struct golibx_sem { uint64_t opaque[4]; } golibx_sem;
void golibx_sem_init(golibx_sem *s, uint64_t permits);
int golibx_sem_acquire(golibx_sem *s, int64_t deadline);
int golibx_sem_release(golibx_sem *s); /* GOLIBX_INVALID beyond UINT64_MAX permits: unchanged */

/* ---- timers ------------------------------------------------------------------------------------- */

/* Calls fn(arg) in a goroutine of its own at `when`. */
typedef struct golibx_timer golibx_timer;
golibx_timer *golibx_timer_new(void (*fn)(void *), void *arg);
/* Sets or moves it. 1 if it was pending before, else 0; GOLIBX_NOT_RUNNING, GOLIBX_NO_MEMORY. */
int golibx_timer_reset(golibx_timer *t, int64_t when);
/* 1 if it was pending, 0 if it has fired or was not set. */
int golibx_timer_stop(golibx_timer *t);
void golibx_timer_free(golibx_timer *t); /* stops it first */

/* ---- the network -------------------------------------------------------------------------------- */

/* The handle of a descriptor registered with the poller. It is a number in the form of a pointer, which
 * nothing may follow, and no other descriptor ever gets the same: calls on one that is closed return
 * GOLIBX_CLOSED, for ever, and touch no other file, whatever became of the descriptor's number. What is
 * no handle, NULL for one, is GOLIBX_INVALID or GOLIBX_CLOSED. (There are 2^20 descriptors at a time; one
 * that was used for 2^43 files is not used again.) */
typedef struct golibx_fd golibx_fd;
enum golibx_mode { GOLIBX_READ = 1, GOLIBX_WRITE = 2 };
/* Of a file descriptor, or on Windows of a SOCKET, which is wider than an int. NULL if the poller refuses
 * it: golibx_errno() says why. The file should be non-blocking. */
golibx_fd *golibx_fd_open(intptr_t fd);
/* Waits until a read or write may succeed. Call it after one said EAGAIN. One goroutine a direction may
 * wait at a time: GOLIBX_INVALID for a second. GOLIBX_CLOSED once it is closed. */
int golibx_fd_wait(golibx_fd *d, int mode, int64_t deadline);
/* Ends the handle and, if `close_file` is not 0, closes the file; otherwise the file is the caller's
 * again. Calls that wait return GOLIBX_CLOSED; golibx_fd_close() returns when the last call in progress on
 * the handle has let go of the file. (One that blocks in a read or write, since its file is not
 * non-blocking, lets it wait.) Of several at once, one returns GOLIBX_OK and the others GOLIBX_CLOSED.
 * golibx_stop() closes all that are left, but not their files. */
int golibx_fd_close(golibx_fd *d, int close_file);
/* The number, which stays this file's until it is closed; or GOLIBX_CLOSED or GOLIBX_INVALID. */
intptr_t golibx_fd_number(golibx_fd *d);

/* TCP, for numeric addresses such as "127.0.0.1" or "::1". NULL on failure, with golibx_errno():
 * ETIMEDOUT after the deadline, EBADF once the listener is closed, EBUSY if another waits in accept. */
golibx_fd *golibx_tcp_listen(const char *host, uint16_t port, int backlog);
golibx_fd *golibx_tcp_accept(golibx_fd *listener, int64_t deadline);
golibx_fd *golibx_tcp_dial(const char *host, uint16_t port, int64_t deadline);
int golibx_tcp_port(golibx_fd *d); /* the local port, GOLIBX_CLOSED or GOLIBX_SYSTEM */
/* Bytes read or written, 0 at the end of the stream, or a negative code. One goroutine may read while
 * another writes; a second one in the same direction gets GOLIBX_INVALID where it would have to wait. */
ptrdiff_t golibx_read(golibx_fd *d, void *buffer, size_t size, int64_t deadline);
/* Writes everything, or returns a negative code. */
ptrdiff_t golibx_write(golibx_fd *d, const void *buffer, size_t size, int64_t deadline);

/* ---- figures ------------------------------------------------------------------------------------ */

typedef struct golibx_counters {
    uint32_t size; /* set it to sizeof(golibx_counters) */
    uint32_t gomaxprocs;
    uint64_t goroutines;          /* that live now */
    uint64_t spawns;
    uint64_t switches;
    uint64_t steals;              /* goroutines taken from another processor's queue */
    uint64_t threads;             /* that exist now, the spare ones included */
    uint64_t threads_idle;
    uint64_t thread_limit_hits;   /* times that a thread was wanted beyond the limit */
    uint64_t handoffs;            /* processors passed on by a thread that stopped */
    uint64_t retakes;             /* processors taken from system calls */
    uint64_t netpolls;
    uint64_t netpoll_wakeups;
    uint64_t timers;              /* pending now */
    uint64_t timer_fires;
    uint64_t timer_steals;        /* fired by another processor than the one they were set on */
    uint64_t preempt_requests;    /* signals sent */
    uint64_t preempt_yields;      /* preempted inside registered text */
    uint64_t preempt_klt;         /* preempted with their thread, anywhere else */
    uint64_t preempt_coop;        /* at a call of golibx that came after the request */
    uint64_t preempt_refused_runtime;  /* the signal came inside golibx: the call's end obeys */
    uint64_t preempt_refused_idle;     /* no goroutine ran there any more */
    uint64_t preempt_refused_stale;    /* another goroutine ran there than the one meant */
    uint64_t preempt_refused_stack;    /* on a stack that is not the goroutine's */
    uint64_t preempt_refused_thread;   /* no spare thread to take the processor */
    uint64_t preempt_refused_alone;    /* nothing else wanted to run */
    uint64_t stacks;              /* that exist */
    uint64_t stacks_free;
    uint64_t procs_idle;          /* processors without a goroutine now */
    uint64_t threads_spinning;    /* that look for work now */
    uint64_t queue_global;        /* goroutines in the queue of all processors now */
    uint64_t queue_local;         /* and in the queues of single ones */
    uint64_t events_recorded;     /* for hooks of Python plugins, in this run or the last */
    uint64_t events_dropped;      /* that found their processor's ring full */
    uint64_t preempt_refused_lock; /* Python code that held the interpreter's lock */
} golibx_counters;

int golibx_stats(golibx_counters *counters);

#ifdef __cplusplus
}
#endif

#endif
