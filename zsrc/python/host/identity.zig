//! What Python code takes for a thread is the goroutine: get_ident(), current_thread() and what is
//! built on them.
//!
//! Thread-local data is the goroutine's already, since it lies in the thread state. So is the
//! number that the interpreter knows the thread state by (host.zig), and get_ident() returns that.
//! The main goroutine has that of the thread that called run(), wherever it runs. get_native_id()
//! tells of the operating system's thread.
//!
//! C code asks PyThread_get_thread_ident(): sqlite3 keeps a connection's, multiprocessing's locks
//! their owner's. In extension modules that call is redirected (`Redirect`), in those that are
//! loaded later as soon as they are. The interpreter's own C asks the operating system: its
//! re-entrant locks are in rlock.zig, its checks for the main thread mean the thread. Where such a
//! module is part of the interpreter's binary, as some distributors have it, it takes goroutines
//! for their threads.
//!
//! threading.current_thread() makes an object up for a thread that it does not know. For a
//! goroutine that is one of golibx/patch/threads.py's, made when the program asks; `keepThread` has
//! it go with the goroutine.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const idents = @import("idents.zig");
const m_mod = @import("../../serial/m.zig");
const goroutine = @import("goroutine.zig");
const replace = @import("replace.zig");
const fork = @import("../run/fork.zig");

const lane = &host.the_lane;
const PyG = goroutine.PyG;

inline fn always() bool {
    return true;
}

pub inline fn inGoroutine() bool {
    return host.goroutineIdent() != null;
}

const GetIdent = replace.Replacement("_thread", "get_ident", inGoroutine, getIdent);

fn getIdent(_: replace.Call) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(host.goroutineIdent().?);
}

/// From Python 3.13 on the thread object of a forked child's only thread is made for that number.
const GetMainThreadIdent = replace.Replacement(
    "_thread",
    "_get_main_thread_ident",
    inForkOfGoroutine,
    getIdent,
);

/// In the process that called run(), or where that is not known yet.
var process: i32 = 0;

inline fn inForkOfGoroutine() bool {
    return process != os.processId() and inGoroutine();
}

const PthreadKill = replace.Replacement("_signal", "pthread_kill", always, pthreadKill);

/// Interrupts what a goroutine does as it would what a thread does. One that waits has none: the
/// main thread gets the signal, on which Python's handlers run.
fn pthreadKill(c: replace.Call) ?*py.Object {
    if (c.n != 2) return PthreadKill.callOriginal(c);
    const ident = py.PyLong_AsUnsignedLongLong(c.args[0]);
    if (fork.threadOf(ident)) |thread| return killThread(c, thread);
    if (ident > std.math.maxInt(idents.Ident) or !idents.has(@intCast(ident))) {
        py.PyErr_Clear();
        return PthreadKill.callOriginal(c);
    }
    const p = host.goroutineOf(@intCast(ident)) orelse {
        // What there is to say of threads that have ended.
        const number = py.PyLong_FromLongLong(@backingInt(std.c.E.SRCH)) orelse return null;
        defer py.decref(number);
        const text = py.PyUnicode_FromString("No such process") orelse return null;
        defer py.decref(text);
        const e = py.call(py.exc.osError(), &.{ number, text }) orelse return null;
        py.restoreException(e);
        return null;
    };
    const thread = lane.threadOf(&p.g) orelse lane.m0.thread.?;
    return killThread(c, @intFromPtr(thread.handle));
}

fn killThread(c: replace.Call, ident: idents.Ident) ?*py.Object {
    const number = py.PyLong_FromUnsignedLongLong(ident) orelse return null;
    defer py.decref(number);
    const args = [_]*py.Object{ number, c.args[1] };
    return PthreadKill.callOriginal(.{ .self = c.self, .args = &args, .n = 2 });
}

/// For C code, with or without the interpreter's lock.
fn threadIdent() callconv(.c) c_ulong {
    if (m_mod.current()) |m| if (m.curg) |g| if (goroutine.of(g).state) |state|
        return fork.knownNumber(state);
    const number = fork.threadNumber();
    return if (number != idents.none) number else py.PyThread_get_thread_ident();
}

