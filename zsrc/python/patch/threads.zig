//! Threads that a program starts in a goroutine, as goroutines.
//!
//! threading stands on a few functions of the module `_thread`, and so does whoever calls them.
//! These are replaced, so that Thread is the program's own class, with all that it promises. What
//! each does instead is Python code (golibx/patch/goroutine_threads.py), which returns
//! NotImplemented where a thread is to be one. Service goroutines start threads: what they run is
//! no part of the program.
//!
//! From Python 3.13 on a Thread has a handle of C's, which knows what has become of the thread.
//! That of a goroutine is told that its thread runs (`beginHandle`), and by its own `_set_done()`
//! that it has ended, which wakes threads that wait for that. Where its two words lie is found by
//! handles in states that are known. If they are not found, threads stay threads.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const identity = @import("../host/identity.zig");
const replace = @import("../host/replace.zig");

const lane = &host.the_lane;

/// By the names of what is replaced; null while threads are threads.
var functions: ?*py.Object = null;
var not_implemented: *py.Object = undefined;

/// set_thread_functions(functions, /)
pub fn setFunctions(given: *py.Object) ?*py.Object {
    if (given != py.none()) {
        if (py.PyDict_Size(given) < 0) return null;
        // It lives as long as the interpreter.
        not_implemented = py.importFrom("builtins", "NotImplemented") orelse return null;
        py.decref(not_implemented);
    }
    const old = functions;
    functions = if (given == py.none()) null else py.incref(given);
    py.xdecref(old);
    return py.returnNone();
}

/// In the child of a fork, which goes on outside of the run.
pub fn forget() void {
    functions = null;
}

inline fn applies() bool {
    return functions != null and identity.inGoroutine();
}

fn Replaced(comptime path: [:0]const u8) type {
    return struct {
        const is_method = std.mem.indexOfScalar(u8, path, '.') != null;
        const It = replace.Replacement("_thread", path, applies, call);

        fn call(c: replace.Call) ?*py.Object {
            if (lane.onThread()) |g| if (g.system) return It.callOriginal(c);
            const known = functions.?;
            const function = py.PyDict_GetItemString(known, path) orelse return It.callOriginal(c);
            // It may be the last that has it, when it ends.
            _ = py.incref(function);
            defer py.decref(function);
            const result = callWith(function, c) orelse return null;
            if (result != not_implemented) return result;
            py.decref(result);
            return It.callOriginal(c);
        }

        fn callWith(function: *py.Object, c: replace.Call) ?*py.Object {
            const n: usize = @intCast(c.n);
            if (!is_method) return py.extra.PyObject_Vectorcall(function, c.args, n, c.names);
            const named: usize = if (c.names) |names| @intCast(py.PyTuple_Size(names)) else 0;
            const given = n + named;
            var args: [most_args]*py.Object = undefined;
            if (given >= args.len) return py.incref(not_implemented);
            args[0] = c.self.?;
            @memcpy(args[1 .. given + 1], c.args[0..given]);
            return py.extra.PyObject_Vectorcall(function, &args, n + 1, c.names);
        }
    };
}

/// report_thread_error(function, error, /)
pub fn reportError(function: *py.Object, exception: *py.Object) ?*py.Object {
    if (!isException(exception)) return null;
    py.restoreException(py.incref(exception));
    if (py.extra.PyErr_FormatUnraisable) |report|
        report("Exception ignored in thread started by %R", function)
    else if (py.extra._PyErr_WriteUnraisableMsg) |report|
        report("in thread started by", function)
    else
        py.PyErr_WriteUnraisable(function);
    return py.returnNone();
}

/// report_shutdown_error(error, /)
pub fn reportShutdownError(exception: *py.Object) ?*py.Object {
    if (!isException(exception)) return null;
    const threading = py.PyImport_ImportModule("threading") orelse return null;
    defer py.decref(threading);
    py.restoreException(py.incref(exception));
    if (py.extra.PyErr_FormatUnraisable) |report|
        report("Exception ignored on threading shutdown %R", threading)
    else
        py.PyErr_WriteUnraisable(threading);
    return py.returnNone();
}

/// False with an exception set.
fn isException(o: *py.Object) bool {
    if (py.PyErr_GivenExceptionMatches(o, py.exc.baseException()) != 0) return true;
    _ = py.raise(py.exc.typeError(), "an error to report is an exception", .{});
    return false;
}

/// More are refused by the original.
const most_args = 8;

/// How many there are: those, and the ones of the operating system.
const Count = replace.Replacement("_thread", "_count", applies, count);

fn count(c: replace.Call) ?*py.Object {
    const threads = Count.callOriginal(c) orelse return null;
    const function = py.PyDict_GetItemString(functions.?, "_count") orelse return threads;
    defer py.decref(threads);
    return py.call(function, &.{threads});
}

