//! golibx.Chan, golibx.Case and select: sync/chan.zig with Python objects as values.
//!
//! A channel owns a reference to each value in its buffer, a parked sender to the one it offers.
//! Operations that need no partner work from anywhere; those that park need a goroutine.
const std = @import("std");
const os = @import("../os/os.zig");
const chan_mod = @import("../sync/chan.zig");
const g_mod = @import("../sched/g.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");

const C = chan_mod.Chan(*py.Object, host.Lane);
const lane = &host.the_lane;

pub const Chan = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    /// What will close it, owned.
    keeper: ?*py.Object,
    inner: [@sizeOf(C)]u8 align(@alignOf(C)),
};

pub const Case = extern struct {
    ob: py.Object,
    chan: *Chan,
    /// Null for a receive.
    value: ?*py.Object,
};

pub var chan_type: *py.Type = undefined;
pub var case_type: *py.Type = undefined;

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
            return py.raise(py.exc.typeError(), "Chan() takes only the keyword argument 'capacity'", .{});
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
    if (c.weakrefs != null) py.PyObject_ClearWeakRefs(o);
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

/// From anywhere, also where no Python code may run, into a channel that has room. `ch` is one.
pub fn deliver(ch: *py.Object, value: *py.Object) void {
    if (inner(ch).trySend(lane, py.incref(value)) != .done) py.decref(value);
}

// ---- operations ----