const CurrentFrames =
    replace.Replacement("sys", "_current_frames", fork.isRenumbered, currentFrames);
const CurrentExceptions = replace.Replacement(
    "sys",
    "_current_exceptions",
    fork.isRenumbered,
    currentExceptions,
);

fn currentFrames(c: replace.Call) ?*py.Object {
    return fork.withKnownNumbers(CurrentFrames.callOriginal, c);
}

fn currentExceptions(c: replace.Call) ?*py.Object {
    return fork.withKnownNumbers(CurrentExceptions.callOriginal, c);
}

pub var redirect: os.imports.Redirect =
    .{ .name = "PyThread_get_thread_ident", .from = 0, .to = 0 };

const CreateDynamic = replace.Replacement("_imp", "create_dynamic", always, createDynamic);

/// An extension module is loaded.
fn createDynamic(c: replace.Call) ?*py.Object {
    const module = CreateDynamic.callOriginal(c);
    // Subinterpreters have locks of their own.
    if (py.PyInterpreterState_Get() == host.interpreter) redirect.scan();
    return module;
}

/// Also without a run, to know whether it can be done.
pub fn redirectCalls() bool {
    if (!os.imports.supported) return true;
    redirect.from = @intFromPtr(&py.PyThread_get_thread_ident);
    redirect.to = @intFromPtr(&threadIdent);
    redirect.scan();
    CreateDynamic.install() catch return false;
    return true;
}

/// Before a run. False with an exception set.
pub fn setUp() bool {
    process = os.processId();
    if (!redirectCalls()) return false;
    GetIdent.install() catch return false;
    GetMainThreadIdent.install() catch |e| if (e == error.Raised) return false;
    if (builtin.os.tag == .windows) return true;
    PthreadKill.install() catch |e| if (e == error.Raised) return false;
    CurrentFrames.install() catch |e| if (e == error.Raised) return false;
    CurrentExceptions.install() catch |e| if (e == error.Raised) return false;
    return true;
}

/// in_goroutine(): whether get_ident() is a goroutine's own number.
pub fn hasOwnIdent() bool {
    const ident = host.goroutineIdent() orelse return false;
    return idents.has(ident);
}

/// threading._active, owned.
var active: ?*py.Object = null;

/// keep_thread(active, thread, /): see golibx._core.
pub fn keepThread(threads: *py.Object, thread: *py.Object) ?*py.Object {
    const ident = host.goroutineIdent() orelse idents.none;
    const g = lane.onThread();
    if (g == null or !idents.has(ident))
        return py.raise(
            py.exc.runtimeError(),
            "the caller is no goroutine with an ident of its own",
            .{},
        );
    const key = py.PyLong_FromUnsignedLongLong(ident) orelse return null;
    defer py.decref(key);
    if (py.PyDict_SetItem(threads, key, thread) != 0) return null;
    const before = active;
    active = py.incref(threads);
    py.xdecref(before);
    goroutine.of(g.?).thread = key;
    _ = py.incref(key);
    return py.returnNone();
}

/// Has threading know the calling goroutine, as it does every thread that it starts.
pub fn makeThread() void {
    const current_thread = py.importFrom("threading", "current_thread") orelse
        return py.PyErr_Clear();
    defer py.decref(current_thread);
    if (py.call(current_thread, &.{})) |thread| py.decref(thread) else py.PyErr_Clear();
}

/// At a goroutine's end, with its thread state: its thread object can't be found any more. What
/// that runs may ask for another.
pub noinline fn forgetThread(p: *PyG) void {
    const most_turns = 8; // what goes on for longer never ends
    for (0..most_turns) |_| {
        const key = p.thread orelse return;
        p.thread = null;
        if (py.PyDict_DelItem(active.?, key) != 0) py.PyErr_Clear(); // other code did
        py.decref(key);
    }
}
