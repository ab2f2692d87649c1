//! Keeps a short act of one thread from being found half done by other threads: sysmon puts a call
//! into the interpreter's queue, without a lock; a fork copies that queue as it is.
//!
//! Dekker: the thread that acts stores `acting`, then loads `held`; a thread that holds it off
//! stores `held`, then loads `acting`. All four are seq_cst: one of the two sees the other. The
//! thread that acts gives up then, and never waits; one that holds off waits for an act that has
//! begun.
const Real = @import("../os/env.zig").Real;

pub fn HoldOff(comptime Env: type) type {
    return struct {
        acting: Env.Atomic(bool) = .init(false),
        /// How many threads hold it off.
        held: Env.Atomic(u32) = .init(0),

        const Self = @This();
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// One thread at a time. False if it may not act; else it calls `end` after the act.
        pub fn begin(h: *Self) bool {
            if (planted == .looks_first and h.held.load(.seq_cst) > 0) return false;
            h.acting.store(true, if (planted == .acts_late) .release else .seq_cst);
            if (planted != .looks_first and h.held.load(.seq_cst) > 0) {
                end(h);
                return false;
            }
            return true;
        }

        pub fn end(h: *Self) void {
            h.acting.store(false, .release);
        }

        /// From when this returns until `letGo` there is no act.
        pub fn hold(h: *Self) void {
            _ = h.held.fetchAdd(1, .seq_cst);
            if (planted == .does_not_wait) return;
            while (h.acting.load(.seq_cst)) Env.yield();
        }

        pub fn letGo(h: *Self) void {
            if (planted == .lets_all_go) return h.held.store(0, .release);
            _ = h.held.fetchSub(1, .release);
        }
    };
}

pub const HoldOffReal = HoldOff(Real);
