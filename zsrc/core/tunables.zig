//! What may change while a run goes on: how long a slice is, how soon a blocking call loses its P,
//! how long sysmon sleeps, and the like. There is one set of them in a process, `current`, which
//! both lanes read where they need a value; nothing keeps a copy.
//!
//! A value is one atomic, read and written relaxed. It stands for itself: a thread that reads a new
//! value need not see what its writer did before, and of two values that change one after the
//! other, a thread may see either first. So no code relies on how two of them compare (that the
//! shortest sleep is not more than the longest), but takes the smaller or larger where it matters.
//!
//! The thread that changes values wakes sysmon afterwards, on both lanes, since sysmon may sleep by
//! the old ones. That wake-up orders: after it sysmon sees the new values.
//!
//! golibx/schema.py has the names, ranges and defaults. A field that it does not have as the
//! `option` of a tunable key, or a tunable key without a field, does not compile.
const std = @import("std");
const schema = @import("schema.zig");

pub const keys = schema.keys;
pub const count = keys.len;

pub const Tunable = struct {
    raw: std.atomic.Value(u64),

    pub fn init(value: u64) Tunable {
        return .{ .raw = .init(value) };
    }

    pub inline fn get(t: *const Tunable) u64 {
        return t.raw.load(.monotonic);
    }

    pub inline fn set(t: *Tunable, value: u64) void {
        t.raw.store(value, .monotonic);
    }
};

/// Durations in nanoseconds. "The next round" is sysmon's, which a change brings about at once.
pub const Tunables = struct {
    /// Go's runtime/proc.go, forcePreemptNS. From the next round on, for slices that go on too.
    preempt_slice_ns: Tunable = default("preempt_slice_ns"),
    /// Go's retake: for calls with goroutines that wait for the P. From the next round on, for
    /// calls that block already too.
    retake_threshold_ns: Tunable = default("retake_threshold_ns"),
    /// For calls without goroutines that wait for the P. From the next round on.
    retake_threshold_idle_ns: Tunable = default("retake_threshold_idle_ns"),
    /// Threads that wait for the host's lock in case the running goroutine blocks: taking.zig. The
    /// next time that some are sent; those that wait already are not called back.
    retake_reserves: Tunable = default("retake_reserves"),
    /// Go's sysmon: 20 us. From the next round on.
    sysmon_sleep_min_ns: Tunable = default("sysmon_sleep_min_ns"),
    /// From the next round on.
    sysmon_sleep_max_ns: Tunable = default("sysmon_sleep_max_ns"),
    /// From the next round on.
    sysmon_idle_rounds: Tunable = default("sysmon_idle_rounds"),
    /// Go's sysmon: 10 ms. From the next round on.
    netpoll_interval_ns: Tunable = default("netpoll_interval_ns"),
    /// 0: as often as the host thinks fit. Of no effect where its lock sees to its waiters itself.
    /// From the next round on.
    offer_interval_ns: Tunable = default("offer_interval_ns"),
    /// 0: not at all. The next time that a thread has nothing to do.
    spin_ns: Tunable = default("spin_ns"),
    /// Go's stealWork: 4. The next time that an M of the native lane looks for work.
    native_steal_rounds: Tunable = default("native_steal_rounds"),
    /// Percent of the busy Ps. Go's findRunnable: half of them. The next time that an M of the
    /// native lane has found no work of its own.
    native_spinning: Tunable = default("native_spinning"),

    /// The value of a key.
    pub fn at(t: *Tunables, key: usize) *Tunable {
        return switch (key) {
            inline 0...count - 1 => |k| &@field(t, keys[k].option),
            else => unreachable,
        };
    }
};

/// In lines of their own: they are read all the time, and hardly ever written.
pub var current: Tunables align(std.atomic.cache_line) = .{};

