//! golibx.SendChan and golibx.RecvChan: one direction of a channel, as Go's `chan<- T` and `<-chan
//! T`.
//!
//! A view has the channel and forwards to it what its direction can do. Chan derives from both, and
//! so may stand wherever one of them is asked for; it brings all methods itself, without a detour.
//! A timer's channel (timer.zig) is a RecvChan of its own kind.
const std = @import("std");
const py = @import("../py.zig");
const class = @import("../class.zig");
const chan = @import("chan.zig");

pub const View = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    /// Owned; null in those that are no view of another.
    chan: ?*py.Object,
};

/// The channel behind `o`; null with an exception set.
fn chanOf(o: *py.Object) ?*chan.Chan {
    if (chan.Class.is(o)) return chan.Class.of(o);
    const view: *View = @ptrCast(o);
    if (view.chan) |c| return chan.Class.of(c);
    _ = py.PyErr_Format(py.exc.typeError(), "%R is no view of a Chan", o);
    return null;
}

pub fn of(t: *py.Type, c: *py.Object) ?*py.Object {
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    const view: *View = @ptrCast(o);
    view.chan = py.incref(c);
    return o;
}

/// SendChan(ch) and RecvChan(ch): of a Chan, or a view of the same direction.
fn new(comptime name: [:0]const u8) fn (*py.Type, *py.Object) ?*py.Object {
    return struct {
        fn new(t: *py.Type, given: *py.Object) ?*py.Object {
            const Class = if (name[0] == 'S') SendClass else RecvClass;
            if (py.PyType_IsSubtype(given.type, Class.python_type) == 0)
                return py.PyErr_Format(
                    py.exc.typeError(),
                    name ++ "() needs a Chan, not %R",
                    given,
                );
            return of(t, class.objectOf(chanOf(given) orelse return null));
        }
    }.new;
}

fn traverse(view: *View, v: class.Visitor) c_int {
    return v.all(&.{view.chan});
}

fn clear(view: *View) void {
    py.clear(&view.chan);
}

fn repr(view: *View) ?*py.Object {
    const c = chanOf(&view.ob) orelse return null;
    const name = py.PyObject_GetAttrString(@ptrCast(view.ob.type), "__name__") orelse return null;
    defer py.decref(name);
    return py.PyUnicode_FromFormat("<%U of %R>", name, class.objectOf(c));
}

fn length(view: *View) ?usize {
    return chan.length(chanOf(&view.ob) orelse return null);
}

fn next(view: *View) ?*py.Object {
    return chan.next(chanOf(&view.ob) orelse return null);
}

/// A method of Chan's as a view's.
fn method(comptime signature: []const u8, comptime function: anytype) class.Method(View) {
    const name = signature[0..std.mem.findScalar(u8, signature, '(').?];
    return class.methodOf(View, chanOf, signature, function, "See Chan." ++ name ++ "().");
}

/// What all three have in common, for the layout: nothing of its own.
pub const BaseClass = class.Class(View, .{
    .name = "golibx._core.ChanBase",
    .doc = "What Chan, SendChan and RecvChan have in common.",
    .is_base = true,
    .repr = repr,
    .len = length,
    .traverse = traverse,
    .clear = clear,
    .properties = &.{
        class.propertyOf(View, chanOf, "capacity", chan.capacity,
            \\How many values the buffer holds, an int; 0 for an unbuffered channel.
        ),
        class.propertyOf(View, chanOf, "closed", chan.isClosed, "Whether the channel was closed."),
    },
});

pub const SendClass = class.Class(View, .{
    .name = "golibx.SendChan",
    .doc =
    \\The sending side of a Chan: send(), try_send(), on_send(), close(). As Go's chan<- T.
    ,
    .new = class.constructor("SendChan(chan, /)", new("SendChan")),
    .bases = &.{BaseClass},
    .is_base = true,
    .generic = "For annotations.",
    .repr = repr,
    .len = length,
    .traverse = traverse,
    .clear = clear,
    .methods = &.{
        method("send(value, timeout=None)", chan.send),
        method("try_send(value, /)", chan.trySend),
        method("close()", chan.close),
        method("on_send(value, /)", chan.onSend),
    },
});

pub const RecvClass = class.Class(View, .{
    .name = "golibx.RecvChan",
    .doc =
    \\The receiving side of a Chan: recv(), recv_ok(), try_recv(), on_recv(), iteration. As Go's
    \\<-chan T.
    ,
    .new = class.constructor("RecvChan(chan, /)", new("RecvChan")),
    .bases = &.{BaseClass},
    .is_base = true,
    .generic = "For annotations.",
    .repr = repr,
    .len = length,
    .next = next,
    .traverse = traverse,
    .clear = clear,
    .methods = &.{
        method("recv(timeout=None)", chan.recv),
        method("recv_ok(timeout=None)", chan.recvOk),
        method("try_recv()", chan.tryRecv),
        method("on_recv()", chan.onRecv),
    },
});
