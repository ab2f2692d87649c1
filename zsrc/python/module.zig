//! The extension module golibx._core: its functions and types.
const std = @import("std");
const os = @import("../os/os.zig");
const points = @import("host/points.zig");
const py = @import("py.zig");
const host = @import("host/host.zig");
const signals = @import("host/signals.zig");
const goroutine = @import("host/goroutine.zig");
const handle = @import("types/handle.zig");
const chan = @import("types/chan.zig");
const select = @import("types/select.zig");
const timer = @import("types/timer.zig");
const uncollected = @import("run/uncollected.zig");
const native = @import("run/native.zig");
const context = @import("types/context.zig");
const native_chan = @import("types/native_chan.zig");
const standin = @import("host/standin.zig");
const refused = @import("host/refused.zig");
const arguments = @import("arguments.zig");
const class = @import("class.zig");
const classes = @import("classes.zig");
const socket = @import("types/socket.zig");
const filter = @import("filter.zig");
const wakeup_fd = @import("host/wakeup_fd.zig");
const whole = @import("host/whole.zig");
const descriptors = @import("host/descriptors.zig");
const preempt = @import("host/preempt.zig");
const fault = @import("host/fault.zig");
const asynchronous = @import("asynchronous.zig");
const errors = @import("errors.zig");
const events = @import("run/events.zig");
const leaks = @import("run/leaks.zig");
const os_thread = @import("host/os_thread.zig");
const sigmask = @import("host/sigmask.zig");
const greenlets = @import("host/greenlets.zig");
const run = @import("run/run.zig");
const sampling = @import("run/sampling.zig");
const mainthread = @import("host/mainthread.zig");
const identity = @import("host/identity.zig");
const labels = @import("host/labels.zig");
const owed = @import("host/owed.zig");
const watching = @import("host/watching.zig");
const buffered = @import("host/buffered.zig");
const replace = @import("host/replace.zig");
const patch = @import("patch/patch.zig");
const threads = @import("patch/threads.zig");
const fork = @import("run/fork.zig");
const figures = @import("run/figures.zig");
const tuning = @import("run/tuning.zig");
const timeouts = @import("timeouts.zig");

const lane = &host.the_lane;

// ---- goroutines ----

/// Arguments of go(): a callable, then the arguments for it.
pub fn createChecked(
    comptime name: []const u8,
    given: class.Given,
    system: bool,
) ?*goroutine.PyG {
    const args = given.args;
    if (given.n < 1) {
        _ = py.raise(py.exc.typeError(), name ++ "() missing the function to run", .{});
        return null;
    }
    if (py.PyCallable_Check(args[0]) == 0) {
        const t = py.PyObject_GetAttrString(@ptrCast(args[0].type), "__name__") orelse return null;
        defer py.decref(t);
        var len: py.Ssize = 0;
        const text = py.PyUnicode_AsUTF8AndSize(t, &len) orelse return null;
        _ = py.raise(
            py.exc.typeError(),
            name ++ "() needs a callable, not {s}",
            .{text[0..@intCast(len)]},
        );
        return null;
    }
    const callee = asynchronous.look(name, args[0]);
    if (callee == .refused) return null;
    if (lane.hereOnStack() == null and (!lane.live or lane.stray() != null)) {
        errors.notInGoroutine();
        return null;
    }
    const p = goroutine.create(args[0], args + 1, given.n - 1, given.names, system) catch
        return null;
    p.runs_python = callee == .python;
    return p;
}

fn go(given: class.Given) ?*py.Object {
    return goroutine.launch(createChecked("go", given, false) orelse return null);
}

fn goSystem(given: class.Given) ?*py.Object {
    return goroutine.launch(createChecked("go_system", given, true) orelse return null);
}

/// go_thread(frames, fn, /, *args)
fn goThread(given: class.Given) ?*py.Object {
    if (given.n < 2) return py.raise(
        py.exc.typeError(),
        "go_thread() takes an int and a callable first",
        .{},
    );
    const frames = py.PyLong_AsLongLong(given.args[0]);
    if (frames == -1 and py.PyErr_Occurred() != null) return null;
    const p = createChecked("go_thread", given.after(1), false) orelse return null;
    goroutine.inheritNothing(p);
    goroutine.takePlaceAbove(p, frames);
    p.is_thread = true;
    return goroutine.launch(p);
}

/// Of the calling goroutine, also of one whose run is over.
fn dropLocals() void {
    host.dropLocals(py.PyThreadState_Get());
}

