//! What primitives of zsrc/native run on in models: each thread of the model waits by itself, as a
//! thread that is no goroutine does (Blocker in zsrc/native/switching.zig).
const check = @import("../explorer.zig");
const wait = @import("../../native/wait.zig");
const WaitReason = @import("../../sched/g.zig").WaitReason;

pub fn Rt(comptime Sim: type) type {
    return struct {
        pub const Env = Sim;
        pub const G = opaque {};
        pub const Wait = wait.Wait(Sim);

        pub fn wake(w: *Wait) void {
            w.wake(w);
        }

        pub const Blocker = struct {
            wait: Wait,
            note: Sim.Note = .{},
            /// What lies on the stack is not there for ever: who touches it later is told.
            gone: bool = false,

            pub fn init(b: *Blocker, _: ?*G, contested: bool) void {
                b.* = .{ .wait = .{ .wake = wakeThread, .contested = contested } };
            }

            fn wakeThread(w: *Wait) void {
                const b: *Blocker = @alignCast(@fieldParentPtr("wait", w));
                check.expect(!b.gone, "somebody is woken whose wait is over");
                b.note.wake();
            }

            pub fn block(
                b: *Blocker,
                _: WaitReason,
                deadline: ?u64,
                unlock: *const fn (*anyopaque) bool,
                context: *anyopaque,
            ) wait.Outcome {
                defer b.gone = true;
                if (!unlock(context)) return .served;
                if (b.note.sleep(deadline) == .woken) return b.wait.outcome;
                if (b.wait.claim(.timeout)) return .timeout;
                // Somebody was first: his wake-up is on its way.
                while (b.note.sleep(null) != .woken) {}
                return b.wait.outcome;
            }
        };
    };
}
