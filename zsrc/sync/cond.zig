//! Cond: waits for a change of what a lock guards, as Go's sync.Cond.
//!
//! That lock is let go only when the queue's own is held: a signal that the next owner sends has to
//! wait for the queue, and finds the waiter there. The lock's own queue comes below this one: no
//! caller that holds it wants this one.
const Waiters = @import("../core/waiters.zig").Waiters;
const Wake = @import("../core/wait.zig").Wake;

pub fn Cond(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const planted = if (@hasDecl(Rt.Env, "planted")) Rt.Env.planted else .none;
        const Queue = Waiters(Rt, void);

        lock: Rt.Env.Lock = .{},
        queue: Queue = .{},

        /// Unlocks `locker` and waits; null if it was not locked. The caller locks it again.
        pub inline fn wait(c: *Self, me: Rt.Me, locker: anytype, deadline: ?u64) ?Wake {
            if (planted == .unlocks_before_it_queues) _ = locker.unlock();
            c.lock.lock();
            const unlocked = planted == .unlocks_before_it_queues or locker.unlock();
            if (!unlocked or deadline == 0) {
                c.lock.unlock();
                return if (unlocked) .timeout else null;
            }
            var w: Queue.Waiter = .{};
            return c.queue.wait(&c.lock, &w, me, .cond_wait, deadline);
        }

        pub fn signal(c: *Self) void {
            c.lock.lock();
            const first = c.queue.take(.ready);
            c.lock.unlock();
            if (first) |w| Rt.wake(w.who);
        }

        pub fn broadcast(c: *Self) void {
            c.lock.lock();
            c.queue.end(&c.lock, .ready);
        }
    };
}
