//! Mutex of the native lane. All zeroes is an open one.
//!
//! It has a short lock, `guard`, and a queue of waiters. It is Go's (sync/mutex.go) in two
//! respects: an uncontended lock is one CAS, and a goroutine that was woken competes with those
//! that run, which is fast, until it has waited for 1 ms; from then on unlocking hands the mutex
//! over.
//!
//! `waiting` in the state says that somebody is queued; both change under `guard`. Who sees
//! `locked` there and queues himself is found by the holder, whose fast CAS fails.
//!
//! Rt is what it runs on: `Rt.Env`, `Rt.G`, `Rt.Blocker` and `Rt.wake(*Wait)`.
const std = @import("std");
const Waiters = @import("../core/waiters.zig").Waiters;

/// Go's sync/mutex.go: starvationThresholdNs.
const starvation_ns = std.time.ns_per_ms;

pub fn Mutex(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        /// Of a waiter: nothing, that it has waited for long, or that it was given the mutex.
        const Queue = Waiters(Rt, u32);
        const Waiter = Queue.Waiter;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        state: Env.Atomic(u32) = .init(0),
        guard: Env.Lock = .{},
        list: Queue = .{},
        unused: u64 = 0,

        const locked = 1;
        /// Somebody is queued.
        const waiting = 2;
        /// Values of a waiter's data: has waited for long, and was given the mutex.
        const starving = 1;
        const handed_over = 2;

        pub inline fn tryLock(m: *Self) bool {
            const s = m.state.load(.monotonic);
            return s & locked == 0 and
                m.state.cmpxchgStrong(s, s | locked, .acquire, .monotonic) == null;
        }

        pub inline fn lock(m: *Self, g: Rt.Me) void {
            if (m.state.cmpxchgStrong(0, locked, .acquire, .monotonic) == null) return;
            m.lockSlow(g);
        }

        noinline fn lockSlow(m: *Self, g: Rt.Me) void {
            var since: u64 = 0;
            while (true) {
                if (m.tryLock()) return;
                m.guard.lock();
                // Under the guard `waiting` and the queue agree; set, it makes the holder come
                // here.
                const s = if (planted == .queue_unannounced)
                    m.state.load(.monotonic)
                else
                    m.state.fetchOr(waiting, .acq_rel);
                if (s & locked == 0) {
                    if (m.list.isEmpty()) _ = m.state.fetchAnd(~@as(u32, waiting), .release);
                    m.guard.unlock();
                    continue;
                }
                var b: Rt.Blocker = undefined;
                b.init(g, false);
                const now = Env.nanotime();
                const first = since == 0;
                if (first) since = now;
                // What `unlock` reads: hand it over, since this one has waited long enough.
                const long = now - since > starvation_ns;
                var w: Waiter = .{ .who = b.who(), .data = if (long) starving else 0 };
                // One that was woken and lost is the next to be woken again.
                if (first) m.list.push(&w) else m.list.pushFront(&w);
                _ = b.block(.mutex_lock, null, unlockGuard, &m.guard);
                if (w.data == handed_over) return;
            }
        }

        fn unlockGuard(raw: *anyopaque) bool {
            const l: *Env.Lock = @ptrCast(@alignCast(raw));
            l.unlock();
            return true;
        }

        /// False if it is not locked.
        pub inline fn unlock(m: *Self) bool {
            if (m.state.cmpxchgStrong(locked, 0, .release, .monotonic) == null) return true;
            return m.unlockSlow();
        }

        noinline fn unlockSlow(m: *Self) bool {
            m.guard.lock();
            if (m.state.load(.monotonic) & locked == 0) {
                m.guard.unlock();
                return false;
            }
            const w = m.list.take(.ready);
            const others = !m.list.isEmpty() and planted != .others_forgotten;
            const more: u32 = if (others) waiting else 0;
            if (w) |first| {
                const hand_over = first.data == starving;
                if (hand_over) first.data = handed_over;
                const opened = planted == .open_when_handed_over;
                const held: u32 = if (hand_over and !opened) locked else 0;
                m.state.store(more | held, .release);
                m.guard.unlock();
                Rt.wake(first.who);
            } else {
                m.state.store(0, .release);
                m.guard.unlock();
            }
            return true;
        }
    };
}
