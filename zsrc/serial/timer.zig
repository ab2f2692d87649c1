//! Timers of the serial lane's P. All calls need the lane's lock.
const std = @import("std");
const heap = @import("../core/heap.zig");
const Allocator = std.mem.Allocator;

/// Extern, as G is, for which `fire` has C's calling convention.
pub const Timer = extern struct {
    /// Monotonic nanoseconds.
    when: u64 = 0,
    /// Place in the heap, or `none`.
    index: u32 = none,
    /// Called under the lane's lock, with the timer already out of the heap.
    fire: *const fn (*Timer) callconv(.c) void = undefined,

    pub const none = std.math.maxInt(u32);

    pub inline fn pending(t: *const Timer) bool {
        return t.index != none;
    }
};

pub const Heap = struct {
    due: Due = .{},
    /// Time of the earliest timer or `never`, for sysmon to read without the lock.
    earliest: std.atomic.Value(u64) = .init(never),

    pub const never = heap.never;
    const Due = heap.Heap(*Timer, moved);

    fn moved(t: *Timer, place: u32) void {
        t.index = place;
    }

    pub fn deinit(h: *Heap, gpa: Allocator) void {
        h.due.deinit(gpa);
        h.* = .{};
    }

    pub fn add(h: *Heap, gpa: Allocator, t: *Timer) Allocator.Error!void {
        std.debug.assert(!t.pending());
        if (try h.due.add(gpa, .{ .when = t.when, .payload = t })) h.publish();
    }

    /// There is the memory to add so many.
    pub fn reserve(h: *Heap, gpa: Allocator, count: usize) Allocator.Error!void {
        try h.due.reserve(gpa, count);
    }

    pub fn remove(h: *Heap, t: *Timer) void {
        if (!t.pending()) return;
        h.due.takeOut(t.index);
        t.index = Timer.none;
        h.publish();
    }

    /// Takes the earliest timer out if its time has come.
    pub fn popDue(h: *Heap, now: u64) ?*Timer {
        if (h.due.earliest() > now or h.due.isEmpty()) return null;
        const t = h.due.first().payload;
        h.remove(t);
        return t;
    }

    /// As popDue, but any of those that are due at the same time as the earliest. `chooser` says
    /// which.
    pub fn popOneOf(h: *Heap, now: u64, chooser: anytype) ?*Timer {
        const when = h.due.earliest();
        if (when > now or h.due.isEmpty()) return null;
        var alike: usize = 0;
        for (h.due.all()) |item| alike += @intFromBool(item.when == when);
        var left = chooser.which(.due, alike);
        // By their places, which are the same for the same calls before.
        for (h.due.all()) |item| {
            if (item.when != when) continue;
            if (left == 0) {
                h.remove(item.payload);
                return item.payload;
            }
            left -= 1;
        }
        unreachable;
    }

    pub inline fn len(h: *const Heap) usize {
        return h.due.len();
    }

    inline fn publish(h: *Heap) void {
        h.earliest.store(h.due.earliest(), .monotonic);
    }
};

test "a timer that is due comes out, and the earliest is known without the lock" {
    const gpa = std.testing.allocator;
    var h: Heap = .{};
    defer h.deinit(gpa);
    var timers: [3]Timer = .{ .{ .when = 30 }, .{ .when = 10 }, .{ .when = 20 } };
    for (&timers) |*t| try h.add(gpa, t);
    try std.testing.expectEqual(10, h.earliest.load(.monotonic));
    h.remove(&timers[1]);
    h.remove(&timers[1]); // it is in none
    try std.testing.expectEqual(null, h.popDue(19));
    try std.testing.expectEqual(&timers[2], h.popDue(20));
    try std.testing.expectEqual(&timers[0], h.popDue(30));
    try std.testing.expectEqual(Heap.never, h.earliest.load(.monotonic));
    try std.testing.expect(h.popDue(Heap.never) == null and !timers[0].pending());
}
