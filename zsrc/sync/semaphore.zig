//! Semaphore: a number of permits that are taken and given back.
//!
//! Waiters get permits in the order in which they came: one that wants many is not passed by others
//! that want few, and so gets them. A goroutine that gives some back takes waiters out under the
//! lock and claims them. A waiter whose deadline was quicker does not count, so that no permit is
//! lost to one that has given up. One that gives up looks whether those behind it want less.
//!
//! Where each asks for one, as golibx.h's do, nothing is compared: the first waiter gets what comes
//! back, so that none waits while there is a permit. To look at amounts there cost 7 to 12 %.
const waiters = @import("../core/waiters.zig");
const Waiters = waiters.Waiters;
const Place = waiters.Place;
const Wake = @import("../core/wait.zig").Wake;

/// `weighted`: some ask for more than one.
pub fn Semaphore(comptime Rt: type, comptime weighted: bool) type {
    return struct {
        const Self = @This();
        /// Each asks for so many permits.
        const Queue = Waiters(Rt, if (weighted) u64 else u1);

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
            if (!s.queue.isEmpty() and (!weighted or s.queue.first() != null)) return false;
            s.free -= n;
            return true;
        }

        /// Waits until the permits are the caller's, or until the deadline.
        pub inline fn acquire(s: *Self, me: Rt.Me, n: u64, deadline: ?u64) Wake {
            s.lock.lock();
            if (!s.take(n)) return s.wait(.end, me, n, deadline);
            s.lock.unlock();
            return .ready;
        }

        /// After `take` failed, with the lock since then, which it lets go. One that was
        /// interrupted and comes back waits at the front.
        pub noinline fn wait(s: *Self, at: Place, me: Rt.Me, n: u64, deadline: ?u64) Wake {
            if (deadline == 0) {
                s.lock.unlock();
                return .timeout;
            }
            var w: Queue.Waiter = .{ .data = @intCast(n) };
            const wake = s.queue.waitAt(at, &s.lock, &w, me, .semacquire, deadline);
            if (weighted and wake != .ready) s.serveOthers();
            return wake;
        }

        /// One that was before them has left, and may have wanted more than there is.
        pub fn serveOthers(s: *Self) void {
            s.lock.lock();
            s.grant();
        }

        /// False, and nothing is done, if there were more permits than can be counted.
        pub inline fn release(s: *Self, n: u64) bool {
            s.lock.lock();
            if (!weighted) if (s.queue.take(.ready)) |w| {
                s.lock.unlock();
                Rt.wakeLast(w.who);
                return true;
            };
            const free, const overflows = @addWithOverflow(s.free, n);
            if (overflows == 0) s.free = free;
            if (weighted and overflows == 0 and !s.queue.isEmpty()) {
                s.grant();
            } else s.lock.unlock();
            return overflows == 0;
        }

        /// With the lock, which it lets go.
        noinline fn grant(s: *Self) void {
            var woken: Queue.List = .{};
            while (s.queue.first()) |w| {
                if (s.free < w.data) break;
                if (!s.queue.takeOne(w, .ready)) continue;
                s.free -= w.data;
                Queue.collect(&woken, w);
            }
            s.lock.unlock();
            Queue.wakeAll(woken);
        }
    };
}
