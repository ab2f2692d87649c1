//! How another process asks this one what it does: a socket that `golibx dump` and the like connect
//! to, and signals. Both reach the one thread that sits in `wait`, whatever the others are stuck
//! in.
//!
//! The socket is an abstract one, with the process's number in its name: nothing of it is left when
//! the process ends. A descriptor is kept in reserve, so that a process that has used up its own,
//! and hangs for that, can be asked as well. The signal handler only adds to an eventfd, which it
//! may at any point of any program.
const std = @import("std");
const linux = std.os.linux;
const c = std.c;
const os = @import("os.zig");

pub const supported = true;

pub const Request = union(enum) {
    stop,
    /// A signal asked. `quit`: the process has to end afterwards.
    signal: struct { quit: bool },
    /// A connection, which the caller closes.
    connection: i32,
};

// What is added to the eventfd, a counter of 64 bits.
const dump_count = 1;
const quit_count = 1 << 20;
const stop_count = 1 << 40;

var event_fd: std.atomic.Value(i32) = .init(-1);
var listen_fd: i32 = -1;
/// Given up for a connection when there is no other, and had again when that is closed.
var reserve_fd: i32 = -1;
/// How long `wait` ignores connections after one that it could not accept.
const pause_ms = 100;
/// Signals that are ours to give back.
var taken: [2]?c.SIG = .{ null, null };

/// `listens`: also to the socket. False if the process has no descriptors left, or another limit is
/// reached.
pub fn open(listens: bool) bool {
    const event = linux.eventfd(0, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK);
    if (linux.errno(event) != .SUCCESS) return false;
    event_fd.store(@intCast(event), .release);
    os.descriptors.keep(@intCast(event));
    listen_fd = if (listens) listen() orelse -1 else -1;
    if (listen_fd >= 0) {
        os.descriptors.keep(listen_fd);
        keepReserve();
    }
    return true;
}

fn listen() ?i32 {
    const flags = linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    const rc = linux.socket(linux.AF.UNIX, flags, 0);
    if (linux.errno(rc) != .SUCCESS) return null;
    const fd: i32 = @intCast(rc);
    var address: linux.sockaddr.un = .{ .path = @splat(0) };
    const name = std.fmt.bufPrint(
        address.path[1..],
        "golibx-{d}",
        .{linux.getpid()},
    ) catch unreachable;
    const size: linux.socklen_t = @intCast(@offsetOf(linux.sockaddr.un, "path") + 1 + name.len);
    if (linux.errno(linux.bind(fd, @ptrCast(&address), size)) == .SUCCESS and
        linux.errno(linux.listen(fd, 8)) == .SUCCESS) return fd;
    _ = linux.close(fd);
    return null;
}

/// After `stop` has been seen, or in the child of a fork.
pub fn close() void {
    releaseSignals();
    const event = event_fd.swap(-1, .acq_rel);
    for ([_]i32{ event, listen_fd }) |fd| {
        if (fd < 0) continue;
        os.descriptors.release(fd);
        _ = linux.close(fd);
    }
    listen_fd = -1;
    giveReserve();
}

fn keepReserve() void {
    if (reserve_fd >= 0) return;
    const rc = linux.eventfd(0, linux.EFD.CLOEXEC);
    if (linux.errno(rc) != .SUCCESS) return;
    reserve_fd = @intCast(rc);
    os.descriptors.keep(reserve_fd);
}

fn giveReserve() void {
    if (reserve_fd < 0) return;
    os.descriptors.release(reserve_fd);
    _ = linux.close(reserve_fd);
    reserve_fd = -1;
}

pub fn stop() void {
    if (!add(stop_count)) lost();
}

fn lost() noreturn {
    os.fatal("the descriptor that dumps are asked through has been closed by the program: what " ++
        "closes descriptors that it has not opened has to leave golibx's own alone", .{});
}

fn add(count: u64) bool {
    const fd = event_fd.load(.acquire);
    if (fd < 0) return true;
    if (!isOurs(fd)) return false;
    return linux.errno(linux.write(fd, @ptrCast(&count), @sizeOf(u64))) == .SUCCESS;
}

/// False if the program has closed it, whatever it has opened under that number since: only what
/// the kernel made for a purpose like this has no type.
fn isOurs(fd: i32) bool {
    var status: linux.Statx = undefined;
    const rc = linux.statx(fd, "", linux.AT.EMPTY_PATH, .{ .TYPE = true }, &status);
    return switch (linux.errno(rc)) {
        .SUCCESS => status.mode & linux.S.IFMT == 0,
        .NOSYS => true, // before Linux 4.11
        else => false,
    };
}

pub fn wait() Request {
    var pauses = false;
    while (true) {
        var fds = [_]linux.pollfd{
            .{ .fd = event_fd.load(.acquire), .events = linux.POLL.IN, .revents = 0 },
            .{ .fd = listen_fd, .events = linux.POLL.IN, .revents = 0 },
        };
        const watched: linux.nfds_t = if (pauses) 1 else fds.len;
        const rc = linux.poll(&fds, watched, if (pauses) pause_ms else -1);
        if (linux.errno(rc) != .SUCCESS) continue;
        pauses = false;
        if (fds[0].revents != 0) {
            if (!isOurs(fds[0].fd)) lost();
            var count: u64 = 0;
            _ = linux.read(fds[0].fd, @ptrCast(&count), @sizeOf(u64));
            if (count >= stop_count) return .stop;
            if (count > 0) return .{ .signal = .{ .quit = count >= quit_count } };
        }
        if (fds[1].revents != 0) {
            if (accept()) |fd| return .{ .connection = fd };
            // It stays ready, and polling it at once would spin.
            pauses = true;
        }
    }
}