/// Python 3.12 has no handles.
const JoinOfHandle = struct {
    const It = Replaced("_ThreadHandle.join").It;

    pub fn install() replace.Error!void {
        return if (layout == null) error.Missing else It.install();
    }

    pub fn restore() void {
        It.restore();
    }
};

pub const all = .{
    Replaced("start_new_thread").It,
    Replaced("start_new").It,
    Replaced("start_joinable_thread").It,
    JoinOfHandle,
    Replaced("_set_sentinel").It,
    Replaced("_excepthook").It,
    Replaced("set_name").It,
    Replaced("_get_name").It,
    Count,
};

// ---- handles ----

/// Where in what a handle points to, in bytes, and what the second is then.
const Layout = struct {
    ident: usize,
    state: usize,
    not_started: u32,
    running: u32,
};

var layout: ?Layout = null;

/// What Python has for a handle's memory.
const Handle = extern struct {
    ob: py.Object,
    inner: [*]const u8,
};

/// Bytes of it that are looked at.
const most_bytes = 64;

/// Whether it is, or this version has none. Null with an exception set.
pub fn layoutIsKnown() ?bool {
    const class = py.importFrom("_thread", "_ThreadHandle") orelse {
        py.PyErr_Clear();
        return true;
    };
    defer py.decref(class);
    if (layout == null) layout = (find(class) catch return null);
    return layout != null;
}

fn find(class: *py.Object) error{Raised}!?Layout {
    const make = py.importFrom("_thread", "_make_thread_handle") orelse return error.Raised;
    defer py.decref(make);
    const new = py.call(class, &.{}) orelse return error.Raised;
    defer py.decref(new);
    defer py.decref(new);
    const known = [_]u64{ 0x5a5a_1234_5678, 0x6b6b_8765_4321 };
    var made: [2]*py.Object = undefined;
    for (&made, known, 0..) |*each, ident, i| {
        const number = py.PyLong_FromUnsignedLongLong(ident) orelse return error.Raised;
        defer py.decref(number);
        each.* = py.call(make, &.{number}) orelse {
            if (i > 0) py.decref(made[0]);
            return error.Raised;
        };
    }
    defer for (made) |each| py.decref(each);
    const ident_at = found: {
        var found: ?usize = null;
        var at: usize = 0;
        while (at < most_bytes) : (at += 8) {
            if (word(u64, made[0], at) != known[0] or word(u64, made[1], at) != known[1]) continue;
            if (found != null) return null;
            found = at;
        }
        break :found found orelse return null;
    };
    const running = bytesOf(made[0]);
    const others = bytesOf(made[1]);
    const end = py.PyObject_GetAttrString(made[0], "_set_done") orelse return error.Raised;
    defer py.decref(end);
    py.decref(py.call(end, &.{}) orelse return error.Raised);
    var result: ?Layout = null;
    var at: usize = 0;
    while (at < most_bytes) : (at += 4) {
        if (at >= ident_at and at < ident_at + 8) continue;
        const states = [_]u32{
            word(u32, new, at),
            std.mem.readInt(u32, running[at..][0..4], .little),
            word(u32, made[0], at),
        };
        if (std.mem.readInt(u32, others[at..][0..4], .little) != states[1]) continue;
        if (!(states[0] < states[1] and states[1] < states[2] and states[2] < 16)) continue;
        if (result != null) return null;
        result = .{
            .ident = ident_at,
            .state = at,
            .not_started = states[0],
            .running = states[1],
        };
    }
    return result;
}

fn bytesOf(handle: *py.Object) [most_bytes]u8 {
    const h: *Handle = @ptrCast(handle);
    return h.inner[0..most_bytes].*;
}

fn word(comptime T: type, handle: *py.Object, at: usize) T {
    const bytes = bytesOf(handle);
    return std.mem.readInt(T, bytes[at..][0..@sizeOf(T)], .little);
}

/// begin_thread_handle(handle, ident, /)
pub fn beginHandle(handle: *py.Object, ident: i64) ?*py.Object {
    const class = py.importFrom("_thread", "_ThreadHandle") orelse return null;
    defer py.decref(class);
    const l = layout orelse
        return py.raise(py.exc.runtimeError(), "handles of threads are not known here", .{});
    if (@as(*py.Object, @ptrCast(handle.type)) != class)
        return py.raise(py.exc.typeError(), "begin_thread_handle() needs a _ThreadHandle", .{});
    const inner = @constCast(@as(*Handle, @ptrCast(handle)).inner);
    const state: *u32 = @ptrCast(@alignCast(inner + l.state));
    const where: *u64 = @ptrCast(@alignCast(inner + l.ident));
    const now = @atomicLoad(u32, state, .seq_cst);
    const is_to_learn = ident != 0 and now == l.running and @atomicLoad(u64, where, .seq_cst) == 0;
    if (!is_to_learn and now != l.not_started) return py.boolean(false);
    @atomicStore(u64, where, @bitCast(ident), .seq_cst);
    @atomicStore(u32, state, l.running, .seq_cst);
    return py.boolean(true);
}
