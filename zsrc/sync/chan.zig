//! Channels, with the semantics of Go's runtime/chan.go; select.zig waits on several.
//!
//! A value goes straight from a sender to a waiting receiver, into the memory that the receiver
//! named, past the buffer. Waiters lie on the stacks of the goroutines that wait
//! (core/waiters.zig). The goroutine that has claimed one copies the value under the channel's
//! lock, lets the lock go, and then wakes the waiter's owner.
//!
//! An operation that has to wait is queued under the lock with which it looked, and the lock is let
//! go once the context of its goroutine is saved: no other can wake what still runs, and nothing
//! can change between the look and the queueing.
//!
//! An element is a T, a plain value such as a pointer; or, without a T, so many bytes as the
//! channel says when it is made. The layer above owns what it refers to. `Rt` is what channels run
//! on; where its lock has no code, what is said about locks costs nothing.
const std = @import("std");
const Waiters = @import("../core/waiters.zig").Waiters;
const wait = @import("../core/wait.zig");
const Wake = wait.Wake;
const WaitReason = wait.WaitReason;

/// First how a wait can have ended, as `Wake` has it.
pub const Outcome = enum(u8) { done, closed, timeout, interrupted, would_block };
pub const Side = enum { send, recv };

/// Of bytes.
pub const largest_elem = 64 * 1024;

pub inline fn outcomeOf(wake: Wake) Outcome {
    comptime {
        const pairs = .{ .{ Wake.ready, Outcome.done }, .{ Wake.closed, Outcome.closed } } ++
            .{ .{ Wake.timeout, Outcome.timeout }, .{ Wake.interrupted, Outcome.interrupted } };
        for (pairs) |pair| std.debug.assert(@backingInt(pair[0]) == @backingInt(pair[1]));
    }
    return @fromBackingInt(@backingInt(wake));
}

