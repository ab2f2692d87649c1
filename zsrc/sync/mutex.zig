//! Mutex: mutual exclusion with Go's two modes (internal/sync/mutex.go). All zeroes is an open one.
//!
//! In normal mode unlocking wakes the first waiter, which then competes with goroutines that come
//! running: they are on a processor already, and mostly win, which saves a switch for each time the
//! mutex is taken. A waiter that loses goes back to the head of the queue. One that has waited for
//! longer than a millisecond puts the mutex into starvation mode: from then on unlocking gives the
//! mutex to the first waiter, without its ever being free. That ends with a waiter that is the last
//! one or has waited for less.
//!
//! Everything is in one word, so that an uncontended lock is one compare-and-swap. `guard` protects
//! the queue. These rules keep a waiter from being forgotten:
//!  - `waiting` says that one is queued, and changes under `guard`. A caller that finds the mutex
//!    locked sets it and queues under `guard`: the holder's fast way out fails then, and the holder
//!    comes to the guard after the caller;
//!  - `woken` says that one was woken that has not tried yet; unlocking wakes no second. It is
//!    set under `guard`. The waiter that was woken clears it in the same step in which it takes the
//!    mutex or finds it locked, and may leave then. Unlocking without waking a waiter looks and
//!    opens in one step: if that comes later, it sees `woken` cleared and wakes the next;
//!  - one that leaves by its deadline was not woken: no other counts on it.
//! Taking the mutex is an acquire and pairs with the release of unlocking. A mutex that is handed
//! over stays locked: the wake-up orders what its owners do.
const std = @import("std");
const Waiters = @import("../core/waiters.zig").Waiters;

/// As in Go (internal/sync/mutex.go: starvationThresholdNs).
const starvation_ns = std.time.ns_per_ms;

