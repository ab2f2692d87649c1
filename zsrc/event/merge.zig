//! The events of several rings in the order of their times.
//!
//! A producer reads the clock before its event is in the ring, so that the ring's being empty does
//! not mean that nothing earlier will come. Hence the limit: events up to a moment are taken only
//! once every ring is settled, that is has no event half written, after that moment (event.zig).
const std = @import("std");
const event = @import("event.zig");
const Real = @import("../os/env.zig").Real;

pub const Merge = MergeOf(Real);

pub fn MergeOf(comptime Env: type) type {
    return struct {
        rings: []const *Ring,
        /// When the next event of each happened.
        times: []u64,
        limit: u64,

        const Self = @This();
        const Ring = event.RingOf(Env);
        const never = std.math.maxInt(u64);
        /// An event is written within some dozen instructions, unless its thread is off its CPU.
        const tries = 64;

        pub const Taken = struct { events: []event.Event, ring: usize };

        /// Null if a writer is in the midst of an event: look again later. `times` has room
        /// for as many as there are `rings`, and is used until the end.
        pub fn begin(rings: []const *Ring, times: []u64) ?Self {
            const now = Env.ticksInOrder();
            for (rings) |r| {
                var left: u32 = tries;
                while (!r.isSettled()) : (left -= 1) {
                    if (left == 0) return null;
                    Env.spin();
                }
            }
            return .look(rings, times, now);
        }

        /// For the last time: takes all events that there are, whatever may come later.
        pub fn beginLast(rings: []const *Ring, times: []u64) Self {
            return .look(rings, times, never - 1);
        }

        fn look(rings: []const *Ring, times: []u64, limit: u64) Self {
            for (rings, times[0..rings.len]) |r, *time| time.* = r.nextTime() orelse never;
            return .{ .rings = rings, .times = times[0..rings.len], .limit = limit };
        }

        /// The next ones that are of the same ring, one at least, in `out`.
        pub fn next(m: *Self, out: []event.Event) ?Taken {
            var first: u64 = never;
            var second: u64 = never;
            var at: usize = 0;
            for (m.times, 0..) |time, i| {
                if (time < first) {
                    second = first;
                    first = time;
                    at = i;
                } else second = @min(second, time);
            }
            if (first > m.limit) return null;
            const n = m.rings[at].popUntil(@min(second, m.limit), out);
            m.times[at] = m.rings[at].nextTime() orelse never;
            return .{ .events = out[0..n], .ring = at };
        }
    };
}

test "events of several rings come in the order of their times" {
    const gpa = std.testing.allocator;
    var rings: [3]event.Ring = undefined;
    var list: [3]*event.Ring = undefined;
    for (&rings, &list) |*r, *each| {
        r.* = try .init(gpa, 8);
        each.* = r;
    }
    defer for (&rings) |*r| r.deinit(gpa);
    for ([_]usize{ 0, 2, 2, 1, 0, 1, 2 }, 0..) |ring, i| _ = rings[ring].push(.steal, i, 0, 0);
    var times: [3]u64 = undefined;
    var m = Merge.begin(&list, &times).?;
    var last: u64 = 0;
    var out: [4]event.Event = undefined;
    var i: usize = 0;
    while (m.next(&out)) |taken| {
        for (taken.events) |e| {
            try std.testing.expect(e.time >= last);
            try std.testing.expectEqual(i, e.goroutine);
            last = e.time;
            i += 1;
        }
    }
    try std.testing.expectEqual(7, i);
    // Not before its event is whole.
    rings[1].writing.raw = 1;
    try std.testing.expectEqual(null, Merge.begin(&list, &times));
    m = .beginLast(&list, &times);
    try std.testing.expectEqual(null, m.next(&out));
}
