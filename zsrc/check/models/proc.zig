//! The scheduler's protocols: a thread that makes work finds an M for it, one that looks for work
//! finds it, and none sleeps while work is queued and a P idle. That the last is so shows in the
//! end: a goroutine that no thread runs is a deadlock.
const std = @import("std");
const check = @import("../explorer.zig");
const World = @import("world.zig").World;

/// A goroutine starts others and computes until they have ended, as all of them do but the last.
fn Spawning(comptime Sim: type, comptime procs: u32, comptime children: u32) type {
    return struct {
        w: W = .{},

        const Self = @This();
        const W = World(Sim, procs, children + 1);
        pub const threads = .{};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.task[0].body = parent;
            for (&m.w.task, 0..) |*t, i| {
                if (i > 0) t.body = W.computes;
                // As many as there are Ps compute at a time.
                t.until = @intCast(children -| @min(i, procs - 1));
                if (i >= procs - 1) t.until = 0;
            }
            m.w.startM(&.{0});
        }

        fn parent(w: *W, m: *W.M, t: *W.Task) W.Next {
            for (0..children) |i| w.go(m, @intCast(i + 1));
            W.hog(t);
            return .exit;
        }

        pub fn rests(m: *Self) bool {
            return m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

pub fn SpawnOne(comptime Sim: type) type {
    return Spawning(Sim, 2, 1);
}

pub fn SpawnTwo(comptime Sim: type) type {
    return Spawning(Sim, 2, 2);
}

pub fn SpawnThree(comptime Sim: type) type {
    return Spawning(Sim, 3, 2);
}

pub fn SpawnMany(comptime Sim: type) type {
    return Spawning(Sim, 4, 5);
}

/// A goroutine starts another and computes, while a second M looks for work, in vain so far: one
/// that spins, or one whose goroutine has just ended.
fn Late(comptime Sim: type, comptime spins: bool) type {
    return struct {
        w: W = .{},

        const Self = @This();
        const W = World(Sim, 2, if (spins) 2 else 3);
        pub const threads = .{};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.task[0].body = parent;
            m.w.task[0].until = if (spins) 1 else 2;
            m.w.startM(&.{0});
            m.w.startM(if (spins) &.{} else &.{2});
        }

        fn parent(w: *W, m: *W.M, t: *W.Task) W.Next {
            w.goLast(m, 1);
            W.hog(t);
            return .exit;
        }

        pub fn rests(m: *Self) bool {
            return m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

pub fn LateSpinning(comptime Sim: type) type {
    return Late(Sim, true);
}

pub fn LateEnding(comptime Sim: type) type {
    return Late(Sim, false);
}

/// Threads outside start goroutines, while a goroutine computes or not, while an M is about to
/// sleep or not.
fn Foreign(comptime Sim: type, comptime procs: u32, comptime busy: u32, comptime holds: bool) type {
    return struct {
        w: W = .{},

        const Self = @This();
        const W = World(Sim, procs, 2 + busy);
        pub const threads = .{ .{ "first", first }, .{ "second", second } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            if (busy == 0) return;
            m.w.task[2].body = W.computes;
            if (holds) m.w.task[2].until = 2;
            m.w.startM(&.{2});
        }

        fn first(m: *Self) void {
            m.w.goForeign(0);
        }

        fn second(m: *Self) void {
            m.w.goForeign(1);
        }

        pub fn rests(m: *Self) bool {
            return m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

pub fn ForeignIdle(comptime Sim: type) type {
    return Foreign(Sim, 2, 0, false);
}

pub fn ForeignOne(comptime Sim: type) type {
    return Foreign(Sim, 1, 1, false);
}

pub fn ForeignBusy(comptime Sim: type) type {
    return Foreign(Sim, 2, 1, true);
}
