//! Semaphore: a number of permits, of which goroutines take some and give them back. Everything
//! here needs the lane's lock.
//!
//! Permits go to those who wait in the order in which they came: one that wants many is not passed
//! by others that want few, and so gets them.
const Wake = @import("../core/wait.zig").Wake;
const Waiters = @import("../core/waiters.zig").Waiters;

pub fn Semaphore(comptime Rt: type) type {
    return struct {
        const Self = @This();
        /// Each asks for so many permits.
        const Queue = Waiters(Rt, u64);

        size: u64,
        held: u64 = 0,
        queue: Queue = .{},

        pub inline fn tryAcquire(s: *Self, n: u64) bool {
            if (s.size - s.held < n) return false;
            if (!s.queue.isEmpty() and s.queue.first() != null) return false;
            s.held += n;
            return true;
        }

        /// Parks until the permits are the caller's. `n` is at most the size. After `tryAcquire`
        /// failed, with nothing in between.
        pub fn acquireWait(s: *Self, me: Rt.Me, n: u64, deadline: ?u64) Wake {
            var w: Queue.Waiter = .{ .data = n };
            const wake = s.queue.wait(&Rt.no_lock, &w, me, .semacquire, deadline);
            // Those behind one that has left may want less.
            if (wake != .ready) s.grant();
            return wake;
        }

        pub inline fn release(s: *Self, n: u64) error{NotHeld}!void {
            if (n > s.held) return error.NotHeld;
            s.held -= n;
            if (!s.queue.isEmpty()) s.grant();
        }

        fn grant(s: *Self) void {
            while (s.queue.first()) |w| {
                if (s.size - s.held < w.data) return;
                s.held += w.data;
                _ = s.queue.take(.ready);
                Rt.wakeLast(w.who);
            }
        }
    };
}
