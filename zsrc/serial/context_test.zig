//! Contexts on a lane without Python: on lane_test.zig's host, goroutines are Zig functions.
const std = @import("std");
const os = @import("../os/os.zig");
const context = @import("context.zig");
const lane_test = @import("lane_test.zig");
const Context = context.Context;
const T = lane_test.T;
const lane = &lane_test.lane;

var done_calls: usize = 0;

fn countDone(_: *Context) void {
    done_calls += 1;
}

fn new() Context {
    return .{ .on_done = countDone };
}

test "cancelling goes down the tree, not up, and ends the waits of each that it reaches" {
    const S = struct {
        var root = new();
        var child = new();
        var grandchild = new();
        var sibling = new();
        var c: lane_test.Chan = .{};
        var waiters: [6]T = undefined;
        var order: [6]u64 = undefined;
        var n: usize = 0;
        var interrupted: usize = 0;

        fn wait(t: *T) void {
            t.g.context = if (t.value < 4) &grandchild else &sibling;
            var out: u64 = undefined;
            if (c.transfer(.recv, &out, &t.g, null) == .interrupted) interrupted += 1;
            order[n] = t.value;
            n += 1;
        }
        fn main(t: *T) void {
            lane.attachContext(&root, null, context.never) catch unreachable;
            lane.attachContext(&child, &root, context.never) catch unreachable;
            lane.attachContext(&grandchild, &child, context.never) catch unreachable;
            lane.attachContext(&sibling, &root, context.never) catch unreachable;
            for (&waiters, 0..) |*w, i| {
                w.* = .{ .function = wait, .value = i };
                lane.go(&w.g);
            }
            lane.gosched(&t.g);
            var value: u64 = 7;
            // Served before the cancellation: it keeps its value, whatever comes next.
            std.testing.expectEqual(.done, c.now(.send, &value)) catch unreachable;
            lane.cancelContext(&child, .cancelled);
            lane.cancelContext(&child, .expired);
            while (n < 4) lane.gosched(&t.g);
            std.testing.expectEqual(null, sibling.origin) catch unreachable;
            std.testing.expectEqual(3, interrupted) catch unreachable;
            while (c.now(.send, &value) == .done) {}
            while (n < 6) lane.gosched(&t.g);
        }
    };
    done_calls = 0;
    var main: T = .{ .function = S.main };
    try lane_test.runMain(&main);
    try std.testing.expectEqualSlices(u64, &.{ 0, 1, 2, 3 }, S.order[0..4]);
    try std.testing.expectEqual(2, done_calls);
    for ([_]*Context{ &S.child, &S.grandchild }) |c| {
        try std.testing.expectEqual(.cancelled, c.state);
        try std.testing.expectEqual(&S.child, c.origin.?);
        try std.testing.expectEqual(null, c.parent);
        try std.testing.expectEqual(null, c.waiters);
    }
    try std.testing.expectEqual(&S.sibling, S.root.children.head.?);
    try std.testing.expectEqual(null, S.sibling.next);
}

test "a goroutine that parks under a context that is done goes on at once" {
    const S = struct {
        var root = new();
        var late = new();
        var turns: usize = 0;

        fn main(t: *T) void {
            lane.attachContext(&root, null, context.never) catch unreachable;
            lane.cancelContext(&root, .cancelled);
            lane.attachContext(&late, &root, context.never) catch unreachable;
            t.g.context = &late;
            for (0..3) |_| {
                lane.prepare(&t.g);
                if (lane.park(&t.g, .sleep, os.nanotime() + std.time.ns_per_hour) == .interrupted)
                    turns += 1;
            }
        }
    };
    var main: T = .{ .function = S.main };
    try lane_test.runMain(&main);
    try std.testing.expectEqual(3, S.turns);
    try std.testing.expectEqual(&S.root, S.late.origin.?);
    try std.testing.expectEqual(null, S.root.children.head);
}

