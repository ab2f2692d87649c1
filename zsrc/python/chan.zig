//! golibx.Chan: sync/chan.zig with Python objects as values. Its views are in chan_views.zig.
//!
//! A channel owns a reference to each value in its buffer, a parked sender to the one it offers.
//! Operations that need no partner work from anywhere; those that park need a goroutine.
const std = @import("std");
const chan_mod = @import("../sync/chan.zig");
const g_mod = @import("../sched/g.zig");
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const goroutine = @import("goroutine.zig");
const select = @import("select.zig");
const views = @import("chan_views.zig");
const timeouts = @import("timeouts.zig");

const C = select.Chan;
const lane = &host.the_lane;

pub const Chan = extern struct {
    view: views.View,
    /// What will close it, owned.
    keeper: ?*py.Object,
    inner: [@sizeOf(C)]u8 align(@alignOf(C)),
};

pub var chan_type: *py.Type = undefined;

inline fn inner(o: *py.Object) *C {
    const c: *Chan = @ptrCast(o);
    return @ptrCast(&c.inner);
}

/// The goroutine `p`, which is about to wait on `c`.
inline fn waitingOn(p: *goroutine.PyG, c: *C) *g_mod.G {
    const bytes: *align(@alignOf(C)) [@sizeOf(C)]u8 = @ptrCast(c);
    const o: *Chan = @alignCast(@fieldParentPtr("inner", bytes));
    p.g.waiting_on = o;
    return &p.g;
}

const largest_capacity = 1 << 40;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    var given: ?*py.Object = null;
    const n = py.PyTuple_Size(args);
    if (n > 1) return py.raise(py.exc.typeError(), "Chan() takes at most 1 argument ({d} given)", .{n});
    if (n == 1) given = py.PyTuple_GetItem(args, 0);
    if (kwargs) |kw| {
        if (py.PyDict_GetItemString(kw, "capacity")) |c| {
            if (given != null) return py.raise(py.exc.typeError(), "Chan() got multiple values for argument 'capacity'", .{});
            given = c;
        }
        if (py.PyDict_Size(kw) != @intFromBool(n == 0 and given != null))
            return py.raise(
                py.exc.typeError(),
                "Chan() takes only the keyword argument 'capacity'",
                .{},
            );
    }
    var capacity: usize = 0;
    if (given) |g| {
        const value = py.PyNumber_AsSsize_t(g, py.exc.overflowError());
        if (value == -1 and py.PyErr_Occurred() != null) return null;
        if (value < 0 or value > largest_capacity) return py.raise(
            py.exc.valueError(),
            "Chan capacity must be between 0 and {d}, not {d}",
            .{ @as(u64, largest_capacity), value },
        );
        capacity = @intCast(value);
    }
    const buffer = host.gpa.alloc(*py.Object, capacity) catch return py.PyErr_NoMemory();
    const o = py.PyType_GenericAlloc(t, 0) orelse {
        host.gpa.free(buffer);
        return null;
    };
    inner(o).* = .{ .buffer = buffer };
    return o;
}

fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const c = inner(o);
    const t = visit(@ptrCast(o.type), arg);
    if (t != 0) return t;
    if ((@as(*Chan, @ptrCast(o))).keeper) |k| {
        const r = visit(k, arg);
        if (r != 0) return r;
    }
    for (0..c.count) |i| {
        const r = visit(c.buffer[(c.first + i) % c.buffer.len], arg);
        if (r != 0) return r;
    }
    return 0;
}

