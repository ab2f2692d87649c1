//! Channels of C values, golibx.native.Chan: sync/chan.zig with Python on one side or both.
//!
//! An element has a `kind`, one of struct's letters for what ctypes calls simple types, or 'r' for
//! any other ctypes type, which is copied byte by byte. Values are converted here, outside of the
//! channel's lock. While a goroutine or thread waits, the element lies on its stack, or in memory
//! of its own if it is large.
const std = @import("std");
const chans = @import("../../capi/chan.zig");
const chan_mod = @import("../../sync/chan.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const timeouts = @import("../timeouts.zig");
const outside = @import("../host/outside.zig");
const select = @import("select.zig");

const C = chans.Chan;
const Caller = outside.Caller;
const Ended = outside.Ended;
const Side = chan_mod.Side;

/// Elements up to here lie on the stack of the goroutine or thread that waits.
const small = 256;

pub const Chan = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    c: *C,
    /// The ctypes type of the elements.
    ctype: *py.Object,
    kind: u8,
    owned: bool,
};

/// Of the channel at `place`, if that is not 0.
fn new(
    t: *py.Type,
    letter: *py.Object,
    given_size: *py.Object,
    given_capacity: *py.Object,
    ctype: *py.Object,
    given_place: *py.Object,
) ?*py.Object {
    var kind_len: py.Ssize = 0;
    const kind = py.PyUnicode_AsUTF8AndSize(letter, &kind_len) orelse return null;
    const size = unsigned(given_size) orelse return null;
    const room = unsigned(given_capacity) orelse return null;
    const place = unsigned(given_place) orelse return null;
    if (kind_len != 1)
        return py.raise(py.exc.valueError(), "NativeChan(): a kind is one letter", .{});
    if (size > chan_mod.largest_elem) return py.raise(
        py.exc.valueError(),
        "an element of a native.Chan has at most {d} bytes, not {d}",
        .{ chan_mod.largest_elem, size },
    );
    if (sizeOfKind(kind[0])) |fixed| if (fixed != size) return py.raise(
        py.exc.valueError(),
        "NativeChan(): an element of kind '{c}' has {d} bytes, not {d}",
        .{ kind[0], fixed, size },
    );
    const c: *C = if (place != 0) @ptrFromInt(place) else chans.new(size, room) orelse
        return py.PyErr_NoMemory();
    const o = py.PyType_GenericAlloc(t, 0) orelse {
        if (place == 0) chans.free(c);
        return null;
    };
    const ch = Class.of(o);
    ch.c = c;
    ch.kind = kind[0];
    ch.ctype = py.incref(ctype);
    ch.owned = place == 0;
    // Of a foreign one, a wrong type would overwrite memory.
    if (c.elem_size == size) return o;
    defer py.decref(o);
    return py.raise(
        py.exc.valueError(),
        "the channel at 0x{x} has elements of {d} bytes, not {d}",
        .{ place, c.elem_size, size },
    );
}

fn unsigned(o: *py.Object) ?usize {
    const value = py.PyLong_AsUnsignedLongLong(o);
    if (value == std.math.maxInt(c_ulonglong) and py.PyErr_Occurred() != null) return null;
    return @intCast(value);
}

fn deinit(ch: *Chan) void {
    if (ch.owned) {
        // C code that still waits there waits for ever, but in memory that is a channel.
        if (isIdle(ch.c)) chans.free(ch.c);
    }
    py.decref(ch.ctype);
}

fn isIdle(c: *C) bool {
    const caller: Caller = .enter();
    defer caller.leave();
    c.lock.lock();
    defer c.lock.unlock();
    return c.receivers.isEmpty() and c.senders.isEmpty();
}

// ---- values ----

fn sizeOfKind(kind: u8) ?usize {
    return switch (kind) {
        '?', 'c', 'b', 'B' => 1,
        'h', 'H' => 2,
        'i', 'I', 'f' => 4,
        'q', 'Q', 'd' => 8,
        'P' => @sizeOf(usize),
        else => null,
    };
}

