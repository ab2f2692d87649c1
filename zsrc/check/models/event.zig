//! The ring of events: nothing is lost, and its consumer does not sleep while there is something.
const std = @import("std");
const check = @import("../explorer.zig");
const event = @import("../../event/event.zig");

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

/// What the producer does not drop arrives once, whole and in order.
pub fn Ring(comptime Sim: type) type {
    return struct {
        ring: event.RingOf(Sim) = .{},
        last: u64 = 0,
        received: u64 = 0,

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
            const whole = e.a == e.goroutine * 3 and e.b == e.goroutine * 5 and
                e.kind == .preempt and e.time_ns == e.goroutine + 1;
            check.expect(whole, "an event is torn");
            check.expect(e.goroutine > m.last, "events are out of order, or one came twice");
            m.last = e.goroutine;
            m.received += 1;
        }

        pub fn end(m: *Self) void {
            while (m.ring.pop()) |e| m.receive(e);
            check.expect(m.received + m.ring.dropped == total, "an event is lost, and not counted");
        }
    };
}
