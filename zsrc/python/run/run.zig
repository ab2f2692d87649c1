//! golibx.run(): its options, and everything of a run, set up and taken down.
const std = @import("std");
const os = @import("../../os/os.zig");
const counter = @import("../../os/counter.zig");
const lane_mod = @import("../../serial/lane.zig");
const points = @import("../host/points.zig");
const arguments = @import("../arguments.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const tracing = @import("../host/tracing.zig");
const select = @import("../types/select.zig");
const timer = @import("../types/timer.zig");
const native = @import("native.zig");
const standin = @import("../host/standin.zig");
const refused = @import("../host/refused.zig");
const preempt = @import("../host/preempt.zig");
const handle = @import("../types/handle.zig");
const deadlock = @import("deadlock.zig");
const fault = @import("../host/fault.zig");
const signals = @import("../host/signals.zig");
const sigmask = @import("../host/sigmask.zig");
const system_thread = @import("../host/system_thread.zig");
const recursion = @import("../host/recursion.zig");
const compiling = @import("../host/compiling.zig");
const errors = @import("../errors.zig");
const events = @import("events.zig");
const identity = @import("../host/identity.zig");
const rlock = @import("../host/rlock.zig");
const import_lock = @import("../host/import_lock.zig");
const requests = @import("requests.zig");
const module = @import("../module.zig");
const foreign = @import("../host/foreign.zig");
const asynchronous = @import("../asynchronous.zig");
const buffered = @import("../host/buffered.zig");
const fork = @import("fork.zig");
const swap_find = @import("../host/swap_find.zig");
const tuning = @import("tuning.zig");
const datastack = @import("../host/datastack.zig");

const lane = &host.the_lane;

/// From before the first thing of a run is set up to when the last is taken down again. The lane is
/// `live` for a part of that only, and the interpreter's lock changes hands in between.
var claimed = false;
/// By that thread.
var claimer: c_ulong = 0;
/// The poller is open, and what else surrounds a run may be in place, or a part of it.
var surrounded = false;

/// claim()
pub fn claim() ?*py.Object {
    if (claimed) return py.raise(
        py.exc.runtimeError(),
        "a golibx runtime is already running in this process",
        .{},
    );
    claimed = true;
    claimer = py.PyThread_get_thread_ident();
    return py.returnNone();
}

/// unclaim()
pub fn unclaim() void {
    endKept();
    claimed = false;
}

/// How often what ends a run is tried: each time a handler of signals raises in it.
const most_leaves = 10;

/// claimed(enter, leave, body, *args)
///
/// The interpreter calls handlers of signals between any two lines, and what they raise would leave
/// the run claimed for good, or what surrounds it in place: here they are not called.
pub fn callClaimed(given: arguments.Given) ?*py.Object {
    const args = given.args;
    if (given.n < 3) {
        const text = "claimed() takes at least 3 arguments ({d} given)";
        return py.raise(py.exc.typeError(), text, .{given.n});
    }
    py.decref(claim() orelse return null);
    defer unclaim();
    var result: ?*py.Object = null;
    if (py.call(args[0], &.{})) |entered| {
        py.decref(entered);
        result = given.after(3).call(args[2]);
    }
    const raised = leave(args[1], if (result == null) py.takeException() else null) orelse
        return result;
    py.clear(&result);
    py.restoreException(raised);
    return null;
}

/// Calls it until it does not raise. What was raised last; takes the reference to what was before.
fn leave(function: *py.Object, before: ?*py.Object) ?*py.Object {
    var raised = before;
    for (0..most_leaves) |_| {
        if (py.call(function, &.{})) |left| {
            py.decref(left);
            break;
        }
        raised = errors.takeAfter(raised);
    }
    return raised;
}

/// In the child of a fork, on the thread that forked: what surrounded a run is gone. True if the
/// run is, too: one that goes on, or that another thread was about to begin or to end. What is of
/// the goroutines and the lane is then the caller's to forget.
pub fn forget() bool {
    const is_others = claimed and claimer != py.PyThread_get_thread_ident();
    claimed = false;
    const between = kept;
    kept = false;
    const goes_on = !lane.live and !is_others and !between;
    if (surrounded) {
        requests.forget();
        host.forgetStates();
        if (goes_on) return false; // the thread itself begins its run or ends it
        surrounded = false;
        host.poller.forget();
        os.allowInterrupts(false);
    }
    if (lane.live or is_others) return true;
    if (between) {
        lane.forget();
        fault.remove();
    }
    return false;
}

/// run(fn, args, kwargs, options, /)
pub fn run(
    function: *py.Object,
    args: *py.Object,
    _: *py.Object,
    given: *py.Object,
) ?*py.Object {
    if (!claimed) return py.raise(py.exc.runtimeError(), "run() without claim()", .{});
    if (lane.live) return py.raise(py.exc.runtimeError(), "run() inside of a run", .{});
    const options = readOptions(given) orelse return null;
    fork.settle();
    if (!kept and (!errors.load() or !tracing.watch() or !host.findUsedWords() or
        !preempt.findShown() or !datastack.setUp() or !identity.setUp() or
        !rlock.setUp() or
        !import_lock.setUp() or !buffered.setUp() or !fault.setUp() or !fork.setUp() or
        !sigmask.setUp() or !system_thread.setUp() or !compiling.setUp())) return null;
    if (swaps_by_hand and !swap_find.find(deadlock.on_main_thread)) return null;
    var few: [8]*py.Object = undefined;
    const size = py.PyTuple_Size(args);
    if (size < 0) return null;
    const count: usize = @intCast(size);
    if (count > few.len)
        return py.raise(py.exc.typeError(), "run() passes at most 8 arguments on", .{});
    for (0..count) |i| few[i] = py.PyTuple_GetItem(args, @intCast(i)).?;
    const callee = asynchronous.look("run", function);
    if (callee == .refused) return null;
    const main = goroutine.create(function, &few, count, null, false) catch return null;
    goroutine.ownVariables(main) catch {
        goroutine.abandon(main);
        return null;
    };
    main.runs_python = callee == .python;
    const main_handle = py.incref(&main.handle.ob);
    defer py.decref(main_handle);
    var raised: ?*py.Object = null; // by a signal's handler, when the main goroutine had ended
    if (!runLane(options, main, &raised)) return null;
    const h: *goroutine.Handle = @ptrCast(main_handle);
    h.collected = true;
    if (raised) |exception| {
        if (h.exception) |before| errors.follow(exception, before);
        py.restoreException(exception);
        return null;
    }
    if (h.result) |value| return py.incref(value);
    py.restoreException(py.incref(h.exception.?));
    return null;
}

/// Everything of a run, set up and taken down. False with an exception set.
fn runLane(options: lane_mod.Options, main: *goroutine.PyG, raised: *?*py.Object) bool {
    if (options.event_mask != 0) counter.begin();
    if (kept and (!options.keep or !std.meta.eql(kept_settings, request_settings))) endKept();
    if (!kept and !setUp(&options)) {
        goroutine.abandon(main);
        return false;
    }
    kept = false;
    select.seed(options.seed, options.explore);
    tuning.apply(&tuned, null);
    native.startRun();
    standin.startRun();
    events.begin(&options);
    errors.forked = false;
    deadlock.run_thread = py.PyThread_get_thread_ident();
    goroutine.main = main;
    goroutine.main_state = py.PyThreadState_Get();
    points.set(module.function_table, options.explore_calls);
    host.setUp(swaps_by_hand);
    recursion.watch(true);
    defer recursion.watch(false);
    const returned = fork.runLane(&options, main);
    goroutine.ending = false;
    goroutine.main_state = null;
    // In the child of a fork all of it is over and gone.
    if (returned == .in_child) return true;
    standin.endRun();
    refused.endRun();
    goroutine.main = null;
    select.endRun();
    timer.dropCalls();
    points.set(module.function_table, false);
    events.end();
    kept = lane.rests and !host.poller.wanted();
    defer if (!kept) {
        lane.endRest();
        takeDown();
    };
    raised.* = signals.endRun();
    if (returned == .failed) {
        if (raised.*) |exception| py.decref(exception);
        _ = py.raise(
            py.exc.runtimeError(),
            "cannot start the runtime: out of threads or memory",
            .{},
        );
    }
    return returned == .ended;
}

/// What surrounds a run is in place, for the next one: serial/resting.zig.
var kept = false;
var kept_settings: requests.Settings = .{};

/// What surrounds a run, or several of one kind. False with an exception set.
fn setUp(options: *const lane_mod.Options) bool {
    host.poller.init(host.gpa, lane) catch |e| {
        _ = if (e == error.OutOfMemory) py.PyErr_NoMemory() else py.raiseOs(
            @backingInt(std.c.E.MFILE),
            "cannot open the network poller: out of file descriptors",
        );
        return false;
    };
    surrounded = true;
    host.openEntrance();
    if (options.preempt_async)
        preempt.setUp()
    else
        preempt.reason = "switched off by preempt.async";
    fault.install();
    os.allowInterrupts(true);
    kept_settings = request_settings;
    if (!requests.start(request_settings)) warnOfSignal();
    return true;
}

/// With the interpreter's lock, which others get meanwhile.
fn takeDown() void {
    requests.stop();
    os.allowInterrupts(false);
    if (fork.here() == null) fault.remove();
    preempt.tearDown();
    host.releaseStates();
    handle.freeSpare();
    surrounded = false;
    host.poller.deinit();
}

/// Nothing of the run that has just ended is kept any more.
fn endKept() void {
    if (!kept) return;
    kept = false;
    lane.endRest();
    takeDown();
}

var request_settings: requests.Settings = .{};

fn warnOfSignal() void {
    var buffer: [128]u8 = undefined;
    const format = "golibx: debug.dump_signal is not used: the program has a handler for " ++
        "signal {d} already\n";
    const shown = .{request_settings.dump_signal};
    os.writeStderr(std.fmt.bufPrint(&buffer, format, shown) catch unreachable);
}

/// `plan`: the choices that an explored run begins with, as schedule() gives them; and whether it
/// `bends` where it does not fit.
fn readPlan(dict: *py.Object) bool {
    var plan: []const u8 = &.{};
    if (py.PyDict_GetItemString(dict, "plan")) |value| {
        const chars = py.PyBytes_AsString(value) orelse return false;
        plan = chars[0..@intCast(py.PyBytes_Size(value))];
    }
    const bends = if (py.PyDict_GetItemString(dict, "bends")) |value|
        py.PyObject_IsTrue(value) != 0
    else
        false;
    lane.script.begin(host.gpa, plan, bends) catch {
        _ = py.PyErr_NoMemory();
        return false;
    };
    return true;
}

/// schedule()
pub fn schedule() ?*py.Object {
    const script = &lane.script;
    const bytes = std.mem.sliceAsBytes(script.made.items);
    const made = py.PyBytes_FromStringAndSize(bytes.ptr, @intCast(bytes.len)) orelse return null;
    defer py.decref(made);
    const place: i64 = if (script.misfit) |place| @intCast(place) else -1;
    const misfit = py.PyLong_FromLongLong(place) orelse return null;
    defer py.decref(misfit);
    const complete = py.boolean(script.isComplete());
    defer py.decref(complete);
    return py.PyTuple_Pack(@as(py.Ssize, 3), made, misfit, complete);
}

/// What the run begins with, of what may change while it goes on.
var tuned: tuning.Change = .{};

/// Thread states may be swapped without the interpreter.
var swaps_by_hand = true;

/// Keys of the options that are not in Lane's Options, with what they are for.
fn readOptions(dict: *py.Object) ?lane_mod.Options {
    var options: lane_mod.Options = .{};
    if (!readScheduling(dict, &options)) return null;
    const page = os.page_size;
    for ([_]usize{ options.stack_size, options.stack_main_size }) |size| {
        if (size < 64 * 1024 or size % page != 0) {
            _ = py.raise(
                py.exc.valueError(),
                "a stack must be a multiple of {d} bytes and at least 64 KiB, not {d}",
                .{ page, size },
            );
            return null;
        }
    }
    options.stack_reserves = recursion.usable();
    options.hooks_ring_size = std.math.ceilPowerOfTwo(
        usize,
        @max(2, options.hooks_ring_size),
    ) catch {
        _ = py.raise(py.exc.valueError(), "option hooks_ring_size is too large", .{});
        return null;
    };
    if (!native.readSettings(&options, dict)) return null;
    tuned = tuning.read(dict) orelse return null;
    if (options.explore and !readPlan(dict)) return null;
    if (py.PyDict_GetItemString(dict, "on_main_thread")) |value|
        deadlock.on_main_thread = py.PyObject_IsTrue(value) != 0;
    swaps_by_hand = true;
    if (py.PyDict_GetItemString(dict, "swap")) |value| // which of the choices
        swaps_by_hand = py.PyObject_IsTrue(value) == 0;
    const moves = if (py.PyDict_GetItemString(dict, "foreign_moves")) |value|
        py.PyObject_IsTrue(value) != 0
    else
        false;
    if (!kept and !foreign.startRun(py.PyDict_GetItemString(dict, "foreign_movable"), moves))
        return null;
    request_settings = .{};
    if (py.PyDict_GetItemString(dict, "quit_signal")) |value|
        request_settings.quit = py.PyObject_IsTrue(value) != 0;
    if (py.PyDict_GetItemString(dict, "dump_signal")) |value| {
        const number = py.PyLong_AsLongLong(value);
        if (number < 0 or number > 64) {
            if (py.PyErr_Occurred() == null)
                _ = py.raise(py.exc.valueError(), "option dump_signal cannot be {d}", .{number});
            return null;
        }
        request_settings.dump_signal = @intCast(number);
    }
    if (py.PyDict_GetItemString(dict, "control")) |value|
        request_settings.control = py.PyObject_IsTrue(value) != 0;
    return options;
}

/// The options that are Lane's. False with an exception set.
pub fn readScheduling(dict: *py.Object, options: *lane_mod.Options) bool {
    const fields = @typeInfo(lane_mod.Options).@"struct";
    inline for (fields.field_names, fields.field_types) |name, T| {
        if (py.PyDict_GetItemString(dict, name ++ "")) |value| {
            const number = py.PyLong_AsLongLong(value);
            if (number == -1 and py.PyErr_Occurred() != null) return false;
            if (T == bool) {
                @field(options, name) = number != 0;
            } else @field(options, name) = std.math.cast(T, number) orelse {
                _ = py.raise(py.exc.valueError(), "option {s} cannot be {d}", .{ name, number });
                return false;
            };
        }
    }
    return true;
}
