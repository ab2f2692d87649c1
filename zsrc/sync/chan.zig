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
const g_mod = @import("../sched/g.zig");
const G = g_mod.G;
pub const List = @import("../core/list.zig").List;

pub fn Waiter(comptime T: type) type {
    return struct {
        g: *G,
        elem: T = undefined,
        prev: ?*@This() = null,
        next: ?*@This() = null,
    };
}

pub const Outcome = enum { done, closed, would_block, timeout, interrupted };

pub fn Chan(comptime T: type, comptime Lane: type) type {
    return struct {
        const Self = @This();
        pub const W = Waiter(T);

        /// The ring; its length is the capacity.
        buffer: []T = &.{},
        first: usize = 0,
        count: usize = 0,
        closed: bool = false,
        receivers: List(W) = .{},
        senders: List(W) = .{},
        /// The run whose goroutines wait.
        generation: u32 = 0,

        pub inline fn pushReceiver(c: *Self, lane: *const Lane, w: *W) void {
            if (c.generation != lane.generation) c.forgetOthers(lane);
            c.receivers.push(w);
        }

        pub inline fn pushSender(c: *Self, lane: *const Lane, w: *W) void {
            if (c.generation != lane.generation) c.forgetOthers(lane);
            c.senders.push(w);
        }

        noinline fn forgetOthers(c: *Self, lane: *const Lane) void {
            c.receivers.clear();
            c.senders.clear();
            c.generation = lane.generation;
        }

        inline fn dequeue(c: *Self, lane: *Lane, list: *List(W)) ?*W {
            if (c.generation != lane.generation) c.forgetOthers(lane);
            while (list.head) |w| {
                list.remove(w);
                // One that was claimed before has left, and is not to be passed by twice.
                if (!lane.claim(w.g, .ready)) continue;
                w.g.fired = w;
                return w;
            }
            return null;
        }

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
        pub inline fn trySend(c: *Self, lane: *Lane, value: T) Outcome {
            if (c.closed) return .closed;
            if (c.receivers.head != null) {
                if (c.dequeue(lane, &c.receivers)) |w| {
                    w.elem = value;
                    lane.ready(w.g);
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
        pub inline fn tryRecv(c: *Self, lane: *Lane, out: *T) Outcome {
            if (c.count > 0) {
                out.* = c.take();
                // A sender that waits moves up into the free place.
                if (c.senders.head != null) {
                    if (c.dequeue(lane, &c.senders)) |w| {
                        c.put(w.elem);
                        lane.ready(w.g);
                    }
                }
                return .done;
            }
            if (c.senders.head != null) {
                if (c.dequeue(lane, &c.senders)) |w| {
                    out.* = w.elem;
                    lane.ready(w.g);
                    return .done;
                }
            }
            return if (c.closed) .closed else .would_block;
        }

        /// Whether tryRecv may do something; where that depends on a waiter, it may have been
        /// claimed.
        pub fn mayRecv(c: *const Self) bool {
            return c.count > 0 or c.senders.head != null or c.closed;
        }

        /// The same of trySend.
        pub fn maySend(c: *const Self) bool {
            return c.count < c.buffer.len or c.receivers.head != null or c.closed;
        }

        /// Parks until a receiver takes `value`. After `trySend` said `would_block`, with nothing
        /// in between.
        pub fn sendWait(c: *Self, lane: *Lane, g: *G, value: T, deadline: ?u64) Outcome {
            var w: W = .{ .g = g, .elem = value };
            lane.prepare(g);
            c.pushSender(lane, &w);
            return finish(lane.park(g, .chan_send, deadline), &c.senders, &w);
        }

        /// As sendWait, for receiving.
        pub fn recvWait(c: *Self, lane: *Lane, g: *G, out: *T, deadline: ?u64) Outcome {
            var w: W = .{ .g = g };
            lane.prepare(g);
            c.pushReceiver(lane, &w);
            const outcome = finish(lane.park(g, .chan_receive, deadline), &c.receivers, &w);
            if (outcome == .done) out.* = w.elem;
            return outcome;
        }

        inline fn finish(wake: g_mod.Wake, list: *List(W), w: *W) Outcome {
            switch (wake) {
                .ready => return .done,
                .closed => return .closed,
                .timeout, .interrupted => {
                    list.remove(w);
                    return if (wake == .timeout) .timeout else .interrupted;
                },
            }
        }

        /// False if it was closed before. Wakes everybody: receivers find it drained, senders fail.
        pub fn close(c: *Self, lane: *Lane) bool {
            if (c.closed) return false;
            c.closed = true;
            if (c.generation != lane.generation) c.forgetOthers(lane);
            inline for (.{ &c.receivers, &c.senders }) |list| {
                while (list.head) |w| {
                    list.remove(w);
                    if (!lane.claim(w.g, .closed)) continue;
                    w.g.fired = w;
                    lane.readyLast(w.g);
                }
            }
            return true;
        }
    };
}
