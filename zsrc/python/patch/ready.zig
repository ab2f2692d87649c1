//! Waits for files of the program's: until a system call on one would not wait.
//!
//! The file is the program's, or some C library's, which may close it at any time. So the poller
//! looks at it afresh before each wait (Poller.watch): what is watched is the file that has the
//! number now, and what is possible already is told. Nothing is kept that could be wrong later.
const std = @import("std");
const os = @import("../../os/os.zig");
const netpoll = @import("../../netpoll/netpoll.zig");
const sockets = @import("../../netpoll/sockets.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const buffered = @import("../host/buffered.zig");
const goroutine = @import("../host/goroutine.zig");

const lane = &host.the_lane;

pub const Directions = netpoll.Directions;

pub const Waited = enum {
    /// To be tried again.
    ready,
    timeout,
    /// With an exception set.
    raised,
    /// It can't be watched: the original function waits for it.
    unwatched,
};

pub const File = struct { fd: i32, of: Directions };

/// Parks the calling goroutine until the file is ready in one of these directions, or until
/// `deadline`, monotonic ns.
pub fn one(fd: i32, of: Directions, deadline: ?u64) Waited {
    return any(&.{.{ .fd = fd, .of = of }}, deadline);
}

/// Those of one file that are queued.
const Place = struct {
    desc: *sockets.Desc,
    of: Directions,
    read: sockets.Waiter,
    write: sockets.Waiter,
};

const few = 4;

/// As `one`, for any of these files. Without files it waits for the deadline.
pub fn any(files: []const File, deadline: ?u64) Waited {
    const p = goroutine.forPark() orelse return .raised;
    var on_stack: [few]Place = undefined;
    const places = if (files.len <= few)
        on_stack[0..files.len]
    else
        host.gpa.alloc(Place, files.len) catch return .unwatched;
    defer if (files.len > few) host.gpa.free(places);
    for (places, files, 0..) |*place, file, i| {
        const desc = host.poller.watch(.of(file.fd), file.of) catch return .unwatched;
        // The same file once more: it is watched for the ones before, too.
        var of = file.of;
        for (files[0..i]) |before| if (before.fd == file.fd) {
            of.read = of.read or before.of.read;
            of.write = of.write or before.of.write;
        };
        if (of != file.of) _ = host.poller.watch(.of(file.fd), of) catch return .unwatched;
        place.* = .{
            .desc = desc,
            .of = file.of,
            .read = .{ .wait = &p.g, .tries = false },
            .write = .{ .wait = &p.g, .tries = false },
        };
    }
    lane.prepare(&p.g);
    var reads = false;
    for (places) |*place| {
        reads = reads or place.of.read;
        if (place.of.read) host.poller.link(&place.desc.read, &place.read);
        if (place.of.write) host.poller.link(&place.desc.write, &place.write);
    }
    const calls = buffered.leaveThread(p);
    const how = lane.park(&p.g, if (reads) .io_read else .io_write, deadline);
    buffered.enterThread(p, calls);
    const fired = if (how == .ready or how == .closed) p.g.fired else null;
    for (places) |*place| {
        if (place.of.read) unlink(&place.desc.read, &place.read, fired);
        if (place.of.write) unlink(&place.desc.write, &place.write, fired);
    }
    return switch (how) {
        .ready, .closed => .ready,
        .timeout => .timeout,
        .interrupted => if (goroutine.raisePending(p)) .raised else .ready,
    };
}

fn unlink(side: *sockets.Side, waiter: *sockets.Waiter, fired: ?*anyopaque) void {
    host.poller.unlink(side, waiter, fired == @as(*anyopaque, waiter));
}

/// Monotonic ns of a time-out in ns, negative for none.
pub fn deadlineOf(timeout_ns: i64) ?u64 {
    return if (timeout_ns < 0) null else lane.now() +| @as(u64, @intCast(timeout_ns));
}

pub fn timedOut() ?*py.Object {
    return raiseTimeout("timed out", .{});
}

pub fn raiseTimeout(comptime format: []const u8, args: anytype) ?*py.Object {
    const timeout_error = py.importFrom("builtins", "TimeoutError") orelse return null;
    defer py.decref(timeout_error);
    return py.raise(timeout_error, format, args);
}
