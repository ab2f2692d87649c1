//! What the events of a serial lane say of its goroutines, whichever thread they run on.
const std = @import("std");
const os = @import("../os/os.zig");
const event = @import("../event/event.zig");
const lane_test = @import("lane_test.zig");

const T = lane_test.T;
const lane = &lane_test.lane;
const Kind = event.Kind;

/// Goroutines of each kind: they are never told apart by what they do.
const Program = struct {
    const rounds = 40;
    /// Those locked to a thread, those that keep theirs where they wait, and others.
    var all: [6]T = undefined;
    var c: lane_test.Chan = .{};
    var ended: usize = 0;
    var check: *const fn () void = undefined;

    fn step(t: *T, i: u64) void {
        switch (i % 5) {
            0 => while (true) {
                lane_test.blockFor(t, 200 * std.time.ns_per_us);
                // The first time until the P is taken.
                if (i >= 5 or lane.running != &t.g) break;
            },
            1 => lane.gosched(&t.g),
            2 => lane.preempt(&t.g),
            3 => sleepShortly(t),
            else => {
                var out: u64 = undefined;
                var zero: u64 = 0;
                if (c.now(.recv, &out) != .done and i % 2 == 0)
                    _ = c.transfer(.send, &zero, &t.g, null);
            },
        }
    }

    fn sleepShortly(t: *T) void {
        lane.prepare(&t.g);
        _ = lane.park(&t.g, .sleep, os.nanotime() + 20 * std.time.ns_per_us);
    }

    fn work(t: *T) void {
        if (t.value % 3 == 0) lane.lockThread(&t.g) catch unreachable;
        for (0..rounds) |i| {
            _ = T.current();
            t.keeps_thread = t.value % 3 == 1;
            step(t, i + t.value);
            _ = T.current();
            t.keeps_thread = false;
        }
        ended += 1;
    }

    fn main(t: *T) void {
        ended = 0;
        for (&all, 0..) |*each, i| {
            each.* = .{ .function = work, .value = i };
            lane.go(&each.g);
        }
        while (ended < all.len) {
            var out: u64 = undefined;
            _ = c.now(.recv, &out);
            sleepShortly(t);
        }
        check();
    }

    fn run(mask: u32, checks: *const fn () void) !void {
        check = checks;
        var t: T = .{ .function = main };
        try lane_test.runWith(.{ .stack_size = 256 * 1024, .event_mask = mask }, &t);
    }

    /// Of main and the others, by its id.
    fn count() usize {
        return 1 + all.len;
    }
};

test "one that is new or woken is said to run, once, and how long it waited" {
    const S = struct {
        fn checks() void {
            const Seen = struct { waits: bool = true, ran: u64 = 0, times: usize = 0 };
            var seen: [Program.count()]Seen = @splat(.{});
            while (lane.ring.pop()) |e| {
                const s = &seen[@intCast(e.goroutine - 1)];
                std.testing.expectEqual(e.kind == .goroutine_run, s.waits) catch unreachable;
                s.waits = !s.waits;
                if (e.kind != .goroutine_run) continue;
                // It waited after it had run, and not for longer than this takes.
                std.testing.expect(e.time - e.a >= s.ran) catch unreachable;
                s.ran = e.time;
                s.times += 1;
            }
            for (seen) |s| {
                std.testing.expect(!s.waits and s.times > 1) catch unreachable;
            }
            std.testing.expectEqual(0, lane.ring.dropped) catch unreachable;
        }
    };
    try Program.run(Kind.goroutine_ready.bit() | Kind.goroutine_run.bit(), S.checks);
}

test "one that loses its P to a blocking call is said to block, and to be back" {
    const S = struct {
        fn checks() void {
            const Seen = struct { blocks: bool = false, for_ns: u64 = 0, times: usize = 0 };
            var seen: [Program.count()]Seen = @splat(.{});
            var kept: usize = 0;
            while (lane.ring.pop()) |e| {
                const s = &seen[@intCast(e.goroutine - 1)];
                std.testing.expectEqual(e.kind == .goroutine_unblock, s.blocks) catch unreachable;
                s.blocks = !s.blocks;
                if (s.blocks) {
                    // Where it was is kept for the event.
                    std.testing.expectEqual(e.goroutine, e.b) catch unreachable;
                    kept += 1;
                    s.for_ns = e.a;
                    s.times += 1;
                } else {
                    const blocked_ns = e.a & ((1 << 48) - 1);
                    std.testing.expect(blocked_ns >= s.for_ns) catch unreachable;
                }
            }
            for (seen, 0..) |s, i| {
                std.testing.expect(!s.blocks and (i == 0 or s.times > 0)) catch unreachable;
            }
            std.testing.expectEqual(kept, lane_test.places) catch unreachable;
        }
    };
    lane_test.places = 0;
    try Program.run(Kind.goroutine_block.bit() | Kind.goroutine_unblock.bit(), S.checks);
}

test "latencies are those of some wake-ups though all are timed" {
    const S = struct {
        fn checks() void {
            var runs: usize = 0;
            while (lane.ring.pop()) |e| {
                std.testing.expectEqual(.goroutine_run, e.kind) catch unreachable;
                runs += 1;
            }
            var measured: u64 = 0;
            for (lane.latency.counts) |n| measured += n;
            std.testing.expect(measured > 0 and measured < runs) catch unreachable;
        }
    };
    try Program.run(Kind.goroutine_run.bit() | event.latency_bit, S.checks);
}

test "what the lane waits for the host's lock is told from some length on" {
    const S = struct {
        var least_ns: u64 = undefined;

        fn main(t: *T) void {
            lane.offerLock();
            const e = lane.ring.pop() orelse {
                std.testing.expect(least_ns > std.time.ns_per_min) catch unreachable;
                return;
            };
            std.testing.expect(least_ns < std.time.ns_per_min) catch unreachable;
            std.testing.expectEqual(.gil_wait, e.kind) catch unreachable;
            std.testing.expectEqual(t.g.id, e.goroutine) catch unreachable;
            std.testing.expect(e.a >= std.time.ns_per_ms and e.b == 1) catch unreachable;
        }
    };
    for ([_]u64{ std.time.ns_per_us, std.time.ns_per_hour }) |least_ns| {
        S.least_ns = least_ns;
        var t: T = .{ .function = S.main };
        try lane_test.runWith(.{
            .stack_size = 256 * 1024,
            .event_mask = Kind.gil_wait.bit(),
            .hooks_gil_wait_min_ns = least_ns,
        }, &t);
    }
}
