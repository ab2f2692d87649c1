//! fork: in the child only the goroutine that forked lives, and the run is over.
//!
//! The parent. os.fork() holds the import lock over fork(), and the interpreter's import lock knows
//! threads: a goroutine that takes it has to let it go on the same thread, whatever Python code
//! runs meanwhile (3.12 warns of threads there). So the goroutine is locked to a thread before the
//! other hooks run (`before`) and let go after them (`afterInParent`). It may park in between, as
//! where a hook takes a lock that another goroutine holds. Nothing of golibx is held over fork():
//! no lock of its own guards anything that the child goes on to use, and there they are made anew.
//! Nor does a thread of golibx's take a lock of the interpreter's without the interpreter's lock
//! (host.acquireAnew).
//!
//! The child. The C library calls `inChild` before fork() returns, and so before the interpreter
//! deletes the other goroutines' thread states, which runs finalizers, and before any hook of
//! Python's. From there on the lane is not live: no goroutine is switched to, woken or preempted,
//! no P is retaken, and what waits raises. It may only write memory and make system calls. What
//! needs the interpreter is done when that is fit again (`afterInChild`).
//!
//! The goroutine that forked, the survivor, goes on on its stack, as a thread like any other. How
//! it ends depends on what it was:
//!  - The main goroutine has run() return, on the stack that run() was called on, also if it was on
//!    another thread: `home` is the context of the call. The frames of the lane above it are left
//!    behind.
//!  - The end of another is that of a thread which forked: it ends the process, without flushing or
//!    atexit functions, when no thread is left that was started in the child. Only what would end
//!    the program in a goroutine, SystemExit above all, ends it as it always does.
//! A survivor may call run() anew, in which others fork: each run has its own home.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const arch = @import("../../arch/arch.zig");
const g_mod = @import("../../serial/g.zig");
const m_mod = @import("../../serial/m.zig");
const lane_mod = @import("../../serial/lane.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const mainthread = @import("../host/mainthread.zig");
const module = @import("../module.zig");
const native = @import("native.zig");
const identity = @import("../host/identity.zig");
const idents = @import("../host/idents.zig");
const import_lock = @import("../host/import_lock.zig");
const replace = @import("../host/replace.zig");
const points = @import("../host/points.zig");
const preempt = @import("../host/preempt.zig");
const fault = @import("../host/fault.zig");
const refused = @import("../host/refused.zig");
const sampling = @import("sampling.zig");
const requests = @import("requests.zig");
const parking = @import("../host/parking.zig");
const threads = @import("../patch/threads.zig");
const tls = @import("../patch/tls.zig");
const rlock = @import("../host/rlock.zig");
const run = @import("run.zig");
const signals = @import("../host/signals.zig");
const standin = @import("../host/standin.zig");
const timer = @import("../types/timer.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// How many forks this process is the child of: it changes while the goroutine that forks goes on.
pub var depth: u32 = 0;
/// How many threads are between `before` and `afterInParent`.
var in_progress: u32 = 0;
/// The context of the present run's call, a stack pointer; 0 where there is none to return to.
var home: usize = 0;
/// The thread's stack that it is on, where the main goroutine is about to fork on another thread.
var home_stack: ?[2]usize = null;
/// The run's thread is the process's first: its stack is there for ever.
var home_is_first = false;
/// `afterInChild` has still to do its part.
var unsettled = false;
/// In a child the thread state that goes on has the thread's number, as the interpreter takes for
/// granted: a debug build asserts it. That is so until the interpreter has made itself fit again,
/// and `for_good` once run() has returned on another thread than it was called on: the interpreter
/// ends on the one that forked.
pub var renumbered: ?*py.ThreadState = null;
var for_good = false;
/// The number that Python code goes on to know it by, and that of the thread.
var own_number: idents.Ident = idents.none;
var thread_number: idents.Ident = idents.none;
/// The survivor of this process, while it lives.
var survivor: ?*PyG = null;
/// What the end of the survivor has to raise in the program.
var thrown: ?*py.Object = null;

/// Of the thread that a survivor has become, and what C code that asks for the thread's number is
/// told on it; none: what it is.
threadlocal var of_thread: ?*PyG = null;
threadlocal var number_of_thread: idents.Ident = idents.none;

noinline fn setThread(p: ?*PyG) void {
    of_thread = p;
}

/// The survivor that is on the calling thread.
pub noinline fn here() ?*PyG {
    return of_thread;
}

pub noinline fn threadNumber() idents.Ident {
    return number_of_thread;
}

noinline fn setThreadNumber(number: idents.Ident) void {
    number_of_thread = number;
}

/// At import. False without memory.
pub fn watch() bool {
    return os.atFork(inChild);
}

// ---- the run, which may return in a child as well ----

pub const Returned = enum { ended, failed, in_child };

const Call = struct { options: *const lane_mod.Options, main: *PyG, started: bool = false };

fn callLane(raw: ?*anyopaque) callconv(.c) void {
    const call: *Call = @ptrCast(@alignCast(raw.?));
    call.started = if (lane.run(call.options.*, &call.main.g)) |_| true else |_| false;
}

/// Lane.run(). In a child it returns once too, when the main goroutine has ended.
pub fn runLane(options: *const lane_mod.Options, main: *PyG) Returned {
    const outer = home;
    defer home = outer;
    const outer_survivor = here();
    home_is_first = os.onMainThread();
    var call: Call = .{ .options = options, .main = main };
    arch.callFrom(&home, callLane, &call);
    if (main.survives) {
        // A survivor's run, in which its main goroutine has forked: the survivor goes on here, too.
        setThread(outer_survivor);
        survivor = outer_survivor;
        return .in_child;
    }
    return if (call.started) .ended else .failed;
}

// ---- the calls ----
//
// From 3.14 on the import lock is still held where fork warns of threads, after the last hook. So
// the call as a whole stays on one thread. C code that forks has the hooks.

const Fork = replace.Replacement("posix", "fork", identity.inGoroutine, callFork);
const ForkPty = replace.Replacement("posix", "forkpty", identity.inGoroutine, callForkPty);

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (builtin.os.tag == .windows) return true;
    Fork.install() catch |e| if (e == error.Raised) return false;
    ForkPty.install() catch |e| if (e == error.Raised) return false;
    return true;
}

/// The locks of the module threading, where they are RLocks; owned. It makes them anew in a child,
/// but only after the interpreter has deleted the others' thread states, and what knows of threads
/// takes the first when it is finalized with them; and up to 3.12 it takes the second before.
var threads_locks: [2]?*py.Object = @splat(null);
const threads_lock_names = [_][*:0]const u8{ "_active_limbo_lock", "_shutdown_locks_lock" };

fn learnThreadsLocks() void {
    for (&threads_locks, threads_lock_names) |*place, name| {
        const lock = py.importFrom("threading", name);
        if (lock == null) py.PyErr_Clear();
        const old = place.*;
        place.* = null;
        py.xdecref(old);
        const new = lock orelse continue;
        if (new.type == rlock.rlock_type) place.* = new else py.decref(new);
    }
}

fn callFork(c: replace.Call) ?*py.Object {
    return onOneThread(Fork, c);
}

fn callForkPty(c: replace.Call) ?*py.Object {
    return onOneThread(ForkPty, c);
}

fn onOneThread(comptime Original: type, c: replace.Call) ?*py.Object {
    const depth_before = depth;
    const g = lane.here() orelse return Original.callOriginal(c);
    const locked = if (lane.lockThread(g)) |_| true else |_| false;
    const result = Original.callOriginal(c);
    if (depth != depth_before or !locked) return result;
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    if (lane.here()) |own| _ = lane.unlockThread(own);
    py.PyErr_Restore(t, v, tb);
    return result;
}

// ---- the hooks ----

/// _before_fork()
pub fn before() void {
    in_progress += 1;
    learnThreadsLocks();
    preempt.holdOff();
    const g = lane.here() orelse return;
    const p = goroutine.of(g);
    home_stack = null;
    // If no thread can be got, it stays where it is unless a hook parks.
    lane.lockThread(g) catch {
        p.fork_unlocked += 1;
        g.no_preempt += 1;
    };
    if (p == goroutine.main) goHomeFirst(g);
}

/// The stack of a thread that is gone is used for other threads, but for the first's. So the main
/// goroutine forks on the run's own thread, if a goroutine that blocks that does not keep it away.
fn goHomeFirst(g: *g_mod.G) void {
    while (g.m.? != lane.m0) {
        if (home_is_first) {
            home_stack = os.stackOf(lane.m0.thread.?);
            return;
        }
        while (lane.unlockThread(g)) {}
        lane.prepare(g);
        _ = lane.park(g, .sleep, lane.now() + std.time.ns_per_ms);
        if (lane.here() == null) return;
        lane.lockThread(g) catch return;
    }
}

/// Whether a thread is about to fork, and may wait for the import lock or have it. With the lock.
pub fn isInProgress() bool {
    return in_progress > 0;
}

/// _after_fork_in_parent()
pub fn afterInParent() void {
    in_progress -|= 1;
    preempt.letGo();
    const g = lane.here() orelse return;
    const p = goroutine.of(g);
    if (p.fork_unlocked > 0) {
        p.fork_unlocked -= 1;
        g.no_preempt -= 1;
    } else _ = lane.unlockThread(g);
}

/// In fork(), in the child: see above what may be done here.
fn inChild() callconv(.c) void {
    depth +%= 1;
    in_progress = 0;
    preempt.renew();
    // C code may fork without the interpreter's lock: then the lists may be in the midst of a
    // change, and no code will ask for them.
    const whole = py.extra.PyGILState_Check() != 0;
    if (whole) {
        import_lock.renew(goroutine.ident());
        for (threads_locks) |lock| if (lock) |l| {
            _ = rlock.renew(l, goroutine.ident());
        };
        renumber(py.PyThreadState_Get(), false);
    }
    parking.forget();
    threads.forget();
    tls.forget();
    mainthread.forget();
    native.afterFork();
    host.forgetEntrance();
    os.descriptors.forget();
    if (renumbered != goroutine.main_state) goroutine.main_state = null;
    if (!run.forget()) return;
    unsettled = true;
    errors.forked = true;
    const m = m_mod.current();
    const p: ?*PyG = if (lane.onThread()) |g| goroutine.of(g) else null;
    if (whole) {
        goroutine.forgetOthers(p);
        standin.forget();
        signals.forget();
    }
    if (p) |own| {
        own.survives = true;
        own.home = if (own == goroutine.main) home else 0;
        own.forked_on = m;
        setThread(own);
        survivor = own;
    }
    if (whole) setThreadNumber(own_number);
    home = 0;
    lane.forget();
    goroutine.forget();
    refused.forget();
    sampling.forget();
    timer.forget();
    points.set(module.function_table, false);
    if (p == null) fault.remove(); // else its stack still has an end
    m_mod.setCurrent(null);
}

fn renumber(state: *py.ThreadState, lasts: bool) void {
    const number = host.identOf(state);
    if (state != renumbered) {
        own_number = number.*;
        for_good = lasts;
    }
    renumbered = state;
    thread_number = py.PyThread_get_thread_ident();
    number.* = thread_number;
}

/// _after_fork_in_child(): with an interpreter that is fit to be used.
pub fn afterInChild() void {
    if (renumbered) |state| if (!for_good) {
        host.identOf(state).* = own_number;
        renumbered = null;
    };
    settle();
}

/// As host.goroutineIdent, where a thread state is renumbered.
pub noinline fn identInChild(state: *py.ThreadState) ?idents.Ident {
    const is_main = state == goroutine.main_state;
    if (state == renumbered and (for_good or is_main or idents.has(own_number))) return own_number;
    return if (is_main) host.identOf(state).* else null;
}

/// What Python code knows the thread state by.
pub inline fn knownNumber(state: *py.ThreadState) idents.Ident {
    return if (state == renumbered) own_number else host.identOf(state).*;
}

/// The thread in a child that Python code knows by `ident`, if that is not its number.
pub fn threadOf(ident: u64) ?idents.Ident {
    return if (ident == own_number and ident != thread_number) thread_number else null;
}

/// Calls what tells of thread states by their numbers: those that Python code knows.
pub fn withKnownNumbers(
    original: *const fn (replace.Call) ?*py.Object,
    c: replace.Call,
) ?*py.Object {
    const number = host.identOf(renumbered.?);
    const interpreters = number.*;
    number.* = own_number;
    defer number.* = interpreters;
    return original(c);
}

pub inline fn isRenumbered() bool {
    return for_good and py.PyInterpreterState_Get() == host.interpreter;
}

/// Before a run too: C code may fork without telling the interpreter.
pub fn settle() void {
    if (!unsettled) return;
    unsettled = false;
    host.findGilstateSlot();
    preempt.forget(here());
}

// ---- the end of the survivor ----

/// Its function has returned, or raised.
pub fn end(p: *PyG, result: ?*py.Object) noreturn {
    goroutine.endSurvivor(p, result);
    leave(p);
}

/// Nothing is left to do of it.
pub fn leave(p: *PyG) noreturn {
    if (p.home != 0) returnHome(p);
    if (thrown) |exception| endBy(exception);
    endThread(p);
}

/// Has run() return.
fn returnHome(p: *PyG) noreturn {
    const own = p.state.?;
    if (host.identOf(own).* != py.PyThread_get_thread_ident()) renumber(own, true);
    fault.remove();
    if (p.forked_on) |m| m.fault.leave();
    setThread(null);
    survivor = null;
    if (py.extra.PyUnstable_ThreadState_SetStackProtection) |set| {
        if (home_stack) |stack| {
            if (set(own, @ptrFromInt(stack[0]), stack[1]) != 0) py.PyErr_Clear();
        } else py.extra.PyUnstable_ThreadState_ResetStackProtection.?(own);
    }
    var discard: usize = undefined;
    arch.switchTo(&discard, p.home);
    unreachable;
}

/// As a thread that forked: the process goes on as long as others do.
fn endThread(p: *PyG) noreturn {
    py.xdecref(callPatch("join_others", &.{}));
    py.PyThreadState_Clear(p.state.?);
    _ = py.PyEval_SaveThread();
    os.exitProcess(0);
}

/// Of what it has raised, which the parent's goroutines may hold for ever.
pub fn letGo(exception: *py.Object) void {
    py.xdecref(callPatch("let_go", &.{exception}));
}

/// As the main thread ends the program that raises it.
fn endBy(exception: *py.Object) noreturn {
    var status: c_longlong = 1;
    if (callPatch("end_process", &.{exception})) |r| {
        status = py.PyLong_AsLongLong(r);
        py.decref(r);
    }
    _ = py.PyEval_SaveThread();
    if (status < 0) os.endByInterrupt();
    os.exitProcess(@truncate(@as(u64, @bitCast(status))));
}

/// Of golibx.patch.threads; null where it raised, which is reported.
fn callPatch(name: [*:0]const u8, args: []const *py.Object) ?*py.Object {
    const function = py.importFrom("golibx.patch.threads", name);
    const r = if (function) |f| py.call(f, args) else null;
    if (r == null) py.PyErr_WriteUnraisable(function);
    py.xdecref(function);
    return r;
}

/// What a goroutine's end would throw at the main one, where no run is live.
pub fn throw(exception: *py.Object) void {
    if (survivor == null or here() != survivor) return;
    if (thrown == null) thrown = py.incref(exception);
}

/// A signal handler that ran on no goroutine of the program's has forked, and ended in the child:
/// there is nothing that it interrupted.
pub fn endHandler(exception: ?*py.Object) noreturn {
    if (exception) |e| endBy(e);
    endBy(py.PyObject_CallObject(py.exc.systemExit(), null) orelse py.takeException().?);
}

/// The stack that the calling thread is on, where that is not the thread's own.
pub fn borrowedStack() ?g_mod.Stack {
    const p = here() orelse return null;
    return p.g.stack;
}
