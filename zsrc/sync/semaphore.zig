//! Semaphore: a number of permits, of which goroutines take some and give them back. Everything
//! here needs the lane's lock.
//!
//! Permits go to those who wait in the order in which they came: one that wants many is not passed
//! by others that want few, and so gets them.
const g_mod = @import("../sched/g.zig");
const Waiters = @import("waiters.zig").Waiters;
const G = g_mod.G;

pub fn Semaphore(comptime Lane: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Lane);

        size: u64,
        held: u64 = 0,
        queue: Queue = .{},

        pub inline fn tryAcquire(s: *Self, lane: *Lane, n: u64) bool {
            if (s.size - s.held < n) return false;
            if (!s.queue.isEmpty() and s.queue.first(lane) != null) return false;
            s.held += n;
            return true;
        }

        /// Parks until the permits are the caller's. `n` is at most the size. After `tryAcquire`
        /// failed, with nothing in between.
        pub fn acquireWait(s: *Self, lane: *Lane, g: *G, n: u64, deadline: ?u64) g_mod.Wake {
            var w: Queue.Waiter = .{ .g = g, .need = n };
            const wake = s.queue.wait(lane, &w, .semacquire, deadline);
            // Those behind one that has left may want less.
            if (!w.given) s.grant(lane);
            return wake;
        }

        pub inline fn release(s: *Self, lane: *Lane, n: u64) error{NotHeld}!void {
            if (n > s.held) return error.NotHeld;
            s.held -= n;
            if (!s.queue.isEmpty()) s.grant(lane);
        }

        fn grant(s: *Self, lane: *Lane) void {
            while (s.queue.first(lane)) |w| {
                if (s.size - s.held < w.need) return;
                s.held += w.need;
                _ = s.queue.take(lane);
                lane.readyLast(w.g);
            }
        }
    };
}