/// go_child(context, on_end, children, places, fn, /, *args, **kwargs)
fn goChild(given: class.Given) ?*py.Object {
    const args = given.args;
    if (given.n < 4 or !context.Class.is(args[0]) or
        (args[3] != py.none() and !chan.Class.is(args[3])))
        return py.raise(
            py.exc.typeError(),
            "go_child() takes a Context, a callable, a dict and a Chan or None first",
            .{},
        );
    const p = createChecked("go", given.after(4), false) orelse return null;
    const places = if (args[3] == py.none()) null else py.incref(args[3]);
    goroutine.adopt(p, py.incref(args[0]), py.incref(args[1]), places);
    // From here to the launch no other goroutine runs.
    const ended = py.PyDict_GetItemWithError(args[2], py.none()) != null;
    if (ended) _ = py.raise(
        py.exc.runtimeError(),
        "the scope has ended: it takes no more goroutines",
        .{},
    );
    if (ended or py.PyDict_SetItem(args[2], &p.handle.ob, py.none()) != 0) {
        goroutine.abandon(p);
        return null;
    }
    return goroutine.launch(p);
}

/// The interpreter calls it straight from its loop, which it does not do for METH_NOARGS: a plain
/// call (foreign.zig).
fn gosched(given: class.Given) ?*py.Object {
    if (given.n != 0) return py.raise(
        py.exc.typeError(),
        "golibx._core.gosched() takes no arguments ({d} given)",
        .{given.n},
    );
    const p = goroutine.forPark() orelse return null;
    p.g.gave_way = true;
    lane.goschedHere(&p.g);
    return if (goroutine.raiseAfterTurn(p)) null else py.returnNone();
}

fn goLast() ?*py.Object {
    const p = goroutine.forPark() orelse return null;
    lane.goLast(&p.g);
    return if (goroutine.raiseAfterTurn(p)) null else py.returnNone();
}

fn sleep(seconds: *py.Object) ?*py.Object {
    const value = timeouts.number(seconds, "a sleep must be a number of seconds, not %R") orelse
        return null;
    const limit = timeouts.fromSeconds(value) orelse return null;
    const p = goroutine.forWait() orelse return null;
    if (limit == .poll and !standin.is(p)) {
        p.g.gave_way = true;
        lane.gosched(&p.g);
        return py.returnNone();
    }
    lane.prepare(&p.g);
    if (lane.park(&p.g, .sleep, limit.deadline()) == .interrupted) {
        _ = goroutine.raisePending(p);
        return null;
    }
    return py.returnNone();
}

fn disturb(seed: i64, preempted: i64, delayed: i64, delay_ns: i64) ?*py.Object {
    if (@min(seed, preempted, delayed, delay_ns) < 0)
        return py.raise(py.exc.valueError(), "what disturb() is given must not be negative", .{});
    if (!lane.live) return py.raise(py.exc.runtimeError(), "no runtime is running", .{});
    const is_new = points.disturb(
        function_table,
        @intCast(seed),
        @intCast(preempted),
        @intCast(delayed),
        @intCast(delay_ns),
    );
    if (!is_new)
        return py.raise(py.exc.runtimeError(), "this run's schedule is drawn already: a test " ++
            "with a seed, or in virtual time, cannot be disturbed", .{});
    return py.returnNone();
}

fn disturbances() ?*py.Object {
    const c = points.counts();
    const calls = py.PyLong_FromUnsignedLongLong(c.calls) orelse return null;
    defer py.decref(calls);
    const preempted = py.PyLong_FromUnsignedLongLong(c.preempted) orelse return null;
    defer py.decref(preempted);
    const delayed = py.PyLong_FromUnsignedLongLong(c.delayed) orelse return null;
    defer py.decref(delayed);
    return py.PyTuple_Pack(@as(py.Ssize, 3), calls, preempted, delayed);
}

fn current() ?*py.Object {
    const p = goroutine.of(lane.onThread() orelse return py.returnNone());
    return if (p.ended) py.returnNone() else py.incref(&goroutine.actsAs(p).handle.ob);
}

/// The number that stands for the calling goroutine or, outside of one, thread.
fn ident() u64 {
    return goroutine.ident();
}

fn nowNs() u64 {
    return lane.now();
}

fn blocking(given: class.Given) ?*py.Object {
    if (given.n < 1)
        return py.raise(py.exc.typeError(), "blocking() missing the function to call", .{});
    if (asynchronous.look("blocking", given.args[0]) == .refused) return null;
    const p = goroutine.forPark() orelse return null;
    lane.giveUpP(&p.g);
    const result = given.after(1).call(given.args[0]);
    // Back on a P before the caller goes on; an exception travels along.
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    if (result == null) py.PyErr_Fetch(&t, &v, &tb);
    _ = lane.here();
    if (result == null) py.PyErr_Restore(t, v, tb);
    return result;
}

