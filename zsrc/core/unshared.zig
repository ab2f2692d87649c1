//! The environment of code that is entered by one thread at a time, since a lock of its host's is
//! held: os/env.zig without size and without code. What is generic over its environment costs
//! nothing there that it would not cost without.
const Order = @import("std").builtin.AtomicOrder;

pub const Unshared = struct {
    pub const Lock = struct {
        pub inline fn lock(_: *Lock) void {}
        pub inline fn unlock(_: *Lock) void {}
    };

    pub fn Atomic(comptime T: type) type {
        return struct {
            const Self = @This();

            raw: T,

            pub inline fn init(value: T) Self {
                return .{ .raw = value };
            }

            pub inline fn load(a: *const Self, comptime _: Order) T {
                return a.raw;
            }

            pub inline fn cmpxchgStrong(
                a: *Self,
                expected: T,
                new: T,
                comptime _: Order,
                comptime _: Order,
            ) ?T {
                if (a.raw != expected) return a.raw;
                a.raw = new;
                return null;
            }

            pub const cmpxchgWeak = cmpxchgStrong;

            pub inline fn fetchOr(a: *Self, mask: T, comptime _: Order) T {
                defer a.raw |= mask;
                return a.raw;
            }

            pub inline fn fetchAnd(a: *Self, mask: T, comptime _: Order) T {
                defer a.raw &= mask;
                return a.raw;
            }
        };
    }

    pub inline fn reads(_: anytype) void {}
    pub inline fn writes(_: anytype) void {}
};
