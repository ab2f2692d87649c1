//! Cond, WaitGroup and Semaphore of the native lane. All start as zeroes.
//!
//! Each has a short lock and a queue of waiters, first come, first served; the mutex is in
//! mutex.zig. Who signals takes a waiter out of the queue and claims it (wait.zig) under that lock:
//! one whose deadline was quicker does not count, and the next is taken, so that no signal and no
//! permit is lost to who has given up. After the lock is let go, nothing but the waiters taken is
//! touched: they may free what they waited for.
//!
//! Rt is what they run on, as in mutex.zig.
const std = @import("std");
const Waiters = @import("../core/waiters.zig").Waiters;
const mutex = @import("mutex.zig");
const WaitReason = @import("../sched/g.zig").WaitReason;

pub const Error = error{ Timeout, Invalid };

pub fn Primitives(comptime Rt: type) type {
    return struct {
        const Env = Rt.Env;
        const Me = Rt.Me;
        const List = Waiters(Rt, void);
        const Waiter = List.Waiter;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        pub const Mutex = mutex.Mutex(Rt);

        pub fn unlockGuard(raw: *anyopaque) bool {
            const l: *Env.Lock = @ptrCast(@alignCast(raw));
            l.unlock();
            return true;
        }

        /// A lock and a queue, of which a count is what they wait for.
        fn Queue(comptime Count: type) type {
            return struct {
                const Self = @This();

                guard: Env.Lock = .{},
                count: Count = 0,
                list: List = .{},

                /// With the lock, which it lets go.
                fn wait(q: *Self, g: Me, reason: WaitReason, deadline: ?u64) Error!void {
                    if (deadline == 0) {
                        q.guard.unlock();
                        return error.Timeout;
                    }
                    var w: Waiter = .{};
                    if (q.list.wait(&q.guard, &w, g, reason, deadline) == .ready) return;
                    return error.Timeout;
                }

                /// With the lock, which it lets go: wakes all.
                fn wakeAll(q: *Self) void {
                    q.list.end(&q.guard, .ready);
                }
            };
        }

        pub const Cond = struct {
            q: Queue(u64) = .{},

            /// With `m` locked, which it is again afterwards.
            pub fn wait(c: *Cond, g: Me, m: *Mutex, deadline: ?u64) Error!void {
                if (planted == .unlocks_before_it_queues) _ = m.unlock();
                c.q.guard.lock();
                // Unlocking only now: a signal that the next owner sends has to wait for the queue.
                if (planted != .unlocks_before_it_queues and !m.unlock()) {
                    c.q.guard.unlock();
                    return error.Invalid;
                }
                defer m.lock(g);
                return c.q.wait(g, .cond_wait, deadline);
            }

            pub fn signal(c: *Cond) void {
                c.q.guard.lock();
                const w = c.q.list.take(.ready);
                c.q.guard.unlock();
                if (w) |first| Rt.wake(first.who);
            }

            pub fn broadcast(c: *Cond) void {
                c.q.guard.lock();
                c.q.wakeAll();
            }
        };

        pub const WaitGroup = struct {
            q: Queue(i64) = .{},

            pub fn add(w: *WaitGroup, delta: i64) Error!void {
                w.q.guard.lock();
                const sum, const overflow = @addWithOverflow(w.q.count, delta);
                if (overflow != 0 or sum < 0) {
                    w.q.guard.unlock();
                    return error.Invalid;
                }
                w.q.count = sum;
                if (sum == 0) w.q.wakeAll() else w.q.guard.unlock();
            }

            pub fn wait(w: *WaitGroup, g: Me, deadline: ?u64) Error!void {
                w.q.guard.lock();
                if (w.q.count == 0) return w.q.guard.unlock();
                return w.q.wait(g, .wait_group, deadline);
            }
        };

        pub const Semaphore = struct {
            q: Queue(u64) = .{},

            pub fn acquire(s: *Semaphore, g: Me, deadline: ?u64) Error!void {
                s.q.guard.lock();
                // Those that wait already come first.
                if (s.q.count > 0 and s.q.list.isEmpty()) {
                    s.q.count -= 1;
                    return s.q.guard.unlock();
                }
                return s.q.wait(g, .semacquire, deadline);
            }

            pub fn release(s: *Semaphore) void {
                s.q.guard.lock();
                const w = s.q.list.take(.ready) orelse {
                    s.q.count += 1;
                    return s.q.guard.unlock();
                };
                s.q.guard.unlock();
                Rt.wake(w.who);
            }
        };
    };
}
