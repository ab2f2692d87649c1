//! GOMAXPROCS against timers: those of Ps that die or come back, and of Ps that are idle.
const std = @import("std");
const check = @import("../explorer.zig");
const Lane = @import("lane.zig").Lane;

/// A goroutine sleeps on each of two Ps, while GOMAXPROCS goes from 2 to 1, and back if `grows`, or
/// from 1 to 2; one of them computes for a while between two naps, so that its timer is a new one.
fn Sleeping(comptime Sim: type, comptime live: u32, comptime sizes: []const u32) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 2, .live = live });
        const switching = L.switching;
        pub const threads = .{.{ "resizer", resize }};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            if (live == 1) return L.startM(&.{ L.make(naps, m), L.make(nap, m) });
            L.startM(&.{L.make(nap, m)});
            L.startM(&.{L.make(naps, m)});
        }

        fn nap(_: ?*anyopaque) callconv(.c) void {
            sleep(7);
        }

        fn naps(_: ?*anyopaque) callconv(.c) void {
            sleep(3);
            sleep(3);
        }

        fn sleep(ns: u64) void {
            const g = switching.enter().?;
            const until = Sim.nanotime() + ns;
            switching.sleep(g, ns);
            check.expect(Sim.nanotime() >= until, "a sleep ends early");
            switching.leave(g);
        }

        fn resize(_: *Self) void {
            for (sizes) |n| _ = L.sched.setProcs(n);
        }

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
        }
    };
}

pub fn Shrink(comptime Sim: type) type {
    return Sleeping(Sim, 2, &.{1});
}

pub fn Grow(comptime Sim: type) type {
    return Sleeping(Sim, 1, &.{2});
}

pub fn ShrinkAndGrow(comptime Sim: type) type {
    return Sleeping(Sim, 2, &.{ 1, 2 });
}
