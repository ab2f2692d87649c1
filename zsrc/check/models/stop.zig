//! The end of the lane: golibx_stop against goroutines that are just ending and Ms that spin, go
//! idle, poll or end. Every thread has to come to its end. And sysmon, which sleeps while all is
//! idle.
const std = @import("std");
const check = @import("../explorer.zig");
const Lane = @import("lane.zig").Lane;

const What = enum { ending, resting, polling, locked };

fn Stopping(comptime Sim: type, comptime what: What) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{
            .procs = if (what == .ending or what == .polling) 2 else 1,
            .starter = true,
            .m_idle_ns = if (what == .resting) 100 else null,
        });
        const switching = L.switching;
        pub const threads = .{.{ "stopper", stop }};

        /// The last goroutine is about to end.
        last: L.Event = .{},

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            if (what == .polling) L.wantNetwork();
            L.startM(&.{L.make(body, m)});
            if (what == .resting) L.startIdleM();
            if (what != .resting) L.startSysmon() catch unreachable;
        }

        fn body(raw: ?*anyopaque) callconv(.c) void {
            switch (what) {
                .ending => L.go(child, raw.?),
                .locked => {
                    const g = switching.enter().?;
                    switching.lockThread(g);
                    switching.leave(g);
                },
                .resting, .polling => {},
            }
            if (what != .ending) child(raw);
        }

        fn child(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            m.last.happens();
        }

        fn stop(m: *Self) void {
            m.last.computeUntil();
            while (switching.goroutineCount() != 0) L.Os.sleepNs(1);
            L.threads.stop();
            check.expect(L.sched.mcount == 0, "an M is left");
            check.expect(L.sched.nmidle.raw == 0, "an M is idle, and gone");
            check.expect(L.sched.nmspinning.raw == 0, "an M spins, and is gone");
            for (L.sched.procs()) |p|
                check.expect(p.?.status.raw == .idle, "a P is not idle at the end");
        }
    };
}

pub fn Ending(comptime Sim: type) type {
    return Stopping(Sim, .ending);
}

pub fn Resting(comptime Sim: type) type {
    return Stopping(Sim, .resting);
}

pub fn Polling(comptime Sim: type) type {
    return Stopping(Sim, .polling);
}

pub fn Locked(comptime Sim: type) type {
    return Stopping(Sim, .locked);
}

/// sysmon sleeps, or is about to, while a thread starts two goroutines, of which the first blocks
/// until the second has run: sysmon has to take the P from it.
pub fn SysmonAsleep(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const L = Lane(Sim, .{ .procs = 1 });
        const switching = L.switching;
        pub const threads = .{.{ "outside", starts }};

        second_runs: L.Event = .{},

        pub fn init(_: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startSysmon() catch unreachable;
        }

        fn starts(m: *Self) void {
            L.go(first, m);
        }

        fn first(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            L.go(second, m);
            const g = switching.enter().?;
            switching.enterSyscall(g);
            m.second_runs.computeUntil();
            switching.exitSyscall(g);
            switching.leave(g);
        }

        fn second(raw: ?*anyopaque) callconv(.c) void {
            const m: *Self = @ptrCast(@alignCast(raw.?));
            m.second_runs.happens();
        }

        pub fn rests(_: *Self) bool {
            return L.rests();
        }

        pub fn end(_: *Self) void {
            L.end();
        }
    };
}
