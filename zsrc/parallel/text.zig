//! Text in which a goroutine may be preempted by switching away inside the signal handler.
//!
//! Read by signal handlers, so a table is never changed: a new one replaces it, and the old ones
//! stay until the process ends. Programs register a few ranges, once.
const std = @import("std");
const env = @import("env.zig");

const gpa = std.heap.page_allocator;

pub const Range = struct { start: usize, end: usize };

const Table = struct { ranges: []const Range };

var table: std.atomic.Value(?*const Table) = .init(null);
var lock: env.SpinLock = .{};

pub fn add(range: Range) error{OutOfMemory}!void {
    lock.lock();
    defer lock.unlock();
    const old: []const Range = if (table.load(.monotonic)) |t| t.ranges else &.{};
    const ranges = try gpa.alloc(Range, old.len + 1);
    var at: usize = 0;
    while (at < old.len and old[at].start < range.start) : (at += 1) ranges[at] = old[at];
    ranges[at] = range;
    @memcpy(ranges[at + 1 ..], old[at..]);
    // Those that overlap or touch become one.
    var n: usize = 0;
    for (ranges[1..]) |each| {
        if (each.start <= ranges[n].end) {
            ranges[n].end = @max(ranges[n].end, each.end);
        } else {
            n += 1;
            ranges[n] = each;
        }
    }
    const new = try gpa.create(Table);
    new.* = .{ .ranges = ranges[0 .. n + 1] };
    // Release pairs with the acquire in `contains`.
    table.store(new, .release);
}

pub fn contains(pc: usize) bool {
    const t = table.load(.acquire) orelse return false;
    var lo: usize = 0;
    var hi = t.ranges.len;
    while (lo < hi) {
        const mid = lo + (hi - lo) / 2;
        if (t.ranges[mid].end <= pc) lo = mid + 1 else hi = mid;
    }
    return lo < t.ranges.len and t.ranges[lo].start <= pc;
}

test "ranges join and are found" {
    const base = 1 << 40; // nothing of a process lies there
    try add(.{ .start = base + 100, .end = base + 200 });
    try add(.{ .start = base + 300, .end = base + 400 });
    try add(.{ .start = base + 150, .end = base + 250 });
    for ([_]usize{ 100, 199, 200, 249, 300, 399 }) |pc| try std.testing.expect(contains(base + pc));
    for ([_]usize{ 99, 250, 299, 400 }) |pc| try std.testing.expect(!contains(base + pc));
    try add(.{ .start = base + 250, .end = base + 300 });
    try std.testing.expect(contains(base + 260));
}
