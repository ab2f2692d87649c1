//! The main thread: what only that may do, and how it is freed.
//!
//! The interpreter lets only the main thread set signal handlers and call them, and knows it by its
//! number, in _PyRuntime. C functions look for signals when one has interrupted them, and their
//! callers expect that the handlers have been called when they return. So the number is that of the
//! thread that the main goroutine was last put on (`follow`); while it is on none it may lie
//! behind, since handlers that no thread calls are called on the thread that hears of the signal
//! (`callHandlers`). That one passes for the main thread for a moment, and so does a thread on
//! which another goroutine does what only the main thread may (`callAsMain`). golibx finds where
//! the number lies by what the interpreter says when it is another (`learn`).
//!
//! At its end, run() returns on the thread that called it, and a goroutine that was given up may be
//! in a C call there. A signal ends the call, if it asks for signals when a system call was
//! interrupted, as CPython's own do; the handler raises Cancelled in it then. But the interpreter
//! also runs handlers between two lines, where nothing may be raised: the call may just have
//! returned. So the first signal raises nothing. It notes where its handler was called from, and
//! has the interpreter make a pending call, which it does only where it would run handlers between
//! two lines. If that has not happened when the next signal is handled, at the same stack depth and
//! instruction, the handler was called by the same C call as before, which has gone on meanwhile. A
//! lock's acquire() makes pending calls too before it waits on. It is known by the function on the
//! stack that does so for C code, which is found by what calls a handler when golibx makes pending
//! calls itself (`learnCalls`).
//!
//! A goroutine that makes one short call after the other, and goes on whatever is raised in them,
//! is preempted between two lines instead, and goes on on a thread of its own (`makeWay`).
const std = @import("std");
const os = @import("../../os/os.zig");
const m_mod = @import("../../serial/m.zig");
const class = @import("../class.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("goroutine.zig");
const deadlock = @import("../run/deadlock.zig");
const preempt = @import("preempt.zig");
const signals = @import("signals.zig");
const G = @import("../../serial/g.zig").G;
const M = m_mod.M;

const lane = &host.the_lane;

// ---- what only the main thread may do ----

/// Where the interpreter has the main thread's number, and that of the process's main thread.
var main_number: ?*c_ulong = null;
var first: c_ulong = 0;
/// The M that the main goroutine was last put on, with its thread's number; null for the run's own.
var carrier: ?*M = null;
var carrier_number: c_ulong = 0;
/// It lies within the first 4 KiB of 3.11 to 3.15.
const most_words = 512;

/// learn_main_thread(function): finds out where the main thread's number lies. `function` is
/// signal.signal() as the interpreter has it; on the main thread.
pub fn learn(function: *py.Object) void {
    if (main_number != null) return;
    const runtime = os.symbol("_PyRuntime") orelse return;
    const words: [*]c_ulong = @ptrCast(@alignCast(runtime));
    const own = py.PyThread_get_thread_ident();
    for (words[0..most_words]) |*word| {
        if (word.* != own) continue;
        word.* = own +% 1;
        const refused = isRefused(function);
        word.* = own;
        if (!refused) continue;
        main_number = word;
        first = own;
        break;
    }
}

/// Whether it refuses the thread. It looks at that before the signal, and there is no signal 0.
fn isRefused(function: *py.Object) bool {
    const zero = py.PyLong_FromLongLong(0) orelse return false;
    defer py.decref(zero);
    if (py.call(function, &.{ zero, zero })) |r| {
        py.decref(r);
        return false;
    }
    const exception = py.takeException() orelse return false;
    defer py.decref(exception);
    const text = py.PyObject_Str(exception) orelse return false;
    defer py.decref(text);
    var len: py.Ssize = 0;
    const chars = py.PyUnicode_AsUTF8AndSize(text, &len) orelse return false;
    return std.mem.indexOf(u8, chars[0..@intCast(len)], "main thread") != null;
}

/// call_as_main_thread(function, *args): calls it; for a goroutine as on the main thread, if that
/// has called run(): which thread it is on is an accident. For all others that is the process's.
pub fn callAsMain(given: class.Given) ?*py.Object {
    if (given.n < 1)
        return py.raise(py.exc.typeError(), "call_as_main_thread() needs a function", .{});
    const word = main_number orelse return given.after(1).call(given.args[0]);
    const g = if (deadlock.on_main_thread) lane.here() else null;
    if (g) |own| own.no_preempt += 1;
    defer if (g) |own| {
        own.no_preempt -= 1;
    };
    const own = py.PyThread_get_thread_ident();
    word.* = if (g != null or own == handling) own else first;
    defer settle();
    return given.after(1).call(given.args[0]);
}

/// No handler is called on the main thread: what it does must not be left half done.
var undisturbed = false;

/// call_undisturbed(function): calls it; handlers that are due meanwhile are called afterwards.
/// Other functions that look for signals on the main thread must not be among what it calls.
pub fn callUndisturbed(function: *py.Object) ?*py.Object {
    // A thread of 3.11 that is traced looks for ever, at the start of a function, for what it may
    // not call: debuggers have the handlers called as they come.
    if (preempt.isTraced(py.PyThreadState_Get())) return py.call(function, &.{});
    // Those that are due already are called first.
    var raised = raisedByHandlers(null);
    const result = callAside(function);
    if (result == null) if (py.takeException()) |later| if (raised) |exception| {
        errors.follow(exception, later);
        py.decref(later);
    } else {
        raised = later;
    };
    // The interpreter has looked for those that came meanwhile, and not called them: it does not
    // look again.
    raised = raisedByHandlers(raised);
    const exception = raised orelse return result;
    py.xdecref(result);
    py.restoreException(exception);
    return null;
}

/// What they raise, which tells of `before`; else that. Takes the reference to it.
fn raisedByHandlers(before: ?*py.Object) ?*py.Object {
    if (undisturbed or py.PyErr_CheckSignals() == 0) return before;
    return errors.takeAfter(before);
}

fn callAside(function: *py.Object) ?*py.Object {
    const outer = undisturbed;
    undisturbed = true;
    settle();
    defer {
        undisturbed = outer;
        settle();
    }
    return py.call(function, &.{});
}

/// Whether any thread of the run's may call handlers.
pub fn isKnown() bool {
    return main_number != null and deadlock.on_main_thread and host.Host.signalsWatched();
}

/// The thread that calls handlers, which may do what the main one may; 0: none does.
var handling: c_ulong = 0;

/// PyErr_CheckSignals() on g0, as on the main thread.
pub fn callHandlers() bool {
    if (!isKnown()) return py.PyErr_CheckSignals() == 0;
    const before = handling;
    handling = py.PyThread_get_thread_ident();
    main_number.?.* = handling;
    defer {
        handling = before;
        settle();
    }
    return py.PyErr_CheckSignals() == 0;
}

/// The main goroutine is about to run on the calling thread, of `m`. With the lock.
pub fn follow(m: *M) void {
    const now = if (m.main) null else m;
    if (now == carrier) return;
    if (now != null and !isKnown()) return;
    carrier = now;
    carrier_number = py.PyThread_get_thread_ident();
    settle();
}

/// The thread of `m` ends; null: the run does. With the lock.
pub fn stopFollowing(m: ?*M) void {
    if (carrier == null or (m != null and m != carrier)) return;
    carrier = null;
    settle();
}

/// In the child of a fork the interpreter takes the thread that forked for the main one.
pub fn forget() void {
    carrier = null;
    freeing = false;
    undisturbed = false;
    handling = 0;
    if (main_number != null) first = py.PyThread_get_thread_ident();
}

/// A call that is in the way of a run's end is interrupted on the process's main thread.
fn settle() void {
    const word = main_number orelse return;
    word.* = if (undisturbed) 0 else if (carrier == null or freeing) first else carrier_number;
}

// ---- freeing it ----

const Place = struct { frame: *py.Object, lasti: c_int, stack: usize };
/// Where the last signal's handler was called, if that may have been in a C call.
var place: ?Place = null;
var pending_call = false;
var freeing = false;

/// free_main_thread(signal): None if no goroutine but the main one is on the thread that called
/// run(). Sends it the signal otherwise, and returns whether it is locked to that thread.
pub fn free(number: i64) ?*py.Object {
    const m = lane.m0;
    freeing = lane.live and m.curg != null and m.curg != &goroutine.main.?.g;
    settle();
    if (freeing and number > 0) os.signalThread(m.thread.?, @intCast(number));
    if (!freeing) return py.returnNone();
    return py.boolean(m.curg.?.lock_count > 0);
}

/// The handler of golibx's own signal: (signal, frame).
pub fn onSignal(_: *py.Object, frame: *py.Object) ?*py.Object {
    if (learning) {
        const search: Search = .of(@intFromPtr(&learnCalls));
        if (search.found) calls_function = search.before;
        return py.returnNone();
    }
    const g = lane.onThread() orelse return py.returnNone();
    if (goroutine.of(g) == goroutine.main) return signals.callTold();
    if (!freeing or g.status != .syscall) return py.returnNone();
    if (isMakingPendingCalls()) return raiseIn(g);
    const now: Place = .{
        .frame = frame,
        // A goroutine's function may be C itself.
        .lasti = if (!py.isFrame(frame)) 0 else py.extra.PyFrame_GetLasti(@ptrCast(frame)),
        .stack = @frameAddress(),
    };
    const before = place;
    place = now;
    if (before) |b| if (b.frame == now.frame and b.lasti == now.lasti and b.stack == now.stack) {
        place = null;
        return raiseIn(g);
    };
    if (!pending_call) pending_call = py.Py_AddPendingCall(betweenLines, null) == 0;
    if (!pending_call) place = null;
    return py.returnNone();
}

/// Where the function begins that makes pending calls for C code, and so calls handlers; 0:
/// unknown.
var calls_function: usize = 0;
var learning = false;
var learned = false;

/// Golibx's own signal has a handler now, `onSignal`: finds out which function calls that. On the
/// main thread. False with an exception set, of the handler of another signal.
pub noinline fn learnCalls(number: c_int) bool {
    if (learned or py.PyErr_SetInterruptEx(number) != 0) return true;
    learned = true;
    learning = true;
    defer learning = false;
    return py.Py_MakePendingCalls() == 0;
}

/// The last function before `function`, the one that is looked for, on the running stack.
const Search = struct {
    function: usize,
    before: usize = 0,
    found: bool = false,
    left: u32 = most_calls,

    /// Between a handler in C and the function that makes pending calls: five (3.11 to 3.15,
    /// x86-64).
    const most_calls = 16;

    fn of(function: usize) Search {
        var search: Search = .{ .function = function };
        if (!os.eachCall(&search, visit)) search.found = false;
        return search;
    }

    fn visit(raw: *anyopaque, call: os.Call) bool {
        const search: *Search = @ptrCast(@alignCast(raw));
        search.found = call.function == search.function;
        if (!search.found) search.before = call.function;
        search.left -= 1;
        return !search.found and search.left > 0;
    }
};

/// Whether C code makes pending calls. False where there is no telling.
fn isMakingPendingCalls() bool {
    return calls_function != 0 and Search.of(calls_function).found;
}

/// In a C call of its own. Where it goes on after that it has to make way.
fn raiseIn(g: *G) ?*py.Object {
    if (isInTheWay(g)) preempt.arm(goroutine.of(g));
    return errors.raise(.Cancelled, "the run has ended", .{});
}

fn betweenLines(_: ?*anyopaque) callconv(.c) c_int {
    pending_call = false;
    place = null;
    // Where the call is short and comes again and again, each signal finds another one.
    if (freeing) if (lane.onThread()) |g| if (isInTheWay(g)) preempt.arm(goroutine.of(g));
    return 0;
}

/// While `freeing`.
fn isInTheWay(g: *const G) bool {
    return g.m.?.main and g != &goroutine.main.?.g;
}

/// Where a goroutine was preempted, and has the P: one that is in the way goes on on another
/// thread, unless code of others is in the middle of a call below it. It keeps that one.
pub inline fn makeWay(g: *G) void {
    if (freeing and g.lock_count == 0 and isInTheWay(g)) lane.lockThread(g) catch {};
}
