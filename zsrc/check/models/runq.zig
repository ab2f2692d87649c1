//! Run queues of zsrc/parallel/runq.zig: each goroutine runs once, by whoever took it.
const std = @import("std");
const check = @import("../explorer.zig");
const runq = @import("../../parallel/runq.zig");

/// Stands for a goroutine.
fn Work(comptime Sim: type) type {
    return struct {
        next: ?*@This() = null,
        /// What its maker wrote for whoever runs it.
        ready: bool = false,
        runs: u32 = 0,

        fn make(w: *@This()) *@This() {
            Sim.writes(&w.ready);
            w.ready = true;
            return w;
        }

        fn run(w: *@This()) void {
            Sim.reads(&w.ready);
            check.expect(w.ready, "a goroutine runs that nobody made");
            w.runs += 1;
            check.expect(w.runs == 1, "a goroutine runs twice");
        }
    };
}

/// An owner that uses its queue in every way but overflow, a thief that steals from it, and one
/// that steals from the thief, then from the owner.
pub fn Steal(comptime Sim: type) type {
    return struct {
        owner: Queue = .{},
        thieves: [2]Queue = @splat(.{}),
        work: [4]Work(Sim) = @splat(.{}),

        const Self = @This();
        const Queue = runq.LocalQueue(Sim, Work(Sim), Sim.local_queue_size);
        pub const threads = .{
            .{ "owner", own }, .{ "thief", steal }, .{ "second_thief", stealFromBoth },
        };

        fn own(m: *Self) void {
            const q = &m.owner;
            check.expect(q.pushNext(m.work[0].make()) == null, "there is room");
            for (m.work[1..3]) |*w| check.expect(q.push(w.make()), "there is room");
            check.expect(q.pushNext(m.work[3].make()) == null, "there is room");
            if (q.popNext()) |w| w.run();
            runAll(q);
        }

        fn runAll(q: *Queue) void {
            while (q.popNext() orelse q.pop()) |w| w.run();
        }

        fn steal(m: *Self) void {
            m.stealOnce(0, &m.owner, false);
        }

        fn stealFromBoth(m: *Self) void {
            m.stealOnce(1, &m.thieves[0], false);
            m.stealOnce(1, &m.owner, true);
        }

        fn stealOnce(m: *Self, comptime thief: usize, victim: *Queue, take_next: bool) void {
            var count: u64 = 0;
            const w = m.thieves[thief].stealFrom(victim, take_next, &count);
            check.expect((w == null) == (count == 0), "the count is of what was stolen");
            if (w) |stolen| stolen.run();
            runAll(&m.thieves[thief]);
        }

        pub fn end(m: *Self) void {
            for (&m.work) |*w| check.expect(w.runs == 1, "a goroutine is lost");
            check.expect(m.owner.isEmpty() and m.owner.len() == 0, "nothing is left");
        }
    };
}

/// An owner whose queue is full, and a thief.
pub fn Overflow(comptime Sim: type) type {
    return struct {
        owner: Queue = .{},
        thief: Queue = .{},
        work: [Sim.local_queue_size + 2]Work(Sim) = @splat(.{}),
        global: runq.Batch(Work(Sim)) = .{},

        const Self = @This();
        const Queue = runq.LocalQueue(Sim, Work(Sim), Sim.local_queue_size);
        pub const threads = .{ .{ "owner", own }, .{ "thief", steal } };

        fn own(m: *Self) void {
            for (&m.work) |*w| m.put(w.make());
            while (m.owner.pop()) |w| w.run();
        }

        fn put(m: *Self, w: *Work(Sim)) void {
            while (!m.owner.push(w)) {
                var batch = m.owner.overflow(w) orelse continue;
                check.expect(batch.len == Sim.local_queue_size / 2 + 1, "half of them, and one");
                m.global.append(&batch);
                return;
            }
        }

        fn steal(m: *Self) void {
            var count: u64 = 0;
            for (0..2) |_| {
                if (m.thief.stealFrom(&m.owner, false, &count)) |w| w.run();
                while (m.thief.pop()) |w| w.run();
            }
        }

        pub fn end(m: *Self) void {
            while (m.global.pop()) |w| w.run();
            for (&m.work) |*w| check.expect(w.runs == 1, "a goroutine is lost");
        }
    };
}

/// A queue that is never empty, seen by a thread while its owner moves a goroutine.
pub fn Empty(comptime Sim: type) type {
    return struct {
        owner: Queue = .{},
        work: [2]Work(Sim) = @splat(.{}),

        const Self = @This();
        const Queue = runq.LocalQueue(Sim, Work(Sim), Sim.local_queue_size);
        pub const threads = .{ .{ "owner", own }, .{ "observer", observe } };

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            _ = m.owner.pushNext(m.work[0].make());
        }

        fn own(m: *Self) void {
            // The first one goes to the queue, and stays.
            _ = m.owner.pushNext(m.work[1].make());
            m.owner.popNext().?.run();
        }

        fn observe(m: *Self) void {
            check.expect(!m.owner.isEmpty(), "a queue that holds a goroutine looks empty");
        }
    };
}

/// The queue under the scheduler's lock, whose length is read without it.
pub fn Global(comptime Sim: type) type {
    return struct {
        lock: Sim.Lock = .{},
        queue: runq.GlobalQueue(Sim, Work(Sim)) = .{},
        work: [3]Work(Sim) = @splat(.{}),

        const Self = @This();
        pub const threads = .{ .{ "single", pushOne }, .{ "batch", pushTwo }, .{ "taker", take } };

        fn pushOne(m: *Self) void {
            const w = m.work[0].make();
            m.lock.lock();
            defer m.lock.unlock();
            Sim.writes(&m.queue.list);
            m.queue.push(w);
        }

        fn pushTwo(m: *Self) void {
            var batch: runq.Batch(Work(Sim)) = .{};
            for (m.work[1..]) |*w| batch.push(w.make());
            m.lock.lock();
            defer m.lock.unlock();
            Sim.writes(&m.queue.list);
            m.queue.pushAll(&batch);
        }

        fn take(m: *Self) void {
            for (0..2) |_| {
                const len = m.queue.len.load(.acquire);
                check.expect(len <= m.work.len, "the length is a length that it had");
                if (len == 0) continue;
                if (Sim.planted != .unlocked) m.lock.lock();
                defer if (Sim.planted != .unlocked) m.lock.unlock();
                Sim.writes(&m.queue.list);
                const w = m.queue.pop();
                check.expect(w != null, "there was one, and nobody else takes");
                w.?.run();
            }
        }

        pub fn end(m: *Self) void {
            check.expect(m.queue.len.load(.acquire) == m.queue.list.len, "the length is right");
            while (m.queue.pop()) |w| w.run();
            check.expect(m.queue.len.load(.acquire) == 0, "the length of an empty queue");
            for (&m.work) |*w| check.expect(w.runs == 1, "a goroutine is lost");
        }
    };
}
