//! Golibx's own functions in Python that nothing from outside cuts in two.
//!
//! The interpreter calls signal handlers between two lines, in golibx's code as well, and what they
//! raise comes there: a scope would be left with its children alive, a key stay in a table.
//! A handler may also call the very function that it interrupts, which has a lock.
//!
//! So the main goroutine counts what it is in the midst of that has to be whole: functions that
//! `whole` (`make`) has wrapped, and blocks of a Guard. Handlers are held back meanwhile
//! (signals.zig), and called by the main goroutine itself when it leaves the last one. They are
//! called sooner where it waits, since each wait is written to be left by an exception, and where a
//! function of the program's is called, by `openToSignals`. The wrapper is C, and has no line at
//! which a handler could come before or after the function; and a Guard is left before what is
//! raised then.
//!
//! Code of others that blocks in C has no place in such a function but by `openToSignals`: Ctrl-C
//! would not end it.
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("goroutine.zig");
const signals = @import("signals.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// What whole() returns: the function, as a method of a class too.
const Whole = extern struct {
    ob: py.Object,
    /// Without a tuple for its arguments, so that leaks() sees all that refers to them.
    vectorcall: *const @TypeOf(call),
    function: *py.Object,
    /// It is an `__enter__`: what is raised after it is raised in the block, which begins and ends.
    enters: bool,
};

/// types.MethodType
var method_type: ?*py.Object = null;

/// False with an exception set.
pub fn load() bool {
    method_type = py.importFrom("types", "MethodType");
    return method_type != null;
}

/// What a call of `o` runs, if that is the function of a Whole; else `o`.
pub inline fn functionOf(o: *py.Object) *py.Object {
    return if (o.type == Class.python_type) Class.of(o).function else o;
}

/// The calling goroutine begins something that has to be whole; null outside of goroutines.
pub inline fn begin() ?*PyG {
    const p = goroutine.of(lane.onThread() orelse return null);
    p.owes.whole += 1;
    return p;
}

/// It has ended it, maybe on another thread. False with an exception set, by a handler.
pub inline fn end(p: *PyG) bool {
    // In the child of a fork, what was begun in the parent may be left twice.
    if (p.owes.whole > 0) p.owes.whole -= 1;
    return p.owes.whole > 0 or signals.callHeld(p);
}

/// As `end`, where there is the result of a function, or an exception.
fn endWith(p: *PyG, result: ?*py.Object) ?*py.Object {
    const before: ?*py.Object = if (result == null) py.takeException() else null;
    return outcome(end(p), result, before);
}

/// What is raised by a handler after a function comes first. Takes the references.
fn outcome(goes_on: bool, result: ?*py.Object, before: ?*py.Object) ?*py.Object {
    if (goes_on) {
        if (before) |exception| py.restoreException(exception);
        return result;
    }
    py.xdecref(result);
    if (before) |exception| py.restoreException(errors.takeAfter(exception));
    return null;
}

fn call(o: *py.Object, args: ?py.Args, nargs: usize, names: ?*py.Object) callconv(.c) ?*py.Object {
    const w = Class.of(o);
    const p = begin() orelse return py.extra.PyObject_Vectorcall(w.function, args, nargs, names);
    const result = py.extra.PyObject_Vectorcall(w.function, args, nargs, names);
    if (!w.enters) return endWith(p, result);
    const manager = args.?[0];
    const entered = result orelse return endWith(p, null);
    // From 3.14 on the interpreter calls handlers between this and the block.
    const checked = if (py.PyErr_CheckSignals() == 0) entered else blk: {
        py.decref(entered);
        break :blk null;
    };
    if (endWith(p, checked)) |begun| return begun;
    leave(manager);
    return null;
}

fn callByTuple(o: *py.Object, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    return py.extra.PyVectorcall_Call(o, args, kwargs);
}

/// The exception that is set ends the block of `manager` at its very beginning.
fn leave(manager: *py.Object) void {
    const exception = py.takeException() orelse return;
    const exit = py.PyObject_GetAttrString(manager, "__exit__");
    defer py.xdecref(exit);
    const traceback = py.PyException_GetTraceback(exception) orelse py.incref(py.none());
    defer py.decref(traceback);
    const type_of: *py.Object = @ptrCast(exception.type);
    const swallowed = py.call(exit orelse return, &.{ type_of, exception, traceback }) orelse {
        // Raised by it, be it the same one again.
        return py.decref(exception);
    };
    py.decref(swallowed);
    py.restoreException(exception);
}

/// As a function's, for methods.
fn get(o: *py.Object, instance: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const of_class = instance == null or instance.? == py.none();
    return if (of_class) py.incref(o) else py.call(method_type.?, &.{ o, instance.? });
}

/// open_to_signals(function, /, *args, **kwargs)
pub fn openToSignals(given: class.Given) ?*py.Object {
    if (given.n < 1)
        return py.raise(py.exc.typeError(), "open_to_signals() needs a function", .{});
    const g = lane.onThread() orelse return given.after(1).call(given.args[0]);
    const p = goroutine.of(g);
    const depth = p.owes.whole;
    p.owes.whole = 0;
    defer p.owes.whole = depth;
    if (!signals.callHeld(p)) return null;
    return given.after(1).call(given.args[0]);
}

// ---- the type ----

/// whole(fn, /)
pub fn make(function: *py.Object) ?*py.Object {
    return makeWhole(function, false);
}

/// whole_enter(fn, /)
pub fn makeEnter(function: *py.Object) ?*py.Object {
    return makeWhole(function, true);
}

fn makeWhole(function: *py.Object, enters: bool) ?*py.Object {
    const o = py.PyType_GenericAlloc(Class.python_type, 0) orelse return null;
    const w = Class.of(o);
    w.vectorcall = call;
    w.function = py.incref(function);
    w.enters = enters;
    return o;
}

fn deinit(w: *Whole) void {
    py.decref(w.function);
}

/// One of the function's that tools look at.
fn attribute(comptime name: [:0]const u8) class.Property(Whole) {
    const F = struct {
        fn of(w: *Whole) ?*py.Object {
            return py.PyObject_GetAttrString(w.function, name);
        }
    };
    return class.property(name, F.of, "The function's.");
}

fn repr(w: *Whole) ?*py.Object {
    return py.PyUnicode_FromFormat("<whole %R>", w.function);
}

const members = [_]py.MemberDef{ .{
    .name = "__vectorcalloffset__",
    .type = py.T_PYSSIZET,
    .offset = @offsetOf(Whole, "vectorcall"),
    .flags = py.READONLY,
}, .{} };

pub const Class = class.Class(Whole, .{
    .name = "golibx._core.Whole",
    .doc = "A function that nothing cuts in two.",
    .repr = repr,
    .deinit = deinit,
    .flags = py.TPFLAGS_HAVE_VECTORCALL | py.TPFLAGS_METHOD_DESCRIPTOR,
    .slots = .{ .tp_call = callByTuple, .tp_descr_get = get, .tp_members = &members },
    .properties = &.{
        class.field(Whole, "__wrapped__", "function", "The function."),
        attribute("__name__"),
        attribute("__qualname__"),
        attribute("__doc__"),
    },
});
