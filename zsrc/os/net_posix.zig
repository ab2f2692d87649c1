//! Socket calls that do not wait, on Linux and macOS. Addresses are the system's sockaddr bytes.
const std = @import("std");
const builtin = @import("builtin");
const Handle = @import("handle.zig").Handle;
const c = std.c;

pub const Result = union(enum) {
    /// Bytes, or the number of a handle.
    done: usize,
    /// It would have to wait.
    again,
    /// errno
    failed: c_int,
};

pub const Address = extern struct {
    bytes: [128]u8 align(8) = @splat(0),
    len: c.socklen_t = 128,

    pub const Family = enum { ipv4, ipv6, unix, other };

    pub fn family(a: *const Address) Family {
        const sa: *const c.sockaddr = @ptrCast(&a.bytes);
        return switch (sa.family) {
            c.AF.INET => .ipv4,
            c.AF.INET6 => .ipv6,
            c.AF.UNIX => .unix,
            else => .other,
        };
    }

    pub fn familyNumber(a: *const Address) i64 {
        const sa: *const c.sockaddr = @ptrCast(&a.bytes);
        return sa.family;
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

    /// Its name; of an abstract one, which begins with a zero, all of it.
    pub fn unixPath(a: *const Address) []const u8 {
        const path = a.bytes[2..@max(2, @min(a.len, a.bytes.len))];
        if (path.len == 0 or path[0] == 0) return path;
        return std.mem.sliceTo(path, 0);
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
extern "c" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const anyopaque,
    len: c.socklen_t,
) c_int;
const accept4 = @extern(
    *const fn (c_int, *anyopaque, *c.socklen_t, c_int) callconv(.c) c_int,
    .{ .name = "accept4" },
);
const accept = @extern(
    *const fn (c_int, *anyopaque, *c.socklen_t) callconv(.c) c_int,
    .{ .name = "accept" },
);

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

pub fn receive(h: Handle, buf: [*]u8, len: usize, flags: c_int) Result {
    while (true) {
        return check(recv(h.fd(), buf, len, flags | dont_wait)) orelse continue;
    }
}

pub fn transmit(h: Handle, buf: [*]const u8, len: usize, flags: c_int) Result {
    while (true) {
        return check(send(h.fd(), buf, len, flags | dont_wait | no_signal)) orelse continue;
    }
}

/// As transmit; a broken connection gives SIGPIPE, unless that is ignored, as in Python.
pub fn transmitAsIs(h: Handle, buf: [*]const u8, len: usize, flags: c_int) Result {
    while (true) {
        return check(send(h.fd(), buf, len, flags | dont_wait)) orelse continue;
    }
}

/// As receive, for any non-blocking descriptor.
pub fn readAny(h: Handle, buf: [*]u8, len: usize) Result {
    const result = receive(h, buf, len, 0);
    if (!isNoSocket(result)) return result;
    while (true) {
        return check(c.read(h.fd(), buf, len)) orelse continue;
    }
}

/// As transmit, for any non-blocking descriptor.
pub fn writeAny(h: Handle, buf: [*]const u8, len: usize) Result {
    const result = transmit(h, buf, len, 0);
    if (!isNoSocket(result)) return result;
    while (true) {
        return check(c.write(h.fd(), buf, len)) orelse continue;
    }
}

fn isNoSocket(result: Result) bool {
    return result == .failed and result.failed == @as(c_int, @backingInt(c.E.NOTSOCK));
}

/// A new non-blocking descriptor, not inherited by children.
pub fn acceptOne(h: Handle, address: *Address) Result {
    while (true) {
        address.len = address.bytes.len;
        if (linux) {
            const flags = 0o4000 | 0o2000000; // SOCK_NONBLOCK | SOCK_CLOEXEC
            return check(accept4(h.fd(), &address.bytes, &address.len, flags)) orelse continue;
        }
        const result = check(accept(h.fd(), &address.bytes, &address.len)) orelse continue;
        if (result == .done) {
            _ = fcntl(@intCast(result.done), 4, @as(c_int, 4)); // F_SETFL, O_NONBLOCK
            _ = fcntl(@intCast(result.done), 2, @as(c_int, 1)); // F_SETFD, FD_CLOEXEC
        }
        return result;
    }
}

pub fn shut(h: Handle, how: c_int) Result {
    return check(shutdown(h.fd(), how)) orelse .again;
}

/// Whether a write, or the end of a connect, would not wait.
pub fn writable(h: Handle) bool {
    return isReady(h, c.POLL.OUT);
}

/// Whether a read or an accept would not wait.
pub fn readable(h: Handle) bool {
    return isReady(h, c.POLL.IN);
}

fn isReady(h: Handle, events: i16) bool {
    var fds = [_]c.pollfd{.{ .fd = h.fd(), .events = events, .revents = 0 }};
    return c.poll(&fds, 1, 0) == 1;
}

const non_blocking: c_int = if (linux) 0o4000 else 4; // O_NONBLOCK

/// Events that a look for reading or writing asks poll() for.
pub const reading: i16 = c.POLL.IN | c.POLL.RDNORM;
pub const writing: i16 = c.POLL.OUT | if (linux) 0x100 else 0; // POLLWRNORM, elsewhere POLLOUT
/// Of waitpid().
pub const no_hang: c_int = 1;
pub const stream: c_int = c.SOCK.STREAM;

/// A descriptor that is readable once that child has ended. Null where the system has none.
pub fn openProcess(pid: i32) ?Handle {
    if (!linux) return null;
    const rc = std.os.linux.pidfd_open(pid, 0);
    return if (std.os.linux.errno(rc) == .SUCCESS) .of(@intCast(rc)) else null;
}

/// For that many ns, negative for ever.
pub fn waitWritable(h: Handle, timeout_ns: i64) void {
    var fds = [_]c.pollfd{.{ .fd = h.fd(), .events = c.POLL.OUT, .revents = 0 }};
    const ms = @divFloor(timeout_ns, std.time.ns_per_ms);
    _ = c.poll(&fds, 1, @intCast(std.math.clamp(ms, -1, std.math.maxInt(c_int))));
}

/// Whether a read of it waits while there is nothing to read: not where it is open for writing
/// only, which is an error.
pub fn readBlocks(h: Handle) bool {
    const flags = fcntl(h.fd(), 3); // F_GETFL
    return flags >= 0 and flags & non_blocking == 0 and flags & 3 != 1; // O_ACCMODE, O_WRONLY
}

pub fn listens(h: Handle) bool {
    var value: c_int = 0;
    var size: c.socklen_t = @sizeOf(c_int);
    const found = getsockopt(h.fd(), c.SOL.SOCKET, c.SO.ACCEPTCONN, &value, &size);
    return found == 0 and value != 0;
}

/// Of the file, for all processes that have it open.
pub fn setBlocking(h: Handle, blocking: bool) void {
    const flags = fcntl(h.fd(), 3); // F_GETFL
    if (flags < 0) return;
    const new = if (blocking) flags & ~non_blocking else flags | non_blocking;
    if (new != flags) _ = fcntl(h.fd(), 4, new); // F_SETFL
}

pub fn close(h: Handle) void {
    _ = c.close(h.fd());
}

/// Whether a receive gives all that there is, up to what was asked for: one of datagrams gives one
/// of them, and one of a UNIX stream stops where descriptors were sent along. False if that is not
/// known.
pub fn isTcp(h: Handle) bool {
    if (builtin.os.tag != .linux) return false;
    var protocol: c_int = 0;
    var size: c.socklen_t = @sizeOf(c_int);
    const asked = c.getsockopt(h.fd(), c.SOL.SOCKET, std.os.linux.SO.PROTOCOL, &protocol, &size);
    return asked == 0 and protocol == c.IPPROTO.TCP;
}

/// Small messages go out at once, as in Go's net package.
pub fn noDelay(h: Handle) void {
    const one: c_int = 1;
    _ = setsockopt(h.fd(), 6, 1, &one, @sizeOf(c_int)); // IPPROTO_TCP, TCP_NODELAY
}

pub const bad_descriptor: c_int = @backingInt(c.E.BADF);

extern "c" fn inet_pton(family: c_int, text: [*:0]const u8, out: *anyopaque) c_int;
extern "c" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *anyopaque,
    len: *c.socklen_t,
) c_int;

/// "127.0.0.1" or "::1"; false if it is neither.
pub fn numericAddress(text: [:0]const u8, number: u16, out: *Address) bool {
    out.* = .{};
    const sa: *c.sockaddr = @ptrCast(&out.bytes);
    if (inet_pton(c.AF.INET, text, out.bytes[4..8]) == 1) {
        sa.family = c.AF.INET;
        out.len = 16; // sizeof(struct sockaddr_in)
    } else if (inet_pton(c.AF.INET6, text, out.bytes[8..24]) == 1) {
        sa.family = c.AF.INET6;
        out.len = 28; // sizeof(struct sockaddr_in6)
    } else return false;
    std.mem.writeInt(u16, out.bytes[2..4], number, .big);
    return true;
}

fn streamSocket(address: *const Address) Result {
    const sa: *const c.sockaddr = @ptrCast(&address.bytes);
    const rc = c.socket(sa.family, c.SOCK.STREAM, 0);
    if (rc < 0) return .{ .failed = errno() };
    setNonBlocking(rc);
    return .{ .done = @intCast(rc) };
}

fn setNonBlocking(fd: c_int) void {
    _ = fcntl(fd, 4, @as(c_int, if (linux) 0o4000 else 4)); // F_SETFL, O_NONBLOCK
    _ = fcntl(fd, 2, @as(c_int, 1)); // F_SETFD, FD_CLOEXEC
}

/// A non-blocking socket that listens.
pub fn listenOn(address: *const Address, backlog: c_int) Result {
    const fd: c_int = switch (streamSocket(address)) {
        .done => |fd| @intCast(fd),
        else => |r| return r,
    };
    const one: c_int = 1;
    _ = setsockopt(fd, c.SOL.SOCKET, c.SO.REUSEADDR, &one, @sizeOf(c_int));
    if (c.bind(fd, @ptrCast(&address.bytes), address.len) == 0 and
        c.listen(fd, @intCast(backlog)) == 0)
        return .{ .done = @intCast(fd) };
    return failClosing(fd);
}

/// A non-blocking socket that begins to connect: once it is writable, `pendingError` says how that
/// ended.
pub fn connectTo(address: *const Address) Result {
    const fd: c_int = switch (streamSocket(address)) {
        .done => |fd| @intCast(fd),
        else => |r| return r,
    };
    if (c.connect(fd, @ptrCast(&address.bytes), address.len) == 0) return .{ .done = @intCast(fd) };
    const e = errno();
    if (e == @as(c_int, @backingInt(c.E.INPROGRESS)) or e == @as(c_int, @backingInt(c.E.INTR)))
        return .{ .done = @intCast(fd) };
    return failClosing(fd);
}

fn failClosing(fd: c_int) Result {
    const e = errno();
    _ = c.close(fd);
    return .{ .failed = e };
}

/// errno of what happened on the socket in the background, 0 for nothing.
pub fn pendingError(h: Handle) c_int {
    var value: c_int = 0;
    var len: c.socklen_t = @sizeOf(c_int);
    if (getsockopt(h.fd(), c.SOL.SOCKET, c.SO.ERROR, &value, &len) != 0) return errno();
    return value;
}

/// How a connection ended that was begun without waiting: as a connect() that waits does it, so
/// that the next one tells nothing of this one. Until a program asks, Linux keeps it for that.
pub fn endConnection(h: Handle) c_int {
    if (!linux) return pendingError(h);
    var peer: Address = .{};
    if (peerName(h, &peer)) {
        const address: *const c.sockaddr = @ptrCast(&peer.bytes);
        return if (c.connect(h.fd(), address, peer.len) == 0) 0 else errno();
    }
    const e = pendingError(h);
    const nowhere: Address = .{}; // AF_UNSPEC
    _ = c.connect(h.fd(), @ptrCast(&nowhere.bytes), @sizeOf(c.sockaddr));
    return if (e != 0) e else @backingInt(c.E.CONNABORTED);
}

/// The name of the socket. False with errno set.
pub fn ownName(h: Handle, out: *Address) bool {
    out.len = out.bytes.len;
    return c.getsockname(h.fd(), @ptrCast(&out.bytes), &out.len) == 0;
}

/// That of the other end. False with errno set.
pub fn peerName(h: Handle, out: *Address) bool {
    out.len = out.bytes.len;
    return c.getpeername(h.fd(), @ptrCast(&out.bytes), &out.len) == 0;
}

/// How many bytes an option has, which are in `out` then. Null with errno set.
pub fn getOption(h: Handle, level: c_int, option: c_int, out: []u8) ?usize {
    var len: c.socklen_t = @intCast(out.len);
    return if (getsockopt(h.fd(), level, option, out.ptr, &len) == 0) len else null;
}

/// False with errno set.
pub fn setOption(h: Handle, level: c_int, option: c_int, value: []const u8) bool {
    return setsockopt(h.fd(), level, option, value.ptr, @intCast(value.len)) == 0;
}

/// Of an Internet socket. False with errno set.
pub fn localAddress(h: Handle, out: *Address) bool {
    if (!ownName(h, out)) return false;
    switch (out.family()) {
        .ipv4, .ipv6 => return true,
        .unix, .other => {},
    }
    setErrno(@backingInt(c.E.AFNOSUPPORT));
    return false;
}

// Never inlined: a goroutine that asks may have changed threads since the address was known.

pub noinline fn getErrno() c_int {
    return errno();
}

pub noinline fn setErrno(e: c_int) void {
    c._errno().* = e;
}
