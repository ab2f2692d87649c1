//! What primitives of zsrc/parallel run on in models: each thread of the model waits by itself, as
//! a thread that is no goroutine does (Blocker in zsrc/parallel/switching.zig).
const check = @import("../explorer.zig");
const wait = @import("../../parallel/wait.zig");
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

        pub fn pace() u64 {
            return Sim.nanotime();
        }

        pub fn wake(w: *Wait) void {
            w.wake(w);
        }

        pub const wakeLast = wake;

        pub const Blocker = struct {
            at: *Place,

            /// Not on the stack, and there for good: a thread that touches it later is told.
            const Place = struct {
                wait: Wait,
                note: Sim.Note = .{},
                gone: bool = false,
            };

            pub fn init(b: *Blocker, _: ?*G, contested: bool) void {
                b.at = Sim.gpa().create(Place) catch unreachable;
                b.at.* = .{ .wait = .{ .wake = wakeThread, .contested = contested } };
            }

            pub fn who(b: *const Blocker) *Wait {
                return &b.at.wait;
            }

            /// The waiter that was claimed.
            pub fn fired(b: *const Blocker) *anyopaque {
                return b.at.wait.fired.?;
            }

            fn wakeThread(w: *Wait) void {
                const at: *Place = @alignCast(@fieldParentPtr("wait", w));
                check.expect(!at.gone, "somebody is woken whose wait is over");
                at.note.wake();
            }

            pub fn block(
                b: *const Blocker,
                _: WaitReason,
                deadline: ?u64,
                unlock: *const fn (*anyopaque) bool,
                context: *anyopaque,
            ) Wake {
                defer b.at.gone = true;
                if (!unlock(context)) return .ready;
                return b.sleep(deadline);
            }

            pub fn sleep(b: *const Blocker, deadline: ?u64) Wake {
                const at = b.at;
                if (at.note.sleep(deadline) == .woken) return at.wait.outcome;
                if (at.wait.claim(.timeout)) return .timeout;
                // Another was first: the wake-up is on its way.
                while (at.note.sleep(null) != .woken) {}
                return at.wait.outcome;
            }
        };
    };
}
