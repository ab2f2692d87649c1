//! Channels, with the semantics of Go's runtime/chan.go; select.zig waits on several.
//!
//! A value goes straight from a sender to a waiting receiver, past the buffer. Waiters lie on the
//! stacks of their goroutines and are served first come, first served; who is woken is decided by
//! `Lane.claim`, so that a time-out or a cancellation and a hand-over exclude each other. A waiter
//! that lost its claim is unlinked by whoever comes across it, or by its goroutine. Those that a
//! run left behind when it ended are not there any more for the next: see `generation`.
//!
//! Everything here needs the lane's lock. T is a plain value (a pointer, an integer); the layer
//! above owns what it refers to.
const std = @import("std");
const Wake = @import("../core/wait.zig").Wake;
const Waiters = @import("../core/waiters.zig").Waiters;

pub const Outcome = enum { done, closed, would_block, timeout, interrupted };

pub fn Chan(comptime T: type, comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Rt, T);
        pub const W = Queue.Waiter;

        /// The ring; its length is the capacity.
        buffer: []T = &.{},
        first: usize = 0,
        count: usize = 0,
        closed: bool = false,
        receivers: Queue = .{},
        senders: Queue = .{},

        inline fn put(c: *Self, value: T) void {
            var at = c.first + c.count;
            if (at >= c.buffer.len) at -= c.buffer.len;
            c.buffer[at] = value;
            c.count += 1;
        }

        inline fn take(c: *Self) T {
            const value = c.buffer[c.first];
            c.first += 1;
            if (c.first == c.buffer.len) c.first = 0;
            c.count -= 1;
            return value;
        }

        /// Sends if that can be done at once.
        pub inline fn trySend(c: *Self, value: T) Outcome {
            if (c.closed) return .closed;
            if (!c.receivers.isEmpty()) {
                if (c.receivers.take(.ready)) |w| {
                    w.data = value;
                    Rt.wake(w.who);
                    return .done;
                }
            }
            if (c.count < c.buffer.len) {
                c.put(value);
                return .done;
            }
            return .would_block;
        }

        /// Receives if that can be done at once. `closed` means closed and drained.
        pub inline fn tryRecv(c: *Self, out: *T) Outcome {
            if (c.count > 0) {
                out.* = c.take();
                // A sender that waits moves up into the free place.
                if (!c.senders.isEmpty()) {
                    if (c.senders.take(.ready)) |w| {
                        c.put(w.data);
                        Rt.wake(w.who);
                    }
                }
                return .done;
            }
            if (!c.senders.isEmpty()) {
                if (c.senders.take(.ready)) |w| {
                    out.* = w.data;
                    Rt.wake(w.who);
                    return .done;
                }
            }
            return if (c.closed) .closed else .would_block;
        }

        /// Whether tryRecv may do something; where that depends on a waiter, it may have been
        /// claimed.
        pub fn mayRecv(c: *const Self) bool {
            return c.count > 0 or !c.senders.isEmpty() or c.closed;
        }

        /// The same of trySend.
        pub fn maySend(c: *const Self) bool {
            return c.count < c.buffer.len or !c.receivers.isEmpty() or c.closed;
        }

        /// Parks until a receiver takes `value`. After `trySend` said `would_block`, with nothing
        /// in between.
        pub fn sendWait(c: *Self, me: Rt.Me, value: T, deadline: ?u64) Outcome {
            var w: W = .{ .data = value };
            return outcomeOf(c.senders.wait(&Rt.no_lock, &w, me, .chan_send, deadline));
        }

        /// As sendWait, for receiving.
        pub fn recvWait(c: *Self, me: Rt.Me, out: *T, deadline: ?u64) Outcome {
            var w: W = .{};
            const wake = c.receivers.wait(&Rt.no_lock, &w, me, .chan_receive, deadline);
            if (wake == .ready) out.* = w.data;
            return outcomeOf(wake);
        }

        inline fn outcomeOf(wake: Wake) Outcome {
            return switch (wake) {
                .ready => .done,
                .closed => .closed,
                .timeout => .timeout,
                .interrupted => .interrupted,
            };
        }

        /// False if it was closed before. Wakes everybody: receivers find it drained, senders fail.
        pub fn close(c: *Self) bool {
            if (c.closed) return false;
            c.closed = true;
            c.receivers.end(&Rt.no_lock, .closed);
            c.senders.end(&Rt.no_lock, .closed);
            return true;
        }
    };
}