fn numGoroutine() u64 {
    return if (lane.live) lane.user_count else 0;
}

fn gomaxprocs(n: ?*py.Object) ?*py.Object {
    const before = native.procCount();
    if (n) |value| if (value != py.none()) {
        const number = arguments.integer(value) orelse return null;
        if (number < 0 or number > native.most_procs) return py.raise(
            py.exc.valueError(),
            "gomaxprocs must be between 1 and {d}, or 0 to leave it as it is; not {d}",
            .{ native.most_procs, number },
        );
        if (number > 0) _ = native.setProcs(@intCast(number)) catch return py.PyErr_NoMemory();
    };
    return py.PyLong_FromUnsignedLongLong(before);
}

/// All handles of goroutines that live, newest first.
fn goroutines() ?*py.Object {
    const list = py.PyList_New(0) orelse return null;
    if (!lane.live) return list;
    var it = lane.all_g;
    while (it) |g| : (it = g.all_next) {
        const p = goroutine.of(g);
        if (!p.ended and py.PyList_Append(list, &p.handle.ob) != 0) {
            py.decref(list);
            return null;
        }
    }
    return list;
}

fn cancelAll(ns: i64) ?*py.Object {
    // The end of the run is under no context of the program's.
    context.leaveAll(goroutine.forCall() orelse return null);
    // What has come before does not keep the others from their ends: it is raised after them.
    const p = goroutine.forCall() orelse return null;
    const undisturbed = py.PyErr_CheckSignals() == 0 and
        signals.awaitHandlers(p, .launched) and goroutine.forPark() != null;
    const before: ?*py.Object = if (undisturbed) null else py.takeException();
    const have_ended = goroutine.cancelAll(p, lane.now() +| @as(u64, @intCast(@max(0, ns))));
    if (before) |exception| {
        py.restoreException(if (have_ended) exception else errors.takeAfter(exception));
        return null;
    }
    if (!have_ended) return null;
    return py.PyLong_FromUnsignedLongLong(lane.user_count - 1 - goroutine.countThreads());
}

/// judge(goroutine_id, since_ns, slice_ns, /)
fn judge(id: i64, since_ns: i64, slice_ns: i64) bool {
    if (!lane.live) return false;
    const slice: u64 = @intCast(@max(0, slice_ns));
    return lane.judge(@intCast(@max(0, id)), @intCast(@max(0, since_ns)), slice);
}

fn throwMain(exception: *py.Object) ?*py.Object {
    const e = exception;
    if (py.PyErr_GivenExceptionMatches(e, py.exc.baseException()) == 0 or
        py.PyType_GetFlags(e.type) & (1 << 30) == 0)
        return py.raise(py.exc.typeError(), "throw_main() needs an exception", .{});
    if (!lane.live) {
        fork.throw(e);
    } else if (goroutine.main) |main| {
        // A panic handler that the main goroutine runs would raise it itself: report() sees to it.
        if (lane.onThread() == &main.g)
            goroutine.interrupt(main, py.incref(e))
        else
            signals.interruptMain(py.incref(e));
    }
    return py.returnNone();
}

fn throwAtOnce(object: *py.Object, exception: *py.Object) ?*py.Object {
    if (!handle.Class.is(object) or !py.isException(exception)) {
        const text = "throw_at_once() needs a goroutine and an exception";
        return py.raise(py.exc.typeError(), text, .{});
    }
    const p = goroutine.liveOf(object) orelse return py.boolean(false);
    if (lane.onThread() == &p.g)
        return py.raise(py.exc.runtimeError(), "a goroutine raises by itself", .{});
    goroutine.throwAtOnce(p, py.incref(exception));
    return py.boolean(true);
}

fn interruptMain() ?*py.Object {
    const e = py.PyObject_CallObject(py.exc.keyboardInterrupt(), null) orelse return null;
    defer py.decref(e);
    return throwMain(e);
}

/// A descriptor, for signal.set_wakeup_fd(): a run watches its other end.
fn watchSignals(value: i64) ?*py.Object {
    const fd = os.Handle.ofNumber(value) orelse return py.returnNone();
    if (!lane.live) return py.returnNone();
    host.poller.backend().watchSignals(fd) catch |e| return socket.cannotWatch(value, e);
    return py.returnNone();
}

fn active() bool {
    return lane.live;
}

fn setPanicHandlers(handler: *py.Object, stray_handler: *py.Object) void {
    const places = [_]*?*py.Object{ &goroutine.panic_handler, &goroutine.stray_panic_handler };
    for (places, [_]*py.Object{ handler, stray_handler }) |place, new| {
        const old = place.*;
        place.* = py.incref(new);
        py.xdecref(old);
    }
}