fn put(comptime T: type, out: []u8, value: T) bool {
    out[0..@sizeOf(T)].* = @bitCast(value);
    return true;
}

fn get(comptime T: type, from: []const u8) T {
    return @bitCast(from[0..@sizeOf(T)].*);
}

/// Writes `given` as an element. False with an exception set.
fn encode(ch: *Chan, given: *py.Object, out: []u8) bool {
    const is_own = py.PyObject_IsInstance(given, ch.ctype);
    if (is_own < 0) return false;
    if (ch.kind == 'r') {
        if (is_own == 0) return complain(ch, given);
        return copyBytes(given, out);
    }
    if (is_own == 0) return encodeSimple(ch, given, out);
    const value = py.PyObject_GetAttrString(given, "value") orelse return false;
    defer py.decref(value);
    return encodeSimple(ch, value, out);
}

fn encodeSimple(ch: *Chan, value: *py.Object, out: []u8) bool {
    switch (ch.kind) {
        '?' => {
            const truth = py.PyObject_IsTrue(value);
            return truth >= 0 and put(u8, out, @intCast(truth));
        },
        'd', 'f' => {
            const number = py.PyFloat_AsDouble(value);
            if (number == -1 and py.PyErr_Occurred() != null) return complain(ch, value);
            return if (ch.kind == 'd') put(f64, out, number) else put(f32, out, @floatCast(number));
        },
        'c' => {
            if (py.PyType_GetFlags(value.type) & bytes_subclass == 0 or py.PyBytes_Size(value) != 1)
                return complain(ch, value);
            out[0] = (py.PyBytes_AsString(value) orelse return false)[0];
            return true;
        },
        'b' => return putInteger(i8, ch, value, out),
        'h' => return putInteger(i16, ch, value, out),
        'i' => return putInteger(i32, ch, value, out),
        'q' => return putInteger(i64, ch, value, out),
        'B' => return putInteger(u8, ch, value, out),
        'H' => return putInteger(u16, ch, value, out),
        'I' => return putInteger(u32, ch, value, out),
        'Q' => return putInteger(u64, ch, value, out),
        else => return if (value == py.none()) put(usize, out, 0) else putInteger(
            usize,
            ch,
            value,
            out,
        ),
    }
}

const bytes_subclass = 1 << 27; // Py_TPFLAGS_BYTES_SUBCLASS

fn putInteger(comptime T: type, ch: *Chan, value: *py.Object, out: []u8) bool {
    const index = py.PyNumber_Index(value) orelse return complain(ch, value);
    defer py.decref(index);
    const is_signed = @typeInfo(T).int.signedness == .signed;
    const Wide = if (is_signed) c_longlong else c_ulonglong;
    const wide: Wide = if (is_signed)
        py.PyLong_AsLongLong(index)
    else
        py.PyLong_AsUnsignedLongLong(index);
    const bad = wide == std.math.maxInt(c_ulonglong) or (is_signed and wide == -1);
    if (!(bad and py.PyErr_Occurred() != null)) {
        if (std.math.cast(T, wide)) |fits| return put(T, out, fits);
    }
    py.PyErr_Clear();
    _ = py.PyErr_Format(
        py.exc.valueError(),
        std.fmt.comptimePrint("%R is not in the range of a native.Chan of %R: {d} to {d}", .{
            std.math.minInt(T), std.math.maxInt(T),
        }),
        value,
        ch.ctype,
    );
    return false;
}

fn complain(ch: *Chan, value: *py.Object) bool {
    if (py.PyErr_Occurred()) |raised| {
        if (py.PyErr_GivenExceptionMatches(raised, py.exc.typeError()) == 0) return false;
        py.PyErr_Clear();
    }
    _ = py.PyErr_Format(py.exc.typeError(), "a native.Chan of %R cannot carry %R", ch.ctype, value);
    return false;
}

