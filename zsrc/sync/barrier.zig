//! Barrier: a number of goroutines that go on together, once all have come. Everything here needs
//! the lane's lock.
//!
//! It is used round after round. A goroutine that leaves before its round is full breaks the
//! barrier, since the others would wait in vain; one that is told to leave when the round is full
//! already has passed it.
const Wake = @import("../core/wait.zig").Wake;
const Waiters = @import("../core/waiters.zig").Waiters;

pub fn Barrier(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Rt, void);

        parties: u64,
        arrived: u64 = 0,
        broken: bool = false,
        /// Counts the rounds that have ended, one way or another.
        round: u64 = 0,
        queue: Queue = .{},

        pub const Passed = union(enum) { place: u64, broken, interrupted };

        /// Arrives as the last of the parties, if the caller is: its place, and the others go on.
        pub fn complete(b: *Self) ?u64 {
            const place = b.waiting();
            if (place + 1 < b.parties) return null;
            b.endRound(.ready);
            return place;
        }

        /// Arrives, and parks until all have. The barrier is not broken, and `complete` returned
        /// null, with nothing in between.
        pub fn wait(b: *Self, me: Rt.Me, deadline: ?u64) Passed {
            const place = b.arrived;
            const round = b.round;
            var w: Queue.Waiter = .{};
            b.arrived += 1;
            const wake = b.queue.wait(&Rt.no_lock, &w, me, .barrier_wait, deadline);
            if (w.given) return .{ .place = place };
            // Unless the round was broken, and the others know.
            if (b.round == round and w.run == Rt.run()) b.abort();
            return if (wake == .interrupted) .interrupted else .broken;
        }

        /// How many have arrived in this round.
        pub fn waiting(b: *Self) u64 {
            if (b.queue.enter()) b.arrived = 0;
            return b.arrived;
        }

        fn endRound(b: *Self, wake: Wake) void {
            b.arrived = 0;
            b.round += 1;
            b.queue.end(&Rt.no_lock, wake);
        }

        /// Goroutines that wait find the barrier broken; for the next one it is as new.
        pub fn reset(b: *Self) void {
            b.endRound(.closed);
            b.broken = false;
        }

        pub fn abort(b: *Self) void {
            b.endRound(.closed);
            b.broken = true;
        }
    };
}
