//! Mutex: mutual exclusion with Go's two modes. Everything here needs the lane's lock.
//!
//! In normal mode unlocking wakes the first waiter, which then competes with those who come
//! running: they are on the processor already, and mostly win, which saves a switch for each time
//! the mutex is taken. A waiter that loses goes back to the head of the queue. One that has waited
//! for longer than a millisecond puts the mutex into starvation mode: from then on unlocking gives
//! the mutex to the first waiter, without its ever being free, until a waiter gets it that is the
//! last or has waited for less.
const g_mod = @import("../sched/g.zig");
const Waiters = @import("waiters.zig").Waiters;
const G = g_mod.G;

/// As in Go (internal/sync/mutex.go: starvationThresholdNs).
const starvation_ns = 1_000_000;

pub fn Mutex(comptime Lane: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Lane);

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

        pub inline fn unlock(m: *Self, lane: *Lane) error{Unlocked}!void {
            if (!m.locked) return error.Unlocked;
            if (!m.queue.isEmpty()) return m.unlockSlow(lane);
            m.locked = false;
        }

        noinline fn unlockSlow(m: *Self, lane: *Lane) void {
            if (m.starving) {
                // It stays locked, and is the waiter's now.
                if (m.queue.take(lane)) |w| return lane.ready(w.g);
                m.starving = false;
            }
            m.locked = false;
            if (m.woken_in == lane.generation) return;
            const w = m.queue.take(lane) orelse return;
            w.given = false; // only a chance
            m.woken_in = lane.generation;
            lane.ready(w.g);
        }

        /// Parks the calling goroutine until it has the mutex or a chance to get it. After
        /// `tryLock` failed, with nothing in between. `since`, zero at the first attempt, is when
        /// the wait began; after `again` the caller tries once more.
        pub fn wait(
            m: *Self,
            lane: *Lane,
            g: *G,
            since: *u64,
            deadline: ?u64,
        ) Outcome {
            var w: Queue.Waiter = .{ .g = g };
            const now = lane.pace();
            if (since.* == 0) {
                since.* = now;
                m.queue.push(lane, &w);
            } else {
                if (now -| since.* > starvation_ns) m.starving = true;
                m.queue.pushFront(lane, &w);
            }
            const wake = m.queue.park(lane, &w, .mutex_lock, deadline);
            if (w.given) {
                if (m.queue.isEmpty() or lane.pace() -| since.* < starvation_ns)
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
