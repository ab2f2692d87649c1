//! golibx.WaitGroup: sync/waitgroup.zig as a Python object.
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");
const wg_mod = @import("../sync/waitgroup.zig");

const W = wg_mod.WaitGroup(host.Lane);
const lane = &host.the_lane;

const Object = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    inner: [@sizeOf(W)]u8 align(@alignOf(W)),
};

pub var wg_type: *py.Type = undefined;

inline fn inner(o: *py.Object) *W {
    const w: *Object = @ptrCast(o);
    return @ptrCast(&w.inner);
}

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("WaitGroup", args, kwargs)) return null;
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    inner(o).* = .{};
    return o;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const w: *Object = @ptrCast(o);
    if (w.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    py.freeObject(o);
}

fn change(o: *py.Object, delta: i64) bool {
    const w = inner(o);
    w.add(lane, delta) catch |e| {
        _ = switch (e) {
            error.Negative => py.raise(
                py.exc.valueError(),
                "negative WaitGroup counter: {d} with {d} added",
                .{ w.count, delta },
            ),
            error.Overflow => py.raise(py.exc.overflowError(), "WaitGroup counter overflows", .{}),
        };
        return false;
    };
    return true;
}

fn add(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("add", &.{"delta"}, 0, args, n, kw) orelse return null;
    var delta: i64 = 1;
    if (given[0]) |d| {
        delta = py.PyLong_AsLongLong(d);
        if (delta == -1 and py.PyErr_Occurred() != null) return null;
    }
    return if (change(o, delta)) py.returnNone() else null;
}

fn doneMethod(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return if (change(o, -1)) py.returnNone() else null;
}

/// For a goroutine that go() of the group started.
pub fn done(o: *py.Object) void {
    if (!change(o, -1)) py.PyErr_WriteUnraisable(o);
}

fn wait(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("wait", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    const w = inner(o);
    if (w.count == 0) return py.boolean(true);
    if (limit == .poll) return py.boolean(false);
    const p = goroutine.forWait() orelse return null;
    if (w.count == 0) return py.boolean(true);
    p.g.waiting_on = o;
    var waiter: W.Queue.Waiter = .{ .g = &p.g };
    return switch (w.queue.wait(lane, &waiter, .wait_group, limit.deadline())) {
        .ready, .closed => if (w.count == 0) py.boolean(true) else py.raise(
            py.exc.runtimeError(),
            "WaitGroup is used again, with a count of {d}, before wait() has returned",
            .{w.count},
        ),
        .timeout => py.boolean(w.count == 0),
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    };
}

fn goMethod(
    o: *py.Object,
    args: py.Args,
    n: py.Ssize,
    kwnames: ?*py.Object,
) callconv(.c) ?*py.Object {
    const module = @import("module.zig");
    const p = module.createChecked("go", args, n, kwnames, false) orelse return null;
    if (!change(o, 1)) {
        // Cannot start it any more: it ends as if it had been cancelled before it ran.
        goroutine.abandon(p);
        return null;
    }
    p.group = py.incref(o);
    return goroutine.launch(p);
}

fn getCount(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromLongLong(inner(o).count);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat("<WaitGroup %p count %lld>", o, @as(c_longlong, inner(o).count));
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "add", .function = @ptrCast(&add), .flags = fast, .doc =
    \\add($self, /, delta=1)
    \\--
    \\
    \\Adds delta, an int that may be negative, to the counter. Raises ValueError if it would become
    \\negative; it keeps its value then.
    },
    .{ .name = "done", .function = @ptrCast(&doneMethod), .flags = py.METH_NOARGS, .doc =
    \\done($self, /)
    \\--
    \\
    \\Takes one off the counter.
    },
    .{ .name = "wait", .function = @ptrCast(&wait), .flags = fast, .doc =
    \\wait($self, /, timeout=None)
    \\--
    \\
    \\Waits until the counter is zero, at most timeout seconds; returns whether it is. Raises
    \\RuntimeError if somebody adds to it again before the call has returned.
    },
    .{ .name = "go", .function = @ptrCast(&goMethod), .flags = fast, .doc =
    \\go($self, fn, /, *args, **kwargs)
    \\--
    \\
    \\Starts fn(*args, **kwargs) as a goroutine that is counted until it ends; returns the Goroutine.
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{ .name = "count", .get = getCount, .doc = "The counter, an int." },
    .{},
};

const members = [_]py.MemberDef{
    .{
        .name = "__weaklistoffset__",
        .type = py.T_PYSSIZET,
        .offset = @offsetOf(Object, "weakrefs"),
        .flags = py.READONLY,
    },
    .{},
};

const slots = [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\WaitGroup()
    \\--
    \\
    \\Waits for a number of goroutines to finish, as Go's sync.WaitGroup.
    },
    .{},
};

pub const spec: py.TypeSpec = .{
    .name = "golibx.WaitGroup",
    .basicsize = @sizeOf(Object),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_IMMUTABLETYPE,
    .slots = &slots,
};
