//! Runs of one kind one after the other, with the lane at rest in between, while sysmon looks on as
//! often as it can: see resting.zig.
//!
//! What sysmon finds of an M that is gone, the allocator has overwritten.
const std = @import("std");
const os = @import("../os/os.zig");
const lane_test = @import("lane_test.zig");
const sysmon = @import("sysmon.zig");
const lane_mod = @import("lane.zig");

const T = lane_test.T;
const lane = &lane_test.lane;

const kind: lane_mod.Options = .{
    .stack_size = 256 * 1024,
    .keep = true,
    .retake_enabled = false,
};

const Program = struct {
    var others: [3]T = undefined;
    var turns: u64 = 0;
    var waits: lane_test.Chan = .{};

    fn step(t: *T) void {
        lane.gosched(&t.g);
        turns += 1;
    }

    fn main(t: *T) void {
        for (&others) |*o| {
            o.* = .{ .function = step };
            lane.go(&o.g);
        }
        while (lane.user_count > 1) lane.gosched(&t.g);
        turns += 1;
    }

    /// Leaves a goroutine that waits.
    fn leaves(t: *T) void {
        others[0] = .{ .function = struct {
            fn wait(w: *T) void {
                var out: u64 = undefined;
                _ = waits.transfer(.recv, &out, &w.g, null);
            }
        }.wait };
        lane.go(&others[0].g);
        lane.gosched(&t.g);
    }
};

fn run(options: lane_mod.Options, function: *const fn (*T) void) !void {
    var main: T = .{ .function = function };
    try lane_test.runWith(options, &main);
}

fn endRest() void {
    lane_test.lock();
    defer lane_test.unlock();
    lane.endRest();
}

/// With an allocator that tells of what is used after it was freed, and of what never is.
fn begin() void {
    endRest();
    lane.* = .{ .gpa = std.testing.allocator, .generation = lane.generation };
    lane.tunables.sysmon_sleep_min_ns.set(1);
    lane.tunables.sysmon_sleep_max_ns.set(1);
    // No slice ends, however busy the machine is: after three of them sysmon would start a thread.
    lane.tunables.preempt_slice_ns.set(600 * std.time.ns_per_s);
}

fn end() void {
    endRest();
    lane.* = .{ .gpa = std.heap.c_allocator, .generation = lane.generation };
    lane.tunables.* = .{};
}

test "runs of one kind follow each other while sysmon looks on" {
    begin();
    defer end();
    const runs = 3000;
    const before = lane.generation;
    Program.turns = 0;
    var thread: ?os.Thread = null;
    for (0..runs) |i| {
        var options = kind;
        options.seed = i;
        try run(options, Program.main);
        try std.testing.expect(lane.rests);
        try std.testing.expect(lane.sysmon.resting);
        try std.testing.expectEqual(4, lane.counters.spawns + 1);
        // It is the one that the first of them has started.
        if (thread) |t| try std.testing.expectEqual(t, lane.sysmon.thread.?);
        thread = lane.sysmon.thread;
    }
    try std.testing.expectEqual(4 * runs, Program.turns);
    // And once where it was set up.
    try std.testing.expectEqual(runs + 1, lane.generation -% before);
}

test "the lane comes to rest, and begins anew, only between two rounds of sysmon's" {
    begin();
    defer end();
    const S = struct {
        var looks: std.atomic.Value(bool) = .init(false);
        var began: std.atomic.Value(bool) = .init(false);

        /// As sysmon in a round that takes long.
        fn look(_: ?*anyopaque) void {
            lane.sysmon.round.lock();
            looks.store(true, .release);
            began.store(true, .release);
            os.sleepNs(5 * std.time.ns_per_ms);
            looks.store(false, .release);
            lane.sysmon.round.unlock();
        }
        fn beginsLook() os.Thread {
            const one = os.spawn(look, null, .{ .signals = .blocked }) catch unreachable;
            while (!began.swap(false, .acquire)) std.atomic.spinLoopHint();
            return one;
        }
        var thread: os.Thread = undefined;
        fn endsInIt(_: *T) void {
            thread = beginsLook();
        }
        fn begins(_: *T) void {
            if (looks.load(.acquire)) unreachable;
        }
    };
    for (0..3) |_| {
        try run(kind, S.endsInIt);
        try std.testing.expect(lane.rests and !S.looks.load(.acquire));
        S.thread.join();
        S.thread = S.beginsLook();
        try run(kind, S.begins);
        S.thread.join();
    }
}

test "sysmon attends to a run that began where the lane was at rest" {
    begin();
    defer end();
    const S = struct {
        fn computes(_: *T) void {
            // Until sysmon has it asked to give way.
            while (lane.counters.preempt_requests.load(.monotonic) == 0) std.atomic.spinLoopHint();
        }
    };
    lane.tunables.preempt_slice_ns.set(20 * std.time.ns_per_ms);
    try run(kind, Program.main);
    // By one that was helped it need not be kept.
    for (0..20) |_| try run(kind, S.computes);
}

test "a run that leaves something, or is of another kind, finds nothing kept" {
    begin();
    defer end();
    try run(kind, Program.leaves);
    try std.testing.expect(!lane.rests and lane.sysmon.thread == null);
    // Nor while its stack is in use.
    try run(kind, Program.main);
    try std.testing.expect(!lane.rests);
    lane.stacks_kept = false;
    lane.stacks.in_use = 0;
    lane.stacks.deinit();
    try run(kind, Program.main);
    try std.testing.expect(lane.rests);
    var other = kind;
    other.hooks_ring_size = 32;
    try run(other, Program.main);
    try std.testing.expect(lane.rests);
    try std.testing.expectEqual(32, lane.options.hooks_ring_size);
    other.keep = false;
    try run(other, Program.main);
    try std.testing.expect(!lane.rests and lane.sysmon.thread == null);
}
