//! Goroutines that wait for one object, first come, first served: what the primitives of this
//! folder are made of. Everything here needs the lane's lock.
//!
//! A waiter lies on the stack of its goroutine. Who wakes it is decided by `Lane.claim`: an object
//! gives something only to a waiter that it has claimed, and a waiter that a time-out or a
//! cancellation has claimed first is passed by. So nothing is given to one that has left, and one
//! that was given something keeps it, whatever else it is told meanwhile.
//!
//! A run that ends may leave goroutines behind, and a fork all of them: they never go on. A queue
//! forgets those of another run than the present one.
const g_mod = @import("../sched/g.zig");
const G = g_mod.G;
const List = @import("../core/list.zig").List;

pub fn Waiters(comptime Lane: type) type {
    return struct {
        const Self = @This();

        pub const Waiter = struct {
            g: *G,
            /// What it asks for, where waiters ask for different amounts.
            need: u64 = 0,
            /// It has been given what it waits for, however its park ended.
            given: bool = false,
            /// The run in which it was queued.
            generation: u32 = 0,
            prev: ?*Waiter = null,
            next: ?*Waiter = null,
        };

        list: List(Waiter) = .{},
        /// The run whose goroutines these are.
        generation: u32 = 0,

        pub fn push(q: *Self, lane: *const Lane, w: *Waiter) void {
            q.forgetOthers(lane);
            w.generation = lane.generation;
            q.list.push(w);
        }

        pub fn pushFront(q: *Self, lane: *const Lane, w: *Waiter) void {
            q.forgetOthers(lane);
            w.generation = lane.generation;
            q.list.pushFront(w);
        }

        pub inline fn isEmpty(q: *const Self) bool {
            return q.list.head == null;
        }

        /// Does nothing if it has been taken out before.
        pub fn remove(q: *Self, w: *Waiter) void {
            q.list.remove(w);
        }

        /// Before something is given: forgets waiters of a run that has ended.
        pub fn forgetOthers(q: *Self, lane: *const Lane) void {
            if (q.generation == lane.generation) return;
            q.list = .{};
            q.generation = lane.generation;
        }

        /// The first that can still be given something.
        pub fn first(q: *Self, lane: *const Lane) ?*Waiter {
            q.forgetOthers(lane);
            while (q.list.head) |w| {
                if (!w.g.isClaimed()) return w;
                q.remove(w); // its goroutine has left already
            }
            return null;
        }

        /// Takes out the first that can be woken, claimed: the caller makes its goroutine ready.
        pub fn take(q: *Self, lane: *Lane) ?*Waiter {
            const w = q.first(lane) orelse return null;
            q.remove(w);
            _ = lane.claim(w.g, .ready);
            w.g.fired = w;
            w.given = true;
            return w;
        }

        /// Takes all out, in order. Those who left before do not notice, except by `given`.
        pub fn wakeAll(q: *Self, lane: *Lane, wake: g_mod.Wake) void {
            q.forgetOthers(lane);
            while (q.list.pop()) |w| {
                w.given = wake == .ready;
                if (!lane.claim(w.g, wake)) continue;
                w.g.fired = w;
                lane.readyLast(w.g);
            }
        }

        /// Queues the calling goroutine at the end and parks it.
        pub fn wait(
            q: *Self,
            lane: *Lane,
            w: *Waiter,
            reason: g_mod.WaitReason,
            deadline: ?u64,
        ) g_mod.Wake {
            q.push(lane, w);
            return q.park(lane, w, reason, deadline);
        }

        /// Parks one that is queued.
        pub fn park(
            q: *Self,
            lane: *Lane,
            w: *Waiter,
            reason: g_mod.WaitReason,
            deadline: ?u64,
        ) g_mod.Wake {
            lane.prepare(w.g);
            const wake = lane.park(w.g, reason, deadline);
            q.leave(lane, w);
            return wake;
        }

        /// After a park, however that ended.
        pub fn leave(q: *Self, lane: *const Lane, w: *Waiter) void {
            // A thread may return when the run is over, and the queue another's.
            if (w.generation == lane.generation) q.remove(w);
        }
    };
}