/// New values of some.
pub const Change = struct {
    wanted: [count]?u64 = @splat(null),

    pub const defaults: Change = defaults: {
        var all: Change = .{};
        for (keys, &all.wanted) |key, *value| value.* = key.default;
        break :defaults all;
    };

    pub fn set(c: *Change, comptime option: []const u8, value: u64) void {
        c.wanted[comptime keyOf(option)] = value;
    }

    /// Where `other` has a value, that one.
    pub fn add(c: *Change, other: *const Change) void {
        for (&c.wanted, other.wanted) |*value, new| value.* = new orelse value.*;
    }

    /// Whether any value is another now. In `before` there are those that were replaced then.
    pub fn apply(c: *const Change, t: *Tunables, before: ?*Change) bool {
        var differs = false;
        for (c.wanted, 0..) |wanted, key| {
            const value = wanted orelse continue;
            const old = t.at(key).raw.swap(value, .monotonic);
            if (before) |b| b.wanted[key] = old;
            differs = differs or old != value;
        }
        return differs;
    }

    pub const Refusal = struct {
        key: usize,
        /// The one that `key` must not exceed, where that is what is wrong.
        limit: ?usize = null,
    };

    /// The first that is out of its range, or would be more than another that it must not exceed.
    pub fn refusal(c: *const Change, t: *Tunables) ?Refusal {
        for (c.wanted, keys, 0..) |wanted, key, i| {
            const value = wanted orelse continue;
            if (value == 0 and key.zero.len > 0) continue;
            if (value < key.lowest or value > key.highest) return .{ .key = i };
        }
        for (limits, 0..) |limit, i| {
            const larger = limit orelse continue;
            if (c.wanted[i] == null and c.wanted[larger] == null) continue;
            const value = c.wanted[i] orelse t.at(i).get();
            if (value <= c.wanted[larger] orelse t.at(larger).get()) continue;
            return .{ .key = i, .limit = larger };
        }
        return null;
    }
};

pub fn find(path: []const u8) ?usize {
    for (keys, 0..) |key, i| {
        if (std.mem.eql(u8, key.path, path)) return i;
    }
    return null;
}

/// For each key the one that it must not exceed.
const limits: [count]?usize = limits: {
    @setEvalBranchQuota(10_000);
    var found: [count]?usize = @splat(null);
    for (keys, &found) |key, *limit| {
        if (key.at_most.len > 0) limit.* = find(key.at_most) orelse @compileError(
            "golibx/schema.py: key " ++ key.path ++ ": no tunable key " ++ key.at_most,
        );
    }
    break :limits found;
};

fn default(comptime option: []const u8) Tunable {
    return .init(keys[keyOf(option)].default);
}

fn keyOf(comptime option: []const u8) usize {
    @setEvalBranchQuota(10_000);
    for (keys, 0..) |key, i| {
        if (std.mem.eql(u8, key.option, option)) return i;
    }
    @compileError("golibx/schema.py has no tunable key with option=\"" ++ option ++ "\"");
}

comptime {
    for (keys) |key| {
        if (!@hasField(Tunables, key.option)) @compileError("golibx/schema.py: key " ++ key.path ++
            " is tunable, and zsrc/core/tunables.zig has no field " ++ key.option);
    }
    // Beside the fields' defaults, which see to the other direction.
    if (@typeInfo(Tunables).@"struct".field_names.len != count)
        @compileError("zsrc/core/tunables.zig has a field that is no tunable key's");
}

test "a value that is out of range is refused, 0 only where it means something" {
    var t: Tunables = .{};
    const slice = find("preempt.slice").?;
    const low = keys[slice].lowest;
    const high = keys[slice].highest;
    for ([_]u64{ 0, 1, low - 1, high + 1, std.math.maxInt(u64) }) |value| {
        var change: Change = .{};
        change.set("preempt_slice_ns", value);
        try std.testing.expectEqual(Change.Refusal{ .key = slice }, change.refusal(&t).?);
    }
    var change: Change = .{};
    change.set("preempt_slice_ns", keys[slice].lowest);
    change.set("spin_ns", 0);
    try std.testing.expectEqual(null, change.refusal(&t));
    var before: Change = .{};
    try std.testing.expect(change.apply(&t, &before));
    try std.testing.expectEqual(keys[slice].lowest, t.preempt_slice_ns.get());
    try std.testing.expectEqual(keys[slice].default, before.wanted[slice]);
    try std.testing.expectEqual(null, before.wanted[find("netpoll.interval").?]);
    try std.testing.expect(!change.apply(&t, null));
}

test "of two that depend on each other neither is changed beyond the other" {
    var t: Tunables = .{};
    const small = find("retake.threshold").?;
    const large = find("retake.threshold_idle").?;
    const over: u64 = 2 * keys[large].default;
    var change: Change = .{};
    change.set("retake_threshold_ns", over);
    const expected: Change.Refusal = .{ .key = small, .limit = large };
    try std.testing.expectEqual(expected, change.refusal(&t).?);
    change.set("retake_threshold_idle_ns", over);
    try std.testing.expectEqual(null, change.refusal(&t));
    _ = change.apply(&t, null);
    change = .{};
    change.set("retake_threshold_idle_ns", over - 1);
    try std.testing.expectEqual(expected, change.refusal(&t).?);
}
