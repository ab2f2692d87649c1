//! Ps that change hands: system calls and the threads that take their P, GOMAXPROCS while all runs;
//! and a goroutine that parks on one M while another wakes it.
const std = @import("std");
const check = @import("../explorer.zig");
const World = @import("world.zig").World;

/// One goroutine makes a system call, which lasts until the other has run if `holds`: sysmon has to
/// take the P from it.
fn Syscall(comptime Sim: type, comptime procs: u32, comptime holds: bool) type {
    return struct {
        w: W = .{},

        const Self = @This();
        const W = World(Sim, procs, 2);
        pub const threads = .{.{ "sysmon", sysmon }};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.task[0].body = call;
            if (holds) m.w.task[0].until = 1;
            m.w.startM(&.{ 0, 1 });
        }

        fn call(w: *W, m: *W.M, t: *W.Task) W.Next {
            if (t.stage == 1) return .exit;
            t.g.transition(.running, .syscall);
            w.sched.enterSyscall(m);
            W.hog(t);
            if (w.sched.exitSyscall(m)) {
                t.g.transition(.syscall, .running);
                w.expectHeld(m);
                return .exit;
            }
            t.g.transition(.syscall, .runnable);
            t.stage = 1;
            return .without_p;
        }

        fn sysmon(m: *Self) void {
            while (m.w.exits < 2) {
                for (&m.w.p) |*p| {
                    if (p.status.load(.acquire) == .syscall and m.w.sched.retake(p)) return;
                }
                Sim.spin();
            }
        }

        pub fn rests(m: *Self) bool {
            return m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

pub fn SyscallOne(comptime Sim: type) type {
    return Syscall(Sim, 1, true);
}

pub fn SyscallShort(comptime Sim: type) type {
    return Syscall(Sim, 1, false);
}

pub fn SyscallTwo(comptime Sim: type) type {
    return Syscall(Sim, 2, false);
}

/// GOMAXPROCS goes from 2 to 1, and back if `grows`, while goroutines start others.
fn Resizing(comptime Sim: type, comptime grows: bool) type {
    return struct {
        w: W = .{},

        const Self = @This();
        const W = World(Sim, 2, 3);
        pub const threads = .{.{ "resizer", resize }};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.task[0].body = parent;
            m.w.startM(&.{0});
            m.w.startM(&.{2});
        }

        fn parent(w: *W, m: *W.M, _: *W.Task) W.Next {
            w.go(m, 1);
            return .exit;
        }

        fn resize(m: *Self) void {
            check.expect(m.w.sched.setProcs(1) == 2, "there were two");
            if (grows) check.expect(m.w.sched.setProcs(2) == 1, "there was one");
        }

        pub fn rests(m: *Self) bool {
            return m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

pub fn Shrink(comptime Sim: type) type {
    return Resizing(Sim, false);
}

pub fn ShrinkAndGrow(comptime Sim: type) type {
    return Resizing(Sim, true);
}

/// A goroutine parks, if `timed` with a timer that lies on its stack; another goroutine and a
/// thread wake it. It becomes visible to them by the commit, when its context is saved.
fn Parking(comptime Sim: type, comptime procs: u32, comptime timed: bool) type {
    return struct {
        w: W = .{},

        const Self = @This();
        const W = World(Sim, procs, 2);
        const Timers = W.Sched.T.Timers;
        pub const threads = .{.{ "outside", wake }};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.task[0].body = park;
            m.w.task[1].body = wakes;
            m.w.startM(&.{0});
            m.w.startM(&.{1});
        }

        fn park(_: *W, _: *W.M, t: *W.Task) W.Next {
            if (t.stage == 0) {
                t.wait = .{ .contested = timed };
                t.timer = .{ .when = 5, .fire = fire };
                if (t.g.token.begin(&t.wait) == .woken) return .exit;
                t.stage = 1;
                t.g.transition(.running, .waiting);
                return .{ .wait = commit };
            }
            if (!timed) return .exit;
            _ = Timers.remove(&t.timer);
            if (t.wait.outcome == .timeout) _ = t.g.token.end();
            Sim.writes(&t.timer);
            t.timer = undefined;
            return .exit;
        }

        /// As switching.Blocker's: from the first line on, the goroutine may run.
        fn commit(w: *W, m: *W.M, t: *W.Task) bool {
            if (timed) {
                const p = m.p.?;
                const when = t.timer.when;
                const earliest = p.timers.add(Sim.gpa(), &t.timer) catch unreachable;
                if (earliest and procs > 1) w.sched.timerAdded(when);
            }
            t.g.token.lock.unlock();
            return true;
        }

        fn fire(timer: *Timers.Timer) ?*W.G {
            const t: *W.Task = @fieldParentPtr("timer", timer);
            Sim.reads(timer);
            return if (t.wait.claim(.timeout)) &t.g else null;
        }

        fn wakes(w: *W, m: *W.M, _: *W.Task) W.Next {
            if (w.task[0].g.token.ready()) |_| w.ready(m, &w.task[0].g);
            return .exit;
        }

        fn wake(m: *Self) void {
            const g = &m.w.task[0].g;
            if (g.token.ready()) |_| m.w.ready(null, g);
        }

        pub fn rests(m: *Self) bool {
            return m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

pub fn Park(comptime Sim: type) type {
    return Parking(Sim, 2, false);
}

pub fn ParkUntil(comptime Sim: type) type {
    return Parking(Sim, 2, true);
}