fn accept() ?i32 {
    var rc = linux.accept4(listen_fd, null, null, linux.SOCK.CLOEXEC);
    switch (linux.errno(rc)) {
        .MFILE, .NFILE => {
            giveReserve();
            rc = linux.accept4(listen_fd, null, null, linux.SOCK.CLOEXEC);
        },
        else => {},
    }
    return if (linux.errno(rc) == .SUCCESS) @intCast(rc) else null;
}

/// The process that has connected, if it may know what this one does: its own user's, and root's.
pub fn mayAsk(fd: i32) ?i32 {
    const Credentials = extern struct { pid: i32, uid: u32, gid: u32 };
    var peer: Credentials = undefined;
    var size: linux.socklen_t = @sizeOf(Credentials);
    const rc = linux.getsockopt(fd, linux.SOL.SOCKET, linux.SO.PEERCRED, @ptrCast(&peer), &size);
    if (linux.errno(rc) != .SUCCESS) return null;
    return if (peer.uid == 0 or peer.uid == linux.geteuid()) peer.pid else null;
}

pub const Line = union(enum) {
    /// Without its end.
    text: []const u8,
    /// Nothing came.
    none,
    too_long,
};

/// The line that the other end sends first. It has so many milliseconds for the first byte, and
/// then for each further part.
pub fn receiveLine(fd: i32, buffer: []u8, first_ms: i32, next_ms: i32) Line {
    var len: usize = 0;
    while (len < buffer.len) {
        var fds = [_]linux.pollfd{.{ .fd = fd, .events = linux.POLL.IN, .revents = 0 }};
        const polled = linux.poll(&fds, 1, if (len == 0) first_ms else next_ms);
        if (linux.errno(polled) == .INTR) continue;
        if (linux.errno(polled) != .SUCCESS or polled == 0) return .none;
        const rc = linux.recvfrom(fd, buffer.ptr + len, buffer.len - len, 0, null, null);
        if (linux.errno(rc) == .INTR) continue;
        if (linux.errno(rc) != .SUCCESS or rc == 0) return .none;
        const end = std.mem.findScalar(u8, buffer[len..][0..rc], '\n');
        if (end) |at| return .{ .text = buffer[0 .. len + at] };
        len += rc;
    }
    return .too_long;
}

/// False when the reader is gone, or does not read for seconds.
pub fn send(fd: i32, bytes: []const u8) bool {
    var rest = bytes;
    while (rest.len > 0) {
        const rc = linux.sendto(fd, rest.ptr, rest.len, linux.MSG.NOSIGNAL, null, 0);
        switch (linux.errno(rc)) {
            .SUCCESS => rest = rest[rc..],
            .INTR => {},
            else => return false,
        }
    }
    return true;
}

/// A client that does not read must not keep the thread waiting.
pub fn limitSends(fd: i32) void {
    const limit: linux.timeval = .{ .sec = 5, .usec = 0 };
    _ = linux.setsockopt(
        fd,
        linux.SOL.SOCKET,
        linux.SO.SNDTIMEO,
        @ptrCast(&limit),
        @sizeOf(linux.timeval),
    );
}

pub fn hangUp(fd: i32) void {
    _ = linux.close(fd);
    keepReserve();
}

pub fn exitProcess(status: u8) noreturn {
    linux.exit_group(status);
}

// ---- signals ----

/// From here on the signal asks for a dump. False if the program handles or ignores it itself.
pub fn takeSignal(number: u32, quit: bool) bool {
    const sig: c.SIG = @fromBackingInt(@intCast(number));
    var present: c.Sigaction = undefined;
    if (c.sigaction(sig, null, &present) != 0) return false;
    if (present.handler.handler != c.SIG.DFL) return false;
    var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
    action.handler = .{ .handler = if (quit) onQuit else onDump };
    action.flags = c.SA.ONSTACK | c.SA.RESTART;
    if (c.sigaction(sig, &action, null) != 0) return false;
    taken[@intFromBool(quit)] = sig;
    return true;
}

pub const quit_signal: u32 = @backingInt(c.SIG.QUIT);

/// Those that the program has put a handler of its own to meanwhile stay as they are.
fn releaseSignals() void {
    for (&taken) |*each| {
        const sig = each.* orelse continue;
        each.* = null;
        var present: c.Sigaction = undefined;
        if (c.sigaction(sig, null, &present) != 0) continue;
        const handler = present.handler.handler;
        if (handler != onQuit and handler != onDump) continue;
        var action: c.Sigaction = std.mem.zeroes(c.Sigaction);
        action.handler = .{ .handler = c.SIG.DFL };
        _ = c.sigaction(sig, &action, null);
    }
}

fn onDump(_: c.SIG) callconv(.c) void {
    _ = add(dump_count);
}

fn onQuit(_: c.SIG) callconv(.c) void {
    _ = add(quit_count);
}
