//! The primitives of this folder on the lane of serial/lane_test.zig, without Python.
const std = @import("std");
const os = @import("../os/os.zig");
const harness = @import("../serial/lane_test.zig");
const Mutex = @import("mutex.zig").Mutex(harness.Rt);
const RWMutex = @import("rwmutex.zig").RWMutex(harness.Rt);
const Semaphore = @import("semaphore.zig").Semaphore(harness.Rt, true);
const Barrier = @import("barrier.zig").Barrier(harness.Rt);

const Lane = harness.Lane;
const T = harness.T;
const lane = &harness.lane;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

fn start(t: *T, function: *const fn (*T) void, value: u64) void {
    t.* = .{ .function = function, .value = value };
    lane.go(&t.g);
}

fn sched() void {
    lane.gosched(&T.current().g);
}

/// As a cancellation does.
fn interrupt(t: *T) void {
    if (lane.claim(&t.g, .interrupted)) lane.ready(&t.g);
}

fn sleepUntil(when: u64) void {
    const t = T.current();
    lane.prepare(&t.g);
    _ = lane.park(&t.g, .sleep, when);
}

fn run(main: *const fn (*T) void) !void {
    var t: T = .{ .function = main };
    try harness.runMain(&t);
}

/// Null if it was interrupted or the time was up.
fn lock(m: *Mutex, deadline: ?u64) ?void {
    var since: u64 = 0;
    while (!m.tryLock()) {
        switch (m.wait(&T.current().g, &since, deadline)) {
            .locked => return,
            .again => {},
            .timeout, .interrupted => return null,
        }
    }
}

fn starves(m: *const Mutex) bool {
    return m.state.raw & Mutex.starving != 0;
}

fn unlock(m: *Mutex) void {
    if (!m.unlock()) unreachable;
}

test "a mutex excludes, in the order of its waiters" {
    const S = struct {
        var m: Mutex = .{};
        var workers: [20]T = undefined;
        var inside: u32 = 0;
        var order: [20]u64 = undefined;
        var n: usize = 0;

        fn work(t: *T) void {
            lock(&m, null).?;
            inside += 1;
            sched();
            if (inside != 1) unreachable;
            inside -= 1;
            order[n] = t.value;
            n += 1;
            unlock(&m);
        }
        fn main(_: *T) void {
            lock(&m, null).?;
            for (&workers, 0..) |*w, i| start(w, work, i);
            sched();
            unlock(&m);
            while (n < workers.len) sched();
        }
    };
    try run(S.main);
    for (S.order, 0..) |value, i| try expectEqual(i, value);
    try expectEqual(false, S.m.isLocked());
    try expect(!starves(&S.m));
    try expect(!S.m.unlock());
}

test "a waiter of a mutex that starves is given it" {
    const S = struct {
        var m: Mutex = .{};
        var waiter: T = undefined;
        var lost: u32 = 0;
        var has: bool = false;

        fn wait(_: *T) void {
            lock(&m, null).?;
            has = true;
            unlock(&m);
        }
        fn main(_: *T) void {
            lock(&m, null).?;
            start(&waiter, wait, 0);
            sched();
            sleepUntil(os.nanotime() + 2 * std.time.ns_per_ms);
            // Woken, it loses, and asks for it.
            unlock(&m);
            _ = m.tryLock() or unreachable;
            sched();
            if (has or !starves(&m)) unreachable;
            unlock(&m);
            if (m.tryLock()) unreachable;
            while (!has) sched();
        }
    };
    try run(S.main);
    try expect(!starves(&S.m));
    try expectEqual(false, S.m.isLocked());
}

test "a mutex passes by waiters that left, in both modes" {
    const S = struct {
        var m: Mutex = .{};
        var leaver: T = undefined;
        var waiter: T = undefined;
        var got: [2]bool = @splat(false);

        fn wait(t: *T) void {
            if (lock(&m, null)) |_| got[t.value] = true;
        }
        fn main(_: *T) void {
            for ([_]bool{ false, true }) |starving| {
                got = @splat(false);
                lock(&m, null).?;
                start(&leaver, wait, 0);
                start(&waiter, wait, 1);
                sched();
                if (starving) m.state.raw |= Mutex.starving;
                interrupt(&leaver);
                unlock(&m);
                while (!got[1]) sched();
                unlock(&m);
                if (got[0] or m.isLocked() or starves(&m)) unreachable;
            }
        }
    };
    try run(S.main);
}

