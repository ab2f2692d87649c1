//! Schedules as text, and finding a smaller one that fails the same way.
//!
//! As text a thread is a letter, the first one `a`, with how often in a row it is chosen; a capital
//! is the store buffer of that thread, whose stores reach memory; `=2` is a value chosen.
const std = @import("std");
const engine = @import("engine.zig");
const Search = @import("explorer.zig").Search;
const Allocator = std.mem.Allocator;

pub fn format(gpa: Allocator, schedule: []const u8) ![]const u8 {
    var text: std.ArrayList(u8) = .empty;
    errdefer text.deinit(gpa);
    var i: usize = 0;
    while (i < schedule.len) {
        const id = schedule[i];
        if (id >= engine.choice) {
            try text.print(gpa, "={d}", .{id - engine.choice});
            i += 1;
            continue;
        }
        const from = i;
        while (i < schedule.len and schedule[i] == id) i += 1;
        try text.append(gpa, if (id < engine.flush) 'a' + id else 'A' + (id - engine.flush));
        if (i - from > 1) try text.print(gpa, "{d}", .{i - from});
    }
    if (text.items.len == 0) try text.append(gpa, '-');
    return text.toOwnedSlice(gpa);
}

pub fn parse(gpa: Allocator, text: []const u8) ![]u8 {
    var schedule: std.ArrayList(u8) = .empty;
    errdefer schedule.deinit(gpa);
    var i: usize = 0;
    while (i < text.len) {
        const c = text[i];
        i += 1;
        const from = i;
        while (i < text.len and std.ascii.isDigit(text[i])) i += 1;
        const number = if (i > from) try std.fmt.parseInt(u16, text[from..i], 10) else null;
        switch (c) {
            'a'...'p' => try schedule.appendNTimes(gpa, c - 'a', number orelse 1),
            'A'...'P' => try schedule.appendNTimes(gpa, engine.flush + c - 'A', number orelse 1),
            '=' => {
                const value = number orelse return error.BadSchedule;
                if (value >= 128) return error.BadSchedule;
                try schedule.append(gpa, @intCast(engine.choice + value));
            },
            '-', ' ' => {},
            else => return error.BadSchedule,
        }
    }
    return schedule.toOwnedSlice(gpa);
}

const max_tries = 4000;

/// Starts from the run that just failed, which it repeats with parts left out: fewest unlikely
/// events first, then fewest switches, then fewest steps.
pub fn smallest(s: *Search, gpa: Allocator, message: []const u8) ![]const u8 {
    s.e.limits.preemptions = std.math.maxInt(u32);
    var shrinker: Shrinker = .{ .s = s, .gpa = gpa, .message = message };
    try shrinker.keep();
    while (shrinker.tries < max_tries) {
        if (try shrinker.dropPart()) continue;
        if (try shrinker.moveSwitch()) continue;
        break;
    }
    return shrinker.prefix();
}

const Shrinker = struct {
    s: *Search,
    gpa: Allocator,
    message: []const u8,
    best: []const u8 = &.{},
    cost: [3]u32 = undefined,
    tries: u32 = 0,

    fn keep(k: *Shrinker) !void {
        const e = k.s.e;
        const ids = try k.gpa.alloc(u8, e.decisions.items.len);
        for (ids, e.decisions.items) |*id, d| id.* = d.id;
        k.best = ids;
        k.cost = k.costNow();
    }

    fn costNow(k: *const Shrinker) [3]u32 {
        const e = k.s.e;
        return .{ e.preemptions + e.delays + e.weak_failures, e.switches, e.steps };
    }

    fn fails(k: *Shrinker, schedule: []const u8) bool {
        k.tries += 1;
        k.s.run(.{ .replay = schedule });
        return if (k.s.e.failure) |message| std.mem.eql(u8, message, k.message) else false;
    }

    /// Keeps the schedule if it fails too and is better.
    fn attempt(k: *Shrinker, schedule: []const u8) !bool {
        if (!k.fails(schedule)) return false;
        if (std.mem.order(u32, &k.costNow(), &k.cost) != .lt) return false;
        try k.keep();
        return true;
    }

    /// Leaves out all that one thread does in a row, or what follows.
    fn dropPart(k: *Shrinker) !bool {
        var room: std.ArrayList(u8) = .empty;
        defer room.deinit(k.gpa);
        var i: usize = 0;
        while (i < k.best.len and k.tries < max_tries) {
            var j = i + 1;
            while (j < k.best.len and k.best[j] == k.best[i]) j += 1;
            room.clearRetainingCapacity();
            try room.appendSlice(k.gpa, k.best[0..i]);
            if (try k.attempt(room.items)) return true;
            try room.appendSlice(k.gpa, k.best[j..]);
            if (try k.attempt(room.items)) return true;
            i = j;
        }
        return false;
    }

    /// Does what one thread does in a row after what the next one does.
    fn moveSwitch(k: *Shrinker) !bool {
        var room: std.ArrayList(u8) = .empty;
        defer room.deinit(k.gpa);
        var i: usize = 0;
        while (i < k.best.len and k.tries < max_tries) {
            const j = endOfPart(k.best, i);
            const l = endOfPart(k.best, j);
            room.clearRetainingCapacity();
            try room.appendSlice(k.gpa, k.best[0..i]);
            try room.appendSlice(k.gpa, k.best[j..l]);
            try room.appendSlice(k.gpa, k.best[i..j]);
            try room.appendSlice(k.gpa, k.best[l..]);
            if (try k.attempt(room.items)) return true;
            i = j;
        }
        return false;
    }

    fn endOfPart(schedule: []const u8, from: usize) usize {
        var i = from;
        while (i < schedule.len and schedule[i] == schedule[from]) i += 1;
        return i;
    }

    /// As much of the schedule as it takes: what follows is what happens by itself.
    fn prefix(k: *Shrinker) []const u8 {
        for (0..k.best.len) |n| {
            if (k.fails(k.best[0..n]) and std.meta.eql(k.costNow(), k.cost)) return k.best[0..n];
        }
        return k.best;
    }
};

test "a schedule is read as it was written" {
    const gpa = std.testing.allocator;
    const schedule = [_]u8{ 0, 0, 0, 1, engine.choice + 12, engine.flush + 1, 0 };
    const text = try format(gpa, &schedule);
    defer gpa.free(text);
    try std.testing.expectEqualStrings("a3b=12Ba", text);
    const again = try parse(gpa, text);
    defer gpa.free(again);
    try std.testing.expectEqualSlices(u8, &schedule, again);
}