fn copyBytes(value: *py.Object, out: []u8) bool {
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(value, &view, py.PyBUF_SIMPLE) != 0) return false;
    defer py.PyBuffer_Release(&view);
    const n: usize = @intCast(view.len);
    if (n != out.len) {
        _ = py.raise(
            py.exc.valueError(),
            "an element of this native.Chan has {d} bytes, not {d}",
            .{ out.len, n },
        );
        return false;
    }
    if (n > 0) @memcpy(out, view.buf.?[0..n]);
    return true;
}

/// The Python value of an element. Null with an exception set.
pub fn decode(ch: *Chan, from: []const u8) ?*py.Object {
    return switch (ch.kind) {
        '?' => py.boolean(from[0] != 0),
        'c' => py.PyBytes_FromStringAndSize(from.ptr, 1),
        'b' => py.PyLong_FromLongLong(get(i8, from)),
        'h' => py.PyLong_FromLongLong(get(i16, from)),
        'i' => py.PyLong_FromLongLong(get(i32, from)),
        'q' => py.PyLong_FromLongLong(get(i64, from)),
        'B' => py.PyLong_FromUnsignedLongLong(get(u8, from)),
        'H' => py.PyLong_FromUnsignedLongLong(get(u16, from)),
        'I' => py.PyLong_FromUnsignedLongLong(get(u32, from)),
        'Q' => py.PyLong_FromUnsignedLongLong(get(u64, from)),
        'd' => py.PyFloat_FromDouble(get(f64, from)),
        'f' => py.PyFloat_FromDouble(get(f32, from)),
        'P' => if (get(usize, from) == 0) py.returnNone() else py.PyLong_FromUnsignedLongLong(get(
            usize,
            from,
        )),
        else => instance(ch, from),
    };
}

fn instance(ch: *Chan, from: []const u8) ?*py.Object {
    const make = py.PyObject_GetAttrString(ch.ctype, "from_buffer_copy") orelse return null;
    defer py.decref(make);
    const bytes = py.PyBytes_FromStringAndSize(from.ptr, @intCast(from.len)) orelse return null;
    defer py.decref(bytes);
    return py.call(make, &.{bytes});
}

// ---- operations ----

/// Room for an element.
const Elem = struct {
    few: [small]u8 align(16) = undefined,
    many: []u8 = &.{},
    size: usize,

    fn init(e: *Elem, size: usize) bool {
        e.size = size;
        e.many = &.{};
        if (size <= small) return true;
        e.many = host.gpa.alloc(u8, size) catch {
            _ = py.PyErr_NoMemory();
            return false;
        };
        return true;
    }

    fn bytes(e: *Elem) []u8 {
        return if (e.size <= small) e.few[0..e.size] else e.many;
    }

    fn deinit(e: *Elem) void {
        if (e.many.len > 0) host.gpa.free(e.many);
    }
};

/// A channel's lock that is held, inside the runtime.
const Locked = struct {
    c: *C,
    caller: Caller,

    fn unlock(l: Locked) void {
        l.c.lock.unlock();
        l.caller.leave();
    }
};

/// Sends `elem`, or receives into it. Returns `timeout` at once where `limit` says to poll.
fn transfer(comptime side: Side, ch: *Chan, elem: []u8, limit: timeouts.Limit) Ended {
    const c = ch.c;
    const first = attempt(side, c, elem);
    if (first != .would_block) return if (first == .done) .served else .closed;
    if (limit == .poll) return .timeout;
    // It must not go while this waits, even if its last reference does.
    _ = py.incref(&ch.ob);
    defer py.decref(&ch.ob);
    return wait(side, ch, elem, limit.deadline());
}

fn attempt(comptime side: Side, c: *C, elem: []u8) chan_mod.Outcome {
    const caller: Caller = .enter();
    defer caller.leave();
    return c.now(side, elem.ptr);
}