test "a deadline ends the wait for a mutex" {
    const S = struct {
        var m: Mutex = .{};
        var in_time = true;

        fn main(_: *T) void {
            lock(&m, null).?;
            in_time = lock(&m, os.nanotime() + 1000) != null;
            unlock(&m);
        }
    };
    try run(S.main);
    try expectEqual(false, S.in_time);
    try expect(S.m.queue.isEmpty());
}

test "readers wait behind a writer, and go on when it leaves" {
    const S = struct {
        var m: RWMutex = .{};
        var writer: T = undefined;
        var readers: [3]T = undefined;
        var wrote = false;
        var read: u32 = 0;

        fn write(t: *T) void {
            wrote = m.lockWait(.end, &t.g, null) == .ready;
        }
        fn reading(t: *T) void {
            if (m.tryRLock()) unreachable;
            if (m.rLockWait(.end, &t.g, null) == .ready) read += 1;
        }
        fn main(_: *T) void {
            for ([_]bool{ true, false }) |leaves| {
                read = 0;
                if (!m.tryRLock()) unreachable;
                start(&writer, write, 0);
                sched();
                for (&readers) |*r| start(r, reading, 0);
                sched();
                if (leaves) interrupt(&writer) else m.rUnlock() catch unreachable;
                sched();
                if (leaves == wrote) unreachable;
                if (wrote) m.unlock() catch unreachable;
                while (read < readers.len) sched();
                while (m.readers > 0) m.rUnlock() catch unreachable;
            }
        }
    };
    try run(S.main);
    try std.testing.expectError(error.Unlocked, S.m.unlock());
    try std.testing.expectError(error.Unlocked, S.m.rUnlock());
}

test "permits go to the waiters that came first, and past one that leaves" {
    const S = struct {
        var s: Semaphore = .{ .free = 5 };
        var waiters: [3]T = undefined;
        var order: [3]u64 = undefined;
        var n: usize = 0;

        fn wait(t: *T) void {
            if (s.acquire(&t.g, t.value, null) != .ready) return;
            order[n] = t.value;
            n += 1;
        }
        fn main(_: *T) void {
            if (!s.tryAcquire(3)) unreachable;
            for (&waiters, [_]u64{ 5, 1, 2 }) |*w, need| start(w, wait, need);
            sched();
            if (s.tryAcquire(1)) unreachable;
            if (!s.release(1)) unreachable;
            sched();
            if (n != 0) unreachable;
            interrupt(&waiters[0]);
            while (n < 2) sched();
        }
    };
    try run(S.main);
    try std.testing.expectEqualSlices(u64, &.{ 1, 2 }, S.order[0..2]);
    try expectEqual(0, S.s.free);
}

test "a full round of a barrier has passed, whichever goroutine is told to leave then" {
    const S = struct {
        var b: Barrier = .{ .parties = 3 };
        var parties: [2]T = undefined;
        var places: [2]?u64 = @splat(null);

        fn wait(t: *T) void {
            places[t.value] = switch (b.wait(&t.g, null)) {
                .place => |place| place,
                else => null,
            };
        }
        fn main(_: *T) void {
            for (&parties, 0..) |*p, i| start(p, wait, i);
            sched();
            interrupt(&parties[0]);
            if (b.complete().? != 2) unreachable;
            while (places[0] == null or places[1] == null) sched();
            if (b.broken) unreachable;
            // And one that leaves before breaks it.
            for (&parties, 0..) |*p, i| start(p, wait, i);
            sched();
            interrupt(&parties[0]);
            while (places[0] != null or places[1] != null) sched();
        }
    };
    try run(S.main);
    try expect(S.b.broken);
}

test "waiters of a run that has ended are forgotten" {
    const S = struct {
        var s: Semaphore = .{ .free = 1 };
        var left_behind: T = undefined;

        fn wait(t: *T) void {
            _ = s.acquire(&t.g, 1, null);
        }
        fn first(_: *T) void {
            if (!s.tryAcquire(1)) unreachable;
            start(&left_behind, wait, 0);
            sched();
        }
        fn second(_: *T) void {
            if (!s.release(1)) unreachable;
            if (!s.tryAcquire(1)) unreachable;
        }
    };
    try run(S.first);
    try expect(!S.s.queue.isEmpty());
    try run(S.second);
    try expect(S.s.queue.isEmpty());
    try expectEqual(.waiting, S.left_behind.g.status);
}
