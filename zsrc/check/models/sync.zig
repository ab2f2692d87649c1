//! The mutex and the token: no waiter is forgotten, one at a time is inside, a wake-up is not lost.
const std = @import("std");
const check = @import("../explorer.zig");
const Rt = @import("threads.zig").Rt;
const mutex = @import("../../sync/mutex.zig");
const token = @import("../../parallel/token.zig");

/// So many threads, of which the first comes twice. If `late`, time passes while the mutex is held,
/// so that a waiter is given it.
fn Mutual(comptime Sim: type, comptime late: bool) type {
    return struct {
        mutex: mutex.Mutex(Rt(Sim)) = .{},
        inside: u32 = 0,
        times: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "a", twice }, .{ "b", enter }, .{ "c", enter } };

        fn twice(m: *Self) void {
            m.enter();
            m.enter();
        }

        fn enter(m: *Self) void {
            m.mutex.lock(null);
            m.inside += 1;
            check.expect(m.inside == 1, "two are inside");
            Sim.writes(&m.times);
            m.times += 1;
            Sim.yieldPoint();
            if (late) Sim.advance(2_000_000);
            m.inside -= 1;
            check.expect(m.mutex.unlock(), "it is locked");
        }

        pub fn end(m: *Self) void {
            check.expect(m.times == 4, "each was inside");
            check.expect(m.mutex.state.raw == 0 and m.mutex.queue.isEmpty(), "it is open");
        }
    };
}

pub fn Mutex(comptime Sim: type) type {
    return Mutual(Sim, false);
}

pub fn MutexLate(comptime Sim: type) type {
    return Mutual(Sim, true);
}

/// One that is woken and finds the mutex locked leaves: the next gets it all the same.
pub fn MutexLeft(comptime Sim: type) type {
    return struct {
        mutex: mutex.Mutex(Rt(Sim)) = .{},
        times: u32 = 0,
        left: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "a", twice }, .{ "b", leaves }, .{ "c", enter } };

        fn twice(m: *Self) void {
            m.enter();
            m.enter();
        }

        fn enter(m: *Self) void {
            m.mutex.lock(null);
            m.use();
        }

        fn use(m: *Self) void {
            Sim.writes(&m.times);
            m.times += 1;
            Sim.yieldPoint();
            check.expect(m.mutex.unlock(), "it is locked");
        }

        fn leaves(m: *Self) void {
            var since: u64 = 0;
            if (m.mutex.tryLock() or m.mutex.wait(null, &since, 5) == .locked) return m.use();
            m.left = 1;
        }

        pub fn end(m: *Self) void {
            check.expect(m.times + m.left == 4, "each was inside, or has left");
            check.expect(!m.mutex.isLocked() and m.mutex.queue.isEmpty(), "it is open");
        }
    };
}

/// A goroutine parks, with a deadline or without, and others wake it: as often as there are
/// wake-ups, if none of them meets another.
fn Parking(comptime Sim: type, comptime deadline: ?u64) type {
    return struct {
        token: token.Token(Sim) = .{},
        /// What the one that wakes has done before.
        given: Sim.Atomic(u32) = .init(0),
        taken: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "parks", parks }, .{ "wakes", wakes }, .{ "also_wakes", wakes } };

        fn park(m: *Self, until: ?u64) bool {
            var b: Rt(Sim).Blocker = undefined;
            b.init(null, until != null);
            switch (m.token.begin(b.who())) {
                .woken => return true,
                .would_block => unreachable,
                .waiting => {},
            }
            if (b.block(.lock, until, unlock, &m.token.lock) == .ready) return true;
            return m.token.end();
        }

        fn unlock(raw: *anyopaque) bool {
            const l: *Sim.Lock = @ptrCast(@alignCast(raw));
            l.unlock();
            return true;
        }

        fn parks(m: *Self) void {
            // A wake-up that comes after a time-out stays for the next wait.
            if (deadline) |until| {
                if (m.park(until)) m.taken += m.given.swap(0, .acquire);
            }
            while (m.taken < 2) {
                check.expect(m.park(null), "without a deadline it is woken");
                m.taken += m.given.swap(0, .acquire);
            }
        }

        fn wakes(m: *Self) void {
            _ = m.given.fetchAdd(1, .release);
            if (m.token.ready()) |w| Rt(Sim).wake(w);
        }
    };
}

pub fn Park(comptime Sim: type) type {
    return Parking(Sim, null);
}

pub fn ParkUntil(comptime Sim: type) type {
    return Parking(Sim, 5);
}