fn send(o: *py.Object, args: [*]const *py.Object, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
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
    const p = goroutine.forPark() orelse {
        py.decref(value);
        return null;
    };
    // Others may have run in forPark: the first answer is no longer true.
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
    // Others may have run in forPark: the first answer is no longer true.
    const outcome = c.tryRecv(lane, out);
    if (outcome != .would_block) return outcome;
    return if (limit == .poll) .timeout else c.recvWait(lane, waitingOn(p, c), out, limit.deadline());
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

fn recv(o: *py.Object, args: [*]const *py.Object, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
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
    const p = goroutine.forPark() orelse return null;
    const outcome = recvWait(c, p, &value, limit);
    return if (outcome == .done) value else failed(outcome, p, "receive");
}

fn recvOk(o: *py.Object, args: [*]const *py.Object, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("recv_ok", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const c = inner(o);
    var value: *py.Object = undefined;
    switch (c.tryRecv(lane, &value)) {
        .done => return pair(value, true),
        .closed => return pair(py.returnNone(), false),
        else => {},
    }
    const limit = timeouts.parse(given[0]) orelse return null;
    const p = goroutine.forPark() orelse return null;
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

fn trySend(o: *py.Object, value: ?*py.Object) callconv(.c) ?*py.Object {
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

fn tryRecv(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    var value: *py.Object = undefined;
    return switch (inner(o).tryRecv(lane, &value)) {
        .done => pair(value, true),
        .closed => errors.raise(.ChannelClosed, "receive on a closed channel", .{}),
        else => pair(py.returnNone(), false),
    };
}

fn close(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    if (!inner(o).close(lane)) return errors.raise(.ChannelClosed, "close of a closed channel", .{});
    return py.returnNone();
}

fn length(o: *py.Object) callconv(.c) py.Ssize {
    return @intCast(inner(o).count);
}

/// A channel is true however empty: len() alone would make `if ch:` a trap.
fn boolean(_: *py.Object) callconv(.c) c_int {
    return 1;
}

fn iter(o: *py.Object) callconv(.c) ?*py.Object {
    return py.incref(o);
}

fn iternext(o: *py.Object) callconv(.c) ?*py.Object {
    const c = inner(o);
    var value: *py.Object = undefined;
    switch (c.tryRecv(lane, &value)) {
        .done => return value,
        .closed => return null,
        else => {},
    }
    const p = goroutine.forPark() orelse return null;
    return switch (recvWait(c, p, &value, .forever)) {
        .done => value,
        .closed => null,
        else => |outcome| failed(outcome, p, "receive"),
    };
}

fn getCapacity(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromLongLong(@intCast(inner(o).buffer.len));
}

fn getClosed(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
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

// ---- select ----

/// What a select with this case waits on.
pub fn objectOf(case: *py.Object) *py.Object {
    if (case.type != case_type) return case;
    const c: *Case = @ptrCast(case);
    return &c.chan.ob;
}

fn onRecv(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return newCase(o, null);
}

fn onSend(o: *py.Object, value: ?*py.Object) callconv(.c) ?*py.Object {
    return newCase(o, value);
}

fn newCase(o: *py.Object, value: ?*py.Object) ?*py.Object {
    const made = py._PyObject_GC_New(case_type) orelse return null;
    const case: *Case = @ptrCast(made);
    case.chan = @ptrCast(py.incref(o));
    case.value = if (value) |v| py.incref(v) else null;
    py.PyObject_GC_Track(made);
    return made;
}

fn traverseCase(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const case: *Case = @ptrCast(o);
    const t = visit(@ptrCast(o.type), arg);
    if (t != 0) return t;
    const r = visit(&case.chan.ob, arg);
    if (r != 0) return r;
    return if (case.value) |v| visit(v, arg) else 0;
}

fn deallocCase(o: *py.Object) callconv(.c) void {
    const case: *Case = @ptrCast(o);
    py.PyObject_GC_UnTrack(o);
    py.decref(&case.chan.ob);
    py.xdecref(case.value);
    const t: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(t);
}

const few_cases = 16;

/// A xorshift generator (Marsaglia 2003): select must be fair, not secret.
var random_state: u64 = 0x9e3779b97f4a7c15;

pub fn seed(value: u64) void {
    random_state = if (value != 0) value else os.nanotime() | 1;
}

inline fn randomBelow(n: u32) u32 {
    var x = random_state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    random_state = x;
    return @intCast((x >> 32) * n >> 32);
}

pub fn select(_: ?*py.Object, args: [*]const *py.Object, n: py.Ssize, kwnames: ?*py.Object) callconv(.c) ?*py.Object {
    const count: usize = @intCast(n);
    var default = false;
    var limit: timeouts.Limit = .forever;
    if (kwnames != null) {
        const given = py.parse("select", &.{ "default", "timeout" }, 0, args + count, 0, kwnames) orelse return null;
        if (given[0]) |d| {
            const truth = py.PyObject_IsTrue(d);
            if (truth < 0) return null;
            default = truth != 0;
        }
        limit = timeouts.parse(given[1]) orelse return null;
    }
    if (count > std.math.maxInt(u16))
        return py.raise(py.exc.valueError(), "select takes at most 65535 cases, not {d}", .{count});
    var few: [few_cases]C.Case = undefined;
    var few_order: [few_cases]u16 = undefined;
    var cases: []C.Case = few[0..@min(count, few_cases)];
    var order: []u16 = few_order[0..@min(count, few_cases)];
    if (count > few_cases) {
        cases = host.gpa.alloc(C.Case, count) catch return py.PyErr_NoMemory();
        order = host.gpa.alloc(u16, count) catch {
            host.gpa.free(cases);
            return py.PyErr_NoMemory();
        };
    }
    defer if (count > few_cases) {
        host.gpa.free(cases);
        host.gpa.free(order);
    };
    for (cases, order, 0..) |*case, *place, i| {
        const arg = args[i];
        if (arg.type == case_type) {
            const given: *Case = @ptrCast(arg);
            case.* = .{ .chan = inner(&given.chan.ob), .send = given.value != null };
            if (given.value) |v| case.value = v;
        } else if (arg == py.none()) {
            case.* = .{ .chan = null, .send = false };
        } else return py.raise(
            py.exc.typeError(),
            "case {d} of select must come from on_recv() or on_send() of a channel, or be None",
            .{i},
        );
        const j = randomBelow(@intCast(i + 1));
        place.* = order[j];
        order[j] = @intCast(i);
    }
    const selected = C.trySelect(lane, cases, order) orelse wait: {
        if (default) return triple(-1, py.returnNone(), false);
        const p = goroutine.forPark() orelse return null;
        // Others may have run in there: the first answer is no longer true.
        if (C.trySelect(lane, cases, order)) |s| break :wait s;
        if (limit == .poll) return failed(.timeout, p, "select");
        // Whoever takes a value while we wait takes a reference along.
        for (cases) |*case| if (case.send) {
            _ = py.incref(case.value);
        };
        p.g.waiting_on = if (count > 0) @ptrCast(@constCast(args)) else null;
        p.g.waiting_count = @intCast(count);
        const s = C.selectWait(lane, &p.g, cases, limit.deadline());
        p.g.waiting_count = 0;
        for (cases, 0..) |*case, i| {
            const taken = s.outcome == .done and s.index == i;
            if (case.send and !taken) py.decref(case.value);
        }
        if (s.outcome == .done and cases[s.index].send)
            return triple(@intCast(s.index), py.returnNone(), true);
        if (s.outcome == .timeout or s.outcome == .interrupted) return failed(s.outcome, p, "select");
        break :wait s;
    };
    const case = &cases[selected.index];
    if (selected.outcome == .closed) {
        if (case.send) return errors.raise(.ChannelClosed, "send on a closed channel (select case {d})", .{selected.index});
        return triple(@intCast(selected.index), py.returnNone(), false);
    }
    if (case.send) {
        // The channel, or its receiver, has the value now.
        _ = py.incref(case.value);
        return triple(@intCast(selected.index), py.returnNone(), true);
    }
    return triple(@intCast(selected.index), case.value, true);
}

/// Takes the reference to `value`.
fn triple(index: i64, value: *py.Object, ok: bool) ?*py.Object {
    const tuple = py.PyTuple_New(3) orelse {
        py.decref(value);
        return null;
    };
    const number = py.PyLong_FromLongLong(index) orelse {
        py.decref(value);
        py.decref(tuple);
        return null;
    };
    _ = py.PyTuple_SetItem(tuple, 0, number);
    _ = py.PyTuple_SetItem(tuple, 1, value);
    _ = py.PyTuple_SetItem(tuple, 2, py.boolean(ok));
    return tuple;
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
    .{ .name = "__class_getitem__", .function = @ptrCast(&genericAlias), .flags = py.METH_O | py.METH_CLASS, .doc = "Chan[T] in annotations." },
    .{},
};

const getset = [_]py.GetSetDef{
    .{ .name = "capacity", .get = getCapacity, .doc = "How many values the buffer holds, an int; 0 for an unbuffered channel." },
    .{ .name = "closed", .get = getClosed, .doc = "Whether close() was called." },
    .{},
};

const members = [_]py.MemberDef{
    .{ .name = "__weaklistoffset__", .type = py.T_PYSSIZET, .offset = @offsetOf(Chan, "weakrefs"), .flags = py.READONLY },
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
    .{ .slot = py.slot.tp_methods, .pfunc = @ptrCast(&methods) },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
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

const case_slots = [_]py.Slot{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&deallocCase) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverseCase) },
    .{ .slot = py.slot.tp_doc, .pfunc = "A case of select(), made by Chan.on_recv() and Chan.on_send()." },
    .{},
};

pub const case_spec: py.TypeSpec = .{
    .name = "golibx.Case",
    .basicsize = @sizeOf(Case),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE | py.TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = &case_slots,
};