fn clear(o: *py.Object) callconv(.c) c_int {
    const c = inner(o);
    while (c.count > 0) {
        c.count -= 1;
        const value = c.buffer[c.first];
        c.first = (c.first + 1) % c.buffer.len;
        py.decref(value);
    }
    keep(o, null);
    return 0;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const c: *Chan = @ptrCast(o);
    py.PyObject_GC_UnTrack(o);
    if (c.view.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    _ = clear(o);
    host.gpa.free(inner(o).buffer);
    const t: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(t);
}

/// Has the channel keep `keeper` alive, instead of what it kept before.
pub fn keep(o: *py.Object, keeper: ?*py.Object) void {
    const c: *Chan = @ptrCast(o);
    const old = c.keeper;
    c.keeper = if (keeper) |k| py.incref(k) else null;
    py.xdecref(old);
}

/// Borrowed.
pub fn keeperOf(o: *py.Object) ?*py.Object {
    return (@as(*Chan, @ptrCast(o))).keeper;
}

/// From anywhere, also where no Python code may run, into a channel that has room. `ch` is one.
pub fn deliver(ch: *py.Object, value: *py.Object) void {
    if (inner(ch).trySend(lane, py.incref(value)) != .done) py.decref(value);
}

/// From anywhere, also where no Python code may run: takes out a value, which somebody else holds
/// too. `ch` is a Chan.
pub fn freePlace(ch: *py.Object) void {
    var value: *py.Object = undefined;
    if (inner(ch).tryRecv(lane, &value) == .done) py.decref(value);
}

// ---- operations ----

pub fn send(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    var timeout: ?*py.Object = null;
    const value = if (n == 1 and kw == null) args[0] else blk: {
        const given = py.parse("send", &.{ "value", "timeout" }, 1, args, n, kw) orelse return null;
        timeout = given[1];
        break :blk given[0].?;
    };
    const c = inner(o);
    switch (c.trySend(lane, py.incref(value))) {
        .done => return py.returnNone(),
        .closed => {
            py.decref(value);
            return errors.raise(.ChannelClosed, "send on a closed channel", .{});
        },
        else => {},
    }
    return sendSlow(c, value, timeout);
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
    var outcome = c.trySend(lane, value);
    if (outcome == .would_block) outcome = if (limit == .poll)
        .timeout
    else
        c.sendWait(lane, waitingOn(p, c), value, limit.deadline());
    if (outcome == .done) return py.returnNone();
    py.decref(value);
    return failed(outcome, p, "send");
}

/// What remains of a receive that cannot be done at once. `p` holds the P.
fn recvWait(c: *C, p: *goroutine.PyG, out: **py.Object, limit: timeouts.Limit) chan_mod.Outcome {
    // Others may have run in forWait: the first answer is no longer true.
    const outcome = c.tryRecv(lane, out);
    if (outcome != .would_block) return outcome;
    return if (limit == .poll) .timeout else c.recvWait(
        lane,
        waitingOn(p, c),
        out,
        limit.deadline(),
    );
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

pub fn recv(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const c = inner(o);
    var value: *py.Object = undefined;
    if (n == 0 and kw == null) {
        if (c.tryRecv(lane, &value) == .done) return value;
        return recvSlow(c, null);
    }
    const given = py.parse("recv", &.{"timeout"}, 0, args, n, kw) orelse return null;
    if (c.tryRecv(lane, &value) == .done) return value;
    return recvSlow(c, given[0]);
}

noinline fn recvSlow(c: *C, timeout: ?*py.Object) ?*py.Object {
    var value: *py.Object = undefined;
    if (c.closed) return errors.raise(.ChannelClosed, "receive on a closed channel", .{});
    const limit = if (timeout == null) .forever else timeouts.parse(timeout) orelse return null;
    const p = goroutine.forWait() orelse return null;
    const outcome = recvWait(c, p, &value, limit);
    return if (outcome == .done) value else failed(outcome, p, "receive");
}

pub fn recvOk(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("recv_ok", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const c = inner(o);
    var value: *py.Object = undefined;
    switch (c.tryRecv(lane, &value)) {
        .done => return pair(value, true),
        .closed => return pair(py.returnNone(), false),
        else => {},
    }
    const limit = timeouts.parse(given[0]) orelse return null;
    const p = goroutine.forWait() orelse return null;
    const outcome = recvWait(c, p, &value, limit);
    return switch (outcome) {
        .done => pair(value, true),
        .closed => pair(py.returnNone(), false),
        else => failed(outcome, p, "receive"),
    };
}

/// Takes the reference to `value`.
fn pair(value: *py.Object, ok: bool) ?*py.Object {
    defer py.decref(value);
    const flag = py.boolean(ok);
    defer py.decref(flag);
    return py.PyTuple_Pack(2, value, flag);
}

pub fn trySend(o: *py.Object, value: ?*py.Object) callconv(.c) ?*py.Object {
    switch (inner(o).trySend(lane, py.incref(value.?))) {
        .done => return py.boolean(true),
        .closed => {
            py.decref(value.?);
            return errors.raise(.ChannelClosed, "send on a closed channel", .{});
        },
        else => {
            py.decref(value.?);
            return py.boolean(false);
        },
    }
}

pub fn tryRecv(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    var value: *py.Object = undefined;
    return switch (inner(o).tryRecv(lane, &value)) {
        .done => pair(value, true),
        .closed => errors.raise(.ChannelClosed, "receive on a closed channel", .{}),
        else => pair(py.returnNone(), false),
    };
}

pub fn close(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    if (!inner(o).close(lane)) return errors.raise(.ChannelClosed, "close of a closed channel", .{});
    return py.returnNone();
}

pub fn length(o: *py.Object) callconv(.c) py.Ssize {
    return @intCast(inner(o).count);
}

/// A channel is true however empty: len() alone would make `if ch:` a trap.
fn boolean(_: *py.Object) callconv(.c) c_int {
    return 1;
}

fn iter(o: *py.Object) callconv(.c) ?*py.Object {
    return py.incref(o);
}

pub fn iternext(o: *py.Object) callconv(.c) ?*py.Object {
    const c = inner(o);
    var value: *py.Object = undefined;
    switch (c.tryRecv(lane, &value)) {
        .done => return value,
        .closed => return null,
        else => {},
    }
    const p = goroutine.forWait() orelse return null;
    return switch (recvWait(c, p, &value, .forever)) {
        .done => value,
        .closed => null,
        else => |outcome| failed(outcome, p, "receive"),
    };
}

pub fn getCapacity(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromLongLong(@intCast(inner(o).buffer.len));
}

pub fn getClosed(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(inner(o).closed);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const c = inner(o);
    return py.PyUnicode_FromFormat(
        "<Chan %p %zd/%zd%s>",
        o,
        @as(py.Ssize, @intCast(c.count)),
        @as(py.Ssize, @intCast(c.buffer.len)),
        @as([*:0]const u8, if (c.closed) " closed" else ""),
    );
}

fn genericAlias(class: *py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    return py.genericAlias(class, item.?);
}

/// In the child of a fork: nobody waits any more.
pub fn forget(o: *py.Object) void {
    select.forgetWaiters(inner(o));
}

// ---- cases and views ----

pub fn onRecv(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return select.newCase(.recv, o, inner(o), null);
}

pub fn onSend(o: *py.Object, value: ?*py.Object) callconv(.c) ?*py.Object {
    return select.newCase(.send, o, inner(o), value);
}

fn sender(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return views.of(views.send_type, o);
}

fn receiver(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return views.of(views.recv_type, o);
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "send", .function = @ptrCast(&send), .flags = fast, .doc =
    \\send($self, /, value, timeout=None)
    \\--
    \\
    \\Sends value, waiting for a receiver or for room in the buffer, at most timeout seconds.
    \\Raises ChannelClosed on a closed channel, DeadlineExceeded when the time is up.
    },
    .{ .name = "recv", .function = @ptrCast(&recv), .flags = fast, .doc =
    \\recv($self, /, timeout=None)
    \\--
    \\
    \\Returns the next value, waiting for one, at most timeout seconds.
    \\Raises ChannelClosed once the channel is closed and drained, DeadlineExceeded when the time is up.
    },
    .{ .name = "recv_ok", .function = @ptrCast(&recvOk), .flags = fast, .doc =
    \\recv_ok($self, /, timeout=None)
    \\--
    \\
    \\As recv(), but returns (value, True), or (None, False) once the channel is closed and drained.
    },
    .{ .name = "try_send", .function = @ptrCast(&trySend), .flags = py.METH_O, .doc =
    \\try_send($self, value, /)
    \\--
    \\
    \\Sends value if that needs no waiting; returns whether it did. Raises ChannelClosed.
    },
    .{ .name = "try_recv", .function = @ptrCast(&tryRecv), .flags = py.METH_NOARGS, .doc =
    \\try_recv($self, /)
    \\--
    \\
    \\Returns (value, True) if there is one, else (None, False). Raises ChannelClosed once the
    \\channel is closed and drained.
    },
    .{ .name = "close", .function = @ptrCast(&close), .flags = py.METH_NOARGS, .doc =
    \\close($self, /)
    \\--
    \\
    \\Closes the channel: what is buffered can still be received. Raises ChannelClosed if it was.
    },
    .{ .name = "on_recv", .function = @ptrCast(&onRecv), .flags = py.METH_NOARGS, .doc =
    \\on_recv($self, /)
    \\--
    \\
    \\A case for select(): receive from this channel. May be used again and again.
    },
    .{ .name = "on_send", .function = @ptrCast(&onSend), .flags = py.METH_O, .doc =
    \\on_send($self, value, /)
    \\--
    \\
    \\A case for select(): send value to this channel. May be used again and again.
    },
    .{ .name = "sender", .function = @ptrCast(&sender), .flags = py.METH_NOARGS, .doc =
    \\sender($self, /)
    \\--
    \\
    \\The SendChan of this channel, which can send and close but not receive.
    },
    .{ .name = "receiver", .function = @ptrCast(&receiver), .flags = py.METH_NOARGS, .doc =
    \\receiver($self, /)
    \\--
    \\
    \\The RecvChan of this channel, which can receive but not send or close.
    },
    .{
        .name = "__class_getitem__",
        .function = @ptrCast(&genericAlias),
        .flags = py.METH_O | py.METH_CLASS,
        .doc = "Chan[T] in annotations.",
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{
        .name = "capacity",
        .get = getCapacity,
        .doc = "How many values the buffer holds, an int; 0 for an unbuffered channel.",
    },
    .{ .name = "closed", .get = getClosed, .doc = "Whether close() was called." },
    .{},
};

const slots = [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverse) },
    .{ .slot = py.slot.tp_clear, .pfunc = @ptrCast(&clear) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_iter, .pfunc = @ptrCast(&iter) },
    .{ .slot = py.slot.tp_iternext, .pfunc = @ptrCast(&iternext) },
    .{ .slot = py.slot.sq_length, .pfunc = @ptrCast(&length) },
    .{ .slot = py.slot.nb_bool, .pfunc = @ptrCast(&boolean) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Chan(capacity=0)
    \\--
    \\
    \\A channel: goroutines send values to it and receive them in order. With capacity 0 a send
    \\waits for its receiver. `for value in ch` receives until the channel is closed.
    },
    .{},
};

pub const spec: py.TypeSpec = .{
    .name = "golibx.Chan",
    .basicsize = @sizeOf(Chan),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE,
    .slots = &slots,
};