pub fn Mutex(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;
        const Queue =
            Waiters(Rt, struct { how: enum { chance, handed_over } = .chance, of: *Self });

        state: Env.Atomic(u32) = .init(0),
        guard: Env.Lock = .{},
        queue: Queue = .{},

        const locked = 1;
        const waiting = 2;
        const woken = 4;
        pub const starving = 8;

        pub const Outcome = enum { locked, again, timeout, interrupted };

        pub inline fn isLocked(m: *const Self) bool {
            return m.state.load(.monotonic) & locked != 0;
        }

        pub inline fn tryLock(m: *Self) bool {
            const s = m.state.load(.monotonic);
            return s & locked == 0 and
                m.state.cmpxchgStrong(s, s | locked, .acquire, .monotonic) == null;
        }

        /// Where nothing but getting it ends the wait.
        pub inline fn lock(m: *Self, me: Rt.Me) void {
            if (m.state.cmpxchgStrong(0, locked, .acquire, .monotonic) == null) return;
            m.lockSlow(me);
        }

        noinline fn lockSlow(m: *Self, me: Rt.Me) void {
            var since: u64 = 0;
            while (!m.tryLock()) {
                if (m.wait(me, &since, null) == .locked) return;
            }
        }

        /// False if it is not locked.
        pub inline fn unlock(m: *Self) bool {
            if (m.state.cmpxchgStrong(locked, 0, .release, .monotonic) == null) return true;
            return m.unlockSlow();
        }

        noinline fn unlockSlow(m: *Self) bool {
            m.guard.lock();
            m.enter();
            while (true) {
                const s = m.state.load(.monotonic);
                if (s & locked == 0) {
                    m.guard.unlock();
                    return false;
                }
                if (s & starving != 0) if (m.queue.take(.ready)) |w| {
                    // It stays locked, and is the waiter's now.
                    w.data.how = .handed_over;
                    const opened: u32 = if (planted == .open_when_handed_over) locked else 0;
                    const none: u32 = if (m.queue.isEmpty()) waiting else 0;
                    _ = m.state.fetchAnd(~(opened | none), .release);
                    m.guard.unlock();
                    Rt.wake(w.who);
                    return true;
                };
                const first = if (s & woken != 0) null else m.queue.take(.ready);
                const empty = m.queue.isEmpty() or planted == .others_forgotten;
                const gone: u32 = locked | if (empty) waiting | starving else @as(u32, 0);
                if (first) |w| {
                    _ = m.state.fetchOr(woken, .monotonic);
                    _ = m.state.fetchAnd(~gone, .release);
                    m.guard.unlock();
                    Rt.wake(w.who);
                    return true;
                }
                if (planted == .woken_unseen) {
                    _ = m.state.fetchAnd(~gone, .release);
                } else if (m.state.cmpxchgStrong(s, s & ~gone, .release, .monotonic) != null)
                    continue; // the woken waiter may have tried: another one has to be woken
                m.guard.unlock();
                return true;
            }
        }

        /// With the guard: what a run that is over has left behind is not there any more.
        inline fn enter(m: *Self) void {
            if (m.queue.enter()) _ = m.state.fetchAnd(locked, .monotonic);
        }

        inline fn clear(m: *Self, bits: u32) void {
            _ = m.state.fetchAnd(~bits, .monotonic);
        }

        /// For the waiter that was woken: true if it has the mutex.
        inline fn tryWoken(m: *Self) bool {
            var s = m.state.load(.monotonic);
            while (true) {
                const kept = if (planted == .stays_woken) s else s & ~@as(u32, woken);
                s = m.state.cmpxchgWeak(s, kept | locked, .acquire, .monotonic) orelse
                    return s & locked == 0;
            }
        }

        /// Of one that was woken and cannot try soon: the next is woken, unless it has been given
        /// the mutex. `waiter` is the one that was claimed.
        pub fn passOn(waiter: *anyopaque) void {
            const w: *Queue.Waiter = @ptrCast(@alignCast(waiter));
            const m = w.data.of;
            if (w.data.how == .handed_over) return;
            m.guard.lock();
            m.enter();
            m.clear(woken);
            // If the mutex is locked, its holder wakes the next.
            const is_locked = m.state.load(.monotonic) & locked != 0;
            const next = if (is_locked) null else m.queue.take(.ready);
            if (next != null) _ = m.state.fetchOr(woken, .monotonic);
            m.guard.unlock();
            if (next) |other| Rt.wake(other.who);
        }

        /// Waits until the caller has the mutex or a chance to get it, after `tryLock` failed.
        /// `since`, zero at the first attempt, is when the wait began; after `again` the caller
        /// tries once more.
        pub fn wait(m: *Self, me: Rt.Me, since: *u64, deadline: ?u64) Outcome {
            const now = Rt.pace();
            const is_first = since.* == 0;
            if (is_first) since.* = now;
            const starves: u32 = if (now -| since.* > starvation_ns) starving else 0;
            m.guard.lock();
            m.enter();
            const s = if (planted == .queue_unannounced)
                m.state.load(.monotonic)
            else
                m.state.fetchOr(waiting | starves, .acq_rel);
            if (s & locked == 0) {
                if (m.queue.isEmpty()) m.clear(waiting | starving);
                m.guard.unlock();
                return .again;
            }
            var w: Queue.Waiter = .{ .data = .{ .of = m } };
            // One that was woken and lost is the next to be woken again.
            const wake = if (is_first)
                m.queue.wait(&m.guard, &w, me, .mutex_lock, deadline)
            else
                m.queue.waitAt(.front, &m.guard, &w, me, .mutex_lock, deadline);
            if (wake == .interrupted) return .interrupted;
            if (wake == .timeout) return if (m.tryLock()) .locked else .timeout;
            if (w.data.how == .chance) return if (m.tryWoken()) .locked else .again;
            const is_last = m.state.load(.monotonic) & waiting == 0;
            if (is_last or Rt.pace() -| since.* < starvation_ns)
                m.clear(starving);
            return .locked;
        }
    };
}
