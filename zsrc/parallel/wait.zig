//! One operation that waits: what waits, how to wake it, and what decides how the wait ends.
//!
//! A wait on one object without a deadline ends in one way only, so that there is no competition. A
//! wait that several may end (a select, a deadline, a cancellation) is `contested`: the first to
//! `claim` it decides, all others pass by. Waits lie on the stacks of the goroutines that wait;
//! after `wake` no other thread may touch them.
const Wake = @import("../core/wait.zig").Wake;

pub fn Wait(comptime Env: type) type {
    return struct {
        const Self = @This();

        /// The native goroutine that waits; null for threads and for goroutines of the other lane.
        g: ?*anyopaque = null,
        /// How to wake the others.
        wake: *const fn (*Self) void = undefined,
        contested: bool = false,
        claimed: Env.Atomic(u32) = .init(0),
        outcome: Wake = .ready,
        /// The waiter that was claimed, of those of a select.
        fired: ?*anyopaque = null,

        /// True for the first that asks, which then says how the wait ends.
        pub inline fn claim(w: *Self, outcome: Wake) bool {
            if (w.contested) {
                const planted = @hasDecl(Env, "planted") and Env.planted == .claim_without_cas;
                if (planted) {
                    if (w.claimed.load(.acquire) != 0) return false;
                    w.claimed.store(1, .release);
                } else if (w.claimed.cmpxchgStrong(0, 1, .acq_rel, .monotonic) != null) {
                    return false;
                }
            }
            w.outcome = outcome;
            return true;
        }
    };
}

/// Of `Rt` in core/waiters.zig, what does not depend on how one waits.
pub fn Claims(comptime Env: type) type {
    return struct {
        pub const Who = *Wait(Env);
        /// No waiter is left behind: a wait in C code lasts until it is served.
        pub const Run = u0;
        pub const last_is_next = true;

        pub inline fn run() Run {
            return 0;
        }

        pub inline fn claim(w: Who, outcome: Wake, waiter: *anyopaque) bool {
            if (!w.claim(outcome)) return false;
            // Before the wake-up, which publishes it.
            w.fired = waiter;
            return true;
        }

        /// One that is not contested is taken out by its claimer. For the others nothing is read
        /// that the claim would have to publish.
        pub inline fn isClaimed(w: Who) bool {
            return w.contested and w.claimed.load(.monotonic) != 0;
        }
    };
}
