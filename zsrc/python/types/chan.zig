//! golibx.Chan: sync/chan.zig with Python objects as values. Its views are in chan_views.zig.
//!
//! A channel owns a reference to each value in its buffer, a parked sender to the one it offers.
//! Operations that need no partner work from anywhere; those that park need a goroutine.
const std = @import("std");
const chan_mod = @import("../../sync/chan.zig");
const g_mod = @import("../../serial/g.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const select = @import("select.zig");
const views = @import("chan_views.zig");
const timeouts = @import("../timeouts.zig");

const C = select.Chan;

pub const Chan = extern struct {
    base: views.View,
    /// What will close it, owned.
    keeper: ?*py.Object,
    inner: [@sizeOf(C)]u8 align(@alignOf(C)),

    pub inline fn c(ch: *Chan) *C {
        return @ptrCast(&ch.inner);
    }
};

inline fn inner(o: *py.Object) *C {
    return Class.of(o).c();
}

/// The goroutine `p`, which is about to wait on `c`.
inline fn waitingOn(p: *goroutine.PyG, c: *C) *g_mod.G {
    const bytes: *align(@alignOf(C)) [@sizeOf(C)]u8 = @ptrCast(c);
    const o: *Chan = @alignCast(@fieldParentPtr("inner", bytes));
    p.g.waiting_on = o;
    return &p.g;
}

const largest_capacity = 1 << 40;

fn new(t: *py.Type, given: ?*py.Object) ?*py.Object {
    var size: usize = 0;
    if (given) |g| {
        const value = py.PyNumber_AsSsize_t(g, py.exc.overflowError());
        if (value == -1 and py.PyErr_Occurred() != null) return null;
        if (value < 0 or value > largest_capacity) return py.raise(
            py.exc.valueError(),
            "Chan capacity must be between 0 and {d}, not {d}",
            .{ @as(u64, largest_capacity), value },
        );
        size = @intCast(value);
    }
    const buffer = host.gpa.alloc(*py.Object, size) catch return py.PyErr_NoMemory();
    const o = py.PyType_GenericAlloc(t, 0) orelse {
        host.gpa.free(buffer);
        return null;
    };
    inner(o).* = .{ .capacity = size, .buffer = buffer.ptr };
    return o;
}

fn traverse(ch: *Chan, v: class.Visitor) c_int {
    const c = ch.c();
    for (0..c.count) |i| {
        const r = v.all(&.{c.buffered(i).*});
        if (r != 0) return r;
    }
    return v.all(&.{ch.keeper});
}

fn clear(ch: *Chan) void {
    const c = ch.c();
    while (c.count > 0) {
        var value: *py.Object = undefined;
        c.take(&value);
        py.decref(value);
    }
    py.clear(&ch.keeper);
}

fn deinit(ch: *Chan) void {
    clear(ch);
    host.gpa.free(ch.c().buffer[0..ch.c().capacity]);
}

/// Has the channel `o` keep `keeper` alive, instead of what it kept before.
pub fn keep(o: *py.Object, keeper: ?*py.Object) void {
    const ch = Class.of(o);
    const old = ch.keeper;
    ch.keeper = if (keeper) |k| py.incref(k) else null;
    py.xdecref(old);
}

/// Borrowed.
pub fn keeperOf(o: *py.Object) ?*py.Object {
    return Class.of(o).keeper;
}

/// From anywhere, also where no Python code may run, into a channel that has room. `ch` is one.
pub fn deliver(ch: *py.Object, value: *py.Object) void {
    var sent = py.incref(value);
    if (inner(ch).now(.send, &sent) != .done) py.decref(value);
}

/// From anywhere, also where no Python code may run: takes out a value, to which there is another
/// reference. `ch` is a Chan.
pub fn freePlace(ch: *py.Object) void {
    var value: *py.Object = undefined;
    if (inner(ch).now(.recv, &value) == .done) py.decref(value);
}

// ---- operations ----

pub fn send(ch: *Chan, value: *py.Object, timeout: ?*py.Object) ?*py.Object {
    const c = ch.c();
    var sent = py.incref(value);
    switch (c.now(.send, &sent)) {
        .done => return py.returnNone(),
        .closed => {
            py.decref(value);
            return errors.raise(.ChannelClosed, "send on a closed channel", .{});
        },
        else => {},
    }
    return if (timeout == null) sendWaiting(c, value) else sendSlow(c, value, timeout);
}

/// As most do: nothing has happened since the first answer, and only a receiver ends the wait.
noinline fn sendWaiting(c: *C, value: *py.Object) ?*py.Object {
    const p = goroutine.forPlainWait() orelse return sendSlow(c, value, null);
    var sent = value;
    const outcome = c.blockHere(.send, &sent, waitingOn(p, c));
    if (outcome == .done) return py.returnNone();
    return unsent(outcome, p, value);
}

noinline fn unsent(outcome: chan_mod.Outcome, p: *goroutine.PyG, value: *py.Object) ?*py.Object {
    py.decref(value);
    return failed(outcome, p, "send");
}

noinline fn sendSlow(c: *C, value: *py.Object, timeout: ?*py.Object) ?*py.Object {
    const limit = if (timeout == null) .forever else timeouts.parse(timeout) orelse {
        py.decref(value);
        return null;
    };
    const p = goroutine.forWait() orelse {
        py.decref(value);
        return null;
    };
    // Others may have run in forWait: the first answer is no longer true.
    var sent = value;
    var outcome = c.now(.send, &sent);
    if (outcome == .would_block) outcome = if (limit == .poll)
        .timeout
    else
        c.block(.send, &sent, waitingOn(p, c), limit.deadline());
    return if (outcome == .done) py.returnNone() else unsent(outcome, p, value);
}

/// What remains of a receive that cannot be done at once. `p` holds the P.
fn recvWait(c: *C, p: *goroutine.PyG, out: **py.Object, limit: timeouts.Limit) chan_mod.Outcome {
    // Others may have run in forWait: the first answer is no longer true.
    const outcome = c.now(.recv, out);
    if (outcome != .would_block) return outcome;
    if (limit == .poll) return .timeout;
    return c.block(.recv, out, waitingOn(p, c), limit.deadline());
}

fn failed(outcome: chan_mod.Outcome, p: *goroutine.PyG, comptime what: []const u8) ?*py.Object {
    switch (outcome) {
        .closed => return errors.raise(.ChannelClosed, what ++ " on a closed channel", .{}),
        .timeout => return errors.raise(.DeadlineExceeded, "channel " ++ what ++ " timed out", .{}),
        else => {
            _ = goroutine.raisePending(p);
            return null;
        },
    }
}

pub fn recv(ch: *Chan, timeout: ?*py.Object) ?*py.Object {
    var value: *py.Object = undefined;
    if (ch.c().now(.recv, &value) == .done) return value;
    return if (timeout == null) recvWaiting(ch.c()) else recvSlow(ch.c(), timeout);
}

/// As most do: nothing has happened since the first answer, and only a sender ends the wait.
noinline fn recvWaiting(c: *C) ?*py.Object {
    if (c.closed) return recvSlow(c, null);
    const p = goroutine.forPlainWait() orelse return recvSlow(c, null);
    var value: *py.Object = undefined;
    const outcome = c.blockHere(.recv, &value, waitingOn(p, c));
    return if (outcome == .done) value else unreceived(outcome, p);
}

noinline fn unreceived(outcome: chan_mod.Outcome, p: *goroutine.PyG) ?*py.Object {
    return failed(outcome, p, "receive");
}

noinline fn recvSlow(c: *C, timeout: ?*py.Object) ?*py.Object {
    var value: *py.Object = undefined;
    if (c.closed) return errors.raise(.ChannelClosed, "receive on a closed channel", .{});
    const limit = if (timeout == null) .forever else timeouts.parse(timeout) orelse return null;
    const p = goroutine.forWait() orelse return null;
    const outcome = recvWait(c, p, &value, limit);
    return if (outcome == .done) value else unreceived(outcome, p);
}

pub fn recvOk(ch: *Chan, timeout: ?*py.Object) ?*py.Object {
    const c = ch.c();
    var value: *py.Object = undefined;
    switch (c.now(.recv, &value)) {
        .done => return py.pair(value, true),
        .closed => return py.pair(py.returnNone(), false),
        else => {},
    }
    const limit = timeouts.parse(timeout) orelse return null;
    const p = goroutine.forWait() orelse return null;
    const outcome = recvWait(c, p, &value, limit);
    return switch (outcome) {
        .done => py.pair(value, true),
        .closed => py.pair(py.returnNone(), false),
        else => unreceived(outcome, p),
    };
}

pub fn trySend(ch: *Chan, value: *py.Object) ?bool {
    var sent = py.incref(value);
    switch (ch.c().now(.send, &sent)) {
        .done => return true,
        .closed => {
            py.decref(value);
            _ = errors.raise(.ChannelClosed, "send on a closed channel", .{});
            return null;
        },
        else => {
            py.decref(value);
            return false;
        },
    }
}

pub fn tryRecv(ch: *Chan) ?*py.Object {
    var value: *py.Object = undefined;
    return switch (ch.c().now(.recv, &value)) {
        .done => py.pair(value, true),
        .closed => errors.raise(.ChannelClosed, "receive on a closed channel", .{}),
        else => py.pair(py.returnNone(), false),
    };
}

pub fn close(ch: *Chan) ?*py.Object {
    if (!ch.c().close()) return errors.raise(.ChannelClosed, "close of a closed channel", .{});
    return py.returnNone();
}

pub fn length(ch: *Chan) ?usize {
    return ch.c().count;
}

pub fn next(ch: *Chan) ?*py.Object {
    const c = ch.c();
    var value: *py.Object = undefined;
    switch (c.now(.recv, &value)) {
        .done => return value,
        .closed => return null,
        else => return nextWaiting(c),
    }
}

noinline fn nextWaiting(c: *C) ?*py.Object {
    const p = goroutine.forPlainWait() orelse return nextSlow(c);
    var value: *py.Object = undefined;
    return switch (c.blockHere(.recv, &value, waitingOn(p, c))) {
        .done => value,
        .closed => null,
        else => |outcome| unreceived(outcome, p),
    };
}

noinline fn nextSlow(c: *C) ?*py.Object {
    var value: *py.Object = undefined;
    const p = goroutine.forWait() orelse return null;
    return switch (recvWait(c, p, &value, .forever)) {
        .done => value,
        .closed => null,
        else => |outcome| unreceived(outcome, p),
    };
}

pub fn capacity(ch: *Chan) usize {
    return ch.c().capacity;
}

pub fn isClosed(ch: *Chan) bool {
    return ch.c().closed;
}

fn repr(ch: *Chan) ?*py.Object {
    const c = ch.c();
    return py.print("<Chan 0x{x} {d}/{d}{s}>", .{
        class.addressOf(ch),
        c.count,
        c.capacity,
        if (c.closed) " closed" else "",
    });
}

// ---- cases and views ----

pub fn onRecv(ch: *Chan) ?*py.Object {
    return select.newCase(.recv, class.objectOf(ch), ch.c(), null);
}

pub fn onSend(ch: *Chan, value: *py.Object) ?*py.Object {
    return select.newCase(.send, class.objectOf(ch), ch.c(), value);
}

fn sender(ch: *Chan) ?*py.Object {
    return views.of(views.SendClass.python_type, class.objectOf(ch));
}

fn receiver(ch: *Chan) ?*py.Object {
    return views.of(views.RecvClass.python_type, class.objectOf(ch));
}

pub const Class = class.Class(Chan, .{
    .name = "golibx.Chan",
    .doc =
    \\A channel: goroutines send values to it and receive them in order. With capacity 0 a send
    \\waits for its receiver. `for value in ch` receives until the channel is closed.
    ,
    .new = class.constructor("Chan(capacity=0)", new),
    .bases = &.{ views.SendClass, views.RecvClass },
    .generic = "Chan[T] in annotations.",
    .repr = repr,
    .len = length,
    .next = next,
    .traverse = traverse,
    .clear = clear,
    .deinit = deinit,
    .is_waited_on = true,
    .methods = &.{
        class.method("send(value, timeout=None)", send,
            \\Sends value, waiting for a receiver or for room in the buffer, at most timeout
            \\seconds. Raises ChannelClosed on a closed channel, DeadlineExceeded when the time is
            \\up.
        ),
        class.method("recv(timeout=None)", recv,
            \\Returns the next value, waiting for one, at most timeout seconds. Raises ChannelClosed
            \\once the channel is closed and drained, DeadlineExceeded when the time is up.
        ),
        class.method("recv_ok(timeout=None)", recvOk,
            \\As recv(), but returns (value, True), or (None, False) once the channel is closed and
            \\drained.
        ),
        class.method("try_send(value, /)", trySend,
            \\Sends value if that needs no waiting; returns whether it did. Raises ChannelClosed.
        ),
        class.method("try_recv()", tryRecv,
            \\Returns (value, True) if there is one, else (None, False). Raises ChannelClosed once
            \\the channel is closed and drained.
        ),
        class.method("close()", close,
            \\Closes the channel: what is buffered can still be received. Raises ChannelClosed if it
            \\was.
        ),
        class.method("on_recv()", onRecv,
            \\A case for select(): receive from this channel. May be used again and again.
        ),
        class.method("on_send(value, /)", onSend,
            \\A case for select(): send value to this channel. May be used again and again.
        ),
        class.method("sender()", sender,
            \\The SendChan of this channel, which can send and close but not receive.
        ),
        class.method("receiver()", receiver,
            \\The RecvChan of this channel, which can receive but not send or close.
        ),
    },
    .properties = &.{
        class.property("capacity", capacity,
            \\How many values the buffer holds, an int; 0 for an unbuffered channel.
        ),
        class.property("closed", isClosed, "Whether close() was called."),
    },
});
