//! Events for plugins: what happened, when, to which goroutine.
//!
//! A ring has one producer, whoever holds the P it belongs to, and one consumer, the pump. It is
//! bounded; an event that finds it full is dropped and counted. Recording one costs a clock read
//! and a store, and nothing at all while its bit in `mask` is clear.
const std = @import("std");
const os = @import("../os/os.zig");

pub const Kind = enum(u8) {
    /// a = the spawning goroutine's id, 0 for none.
    goroutine_start = 0,
    /// a = lifetime in ns; b = 0 returned, 1 raised, 2 cancelled.
    goroutine_exit = 1,
    /// a = how long it had run, ns; b = 0 at a bytecode boundary, 1 by taking its processor.
    preempt = 2,
    /// a = how long it had been blocked, ns; b = 1 if it came back first.
    retake = 3,
    /// a = file descriptor; b = 1 readable, 2 writable, 3 both.
    netpoll_ready = 4,
};

pub const Event = struct {
    time_ns: u64,
    goroutine: u64,
    a: u64,
    b: u32,
    kind: Kind,
};

pub const Ring = struct {
    events: []Event = &.{},
    /// Next to write; only the producer stores it.
    head: std.atomic.Value(usize) = .init(0),
    /// Next to read; only the consumer stores it.
    tail: std.atomic.Value(usize) = .init(0),
    mask: u32 = 0,
    dropped: u64 = 0,

    /// `size` is a power of two.
    pub fn init(gpa: std.mem.Allocator, size: usize) !Ring {
        std.debug.assert(std.math.isPowerOfTwo(size));
        return .{ .events = try gpa.alloc(Event, size) };
    }

    pub fn deinit(r: *Ring, gpa: std.mem.Allocator) void {
        gpa.free(r.events);
        r.* = .{};
    }

    pub inline fn wants(r: *const Ring, kind: Kind) bool {
        return r.mask & (@as(u32, 1) << @intCast(@backingInt(kind))) != 0;
    }

    /// Returns whether the ring was empty before, so that the consumer may have to be told.
    pub fn push(r: *Ring, kind: Kind, goroutine: u64, a: u64, b: u32) bool {
        const head = r.head.load(.monotonic);
        // Acquire pairs with the consumer's release in `pop`: the slot is free to be written.
        const tail = r.tail.load(.acquire);
        if (head - tail == r.events.len) {
            r.dropped += 1;
            return false;
        }
        r.events[head & (r.events.len - 1)] = .{
            .time_ns = os.nanotime(),
            .goroutine = goroutine,
            .a = a,
            .b = b,
            .kind = kind,
        };
        r.head.store(head + 1, .release); // pairs with the acquire in `pop`
        return head == tail;
    }

    pub fn pop(r: *Ring) ?Event {
        const tail = r.tail.load(.monotonic);
        if (r.head.load(.acquire) == tail) return null; // pairs with the release in `push`
        const e = r.events[tail & (r.events.len - 1)];
        r.tail.store(tail + 1, .release); // pairs with the acquire in `push`
        return e;
    }

    pub fn len(r: *const Ring) usize {
        return r.head.load(.monotonic) - r.tail.load(.monotonic);
    }
};

test "a full ring drops and counts" {
    var r = try Ring.init(std.testing.allocator, 4);
    defer r.deinit(std.testing.allocator);
    r.mask = 1 << 2;
    try std.testing.expect(r.wants(.preempt) and !r.wants(.retake));
    try std.testing.expect(r.push(.preempt, 1, 0, 0));
    for (2..7) |i| _ = r.push(.preempt, i, 0, 0);
    try std.testing.expectEqual(2, r.dropped);
    for (1..5) |i| try std.testing.expectEqual(i, r.pop().?.goroutine);
    try std.testing.expectEqual(null, r.pop());
}
