//! golibx.SendChan and golibx.RecvChan: one direction of a channel, as Go's `chan<- T` and `<-chan
//! T`.
//!
//! A view has the channel and forwards to it what its direction can do. Chan derives from both, and
//! so may stand wherever one of them is asked for; it brings all methods itself, without a detour.
//! A timer's channel (timer.zig) is a RecvChan of its own kind.
const py = @import("py.zig");
const points = @import("points.zig");
const chan = @import("chan.zig");

pub const View = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    /// Owned; null in those that are no view of another.
    chan: ?*py.Object,
};

/// What all three have in common, for the layout: nothing of its own.
pub var base_type: *py.Type = undefined;
pub var send_type: *py.Type = undefined;
pub var recv_type: *py.Type = undefined;

/// The channel behind `o`; null with an exception set.
fn chanOf(o: *py.Object) ?*py.Object {
    if (o.type == chan.chan_type) return o;
    const view: *View = @ptrCast(o);
    if (view.chan) |c| return c;
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
fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const sends = py.PyType_IsSubtype(t, send_type) != 0;
    const name: [*:0]const u8 = if (sends) "SendChan" else "RecvChan";
    if (py.PyTuple_Size(args) != 1 or (kwargs != null and py.PyDict_Size(kwargs.?) != 0)) {
        _ = py.PyErr_Format(py.exc.typeError(), "%s() takes one argument, a Chan", name);
        return null;
    }
    const given = py.PyTuple_GetItem(args, 0).?;
    if (py.PyType_IsSubtype(given.type, if (sends) send_type else recv_type) == 0) {
        _ = py.PyErr_Format(py.exc.typeError(), "%s() needs a Chan, not %R", name, given);
        return null;
    }
    return of(t, chanOf(given) orelse return null);
}

fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const t = visit(@ptrCast(o.type), arg);
    if (t != 0) return t;
    const view: *View = @ptrCast(o);
    return if (view.chan) |c| visit(c, arg) else 0;
}

