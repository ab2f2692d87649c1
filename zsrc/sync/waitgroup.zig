//! WaitGroup: goroutines that wait until a counter is zero, as Go's sync.WaitGroup. Everything here
//! needs the lane's lock.
const Waiters = @import("../core/waiters.zig").Waiters;

pub fn WaitGroup(comptime Rt: type) type {
    return struct {
        const Self = @This();
        pub const Queue = Waiters(Rt, void);

        count: i64 = 0,
        queue: Queue = .{},

        pub const AddError = error{ Negative, Overflow };

        pub fn add(w: *Self, delta: i64) AddError!void {
            const sum, const overflow = @addWithOverflow(w.count, delta);
            if (overflow != 0) return error.Overflow;
            if (sum < 0) return error.Negative;
            w.count = sum;
            if (sum == 0 and !w.queue.isEmpty()) w.queue.end(&Rt.no_lock, .ready);
        }
    };
}
