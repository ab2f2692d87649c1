//! One operation that waits: who waits, how he is woken, and who decides how the wait ends.
//!
//! A wait on one object without a deadline ends in one way only, so that nobody competes. A wait
//! that several may end (a select, a deadline, a cancellation) is `contested`: the first to `claim`
//! it decides, all others pass by. Waits lie on the stacks of those who wait; after `wake` nobody
//! may touch them.
const List = @import("../core/list.zig").List;

pub const Outcome = enum(u8) { served, closed, timeout, interrupted };

pub fn Wait(comptime Env: type) type {
    return struct {
        const Self = @This();

        /// The native goroutine that waits; null for threads and for goroutines of the other lane.
        g: ?*anyopaque = null,
        /// How to wake the others.
        wake: *const fn (*Self) void = undefined,
        contested: bool = false,
        claimed: Env.Atomic(u32) = .init(0),
        outcome: Outcome = .served,
        /// Which of a select's cases was served, by its index.
        fired: u32 = 0,

        /// True for the first that asks; how the wait ends is then his to say.
        pub inline fn claim(w: *Self, outcome: Outcome) bool {
            if (w.contested) {
                const planted = @hasDecl(Env, "planted") and Env.planted == .claim_without_cas;
                if (planted) {
                    if (w.claimed.load(.acquire) != 0) return false;
                    w.claimed.store(1, .release);
                } else if (w.claimed.cmpxchgStrong(0, 1, .acq_rel, .monotonic) != null) return false;
            }
            w.outcome = outcome;
            return true;
        }
    };
}

/// Waiters of one object, first come, first served. Under that object's lock.
pub fn Waiter(comptime Env: type) type {
    return struct {
        wait: *Wait(Env),
        /// What is sent, or where the received value goes; null for none.
        elem: ?[*]u8 = null,
        /// Position among a select's cases.
        index: u32 = 0,
        prev: ?*@This() = null,
        next: ?*@This() = null,
    };
}

pub fn WaiterList(comptime Env: type) type {
    return struct {
        const Self = @This();
        const W = Waiter(Env);
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        list: List(W) = .{},

        pub inline fn isEmpty(l: *const Self) bool {
            return l.list.head == null;
        }

        pub inline fn push(l: *Self, w: *W) void {
            l.list.push(w);
        }

        pub inline fn pushFront(l: *Self, w: *W) void {
            l.list.pushFront(w);
        }

        /// For one that was served already, nothing.
        pub inline fn remove(l: *Self, w: *W) void {
            l.list.remove(w);
        }

        /// The first that can still be served, which the caller then has to do and to wake.
        pub inline fn pop(l: *Self, outcome: Outcome) ?*W {
            while (l.list.pop()) |w| {
                // The index is written before the wake-up, which publishes it.
                if (!w.wait.claim(outcome) and planted != .serves_the_late) continue;
                w.wait.fired = w.index;
                return w;
            }
            return null;
        }
    };
}
