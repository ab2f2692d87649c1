//! Cond, WaitGroup and Semaphore, waited for by goroutines and by threads at a time, with deadlines
//! and without.
const std = @import("std");
const check = @import("../explorer.zig");
const Lane = @import("lane.zig").Lane;

/// Who takes part: goroutines on one P, or on two.
fn Parts(comptime Sim: type, comptime procs: u32) type {
    return struct {
        pub const L = Lane(Sim, .{ .procs = procs });
        pub const switching = L.switching;
        pub const sync = L.sync;

        /// Runs `function(m, g)` as a goroutine's body.
        pub fn body(comptime Model: type, comptime function: fn (*Model, ?*L.G) void) L.Function {
            return struct {
                fn run(raw: ?*anyopaque) callconv(.c) void {
                    const g = switching.enter().?;
                    function(@ptrCast(@alignCast(raw.?)), g);
                    switching.leave(g);
                }
            }.run;
        }
    };
}

/// A goroutine waits for a token with a deadline, a thread without, or the other way round; two are
/// given, with a signal each. Who has no deadline gets one, whatever becomes of the other.
fn Tokens(comptime Sim: type, comptime patient: enum { goroutine, thread }) type {
    return struct {
        const Self = @This();
        const W = Parts(Sim, 1);
        const L = W.L;
        pub const threads = .{ .{ "waits", thread }, .{ "gives", gives } };

        mutex: W.sync.Mutex = .{},
        cond: W.sync.Cond = .{},
        tokens: u32 = 0,
        taken: u32 = 0,
        given_up: u32 = 0,

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{L.make(W.body(Self, goroutine), m)});
        }

        fn goroutine(m: *Self, g: ?*L.G) void {
            m.take(g, if (patient == .goroutine) null else 5);
        }

        fn thread(m: *Self) void {
            m.take(null, if (patient == .thread) null else 5);
        }

        fn take(m: *Self, g: ?*L.G, deadline: ?u64) void {
            m.mutex.lock(g);
            while (m.tokens == 0) {
                const wake = m.cond.wait(g, &m.mutex, deadline).?;
                m.mutex.lock(g);
                if (wake == .ready) continue;
                check.expect(wake == .timeout and deadline != null, "only a deadline ends it");
                break;
            }
            Sim.writes(&m.tokens);
            if (m.tokens > 0) {
                m.tokens -= 1;
                m.taken += 1;
            } else m.given_up += 1;
            check.expect(m.mutex.unlock(), "it is locked after a wait");
        }

        fn gives(m: *Self) void {
            for (0..2) |_| {
                m.mutex.lock(null);
                Sim.writes(&m.tokens);
                m.tokens += 1;
                check.expect(m.mutex.unlock(), "it is locked");
                m.cond.signal();
            }
        }

        pub fn rests(m: *Self) bool {
            return L.rests() and m.taken + m.given_up == 2;
        }

        pub fn end(m: *Self) void {
            L.end();
            check.expect(m.taken + m.tokens == 2, "a token is lost");
            check.expect(m.taken + m.given_up == 2, "both have ended");
            check.expect(m.cond.queue.isEmpty(), "nobody is queued");
            check.expect(!m.mutex.isLocked(), "the mutex is open");
        }
    };
}

pub fn CondThread(comptime Sim: type) type {
    return Tokens(Sim, .thread);
}

pub fn CondGoroutine(comptime Sim: type) type {
    return Tokens(Sim, .goroutine);
}

/// A wait returns after a signal or a broadcast, never before: a goroutine and a thread wait once
/// each.
pub fn CondOnce(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const W = Parts(Sim, 1);
        const L = W.L;
        pub const threads = .{ .{ "waits", thread }, .{ "wakes", wakes } };

        mutex: W.sync.Mutex = .{},
        cond: W.sync.Cond = .{},
        waiting: u32 = 0,
        /// How many may return.
        allowed: u32 = 0,
        returned: u32 = 0,

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{L.make(W.body(Self, once), m)});
        }

        fn thread(m: *Self) void {
            m.once(null);
        }

        fn once(m: *Self, g: ?*L.G) void {
            m.mutex.lock(g);
            m.waiting += 1;
            const wake = m.cond.wait(g, &m.mutex, null).?;
            check.expect(wake == .ready, "without a deadline it is woken");
            m.mutex.lock(g);
            m.returned += 1;
            check.expect(m.returned <= m.allowed, "a wait returns early");
            check.expect(m.mutex.unlock(), "it is locked after a wait");
        }

        fn wakes(m: *Self) void {
            var rest: u32 = 2;
            while (rest > 0) {
                m.mutex.lock(null);
                const n = @min(m.waiting, rest);
                m.waiting -= n;
                m.allowed += n;
                rest -= n;
                if (n == 2) m.cond.broadcast() else if (n == 1) m.cond.signal();
                check.expect(m.mutex.unlock(), "it is locked");
                if (n == 0) Sim.spin();
            }
        }

        pub fn rests(m: *Self) bool {
            return L.rests() and m.returned == 2;
        }

        pub fn end(m: *Self) void {
            L.end();
            check.expect(m.returned == 2, "both have returned");
        }
    };
}

