//! Timers of a P: a 4-ary min-heap by time, as Go's. A timer knows its place in the heap, so that
//! deleting one costs no search and leaves no garbage behind. All calls need the lane's lock.
const std = @import("std");
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
    items: std.ArrayList(*Timer) = .empty,
    /// Time of the earliest timer or `never`, for sysmon to read without the lock.
    earliest: std.atomic.Value(u64) = .init(never),

    pub const never = std.math.maxInt(u64);
    const arity = 4;

    pub fn deinit(h: *Heap, gpa: Allocator) void {
        h.items.deinit(gpa);
        h.* = .{};
    }

    pub fn add(h: *Heap, gpa: Allocator, t: *Timer) Allocator.Error!void {
        std.debug.assert(!t.pending());
        try h.items.append(gpa, t);
        h.up(h.items.items.len - 1, t);
        h.publish();
    }

    pub fn remove(h: *Heap, t: *Timer) void {
        if (!t.pending()) return;
        const at = t.index;
        const last = h.items.pop().?;
        if (last != t) {
            h.put(at, last);
            h.down(at, last);
            h.up(last.index, last);
        }
        t.index = Timer.none;
        h.publish();
    }

    /// Takes the earliest timer out if its time has come.
    pub fn popDue(h: *Heap, now: u64) ?*Timer {
        if (h.items.items.len == 0) return null;
        const t = h.items.items[0];
        if (t.when > now) return null;
        h.remove(t);
        return t;
    }

    /// As popDue, but any of those that are due at the same time as the earliest. `chooser` says
    /// which.
    pub fn popOneOf(h: *Heap, now: u64, chooser: anytype) ?*Timer {
        if (h.items.items.len == 0) return null;
        const when = h.items.items[0].when;
        if (when > now) return null;
        var alike: usize = 0;
        for (h.items.items) |t| alike += @intFromBool(t.when == when);
        var left = chooser.which(.due, alike);
        // By their places, which are the same for the same calls before.
        for (h.items.items) |t| {
            if (t.when != when) continue;
            if (left == 0) {
                h.remove(t);
                return t;
            }
            left -= 1;
        }
        unreachable;
    }

    pub inline fn len(h: *const Heap) usize {
        return h.items.items.len;
    }

    inline fn publish(h: *Heap) void {
        const first = if (h.items.items.len == 0) never else h.items.items[0].when;
        h.earliest.store(first, .monotonic);
    }

    inline fn put(h: *Heap, at: usize, t: *Timer) void {
        h.items.items[at] = t;
        t.index = @intCast(at);
    }

    fn up(h: *Heap, start: usize, t: *Timer) void {
        var at = start;
        while (at > 0) {
            const parent = (at - 1) / arity;
            const p = h.items.items[parent];
            if (p.when <= t.when) break;
            h.put(at, p);
            at = parent;
        }
        h.put(at, t);
    }

    fn down(h: *Heap, start: usize, t: *Timer) void {
        const items = h.items.items;
        var at = start;
        while (true) {
            const first = at * arity + 1;
            if (first >= items.len) break;
            var least = first;
            const end = @min(first + arity, items.len);
            for (first + 1..end) |i| {
                if (items[i].when < items[least].when) least = i;
            }
            if (items[least].when >= t.when) break;
            h.put(at, items[least]);
            at = least;
        }
        h.put(at, t);
    }
};

test "timers come out in order, whatever was removed" {
    const gpa = std.testing.allocator;
    var h: Heap = .{};
    defer h.deinit(gpa);
    var rng = std.Random.DefaultPrng.init(1);
    var timers: [500]Timer = @splat(.{});
    for (&timers) |*t| {
        t.when = rng.random().uintLessThan(u64, 1000);
        try h.add(gpa, t);
    }
    for (0..100) |_| h.remove(&timers[rng.random().uintLessThan(usize, timers.len)]);
    var last: u64 = 0;
    const expected = h.len();
    var n: usize = 0;
    while (h.popDue(1000)) |t| : (n += 1) {
        try std.testing.expect(t.when >= last);
        last = t.when;
        try std.testing.expect(!t.pending());
    }
    try std.testing.expectEqual(expected, n);
    try std.testing.expectEqual(Heap.never, h.earliest.load(.monotonic));
}
