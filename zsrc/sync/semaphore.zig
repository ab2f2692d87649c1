//! Semaphore: a number of permits, of which some are taken and given back.
//!
//! Permits go to those who wait in the order in which they came: one that wants many is not passed
//! by others that want few, and so gets them. Whoever gives some back takes waiters out under the
//! lock and claims them: one whose deadline was quicker does not count, so that no permit is lost
//! to who has given up. One that gives up looks whether those behind it want less.
const std = @import("std");
const Waiters = @import("../core/waiters.zig").Waiters;
const Wake = @import("../core/wait.zig").Wake;

pub fn Semaphore(comptime Rt: type) type {
    return struct {
        const Self = @This();
        /// Each asks for so many permits.
        const Queue = Waiters(Rt, u64);
        const forever = std.math.maxInt(u64);

        lock: Rt.Env.Lock = .{},
        free: u64 = 0,
        queue: Queue = .{},

        pub inline fn tryAcquire(s: *Self, n: u64) bool {
            s.lock.lock();
            defer s.lock.unlock();
            return s.take(n);
        }

        inline fn take(s: *Self, n: u64) bool {
            if (s.free < n) return false;
            if (!s.queue.isEmpty() and s.queue.first() != null) return false;
            s.free -= n;
            return true;
        }

        /// Waits until the permits are the caller's, or until the deadline.
        pub inline fn acquire(s: *Self, me: Rt.Me, n: u64, deadline: ?u64) Wake {
            s.lock.lock();
            if (s.free < n or !s.queue.isEmpty())
                return s.acquireSlow(me, n, deadline orelse forever);
            s.free -= n;
            s.lock.unlock();
            return .ready;
        }

        /// An optional deadline would lie in memory, also for those who need not wait.
        noinline fn acquireSlow(s: *Self, me: Rt.Me, n: u64, deadline: u64) Wake {
            const taken = s.take(n);
            if (!taken and deadline != 0)
                return s.wait(me, n, if (deadline == forever) null else deadline);
            s.lock.unlock();
            return if (taken) .ready else .timeout;
        }

        /// After `take` failed, with the lock since then, which it lets go.
        pub inline fn wait(s: *Self, me: Rt.Me, n: u64, deadline: ?u64) Wake {
            var w: Queue.Waiter = .{ .data = n };
            const wake = s.queue.wait(&s.lock, &w, me, .semacquire, deadline);
            if (wake == .ready) return wake;
            s.lock.lock();
            s.grant();
            return wake;
        }

        pub inline fn release(s: *Self, n: u64) void {
            s.lock.lock();
            if (!s.queue.isEmpty()) return s.releaseTo(n);
            s.free += n;
            s.lock.unlock();
        }

        inline fn releaseTo(s: *Self, n: u64) void {
            _ = s.queue.enter();
            if (s.queue.list.head) |w| {
                // As mostly, one gets what comes back.
                if (s.free == 0 and w.data == n and s.queue.takeOne(w, .ready)) {
                    s.lock.unlock();
                    return Rt.wakeLast(w.who);
                }
            }
            s.free += n;
            s.grant();
        }

        /// With the lock, which it lets go.
        noinline fn grant(s: *Self) void {
            var woken: Queue.List = .{};
            _ = s.queue.enter();
            while (s.free > 0) {
                const w = s.queue.list.head orelse break;
                // One that has left already keeps nobody waiting.
                if (s.free < w.data and s.queue.first() == w) break;
                if (s.free < w.data or !s.queue.takeOne(w, .ready)) continue;
                s.free -= w.data;
                Queue.collect(&woken, w);
            }
            s.lock.unlock();
            Queue.wakeAll(woken);
        }
    };
}