fn clear(o: *py.Object) callconv(.c) c_int {
    const view: *View = @ptrCast(o);
    py.clear(&view.chan);
    return 0;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const view: *View = @ptrCast(o);
    py.PyObject_GC_UnTrack(o);
    if (view.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    _ = clear(o);
    py.freeObject(o);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const c = chanOf(o) orelse return null;
    const name = py.PyObject_GetAttrString(@ptrCast(o.type), "__name__") orelse return null;
    defer py.decref(name);
    return py.PyUnicode_FromFormat("<%U of %R>", name, c);
}

fn length(o: *py.Object) callconv(.c) py.Ssize {
    return chan.length(chanOf(o) orelse return -1);
}

fn boolean(_: *py.Object) callconv(.c) c_int {
    return 1;
}

fn iter(o: *py.Object) callconv(.c) ?*py.Object {
    return py.incref(o);
}

pub fn iternext(o: *py.Object) callconv(.c) ?*py.Object {
    return chan.iternext(chanOf(o) orelse return null);
}

/// A method of Chan's as a view's.
fn forward(comptime method: anytype) *const anyopaque {
    const S = struct {
        fn plain(o: *py.Object, arg: ?*py.Object) callconv(.c) ?*py.Object {
            return method(chanOf(o) orelse return null, arg);
        }
        fn fastcall(
            o: *py.Object,
            args: py.Args,
            n: py.Ssize,
            kw: ?*py.Object,
        ) callconv(.c) ?*py.Object {
            return method(chanOf(o) orelse return null, args, n, kw);
        }
    };
    return if (@typeInfo(@TypeOf(method)).@"fn".param_types.len == 2) @ptrCast(&S.plain) else @ptrCast(&S.fastcall);
}

fn getter(comptime method: anytype) fn (*py.Object, ?*anyopaque) callconv(.c) ?*py.Object {
    return struct {
        fn get(o: *py.Object, closure: ?*anyopaque) callconv(.c) ?*py.Object {
            return method(chanOf(o) orelse return null, closure);
        }
    }.get;
}

fn genericAlias(class: *py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    return py.genericAlias(class, item.?);
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;
const class_getitem: py.MethodDef = .{
    .name = "__class_getitem__",
    .function = @ptrCast(&genericAlias),
    .flags = py.METH_O | py.METH_CLASS,
    .doc = "For annotations.",
};

const send_methods = [_]py.MethodDef{
    .{
        .name = "send",
        .function = forward(chan.send),
        .flags = fast,
        .doc = "send($self, /, value, timeout=None)\n--\n\nSee Chan.send().",
    },
    .{
        .name = "try_send",
        .function = forward(chan.trySend),
        .flags = py.METH_O,
        .doc = "try_send($self, value, /)\n--\n\nSee Chan.try_send().",
    },
    .{
        .name = "close",
        .function = forward(chan.close),
        .flags = py.METH_NOARGS,
        .doc = "close($self, /)\n--\n\nSee Chan.close().",
    },
    .{
        .name = "on_send",
        .function = forward(chan.onSend),
        .flags = py.METH_O,
        .doc = "on_send($self, value, /)\n--\n\nSee Chan.on_send().",
    },
    class_getitem,
    .{},
};
pub const send_table = points.Table.of(&send_methods);

const recv_methods = [_]py.MethodDef{
    .{
        .name = "recv",
        .function = forward(chan.recv),
        .flags = fast,
        .doc = "recv($self, /, timeout=None)\n--\n\nSee Chan.recv().",
    },
    .{
        .name = "recv_ok",
        .function = forward(chan.recvOk),
        .flags = fast,
        .doc = "recv_ok($self, /, timeout=None)\n--\n\nSee Chan.recv_ok().",
    },
    .{
        .name = "try_recv",
        .function = forward(chan.tryRecv),
        .flags = py.METH_NOARGS,
        .doc = "try_recv($self, /)\n--\n\nSee Chan.try_recv().",
    },
    .{
        .name = "on_recv",
        .function = forward(chan.onRecv),
        .flags = py.METH_NOARGS,
        .doc = "on_recv($self, /)\n--\n\nSee Chan.on_recv().",
    },
    class_getitem,
    .{},
};
pub const recv_table = points.Table.of(&recv_methods);

const getset = [_]py.GetSetDef{
    .{
        .name = "capacity",
        .get = getter(chan.getCapacity),
        .doc = "How many values the buffer holds, an int; 0 for an unbuffered channel.",
    },
    .{ .name = "closed", .get = getter(chan.getClosed), .doc = "Whether the channel was closed." },
    .{},
};

const members = [_]py.MemberDef{
    .{
        .name = "__weaklistoffset__",
        .type = py.T_PYSSIZET,
        .offset = @offsetOf(View, "weakrefs"),
        .flags = py.READONLY,
    },
    .{},
};

const common = [_]py.Slot{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverse) },
    .{ .slot = py.slot.tp_clear, .pfunc = @ptrCast(&clear) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.sq_length, .pfunc = @ptrCast(&length) },
    .{ .slot = py.slot.nb_bool, .pfunc = @ptrCast(&boolean) },
};

const base_slots = common ++ [_]py.Slot{
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_doc, .pfunc = "What Chan, SendChan and RecvChan have in common." },
    .{},
};

const send_slots = common ++ [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_methods, .pfunc = send_table.methods() },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\SendChan(chan, /)
    \\--
    \\
    \\The sending side of a Chan: send(), try_send(), on_send(), close(). As Go's chan<- T.
    },
    .{},
};

const recv_slots = common ++ [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_iter, .pfunc = @ptrCast(&iter) },
    .{ .slot = py.slot.tp_iternext, .pfunc = @ptrCast(&iternext) },
    .{ .slot = py.slot.tp_methods, .pfunc = recv_table.methods() },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\RecvChan(chan, /)
    \\--
    \\
    \\The receiving side of a Chan: recv(), recv_ok(), try_recv(), on_recv(), iteration. As Go's <-chan T.
    },
    .{},
};

const flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE | py.TPFLAGS_BASETYPE;

pub const base_spec: py.TypeSpec = .{
    .name = "golibx._core.ChanBase",
    .basicsize = @sizeOf(View),
    .flags = flags | py.TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = &base_slots,
};

pub const send_spec: py.TypeSpec = .{
    .name = "golibx.SendChan",
    .basicsize = @sizeOf(View),
    .flags = flags,
    .slots = &send_slots,
};

pub const recv_spec: py.TypeSpec = .{
    .name = "golibx.RecvChan",
    .basicsize = @sizeOf(View),
    .flags = flags,
    .slots = &recv_slots,
};
