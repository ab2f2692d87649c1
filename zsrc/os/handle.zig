//! What the system knows an open socket by: a file descriptor, or on Windows a SOCKET.
//!
//! A SOCKET is as wide as a pointer, and its invalid value has all bits set (winsock2.h). So has a
//! `Handle`, on every system: code that takes one for an `int` compiles on none. Only what calls
//! the system or Python asks for the number in it. Descriptors that are no sockets, which only
//! POSIX systems have (epoll's own, what os.close() takes), are plain `i32`.
const std = @import("std");
const builtin = @import("builtin");

pub const Handle = enum(usize) {
    /// -1, or INVALID_SOCKET: of what is closed.
    none = std.math.maxInt(usize),
    _,

    /// The handles that a number can be of.
    const most = if (builtin.os.tag == .windows) std.math.maxInt(i64) else std.math.maxInt(i32);

    /// Of a descriptor of a POSIX system; a negative one is none.
    pub inline fn of(descriptor: i32) Handle {
        return @fromBackingInt(@as(usize, @bitCast(@as(isize, descriptor))));
    }

    /// The reverse: -1 for none.
    pub inline fn fd(h: Handle) i32 {
        return @truncate(@as(isize, @bitCast(@backingInt(h))));
    }

    /// Of a number that a program gives; null if none has it.
    pub fn ofNumber(value: i64) ?Handle {
        return if (value < 0 or value > most) null else @fromBackingInt(@intCast(value));
    }

    /// For programs: -1 for none.
    pub inline fn number(h: Handle) i64 {
        return @as(isize, @bitCast(@backingInt(h)));
    }
};

test "a handle is the number that it is made of" {
    for ([_]i32{ 0, 5, std.math.maxInt(i32) }) |number| {
        const handle: Handle = .of(number);
        try std.testing.expect(handle != .none);
        try std.testing.expectEqual(number, handle.fd());
        try std.testing.expectEqual(number, handle.number());
        try std.testing.expectEqual(handle, Handle.ofNumber(number).?);
    }
    try std.testing.expectEqual(Handle.none, Handle.of(-1));
    try std.testing.expectEqual(-1, Handle.none.fd());
    try std.testing.expectEqual(-1, Handle.none.number());
    try std.testing.expectEqual(null, Handle.ofNumber(-1));
}
