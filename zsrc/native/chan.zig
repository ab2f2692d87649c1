//! Channels and select of the native lane, with the semantics of Go's runtime/chan.go and
//! select.go.
//!
//! A channel has a lock. An operation that has to wait queues itself and returns with the lock held
//! (`begin…`): the caller lets it go once its context is saved, so that nobody can wake what still
//! runs; a thread, or a goroutine of the Python lane, lets it go at once. A value goes straight
//! from a sender to a waiting receiver, into the memory the receiver named, past the buffer.
//!
//! select takes the locks of all its channels in the order of their addresses, as Go does, and is
//! queued on all of them at one instant. Whoever serves it first claims it (wait.zig); the
//! goroutine itself leaves the other queues when it runs again.
//!
//! Rt is what it runs on: `Rt.Env` and `Rt.wake(*Wait)`.
const std = @import("std");
const wait_mod = @import("wait.zig");
const Waiters = @import("../core/waiters.zig").Waiters;

pub const Result = enum { done, closed, waiting };

pub const largest_elem = 64 * 1024;
pub const most_cases = 1024;

pub fn Chan(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        pub const Wait = wait_mod.Wait(Env);
        /// What is sent, or where the received value goes; null for none.
        const Queue = Waiters(Rt, ?[*]u8);
        pub const Waiter = Queue.Waiter;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        lock: Env.Lock = .{},
        elem_size: u32,
        closed: bool = false,
        capacity: usize,
        count: usize = 0,
        /// Where the next value is put, and taken from.
        send_at: usize = 0,
        recv_at: usize = 0,
        buffer: [*]u8 = undefined,
        receivers: Queue = .{},
        senders: Queue = .{},

        inline fn copy(c: *Self, to: [*]u8, from: [*]const u8) void {
            Env.reads(from);
            Env.writes(to);
            if (c.elem_size == 8) {
                @as(*align(1) u64, @ptrCast(to)).* = @as(*align(1) const u64, @ptrCast(from)).*;
            } else @memcpy(to[0..c.elem_size], from[0..c.elem_size]);
        }

        inline fn slot(c: *Self, at: usize) [*]u8 {
            return c.buffer + at * c.elem_size;
        }

        inline fn put(c: *Self, from: [*]const u8) void {
            c.copy(c.slot(c.send_at), from);
            c.send_at += 1;
            if (c.send_at == c.capacity) c.send_at = 0;
            c.count += 1;
        }

        inline fn take(c: *Self, to: ?[*]u8) void {
            if (to) |out| c.copy(out, c.slot(c.recv_at));
            c.recv_at += 1;
            if (c.recv_at == c.capacity) c.recv_at = 0;
            c.count -= 1;
        }

        // ---- with the lock; who is to be woken comes back in `woken` ----

        pub inline fn trySend(c: *Self, from: [*]const u8, woken: *?*Wait) Result {
            if (c.closed) return .closed;
            if (!c.receivers.isEmpty()) {
                if (c.receivers.take(.ready)) |w| {
                    if (w.data) |to| c.copy(to, from);
                    woken.* = w.who;
                    return .done;
                }
            }
            if (c.count < c.capacity) {
                c.put(from);
                return .done;
            }
            return .waiting;
        }

        pub inline fn tryRecv(c: *Self, to: ?[*]u8, woken: *?*Wait) Result {
            if (c.count > 0) {
                c.take(to);
                // A sender that waits moves up into the free place.
                if (!c.senders.isEmpty()) {
                    if (c.senders.take(.ready)) |w| {
                        c.put(w.data.?);
                        woken.* = w.who;
                    }
                }
                return .done;
            }
            if (!c.senders.isEmpty()) {
                if (c.senders.take(.ready)) |w| {
                    if (to) |out| c.copy(out, w.data.?);
                    woken.* = w.who;
                    return .done;
                }
            }
            if (!c.closed) return .waiting;
            if (to) |out| @memset(out[0..c.elem_size], 0);
            return .closed;
        }

        // ---- operations ----

        /// Sends, or queues `w`, unless that is null, and returns `waiting` with the lock held.
        pub inline fn beginSend(c: *Self, from: [*]const u8, w: ?*Waiter) Result {
            var woken: ?*Wait = null;
            c.lock.lock();
            const result = c.trySend(from, &woken);
            if (result == .waiting) {
                if (w) |waiter| {
                    c.senders.push(waiter);
                    return .waiting;
                }
            }
            c.lock.unlock();
            if (woken) |other| Rt.wake(other);
            return result;
        }

        /// As beginSend, for receiving.
        pub inline fn beginRecv(c: *Self, to: ?[*]u8, w: ?*Waiter) Result {
            var woken: ?*Wait = null;
            c.lock.lock();
            const result = c.tryRecv(to, &woken);
            if (result == .waiting) {
                if (w) |waiter| {
                    c.receivers.push(waiter);
                    return .waiting;
                }
            }
            c.lock.unlock();
            if (woken) |other| Rt.wake(other);
            return result;
        }

        /// After a wait that its own timer or a cancellation has claimed.
        pub fn withdraw(c: *Self, comptime side: enum { send, recv }, w: *Waiter) void {
            c.lock.lock();
            (if (side == .send) &c.senders else &c.receivers).remove(w);
            c.lock.unlock();
        }

        /// False if it was closed before. Receivers that wait find it drained, senders fail.
        pub fn close(c: *Self) bool {
            var list: ?*Waiter = null;
            c.lock.lock();
            if (c.closed) {
                c.lock.unlock();
                return false;
            }
            c.closed = true;
            while (c.receivers.take(.closed)) |w| {
                if (w.data) |out| @memset(out[0..c.elem_size], 0);
                w.next = list;
                list = w;
            }
            while (if (planted == .close_leaves_senders) null else c.senders.take(.closed)) |w| {
                w.next = list;
                list = w;
            }
            c.lock.unlock();
            while (list) |w| {
                list = w.next;
                Rt.wake(w.who);
            }
            return true;
        }

        pub fn len(c: *Self) usize {
            c.lock.lock();
            defer c.lock.unlock();
            return c.count;
        }

        // ---- select ----

        pub const Case = struct {
            chan: ?*Self,
            send: bool,
            elem: ?[*]u8,
            closed: bool = false,
        };

        pub const Select = struct {
            cases: []Case,
            /// One a case, each, for `begin` to fill: what is queued, in which order the cases are
            /// looked at, and in which their channels are locked.
            waiters: []Waiter,
            look_order: []u16,
            lock_order: []u16,

            inline fn lockedAt(s: Select, at: usize) ?*Self {
                return s.cases[s.lock_order[at]].chan;
            }

            /// Sorts by the addresses of the channels; a few are the rule.
            fn order(s: Select) void {
                for (s.lock_order, 0..) |*place, i| place.* = @intCast(i);
                if (s.cases.len > 16) return std.mem.sortUnstable(u16, s.lock_order, s.cases, before);
                for (1..@max(1, s.cases.len)) |i| {
                    const moving = s.lock_order[i];
                    var at = i;
                    while (at > 0 and before(s.cases, moving, s.lock_order[at - 1])) : (at -= 1)
                        s.lock_order[at] = s.lock_order[at - 1];
                    s.lock_order[at] = moving;
                }
            }

            fn before(cases: []Case, a: u16, b: u16) bool {
                if (planted == .locks_as_given) return false;
                return @intFromPtr(cases[a].chan) < @intFromPtr(cases[b].chan);
            }

            /// Fisher and Yates; `random.random(n)` is a number below n.
            fn shuffle(s: Select, random: anytype) void {
                for (s.look_order, 0..) |*place, i| {
                    const j = random.random(@intCast(i + 1));
                    place.* = s.look_order[j];
                    s.look_order[j] = @intCast(i);
                }
            }

            fn lockAll(s: Select) void {
                var last: ?*Self = null;
                for (0..s.cases.len) |at| {
                    const c = s.lockedAt(at) orelse continue;
                    if (c == last) continue;
                    c.lock.lock();
                    last = c;
                }
            }

            /// Whether `begin` has locked anything.
            pub fn hasChannel(s: Select) bool {
                // Cases without a channel come before all others.
                return s.cases.len > 0 and s.lockedAt(s.cases.len - 1) != null;
            }

            pub fn unlockAll(s: Select) void {
                // A channel that comes twice is let go once. Nothing of the select may be read
                // after the last: somebody may have woken it by then.
                var at = s.cases.len;
                var next: ?*Self = null;
                while (at > 0) {
                    at -= 1;
                    const c = s.lockedAt(at) orelse break;
                    next = if (at > 0) s.lockedAt(at - 1) else null;
                    if (c != next) c.lock.unlock();
                    if (next == null) break;
                }
            }

            /// Does one of the cases that can go on, each with the same probability; or queues
            /// `wait` on all of them and returns `waiting` with all locks held, or with `wait` null
            /// `would_block`.
            pub fn begin(s: Select, wait: ?*Wait, random: anytype) union(enum) {
                chosen: u32,
                would_block,
                waiting,
            } {
                s.order();
                s.shuffle(random);
                s.lockAll();
                var woken: ?*Wait = null;
                for (s.look_order) |at| {
                    const case = &s.cases[at];
                    const c = case.chan orelse continue;
                    const result = if (case.send)
                        c.trySend(case.elem orelse &nothing, &woken)
                    else
                        c.tryRecv(case.elem, &woken);
                    if (result == .waiting) continue;
                    case.closed = result == .closed;
                    s.unlockAll();
                    if (woken) |other| Rt.wake(other);
                    return .{ .chosen = at };
                }
                const waits = wait orelse {
                    s.unlockAll();
                    return .would_block;
                };
                for (s.cases, s.waiters) |*case, *waiter| {
                    const c = case.chan orelse continue;
                    waiter.* = .{
                        .who = waits,
                        .data = if (case.send) case.elem orelse &nothing else case.elem,
                    };
                    (if (case.send) &c.senders else &c.receivers).push(waiter);
                }
                return .waiting;
            }

            /// The index of the case that ended the wait.
            pub fn fired(s: Select, wait: *Wait) u32 {
                const at: *Waiter = @ptrCast(@alignCast(wait.fired.?));
                return @intCast(at - s.waiters.ptr);
            }

            /// After the wait: leaves the queues.
            pub fn end(s: Select) void {
                if (planted == .stays_queued) return;
                s.lockAll();
                for (s.cases, s.waiters) |*case, *waiter| {
                    const c = case.chan orelse continue;
                    (if (case.send) &c.senders else &c.receivers).remove(waiter);
                }
                s.unlockAll();
            }
        };

        /// What a channel of elements without size sends.
        var nothing: [1]u8 = .{0};
    };
}