// ---- the module ----

const function = class.moduleFunction;
const functions = [_]class.Method(void){
    function("run(fn, args, kwargs, options, /)", run.run,
        \\Runs fn(*args) as the main goroutine; see golibx.run().
    ),
    function("go(fn, /, *args, **kwargs)", go,
        \\Starts fn(*args, **kwargs) as a goroutine; returns its Goroutine.
    ),
    function("go_system(fn, /, *args)", goSystem,
        \\As go(), for a service of the runtime: not counted, cancelled or waited for.
    ),
    function("go_child(context, on_end, children, places, fn, /, *args, **kwargs)", goChild,
        \\As go(), under context. The Goroutine becomes a key of children, a dict, unless that has
        \\the key None: RuntimeError. on_end(goroutine) is called when it has ended, and a value
        \\received from places, a Chan or None; what it raised counts as collected.
    ),
    function("notify_end(goroutine, chan, /)", goroutine.notifyEnd,
        \\Sends goroutine to chan, which has room for it, when it ends, or now if it has.
    ),
    function("context_background()", context.background, "The context that nothing cancels."),
    function("context_current()", context.current, "The ambient context of the calling goroutine."),
    function("context_with_cancel(parent, /)", context.withCancel,
        \\A child of parent that can be cancelled.
    ),
    function("context_with_timeout(parent, seconds, /)", context.withTimeout,
        \\A child of parent that lasts at most that many seconds.
    ),
    function("context_with_deadline(parent, t, /)", context.withDeadline,
        \\A child of parent that lasts at most until t, in seconds of time.monotonic().
    ),
    function("context_with_value(parent, key, value, /)", context.withValue,
        \\A child of parent with a value.
    ),
    function("context_without_cancel(parent, /)", context.withoutCancel,
        \\A child of parent that has its values and is cancelled by nothing.
    ),
    function("context_cause(context, /)", context.causeOf,
        \\Why the context is done, an exception; None while it is live.
    ),
    function("after_func(context, fn, /)", context.afterFunc,
        \\Has fn() called in a goroutine of its own once the context is done; returns an AfterFunc.
    ),
    function("gosched()", gosched, "Lets the other goroutines run before this one goes on."),
    function("go_last()", goLast, "As gosched(), until no other goroutine can go on."),
    function("sleep(seconds, /)", sleep,
        \\Parks the goroutine for at least seconds, a float; zero or less is gosched().
    ),
    function("current()", current, "The Goroutine that calls, or None outside of one."),
    function("judge(goroutine_id, since_ns, slice_ns, /)", judge,
        \\Until it next waits, the goroutine that was preempted at since_ns has slices of slice_ns
        \\if they are longer, or for 0 a low priority. Returns whether it has not waited yet.
    ),
    function("ident()", ident,
        \\threading.get_ident(): of the calling goroutine, or thread outside of one.
    ),
    function("learn_labels(variable, no_block, /)", labels.learn,
        \\What Goroutine.labels shows: the attribute labels of what variable, a ContextVar, holds
        \\for the goroutine, or of no_block where it holds nothing.
    ),
    function("in_goroutine()", identity.hasOwnIdent,
        \\Whether ident() is of a goroutine: not of a thread, nor of the main goroutine, which has a
        \\thread's.
    ),
    function("lock_for_greenlets()", greenlets.setUp,
        \\Has goroutines be locked to their threads from their first use of greenlet on, which has
        \\been imported.
    ),
    function("keep_thread(active, thread, /)", identity.keepThread,
        \\Has active, a dict, hold thread under ident() until the calling goroutine ends.
    ),
    function("async_callee(function, /)", asynchronous.asyncCallee,
        \\The name of a function that makes a coroutine or asynchronous generator when it is called,
        \\and whether that is a generator; None for other functions.
    ),
    function("patch(module, /)", patch.patch,
        \\Has functions of the standard library park goroutines: those behind one module of its own.
        \\Returns None, or a text that says why they are left as they are.
    ),
    function("unpatch(module, /)", patch.unpatch,
        \\Takes patch(module) back.
    ),
    function("patchable()", patch.patchable,
        \\The modules that there are to patch, with whether each is patched.
    ),
    function("set_thread_functions(functions, /)", threads.setFunctions,
        \\What start_new_thread() and others of the module _thread do in goroutines, by their names:
        \\NotImplemented is for what they do elsewhere. None: no threads are goroutines.
    ),
    function("begin_thread_handle(handle, ident, /)", threads.beginHandle,
        \\Has a new _thread._ThreadHandle be that of a thread which runs, with that number; with 0
        \\the number is told later. Returns False if it is another's already.
    ),
    function("report_thread_error(function, error, /)", threads.reportError,
        \\Tells sys.unraisablehook of what was raised in a thread that function was started in.
    ),
    function("report_shutdown_error(error, /)", threads.reportShutdownError,
        \\The same of what was raised while the program's end waited for its threads.
    ),
    function("has_own_mask()", sigmask.callerHasOwn,
        \\Whether the calling goroutine, which is a thread of the program, blocks other signals than
        \\the program.
    ),
    function("go_thread(frames, fn, /, *args)", goThread,
        \\As go(), for a thread that the program starts: it inherits nothing, is not cancelled at
        \\the end of the run, and never goes on. It was started so many frames above the function
        \\that calls.
    ),
    function("drop_locals()", dropLocals,
        \\Drops the thread-local data of the goroutine that calls; see goroutine_threads.py.
    ),
    function("find_buffered_owner(file, /)", buffered.findOwner,
        \\Looks for the owner of the lock in a BufferedReader that the calling thread is in the
        \\middle of reading. Returns whether it was found.
    ),
    function("replaced()", replace.replaced,
        \\The built-in functions that do something else in goroutines, with how often they did.
    ),
    function("now_ns()", nowNs,
        \\The time that sleeps, time-outs and timers go by, in monotonic nanoseconds: virtual in
        \\some runs.
    ),
    function("blocking(fn, /, *args, **kwargs)", blocking,
        \\Calls fn(*args, **kwargs), which is known to block, and returns its result. The other
        \\goroutines go on at once instead of after the retake threshold.
    ),
    function("lock_os_thread()", os_thread.lock,
        \\Has the goroutine run on one thread only, which runs no other, until unlock_os_thread()
        \\was called as often. The main thread is for the main goroutine: any other moves to a
        \\thread of its own. A goroutine that ends locked takes its thread along. Raises
        \\RuntimeError if there is no thread for it.
    ),
    function("unlock_os_thread()", os_thread.unlock,
        \\Undoes one lock_os_thread(); RuntimeError if there was none.
    ),
    function("num_goroutine()", numGoroutine, "How many goroutines of the program's live, an int."),
    function("gomaxprocs(n=None)", gomaxprocs,
        \\Sets how many processors run native goroutines; returns the setting before. Python
        \\goroutines have one processor on an interpreter with a global lock, whatever n.
    ),
    function("goroutines()", goroutines,
        \\The Goroutines that live, newest first, those of the runtime included.
    ),
    function("sample(period, count, /)", sampling.sample,
        \\Looks count times, every period seconds on average, which goroutine has the processor, and
        \\then returns a list of (nanoseconds, goroutine, frames): what the look stands for, and the
        \\frames as [(code, line), …], the innermost first. There is none for a look that found no
        \\goroutine, or one in a blocking call. For one thread at a time, which runs no goroutine.
    ),
    function("waiting_threads()", standin.waitingThreads,
        \\The threads that run no goroutine and wait for something of the run, those that came last
        \\first, as (number, ident, state, waiting_on, waited, frame): the system's and the
        \\interpreter's number, and what is said of a Goroutine. One that waits in a signal handler
        \\too is there twice.
    ),
    select.definition,
    function("after(seconds)", timer.after,
        \\A channel from which one value can be received, in seconds from now: the time it was due
        \\at, a float on the clock of time.monotonic().
    ),
    function("tick(seconds)", timer.tick,
        \\A channel from which a time can be received every seconds: Ticker(seconds).c.
    ),
    function("leaked(stacks, harmless, /)", leaks.leaked,
        \\Of a tuple of (goroutine, frames), the goroutines that can't be woken: see golibx.leaked.
        \\`harmless` is a list of weak references by which no code comes back to an object.
    ),
    function("measure_frames(code, count, exception, /)", leaks.measureFrames,
        \\Finds out about frames by a code object with count variables of all kinds, and about
        \\thread states by the exception that is being handled; returns whether it could.
    ),
    function("frame_slots(frame, /)", leaks.frameSlots,
        \\What the local variables of frame hold, a list; None where that is not known.
    ),
    function("cancel_all(timeout_ns, /)", cancelAll,
        \\Cancels all other goroutines of the program's but its threads, and waits for them; returns
        \\how many are left.
    ),
    function("throw_main(exception, /)", throwMain,
        \\Raises exception in the main goroutine, wherever it is.
    ),
    function("throw_at_once(goroutine, exception, /)", throwAtOnce,
        \\Has another goroutine raise exception where it waits, or before its next bytecode where it
        \\computes. Returns False if it had ended already, else True.
    ),
    function("interrupt_main()", interruptMain,
        \\Raises KeyboardInterrupt in the main goroutine, wherever it is.
    ),
    function("handle_faults(on, /)", fault.switchHandler,
        \\Returns whether golibx is told of memory faults first, as it is while a run lasts. From
        \\now on it is told if on is true.
    ),
    function("take_signal(number, disposition, /)", signals.takeSignal,
        \\What the signal does from now on: 0 what it did before, 1 its number is written to the
        \\descriptor of write_signals(), 2 nothing.
    ),
    function("write_signals(fd, /)", signals.writeSignals,
        \\The descriptor, which must never block, for signals that were taken; -1 for none.
    ),
    function("recount_signals(names, /)", signals.recount,
        \\Counts the signals that have a handler of the program's, which may wake a goroutine. names
        \\is the dict of golibx.patch.signals.
    ),
    function("watch_signals(fd, /)", watchSignals,
        \\Wakes the runtime when fd, the read end of a pipe that signal.set_wakeup_fd() writes to,
        \\is readable.
    ),
    function("forward_signals(read_end, fd, warns, /)", signals.forward,
        \\Writes what comes out of read_end, signals' numbers, to fd from here on; -1 for no
        \\descriptor. warns: says so if fd is full.
    ),
    function("keep_descriptor(fd, /)", descriptors.keep,
        \\Has fd be one of golibx's own, which os.close() takes for one that is not open.
    ),
    function("leave_descriptor(fd, /)", descriptors.leave,
        \\Has fd be the program's again, after keep_descriptor().
    ),
    function("adopt_socket(socket_of, plain, /)", socket.adopt,
        \\A socket of that type with the descriptor of a socket.socket, which has none any more.
    ),
    function("claimed(enter, leave, body, /, *args)", run.callClaimed,
        \\Claims the run, calls enter(), body(*args) if that has not raised, and leave(); unclaims
        \\it, and returns what body() has returned. Calls leave() again if a signal's handler raises
        \\in it.
    ),
    function("claim()", run.claim,
        \\Makes the process's one run the caller's; RuntimeError while it is claimed. See unclaim().
    ),
    function("schedule()", run.schedule,
        \\The choices of the last explored run, four native 16-bit numbers each, the place of the
        \\first that was not as planned or -1, and whether these are all. See
        \\zsrc/serial/script.zig.
    ),
    function("unclaim()", run.unclaim, "Others may claim the run."),
    function("free_main_thread(signal, /)", mainthread.free,
        \\None if no goroutine but the main one is on the thread that called run(). If one is, sends
        \\the thread that signal, which on_own_signal handles, and returns whether the goroutine is
        \\locked to the thread; 0 sends nothing.
    ),
    function("learn_main_thread(function, /)", mainthread.learn,
        \\Finds out where the interpreter knows the main thread, by signal.signal(), on the main
        \\thread.
    ),
    function("call_as_main_thread(function, /, *args)", mainthread.callAsMain,
        \\Calls it. In the main goroutine the thread passes for the main one meanwhile.
    ),
    function("call_undisturbed(function, /)", mainthread.callUndisturbed,
        \\Calls it. Handlers of signals that come meanwhile are called afterwards.
    ),
    function("on_own_signal(signal, frame, /)", mainthread.onSignal,
        \\Of golibx's own signal. In the main goroutine it calls the handlers that are due; in a C
        \\call that blocks the main thread when the run has ended it raises Cancelled.
    ),
    function("replace_set_wakeup_fd(function, /)", wakeup_fd.install,
        \\Has it called for signal.set_wakeup_fd(), also by code that has kept that function;
        \\returns the function that was called before.
    ),
    function("use_signal(number, /)", signals.useSignal,
        \\The signal that has this handler is golibx's own; 0: there is none.
    ),
    function("active()", active, "Whether a runtime is running in this process."),
    function("set_panic_handlers(handler, stray_handler, /)", setPanicHandlers,
        \\handler(goroutine, exception) is called for exceptions that no code collects, and
        \\stray_handler(goroutine, exception) for those of goroutines of a run that has ended.
    ),
    function("watch_goroutines(function, /)", watching.watch,
        \\Has each goroutine of the program's that begins call function(goroutine), and what that
        \\returns, unless None, with (outcome, exception) when it has ended; None: there is no
        \\watcher.
    ),
    function("owe(exception, /)", owed.owe,
        \\Has the calling goroutine raise it again where it waits next, if it is what the goroutine
        \\was made to raise last. Returns whether it is.
    ),
    function("owe_nothing()", owed.oweNothing,
        \\From here on what the calling goroutine is made to raise may be ignored.
    ),
    function("report_uncollected()", uncollected.reportAll,
        \\Reports the exceptions that have not been collected yet as never collected.
    ),
    function("set_event_mask(mask, /)", events.setMask, "Bit k: record events of kind k."),
    function("events_wait(single, batched, /)", events.wait,
        \\The recorded events of both lanes, in the order of their times, or None after
        \\events_stop(): those whose kinds are in the mask `single` as a list of (kind, time_ns,
        \\goroutine_id, a, b, lane), those in `batched` as bytes, of which golibx/eventbatch.py says
        \\more, and a list of objects. b is an object for kinds that have one, in bytes its place in
        \\that list; lane is 0 for Python's, 1 for the native one.
    ),
    function("wait_reasons()", events.waitReasons,
        \\What goroutines wait for, by the numbers that the bytes of events_wait() have for it.
    ),
    function("events_stop()", events.stop,
        \\Makes events_wait() return None once all events were taken.
    ),
    function("record_panic(goroutine_id, text, /)", events.recordPanic,
        \\Records that a goroutine ended with an exception that no code collects, described by text.
        \\Returns whether it was: False if no plugin wants it, or the ring is full.
    ),
    function("record_tune(change, /)", events.recordTune,
        \\Counts a change of a tunable, and records it, with an object for b that describes it.
        \\Returns whether it was recorded: False if no plugin wants it, or the ring is full.
    ),
    function("measure_latency()", events.measureLatency,
        \\From here on waits are measured for latencies(): sets bit 31 of the event mask, which
        \\set_event_mask() leaves as it is.
    ),
    function("latencies()", events.latencies,
        \\How many goroutines of this run waited how long for their turn, of those that were
        \\measured while bit 31 of the event mask was set: a dict of counts by the longest wait in
        \\nanoseconds that is counted there, which is at most an eighth longer than the shortest.
    ),
    function("stats()", figures.stats, "The scheduler's counters, a dict of ints."),
    function("tunables()", tuning.tunables,
        \\The values of all keys that may change while a run goes on: a dict of ints by their names
        \\in golib.toml, durations in nanoseconds.
    ),
    function("tune(changes, /)", tuning.tune,
        \\Changes some of tunables(), a dict as that: all of them, or none if one is refused. Any
        \\thread may call it, while a runtime runs. Returns the values that were replaced.
    ),
    function("info()", figures.info, "Which mechanisms are active, a dict of strs."),
    function("native_start(options, /)", native.start,
        \\Starts the native runtime unless it runs: with options, a dict of Config.core_options(),
        \\or inside of a run with that one's.
    ),
    function("native_running()", native.running, "Whether the native runtime runs."),
    function("native_go(address, arg, keep, /)", native.go,
        \\Starts the C function at address as a native goroutine and returns its NativeGoroutine;
        \\keep lives until the function has returned.
    ),
    function("native_call(address, kinds, values, result, keep, /)", native.call,
        \\Calls the C function at address on the native lane and waits for it. kinds has a letter
        \\for each of values, a tuple: "i" an integer or pointer, "d" a double, "f" a float; result
        \\is one of struct's letters, or "v" for none.
    ),
    function("disturb(seed, preempt, delay, delay_ns, /)", disturb,
        \\From now on one in so many of the program's calls of golibx gives way, and one is delayed,
        \\by up to delay_ns; 0: none. It ends with the run.
    ),
    function("disturbances()", disturbances,
        \\How many calls there were since disturb(), how many gave way, and how many were delayed.
    ),
    function("native_wait(timeout_ns, /)", native.waitAll,
        \\Waits for the native goroutines that this run has started; returns how many are left.
    ),
    function("native_goroutines()", native.goroutines,
        \\Those that live, as (id, state, function, locked_to_thread): int, str, the name of a
        \\symbol, bool.
    ),
    function("native_counters()", native.counters,
        \\The native runtime's counters, a dict of ints: golibx_counters of golibx.h.
    ),
    function("native_queues()", native.queues,
        \\How many native goroutines wait in the queue of each processor, a list of ints; empty
        \\while the native runtime does not run.
    ),
    function("_before_exit()", native.beforeExit,
        \\For atexit: native goroutines are not preempted from here on, and those that were go on.
    ),
    function("_end_refused()", refused.run, "Ends the goroutines for which there was no memory."),
    function("_before_fork()", fork.before, "Runs in a process that is about to fork."),
    function("_after_fork_in_parent()", fork.afterInParent, "Runs in the process that has forked."),
    function("_after_fork_in_child()", fork.afterInChild, "Runs in the child of a fork."),
    function("only_for(names, function, /)", filter.onlyFor,
        \\A function that calls `function` with its arguments if the first is in the dict `names`,
        \\and returns None if it is not, without a frame that traces would show.
    ),
    function("whole(fn, /)", whole.make,
        \\The function, one of golibx's own, or method: no signal handler is called between its
        \\lines in the main goroutine, but where it waits, and when it has returned.
    ),
    function("whole_enter(fn, /)", whole.makeEnter,
        \\As whole(), for the method `__enter__`: an exception that comes after it goes to
        \\`__exit__`.
    ),
    function("open_to_signals(fn, /, *args, **kwargs)", whole.openToSignals,
        \\Calls a function of the program's in the midst of one of golibx's that is `whole`: signal
        \\handlers are called there as anywhere.
    ),
    function("hold_back(handler, signal, /)", signals.holdBack,
        \\Whether the caller, a signal's handler, is called in the midst of what nothing may cut in
        \\two: then it is called again, with that signal, after that, and returns now.
    ),
};

