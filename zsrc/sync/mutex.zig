//! Mutex: mutual exclusion with Go's two modes. Everything here needs the lane's lock.
//!
//! In normal mode unlocking wakes the first waiter, which then competes with those who come
//! running: they are on the processor already, and mostly win, which saves a switch for each time
//! the mutex is taken. A waiter that loses goes back to the head of the queue. One that has waited
//! for longer than a millisecond puts the mutex into starvation mode: from then on unlocking gives
//! the mutex to the first waiter, without its ever being free, until a waiter gets it that is the
//! last or has waited for less.
const Waiters = @import("../core/waiters.zig").Waiters;

/// As in Go (internal/sync/mutex.go: starvationThresholdNs).
const starvation_ns = 1_000_000;

pub fn Mutex(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Rt, enum { chance, locked });

        locked: bool = false,
        starving: bool = false,
        /// The run in which a waiter was woken that has not tried yet; unlocking wakes no second.
        woken_in: u32 = 0,
        queue: Queue = .{},

        pub const Outcome = enum { locked, again, timeout, interrupted };

        pub inline fn tryLock(m: *Self) bool {
            if (m.locked) return false;
            m.locked = true;
            return true;
        }

        pub inline fn unlock(m: *Self) error{Unlocked}!void {
            if (!m.locked) return error.Unlocked;
            if (!m.queue.isEmpty()) return m.unlockSlow();
            m.locked = false;
        }

        noinline fn unlockSlow(m: *Self) void {
            if (m.starving) {
                // It stays locked, and is the waiter's now.
                if (m.queue.take(.ready)) |w| {
                    w.data = .locked;
                    return Rt.wake(w.who);
                }
                m.starving = false;
            }
            m.locked = false;
            if (m.woken_in == Rt.run()) return;
            const w = m.queue.take(.ready) orelse return;
            m.woken_in = Rt.run();
            Rt.wake(w.who);
        }

        /// Parks the calling goroutine until it has the mutex or a chance to get it. After
        /// `tryLock` failed, with nothing in between. `since`, zero at the first attempt, is when
        /// the wait began; after `again` the caller tries once more.
        pub fn wait(
            m: *Self,
            me: Rt.Me,
            since: *u64,
            deadline: ?u64,
        ) Outcome {
            var w: Queue.Waiter = .{ .data = .chance };
            const now = Rt.pace();
            if (since.* == 0) {
                since.* = now;
            } else if (now -| since.* > starvation_ns) m.starving = true;
            const wake = m.queue.waitAt(
                if (since.* == now) .end else .front,
                &Rt.no_lock,
                &w,
                me,
                .mutex_lock,
                deadline,
            );
            if (w.data == .locked) {
                if (m.queue.isEmpty() or Rt.pace() -| since.* < starvation_ns)
                    m.starving = false;
                return .locked;
            }
            switch (wake) {
                .ready, .closed => {
                    m.woken_in = 0;
                    return if (m.tryLock()) .locked else .again;
                },
                .timeout, .interrupted => {
                    if (m.queue.isEmpty()) m.starving = false;
                    if (wake == .interrupted) return .interrupted;
                    return if (m.tryLock()) .locked else .timeout;
                },
            }
        }
    };
}
