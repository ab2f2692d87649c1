//! max_threads: a P with work for which there is no thread. Whatever M comes free takes it, in
//! whatever way it does.
const std = @import("std");
const check = @import("../explorer.zig");
const Lane = @import("lane.zig").Lane;

/// A goroutine starts another and computes until that has ended, while the second and last M ends
/// another goroutine and is about to stop.
pub fn AboutToStop(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 2, .max_threads = 2 });
        pub const threads = .{};

        child_runs: L.Event = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{L.make(parent, m)});
            L.startM(&.{L.make(ends, m)});
        }

        fn parent(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            L.go(child, m);
            m.child_runs.computeUntil();
        }

        fn child(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            m.child_runs.happens();
        }

        fn ends(_: ?*anyopaque) callconv(.c) void {}

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
        }
    };
}

const Free = enum {
    /// A goroutine that has locked its thread ends, and the thread with it.
    locked_ends,
    /// The M waits in the poller.
    polls,
    /// An M that has rested for long ends.
    rested,
};

/// One P and several goroutines, of which each but the last blocks in a system call until the last
/// has run. There are as many threads as that takes, of which the last one comes free in this way.
fn Freed(comptime Sim: type, comptime how: Free) type {
    const calls = if (how == .rested) 2 else 1;
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{
            .procs = if (how == .polls) 2 else 1,
            .max_threads = calls + 1,
            .m_idle_ns = if (how == .rested) 100 else null,
        });
        const switching = L.switching;
        pub const threads = .{.{ "sysmon", retakes }};

        ended: [2]L.Event = @splat(.{}),
        calls_made: u32 = 0,
        called: Sim.Note = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            switch (how) {
                .locked_ends => {
                    L.startM(&.{ L.make(blocks, m), L.make(locks, m), L.make(last, m) });
                    L.startIdleM();
                },
                .polls => {
                    L.startM(&.{L.make(startsAndBlocks, m)});
                    L.startM(&.{});
                    L.wantNetwork();
                },
                .rested => {
                    L.startM(&.{ L.make(blocks, m), L.make(blocks, m), L.make(last, m) });
                    for (0..2) |_| L.startIdleM();
                },
            }
        }

        fn blocks(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            const g = switching.enter().?;
            const i = m.calls_made;
            m.calls_made += 1;
            switching.enterSyscall(g);
            m.called.wake();
            m.ended[i].computeUntil();
            switching.exitSyscall(g);
            switching.leave(g);
        }

        fn startsAndBlocks(raw: ?*anyopaque) callconv(.c) void {
            L.go(last, raw.?);
            blocks(raw);
        }

        fn locks(_: ?*anyopaque) callconv(.c) void {
            const g = switching.enter().?;
            switching.lockThread(g);
            switching.leave(g);
        }

        fn last(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            for (&m.ended) |*each| each.happens();
            L.m_idle_ns = null;
        }

        /// Takes the P from each call.
        fn retakes(m: *Self) void {
            for (0..calls) |_| {
                while (m.called.sleep(null) != .woken) {}
                m.called.clear();
                for (L.sched.procs()) |p| {
                    if (p.?.status.load(.acquire) == .syscall) _ = L.sched.retake(p.?);
                }
            }
        }

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
        }
    };
}

pub fn LockedEnds(comptime Sim: type) type {
    return Freed(Sim, .locked_ends);
}

pub fn Polls(comptime Sim: type) type {
    return Freed(Sim, .polls);
}

pub fn Rested(comptime Sim: type) type {
    return Freed(Sim, .rested);
}

/// The system refuses a thread, once, for the P of an M in a system call, which comes back just
/// then.
pub fn Refused(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 1, .starter = true });
        const switching = L.switching;
        pub const threads = .{.{ "sysmon", retakes }};

        called: Sim.Note = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{ L.make(calls, m), L.make(last, m) });
            L.refusals = 1;
        }

        fn calls(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            const g = switching.enter().?;
            switching.enterSyscall(g);
            m.called.wake();
            switching.exitSyscall(g);
            switching.leave(g);
        }

        fn last(_: ?*anyopaque) callconv(.c) void {}

        fn retakes(m: *Self) void {
            while (m.called.sleep(null) != .woken) {}
            for (L.sched.procs()) |p| {
                if (p.?.status.load(.acquire) == .syscall) _ = L.sched.retake(p.?);
            }
        }

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
        }
    };
}

/// The only M ends, with the goroutine that has locked it, which made a system call before; and the
/// system refuses the next one. Nobody is left to try again but sysmon.
pub fn RefusedLast(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 1, .starter = true });
        const switching = L.switching;
        pub const threads = .{};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{ L.make(calls, m), L.make(last, m) });
            L.refusals = 1;
            L.startSysmon() catch unreachable;
        }

        fn calls(_: ?*anyopaque) callconv(.c) void {
            const g = switching.enter().?;
            switching.lockThread(g);
            switching.enterSyscall(g);
            switching.exitSyscall(g);
            switching.leave(g);
        }

        fn last(_: ?*anyopaque) callconv(.c) void {}

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
        }
    };
}
