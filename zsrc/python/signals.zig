//! Signal handlers of the program's: they are the main goroutine's business, whoever is on the main
//! thread.
//!
//! The interpreter calls a handler on the main thread, between two bytecodes or in a call that the
//! signal interrupted, and what it raises is raised there. That thread runs other goroutines too.
//! So while a run lasts, each handler that the interpreter knows is wrapped in a `Handler`
//! (golibx.patch.signals). Called in the main goroutine, that calls the program's handler. Called
//! anywhere else it puts it into a queue, which a goroutine of the runtime's own, the runner,
//! empties before all others go on.
//!
//! While the main goroutine does not run, the runner borrows its thread state: a handler sees the
//! frame that it interrupts, what that has in thread-local data and context variables, and the
//! exception that it handles. The main goroutine, should it be woken meanwhile, goes on when the
//! runner is done (Lane.held), as a thread does when its handlers have returned. Where main is in a
//! blocking call on another thread its thread state is in use there, and the runner has one of its
//! own. What a handler raises, the main goroutine raises where it is.
const std = @import("std");
const os = @import("../os/os.zig");
const m_mod = @import("../sched/m.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const preempt = @import("preempt.zig");
const recursion = @import("recursion.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// golibx._core.SignalHandler: a handler of the program's, as the interpreter has it.
const Handler = extern struct {
    ob: py.Object,
    function: *py.Object,
};

pub var handler_type: *py.Type = undefined;

/// How many signals have a handler of the program's: while there is one, no wait is for ever.
var hopes: usize = 0;

/// hope_for_signals(count)
pub fn setHopes(_: ?*py.Object, count: ?*py.Object) callconv(.c) ?*py.Object {
    const n = py.PyLong_AsLongLong(count.?);
    if (n == -1 and py.PyErr_Occurred() != null) return null;
    hopes = @intCast(@max(0, n));
    return py.returnNone();
}

pub fn hopeFor() bool {
    return hopes > 0;
}

/// A call that is to be made.
const Call = struct { function: *py.Object, number: *py.Object };
var queue: std.ArrayList(Call) = .empty;
/// The goroutine that makes them, from its creation to its end.
var runner: ?*PyG = null;
/// It has the main goroutine's thread state.
var borrows = false;

fn call(o: *py.Object, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const h: *Handler = @ptrCast(o);
    const function = py.incref(h.function);
    defer py.decref(function);
    if (!isForMain(args)) return py.PyObject_Call(function, args, kwargs);
    const number = py.PyTuple_GetItem(args, 0) orelse return null;
    if (add(function, number)) return py.returnNone();
    // There is no memory for the runner: it is called here, and raises there all the same.
    const result = py.PyObject_Call(function, args, kwargs) orelse {
        throwToMain(py.takeException() orelse return py.returnNone());
        return py.returnNone();
    };
    return result;
}

/// Whether the caller, a thread of the present run, is not the main goroutine, nor the runner in
/// the midst of another handler.
fn isForMain(args: *py.Object) bool {
    if (goroutine.main == null or py.PyTuple_Size(args) < 1) return false;
    const m = m_mod.current() orelse return false;
    if (!lane.owns(m)) return false;
    const p = goroutine.of(m.curg orelse return true);
    return p != goroutine.main and !p.runs_handlers;
}

fn add(function: *py.Object, number: *py.Object) bool {
    queue.ensureUnusedCapacity(host.gpa, 1) catch return false;
    if (runner == null) {
        const p = goroutine.create(&handler_type.ob, @ptrCast(&function), 0, null, true) catch {
            py.PyErr_Clear();
            return false;
        };
        p.runs_handlers = true;
        p.g.placed = true;
        runner = p;
        py.decref(goroutine.launchFirst(p));
    }
    queue.appendAssumeCapacity(.{ .function = py.incref(function), .number = py.incref(number) });
    // Whoever was interrupted is not to finish its slice first.
    if (lane.running) |g| preempt.arm(goroutine.of(g));
    return true;
}

// ---- channels of signals, golibx.signal ----

/// take_signal(number, disposition)
pub fn takeSignal(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 2) return py.raise(py.exc.typeError(), "take_signal() takes 2 arguments ({d} given)", .{n});
    const number = py.PyLong_AsLongLong(args[0]);
    const disposition = py.PyLong_AsLongLong(args[1]);
    if (py.PyErr_Occurred() != null) return null;
    const known = disposition >= 0 and disposition <= 2 and number > 0;
    if (!known or !os.takeSignal(@intCast(number), switch (disposition) {
        0 => .as_before,
        1 => .written,
        else => .ignored,
    })) return py.raise(py.exc.valueError(), "signal {d} cannot be caught or ignored", .{number});
    return py.returnNone();
}

/// write_signals(fd)
pub fn writeSignals(_: ?*py.Object, fd: ?*py.Object) callconv(.c) ?*py.Object {
    const value = py.PyLong_AsLongLong(fd.?);
    if (value == -1 and py.PyErr_Occurred() != null) return null;
    os.writeSignals(@intCast(value));
    return py.returnNone();
}

// ---- the runner ----

/// Whether the main goroutine's thread state is free. With the lock.
pub fn canBorrow() bool {
    const g = &(goroutine.main orelse return false).g;
    const rests = g.sp != 0 and g.m == null and (g.status == .waiting or g.status == .runnable);
    return rests and g.locked_m == null and lane.main_g == g;
}

/// Gives it to the runner.
pub fn borrow(p: *PyG) void {
    const main = goroutine.main.?;
    p.state = main.state;
    borrows = true;
    lane.held = &main.g;
}

/// The runner's body, in the place of a function's call.
pub fn runAll() void {
    // A goroutine parks with no exception set; but finalizers may park.
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    while (queue.items.len > 0) {
        const next = queue.orderedRemove(0);
        if (!make(next)) throwToMain(py.takeException() orelse continue);
    }
    py.PyErr_Restore(t, v, tb);
    runner = null;
}

/// The runner ends, as far as Python can tell: what it has borrowed goes back. True if it had.
pub fn giveBack(p: *PyG) bool {
    if (!borrows) return false;
    borrows = false;
    preempt.withdraw(p);
    recursion.settle(p);
    const main = goroutine.main.?;
    host.tellStack(main.state.?, main.g.stack);
    p.state = null;
    lane.letGo();
    return true;
}

/// There was no memory for its stack.
pub fn refuse() void {
    runner = null;
}

/// False with an exception set.
fn make(next: Call) bool {
    defer {
        py.decref(next.function);
        py.decref(next.number);
    }
    const frame: *py.Object = frame: {
        const main = goroutine.main orelse break :frame py.incref(py.none());
        const innermost = py.PyThreadState_GetFrame(main.state.?) orelse
            break :frame py.incref(py.none());
        break :frame @ptrCast(innermost);
    };
    defer py.decref(frame);
    const result = py.call(next.function, &.{ next.number, frame }) orelse return false;
    py.decref(result);
    return true;
}

/// Of a handler. Takes the reference.
fn throwToMain(exception: *py.Object) void {
    const main = goroutine.main orelse return py.decref(exception);
    if (main.pending == null) return interruptMain(exception);
    goroutine.throwLater(main, exception) catch py.decref(exception);
}

/// Has the main goroutine raise the exception, wherever it is, unless it is to raise one already.
/// Takes the reference.
pub fn interruptMain(exception: *py.Object) void {
    const main = goroutine.main orelse return py.decref(exception);
    const parked = main.g.status == .waiting or main.g.status == .parking;
    goroutine.interrupt(main, exception);
    if (!parked) preempt.hurry(main);
}

/// After a run: makes the calls that its end has overtaken. False with an exception set.
pub fn endRun() bool {
    runner = null;
    borrows = false;
    while (queue.items.len > 0) {
        if (!make(queue.orderedRemove(0))) return false;
    }
    queue.clearAndFree(host.gpa);
    return true;
}

// ---- the type ----

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (kwargs != null or py.PyTuple_Size(args) != 1)
        return py.raise(py.exc.typeError(), "SignalHandler() takes one argument", .{});
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    const h: *Handler = @ptrCast(o);
    h.function = py.incref(py.PyTuple_GetItem(args, 0).?);
    return o;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const h: *Handler = @ptrCast(o);
    py.decref(h.function);
    py.freeObject(o);
}

fn getFunction(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h: *Handler = @ptrCast(o);
    return py.incref(h.function);
}

const getset = [_]py.GetSetDef{
    .{ .name = "function", .get = getFunction, .doc = "The program's handler." },
    .{},
};

pub const spec: py.TypeSpec = .{
    .name = "golibx._core.SignalHandler",
    .basicsize = @sizeOf(Handler),
    .flags = py.TPFLAGS_DEFAULT,
    .slots = &[_]py.Slot{
        .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
        .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
        .{ .slot = py.slot.tp_call, .pfunc = @ptrCast(&call) },
        .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
        .{ .slot = py.slot.tp_doc, .pfunc = "SignalHandler(function, /)\n--\n\n" ++
            "A handler of signals that has function called as the main goroutine's." },
        .{},
    },
};