fn wait(comptime side: Side, ch: *Chan, elem: []u8, deadline: ?u64) Ended {
    const c = ch.c;
    var w: outside.Waiting = undefined;
    if (!w.init(&ch.ob)) return .raised;
    var waiter: C.Waiter = .{ .who = &w.wait, .data = elem.ptr };
    const locked: Locked = .{ .c = c, .caller = .enter() };
    const result = c.begin(side, elem.ptr, &waiter);
    if (result != .would_block) {
        locked.caller.leave();
        return if (result == .done) .served else .closed;
    }
    const reason = if (side == .send) .chan_send else .chan_receive;
    const ended = w.block(reason, deadline, locked, Locked.unlock);
    if (ended == .served or ended == .closed) return ended;
    const caller: Caller = .enter();
    defer caller.leave();
    c.withdraw(side, &waiter);
    return ended;
}

fn failed(comptime side: Side, ended: Ended) ?*py.Object {
    const what = if (side == .send) "send" else "receive";
    return switch (ended) {
        .closed => errors.raise(.ChannelClosed, what ++ " on a closed channel", .{}),
        .timeout => errors.raise(.DeadlineExceeded, "channel " ++ what ++ " timed out", .{}),
        else => null,
    };
}

/// Null with an exception set.
fn sendValue(ch: *Chan, value: *py.Object, limit: timeouts.Limit) ?Ended {
    var elem: Elem = undefined;
    if (!elem.init(ch.c.elem_size)) return null;
    defer elem.deinit();
    if (!encode(ch, value, elem.bytes())) return null;
    const ended = transfer(.send, ch, elem.bytes(), limit);
    return if (ended == .raised) null else ended;
}

const Received = struct { ended: Ended, value: ?*py.Object };

fn recvValue(ch: *Chan, limit: timeouts.Limit) Received {
    var elem: Elem = undefined;
    if (!elem.init(ch.c.elem_size)) return .{ .ended = .raised, .value = null };
    defer elem.deinit();
    const ended = transfer(.recv, ch, elem.bytes(), limit);
    if (ended != .served) return .{ .ended = ended, .value = null };
    const value = decode(ch, elem.bytes());
    return .{ .ended = if (value == null) .raised else .served, .value = value };
}

fn send(ch: *Chan, value: *py.Object, limit: timeouts.Limit) ?*py.Object {
    const ended = sendValue(ch, value, limit) orelse return null;
    return if (ended == .served) py.returnNone() else failed(.send, ended);
}

fn recv(ch: *Chan, limit: timeouts.Limit) ?*py.Object {
    const r = recvValue(ch, limit);
    return r.value orelse failed(.recv, r.ended);
}

fn recvOk(ch: *Chan, limit: timeouts.Limit) ?*py.Object {
    const r = recvValue(ch, limit);
    if (r.value) |value| return py.pair(value, true);
    return if (r.ended == .closed) py.pair(py.returnNone(), false) else failed(.recv, r.ended);
}

fn trySend(ch: *Chan, value: *py.Object) ?*py.Object {
    return switch (sendValue(ch, value, .poll) orelse return null) {
        .served => py.boolean(true),
        .timeout => py.boolean(false),
        else => |ended| failed(.send, ended),
    };
}

fn tryRecv(ch: *Chan) ?*py.Object {
    const r = recvValue(ch, .poll);
    if (r.value) |value| return py.pair(value, true);
    return if (r.ended == .timeout) py.pair(py.returnNone(), false) else failed(.recv, r.ended);
}

fn close(ch: *Chan) ?*py.Object {
    const caller: Caller = .enter();
    const closed = ch.c.close();
    caller.leave();
    if (closed) return py.returnNone();
    return errors.raise(.ChannelClosed, "close of a closed channel", .{});
}

fn onRecv(ch: *Chan) ?*py.Object {
    return select.newCase(.native_recv, &ch.ob, null, null);
}

