//! WaitGroup: waits until a counter is zero, as Go's sync.WaitGroup.
const Waiters = @import("../core/waiters.zig").Waiters;
const Wake = @import("../core/wait.zig").Wake;

pub fn WaitGroup(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Rt, void);

        lock: Rt.Env.Lock = .{},
        count: i64 = 0,
        queue: Queue = .{},

        pub const AddError = error{ Negative, Overflow };

        pub fn add(w: *Self, delta: i64) AddError!void {
            w.lock.lock();
            const sum, const overflow = @addWithOverflow(w.count, delta);
            if (overflow != 0 or sum < 0) {
                w.lock.unlock();
                return if (overflow != 0) error.Overflow else error.Negative;
            }
            w.count = sum;
            if (sum == 0 and !w.queue.isEmpty()) return w.queue.end(&w.lock, .ready);
            w.lock.unlock();
        }

        pub inline fn wait(w: *Self, me: Rt.Me, deadline: ?u64) Wake {
            w.lock.lock();
            if (w.count == 0 or deadline == 0) {
                defer w.lock.unlock();
                return if (w.count == 0) .ready else .timeout;
            }
            var waiter: Queue.Waiter = .{};
            return w.queue.wait(&w.lock, &waiter, me, .wait_group, deadline);
        }
    };
}
