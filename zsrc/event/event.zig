//! Events for plugins: what happened, when, to which goroutine.
//!
//! A ring has one producer, whoever holds the P it belongs to, and one consumer, the pump. It is
//! bounded; an event that finds it full is dropped and counted. Recording one costs a clock read
//! and a store, and nothing at all while its bit in `mask` is clear.
const std = @import("std");
const Real = @import("../os/env.zig").Real;

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

pub const Ring = RingOf(Real);

/// `Env` is what the ring takes from the machine.
pub fn RingOf(comptime Env: type) type {
    return struct {
        events: []Event = &.{},
        /// Next to write; only the producer stores it.
        head: Env.Atomic(usize) = .init(0),
        /// Next to read; only the consumer stores it.
        tail: Env.Atomic(usize) = .init(0),
        mask: u32 = 0,
        dropped: u64 = 0,

        const Self = @This();
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// `size` is a power of two.
        pub fn init(gpa: std.mem.Allocator, size: usize) !Self {
            std.debug.assert(std.math.isPowerOfTwo(size));
            return .{ .events = try gpa.alloc(Event, size) };
        }

        pub fn deinit(r: *Self, gpa: std.mem.Allocator) void {
            gpa.free(r.events);
            r.* = .{};
        }

        pub inline fn wants(r: *const Self, kind: Kind) bool {
            return r.mask & (@as(u32, 1) << @intCast(@backingInt(kind))) != 0;
        }

        /// Returns whether the consumer has taken all that came before, so that it may sleep, and has
        /// to be told. That this is seen for certain takes a barrier on either side: here the new
        /// head is stored, then `tail` read; in `pop` the new tail is stored, then `head` read.
        pub fn push(r: *Self, kind: Kind, goroutine: u64, a: u64, b: u32) bool {
            const head = r.head.load(.monotonic);
            // Acquire pairs with the consumer's release in `pop`: the slot is free to be written.
            const tail = r.tail.load(.acquire);
            if (planted != .never_full and head - tail == r.events.len) {
                r.dropped += 1;
                return false;
            }
            const slot = &r.events[head & (r.events.len - 1)];
            if (planted == .head_before_slot) r.head.store(head + 1, .release);
            Env.writes(slot);
            slot.* = .{
                .time_ns = Env.nanotime(),
                .goroutine = goroutine,
                .a = a,
                .b = b,
                .kind = kind,
            };
            // Pairs with the load in `pop`.
            r.head.store(head + 1, switch (planted) {
                .head_relaxed => .monotonic,
                .tail_read_before => .release,
                else => .seq_cst,
            });
            return head == if (planted == .tail_read_before) tail else r.tail.load(.seq_cst);
        }

        pub fn pop(r: *Self) ?Event {
            const tail = r.tail.load(.monotonic);
            if (r.head.load(.seq_cst) == tail) return null; // pairs with the store in `push`
            const slot = &r.events[tail & (r.events.len - 1)];
            Env.reads(slot);
            const e = slot.*;
            r.tail.store(tail + 1, .seq_cst); // pairs with the loads in `push`
            return e;
        }

        pub fn len(r: *const Self) usize {
            return r.head.load(.monotonic) - r.tail.load(.monotonic);
        }
    };
}

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
