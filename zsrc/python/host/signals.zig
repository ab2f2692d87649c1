//! Signal handlers of the program's: they are the main goroutine's business, whichever goroutine is
//! on the main thread.
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
//! runner is done (Lane.held), as a thread does when its handlers have returned.
//!
//! Where the main goroutine is in a call of C code's on another thread it is told: the call is
//! interrupted, and if it looks for signals then, as CPython's own do, it finds one of golibx's
//! own. The handler of that one calls those in the queue (`callTold`). If that has not happened
//! some milliseconds later the runner calls them, on a thread state of its own. What a handler
//! raises, the main goroutine raises where it is.
const std = @import("std");
const os = @import("../../os/os.zig");
const m_mod = @import("../../serial/m.zig");
const Timer = @import("../../serial/timer.zig").Timer;
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("host.zig");
const errors = @import("../errors.zig");
const fork = @import("../run/fork.zig");
const arguments = @import("../arguments.zig");
const goroutine = @import("goroutine.zig");
const mainthread = @import("mainthread.zig");
const mutex = @import("../types/mutex.zig");
const preempt = @import("preempt.zig");
const recursion = @import("recursion.zig");
const parking = @import("parking.zig");
const rwmutex = @import("../types/rwmutex.zig");
const semaphore = @import("../types/semaphore.zig");

const G = @import("../../serial/g.zig").G;
const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// golibx._core.SignalHandler: a handler of the program's, as the interpreter has it.
const Handler = extern struct {
    ob: py.Object,
    function: *py.Object,
};

/// How many signals have a handler of the program's: while there is one, no wait is for ever.
var hopes: usize = 0;

/// recount_signals(names): `names` are those of golibx.patch.signals. All is counted with the
/// interpreter's lock, in one go: of two that count, the later one has counted what there is then.
pub fn recount(names: *py.Object) ?*py.Object {
    const get = nameIn(names, "_get_signal") orelse return null;
    const numbers = nameIn(names, "_NUMBERS") orelse return null;
    const plain = nameIn(names, "_plain") orelse return null;
    const bystanders = nameIn(names, "bystanders") orelse return null;
    var count = arguments.integer(nameIn(names, "watched") orelse return null) orelse return null;
    const n = py.PyTuple_Size(numbers);
    if (n < 0) return null;
    for (0..@intCast(n)) |i| {
        const number = py.PyTuple_GetItem(numbers, @intCast(i)).?;
        const handler = py.call(get, &.{number}) orelse return null;
        defer py.decref(handler);
        if (handler.type != Class.python_type) continue;
        const is_plain = py.PySequence_Contains(plain, number);
        const is_bystander = py.PySequence_Contains(bystanders, number);
        if (is_plain < 0 or is_bystander < 0) return null;
        if (is_plain == 0 and is_bystander == 0) count +|= 1;
    }
    hopes = @intCast(@max(0, count));
    return py.returnNone();
}

/// A borrowed reference.
fn nameIn(names: *py.Object, name: [*:0]const u8) ?*py.Object {
    if (py.isDict(names)) if (py.PyDict_GetItemString(names, name)) |value| return value;
    return py.raise(py.exc.typeError(), "recount_signals() needs a dict with {s}", .{name});
}

pub fn hopeFor() bool {
    return hopes > 0;
}

/// A call of a handler that has yet to be made.
const Call = struct { function: *py.Object, number: *py.Object };
var queue: std.ArrayList(Call) = .empty;
/// The goroutine that makes them, from its creation to its end.
var runner: ?*PyG = null;
/// It has to run.
var launched = false;
/// The main goroutine has waited for its end, and does so no more: Ctrl-C has come meanwhile.
var given_up = false;
/// It has the main goroutine's thread state. Where it has given that back, and its thread has yet
/// to leave it, the main goroutine is held still.
var borrows = false;

/// How long a call that was interrupted has to look for signals, and how often it is interrupted,
/// in case it had not begun.
const told_ns = 5 * std.time.ns_per_ms;
const most_tellings = 3;
/// golibx's own signal, while its handler is in place; else 0.
var own_signal: c_int = 0;
/// The main goroutine was told, and is told again, or no more, when this fires.
var telling: Timer = .{};
var tellings: u32 = 0;