/// Those of the program's functions that a goroutine may have to give way in.
pub const function_table = points.Table.named(&definitions, &.{
    "after",                 "after_func",           "blocking",           "context_with_cancel",
    "context_with_deadline", "context_with_timeout", "context_with_value", "context_without_cancel",
    "context_cause",         "go",                   "go_child",           "num_goroutine",
    "select",                "tick",
});

const definitions = blk: {
    var all: [functions.len]points.Entry = undefined;
    for (functions, &all) |f, *entry| entry.* = f.entry;
    break :blk all;
};

var loaded = false;

fn exec(module: *py.Object) callconv(.c) c_int {
    if (loaded) {
        _ = py.raise(py.exc.importError(), "golibx._core can be loaded once a process: " ++
            "not in subinterpreters, and not again after it was removed", .{});
        return -1;
    }
    py.loadVersion();
    if (py.extra.load()) |missing| {
        _ = py.raise(py.exc.importError(), "this interpreter lacks {s}", .{missing});
        return -1;
    }
    if (!py.loadTypes() or !asynchronous.load() or !whole.load()) return -1;
    if (py.PySys_GetObject("flags")) |flags| {
        const ignores = py.PyObject_GetAttrString(flags, "ignore_environment") orelse return -1;
        defer py.decref(ignores);
        native.ignoreEnvironment(py.PyObject_IsTrue(ignores) != 0);
    }
    if (!host.calibrate()) return -1;
    if (!classes.add(module)) return -1;
    descriptors.watch();
    if (!registerFork(module) or !registerExit(module) or !native.watchEnd()) return -1;
    @import("../parallel/deadlock.zig").python.store(true, .monotonic);
    @import("../parallel/lane.zig").host_holds = host.nativeHolds;
    loaded = true;
    return 0;
}