/// A goroutine waits for two parts of work, one done by a goroutine and one by a thread, while
/// another thread waits with a deadline. Then the group is used again; and when its last wait has
/// returned, it is the waiter's to free.
fn Work(comptime Sim: type, comptime procs: u32, comptime reused: bool) type {
    return struct {
        const Self = @This();
        const W = Parts(Sim, procs);
        const L = W.L;
        pub const threads = if (reused) .{.{ "part", part }} else .{
            .{ "part", part },
            .{ "hurries", hurries },
        };

        group: W.sync.WaitGroup = .{},
        done: Sim.Atomic(u32) = .init(0),
        hurried: bool = reused,
        freed: bool = false,

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            m.group.count = 2;
            const waiter = L.make(W.body(Self, waits), m);
            const worker = L.make(W.body(Self, works), m);
            if (procs == 1) return L.startM(&.{ waiter, worker });
            L.startM(&.{waiter});
            L.startM(&.{worker});
        }

        fn waits(m: *Self, g: ?*L.G) void {
            check.expect(m.group.wait(g, null) == .ready, "without a deadline it waits");
            check.expect(m.done.load(.acquire) == 2, "a wait returns before the work is done");
            if (!reused) return;
            m.group.add(1) catch unreachable;
            L.go(W.body(Self, works), m);
            check.expect(m.group.wait(g, null) == .ready, "without a deadline it waits");
            check.expect(m.done.load(.acquire) == 3, "a wait returns before the work is done");
            // Whoever writes to it now writes to what is another's.
            m.freed = true;
            m.group.lock.held = 1;
        }

        fn works(m: *Self, _: ?*L.G) void {
            m.finish();
        }

        fn part(m: *Self) void {
            m.finish();
        }

        fn finish(m: *Self) void {
            _ = m.done.fetchAdd(1, .release);
            m.group.add(-1) catch check.fail("the count is above zero", .{});
        }

        fn hurries(m: *Self) void {
            if (m.group.wait(null, 5) == .ready)
                check.expect(m.done.load(.acquire) == 2, "a wait returns before the work is done");
            m.hurried = true;
        }

        pub fn rests(m: *Self) bool {
            return L.rests() and m.hurried;
        }

        pub fn end(m: *Self) void {
            L.end();
            check.expect(m.hurried, "all have ended");
            check.expect(m.group.queue.isEmpty(), "nobody is queued");
            check.expect(m.freed == reused, "it was freed");
            check.expect(
                m.group.lock.held == @intFromBool(reused),
                "somebody writes to it that is gone",
            );
        }
    };
}

pub fn WaitGroup(comptime Sim: type) type {
    return Work(Sim, 1, false);
}

pub fn WaitGroupReused(comptime Sim: type) type {
    return Work(Sim, 2, true);
}

/// One permit, for which a goroutine and a thread compete with deadlines and a thread without.
pub fn Semaphore(comptime Sim: type) type {
    return struct {
        const Self = @This();
        const W = Parts(Sim, 1);
        const L = W.L;
        pub const threads = .{ .{ "patient", patient }, .{ "hurries", hurries } };

        semaphore: W.sync.Semaphore = .{ .free = 1 },
        inside: u32 = 0,
        times: u32 = 0,
        given_up: u32 = 0,

        pub fn init(m: *Self, _: std.mem.Allocator) !void {
            L.start();
            L.startM(&.{L.make(W.body(Self, goroutine), m)});
        }

        fn goroutine(m: *Self, g: ?*L.G) void {
            m.enter(g, 5);
        }

        fn patient(m: *Self) void {
            m.enter(null, null);
        }

        fn hurries(m: *Self) void {
            m.enter(null, 5);
        }

        fn enter(m: *Self, g: ?*L.G, deadline: ?u64) void {
            if (m.semaphore.acquire(g, 1, deadline) != .ready) {
                check.expect(deadline != null, "only a deadline ends a wait");
                m.given_up += 1;
                return;
            }
            m.inside += 1;
            check.expect(m.inside == 1, "two have the one permit");
            Sim.writes(&m.times);
            m.times += 1;
            Sim.yieldPoint();
            m.inside -= 1;
            if (!m.semaphore.release(1)) unreachable;
        }

        pub fn rests(m: *Self) bool {
            return L.rests() and m.times + m.given_up == 3;
        }

        pub fn end(m: *Self) void {
            L.end();
            check.expect(m.times + m.given_up == 3, "all have ended");
            check.expect(m.semaphore.free == 1, "the permit is there again, once");
            check.expect(m.semaphore.queue.isEmpty(), "nobody is queued");
        }
    };
}
