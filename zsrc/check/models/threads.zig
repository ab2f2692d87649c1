//! What primitives of zsrc/native run on in models: each thread of the model waits by itself, as a
//! thread that is no goroutine does (Blocker in zsrc/native/switching.zig).
const check = @import("../explorer.zig");
const wait = @import("../../native/wait.zig");
const WaitReason = @import("../../core/wait.zig").WaitReason;
const Wake = @import("../../core/wait.zig").Wake;

pub fn Rt(comptime Sim: type) type {
    return struct {
        pub const Env = Sim;
        pub const G = opaque {};
        pub const Me = ?*G;
        pub const Wait = wait.Wait(Sim);
        const claims = wait.Claims(Sim);
        pub const Who = claims.Who;
        pub const Run = claims.Run;
        pub const run = claims.run;
        pub const claim = claims.claim;
        pub const isClaimed = claims.isClaimed;
        pub const last_is_next = claims.last_is_next;

        pub fn wake(w: *Wait) void {
            w.wake(w);
        }

        pub const wakeLast = wake;

        pub const Blocker = struct {
            wait: Wait,
            note: Sim.Note = .{},
            /// What lies on the stack is not there for ever: who touches it later is told.
            gone: bool = false,

            pub fn init(b: *Blocker, _: ?*G, contested: bool) void {
                b.* = .{ .wait = .{ .wake = wakeThread, .contested = contested } };
            }

            pub fn who(b: *Blocker) *Wait {
                return &b.wait;
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
            ) Wake {
                defer b.gone = true;
                if (!unlock(context)) return .ready;
                if (b.note.sleep(deadline) == .woken) return b.wait.outcome;
                if (b.wait.claim(.timeout)) return .timeout;
                // Somebody was first: his wake-up is on its way.
                while (b.note.sleep(null) != .woken) {}
                return b.wait.outcome;
            }
        };
    };
}
