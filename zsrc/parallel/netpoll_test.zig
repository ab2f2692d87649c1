//! Descriptors and their handles: what neither a model nor a C program can reach.
const std = @import("std");
const env = @import("env.zig");
const lane = @import("lane.zig");
const netpoll = @import("netpoll.zig");
const desc = @import("../netpoll/desc.zig");
const pollside = @import("pollside.zig");
const wait = @import("wait.zig");
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

extern "c" fn fork() c_int;
extern "c" fn waitpid(pid: c_int, status: *c_int, options: c_int) c_int;
extern "c" fn pipe(fds: *[2]c_int) c_int;

/// No goroutine waits here.
const Desc = desc.Desc(pollside.Rt(struct {
    pub const Env = env.Real;
    pub const Backend = void;
}));

fn openAndClose(d: *Desc) !desc.Generation {
    const generation = d.open(.of(3));
    try expect(d.incref(generation));
    try expect(!d.decref());
    try expect(d.close(generation) != null);
    try expect(!d.incref(generation));
    try expect(d.close(generation) == null);
    var w: wait.Wait(env.Real) = .{};
    try expect(d.drain(&w) == .done);
    return generation;
}

test "a descriptor has a generation for each file, and is given up after the last" {
    var d: Desc = .{};
    for (0..3) |i| {
        try expectEqual(i, try openAndClose(&d));
        try expect(d.recycle());
        try expect(!d.incref(@intCast(i)));
    }
    const last = desc.last_generation - 1;
    d.state.raw += @as(u64, last - 3) << desc.generation_shift;
    try expectEqual(last, try openAndClose(&d));
    try expect(!d.recycle());
    try expect(!d.incref(last));
    try expect(!d.incref(desc.last_generation));
}

/// What is not true, by its number; 0 for nothing.
fn inChild(of_parent: *netpoll.Handle, fd: c_int) u8 {
    lane.forget();
    if (netpoll.incref(of_parent) != null) return 1;
    if (netpoll.wanted()) return 2;
    lane.start(.{ .gomaxprocs = 1 }) catch return 3;
    if (netpoll.close(of_parent, true)) return 4;
    const own = netpoll.open(.of(fd)) catch return 5;
    if (own == of_parent) return 6;
    const d = netpoll.incref(own) orelse return 7;
    if (d.fd.fd() != fd) return 8;
    netpoll.decref(d);
    return if (netpoll.close(own, true) and lane.stop(null)) 0 else 9;
}

test "in the child of a fork the handles are closed, also those that a call was inside of" {
    if (@import("builtin").os.tag != .linux) return;
    var fds: [2]c_int = undefined;
    try expectEqual(0, pipe(&fds));
    try lane.start(.{ .gomaxprocs = 2 });
    const h = try netpoll.open(.of(fds[0]));
    const inside = netpoll.incref(h).?;
    const child = fork();
    if (child == 0) std.c._exit(inChild(h, fds[0]));
    var status: c_int = undefined;
    try expectEqual(child, waitpid(child, &status, 0));
    try expectEqual(0, status);
    netpoll.decref(inside);
    try expect(netpoll.close(h, true));
    try expect(!netpoll.close(h, true));
    _ = std.c.close(fds[1]);
    try expect(lane.stop(null));
}
