//! The extension module golibx._core: its functions and types.
const std = @import("std");
const os = @import("../os/os.zig");
const points = @import("points.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const signals = @import("signals.zig");
const goroutine = @import("goroutine.zig");
const handle = @import("handle.zig");
const chan = @import("chan.zig");
const chan_views = @import("chan_views.zig");
const select = @import("select.zig");
const timer = @import("timer.zig");
const uncollected = @import("uncollected.zig");
const native = @import("native.zig");
const context = @import("context.zig");
const native_chan = @import("native_chan.zig");
const standin = @import("standin.zig");
const refused = @import("refused.zig");
const class = @import("class.zig");
const classes = @import("classes.zig");
const socket = @import("socket.zig");
const filter = @import("filter.zig");
const descriptors = @import("descriptors.zig");
const preempt = @import("preempt.zig");
const fault = @import("fault.zig");
const asynchronous = @import("asynchronous.zig");
const errors = @import("errors.zig");
const events = @import("events.zig");
const leaks = @import("leaks.zig");
const os_thread = @import("os_thread.zig");
const greenlets = @import("greenlets.zig");
const run = @import("run.zig");
const mainthread = @import("mainthread.zig");
const identity = @import("identity.zig");
const replace = @import("replace.zig");
const fork = @import("fork.zig");
const figures = @import("figures.zig");
const timeouts = @import("timeouts.zig");

const lane = &host.the_lane;

// ---- goroutines ----

/// Arguments of go(): a callable, then what it is to be called with.
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
    if (!lane.live or lane.stray() != null) {
        errors.notInGoroutine();
        return null;
    }
    const p = goroutine.create(args[0], args + 1, given.n - 1, given.names, system) catch return null;
    p.runs_python = callee == .python;
    return p;
}

fn go(given: class.Given) ?*py.Object {
    return goroutine.launch(createChecked("go", given, false) orelse return null);
}

fn goSystem(given: class.Given) ?*py.Object {
    return goroutine.launch(createChecked("go_system", given, true) orelse return null);
}

/// go_child(context, on_end, children, places, fn, /, *args, **kwargs)
fn goChild(given: class.Given) ?*py.Object {
    const args = given.args;
    if (given.n < 4 or args[0].type != context.context_type or
        (args[3] != py.none() and args[3].type != chan.chan_type))
        return py.raise(
            py.exc.typeError(),
            "go_child() takes a Context, a callable, a dict and a Chan or None first",
            .{},
        );
    const p = createChecked("go", given.after(4), false) orelse return null;
    const places = if (args[3] == py.none()) null else py.incref(args[3]);
    goroutine.adopt(p, py.incref(args[0]), py.incref(args[1]), places);
    // From here to the launch nobody else runs.
    const ended = py.PyDict_GetItemWithError(args[2], py.none()) != null;
    if (ended) _ = py.raise(py.exc.runtimeError(), "the scope has ended: it takes no more goroutines", .{});
    if (ended or py.PyDict_SetItem(args[2], &p.handle.ob, py.none()) != 0) {
        goroutine.abandon(p);
        return null;
    }
    return goroutine.launch(p);
}

/// The interpreter calls it straight from its loop, which it does not do for METH_NOARGS: a plain
/// call (foreign.zig).
fn gosched(_: ?*py.Object, _: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 0) return py.raise(
        py.exc.typeError(),
        "golibx._core.gosched() takes no arguments ({d} given)",
        .{n},
    );
    const p = goroutine.forPark() orelse return null;
    p.g.gave_way = true;
    lane.gosched(&p.g);
    return if (goroutine.raisePending(p)) null else py.returnNone();
}

fn goLast(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const p = goroutine.forPark() orelse return null;
    lane.goLast(&p.g);
    return if (goroutine.raisePending(p)) null else py.returnNone();
}

