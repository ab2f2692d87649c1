//! The native lane as a whole, with real threads: what its parts' models cannot show. Storms of all
//! kinds are C programs (tests/native_stress).
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../os/os.zig");
const lane = @import("lane.zig");
const Arena = @import("arena.zig").Arena;
const switching = lane.switching;
const sysmon = lane.sysmon;
const events = @import("events.zig");
const event = @import("../event/event.zig");
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

const Atomic = std.atomic.Value;

fn start(procs: u32) !void {
    try lane.start(.{ .gomaxprocs = procs, .stack_size = 64 * 1024, .seed = 1 });
}

fn stop() !void {
    try expect(lane.stop(null));
}

fn until(flag: *const Atomic(u32), value: u32) void {
    while (flag.load(.acquire) != value) std.Thread.yield() catch {};
}

test "goroutines start, yield and end, on any number of processors" {
    const T = struct {
        var ended: Atomic(u32) = .init(0);

        fn body(_: ?*anyopaque) callconv(.c) void {
            for (0..3) |_| {
                const g = switching.enter().?;
                switching.gosched(g);
                switching.leave(g);
            }
            _ = ended.fetchAdd(1, .release);
        }
    };
    for ([_]u32{ 1, 2, 3, 8 }) |procs| {
        T.ended.store(0, .monotonic);
        try start(procs);
        for (0..1000) |_| try switching.go(.{ .function = T.body });
        until(&T.ended, 1000);
        try stop();
    }
}

test "a stopped runtime can be started again, and says so when it runs" {
    try start(1);
    try std.testing.expectError(error.Running, lane.start(.{}));
    try stop();
    try start(2);
    try stop();
}

/// A goroutine that blocks in a system call until `let_go`.
const Blocked = struct {
    var entered: Atomic(u32) = .init(0);
    var let_go: Atomic(u32) = .init(0);

    fn body(_: ?*anyopaque) callconv(.c) void {
        const g = switching.enter().?;
        switching.enterSyscall(g);
        entered.store(1, .release);
        until(&let_go, 1);
        switching.exitSyscall(g);
        switching.leave(g);
        entered.store(2, .release);
    }
};

fn procIn(status: anytype) ?*lane.P {
    for (lane.sched.procs()) |p| {
        if (p.?.status.load(.acquire) == status) return p;
    }
    return null;
}

test "the first look finds nothing to retake; a processor stuck in a system call is retaken" {
    try start(1);
    sysmon.stop(); // this test looks by hand
    Blocked.entered.store(0, .monotonic);
    Blocked.let_go.store(0, .monotonic);
    try switching.go(.{ .function = Blocked.body });
    until(&Blocked.entered, 1);
    const p = procIn(.syscall).?;
    const now = os.nanotime();
    try expect(!sysmon.round(now));
    try expectEqual(.syscall, p.status.load(.monotonic));
    try expectEqual(0, lane.sched.retakes.load(.monotonic));
    // No goroutine waits for its processor: it may keep that for the longer time.
    try expect(!sysmon.round(now + lane.tunables.retake_threshold_idle_ns.get() / 2) or
        procIn(.syscall) == null);
    _ = sysmon.round(now + lane.tunables.retake_threshold_idle_ns.get());
    try expectEqual(1, lane.sched.retakes.load(.monotonic));
    Blocked.let_go.store(1, .release);
    until(&Blocked.entered, 2);
    try stop();
}

/// A goroutine that computes until `let_go`.
const Hog = struct {
    var running: Atomic(u32) = .init(0);
    var let_go: Atomic(u32) = .init(0);

    fn body(_: ?*anyopaque) callconv(.c) void {
        _ = running.fetchAdd(1, .release);
        until(&let_go, 1);
    }
};

test "preempting marks and interrupts the thread that is meant, and no other" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    try start(2);
    sysmon.stop();
    Hog.running.store(0, .monotonic);
    Hog.let_go.store(0, .monotonic);
    try switching.go(.{ .function = Hog.body });
    try switching.go(.{ .function = Hog.body });
    until(&Hog.running, 2);
    const meant = lane.sched.allp[1].?;
    const other = lane.sched.allp[0].?;
    try expectEqual(.running, meant.status.load(.acquire));
    try expectEqual(.running, other.status.load(.acquire));
    const now = os.nanotime();
    sysmon.watchRunning(meant, now);
    try expect(!meant.attention.load(.monotonic)); // its slice has only begun
    sysmon.watchRunning(meant, now + lane.tunables.preempt_slice_ns.get());
    try expect(meant.attention.load(.monotonic));
    try expect(!other.attention.load(.monotonic));
    // Nothing else wants to run, so the handler refuses, and says so.
    while (@atomicLoad(u64, &meant.counters.refused_alone, .monotonic) == 0)
        std.Thread.yield() catch {};
    try expectEqual(0, @atomicLoad(u64, &other.counters.refused_alone, .monotonic));
    Hog.let_go.store(1, .release);
    try stop();
}