pub fn Chan(comptime Rt: type, comptime T: ?type) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;
        const is_bytes = T == null;
        /// Of what is sent, or where the received goes; null throws that away.
        pub const Place = if (T) |Elem| *Elem else ?[*]u8;
        const Queue = Waiters(Rt, Place);
        pub const Waiter = Queue.Waiter;

        lock: Env.Lock = .{},
        elem_size: if (is_bytes) u32 else void = if (is_bytes) 0 else {},
        closed: bool = false,
        capacity: usize = 0,
        count: usize = 0,
        /// Where the next value is put, and taken from.
        send_at: usize = 0,
        recv_at: usize = 0,
        buffer: [*]if (is_bytes) u8 else T.? = undefined,
        receivers: Queue = .{},
        senders: Queue = .{},

        inline fn copy(c: *Self, to: Place, from: Place) void {
            if (!is_bytes) {
                to.* = from.*;
                return;
            }
            const out = to orelse return;
            const in = from.?;
            Env.reads(in);
            Env.writes(out);
            if (c.elem_size == 8) {
                @as(*align(1) u64, @ptrCast(out)).* = @as(*align(1) const u64, @ptrCast(in)).*;
            } else @memcpy(out[0..c.elem_size], in[0..c.elem_size]);
        }

        inline fn zero(c: *Self, to: Place) void {
            if (is_bytes) if (to) |out| @memset(out[0..c.elem_size], 0);
        }

        inline fn slot(c: *Self, at: usize) Place {
            return if (is_bytes) c.buffer + at * c.elem_size else &c.buffer[at];
        }

        /// Of the values in the buffer the one that comes in that place, from 0.
        pub fn buffered(c: *Self, index: usize) Place {
            return c.slot((c.recv_at + index) % c.capacity);
        }

        inline fn put(c: *Self, from: Place) void {
            c.copy(c.slot(c.send_at), from);
            c.send_at += 1;
            if (c.send_at == c.capacity) c.send_at = 0;
            c.count += 1;
        }

        /// Takes a value out of a buffer that has one, past the goroutines that wait.
        pub inline fn take(c: *Self, to: Place) void {
            c.copy(to, c.slot(c.recv_at));
            c.recv_at += 1;
            if (c.recv_at == c.capacity) c.recv_at = 0;
            c.count -= 1;
        }

        inline fn queue(c: *Self, side: Side) *Queue {
            return if (side == .send) &c.senders else &c.receivers;
        }

        // ---- with the lock; `woken` gets the waiters to wake once it has been let go ----

        /// Does it if that can be done at once. A receive that is `closed` has drained the channel.
        pub inline fn attempt(c: *Self, side: Side, elem: Place, woken: *?Rt.Who) Outcome {
            return if (side == .send) c.trySend(elem, woken) else c.tryRecv(elem, woken);
        }

        inline fn trySend(c: *Self, from: Place, woken: *?Rt.Who) Outcome {
            if (c.closed) return .closed;
            if (!c.receivers.isEmpty()) {
                if (c.receivers.take(.ready)) |w| {
                    c.copy(w.data, from);
                    woken.* = w.who;
                    return .done;
                }
            }
            if (c.count < c.capacity) {
                c.put(from);
                return .done;
            }
            return .would_block;
        }

        inline fn tryRecv(c: *Self, to: Place, woken: *?Rt.Who) Outcome {
            if (c.count > 0) {
                c.take(to);
                // A sender that waits moves up into the free place.
                if (!c.senders.isEmpty()) {
                    if (c.senders.take(.ready)) |w| {
                        c.put(w.data);
                        woken.* = w.who;
                    }
                }
                return .done;
            }
            if (!c.senders.isEmpty()) {
                if (c.senders.take(.ready)) |w| {
                    c.copy(to, w.data);
                    woken.* = w.who;
                    return .done;
                }
            }
            if (!c.closed) return .would_block;
            c.zero(to);
            return .closed;
        }

        pub inline fn enqueue(c: *Self, side: Side, w: *Waiter) void {
            c.queue(side).push(w);
        }

        // ---- operations ----

        inline fn leave(c: *Self, outcome: Outcome, woken: ?Rt.Who) Outcome {
            c.lock.unlock();
            if (woken) |other| Rt.wake(other);
            return outcome;
        }

        /// Without waiting.
        pub inline fn now(c: *Self, comptime side: Side, elem: Place) Outcome {
            var woken: ?Rt.Who = null;
            c.lock.lock();
            const outcome = c.attempt(side, elem, &woken);
            return c.leave(outcome, woken);
        }

        /// As `now`; or queues `w` and returns `would_block` with the lock.
        pub inline fn begin(c: *Self, comptime side: Side, elem: Place, w: *Waiter) Outcome {
            var woken: ?Rt.Who = null;
            c.lock.lock();
            const outcome = c.attempt(side, elem, &woken);
            if (outcome != .would_block) return c.leave(outcome, woken);
            c.enqueue(side, w);
            return .would_block;
        }

        /// For a waiter that was claimed by others than the channel.
        pub fn withdraw(c: *Self, side: Side, w: *Waiter) void {
            c.lock.lock();
            c.queue(side).remove(w);
            c.lock.unlock();
        }

        /// Waits until it is done, or until the deadline, which `would_block` says if it is 0.
        pub inline fn transfer(
            c: *Self,
            comptime side: Side,
            elem: Place,
            me: Rt.Me,
            deadline: ?u64,
        ) Outcome {
            var woken: ?Rt.Who = null;
            c.lock.lock();
            const outcome = c.attempt(side, elem, &woken);
            if (outcome != .would_block or deadline == 0) return c.leave(outcome, woken);
            return c.block(side, elem, me, deadline);
        }

        /// Waits for what could not be done at once, with the lock since then.
        pub inline fn block(
            c: *Self,
            comptime side: Side,
            elem: Place,
            me: Rt.Me,
            deadline: ?u64,
        ) Outcome {
            var w: Waiter = undefined; // what queues it sets the rest
            w.data = elem;
            const reason: WaitReason = if (side == .send) .chan_send else .chan_receive;
            return outcomeOf(c.queue(side).wait(&c.lock, &w, me, reason, deadline));
        }

        /// As `block` without a deadline: see Waiters.waitHere.
        pub inline fn blockHere(
            c: *Self,
            comptime side: Side,
            elem: Place,
            me: Rt.Me,
        ) Outcome {
            var w: Waiter = undefined; // as in `block`
            w.data = elem;
            const reason: WaitReason = if (side == .send) .chan_send else .chan_receive;
            return outcomeOf(c.queue(side).waitHere(&c.lock, &w, me, reason));
        }

        /// False if it was closed before. Receivers that wait find it drained, senders fail.
        pub fn close(c: *Self) bool {
            c.lock.lock();
            if (c.closed) {
                c.lock.unlock();
                return false;
            }
            c.closed = true;
            var woken: Queue.List = .{};
            c.receivers.claimAll(.closed, &woken);
            if (is_bytes) {
                var it = woken.head;
                while (it) |w| : (it = w.next) c.zero(w.data);
            }
            if (planted != .close_leaves_senders) c.senders.claimAll(.closed, &woken);
            c.lock.unlock();
            Queue.wakeAll(woken);
            return true;
        }

        pub fn len(c: *Self) usize {
            c.lock.lock();
            defer c.lock.unlock();
            return c.count;
        }

        pub fn isClosed(c: *Self) bool {
            c.lock.lock();
            defer c.lock.unlock();
            return c.closed;
        }

        /// Whether `now` may do something; where that depends on a waiter, it may have left.
        pub fn may(c: *const Self, side: Side) bool {
            if (c.closed) return true;
            if (side == .send) return c.count < c.capacity or !c.receivers.isEmpty();
            return c.count > 0 or !c.senders.isEmpty();
        }

        /// Of a select, with `guard.woken` for the waiters to wake. Without a channel it never can
        /// go on.
        pub const Case = struct {
            chan: ?*Self,
            side: Side,
            elem: Place,
            waiter: Waiter = .{},

            pub inline fn poll(case: *Case, guard: anytype) Outcome {
                const c = case.chan orelse return .would_block;
                return c.attempt(case.side, case.elem, &guard.woken);
            }

            pub inline fn enqueue(case: *Case, who: Rt.Who) void {
                const c = case.chan orelse return;
                case.waiter = .{ .who = who, .data = case.elem };
                c.enqueue(case.side, &case.waiter);
            }

            pub inline fn dequeue(case: *Case) void {
                if (planted == .stays_queued) return;
                if (case.chan) |c| c.withdraw(case.side, &case.waiter);
            }

            pub inline fn finish(_: *Case, wake: Wake) Outcome {
                return outcomeOf(wake);
            }
        };
    };
}
