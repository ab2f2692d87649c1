//! The environment of code that is entered by one thread at a time, since a lock of its host's is
//! held: os/env.zig without size and without code. What is generic over its environment costs
//! nothing there that it would not cost without.

pub const Unshared = struct {
    pub const Lock = struct {
        pub inline fn lock(_: *Lock) void {}
        pub inline fn unlock(_: *Lock) void {}
    };

    pub inline fn reads(_: anytype) void {}
    pub inline fn writes(_: anytype) void {}
};