test "a processor takes its share of the global queue and no more" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    try start(2);
    sysmon.stop();
    Hog.running.store(0, .monotonic);
    Hog.let_go.store(0, .monotonic);
    for (0..2) |_| try switching.go(.{ .function = Hog.body });
    until(&Hog.running, 2);
    const s = &lane.sched;
    const p = s.allp[0].?;
    for ([_]u32{ 1, 1, 2 }, 2..) |share, len| {
        while (s.queue.len.load(.acquire) < len) try switching.go(.{ .function = Hog.body });
        s.lock.lock();
        defer s.lock.unlock();
        s.queue.push(s.takeGlobal(p, 0).?);
        try expectEqual(share - 1, p.runq.len());
        while (p.runq.pop()) |g| s.queue.push(g);
    }
    Hog.let_go.store(1, .release);
    try stop();
}

test "more hogs than processors all run" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    try start(1);
    Hog.running.store(0, .monotonic);
    Hog.let_go.store(0, .monotonic);
    for (0..4) |_| try switching.go(.{ .function = Hog.body });
    until(&Hog.running, 4);
    Hog.let_go.store(1, .release);
    try stop();
}

test "sysmon backs off when nothing happens, up to its limit" {
    const t = lane.tunables;
    const shortest = t.sysmon_sleep_min_ns.get();
    const longest = t.sysmon_sleep_max_ns.get();
    const rounds: u32 = @intCast(t.sysmon_idle_rounds.get());
    var delay = sysmon.backOff(longest, 0);
    try expectEqual(shortest, delay);
    for (1..rounds + 1) |idle| delay = sysmon.backOff(delay, @intCast(idle));
    try expectEqual(shortest, delay);
    for (0..20) |i| {
        const next = sysmon.backOff(delay, rounds + 1 + @as(u32, @intCast(i)));
        try expectEqual(@min(2 * delay, longest), next);
        delay = next;
    }
    try expectEqual(longest, delay);
    // A limit that has come down holds for what it sleeps already, at any number of rounds.
    defer t.sysmon_sleep_max_ns.set(longest);
    t.sysmon_sleep_max_ns.set(longest / 4);
    for ([_]u32{ 1, rounds + 1 }) |idle| try expectEqual(longest / 4, sysmon.backOff(delay, idle));
}

test "the clock never goes back" {
    var last = os.nanotime();
    for (0..10_000) |_| {
        const now = os.nanotime();
        try expect(now >= last);
        last = now;
    }
}

test "GOMAXPROCS shrinks and grows while goroutines run" {
    const T = struct {
        var left: Atomic(u32) = .init(0);
        var rounds: Atomic(u32) = .init(0);

        fn body(_: ?*anyopaque) callconv(.c) void {
            while (left.load(.acquire) == 0) {
                const g = switching.enter().?;
                switching.gosched(g);
                switching.leave(g);
                _ = rounds.fetchAdd(1, .monotonic);
            }
        }
    };
    try start(4);
    for (0..20) |_| try switching.go(.{ .function = T.body });
    for ([_]u32{ 1, 8, 2, 3, 1, 4 }) |n| {
        _ = try lane.setProcs(n);
        // Those beyond it go away, and the rest works on.
        for (lane.sched.procs(), 0..) |p, i| {
            while (i >= n and p.?.status.load(.acquire) != .dead) std.Thread.yield() catch {};
        }
        const before = T.rounds.load(.monotonic);
        while (T.rounds.load(.monotonic) -% before < 1000) std.Thread.yield() catch {};
    }
    T.left.store(1, .release);
    try stop();
}

test "a goroutine locked to its thread stays on it" {
    const T = struct {
        var moved: Atomic(u32) = .init(0);
        var ended: Atomic(u32) = .init(0);

        fn body(_: ?*anyopaque) callconv(.c) void {
            const g = switching.enter().?;
            switching.lockThread(g);
            const m = g.m;
            for (0..50) |_| {
                switching.gosched(g);
                if (g.m != m) _ = moved.fetchAdd(1, .monotonic);
                switching.sleep(g, 1000);
                if (g.m != m) _ = moved.fetchAdd(1, .monotonic);
            }
            if (!switching.unlockThread(g)) _ = moved.fetchAdd(1, .monotonic);
            switching.leave(g);
            _ = ended.fetchAdd(1, .release);
        }
    };
    try start(2);
    for (0..8) |_| try switching.go(.{ .function = T.body });
    until(&T.ended, 8);
    try expectEqual(0, T.moved.load(.monotonic));
    try stop();
}

