//! The M that gets the P next, and is woken for it when the host's lock is free.
//!
//! An M that gives the P to another still holds the host's lock, which that one needs at once:
//! woken now it would find the lock taken, and sleep once more. So it is appointed the successor,
//! under the lock, and woken when that has been let go. Meanwhile a signal may wake it, or the end
//! of the run, and it may come to its own end. It counts in `due` how many have yet to wake it,
//! from before the lock is let go until they have touched it for the last time, and does not end
//! before (`awaitOthers` in threads.zig).
//! An M that appoints has no successor yet: it lets the lock go, and wakes the one that it
//! appointed, before it can have the P once more.
const std = @import("std");

/// The part of an M that is about its successor. `Env` may have a planted bug.
pub fn Succession(comptime M: type, comptime Env: type) type {
    return struct {
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// With the host's lock.
        pub fn appoint(m: *M, next: *M) void {
            std.debug.assert(m.successor == null);
            if (planted != .due_late) _ = next.due.fetchAdd(1, .monotonic);
            m.successor = next;
        }

        /// When the host's lock has been let go.
        pub inline fn wakeSuccessor(m: *M) void {
            const next = m.successor orelse return;
            m.successor = null;
            if (planted == .due_late) _ = next.due.fetchAdd(1, .monotonic);
            if (planted == .due_early) _ = next.due.fetchSub(1, .release);
            next.note.wake();
            if (planted != .due_early)
                _ = next.due.fetchSub(1, .release); // it may be gone from here on
        }
    };
}