test "the first deadline of a chain has the timer, which goes with its context" {
    const S = struct {
        var outer = new();
        var inner = new();
        var given_up = new();
        var passed = new();
        var wake: @TypeOf(lane.park(undefined, .sleep, null)) = .ready;

        fn main(t: *T) void {
            const now = os.nanotime();
            lane.attachContext(&outer, null, now + 2 * std.time.ns_per_ms) catch unreachable;
            lane.attachContext(&inner, &outer, now + std.time.ns_per_hour) catch unreachable;
            lane.attachContext(&given_up, null, now + std.time.ns_per_hour) catch unreachable;
            lane.attachContext(&passed, &outer, now) catch unreachable;
            std.testing.expectEqual(2, lane.timers.len()) catch unreachable;
            std.testing.expectEqual(2, lane.user_timers) catch unreachable;
            std.testing.expectEqual(outer.deadline, inner.deadline) catch unreachable;
            std.testing.expectEqual(.expired, passed.state) catch unreachable;
            lane.detachContext(&given_up);
            std.testing.expectEqual(1, lane.user_timers) catch unreachable;
            t.g.context = &inner;
            lane.prepare(&t.g);
            wake = lane.park(&t.g, .select_no_cases, null);
        }
    };
    var main: T = .{ .function = S.main };
    try lane_test.runMain(&main);
    try std.testing.expectEqual(.interrupted, S.wake);
    try std.testing.expectEqual(.expired, S.inner.state);
    try std.testing.expectEqual(&S.outer, S.inner.origin.?);
    try std.testing.expectEqual(0, lane.user_timers);
    try std.testing.expectEqual(0, lane.timers.len());
}

test "a deadline that has passed is seen before its timer is" {
    const S = struct {
        var outer = new();
        var inner = new();

        fn main(_: *T) void {
            lane.attachContext(&outer, null, os.nanotime() + 1000) catch unreachable;
            lane.attachContext(&inner, &outer, context.never) catch unreachable;
            while (os.nanotime() <= outer.deadline) {}
            lane.expireContext(&inner);
            std.testing.expectEqual(.expired, outer.state) catch unreachable;
            std.testing.expectEqual(0, lane.timers.len()) catch unreachable;
        }
    };
    var main: T = .{ .function = S.main };
    try lane_test.runMain(&main);
    try std.testing.expectEqual(.expired, S.inner.state);
    try std.testing.expectEqual(0, lane.user_timers);
}

test "a context that outlives its run leaves alone what waited in it" {
    const S = struct {
        var kept = new();
        var waiter: T = undefined;

        fn wait(t: *T) void {
            t.g.context = &kept;
            lane.prepare(&t.g);
            _ = lane.park(&t.g, .select_no_cases, null);
        }
        fn first(t: *T) void {
            lane.attachContext(&kept, null, os.nanotime() + std.time.ns_per_hour) catch unreachable;
            waiter = .{ .function = wait };
            lane.go(&waiter.g);
            lane.gosched(&t.g);
        }
        fn second(t: *T) void {
            lane.armContext(&kept) catch unreachable;
            std.testing.expectEqual(1, lane.timers.len()) catch unreachable;
            lane.cancelContext(&kept, .cancelled);
            std.testing.expectEqual(0, lane.timers.len()) catch unreachable;
            lane.gosched(&t.g);
        }
    };
    var main: T = .{ .function = S.first };
    try lane_test.runMain(&main);
    main = .{ .function = S.second };
    try lane_test.runMain(&main);
    try std.testing.expectEqual(.waiting, S.waiter.g.status);
    try std.testing.expectEqual(.cancelled, S.kept.state);
}

test "a deep tree takes no stack" {
    const S = struct {
        var all: [100_000]Context = undefined;

        fn main(_: *T) void {
            for (&all, 0..) |*c, i| {
                c.* = new();
                lane.attachContext(
                    c,
                    if (i == 0) null else &all[i - 1],
                    context.never,
                ) catch unreachable;
            }
            lane.cancelContext(&all[0], .cancelled);
        }
    };
    done_calls = 0;
    var main: T = .{ .function = S.main };
    try lane_test.runMain(&main);
    try std.testing.expectEqual(S.all.len, done_calls);
}
