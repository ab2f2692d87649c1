//! Socket calls that do not wait, on Linux and macOS. Addresses are the system's sockaddr bytes.
const std = @import("std");
const builtin = @import("builtin");
const c = std.c;

pub const Result = union(enum) {
    /// Bytes, or a descriptor.
    done: usize,
    /// It would have to wait.
    again,
    /// errno
    failed: c_int,
};

pub const Address = extern struct {
    bytes: [128]u8 align(8) = @splat(0),
    len: c.socklen_t = 128,

    pub const Family = enum { ipv4, ipv6, other };

    pub fn family(a: *const Address) Family {
        const sa: *const c.sockaddr = @ptrCast(&a.bytes);
        return switch (sa.family) {
            c.AF.INET => .ipv4,
            c.AF.INET6 => .ipv6,
            else => .other,
        };
    }

    /// Host byte order.
    pub fn port(a: *const Address) u16 {
        return std.mem.readInt(u16, a.bytes[2..4], .big);
    }

    pub fn ipv4(a: *const Address) *const [4]u8 {
        return a.bytes[4..8];
    }

    pub fn ipv6(a: *const Address) *const [16]u8 {
        return a.bytes[8..24];
    }

    pub fn flowInfo(a: *const Address) u32 {
        return std.mem.readInt(u32, a.bytes[4..8], .big);
    }

    pub fn scopeId(a: *const Address) u32 {
        return std.mem.readInt(u32, a.bytes[24..28], builtin.cpu.arch.endian());
    }
};

extern "c" fn recv(fd: c_int, buf: ?[*]u8, len: usize, flags: c_int) isize;
extern "c" fn send(fd: c_int, buf: [*]const u8, len: usize, flags: c_int) isize;
extern "c" fn shutdown(fd: c_int, how: c_int) c_int;
extern "c" fn fcntl(fd: c_int, cmd: c_int, ...) c_int;
extern "c" fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_int, len: c.socklen_t) c_int;
const accept4 = @extern(*const fn (c_int, *anyopaque, *c.socklen_t, c_int) callconv(.c) c_int, .{ .name = "accept4" });
const accept = @extern(*const fn (c_int, *anyopaque, *c.socklen_t) callconv(.c) c_int, .{ .name = "accept" });

const linux = builtin.os.tag == .linux;
const dont_wait: c_int = if (linux) 0x40 else 0x80;
const no_signal: c_int = if (linux) 0x4000 else 0; // macOS has SO_NOSIGPIPE instead

inline fn errno() c_int {
    return c._errno().*;
}

inline fn check(rc: anytype) ?Result {
    if (rc >= 0) return .{ .done = @intCast(rc) };
    const e = errno();
    if (e == @as(c_int, @backingInt(c.E.INTR))) return null;
    if (e == @as(c_int, @backingInt(c.E.AGAIN))) return .again;
    return .{ .failed = e };
}

pub fn receive(fd: i32, buf: [*]u8, len: usize, flags: c_int) Result {
    while (true) {
        return check(recv(fd, buf, len, flags | dont_wait)) orelse continue;
    }
}

pub fn transmit(fd: i32, buf: [*]const u8, len: usize, flags: c_int) Result {
    while (true) {
        return check(send(fd, buf, len, flags | dont_wait | no_signal)) orelse continue;
    }
}

/// A new non-blocking descriptor, not inherited by children.
pub fn acceptOne(fd: i32, address: *Address) Result {
    while (true) {
        address.len = address.bytes.len;
        if (linux) {
            const flags = 0o4000 | 0o2000000; // SOCK_NONBLOCK | SOCK_CLOEXEC
            return check(accept4(fd, &address.bytes, &address.len, flags)) orelse continue;
        }
        const result = check(accept(fd, &address.bytes, &address.len)) orelse continue;
        if (result == .done) {
            _ = fcntl(@intCast(result.done), 4, @as(c_int, 4)); // F_SETFL, O_NONBLOCK
            _ = fcntl(@intCast(result.done), 2, @as(c_int, 1)); // F_SETFD, FD_CLOEXEC
        }
        return result;
    }
}

pub fn shut(fd: i32, how: c_int) Result {
    return check(shutdown(fd, how)) orelse .again;
}

/// Whether a write, or the end of a connect, would not wait.
pub fn writable(fd: i32) bool {
    var fds = [_]c.pollfd{.{ .fd = fd, .events = c.POLL.OUT, .revents = 0 }};
    return c.poll(&fds, 1, 0) == 1;
}

pub fn close(fd: i32) void {
    _ = c.close(fd);
}

/// Small messages go out at once, as in Go's net package.
pub fn noDelay(fd: i32) void {
    const one: c_int = 1;
    _ = setsockopt(fd, 6, 1, &one, @sizeOf(c_int)); // IPPROTO_TCP, TCP_NODELAY
}

pub const bad_descriptor: c_int = @backingInt(c.E.BADF);

pub fn setErrno(e: c_int) void {
    c._errno().* = e;
}
