//! Mutex, Cond, WaitGroup and Semaphore of the native lane. All start as zeroes.
//!
//! Each has a short lock and a queue of waiters, first come, first served. The mutex, which also the
//! explorer runs, is in mutex.zig.
const std = @import("std");
const wait_mod = @import("wait.zig");
const switching = @import("switching.zig");
const lane = @import("lane.zig");

const Env = lane.Env;
const List = wait_mod.WaiterList(Env);
const Waiter = wait_mod.Waiter(Env);
const Wait = wait_mod.Wait(Env);
const Blocker = switching.Blocker;
const G = lane.G;

pub const Error = error{ Timeout, Invalid };

pub fn unlockList(raw: *anyopaque) bool {
    const l: *Env.Lock = @ptrCast(@alignCast(raw));
    l.unlock();
    return true;
}

/// What the mutex runs on.
const Runtime = struct {
    pub const Env = lane.Env;
    pub const G = lane.G;
    pub const Blocker = switching.Blocker;
    pub const wake = switching.Rt.wake;
};

pub const Mutex = @import("mutex.zig").Mutex(Runtime);

comptime {
    std.debug.assert(@sizeOf(Env.Lock) == 4 and @sizeOf(List) == 16);
    // golibx.h's: memory of zeroes.
    std.debug.assert(@sizeOf(Mutex) == 32 and @alignOf(Mutex) == 8);
}

/// A lock and a queue, of which a count is what they wait for.
fn Queue(comptime Count: type) type {
    return extern struct {
        const Self = @This();

        guard: u32 = 0,
        unused: u32 = 0,
        count: Count = 0,
        head: ?*anyopaque = null,
        tail: ?*anyopaque = null,

        comptime {
            std.debug.assert(@sizeOf(Self) == 32);
        }

        inline fn lockOf(q: *Self) *Env.Lock {
            return @ptrCast(&q.guard);
        }

        inline fn list(q: *Self) *List {
            return @ptrCast(&q.head);
        }

        /// With the lock, which it lets go.
        fn wait(q: *Self, g: ?*G, reason: @import("../sched/g.zig").WaitReason, deadline: ?u64) Error!void {
            if (deadline == 0) {
                q.lockOf().unlock();
                return error.Timeout;
            }
            var b: Blocker = undefined;
            b.init(g, deadline != null);
            var w: Waiter = .{ .wait = &b.wait };
            q.list().push(&w);
            if (b.block(reason, deadline, unlockList, q.lockOf()) == .served) return;
            q.lockOf().lock();
            q.list().remove(&w);
            q.lockOf().unlock();
            return error.Timeout;
        }

        /// With the lock, which it lets go: wakes all.
        fn wakeAll(q: *Self) void {
            var woken: ?*Waiter = null;
            while (q.list().pop(.served)) |w| {
                w.next = woken;
                woken = w;
            }
            q.lockOf().unlock();
            // Those that came first are woken last, so run first: the last one made ready is next.
            while (woken) |w| {
                woken = w.next;
                switching.Rt.wake(w.wait);
            }
        }
    };
}

pub const Cond = extern struct {
    q: Queue(u64) = .{},

    /// With `m` locked, which it is again afterwards.
    pub fn wait(c: *Cond, g: ?*G, m: *Mutex, deadline: ?u64) Error!void {
        c.q.lockOf().lock();
        // Unlocking only now: a signal that the next owner sends has to wait for the queue.
        if (!m.unlock()) {
            c.q.lockOf().unlock();
            return error.Invalid;
        }
        defer m.lock(g);
        return c.q.wait(g, .lock, deadline);
    }

    pub fn signal(c: *Cond) void {
        c.q.lockOf().lock();
        const w = c.q.list().pop(.served);
        c.q.lockOf().unlock();
        if (w) |first| switching.Rt.wake(first.wait);
    }

    pub fn broadcast(c: *Cond) void {
        c.q.lockOf().lock();
        c.q.wakeAll();
    }
};

pub const WaitGroup = extern struct {
    q: Queue(i64) = .{},

    pub fn add(w: *WaitGroup, delta: i64) Error!void {
        w.q.lockOf().lock();
        const sum, const overflow = @addWithOverflow(w.q.count, delta);
        if (overflow != 0 or sum < 0) {
            w.q.lockOf().unlock();
            return error.Invalid;
        }
        w.q.count = sum;
        if (sum == 0) w.q.wakeAll() else w.q.lockOf().unlock();
    }

    pub fn wait(w: *WaitGroup, g: ?*G, deadline: ?u64) Error!void {
        w.q.lockOf().lock();
        if (w.q.count == 0) return w.q.lockOf().unlock();
        return w.q.wait(g, .wait_group, deadline);
    }
};

pub const Semaphore = extern struct {
    q: Queue(u64) = .{},

    pub fn acquire(s: *Semaphore, g: ?*G, deadline: ?u64) Error!void {
        s.q.lockOf().lock();
        // Those that wait already come first.
        if (s.q.count > 0 and s.q.list().head == null) {
            s.q.count -= 1;
            return s.q.lockOf().unlock();
        }
        return s.q.wait(g, .lock, deadline);
    }

    pub fn release(s: *Semaphore) void {
        s.q.lockOf().lock();
        const w = s.q.list().pop(.served) orelse {
            s.q.count += 1;
            return s.q.lockOf().unlock();
        };
        s.q.lockOf().unlock();
        switching.Rt.wake(w.wait);
    }
};
