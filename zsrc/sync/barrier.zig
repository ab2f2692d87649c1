//! Barrier: a number of goroutines that go on together, once all have come. Everything here needs
//! the lane's lock.
//!
//! It is used round after round. A goroutine that leaves before its round is full breaks the
//! barrier, since the others would wait in vain; one that is told to leave when the round is full
//! already has passed it.
const g_mod = @import("../sched/g.zig");
const Waiters = @import("waiters.zig").Waiters;
const G = g_mod.G;

pub fn Barrier(comptime Lane: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Lane);

        parties: u64,
        arrived: u64 = 0,
        broken: bool = false,
        /// Counts the rounds that have ended, one way or another.
        round: u64 = 0,
        queue: Queue = .{},

        pub const Passed = union(enum) { place: u64, broken, interrupted };

        /// Arrives as the last of the parties, if the caller is: its place, and the others go on.
        pub fn complete(b: *Self, lane: *Lane) ?u64 {
            const place = b.waiting(lane);
            if (place + 1 < b.parties) return null;
            b.endRound(lane, .ready);
            return place;
        }

        /// Arrives, and parks until all have. The barrier is not broken, and `complete` returned
        /// null, with nothing in between.
        pub fn wait(b: *Self, lane: *Lane, g: *G, deadline: ?u64) Passed {
            const place = b.arrived;
            const round = b.round;
            var w: Queue.Waiter = .{ .g = g };
            b.arrived += 1;
            const wake = b.queue.wait(lane, &w, .barrier_wait, deadline);
            if (w.given) return .{ .place = place };
            // Unless the round was broken, and the others know.
            if (b.round == round and w.generation == lane.generation) b.abort(lane);
            return if (wake == .interrupted) .interrupted else .broken;
        }

        /// How many have arrived in this round.
        pub fn waiting(b: *Self, lane: *const Lane) u64 {
            if (b.queue.generation != lane.generation) {
                b.queue.forgetOthers(lane);
                b.arrived = 0;
            }
            return b.arrived;
        }

        fn endRound(b: *Self, lane: *Lane, wake: g_mod.Wake) void {
            b.arrived = 0;
            b.round += 1;
            b.queue.wakeAll(lane, wake);
        }

        /// Whoever waits finds the barrier broken; for the next it is as new.
        pub fn reset(b: *Self, lane: *Lane) void {
            b.endRound(lane, .closed);
            b.broken = false;
        }

        pub fn abort(b: *Self, lane: *Lane) void {
            b.endRound(lane, .closed);
            b.broken = true;
        }
    };
}