/// use_signal(number)
pub fn useSignal(value: i32) ?*py.Object {
    own_signal = value;
    if (own_signal != 0 and !mainthread.learnCalls(own_signal)) return null;
    passOn(); // what that has written is no signal
    return py.returnNone();
}

/// Whether the main goroutine is about to call what handlers are due. With the lock.
pub fn mainIsTold() bool {
    return telling.pending();
}

/// The main goroutine, if it can be told: on another thread, by as many times as it may take.
fn whoIsTold() ?*G {
    if (own_signal == 0 or tellings == most_tellings or !mainthread.isKnown() or !lane.live)
        return null;
    const g = &(goroutine.main orelse return null).g;
    return if ((g.status == .running or g.status == .syscall) and lane.onThread() != g) g else null;
}

/// Has g0 look for a goroutine to tell: where the interpreter is about to call handlers it would
/// take golibx's own signal for one that came before. False if there is none. With the lock.
fn tellSoon() bool {
    if (whoIsTold() == null) return false;
    lane.signal_pending = true;
    lane.attention.store(true, .release);
    if (lane.owner.load(.monotonic) == null) lane.wakeP();
    if (lane.running) |g| preempt.arm(goroutine.of(g));
    return true;
}

/// On g0. False if there is no goroutine to tell.
fn tellMain() bool {
    const g = whoIsTold() orelse return false;
    const thread = lane.threadOf(g) orelse return false;
    if (telling.pending()) return true;
    telling.when = lane.now() + told_ns;
    telling.fire = onTold;
    lane.addTimer(&telling, true) catch return false;
    tellings += 1;
    // First, so that it finds it when it comes back with the lock.
    _ = py.PyErr_SetInterruptEx(own_signal);
    os.interrupt(thread);
    return true;
}

/// It has not come to it: g0 decides.
fn onTold(_: *Timer) callconv(.c) void {
    lane.user_timers -= 1;
    lane.signal_pending = true;
    lane.attention.store(true, .release);
}

fn stopTelling() void {
    if (telling.pending()) lane.removeTimer(&telling, true);
    tellings = 0;
}

/// On g0: calls that are due are made, by the main goroutine if it can be told.
pub fn seeToQueue() void {
    const main = goroutine.main orelse return;
    if (holdsBack()) return stopTelling();
    if (queue.items.len == 0 and !preempt.wantsRaise(main)) return stopTelling();
    if (tellMain()) return;
    stopTelling();
    launch();
}

fn launch() void {
    if (!launchAtSwitch()) return;
    // The goroutine that was interrupted should not finish its slice first.
    if (lane.running) |g| preempt.arm(goroutine.of(g));
}

/// The runner comes next when the caller is switched out. False if there is none to launch.
fn launchAtSwitch() bool {
    const p = runner orelse return false;
    if (launched) return false;
    launched = true;
    py.decref(goroutine.launchFirst(p));
    return true;
}

/// The main goroutine, in whatever call, has looked for signals and found golibx's own.
pub fn callTold() ?*py.Object {
    stopTelling();
    const main = goroutine.main.?;
    // It calls them itself, when it leaves that.
    if (main.owes.whole > 0) return py.returnNone();
    defer _ = launchAtSwitch(); // with what is left, and so that it ends
    if (preempt.wantsRaise(main) and goroutine.raisePending(main)) return null;
    while (queue.items.len > 0 and !launched) {
        if (!make(queue.orderedRemove(0))) return null;
    }
    return py.returnNone();
}

fn call(o: *py.Object, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const h: *Handler = @ptrCast(o);
    const function = py.incref(h.function);
    defer py.decref(function);
    const held_back = py.PyTuple_Size(args) >= 1 and isHeldBack();
    if (!held_back and !isForMain(args)) {
        if (raisesBefore(function, args)) return null;
        return py.PyObject_Call(function, args, kwargs);
    }
    const number = py.PyTuple_GetItem(args, 0) orelse return null;
    if (if (held_back) hold(function, number) else add(function, number)) return py.returnNone();
    // There is no memory for the runner: it is called here, and raises there all the same.
    const result = py.PyObject_Call(function, args, kwargs) orelse {
        throwToMain(py.takeException() orelse return py.returnNone());
        return py.returnNone();
    };
    return result;
}

