//! What the descriptors of a lane with locks are over (zsrc/netpoll/desc.zig): the native lane's,
//! and those of models.
const desc = @import("../netpoll/desc.zig");
const wait_mod = @import("wait.zig");

/// `Lane` has `Env`, and `Backend` if it has a whole poller.
pub fn Rt(comptime Lane: type) type {
    return struct {
        pub const Env = Lane.Env;
        pub const Lock = Env.Lock;
        pub const Backend = Lane.Backend;
        pub const Wait = wait_mod.Wait(Env);
        pub const Owner = void;
        /// golibx.h: one goroutine a direction. No program tells what it leaves over.
        pub const settles = false;
        /// Programs wait when the system has refused an attempt.
        pub const starts_ready = false;

        pub inline fn claim(w: *desc.Desc(@This()).Waiter, how: desc.How) bool {
            return w.wait.claim(if (how == .ready) .ready else .closed);
        }
    };
}
