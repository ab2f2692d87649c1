//! The ring of events: nothing is lost, and its consumer does not sleep while there is something.
const std = @import("std");
const check = @import("../explorer.zig");
const event = @import("../../event/event.zig");
const merge = @import("../../event/merge.zig");

/// A consumer that sleeps while there is nothing, and is woken by the return value of `push`.
pub fn Wakeup(comptime Sim: type) type {
    return struct {
        ring: event.RingOf(Sim) = .{},
        note: Sim.Note = .{},
        received: u64 = 0,

        const Self = @This();
        const total = 3;
        pub const threads = .{ .{ "producer", produce }, .{ "consumer", consume } };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            m.ring = try .init(gpa, 4);
        }

        fn produce(m: *Self) void {
            for (0..total) |i| {
                if (m.ring.push(.preempt, i, 0, 0)) m.note.wake();
            }
        }

        fn consume(m: *Self) void {
            while (true) {
                // Cleared by what is a barrier too: what is pushed from here on is seen, or wakes.
                _ = m.note.word.swap(0, .seq_cst);
                while (m.ring.pop()) |_| m.received += 1;
                if (m.received == total) return;
                _ = m.note.sleep(null);
            }
        }
    };
}

/// What has come out of a ring whose producer makes a number's event of it.
const Arrived = struct {
    last: u64 = 0,
    count: u64 = 0,

    fn take(a: *Arrived, e: event.Event) void {
        const whole = e.a == e.goroutine * 3 and e.b == e.goroutine * 5;
        check.expect(whole, "an event is torn");
        check.expect(e.goroutine > a.last, "events are out of order, or one came twice");
        a.last = e.goroutine;
        a.count += 1;
    }

    fn expectAll(a: *const Arrived, sent: u64, dropped: u64) void {
        check.expect(a.count + dropped == sent, "an event is lost, and not counted");
    }
};

/// What the producer does not drop arrives once, whole and in order.
pub fn Ring(comptime Sim: type) type {
    return struct {
        ring: event.RingOf(Sim) = .{},
        arrived: Arrived = .{},

        const Self = @This();
        const total = 4;
        pub const threads = .{ .{ "producer", produce }, .{ "consumer", consume } };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            m.ring = try .init(gpa, 2);
        }

        fn produce(m: *Self) void {
            for (1..total + 1) |i| {
                Sim.advance(1);
                _ = m.ring.push(.preempt, i, i * 3, @intCast(i * 5));
            }
        }

        fn consume(m: *Self) void {
            for (0..total) |_| {
                if (m.ring.pop()) |e| m.receive(e);
            }
        }

        fn receive(m: *Self, e: event.Event) void {
            const whole = e.kind == .preempt and e.time == e.goroutine + 1;
            check.expect(whole, "an event is torn");
            m.arrived.take(e);
        }

        pub fn end(m: *Self) void {
            while (m.ring.pop()) |e| m.receive(e);
            m.arrived.expectAll(total, m.ring.dropped);
        }
    };
}

/// As Ring, of one that a lock is held for on either side.
pub fn Locked(comptime Sim: type) type {
    return struct {
        ring: event.RingOf(Sim) = .{},
        lock: Sim.Lock = .{},
        arrived: Arrived = .{},

        const Self = @This();
        const total = 4;
        pub const threads = .{ .{ "producer", produce }, .{ "consumer", consume } };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            m.ring = try .init(gpa, 2);
            m.ring.locked = true;
        }

        fn produce(m: *Self) void {
            for (1..total + 1) |i| {
                if (Sim.planted != .unlocked) m.lock.lock();
                defer if (Sim.planted != .unlocked) m.lock.unlock();
                const was_empty = m.ring.len() == 0;
                const pushed = m.ring.pushLocked(0, .preempt, i, i * 3, @intCast(i * 5));
                const told = pushed == .first;
                check.expect(told == was_empty, "its consumer is told when it is not empty");
            }
        }

        fn consume(m: *Self) void {
            for (0..total) |_| {
                m.lock.lock();
                defer m.lock.unlock();
                if (m.ring.pop()) |e| m.arrived.take(e);
            }
        }

        pub fn end(m: *Self) void {
            while (m.ring.pop()) |e| m.arrived.take(e);
            m.arrived.expectAll(total, m.ring.dropped);
        }
    };
}

/// Two rings, whose events are taken in the order of their times, also across batches.
pub fn Order(comptime Sim: type) type {
    return struct {
        rings: [2]event.RingOf(Sim) = @splat(.{}),
        last: u64 = 0,
        received: u64 = 0,

        const Self = @This();
        const each = 2;
        pub const threads = .{
            .{ "first", first },
            .{ "second", second },
            .{ "consumer", consume },
        };

        pub fn init(m: *Self, gpa: std.mem.Allocator) !void {
            for (&m.rings) |*r| r.* = try .init(gpa, each);
        }

        fn first(m: *Self) void {
            m.produce(0);
        }

        fn second(m: *Self) void {
            m.produce(1);
        }

        fn produce(m: *Self, ring: usize) void {
            for (0..each) |_| {
                Sim.advance(1);
                _ = m.rings[ring].push(.steal, ring, 0, 0);
            }
        }

        fn consume(m: *Self) void {
            for (0..2) |_| m.take();
        }

        fn take(m: *Self) void {
            const list = [_]*event.RingOf(Sim){ &m.rings[0], &m.rings[1] };
            var times: [2]u64 = undefined;
            var batch = merge.MergeOf(Sim).begin(&list, &times) orelse return;
            var out: [2]event.Event = undefined;
            while (batch.next(&out)) |taken| {
                check.expect(taken.events.len > 0, "a ring that has an event gives none");
                for (taken.events) |e| {
                    check.expect(e.time >= m.last, "an event comes after a later one");
                    check.expect(e.goroutine == taken.ring, "an event is of another ring");
                    m.last = e.time;
                    m.received += 1;
                }
            }
        }

        pub fn end(m: *Self) void {
            Sim.advance(1);
            m.take();
            check.expect(m.received == 2 * each, "an event is lost");
        }
    };
}