fn sleep(_: ?*py.Object, seconds: ?*py.Object) callconv(.c) ?*py.Object {
    const value = timeouts.number(seconds.?, "a sleep must be a number of seconds, not %R") orelse
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

fn current(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const p = goroutine.of(lane.onThread() orelse return py.returnNone());
    return if (p.ended) py.returnNone() else py.incref(&goroutine.actsAs(p).handle.ob);
}

/// The number that stands for the calling goroutine or, outside of one, thread.
fn ident(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(goroutine.ident());
}

fn nowNs(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(lane.now());
}

fn blocking(
    _: ?*py.Object,
    args: py.Args,
    n: py.Ssize,
    kwnames: ?*py.Object,
) callconv(.c) ?*py.Object {
    if (n < 1) return py.raise(py.exc.typeError(), "blocking() missing the function to call", .{});
    if (asynchronous.look("blocking", args[0]) == .refused) return null;
    const p = goroutine.forPark() orelse return null;
    lane.giveUpP(&p.g);
    const result = py.extra.PyObject_Vectorcall(args[0], args + 1, @intCast(n - 1), kwnames);
    // Back on a P before the caller goes on; an exception travels along.
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    if (result == null) py.PyErr_Fetch(&t, &v, &tb);
    _ = lane.here();
    if (result == null) py.PyErr_Restore(t, v, tb);
    return result;
}

fn numGoroutine(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(if (lane.live) lane.user_count else 0);
}

fn gomaxprocs(_: ?*py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("gomaxprocs", &.{"n"}, 0, args, n, kw) orelse return null;
    const before = native.procCount();
    if (given[0]) |value| if (value != py.none()) {
        const number = py.PyLong_AsLongLong(value);
        if (number == -1 and py.PyErr_Occurred() != null) return null;
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
fn goroutines(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
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

fn cancelAll(_: ?*py.Object, timeout: ?*py.Object) callconv(.c) ?*py.Object {
    const ns = py.PyLong_AsLongLong(timeout.?);
    if (ns == -1 and py.PyErr_Occurred() != null) return null;
    // The end of the run is under no context of the program's.
    context.leaveAll(goroutine.forCall() orelse return null);
    const p = goroutine.forPark() orelse return null;
    if (!goroutine.cancelAll(p, lane.now() +| @as(u64, @intCast(@max(0, ns))))) return null;
    return py.PyLong_FromUnsignedLongLong(lane.user_count - 1);
}

fn throwMain(_: ?*py.Object, exception: ?*py.Object) callconv(.c) ?*py.Object {
    const e = exception.?;
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

fn interruptMain(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const e = py.PyObject_CallObject(py.exc.keyboardInterrupt(), null) orelse return null;
    defer py.decref(e);
    return throwMain(null, e);
}

/// The descriptor whose other end a run watches: for signal.set_wakeup_fd().
fn watchSignals(_: ?*py.Object, fd: ?*py.Object) callconv(.c) ?*py.Object {
    const value = py.PyLong_AsLongLong(fd.?);
    if (value == -1 and py.PyErr_Occurred() != null) return null;
    if (!lane.live or value < 0 or value > std.math.maxInt(i32)) return py.returnNone();
    host.poller.backend.watchSignals(@intCast(value)) catch |e| return socket.cannotWatch(value, e);
    return py.returnNone();
}

fn active(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(lane.live);
}

fn setPanicHandlers(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 2) return py.raise(
        py.exc.typeError(),
        "set_panic_handlers() takes 2 arguments ({d} given)",
        .{n},
    );
    for ([_]*?*py.Object{ &goroutine.panic_handler, &goroutine.stray_panic_handler }, args[0..2]) |at, handler| {
        const old = at.*;
        at.* = py.incref(handler);
        py.xdecref(old);
    }
    return py.returnNone();
}

// ---- the module ----

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const functions = [_]py.MethodDef{
    .{ .name = "run", .function = @ptrCast(&run.run), .flags = py.METH_FASTCALL, .doc =
    \\run(fn, args, kwargs, options, /)
    \\--
    \\
    \\Runs fn(*args) as the main goroutine; see golibx.run().
    },
    class.moduleFunction("go(fn, /, *args, **kwargs)", go,
        \\Starts fn(*args, **kwargs) as a goroutine; returns its Goroutine.
    ).def,
    class.moduleFunction("go_system(fn, /, *args)", goSystem,
        \\As go(), for a service of the runtime: not counted, cancelled or waited for.
    ).def,
    class.moduleFunction("go_child(context, on_end, children, places, fn, /, *args, **kwargs)", goChild,
        \\As go(), under context. The Goroutine becomes a key of children, a dict, unless that has the key
        \\None: RuntimeError. on_end(goroutine) is called when it has ended, and a value received from
        \\places, a Chan or None; what it raised counts as collected.
    ).def,
    .{ .name = "notify_end", .function = @ptrCast(&goroutine.notifyEnd), .flags = py.METH_FASTCALL, .doc =
    \\notify_end(goroutine, chan, /)
    \\--
    \\
    \\Sends goroutine to chan, which has room for it, when it ends, or now if it has.
    },
    .{ .name = "context_background", .function = @ptrCast(&context.background), .flags = py.METH_NOARGS, .doc =
    \\context_background()
    \\--
    \\
    \\The context that nothing cancels.
    },
    .{ .name = "context_current", .function = @ptrCast(&context.current), .flags = py.METH_NOARGS, .doc =
    \\context_current()
    \\--
    \\
    \\The ambient context of the calling goroutine.
    },
    .{ .name = "context_with_cancel", .function = @ptrCast(&context.withCancel), .flags = py.METH_O, .doc =
    \\context_with_cancel(parent, /)
    \\--
    \\
    \\A child of parent that can be cancelled.
    },
    .{ .name = "context_with_timeout", .function = @ptrCast(&context.withTimeout), .flags = py.METH_FASTCALL, .doc =
    \\context_with_timeout(parent, seconds, /)
    \\--
    \\
    \\A child of parent that lasts at most that many seconds.
    },
    .{ .name = "context_with_deadline", .function = @ptrCast(&context.withDeadline), .flags = py.METH_FASTCALL, .doc =
    \\context_with_deadline(parent, t, /)
    \\--
    \\
    \\A child of parent that lasts at most until t, in seconds of time.monotonic().
    },
    .{ .name = "context_with_value", .function = @ptrCast(&context.withValue), .flags = py.METH_FASTCALL, .doc =
    \\context_with_value(parent, key, value, /)
    \\--
    \\
    \\A child of parent with a value.
    },
    .{ .name = "context_without_cancel", .function = @ptrCast(&context.withoutCancel), .flags = py.METH_O, .doc =
    \\context_without_cancel(parent, /)
    \\--
    \\
    \\A child of parent that has its values and is cancelled by nothing.
    },
    .{ .name = "context_cause", .function = @ptrCast(&context.causeOf), .flags = py.METH_O, .doc =
    \\context_cause(context, /)
    \\--
    \\
    \\Why the context is done, an exception; None while it is live.
    },
    .{ .name = "after_func", .function = @ptrCast(&context.afterFunc), .flags = py.METH_FASTCALL, .doc =
    \\after_func(context, fn, /)
    \\--
    \\
    \\Has fn() called in a goroutine of its own once the context is done; returns an AfterFunc.
    },
    .{ .name = "gosched", .function = @ptrCast(&gosched), .flags = py.METH_FASTCALL, .doc =
    \\gosched()
    \\--
    \\
    \\Lets the other goroutines run before this one goes on.
    },
    .{ .name = "go_last", .function = @ptrCast(&goLast), .flags = py.METH_NOARGS, .doc =
    \\go_last()
    \\--
    \\
    \\As gosched(), until no other goroutine can go on.
    },
    .{ .name = "sleep", .function = @ptrCast(&sleep), .flags = py.METH_O, .doc =
    \\sleep(seconds, /)
    \\--
    \\
    \\Parks the goroutine for at least seconds, a float; zero or less is gosched().
    },
    .{ .name = "current", .function = @ptrCast(&current), .flags = py.METH_NOARGS, .doc =
    \\current()
    \\--
    \\
    \\The Goroutine that calls, or None outside of one.
    },
    .{ .name = "ident", .function = @ptrCast(&ident), .flags = py.METH_NOARGS, .doc =
    \\ident()
    \\--
    \\
    \\threading.get_ident(): of the calling goroutine, or thread outside of one.
    },
    .{ .name = "in_goroutine", .function = @ptrCast(&identity.hasOwnIdent), .flags = py.METH_NOARGS, .doc =
    \\in_goroutine()
    \\--
    \\
    \\Whether ident() is of a goroutine: not of a thread, nor of the main goroutine, which has a
    \\thread's.
    },
    .{ .name = "lock_for_greenlets", .function = @ptrCast(&greenlets.setUp), .flags = py.METH_NOARGS, .doc =
    \\lock_for_greenlets()
    \\--
    \\
    \\Has goroutines be locked to their threads from their first use of greenlet on, which has been imported.
    },
    .{ .name = "keep_thread", .function = @ptrCast(&identity.keepThread), .flags = py.METH_FASTCALL, .doc =
    \\keep_thread(active, thread, /)
    \\--
    \\
    \\Has active, a dict, hold thread under ident() until the calling goroutine ends.
    },
    .{ .name = "async_callee", .function = @ptrCast(&asynchronous.asyncCallee), .flags = py.METH_O, .doc =
    \\async_callee($module, function, /)
    \\--
    \\
    \\Of a function whose call makes a coroutine or asynchronous generator its name, and whether it is a
    \\generator; None of others.
    },
    .{ .name = "replaced", .function = @ptrCast(&replace.replaced), .flags = py.METH_NOARGS, .doc =
    \\replaced()
    \\--
    \\
    \\The built-in functions that do something else in goroutines, with how often they did.
    },
    .{ .name = "now_ns", .function = @ptrCast(&nowNs), .flags = py.METH_NOARGS, .doc =
    \\now_ns()
    \\--
    \\
    \\The time that sleeps, time-outs and timers go by, in monotonic nanoseconds: virtual in some runs.
    },
    .{ .name = "blocking", .function = @ptrCast(&blocking), .flags = fast, .doc =
    \\blocking(fn, /, *args, **kwargs)
    \\--
    \\
    \\Calls fn(*args, **kwargs), which is known to block, and returns its result. The other
    \\goroutines go on at once instead of after the retake threshold.
    },
    .{ .name = "lock_os_thread", .function = @ptrCast(&os_thread.lock), .flags = py.METH_NOARGS, .doc =
    \\lock_os_thread()
    \\--
    \\
    \\Has the goroutine run on one thread only, which runs no other, until unlock_os_thread() was
    \\called as often. The main thread is for the main goroutine: any other moves to a thread of its
    \\own. A goroutine that ends locked takes its thread along. Raises RuntimeError if no thread is to be had.
    },
    .{ .name = "unlock_os_thread", .function = @ptrCast(&os_thread.unlock), .flags = py.METH_NOARGS, .doc =
    \\unlock_os_thread()
    \\--
    \\
    \\Undoes one lock_os_thread(); RuntimeError if there was none.
    },
    .{ .name = "num_goroutine", .function = @ptrCast(&numGoroutine), .flags = py.METH_NOARGS, .doc =
    \\num_goroutine()
    \\--
    \\
    \\How many goroutines of the program's live, an int.
    },
    .{ .name = "gomaxprocs", .function = @ptrCast(&gomaxprocs), .flags = fast, .doc =
    \\gomaxprocs(n=None)
    \\--
    \\
    \\Sets how many processors run native goroutines; returns the setting before. Python
    \\goroutines have one processor on an interpreter with a global lock, whatever n.
    },
    .{ .name = "goroutines", .function = @ptrCast(&goroutines), .flags = py.METH_NOARGS, .doc =
    \\goroutines()
    \\--
    \\
    \\The Goroutines that live, newest first, those of the runtime included.
    },
    .{ .name = "waiting_threads", .function = @ptrCast(&standin.waitingThreads), .flags = py.METH_NOARGS, .doc =
    \\waiting_threads()
    \\--
    \\
    \\The threads that run no goroutine and wait for something of the run, those that came last first, as
    \\(number, ident, state, waiting_on, waited, frame): the system's and the interpreter's number, and
    \\what is said of a Goroutine. One that waits in a signal handler too is there twice.
    },
    .{ .name = "select", .function = @ptrCast(&select.select), .flags = fast, .doc =
    \\select(*cases, default=False, timeout=None)
    \\--
    \\
    \\Waits until one of the cases can go on, and does it; a random one if several can. A case comes
    \\from a method such as Chan.on_recv(), Goroutine.on_done() or Conn.on_readable(); None never can.
    \\Returns (index, value, ok): ok is False when a channel or socket was closed. With default,
    \\returns (-1, None, False) instead of waiting. Raises DeadlineExceeded when timeout seconds are
    \\over, and ChannelClosed for a send on a closed channel.
    },
    .{ .name = "after", .function = @ptrCast(&timer.after), .flags = fast, .doc =
    \\after(seconds)
    \\--
    \\
    \\A channel from which one value can be received, in seconds from now: the time it was due at, a
    \\float on the clock of time.monotonic().
    },
    .{ .name = "tick", .function = @ptrCast(&timer.tick), .flags = fast, .doc =
    \\tick(seconds)
    \\--
    \\
    \\A channel from which a time can be received every seconds: Ticker(seconds).c.
    },
    .{ .name = "leaked", .function = @ptrCast(&leaks.leaked), .flags = py.METH_FASTCALL, .doc =
    \\leaked(stacks, harmless, /)
    \\--
    \\
    \\Of a tuple of (goroutine, frames), the goroutines that nobody can wake: see golibx.leaked.
    \\`harmless` is a list of weak references by which nobody comes back to an object.
    },
    .{ .name = "measure_frames", .function = @ptrCast(&leaks.measureFrames), .flags = py.METH_FASTCALL, .doc =
    \\measure_frames(code, count, exception, /)
    \\--
    \\
    \\Finds out about frames by a code object with count variables of all kinds, and about thread states by
    \\the exception that is being handled; returns whether it could.
    },
    .{ .name = "frame_slots", .function = @ptrCast(&leaks.frameSlots), .flags = py.METH_O, .doc =
    \\frame_slots(frame, /)
    \\--
    \\
    \\What the local variables of frame hold, a list; None where that is not known.
    },
    .{ .name = "cancel_all", .function = @ptrCast(&cancelAll), .flags = py.METH_O, .doc =
    \\cancel_all(timeout_ns, /)
    \\--
    \\
    \\Cancels all other goroutines of the program's and waits for them; returns how many are left.
    },
    .{ .name = "throw_main", .function = @ptrCast(&throwMain), .flags = py.METH_O, .doc =
    \\throw_main(exception, /)
    \\--
    \\
    \\Raises exception in the main goroutine, wherever it is.
    },
    .{ .name = "interrupt_main", .function = @ptrCast(&interruptMain), .flags = py.METH_NOARGS, .doc =
    \\interrupt_main()
    \\--
    \\
    \\Raises KeyboardInterrupt in the main goroutine, wherever it is.
    },
    .{ .name = "handle_faults", .function = @ptrCast(&fault.switchHandler), .flags = py.METH_O, .doc =
    \\handle_faults(on, /)
    \\--
    \\
    \\Whether golibx is told of memory faults first, as it is while a run lasts; and whether it is to
    \\be from now on.
    },
    .{ .name = "take_signal", .function = @ptrCast(&signals.takeSignal), .flags = py.METH_FASTCALL, .doc =
    \\take_signal(number, disposition, /)
    \\--
    \\
    \\What the signal does from now on: 0 what it did before, 1 its number is written to the descriptor
    \\of write_signals(), 2 nothing.
    },
    .{ .name = "write_signals", .function = @ptrCast(&signals.writeSignals), .flags = py.METH_O, .doc =
    \\write_signals(fd, /)
    \\--
    \\
    \\The descriptor, which is never to block, for signals that were taken; -1 for none.
    },
    .{ .name = "hope_for_signals", .function = @ptrCast(&signals.setHopes), .flags = py.METH_O, .doc =
    \\hope_for_signals(count, /)
    \\--
    \\
    \\How many signals have a handler of the program's, which may wake a goroutine.
    },
    .{ .name = "watch_signals", .function = @ptrCast(&watchSignals), .flags = py.METH_O, .doc =
    \\watch_signals(fd, /)
    \\--
    \\
    \\Wakes the runtime when fd, the read end of a pipe that signal.set_wakeup_fd() writes to, is
    \\readable.
    },
    .{ .name = "keep_descriptor", .function = @ptrCast(&descriptors.keep), .flags = py.METH_O, .doc =
    \\keep_descriptor(fd, /)
    \\--
    \\
    \\Has fd be one of golibx's own, which os.close() takes for one that is not open.
    },
    .{ .name = "leave_descriptor", .function = @ptrCast(&descriptors.leave), .flags = py.METH_O, .doc =
    \\leave_descriptor(fd, /)
    \\--
    \\
    \\Has fd be the program's again, after keep_descriptor().
    },
    .{ .name = "claim", .function = @ptrCast(&run.claim), .flags = py.METH_NOARGS, .doc =
    \\claim()
    \\--
    \\
    \\Makes the process's one run the caller's; RuntimeError while it is somebody's. See unclaim().
    },
    .{ .name = "claimed", .function = @ptrCast(&run.callClaimed), .flags = py.METH_FASTCALL, .doc =
    \\claimed(enter, leave, body, /, *args)
    \\--
    \\
    \\Claims the run, calls enter(), body(*args) if that has not raised, and leave(); unclaims it, and
    \\returns what body() has returned. Calls leave() again if a signal's handler raises in it.
    },
    .{ .name = "schedule", .function = @ptrCast(&run.schedule), .flags = py.METH_NOARGS, .doc =
    \\schedule()
    \\--
    \\
    \\The choices of the last explored run, four native 16-bit numbers each, the place of the first that
    \\was not as planned or -1, and whether these are all. See zsrc/sched/script.zig.
    },
    .{ .name = "unclaim", .function = @ptrCast(&run.unclaim), .flags = py.METH_NOARGS, .doc =
    \\unclaim()
    \\--
    \\
    \\Others may claim the run.
    },
    .{ .name = "free_main_thread", .function = @ptrCast(&mainthread.free), .flags = py.METH_O, .doc =
    \\free_main_thread(signal, /)
    \\--
    \\
    \\None if no goroutine but the main one is on the thread that called run(). If one is, sends the
    \\thread that signal, whose handler is on_own_signal, and returns whether the goroutine is locked
    \\to the thread; 0 sends nothing.
    },
    .{ .name = "learn_main_thread", .function = @ptrCast(&mainthread.learn), .flags = py.METH_O, .doc =
    \\learn_main_thread(function, /)
    \\--
    \\
    \\Finds out where the interpreter knows the main thread, by signal.signal(), on the main thread.
    },
    .{ .name = "call_as_main_thread", .function = @ptrCast(&mainthread.callAsMain), .flags = py.METH_FASTCALL, .doc =
    \\call_as_main_thread(function, /, *args)
    \\--
    \\
    \\Calls it. In the main goroutine the thread passes for the main one meanwhile.
    },
    .{ .name = "call_undisturbed", .function = @ptrCast(&mainthread.callUndisturbed), .flags = py.METH_O, .doc =
    \\call_undisturbed(function, /)
    \\--
    \\
    \\Calls it. Handlers of signals that come meanwhile are called afterwards.
    },
    .{ .name = "on_own_signal", .function = @ptrCast(&mainthread.onSignal), .flags = py.METH_FASTCALL, .doc =
    \\on_own_signal(signal, frame, /)
    \\--
    \\
    \\Of golibx's own signal. In the main goroutine it calls the handlers that are due; in a C call
    \\that blocks the main thread when the run has ended it raises Cancelled.
    },
    .{ .name = "use_signal", .function = @ptrCast(&signals.useSignal), .flags = py.METH_O, .doc =
    \\use_signal(number, /)
    \\--
    \\
    \\The signal that has this handler is golibx's own; 0: there is none.
    },
    .{ .name = "active", .function = @ptrCast(&active), .flags = py.METH_NOARGS, .doc =
    \\active()
    \\--
    \\
    \\Whether a runtime is running in this process.
    },
    .{ .name = "set_panic_handlers", .function = @ptrCast(&setPanicHandlers), .flags = py.METH_FASTCALL, .doc =
    \\set_panic_handlers(handler, stray_handler, /)
    \\--
    \\
    \\handler(goroutine, exception) is called for exceptions that nobody collects, and
    \\stray_handler(goroutine, exception) for those of goroutines whose run has ended.
    },
    .{
        .name = "report_uncollected",
        .function = @ptrCast(&uncollected.reportAll),
        .flags = py.METH_NOARGS,
        .doc =
        \\report_uncollected()
        \\--
        \\
        \\Takes the exceptions that nobody has collected yet for those that nobody will.
        ,
    },
    .{ .name = "set_event_mask", .function = @ptrCast(&events.setMask), .flags = py.METH_O, .doc =
    \\set_event_mask(mask, /)
    \\--
    \\
    \\Bit k: record events of kind k.
    },
    .{ .name = "events_wait", .function = @ptrCast(&events.wait), .flags = py.METH_NOARGS, .doc =
    \\events_wait()
    \\--
    \\
    \\The recorded events of both lanes, in the order of their times, as (kind, time_ns,
    \\goroutine_id, a, b, lane), or None after events_stop(). b is a str for kinds that have a text;
    \\lane is 0 for Python's, 1 for the native one.
    },
    .{ .name = "events_stop", .function = @ptrCast(&events.stop), .flags = py.METH_NOARGS, .doc =
    \\events_stop()
    \\--
    \\
    \\Makes events_wait() return None once all events were taken.
    },
    .{ .name = "record_panic", .function = @ptrCast(&events.recordPanic), .flags = py.METH_FASTCALL, .doc =
    \\record_panic(goroutine_id, text, /)
    \\--
    \\
    \\Records that a goroutine ended with an exception that nobody collects, described by text.
    \\Returns whether it was: False if no plugin wants it, or the ring is full.
    },
    .{ .name = "stats", .function = @ptrCast(&figures.stats), .flags = py.METH_NOARGS, .doc =
    \\stats()
    \\--
    \\
    \\The scheduler's counters, a dict of ints.
    },
    .{ .name = "info", .function = @ptrCast(&figures.info), .flags = py.METH_NOARGS, .doc =
    \\info()
    \\--
    \\
    \\Which mechanisms are active, a dict of strs.
    },
    .{ .name = "native_start", .function = @ptrCast(&native.start), .flags = py.METH_O, .doc =
    \\native_start(options, /)
    \\--
    \\
    \\Starts the native runtime unless it runs: with options, a dict of Config.core_options(),
    \\or inside of a run with that one's.
    },
    .{ .name = "native_running", .function = @ptrCast(&native.running), .flags = py.METH_NOARGS, .doc =
    \\native_running()
    \\--
    \\
    \\Whether the native runtime runs.
    },
    .{ .name = "native_go", .function = @ptrCast(&native.go), .flags = py.METH_FASTCALL, .doc =
    \\native_go(address, arg, keep, /)
    \\--
    \\
    \\Starts the C function at address as a native goroutine and returns its NativeGoroutine;
    \\keep lives until the function has returned.
    },
    .{ .name = "native_call", .function = @ptrCast(&native.call), .flags = py.METH_FASTCALL, .doc =
    \\native_call(address, kinds, values, result, keep, /)
    \\--
    \\
    \\Calls the C function at address on the native lane and waits for it. kinds has a letter for
    \\each of values, a tuple: "i" an integer or pointer, "d" a double, "f" a float; result is one
    \\of struct's letters, or "v" for none.
    },
    .{ .name = "native_wait", .function = @ptrCast(&native.waitAll), .flags = py.METH_O, .doc =
    \\native_wait(timeout_ns, /)
    \\--
    \\
    \\Waits for the native goroutines that this run has started; returns how many are left.
    },
    .{ .name = "native_goroutines", .function = @ptrCast(&native.goroutines), .flags = py.METH_NOARGS, .doc =
    \\native_goroutines()
    \\--
    \\
    \\Those that live, as (id, state, function, locked_to_thread): int, str, the name of a symbol, bool.
    },
    .{ .name = "native_counters", .function = @ptrCast(&native.counters), .flags = py.METH_NOARGS, .doc =
    \\native_counters()
    \\--
    \\
    \\The native runtime's counters, a dict of ints: golibx_counters of golibx.h.
    },
    .{ .name = "native_queues", .function = @ptrCast(&native.queues), .flags = py.METH_NOARGS, .doc =
    \\native_queues()
    \\--
    \\
    \\How many native goroutines wait in the queue of each processor, a list of ints; empty while the
    \\native runtime does not run.
    },
    .{ .name = "_before_exit", .function = @ptrCast(&native.beforeExit), .flags = py.METH_NOARGS, .doc =
    \\_before_exit()
    \\--
    \\
    \\For atexit: native goroutines are not preempted from here on, and those that were go on.
    },
    .{ .name = "_end_refused", .function = @ptrCast(&refused.run), .flags = py.METH_NOARGS, .doc =
    \\_end_refused()
    \\--
    \\
    \\Ends the goroutines for which there was no memory.
    },
    .{ .name = "_before_fork", .function = @ptrCast(&fork.before), .flags = py.METH_NOARGS, .doc =
    \\_before_fork()
    \\--
    \\
    \\Runs in whoever is about to fork.
    },
    .{ .name = "_after_fork_in_parent", .function = @ptrCast(&fork.afterInParent), .flags = py.METH_NOARGS, .doc =
    \\_after_fork_in_parent()
    \\--
    \\
    \\Runs in whoever has forked.
    },
    .{ .name = "_after_fork_in_child", .function = @ptrCast(&fork.afterInChild), .flags = py.METH_NOARGS, .doc =
    \\_after_fork_in_child()
    \\--
    \\
    \\Runs in the child of a fork.
    },
    .{ .name = "only_for", .function = @ptrCast(&filter.onlyFor), .flags = py.METH_FASTCALL, .doc =
    \\only_for(names, function, /)
    \\--
    \\
    \\A function that calls `function` with its arguments if the first is in the dict `names`, and
    \\returns None if it is not, without a frame that traces would show.
    },
    .{},
};
/// Those of the program's functions that a goroutine may have to give way in.
pub const function_table = points.Table.named(&functions, &.{
    "after",                 "after_func",           "blocking",           "context_with_cancel",
    "context_with_deadline", "context_with_timeout", "context_with_value", "context_without_cancel",
    "context_cause",         "go",                   "go_child",           "num_goroutine",
    "select",                "tick",
});

fn addType(module: *py.Object, name: [*:0]const u8, spec: *const py.TypeSpec) ?*py.Type {
    return addDerived(module, name, spec, null);
}

/// `bases` is one type or a tuple of some.
fn addDerived(
    module: *py.Object,
    name: [*:0]const u8,
    spec: *const py.TypeSpec,
    bases: ?*py.Object,
) ?*py.Type {
    const t = py.PyType_FromModuleAndSpec(module, spec, bases) orelse return null;
    if (py.PyModule_AddObjectRef(module, name, t) != 0) return null;
    return @ptrCast(t);
}

/// Chan, and what it derives from: see chan_views.zig.
fn addChannels(module: *py.Object) bool {
    chan_views.base_type = addType(module, "ChanBase", &chan_views.base_spec) orelse return false;
    const base = &chan_views.base_type.ob;
    chan_views.send_type = addDerived(
        module,
        "SendChan",
        &chan_views.send_spec,
        base,
    ) orelse return false;
    chan_views.recv_type = addDerived(
        module,
        "RecvChan",
        &chan_views.recv_spec,
        base,
    ) orelse return false;
    const sides = py.PyTuple_Pack(
        2,
        &chan_views.send_type.ob,
        &chan_views.recv_type.ob,
    ) orelse return false;
    defer py.decref(sides);
    chan.chan_type = addDerived(module, "Chan", &chan.spec, sides) orelse return false;
    const recv = &chan_views.recv_type.ob;
    timer.chan_type = addDerived(module, "TimeChan", &timer.chan_spec, recv) orelse return false;
    return true;
}

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
    if (!py.loadTypes() or !asynchronous.load()) return -1;
    if (py.PySys_GetObject("flags")) |flags| {
        const ignores = py.PyObject_GetAttrString(flags, "ignore_environment") orelse return -1;
        defer py.decref(ignores);
        native.ignoreEnvironment(py.PyObject_IsTrue(ignores) != 0);
    }
    if (!host.calibrate()) return -1;
    context.context_type = addType(module, "Context", &context.spec) orelse return -1;
    context.registration_type = addType(
        module,
        "AfterFunc",
        &context.registration_spec,
    ) orelse return -1;
    signals.handler_type = addType(module, "SignalHandler", &signals.spec) orelse return -1;
    goroutine.goroutine_type = addType(module, "Goroutine", &handle.spec) orelse return -1;
    if (!addChannels(module)) return -1;
    select.case_type = addType(module, "Case", &select.case_spec) orelse return -1;
    timer.timer_type = addType(module, "Timer", &timer.timer_spec) orelse return -1;
    timer.ticker_type = addType(module, "Ticker", &timer.ticker_spec) orelse return -1;
    if (!classes.add(module)) return -1;
    native.goroutine_type = addType(module, "NativeGoroutine", &native.spec) orelse return -1;
    native_chan.chan_type = addType(module, "NativeChan", &native_chan.spec) orelse return -1;
    native_chan.buffer_type = addType(
        module,
        "NativeBuffer",
        &native_chan.buffer_spec,
    ) orelse return -1;
    socket.socket_type = addType(module, "Socket", &socket.spec) orelse return -1;
    descriptors.watch();
    if (!registerFork(module) or !registerExit(module) or !native.watchEnd()) return -1;
    @import("../native/deadlock.zig").python.store(true, .monotonic);
    @import("../native/lane.zig").host_holds = host.nativeHolds;
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

const module_slots = [_]py.Slot{
    .{ .slot = py.slot.mod_exec, .pfunc = @ptrCast(&exec) },
    .{},
};

var module_def: py.ModuleDef = .{
    .name = "golibx._core",
    .doc = "The native core of golibx.",
    .methods = function_table.methods(),
    .slots = &module_slots,
};

pub fn init() ?*py.Object {
    return py.PyModuleDef_Init(&module_def);
}
