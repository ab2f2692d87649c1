//! Makes nanoseconds of the monotonic clock of what events have as their time in the rings: what
//! the counter said (os/counter.zig).
//!
//! Both clocks are read when events are taken. A batch lies between two such moments: what was
//! taken before is older, and what is not in the rings yet is younger than now. Its times lie on
//! the line between them. So they never go back, not even from batch to batch, and are as exact as
//! the two moments are: some ten nanoseconds. That the system's clock is slewed meanwhile, by 500
//! ppm at most and for a moment's distance to the nearer end, adds to that: 5 µs in a batch of 10
//! ms.
//!
//! The line begins at the last event that was taken, or, if that was all there were, where the
//! batch ended.
const std = @import("std");
const counter = @import("../os/counter.zig");
const Event = @import("event.zig").Event;

const Moment = counter.Moment;

/// The consumer's.
pub const Clock = struct {
    from: Moment,
    until: Moment,
    /// Nanoseconds for a tick, between the two.
    rate: f64 = 0,

    pub const unset: Clock = .{
        .from = .{ .ticks = 0, .ns = 0 },
        .until = .{ .ticks = 0, .ns = 0 },
    };

    /// What comes from here on is to be told.
    pub fn begin() Clock {
        if (!counter.isTrusted()) return .unset;
        const now: Moment = .now();
        return .{ .from = now, .until = now };
    }

    /// Whether the counter has begun anew since then: when a computer slept.
    pub fn hasRestarted(c: *const Clock) bool {
        return counter.isTrusted() and counter.readInOrder() < c.from.ticks;
    }

    /// A batch is being taken, whose limit was read before.
    pub fn advance(c: *Clock) void {
        if (counter.isTrusted()) c.fit(.now());
    }

    fn fit(c: *Clock, until: Moment) void {
        c.until = until;
        // What one counter said says nothing of the next one's.
        if (until.ticks <= c.from.ticks) c.from = until;
        const ns: f64 = @floatFromInt(until.ns -| c.from.ns);
        const ticks: f64 = @floatFromInt(@max(1, until.ticks - c.from.ticks));
        c.rate = ns / ticks;
    }

    /// The batch's times become nanoseconds. They were up to `limit`, or, if the batch had no room
    /// for more, there may be others: the next batch begins there.
    pub fn convert(c: *Clock, batch: []Event, limit: ?u64) void {
        if (!counter.isTrusted()) return;
        c.convertAll(batch, limit);
    }

    fn convertAll(c: *Clock, batch: []Event, limit: ?u64) void {
        const last = if (batch.len > 0) batch[batch.len - 1].time else c.from.ticks;
        // The counter may be read a little before what is done before it (`counter.read`), such as
        // taking a lock.
        var last_ns = c.from.ns;
        for (batch) |*e| {
            last_ns = @max(last_ns, c.at(e.time));
            e.time = last_ns;
        }
        const reached = @max(c.from.ticks, @min(limit orelse last, c.until.ticks));
        const ns = @max(last_ns, c.at(reached)); // before the line is half another
        c.from = .{ .ticks = reached, .ns = ns };
    }

    /// In nanoseconds. Nothing is before the last batch, or after now.
    fn at(c: *const Clock, ticks: u64) u64 {
        const after: i64 = @intCast(@min(ticks, c.until.ticks) -| c.from.ticks);
        const ns = @as(f64, @floatFromInt(after)) * c.rate;
        return @min(c.from.ns + @as(u64, @intFromFloat(ns)), @max(c.from.ns, c.until.ns));
    }
};

fn eventAt(ticks: u64) Event {
    return .{ .time = ticks, .goroutine = 0, .a = 0, .b = 0, .kind = .preempt };
}

fn expectTimes(c: *Clock, comptime times: []const u64, limit: ?u64, ns: []const u64) !void {
    var batch: [times.len]Event = undefined;
    for (&batch, times) |*e, time| e.* = eventAt(time);
    c.convertAll(&batch, limit);
    for (batch, ns) |e, expected| try std.testing.expectEqual(expected, e.time);
}

test "times lie on the line between two moments" {
    var c: Clock = .unset;
    c.from = .{ .ticks = 1000, .ns = 7_000_000 };
    c.fit(.{ .ticks = 5000, .ns = 7_001_000 });
    // The first is before all that is known, the last after.
    const expected = [_]u64{ 7_000_000, 7_000_000, 7_000_500, 7_001_000, 7_001_000 };
    try expectTimes(&c, &.{ 900, 1000, 3000, 5000, 5100 }, null, &expected);
}

test "times do not go back where the counter was read early" {
    var c: Clock = .unset;
    c.from = .{ .ticks = 0, .ns = 1_000_000 };
    c.fit(.{ .ticks = 4000, .ns = 1_001_000 });
    try expectTimes(&c, &.{ 2000, 1900, 2400, 2396 }, null, &.{
        1_000_500, 1_000_500, 1_000_600, 1_000_600,
    });
    try std.testing.expectEqual(Moment{ .ticks = 2396, .ns = 1_000_600 }, c.from);
}

test "the next batch begins where this one ended, and its times are no earlier" {
    var c: Clock = .unset;
    c.from = .{ .ticks = 0, .ns = 1_000_000 };
    c.fit(.{ .ticks = 4000, .ns = 1_001_000 });
    // There is more in the rings than there was room for.
    try expectTimes(&c, &.{ 1000, 2000 }, null, &.{ 1_000_250, 1_000_500 });
    // The clock is a little slower now.
    c.fit(.{ .ticks = 6000, .ns = 1_001_300 });
    try expectTimes(&c, &.{ 2000, 4000 }, 5000, &.{ 1_000_500, 1_000_900 });
    try std.testing.expectEqual(Moment{ .ticks = 5000, .ns = 1_001_100 }, c.from);
    // An empty one.
    c.fit(.{ .ticks = 9000, .ns = 1_002_100 });
    try expectTimes(&c, &.{}, 9000, &.{});
    try std.testing.expectEqual(Moment{ .ticks = 9000, .ns = 1_002_100 }, c.from);
    // A moment that was read badly.
    c.fit(.{ .ticks = 9500, .ns = 1_002_000 });
    try expectTimes(&c, &.{9400}, 9450, &.{1_002_100});
}

test "a counter that began anew" {
    var c: Clock = .unset;
    c.from = .{ .ticks = 1 << 40, .ns = 5000 };
    c.fit(.{ .ticks = 100, .ns = 9000 });
    try expectTimes(&c, &.{ 50, 1 << 41 }, null, &.{ 9000, 9000 });
    c.fit(.{ .ticks = 300, .ns = 9100 });
    try expectTimes(&c, &.{200}, 250, &.{9050});
}
