//! Socket calls where golibx has no poller yet: each fails with "not supported".
const Handle = @import("handle.zig").Handle;

pub const Result = union(enum) { done: usize, again, failed: c_int };

pub const Address = extern struct {
    bytes: [128]u8 = @splat(0),

    pub const Family = enum { ipv4, ipv6, unix, other };

    pub fn family(_: *const Address) Family {
        return .other;
    }
    pub fn familyNumber(_: *const Address) i64 {
        return 0;
    }
    pub fn port(_: *const Address) u16 {
        return 0;
    }
    pub fn ipv4(a: *const Address) *const [4]u8 {
        return a.bytes[0..4];
    }
    pub fn ipv6(a: *const Address) *const [16]u8 {
        return a.bytes[0..16];
    }
    pub fn unixPath(a: *const Address) []const u8 {
        return a.bytes[0..0];
    }
    pub fn flowInfo(_: *const Address) u32 {
        return 0;
    }
    pub fn scopeId(_: *const Address) u32 {
        return 0;
    }
};

const not_supported = 129; // EOPNOTSUPP of the Windows C runtime
pub const bad_descriptor: c_int = 9;

pub fn receive(_: Handle, _: [*]u8, _: usize, _: c_int) Result {
    return .{ .failed = not_supported };
}
pub fn transmit(_: Handle, _: [*]const u8, _: usize, _: c_int) Result {
    return .{ .failed = not_supported };
}
pub fn readAny(_: Handle, _: [*]u8, _: usize) Result {
    return .{ .failed = not_supported };
}
pub fn writeAny(_: Handle, _: [*]const u8, _: usize) Result {
    return .{ .failed = not_supported };
}
pub fn transmitAsIs(_: Handle, _: [*]const u8, _: usize, _: c_int) Result {
    return .{ .failed = not_supported };
}
pub fn waitWritable(_: Handle, _: i64) void {}
pub const reading: i16 = 1;
pub const writing: i16 = 4;
pub const no_hang: c_int = 1;
pub const stream: c_int = 1;
pub fn readBlocks(_: Handle) bool {
    return false;
}
pub fn listens(_: Handle) bool {
    return false;
}
pub fn openProcess(_: i32) ?Handle {
    return null;
}
pub fn setBlocking(_: Handle, _: bool) void {}
pub fn acceptOne(_: Handle, _: *Address) Result {
    return .{ .failed = not_supported };
}
pub fn shut(_: Handle, _: c_int) Result {
    return .{ .failed = not_supported };
}
pub fn writable(_: Handle) bool {
    return true;
}
pub fn readable(_: Handle) bool {
    return true;
}
pub fn isTcp(_: Handle) bool {
    return false;
}
pub fn close(_: Handle) void {}
pub fn noDelay(_: Handle) void {}

pub fn numericAddress(_: [:0]const u8, _: u16, _: *Address) bool {
    return false;
}
pub fn listenOn(_: *const Address, _: c_int) Result {
    return .{ .failed = not_supported };
}
pub fn connectTo(_: *const Address) Result {
    return .{ .failed = not_supported };
}
pub fn pendingError(_: Handle) c_int {
    return not_supported;
}
pub fn endConnection(_: Handle) c_int {
    return not_supported;
}
pub fn ownName(_: Handle, _: *Address) bool {
    setErrno(not_supported);
    return false;
}
pub fn peerName(_: Handle, _: *Address) bool {
    setErrno(not_supported);
    return false;
}
pub fn getOption(_: Handle, _: c_int, _: c_int, _: []u8) ?usize {
    setErrno(not_supported);
    return null;
}
pub fn setOption(_: Handle, _: c_int, _: c_int, _: []const u8) bool {
    setErrno(not_supported);
    return false;
}
pub fn localAddress(_: Handle, _: *Address) bool {
    return false;
}

extern "c" fn _errno() *c_int;

pub noinline fn getErrno() c_int {
    return _errno().*;
}

pub noinline fn setErrno(e: c_int) void {
    _errno().* = e;
}
