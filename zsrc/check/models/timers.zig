//! The heap of timers: after `remove` has returned, no thread touches the timer.
const std = @import("std");
const check = @import("../explorer.zig");
const timers = @import("../../parallel/timers.zig");
const wait = @import("../../parallel/wait.zig");

/// One waits with a deadline, or two, as switching.Blocker does: a timer, which the P that owns the
/// heap runs and another P that steals, competes with the thread that serves the wait. What lay on
/// the stack of one that waited is overwritten at once.
fn Deadlines(comptime Sim: type, comptime both: bool) type {
    return struct {
        heap: T = .{},
        sleepers: [2]Sleeper = @splat(.{}),
        lock: Sim.Lock = .{},
        queue: ?*Sleeper = null,
        left: u32 = 0,

        const Self = @This();
        const T = timers.Timers(Sim, Sleeper);
        pub const threads = if (both) .{
            .{ "served", served }, .{ "server", serve }, .{ "owner", run },
            .{ "alone", alone },   .{ "thief", run },
        } else .{ .{ "served", served }, .{ "server", serve }, .{ "owner", run } };

        const Sleeper = struct {
            note: Sim.Note = .{},
            w: wait.Wait(Sim) = .{ .contested = true },
            timer: T.Timer = .{ .fire = fire },
            gone: bool = false,

            fn fire(t: *T.Timer) ?*Sleeper {
                const s: *Sleeper = @fieldParentPtr("timer", t);
                Sim.reads(&s.gone);
                check.expect(!s.gone, "a timer fires whose owner has left");
                return if (s.w.claim(.timeout)) s else null;
            }
        };

        fn served(m: *Self) void {
            m.sleep(0, true);
        }

        fn alone(m: *Self) void {
            m.sleep(1, false);
        }

        fn sleep(m: *Self, comptime i: usize, comptime queued: bool) void {
            const s = &m.sleepers[i];
            s.timer.when = 5 + i;
            if (queued) {
                m.lock.lock();
                m.queue = s;
                m.lock.unlock();
            }
            _ = m.heap.add(Sim.gpa(), &s.timer) catch unreachable;
            // For the time's sake the owner of the heap comes for certain.
            if (!queued) _ = m.heap.run(100, Waker{});
            while (s.note.sleep(null) != .woken) {}
            _ = T.remove(&s.timer);
            if (queued) {
                m.lock.lock();
                m.queue = null;
                m.lock.unlock();
            }
            Sim.writes(&s.gone);
            s.gone = true;
            s.timer.index = 1234;
            s.timer.heap.raw = @ptrFromInt(0x1000);
            m.left += 1;
        }

        const Waker = struct {
            pub fn ready(_: Waker, s: *Sleeper) void {
                s.note.wake();
            }
        };

        fn serve(m: *Self) void {
            while (true) {
                m.lock.lock();
                const s = m.queue;
                const mine = if (s) |each| each.w.claim(.ready) else false;
                m.lock.unlock();
                if (mine) s.?.note.wake();
                if (s != null or m.sleepers[0].gone) return;
                Sim.spin();
            }
        }

        fn run(m: *Self) void {
            if (m.heap.earliest.load(.acquire) <= 10) _ = m.heap.run(10, Waker{});
        }

        pub fn end(m: *Self) void {
            check.expect(m.left == 1 + @as(u32, @intFromBool(both)), "all have left");
            check.expect(m.heap.isEmpty(), "the heap is empty");
            check.expect(m.heap.earliest.raw == T.never, "and says so");
            for (m.sleepers[0..m.left]) |*s| check.expect(
                s.timer.index == 1234 and @intFromPtr(s.timer.heap.raw) == 0x1000,
                "a timer is written to whose owner has left",
            );
        }
    };
}

pub fn Deadline(comptime Sim: type) type {
    return Deadlines(Sim, false);
}

pub fn TwoDeadlines(comptime Sim: type) type {
    return Deadlines(Sim, true);
}
