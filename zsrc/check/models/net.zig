//! The network inside findRunnable: one M at a time waits in the poller, without a P. An edge, a
//! timer that is earlier than its return, and a first descriptor must not be missed by it, and what
//! it brings must find a P, or an M that has one.
const std = @import("std");
const check = @import("../explorer.zig");
const World = @import("world.zig").World;

/// Bytes arrive, each with an edge, for a goroutine that waits for all. Meanwhile another M looks
/// for work, or a thread starts another goroutine, for which there is only one P.
fn Arriving(comptime Sim: type, comptime procs: u32, comptime total: u32) type {
    return struct {
        w: W = .{},
        bytes: Sim.Atomic(u32) = .init(0),
        taken: u32 = 0,

        const Self = @This();
        const W = World(Sim, procs, if (procs == 1) 2 else 1);
        const network = .{ "network", arrive };
        pub const threads = if (procs == 1) .{ network, .{ "outside", start } } else .{network};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.network = true;
            _ = m.w.d.open(.of(3));
            m.w.task[0].body = read;
            m.w.startM(&.{0});
            if (procs > 1) m.w.startM(&.{});
        }

        fn read(w: *W, _: *W.M, t: *W.Task) W.Next {
            const m: *Self = @fieldParentPtr("w", w);
            while (true) {
                m.taken += m.bytes.swap(0, .acq_rel);
                if (m.taken == total) return .exit;
                t.net_wait = .{ .g = &t.g };
                t.net_waiter = .{ .wait = &t.net_wait };
                switch (w.d.begin(&w.d.read, &t.net_waiter)) {
                    .ready => {},
                    .waiting => {
                        t.g.transition(.running, .waiting);
                        return .{ .wait = unlock };
                    },
                    .closed, .busy => check.fail("nobody else waits, or closes it", .{}),
                }
            }
        }

        fn unlock(w: *W, _: *W.M, _: *W.Task) bool {
            w.d.lock.unlock();
            return true;
        }

        fn arrive(m: *Self) void {
            for (0..total) |_| {
                _ = m.bytes.fetchAdd(1, .acq_rel);
                m.w.raiseEdge();
            }
        }

        fn start(m: *Self) void {
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

pub fn ArriveOne(comptime Sim: type) type {
    return Arriving(Sim, 1, 2);
}

pub fn ArriveTwo(comptime Sim: type) type {
    return Arriving(Sim, 2, 1);
}

/// A goroutine ends and its M finds nothing to do, while a thread registers the first descriptor
/// and waits for it, and the edge comes.
pub fn First(comptime Sim: type) type {
    return struct {
        w: W = .{},
        served: bool = false,

        const Self = @This();
        const W = World(Sim, 2, 1);
        pub const threads = .{.{ "outside", open }};

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.startM(&.{0});
        }

        fn open(m: *Self) void {
            const w = &m.w;
            Sim.yieldPoint();
            _ = w.d.open(.of(3));
            w.network = true;
            w.sched.firstPollable();
            w.raiseEdge();
            var b: W.Threads.Blocker = undefined;
            b.init(null, true);
            var waiter: W.Desc.Waiter = .{ .wait = b.who() };
            if (w.d.begin(&w.d.read, &waiter) == .waiting) {
                const how = b.block(.io_read, null, unlock, &w.d);
                check.expect(how == .ready, "nobody closes it");
            }
            m.served = true;
        }

        fn unlock(raw: *anyopaque) bool {
            const d: *W.Desc = @ptrCast(@alignCast(raw));
            d.lock.unlock();
            return true;
        }

        pub fn rests(m: *Self) bool {
            return m.served and m.w.rests();
        }

        pub fn end(m: *Self) void {
            m.w.end();
        }
    };
}

/// A goroutine waits for the network, and its M, in the poller, for nothing else. A timer is added
/// meanwhile; only when it has fired does the edge come.
fn Timer(comptime Sim: type, comptime by: enum { thread, hog, only_p }) type {
    return struct {
        w: W = .{},
        timer: Timers.Timer = .{},

        const Self = @This();
        const procs = if (by == .only_p) 1 else 2;
        const W = World(Sim, procs, switch (by) {
            .thread => 1,
            .only_p => 2,
            .hog => 3,
        });
        const Timers = W.Sched.T.Timers;
        pub const threads = switch (by) {
            .thread => .{.{ "outside", addForeign }},
            .only_p => .{.{ "outside", start }},
            .hog => .{},
        };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            m.w.start();
            m.w.network = true;
            _ = m.w.d.open(.of(3));
            m.w.task[0].body = read;
            m.w.startM(&.{0});
            if (by == .thread) return;
            m.w.task[1].body = sleeps;
            if (by == .only_p) return;
            // Behind the one that sleeps one computes, until both others have ended.
            m.w.task[2].body = W.computes;
            m.w.task[2].until = 2;
            m.w.startM(&.{ 1, 2 });
        }

        fn read(w: *W, _: *W.M, t: *W.Task) W.Next {
            if (t.stage == 1) return .exit;
            t.stage = 1;
            t.net_wait = .{ .g = &t.g };
            t.net_waiter = .{ .wait = &t.net_wait };
            if (w.d.begin(&w.d.read, &t.net_waiter) != .waiting) return .exit;
            t.g.transition(.running, .waiting);
            return .{ .wait = unlock };
        }

        fn unlock(w: *W, _: *W.M, _: *W.Task) bool {
            w.d.lock.unlock();
            return true;
        }

        fn sleeps(w: *W, _: *W.M, t: *W.Task) W.Next {
            if (t.stage == 1) {
                w.raiseEdge();
                return .exit;
            }
            t.stage = 1;
            t.g.transition(.running, .waiting);
            return .{ .wait = commitSleep };
        }

        /// As switching.zig's.
        fn commitSleep(w: *W, m: *W.M, t: *W.Task) bool {
            const earliest = m.p.?.timers.addSleeper(Sim.gpa(), &t.g, 5) catch unreachable;
            if (earliest and procs > 1) w.sched.timerAdded(5);
            return true;
        }

        fn addForeign(m: *Self) void {
            m.timer = .{ .when = 5, .fire = fire };
            const earliest = m.w.p[0].timers.add(Sim.gpa(), &m.timer) catch unreachable;
            if (earliest) m.w.sched.timerAdded(5);
        }

        fn fire(timer: *Timers.Timer) ?*W.G {
            const m: *Self = @fieldParentPtr("timer", timer);
            m.w.raiseEdge();
            return null;
        }

        fn start(m: *Self) void {
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

pub fn TimerOfThread(comptime Sim: type) type {
    return Timer(Sim, .thread);
}

pub fn TimerBesideHog(comptime Sim: type) type {
    return Timer(Sim, .hog);
}

pub fn TimerOnlyP(comptime Sim: type) type {
    return Timer(Sim, .only_p);
}
