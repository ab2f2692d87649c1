//! Goroutines that are tied to a thread: locked to it by themselves, or stopped with it inside a
//! preemption signal (KLT-switch).
const std = @import("std");
const unlockIt = @import("../../core/waiters.zig").unlockIt;
const check = @import("../explorer.zig");
const Lane = @import("lane.zig").Lane;

/// A goroutine locks its thread, yields, and waits for another to wake it, which runs on another M
/// or on the P that the first has given up. It ends locked, or unlocks first.
fn Locked(comptime Sim: type, comptime procs: u32, comptime unlocks: bool) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = procs });
        const switching = L.switching;
        pub const threads = .{};

        locked: ?*L.G = null,

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            m.locked = L.make(locks, m);
            if (procs == 1) return L.startM(&.{ m.locked.?, L.make(wakes, m) });
            L.startM(&.{m.locked.?});
            L.startM(&.{L.make(wakes, m)});
        }

        fn locks(_: ?*anyopaque) callconv(.c) void {
            const g = switching.enter().?;
            switching.lockThread(g);
            const own = g.m.?;
            switching.gosched(g);
            expectOn(g, own);
            var b: switching.Blocker = undefined;
            b.init(g, false);
            switch (g.token.begin(&b.wait)) {
                .woken => {},
                .would_block => unreachable,
                .waiting => _ = b.block(.lock, null, unlockIt(Sim.Lock), &g.token.lock),
            }
            expectOn(g, own);
            if (unlocks) {
                check.expect(switching.unlockThread(g), "it is locked");
                switching.gosched(g);
            }
            switching.leave(g);
        }

        fn expectOn(g: *L.G, own: *L.M) void {
            check.expect(g.m == own and L.currentM() == own, "a locked goroutine changes threads");
        }

        fn wakes(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            const g = switching.enter().?;
            if (m.locked.?.token.ready()) |w| switching.Rt.wake(w);
            switching.leave(g);
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
    return Locked(Sim, 2, false);
}

pub fn LockedUnlocks(comptime Sim: type) type {
    return Locked(Sim, 2, true);
}

pub fn LockedOne(comptime Sim: type) type {
    return Locked(Sim, 1, false);
}

/// Two goroutines compute on one P, each until the other has come so far: sysmon has to preempt
/// both, the first while it holds what the second waits for, such as a lock of malloc. In
/// registered text they are switched away from, elsewhere they stop with their thread, for which
/// there are so many others.
fn Hogs(
    comptime Sim: type,
    comptime registered: bool,
    comptime spares: u32,
    comptime locked: bool,
) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 1, .max_threads = 1 + spares, .registered = registered });
        pub const threads = .{};

        second_runs: L.Event = .{},
        first_is_done: L.Event = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{ L.make(first, m), L.make(second, m) });
            for (0..spares) |_| L.startIdleM();
            L.startSysmon() catch unreachable;
        }

        fn first(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            if (locked) {
                const g = L.switching.enter().?;
                L.switching.lockThread(g);
                L.switching.leave(g);
            }
            const own = L.currentM();
            m.second_runs.computeUntil();
            if (!registered)
                check.expect(L.currentM() == own, "it stops and goes on with its thread");
            m.first_is_done.happens();
        }

        fn second(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            m.second_runs.happens();
            m.first_is_done.computeUntil();
        }

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
            for (0..L.arena.fresh) |i|
                check.expect(L.arena.at(i).locked_m == null, "a goroutine stays tied to a thread");
        }
    };
}

pub fn HogsYield(comptime Sim: type) type {
    return Hogs(Sim, true, 0, false);
}

/// One spare thread: the second goroutine, when it is preempted, gives its P to the first's thread.
pub fn HogsOneSpare(comptime Sim: type) type {
    return Hogs(Sim, false, 1, false);
}

pub fn HogsTwoSpares(comptime Sim: type) type {
    return Hogs(Sim, false, 2, false);
}

pub fn HogsLocked(comptime Sim: type) type {
    return Hogs(Sim, false, 1, true);
}

/// A goroutine is stopped with its thread while it holds a lock of the C library, which is needed
/// to make threads; the other then blocks in a system call until the first is done, and its P is
/// retaken. The first gets it, since the thread that is made may need a lock that it holds.
pub fn StoppedWithLock(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 1, .max_threads = 8, .starter = true });
        pub const threads = .{};

        second_runs: L.Event = .{},
        first_is_done: L.Event = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{ L.make(first, m), L.make(second, m) });
            L.startIdleM();
            L.startSysmon() catch unreachable;
        }

        fn first(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            L.malloc.lock();
            m.second_runs.computeUntil();
            L.malloc.unlock();
            m.first_is_done.happens();
        }

        fn second(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            m.second_runs.happens();
            const g = L.switching.enter().?;
            L.switching.enterSyscall(g);
            m.first_is_done.computeUntil();
            L.switching.exitSyscall(g);
            L.switching.leave(g);
        }

        pub fn rests(_: *Self) bool {
            return L.rests();
        }
    };
}

/// Two Ps, one of them idle. A goroutine starts another and computes until that runs, which
/// computes until the first is done; one look of sysmon stops the first with its thread, once, so
/// that it has to be found by whoever has the idle P.
pub fn StoppedBesideIdle(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 2 });
        pub const threads = .{.{ "look", look }};

        second_runs: L.Event = .{},
        first_is_done: L.Event = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{L.make(first, m)});
            L.startIdleM();
        }

        fn first(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            L.go(second, m);
            m.second_runs.computeUntil();
            m.first_is_done.happens();
        }

        fn second(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            m.second_runs.happens();
            m.first_is_done.computeUntil();
        }

        fn look(_: *Self) void {
            for (L.sched.procs()) |p| {
                if (p.?.status.load(.acquire) == .running) L.sysmon.watchRunning(p.?, 1);
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
