//! What primitives run on in the serial lane (core/waiters.zig says what for). Everything has the
//! host's lock, so that there is no other, and the claim of a wait is a store (`Lane.claim`).
const g_mod = @import("g.zig");
const Unshared = @import("../core/unshared.zig").Unshared;
const G = g_mod.G;
const Wake = g_mod.Wake;

pub fn Waiting(comptime Lane: type) type {
    return struct {
        pub const Env = Unshared;
        pub const Me = *G;
        pub const Who = *G;
        pub const Run = u32;
        pub const last_is_next = false;
        /// Of what has none of its own.
        pub var no_lock: Env.Lock = .{};

        pub inline fn run() Run {
            return Lane.get().generation;
        }

        pub inline fn claim(g: *G, how: Wake, waiter: *anyopaque) bool {
            if (!Lane.get().claim(g, how)) return false;
            g.fired = waiter;
            return true;
        }

        pub inline fn isClaimed(g: *const G) bool {
            return g.isClaimed();
        }

        /// Monotonic ns, for what depends on how long others had the processor.
        pub inline fn pace() u64 {
            return Lane.get().pace();
        }

        pub inline fn wake(g: *G) void {
            Lane.get().ready(g);
        }

        pub inline fn wakeLast(g: *G) void {
            Lane.get().readyLast(g);
        }

        pub const Blocker = struct {
            g: *G,

            /// A wait of the serial lane is always one that others may end.
            pub inline fn init(b: *Blocker, g: *G, _: bool) void {
                Lane.get().prepare(g);
                b.g = g;
            }

            pub inline fn who(b: *const Blocker) *G {
                return b.g;
            }

            /// The waiter that was claimed.
            pub inline fn fired(b: *const Blocker) *anyopaque {
                return b.g.fired.?;
            }

            pub inline fn block(
                b: *const Blocker,
                reason: g_mod.WaitReason,
                deadline: ?u64,
                unlock: *const fn (*anyopaque) bool,
                context: *anyopaque,
            ) Wake {
                _ = unlock(context);
                return Lane.get().park(b.g, reason, deadline);
            }

            /// As `block` without a deadline, and without a call.
            pub inline fn blockHere(
                b: *const Blocker,
                reason: g_mod.WaitReason,
                unlock: *const fn (*anyopaque) bool,
                context: *anyopaque,
            ) Wake {
                _ = unlock(context);
                return Lane.get().parkHere(b.g, reason);
            }
        };
    };
}
