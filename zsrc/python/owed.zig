//! An exception that a goroutine was to raise, and that somebody has eaten: it is still owed.
//!
//! A Cancelled comes where the goroutine parks. That may be in a finalizer, a callback of a weak
//! reference, or other Python code that C code has called and whose exceptions it only reports
//! (sys.unraisablehook) or drops. Then the goroutine goes on as if nobody had cancelled it. So the
//! goroutine keeps what it raised (PyG.owed) until it parks again, and the exception's traceback
//! says what has become of it. Its outermost entry is the last frame that the exception came to:
//!
//! - That frame still runs: it handles the exception, in an `except` or `finally`, or has done so.
//! - It has ended by a `return`, or waits at a `yield`: it has handled it.
//! - It has ended at the instruction that raised: the exception left it, and no other frame has
//!   seen it. C code has eaten it, and the goroutine raises it again.
const std = @import("std");
const py = @import("py.zig");
const goroutine = @import("goroutine.zig");

const PyG = goroutine.PyG;

/// More frames than that are not looked through: then nothing is owed.
const most_frames = 10_000;
/// Of `__context__`, from the exception that is being handled.
const most_contexts = 100;

/// The instructions by which an exception goes on from a handler, once they are known.
var reraise: c_longlong = -1;
var raise_varargs: c_longlong = -1;

/// Remembers what `p` raises now. Borrows it.
pub fn note(p: *PyG, exception: *py.Object) void {
    const old = p.owed;
    p.owed = py.incref(exception);
    py.xdecref(old);
}

/// Where `p` parks, or is watched because it does not: has it raise again what was eaten.
pub noinline fn settle(p: *PyG) void {
    const exception = p.owed orelse return;
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    // An exception that propagates meanwhile is the same one, as far as this can tell.
    const fate: Fate = if (t != null) .open else fateOf(p, exception);
    if (fate == .open or p.owed != exception) return;
    p.owed = null;
    if (fate == .eaten and p.pending == null) {
        _ = py.PyException_SetTraceback(exception, py.none());
        p.pending = exception;
        return;
    }
    py.decref(exception);
}

const Fate = enum { open, handled, eaten };

fn fateOf(p: *PyG, exception: *py.Object) Fate {
    const state = p.state orelse py.PyThreadState_Get();
    const traceback = py.PyException_GetTraceback(exception) orelse return .handled;
    defer py.decref(traceback);
    const frame = py.PyObject_GetAttrString(traceback, "tb_frame") orelse return unknown();
    defer py.decref(frame);
    if (runs(state, frame))
        return if (state == py.PyThreadState_Get() and !isHandled(exception)) .handled else .open;
    const last = py.extra.PyFrame_GetLasti(@ptrCast(frame));
    const raised_at = number(traceback, "tb_lasti") orelse return unknown();
    if (last == raised_at) return .eaten;
    const instruction = instructionAt(frame, last) orelse return unknown();
    if (instruction[0] == reraise) return .eaten;
    return if (instruction[0] == raise_varargs and instruction[1] == 0) .eaten else .handled;
}

fn unknown() Fate {
    py.PyErr_Clear();
    return .handled;
}

/// Whether the frame is one that the thread state is in.
fn runs(state: *py.ThreadState, frame: *py.Object) bool {
    var at = py.PyThreadState_GetFrame(state);
    for (0..most_frames) |_| {
        const f = at orelse return false;
        defer py.decref(&f.ob);
        if (&f.ob == frame) return true;
        at = py.PyFrame_GetBack(f);
    }
    py.xdecref(@ptrCast(at));
    return true;
}

/// Whether the exception is being handled, or one that was raised meanwhile.
fn isHandled(exception: *py.Object) bool {
    var at = py.PyErr_GetHandledException();
    for (0..most_contexts) |_| {
        const e = at orelse return false;
        defer py.decref(e);
        if (e == exception) return true;
        at = py.PyException_GetContext(e);
    }
    py.xdecref(at);
    return true;
}

fn number(object: *py.Object, name: [*:0]const u8) ?c_longlong {
    const value = py.PyObject_GetAttrString(object, name) orelse return null;
    defer py.decref(value);
    return py.PyLong_AsLongLong(value);
}

/// The instruction's number and argument.
fn instructionAt(frame: *py.Object, at: c_int) ?[2]u8 {
    if (reraise < 0 and !learn()) return null;
    const code = py.PyFrame_GetCode(@ptrCast(frame));
    defer py.decref(code);
    const bytes = py.PyObject_GetAttrString(code, "co_code") orelse return null;
    defer py.decref(bytes);
    if (at < 0 or at + 1 >= py.PyBytes_Size(bytes)) return null;
    const text = py.PyBytes_AsString(bytes) orelse return null;
    return text[@intCast(at)..][0..2].*;
}

fn learn() bool {
    const numbers = py.importFrom("opcode", "opmap") orelse return false;
    defer py.decref(numbers);
    const raises = py.PyDict_GetItemString(numbers, "RAISE_VARARGS") orelse return false;
    const raises_again = py.PyDict_GetItemString(numbers, "RERAISE") orelse return false;
    raise_varargs = py.PyLong_AsLongLong(raises);
    reraise = py.PyLong_AsLongLong(raises_again);
    return true;
}
