//! golibx.Pool: objects to be used again, as Go's sync.Pool.
//!
//! A pool keeps what was put into it until the collector has looked at everything twice without its
//! being taken out: what is left after a full collection becomes the *victims*, and the victims of
//! the one before are let go. So a pool follows the demand, and cannot be a leak. Collections are
//! seen by an entry in gc.callbacks, which the first pool puts there.
const std = @import("std");
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const object = @import("object.zig");

const List = std.ArrayList(*py.Object);

const Pool = struct {
    new: ?*py.Object,
    fresh: List = .empty,
    victims: List = .empty,
    prev: ?*Pool = null,
    next: ?*Pool = null,
};
const O = object.Object(Pool);
const of = O.of;
pub var pool_type: *py.Type = undefined;

var all: ?*Pool = null;
var watching = false;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parseNew("Pool", &.{"new"}, 0, args, kwargs) orelse return null;
    const make = if (given[0] == py.none()) null else given[0];
    if (make) |f| if (py.PyCallable_Check(f) == 0)
        return py.PyErr_Format(
            py.exc.typeError(),
            "new of a Pool must be callable or None, not %R",
            f,
        );
    if (!watching and !watch()) return null;
    const o = O.make(t, .{ .new = if (make) |f| py.incref(f) else null }) orelse {
        py.xdecref(make);
        return null;
    };
    const p = of(o);
    p.next = all;
    if (all) |head| head.prev = p;
    all = p;
    return o;
}

fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const t = visit(@ptrCast(o.type), arg);
    if (t != 0) return t;
    const p = of(o);
    if (p.new) |f| {
        const r = visit(f, arg);
        if (r != 0) return r;
    }
    for ([_][]const *py.Object{ p.fresh.items, p.victims.items }) |items| for (items) |item| {
        const r = visit(item, arg);
        if (r != 0) return r;
    };
    return 0;
}

fn clear(o: *py.Object) callconv(.c) c_int {
    const p = of(o);
    py.clear(&p.new);
    release(&p.fresh);
    release(&p.victims);
    return 0;
}

/// What ends there may use the pool.
fn release(list: *List) void {
    var items = list.*;
    list.* = .empty;
    for (items.items) |item| py.decref(item);
    items.deinit(host.gpa);
}

fn dealloc(o: *py.Object) callconv(.c) void {
    py.PyObject_GC_UnTrack(o);
    O.clearWeakrefs(o);
    const p = of(o);
    if (p.prev) |before| before.next = p.next else all = p.next;
    if (p.next) |after| after.prev = p.prev;
    _ = clear(o);
    const t: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(t);
}

fn get(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const p = of(o);
    if (p.fresh.pop() orelse p.victims.pop()) |item| return item;
    const make = p.new orelse return py.returnNone();
    // The pool may end in the call.
    _ = py.incref(make);
    defer py.decref(make);
    return py.call(make, &.{});
}

fn put(o: *py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    if (item.? == py.none()) return py.raise(
        py.exc.valueError(),
        "None cannot be put into a Pool: get() returns it when there is nothing",
        .{},
    );
    of(o).fresh.append(host.gpa, item.?) catch return py.PyErr_NoMemory();
    _ = py.incref(item.?);
    return py.returnNone();
}

fn length(o: *py.Object) callconv(.c) py.Ssize {
    return @intCast(of(o).fresh.items.len + of(o).victims.items.len);
}

/// A pool is true however empty.
fn boolean(_: *py.Object) callconv(.c) c_int {
    return 1;
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat("<Pool %p %zd>", o, length(o));
}

fn genericAlias(class: *py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    return py.genericAlias(class, item.?);
}

// ---- the collector ----

const callback: py.MethodDef = .{
    .name = "golibx_pools",
    .function = @ptrCast(&collected),
    .flags = py.METH_FASTCALL,
};

/// Appends to gc.callbacks. False with an exception set.
fn watch() bool {
    const callbacks = py.importFrom("gc", "callbacks") orelse return false;
    defer py.decref(callbacks);
    const function = py.PyCMethod_New(&callback, null, null, null) orelse return false;
    defer py.decref(function);
    if (py.PyList_Append(callbacks, function) != 0) return false;
    watching = true;
    return true;
}

/// Called with the phase, "start" or "stop", and a dict about the collection.
fn collected(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n == 2 and py.PyUnicode_CompareWithASCIIString(args[0], "stop") == 0) {
        const generation = py.PyDict_GetItemString(
            args[1],
            "generation",
        ) orelse return py.returnNone();
        if (py.PyLong_AsLongLong(generation) == 2) age();
    }
    return py.returnNone();
}

fn age() void {
    // What is let go may run code that makes and ends pools: first take it, then let it go.
    var old: std.ArrayList(List) = .empty;
    defer old.deinit(host.gpa);
    var it = all;
    while (it) |p| : (it = p.next) {
        if (p.victims.capacity != 0) {
            // Without memory for that, a pool keeps what it has.
            old.append(host.gpa, p.victims) catch break;
        }
        p.victims = p.fresh;
        p.fresh = .empty;
    }
    for (old.items) |*list| release(list);
}

const methods = [_]py.MethodDef{
    .{ .name = "get", .function = @ptrCast(&get), .flags = py.METH_NOARGS, .doc =
    \\get($self, /)
    \\--
    \\
    \\Takes an object out, the one that was put in last; or returns new(), or None without a `new`.
    },
    .{ .name = "put", .function = @ptrCast(&put), .flags = py.METH_O, .doc =
    \\put($self, x, /)
    \\--
    \\
    \\Puts an object in, which the caller must not use any more. Raises ValueError for None.
    },
    .{
        .name = "__class_getitem__",
        .function = @ptrCast(&genericAlias),
        .flags = py.METH_O | py.METH_CLASS,
        .doc = "Pool[T] in annotations.",
    },
    .{},
};
pub const table = points.Table.of(&methods);

pub const spec = O.spec("golibx.Pool", py.TPFLAGS_HAVE_GC, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverse) },
    .{ .slot = py.slot.tp_clear, .pfunc = @ptrCast(&clear) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.sq_length, .pfunc = @ptrCast(&length) },
    .{ .slot = py.slot.nb_bool, .pfunc = @ptrCast(&boolean) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Pool(new=None)
    \\--
    \\
    \\Keeps objects that are expensive to make for whoever needs one next, as Go's sync.Pool. What
    \\nobody takes is let go at the second full garbage collection.
    },
    .{},
});