/// Where the caller is the main goroutine, and has to raise what another handler has raised: it
/// does so, and the call is made later. False if there is nothing of that kind.
fn raisesBefore(function: *py.Object, args: *py.Object) bool {
    const main = goroutine.main orelse return false;
    if (!preempt.wantsRaise(main) or lane.onThread() != &main.g or py.PyTuple_Size(args) < 1)
        return false;
    return hold(function, py.PyTuple_GetItem(args, 0).?) and goroutine.raisePending(main);
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

/// Whether the caller is the main goroutine in the midst of what nothing may cut in two.
fn isHeldBack() bool {
    const g = lane.onThread() orelse return false;
    return goroutine.of(g) == goroutine.main and holdsBack();
}

/// Whether the main goroutine calls the handlers itself, at the end of what it is in the midst of
/// or where it waits: see whole.zig.
fn holdsBack() bool {
    const main = goroutine.main orelse return false;
    return main.owes.whole > 0 and main.g.status != .waiting and main.g.status != .parking;
}

/// hold_back(handler, signal, /)
pub fn holdBack(handler: *py.Object, number: *py.Object) bool {
    return isHeldBack() and hold(handler, number);
}

/// It has come to that. False with an exception set.
pub fn callHeld(p: *PyG) bool {
    if (p != goroutine.main) return true;
    if (preempt.wantsRaise(p)) return !goroutine.raisePending(p);
    if (queue.items.len == 0) return true;
    const depth = p.owes.whole;
    p.owes.whole = 0;
    const goes_on = makeHeld();
    p.owes.whole = depth;
    if (!goes_on) goOn();
    return goes_on and !(preempt.wantsRaise(p) and goroutine.raisePending(p));
}

/// Unless the runner is about to. False with an exception set.
fn makeHeld() bool {
    while (queue.items.len > 0 and (runner == null or !launched)) {
        if (!make(queue.orderedRemove(0))) return false;
    }
    return true;
}

/// Puts the call into the queue. False if there is no memory.
fn hold(function: *py.Object, number: *py.Object) bool {
    if (isDue(function, number)) return true;
    queue.append(host.gpa, .{ .function = function, .number = number }) catch return false;
    _ = py.incref(function);
    _ = py.incref(number);
    return true;
}

/// Whether the call is queued already. Signals that come before the handler of the first was called
/// are one, as the interpreter has it.
fn isDue(function: *const py.Object, number: *py.Object) bool {
    const signal = py.PyLong_AsLongLong(number);
    for (queue.items) |c| {
        if (c.function == function and py.PyLong_AsLongLong(c.number) == signal) return true;
    }
    if (signal == -1) py.PyErr_Clear(); // not a number: only the program can have called it
    return false;
}

/// False if there is no memory.
fn haveRunner() bool {
    if (runner != null) return true;
    var no_args: [1]*py.Object = undefined;
    const p = goroutine.create(&Class.python_type.ob, &no_args, 0, null, true) catch {
        py.PyErr_Clear();
        return false;
    };
    p.runs_handlers = true;
    p.g.placed = true;
    runner = p;
    launched = false;
    given_up = false;
    return true;
}

/// The main goroutine raises what a handler has. The calls that this one came before are due when
/// it is switched out next: it has had time to handle the exception.
pub fn goOn() void {
    if (queue.items.len == 0 or !lane.live or holdsBack() or !haveRunner()) return;
    _ = launchAtSwitch();
}

/// Whether the main goroutine, once it goes on, raises something: further handlers are called after
/// that. One that waits where nothing may interrupt it does not go on.
fn mainRaisesFirst() bool {
    const main = goroutine.main orelse return false;
    return preempt.wantsRaise(main) and !goroutine.isParked(main);
}

fn add(function: *py.Object, number: *py.Object) bool {
    if (!haveRunner() or !hold(function, number)) return false;
    if (!holdsBack() and !tellSoon()) launch();
    return true;
}

// ---- channels of signals, golibx.signal ----

/// take_signal(number, disposition)
pub fn takeSignal(number: i64, disposition: i64) ?*py.Object {
    const known = disposition >= 0 and disposition <= 2 and number > 0;
    if (!known or !os.takeSignal(@intCast(number), switch (disposition) {
        0 => .as_before,
        1 => .written,
        else => .ignored,
    })) return py.raise(py.exc.valueError(), "signal {d} cannot be caught or ignored", .{number});
    return py.returnNone();
}

/// write_signals(fd)
pub fn writeSignals(value: i32) void {
    os.writeSignals(value);
}

// ---- what the program has given to signal.set_wakeup_fd() ----

/// Signals write to a pipe of golibx's in a run, this end of which wakes the poller; -1: none does.
var pipe_end: c_int = -1;
/// What comes out of it is written there; -1: nowhere.
var program_fd: c_int = -1;
/// The program wants to know if that is full.
var warns = true;

/// forward_signals(read_end, fd, warns)
pub fn forward(read_end: i32, fd: i32, warn: bool) void {
    passOn();
    pipe_end = read_end;
    program_fd = fd;
    warns = warn;
}

/// The pipe is read empty. With the lock: the program's number is the program's file.
pub fn passOn() void {
    if (pipe_end < 0) return;
    const e = os.passSignals(pipe_end, program_fd, own_signal);
    // If the program has closed the file since the signal came, here or at its other end, that is
    // no error.
    if (e == .SUCCESS or e == .BADF or e == .PIPE or (e == .AGAIN and !warns)) return;
    var buffer: [128]u8 = undefined;
    const text =
        "golibx: cannot write a signal's number to descriptor {d} of signal.set_wakeup_fd(): {t}\n";
    os.writeStderr(std.fmt.bufPrint(&buffer, text, .{ program_fd, e }) catch unreachable);
}

// ---- the runner ----

/// Whether the main goroutine's thread state is free. With the lock.
pub fn canBorrow() bool {
    const g = &(goroutine.main orelse return false).g;
    if (lane.held != null) return false;
    const rests = g.sp != 0 and g.m == null and (g.status == .waiting or g.status == .runnable);
    return rests and g.locked_m == null and lane.main_g == g;
}

/// Gives it to the runner.
pub fn borrow(p: *PyG) void {
    const main = goroutine.main.?;
    p.state = main.state;
    borrows = true;
    lane.held = &main.g;
    leaveLock(&main.g);
}

/// Handlers are called in the midst of a wait of g's, and may want the lock that this is for, or
/// wait for a goroutine that does. So g must not be given the lock meanwhile: as a thread does, it
/// begins that wait anew when they have returned. With the lock.
pub fn leaveLock(g: *G) void {
    if (!g.reason.isForLock()) return;
    if (lane.claim(g, .interrupted)) lane.ready(g);
    const on = g.waiting_on.?;
    // Whether it has left or was woken, it does nothing for the others now.
    switch (g.reason) {
        .mutex_lock => if (g.wake == .ready) mutex.M.passOn(g.fired.?),
        .semacquire => semaphore.serveOthers(on),
        .rwmutex_lock, .rwmutex_rlock => rwmutex.serveOthers(on),
        .lock => parking.wakeNext(on),
        else => unreachable,
    }
}

/// The runner's body, in the place of a function's call.
pub fn runAll(p: *PyG) void {
    // A goroutine parks with no exception set; but finalizers may park.
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    while (queue.items.len > 0 and !mainRaisesFirst()) {
        const next = queue.orderedRemove(0);
        const made = make(next);
        if (p.survives) fork.endHandler(if (made) null else py.takeException());
        if (runner != p) return endLate(made);
        if (!made) throwToMain(py.takeException() orelse continue);
    }
    py.PyErr_Restore(t, v, tb);
    runner = null;
}

/// The run has ended in the midst of a handler, and there may be another: that has nothing to do
/// with it.
fn endLate(made: bool) void {
    if (made) return;
    const cancelled = errors.get(.Cancelled);
    if (cancelled != null and py.PyErr_ExceptionMatches(cancelled.?) != 0) return py.PyErr_Clear();
    py.PyErr_WriteUnraisable(null);
}

/// Where the main goroutine is about to end, or to end the others: waits for the handlers that run
/// beside it, since it was in a call that did not look for signals. If the others have to end, it
/// also waits for the handlers that come next. False with an exception set: one of theirs, or what
/// has ended the wait.
pub fn awaitHandlers(p: *PyG, which: enum { begun, launched }) bool {
    // First, since others may run before it returns.
    if (lane.here() != &p.g or preempt.wantsRaise(p)) return raiseHandlers(p);
    const r = runner orelse return true;
    const h = r.handle;
    if (h.live == null or given_up) return true;
    // One that has not begun has nothing to end: see endRun.
    if (r.state == null and (which == .begun or !launched)) return true;
    _ = py.incref(&h.ob);
    defer py.decref(&h.ob);
    p.g.waiting_on = h;
    var waiter: host.Queue.Waiter = .{};
    return switch (h.waiters().wait(&host.Rt.no_lock, &waiter, &p.g, .shutdown, null)) {
        .ready, .closed, .timeout => raiseHandlers(p),
        .interrupted => interrupted: {
            given_up = true;
            break :interrupted !goroutine.raisePending(p);
        },
    };
}

/// What they have thrown to it. False with an exception set.
fn raiseHandlers(p: *PyG) bool {
    return !(preempt.wantsRaise(p) and goroutine.raisePending(p));
}

/// The main goroutine's function has returned, or raised: what handlers have thrown to it, and it
/// has found no bytecode to raise it at, comes out of it as well. Takes and gives its result.
pub fn endMain(p: *PyG, given: ?*py.Object) ?*py.Object {
    if (!preempt.wantsRaise(p) and runner == null) return given;
    var before: ?*py.Object = if (given == null) py.takeException() else null;
    var goes_on = awaitHandlers(p, .begun);
    const returns = goes_on and given != null;
    while (!goes_on) : (goes_on = raiseHandlers(p)) before = errors.takeAfter(before);
    if (returns) return given;
    py.xdecref(given);
    if (before) |exception| py.restoreException(exception);
    return null;
}

/// The runner ends, as far as Python can tell: what it has borrowed goes back. True if it had. Its
/// thread still runs on it: the main goroutine goes on once that is over.
pub fn giveBack(p: *PyG) bool {
    if (!borrows) return false;
    const main = goroutine.main.?;
    if (p.state != main.state) return false;
    borrows = false;
    preempt.withdraw(p);
    if (preempt.wantsRaise(main)) preempt.hurry(main);
    recursion.settle(p);
    host.tellStack(main.state.?, main.g.stack);
    p.state = null;
    return true;
}

/// The runner's thread has another thread state. From 3.12 on the interpreter's swap lets the lock
/// go, and the state is still PyGILState's of this thread until it has it again: no other one may
/// attach it meanwhile.
pub fn leave() void {
    if (!borrows) lane.letGo();
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
    goroutine.throwAtOnce(main, exception);
    _ = tellSoon();
}

/// Has the main goroutine raise the exception, wherever it is, unless it already has to raise one
/// there. Takes the reference.
pub fn interruptMain(exception: *py.Object) void {
    const main = goroutine.main orelse return py.decref(exception);
    if (preempt.wantsRaise(main)) return py.decref(exception);
    throwToMain(exception);
}

/// Whether a handler runs on its thread state.
pub fn isLent(p: *const PyG) bool {
    return borrows and p == goroutine.main;
}

/// After a run: makes the calls that its end has overtaken. What they raise, the last one first,
/// each with the one before as its context; null if nothing.
pub fn endRun() ?*py.Object {
    if (runner) |p| if (!launched) goroutine.abandon(p);
    runner = null;
    borrows = false;
    telling = .{};
    tellings = 0;
    var raised: ?*py.Object = null;
    while (queue.items.len > 0) {
        if (make(queue.orderedRemove(0))) continue;
        const exception = py.takeException() orelse continue;
        if (raised) |before| {
            errors.follow(exception, before);
            py.decref(before);
        }
        raised = exception;
    }
    queue.clearAndFree(host.gpa);
    return raised;
}

/// In the child of a fork: what has come is the parent's. Memory is only written.
pub fn forget() void {
    runner = null;
    borrows = false;
    telling = .{};
    tellings = 0;
    queue.clearRetainingCapacity();
}

// ---- the type ----

fn new(t: *py.Type, function: *py.Object) ?*py.Object {
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    Class.of(o).function = py.incref(function);
    return o;
}

fn deinit(h: *Handler) void {
    py.decref(h.function);
}

pub const Class = class.Class(Handler, .{
    .name = "golibx._core.SignalHandler",
    .doc = "A handler of signals that has function called as the main goroutine's.",
    .new = class.constructor("SignalHandler(function, /)", new),
    .is_immutable = false,
    .deinit = deinit,
    .properties = &.{class.field(Handler, "function", "function", "The program's handler.")},
    .slots = .{ .tp_call = call },
});
