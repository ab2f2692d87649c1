//! golibx.Pool: objects to be used again, as Go's sync.Pool.
//!
//! A pool keeps what was put into it until the collector has looked at everything twice without its
//! being taken out: what is left after a full collection becomes the *victims*, and the victims of
//! the one before are let go. So a pool follows the demand, and cannot be a leak. Collections are
//! seen by an entry in gc.callbacks, which the first pool puts there.
const std = @import("std");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");

const List = std.ArrayList(*py.Object);

const Pool = struct {
    new: ?*py.Object,
    fresh: List = .empty,
    victims: List = .empty,
    prev: ?*Pool = null,
    next: ?*Pool = null,
};

var all: ?*Pool = null;
var watching = false;

fn new(t: *py.Type, given: ?*py.Object) ?*py.Object {
    const make = if (given == py.none()) null else given;
    if (make) |f| if (py.PyCallable_Check(f) == 0)
        return py.PyErr_Format(
            py.exc.typeError(),
            "new of a Pool must be callable or None, not %R",
            f,
        );
    if (!watching and !watch()) return null;
    const o = class.make(t, Pool{ .new = if (make) |f| py.incref(f) else null }) orelse {
        py.xdecref(make);
        return null;
    };
    const p = Class.of(o);
    p.next = all;
    if (all) |head| head.prev = p;
    all = p;
    return o;
}

fn traverse(p: *Pool, v: class.Visitor) c_int {
    const r = v.all(&.{p.new});
    if (r != 0) return r;
    for ([_][]const *py.Object{ p.fresh.items, p.victims.items }) |items| for (items) |item| {
        const visited = v.all(&.{item});
        if (visited != 0) return visited;
    };
    return 0;
}

fn clear(p: *Pool) void {
    py.clear(&p.new);
    release(&p.fresh);
    release(&p.victims);
}

/// What ends there may use the pool.
fn release(list: *List) void {
    var items = list.*;
    list.* = .empty;
    for (items.items) |item| py.decref(item);
    items.deinit(host.gpa);
}

fn deinit(p: *Pool) void {
    if (p.prev) |before| before.next = p.next else all = p.next;
    if (p.next) |after| after.prev = p.prev;
    clear(p);
}

fn get(p: *Pool) ?*py.Object {
    if (p.fresh.pop() orelse p.victims.pop()) |item| return item;
    const make = p.new orelse return py.returnNone();
    // The pool may end in the call.
    _ = py.incref(make);
    defer py.decref(make);
    return py.call(make, &.{});
}

fn put(p: *Pool, item: *py.Object) ?*py.Object {
    if (item == py.none()) return py.raise(
        py.exc.valueError(),
        "None cannot be put into a Pool: get() returns it when there is nothing",
        .{},
    );
    p.fresh.append(host.gpa, item) catch return py.PyErr_NoMemory();
    _ = py.incref(item);
    return py.returnNone();
}

fn length(p: *Pool) ?usize {
    return p.fresh.items.len + p.victims.items.len;
}

fn repr(p: *Pool) ?*py.Object {
    return py.print("<Pool 0x{x} {d}>", .{ class.addressOf(p), length(p).? });
}

// ---- the collector ----

const callback: py.MethodDef = .of("golibx_pools", .{ .fast = collected }, null);

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

pub const Class = class.Class(Pool, .{
    .name = "golibx.Pool",
    .doc =
    \\Keeps objects that are expensive to make for the next that needs one, as Go's sync.Pool. What
    \\is not taken is let go at the second full garbage collection.
    ,
    .new = class.constructor("Pool(new=None)", new),
    .generic = "Pool[T] in annotations.",
    .repr = repr,
    .len = length,
    .traverse = traverse,
    .clear = clear,
    .deinit = deinit,
    .methods = &.{
        class.method("get()", get,
            \\Takes an object out, the one that was put in last; or returns new(), or None without a
            \\`new`.
        ),
        class.method("put(x, /)", put,
            \\Puts an object in, which the caller must not use any more. Raises ValueError for None.
        ),
    },
});