/// os.register_at_fork() of the module's hooks.
fn registerFork(module: *py.Object) bool {
    const posix = py.PyImport_ImportModule("os") orelse return false;
    defer py.decref(posix);
    if (py.PyObject_HasAttrString(posix, "register_at_fork") == 0) return true;
    const register = py.PyObject_GetAttrString(posix, "register_at_fork") orelse return false;
    defer py.decref(register);
    const kwargs = py.PyDict_New() orelse return false;
    defer py.decref(kwargs);
    inline for (.{
        .{ "before", "_before_fork" },
        .{ "after_in_parent", "_after_fork_in_parent" },
        .{ "after_in_child", "_after_fork_in_child" },
    }) |each| {
        const hook = py.PyObject_GetAttrString(module, each[1]) orelse return false;
        defer py.decref(hook);
        if (py.PyDict_SetItemString(kwargs, each[0], hook) != 0) return false;
    }
    const empty = py.PyTuple_New(0) orelse return false;
    defer py.decref(empty);
    const r = py.PyObject_Call(register, empty, kwargs) orelse return false;
    py.decref(r);
    if (fork.watch()) return true;
    _ = py.PyErr_NoMemory();
    return false;
}

/// atexit.register(_before_exit).
fn registerExit(module: *py.Object) bool {
    const register = py.importFrom("atexit", "register") orelse return false;
    defer py.decref(register);
    const hook = py.PyObject_GetAttrString(module, "_before_exit") orelse return false;
    defer py.decref(hook);
    const r = py.call(register, &.{hook}) orelse return false;
    py.decref(r);
    return true;
}

const module_slots = py.moduleSlots(exec);

var module_def: py.ModuleDef = .{
    .name = "golibx._core",
    .doc = "The native core of golibx.",
    .methods = function_table.live.ptr,
    .slots = &module_slots,
};

pub fn init() ?*py.Object {
    return py.PyModuleDef_Init(&module_def);
}
