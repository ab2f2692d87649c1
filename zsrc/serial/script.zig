//! The choices of an explored run one by one: written down as they are made, and made again.
//! Each has a kind, so many options, and the one that was taken. Option 0 is what happens by
//! itself: the running goroutine goes on, else the one that has waited longest; no timer is early.
//! So a run is known by its choices that are not 0. The first `free` options cost nothing. Each
//! other one is what the literature counts as a preemption (Musuvathi and Qadeer, PLDI 2007): few
//! of these bugs need more than two, and there are few enough runs with so many at most to try them
//! all.
//!
//! A run may be given a plan, the choices of its beginning. What lies behind its end is drawn, or
//! happens by itself. A program that comes to another choice than the plan has there is not the one
//! that the plan was made from: the place is kept, and all goes by itself from there on. A plan
//! that is only a start, for making a run smaller, bends instead.
const std = @import("std");
const Allocator = std.mem.Allocator;

pub const Kind = enum(u16) {
    /// Which goroutine goes on, as the one that ran waits, ends or gives way.
    next,
    /// Whether the running goroutine goes on after a call, or one of the others instead.
    call,
    /// Whether the earliest timer fires though goroutines could run.
    early,
    /// Which of the timers that are due at one instant fires.
    due,
    /// Which of the cases that can go on a select takes.
    case,
};

/// As the layers above read and write it. Of a planned one `free` means nothing, and 0 options are
/// whatever there is: it happens by itself.
pub const Choice = extern struct {
    kind: u16,
    options: u16,
    free: u16,
    taken: u16,

    pub const bytes = @sizeOf(Choice);
};

pub const Script = struct {
    /// What was chosen, the first `most_kept` of `count`.
    made: std.ArrayList(Choice) = .empty,
    count: usize = 0,
    plan: std.ArrayList(Choice) = .empty,
    bends: bool = false,
    /// The place of the first choice that was not as planned.
    misfit: ?usize = null,

    /// 16 MiB. A run that makes more is known by its seed alone.
    const most_kept = 2 << 20;

    pub fn begin(s: *Script, gpa: Allocator, plan: []const u8, bends: bool) Allocator.Error!void {
        s.made.clearRetainingCapacity();
        s.plan.clearRetainingCapacity();
        s.count = 0;
        s.misfit = null;
        s.bends = bends;
        try s.plan.ensureTotalCapacity(gpa, plan.len / Choice.bytes);
        var rest = plan;
        while (rest.len >= Choice.bytes) : (rest = rest[Choice.bytes..]) {
            s.plan.appendAssumeCapacity(std.mem.bytesToValue(Choice, rest[0..Choice.bytes]));
        }
    }

    pub fn deinit(s: *Script, gpa: Allocator) void {
        s.made.deinit(gpa);
        s.plan.deinit(gpa);
        s.* = .{};
    }

    pub fn isComplete(s: *const Script) bool {
        return s.count == s.made.items.len;
    }

    /// What the plan has for the next choice; null if that is not planned.
    pub fn planned(s: *Script, kind: Kind, options: usize) ?usize {
        if (s.count >= s.plan.items.len or s.misfit != null) return null;
        const c = s.plan.items[s.count];
        if (c.options == 0) return 0;
        if (c.kind == @backingInt(kind) and c.options == options and c.taken < options)
            return c.taken;
        if (s.bends) return 0;
        s.misfit = s.count;
        return null;
    }

    pub fn note(
        s: *Script,
        gpa: Allocator,
        kind: Kind,
        options: usize,
        free: usize,
        taken: usize,
    ) void {
        defer s.count += 1;
        if (s.count != s.made.items.len or s.count == most_kept) return;
        s.made.append(gpa, .{
            .kind = @backingInt(kind),
            .options = std.math.cast(u16, options) orelse return,
            .free = @intCast(free),
            .taken = @intCast(taken),
        }) catch return;
    }
};

test "a plan is followed to its end, and as far as it fits" {
    const gpa = std.testing.allocator;
    var s: Script = .{};
    defer s.deinit(gpa);
    for ([_][3]usize{ .{ 3, 3, 2 }, .{ 2, 1, 0 }, .{ 2, 1, 1 } }) |c|
        s.note(gpa, .call, c[0], c[1], c[2]);
    const plan = try gpa.dupe(u8, std.mem.sliceAsBytes(s.made.items));
    defer gpa.free(plan);
    try s.begin(gpa, plan, false);
    for ([_]usize{ 3, 2, 2 }, [_]usize{ 2, 0, 1 }) |options, taken| {
        try std.testing.expectEqual(taken, s.planned(.call, options));
        s.note(gpa, .call, options, 1, taken);
    }
    try std.testing.expectEqual(null, s.planned(.call, 2));
    try std.testing.expectEqual(null, s.misfit);
    for ([_]bool{ false, true }) |bends| {
        try s.begin(gpa, plan, bends);
        s.note(gpa, .call, 3, 3, s.planned(.call, 3).?);
        try std.testing.expectEqual(@as(?usize, if (bends) 0 else null), s.planned(.due, 2));
        s.note(gpa, .due, 2, 2, 0);
        try std.testing.expectEqual(@as(?usize, if (bends) 1 else null), s.planned(.call, 2));
        try std.testing.expectEqual(@as(?usize, if (bends) null else 1), s.misfit);
    }
}
