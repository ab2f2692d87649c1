//! golibx.AtomicInt: a counter whose operations are one step each, as Go's atomic.Int64. All happen
//! under the interpreter's lock.
const py = @import("py.zig");
const points = @import("points.zig");
const object = @import("object.zig");

const O = object.Object(i64);
const of = O.of;
pub var atomic_type: *py.Type = undefined;

fn number(value: *py.Object) ?i64 {
    const n = py.PyLong_AsLongLong(value);
    return if (n == -1 and py.PyErr_Occurred() != null) null else n;
}

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parseNew("AtomicInt", &.{"value"}, 0, args, kwargs) orelse return null;
    const value = if (given[0]) |v| number(v) orelse return null else 0;
    return O.make(t, value);
}

fn add(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("add", &.{"delta"}, 0, args, n, kw) orelse return null;
    const delta = if (given[0]) |d| number(d) orelse return null else 1;
    const sum, const overflow = @addWithOverflow(of(o).*, delta);
    if (overflow != 0) return py.raise(
        py.exc.overflowError(),
        "an AtomicInt has 64 bits: {d} with {d} added is out of its range",
        .{ of(o).*, delta },
    );
    of(o).* = sum;
    return py.PyLong_FromLongLong(sum);
}

fn load(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.PyLong_FromLongLong(of(o).*);
}

fn store(o: *py.Object, value: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).* = number(value.?) orelse return null;
    return py.returnNone();
}

fn swap(o: *py.Object, value: ?*py.Object) callconv(.c) ?*py.Object {
    const next = number(value.?) orelse return null;
    const old = py.PyLong_FromLongLong(of(o).*) orelse return null;
    of(o).* = next;
    return old;
}

fn compareAndSwap(
    o: *py.Object,
    args: py.Args,
    n: py.Ssize,
    kw: ?*py.Object,
) callconv(.c) ?*py.Object {
    const given = py.parse(
        "compare_and_swap",
        &.{ "old", "new" },
        2,
        args,
        n,
        kw,
    ) orelse return null;
    const old = number(given[0].?) orelse return null;
    const next = number(given[1].?) orelse return null;
    if (of(o).* != old) return py.boolean(false);
    of(o).* = next;
    return py.boolean(true);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat("<AtomicInt %p %lld>", o, @as(c_longlong, of(o).*));
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "add", .function = @ptrCast(&add), .flags = fast, .doc =
    \\add($self, /, delta=1)
    \\--
    \\
    \\Adds delta, which may be negative, and returns the sum. Raises OverflowError beyond 64 bits, and
    \\changes nothing then.
    },
    .{ .name = "load", .function = @ptrCast(&load), .flags = py.METH_NOARGS, .doc =
    \\load($self, /)
    \\--
    \\
    \\Returns the value.
    },
    .{ .name = "store", .function = @ptrCast(&store), .flags = py.METH_O, .doc =
    \\store($self, value, /)
    \\--
    \\
    \\Sets the value.
    },
    .{ .name = "swap", .function = @ptrCast(&swap), .flags = py.METH_O, .doc =
    \\swap($self, value, /)
    \\--
    \\
    \\Sets the value and returns the one before.
    },
    .{ .name = "compare_and_swap", .function = @ptrCast(&compareAndSwap), .flags = fast, .doc =
    \\compare_and_swap($self, /, old, new)
    \\--
    \\
    \\Sets the value to new if it is old; returns whether it was.
    },
    .{},
};
pub const table = points.Table.of(&methods);

pub const spec = O.spec("golibx.AtomicInt", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\AtomicInt(value=0)
    \\--
    \\
    \\An integer of 64 bits whose operations are one step each, as Go's atomic.Int64.
    },
    .{},
});