/// The case has the C value, as bytes.
fn onSend(ch: *Chan, value: *py.Object) ?*py.Object {
    var elem: Elem = undefined;
    if (!elem.init(ch.c.elem_size)) return null;
    defer elem.deinit();
    const bytes = elem.bytes();
    if (!encode(ch, value, bytes)) return null;
    const copy = py.PyBytes_FromStringAndSize(bytes.ptr, @intCast(bytes.len)) orelse return null;
    defer py.decref(copy);
    return select.newCase(.native_send, &ch.ob, null, copy);
}

fn length(ch: *Chan) ?usize {
    const caller: Caller = .enter();
    defer caller.leave();
    return ch.c.len();
}

fn next(ch: *Chan) ?*py.Object {
    const r = recvValue(ch, .forever);
    return r.value orelse if (r.ended == .closed) null else failed(.recv, r.ended);
}

fn capacity(ch: *Chan) u64 {
    return ch.c.capacity;
}

fn isClosed(ch: *Chan) bool {
    const caller: Caller = .enter();
    defer caller.leave();
    return ch.c.isClosed();
}

fn address(ch: *Chan) u64 {
    return @intFromPtr(ch.c);
}

fn repr(ch: *Chan) ?*py.Object {
    const name = py.PyObject_GetAttrString(ch.ctype, "__name__") orelse return null;
    defer py.decref(name);
    return py.PyUnicode_FromFormat(
        "<native.Chan of %U at %p %zd/%zd%s>",
        name,
        @as(*anyopaque, @ptrCast(ch.c)),
        length(ch).?,
        ch.c.capacity,
        @as([*:0]const u8, if (isClosed(ch)) " closed" else ""),
    );
}

pub const Class = class.Class(Chan, .{
    .name = "golibx._core.NativeChan",
    .doc = "What golibx.native.Chan is made of.",
    .new = class.constructor("NativeChan(kind, size, capacity, ctype, address, /)", new),
    .is_base = true,
    .is_immutable = false,
    .repr = repr,
    .len = length,
    .next = next,
    .deinit = deinit,
    .has_points = false,
    .methods = &.{
        class.method("send(value, timeout=None)", send,
            \\Sends value, waiting for a receiver or for room in the buffer, at most timeout
            \\seconds. Raises ChannelClosed on a closed channel, DeadlineExceeded when the time is
            \\up, TypeError and ValueError for what is no value of the channel's type.
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
            \\A case for golibx.select(): receive from this channel. May be used again and again.
        ),
        class.method("on_send(value, /)", onSend,
            \\A case for golibx.select(): send value to this channel. May be used again and again.
            \\Raises TypeError and ValueError for what is no value of the channel's type.
        ),
    },
    .properties = &.{
        class.property("capacity", capacity,
            \\How many values the buffer holds, an int; 0 for an unbuffered channel.
        ),
        class.property("closed", isClosed, "Whether the channel was closed."),
        class.property("address", address,
            \\Where the channel is, an int: the golibx_chan * for C code.
        ),
        class.field(Chan, "ctype", "ctype", "The ctypes type of the values."),
    },
});

// ---- the memory of an argument ----

/// Holds an object's buffer for a C function.
const View = extern struct {
    ob: py.Object,
    view: py.Buffer,
};

fn newBuffer(t: *py.Type, object: *py.Object) ?*py.Object {
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    const view = &BufferClass.of(o).view;
    if (py.PyObject_GetBuffer(object, view, py.PyBUF_SIMPLE) == 0) return o;
    view.obj = null;
    py.decref(o);
    return null;
}

fn release(b: *View) void {
    if (b.view.obj != null) py.PyBuffer_Release(&b.view);
}

fn bufferAddress(b: *View) u64 {
    return @intFromPtr(b.view.buf);
}

pub const BufferClass = class.Class(View, .{
    .name = "golibx._core.NativeBuffer",
    .doc = "Holds the contiguous memory of an object while a C function may use it.",
    .new = class.constructor("NativeBuffer(object, /)", newBuffer),
    .deinit = release,
    .properties = &.{class.property("address", bufferAddress, "Where the memory is, an int.")},
});