test "a burst of goroutines needs no stack for each, and gives its pages back" {
    const T = struct {
        var ended: Atomic(u32) = .init(0);

        fn nothing(_: ?*anyopaque) callconv(.c) void {
            _ = ended.fetchAdd(1, .release);
        }

        fn spawner(_: ?*anyopaque) callconv(.c) void {
            for (0..20_000) |_| switching.go(.{ .function = nothing }) catch unreachable;
        }
    };
    T.ended.store(0, .monotonic);
    try start(1);
    try switching.go(.{ .function = T.spawner });
    until(&T.ended, 20_000);
    try expect(lane.arena.fresh < 2000);
    lane.arena.keep = 64;
    var now = os.nanotime();
    for (0..3) |_| {
        now += Arena.scavenge_interval_ns;
        while (lane.arena.scavenge(now)) {}
    }
    try expect(lane.arena.warm.items.len <= 64);
    try stop();
}

/// A consumer of events, as Python's pump is.
const Pump = struct {
    var told: Atomic(u32) = .init(0);
    var got: std.EnumArray(event.Kind, u32) = .initFill(0);
    var last: u64 = 0;

    fn notify() void {
        _ = told.fetchAdd(1, .monotonic);
    }

    fn begin(kinds: []const event.Kind) void {
        var mask: u32 = 0;
        for (kinds) |kind| mask |= kind.bit();
        got = .initFill(0);
        last = 0;
        events.begin(.{ .mask = mask, .ring_size = 4096, .notify = notify });
    }

    /// All there are, in order.
    fn take() !void {
        lane.procs_lock.lock();
        defer lane.procs_lock.unlock();
        var list: [8]*events.Ring = undefined;
        var times: [8]u64 = undefined;
        var n: usize = 0;
        var rings: events.Rings = .{};
        while (rings.next()) |ring| {
            list[n] = ring;
            n += 1;
        }
        var merge: @import("../event/merge.zig").Merge = .beginLast(list[0..n], &times);
        var out: [16]event.Event = undefined;
        while (merge.next(&out)) |taken| {
            for (taken.events) |e| {
                try expect(e.time >= last);
                last = e.time;
                got.getPtr(e.kind).* += 1;
            }
        }
    }
};

const Family = struct {
    const children = 300;
    var ended: Atomic(u32) = .init(0);

    fn child(_: ?*anyopaque) callconv(.c) void {
        _ = ended.fetchAdd(1, .release);
    }

    fn parent(_: ?*anyopaque) callconv(.c) void {
        for (0..children) |_| switching.go(.{ .function = child }) catch unreachable;
        _ = ended.fetchAdd(1, .release);
    }

    fn run() !void {
        ended.store(0, .monotonic);
        try switching.go(.{ .function = parent });
        until(&ended, children + 1);
        while (switching.goroutineCount() > 0) std.Thread.yield() catch {};
    }
};

test "events are recorded while a plugin wants them, and only then are there rings" {
    const everyone = Family.children + 1;
    try start(3);
    try Family.run();
    for (lane.sched.procs()) |p| try expectEqual(null, p.?.ring.raw);
    const wanted = [_]event.Kind{ .goroutine_create, .goroutine_start, .goroutine_exit };
    for (0..2) |_| {
        Pump.begin(&wanted);
        try Family.run();
        events.end();
        try Family.run(); // no event is wanted
        try Pump.take();
        for (wanted) |kind| try expectEqual(everyone, Pump.got.get(kind));
        try expectEqual(3 * everyone, events.counted().recorded);
        try expectEqual(0, events.counted().dropped);
        try expectEqual(0, Pump.got.get(.goroutine_park));
    }
    try expect(Pump.told.load(.monotonic) > 0);
    // The next consumer does not get what was left.
    Pump.begin(&wanted);
    try Family.run();
    events.end();
    Pump.begin(&.{.steal});
    try Pump.take();
    for (wanted) |kind| try expectEqual(0, Pump.got.get(kind));
    events.end();
    // More processors get rings, too many events are dropped and counted.
    _ = try lane.setProcs(5);
    try expect(lane.sched.allp[4].?.ring.raw != null);
    Pump.begin(&wanted);
    for (0..50) |_| try Family.run();
    events.end();
    try Pump.take();
    var taken: u64 = 0;
    for (wanted) |kind| taken += Pump.got.get(kind);
    try expectEqual(taken, events.counted().recorded);
    try expectEqual(50 * 3 * everyone - taken, events.counted().dropped);
    try expect(events.counted().dropped > 0);
    try stop();
    events.forget();
}
