//! The native lane for Python: its start, goroutines of C functions (`NativeGoroutine`), calls,
//! figures.
//!
//! A `Task` is one C function on the native lane. It belongs to that until its entry has arrived in
//! the Python lane's inbox (outside.zig), and to its handle, a Python object, until that is gone.
//! What the task keeps alive for the function is let go afterwards by `reap`, at a moment when
//! finalizers may run. A native goroutine touches no Python object by itself, so one may outlive
//! the interpreter.
//!
//! The native lane is started by the first use of it, with the settings of the run, and stays until
//! the process ends: C code may use it for itself, and goroutines in it cannot be cancelled.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const g_mod = @import("../../serial/g.zig");
const inbox = @import("../../serial/inbox.zig");
const lane_mod = @import("../../serial/lane.zig");
const native = @import("../../parallel/lane.zig");
const switching = native.switching;
const capi = @import("../../capi/capi.zig");
const native_preempt = @import("../../parallel/preempt.zig");
const native_events = @import("../../parallel/events.zig");
const procs = @import("../../parallel/procs.zig");
const list = @import("../../parallel/list.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const timeouts = @import("../timeouts.zig");
const tuning = @import("tuning.zig");
const outside = @import("../host/outside.zig");
const standin = @import("../host/standin.zig");
const call_mod = @import("native_call.zig");
const late_states = @import("../host/late_states.zig");

const lane = &host.the_lane;
const Caller = outside.Caller;
const Call = call_mod.Call;
const Queue = host.Queue;
const Rt = host.Rt;

// ---- the native lane's life ----

/// What it is started with: of the run that is going on, or the last one.
var settings: native.Options = .{};
/// What gomaxprocs() was told before the start; 0: nothing.
var wanted_procs: u32 = 0;

pub const most_procs = procs.most;

/// Takes from a run's options what is for both lanes. `given` holds the others. False with an
/// exception set.
pub fn readSettings(o: *const lane_mod.Options, given: *py.Object) bool {
    var s: native.Options = .{
        .max_threads = o.max_threads,
        .preempt_async = o.preempt_async and !procs.asyncPreemptOff(),
        .retake_enabled = o.retake_enabled,
        .stack_keep = o.stack_keep,
        .seed = o.seed,
    };
    var n: u32 = 0;
    inline for (.{ .{ "gomaxprocs", &n }, .{ "stack_native_size", &s.stack_size } }) |option| {
        if (py.PyDict_GetItemString(given, option[0])) |value| {
            const number = py.PyLong_AsLongLong(value);
            if (number == -1 and py.PyErr_Occurred() != null) return false;
            const T = @TypeOf(option[1].*);
            option[1].* = std.math.cast(T, number) orelse {
                _ = py.raise(
                    py.exc.valueError(),
                    "option {s} cannot be {d}",
                    .{ option[0], number },
                );
                return false;
            };
        }
    }
    if (!std.math.isPowerOfTwo(s.stack_size) or
        s.stack_size < 16 * 1024 or s.stack_size > 64 << 20)
    {
        _ = py.raise(py.exc.valueError(), "option stack_native_size cannot be {d}: " ++
            "a power of two, 16 KiB to 64 MiB", .{s.stack_size});
        return false;
    }
    settings = s;
    if (n > 0) _ = setProcs(@min(n, most_procs)) catch return raiseMemory();
    return true;
}

fn raiseMemory() bool {
    _ = py.PyErr_NoMemory();
    return false;
}

/// The number of processors of the native lane, or what it will start with.
pub fn procCount() u32 {
    if (native.running()) return native.sched.gomaxprocs.load(.monotonic);
    return if (wanted_procs > 0) wanted_procs else procs.default();
}

/// Returns the number before.
pub fn setProcs(n: u32) error{OutOfMemory}!u32 {
    const before = procCount();
    if (native.running()) {
        const caller: Caller = .enter();
        defer caller.leave();
        _ = try native.setProcs(n);
    } else if (n != before) lane.record(.gomaxprocs, 0, before, n);
    wanted_procs = n;
    return before;
}

/// False with an exception set.
fn ensureStarted() bool {
    if (native.running()) return true;
    if (!call_mod.supported) {
        _ = py.raise(
            py.exc.runtimeError(),
            "native goroutines are not supported on this platform",
            .{},
        );
        return false;
    }
    var o = settings;
    o.gomaxprocs = procCount();
    native.start(o) catch |e| switch (e) {
        error.Running => {}, // C code was quicker
        error.OutOfMemory => return raiseMemory(),
        error.ThreadLimit, error.SystemLimit => {
            _ = py.raise(
                py.exc.runtimeError(),
                "cannot start the native runtime: the system's limit of {s} is reached",
                .{if (e == error.ThreadLimit) "threads" else "open files"},
            );
            return false;
        },
    };
    return true;
}

/// native_start(options, /): an options dict of Config's, or None for the run's.
pub fn start(options: *py.Object) ?*py.Object {
    if (!native.running() and !lane.live and options != py.none()) {
        var o: lane_mod.Options = .{};
        if (!@import("run.zig").readScheduling(options, &o)) return null;
        if (!readSettings(&o, options)) return null;
        const change = tuning.read(options) orelse return null;
        tuning.apply(&change, null);
    }
    return if (ensureStarted()) py.returnNone() else null;
}

// ---- the end of the interpreter, which native goroutines may outlive ----
//
// While it ends, it ends every thread that wants its lock. One that calls back into Python when it
// is gone crashes, as any daemon thread does. So preemption holds up no goroutine from then on
// (`beforeExit`), and all have their chance to come by before it goes (`atEnd`).

const ending_patience_ns = 100 * std.time.ns_per_ms;
/// Goroutines that call Python all the time come by within less CPU time.
const ending_cpu_ns = std.time.ns_per_ms;

/// Keeps, in sys, what calls `atEnd` when that is cleared. False with an exception set.
pub fn watchEnd() bool {
    const name = "_golibx_end";
    const capsule = py.PyCapsule_New(
        @ptrCast(@constCast(&watchEnd)),
        name,
        atEnd,
    ) orelse return false;
    defer py.decref(capsule);
    return py.PySys_SetObject(name, capsule) == 0;
}

fn atEnd(_: ?*py.Object) callconv(.c) void {
    late_states.end();
    native.letAllPass(ending_cpu_ns, ending_patience_ns, late_states.waits);
}

/// _before_exit(): an atexit function.
pub fn beforeExit() void {
    host.beforeExit();
    const watched = late_states.watch();
    const thread: outside.Detached = .leave();
    native.letAllRun(ending_patience_ns);
    if (watched) native.letAllPass(ending_cpu_ns, ending_patience_ns, late_states.waits);
    thread.comeBack();
    if (watched) late_states.settled();
}

pub fn running() bool {
    return native.running();
}

/// What a native goroutine runs: the function that Python code gave, by the symbol it has in its
/// library.
pub fn functionName(entry: list.Entry, buffer: *[256]u8) []const u8 {
    var function = entry.function;
    if (function == @intFromPtr(&Task.body)) {
        // The task goes when its function has returned, which may have been just now.
        const field = entry.arg +% @offsetOf(Task, "function");
        if (!os.peek(field, std.mem.asBytes(&function))) return "?";
    }
    const found = os.symbolOf(function) orelse
        return std.fmt.bufPrint(buffer, "0x{x}", .{function}) catch unreachable;
    const name = std.mem.span(found.name);
    const shown = name[0..@min(name.len, 200)];
    return if (found.offset == 0)
        std.fmt.bufPrint(buffer, "{s}", .{shown}) catch unreachable
    else
        std.fmt.bufPrint(buffer, "{s}+0x{x}", .{ shown, found.offset }) catch unreachable;
}

/// native_goroutines(): (id, state, function, locked) of each that lives.
pub fn goroutines() ?*py.Object {
    const result = py.PyList_New(0) orelse return null;
    var it: list.Iterator = .{};
    while (it.next()) |entry| {
        var name: [256]u8 = undefined;
        const text = functionName(entry, &name);
        const row = py.PyTuple_New(4) orelse break;
        const values = [_]?*py.Object{
            py.PyLong_FromUnsignedLongLong(entry.id),
            py.PyUnicode_FromString(entry.state().ptr),
            py.PyUnicode_FromStringAndSize(text.ptr, @intCast(text.len)),
            py.boolean(entry.locked),
        };
        for (values, 0..) |value, i|
            _ = py.PyTuple_SetItem(row, @intCast(i), value orelse py.returnNone());
        const appended = py.PyList_Append(result, row);
        py.decref(row);
        if (appended != 0) break;
    }
    if (py.PyErr_Occurred() == null) return result;
    py.decref(result);
    return null;
}

/// In the child of a fork: nothing of it is left, and what was on its way never arrives.
pub fn afterFork() void {
    late_states.afterFork();
    host.Host.inbox = .{};
    lane.forgetEvents();
    native_events.forget();
    unfinished = 0;
    all_ended = .{};
    graveyard = null;
    reap_wanted = false;
    if (native.state.load(.monotonic) == .off) return;
    native_preempt.remove();
    native.forget();
}

// ---- tasks ----

const Task = struct {
    entry: inbox.Entry = .{ .arrive = arrive },
    function: usize,
    arg: ?*anyopaque = null,
    /// Of a call: its arguments, and where its result goes.
    call: ?*Call = null,
    result_kind: u8 = 'v',
    integer: u64 = 0,
    double: f64 = 0,
    id: u64 = 0,
    /// 1 once the function has returned. A futex of threads that wait for it.
    ended: std.atomic.Value(u32) = .init(0),
    threads: std.atomic.Value(u32) = .init(0),

    // The rest is for those with the interpreter's lock.
    arrived: bool = false,
    joiners: Queue = .{},
    /// The run that it was started in.
    run: u32 = 0,
    /// A handle or a call will look at it again.
    held: bool = true,
    /// What the function may use.
    keep: ?*py.Object = null,
    next_dead: ?*Task = null,

    /// On the native lane.
    fn body(raw: ?*anyopaque) callconv(.c) void {
        const t: *Task = @ptrCast(@alignCast(raw.?));
        if (t.call) |c| {
            if (t.result_kind == 'd' or t.result_kind == 'f') {
                t.double = c.double(t.function);
            } else t.integer = c.integer(t.function);
        } else {
            const function: *const fn (?*anyopaque) callconv(.c) void = @ptrFromInt(t.function);
            function(t.arg);
        }
        const caller: Caller = .enter();
        defer caller.leave();
        // Dekker with joinThread: it counts itself, then looks whether the function has ended.
        t.ended.store(1, .seq_cst);
        if (t.threads.load(.seq_cst) > 0) os.futexWake(&t.ended, std.math.maxInt(i32));
        lane.post(&t.entry);
    }

    fn arrive(e: *inbox.Entry) void {
        const t: *Task = @alignCast(@fieldParentPtr("entry", e));
        t.arrived = true;
        if (lane.live) {
            t.joiners.end(&Rt.no_lock, .ready);
            if (t.run == lane.generation) {
                unfinished -= 1;
                if (unfinished == 0) all_ended.end(&Rt.no_lock, .ready);
            }
        }
        t.next_dead = graveyard;
        graveyard = t;
        // It comes in the main thread, at the latest when that next runs Python code.
        if (!reap_wanted) reap_wanted = py.Py_AddPendingCall(reapPending, null) == 0;
    }

    /// Of one that was not launched.
    fn discard(t: *Task) void {
        t.arrived = true;
        t.letGo();
    }

    fn letGo(t: *Task) void {
        t.held = false;
        t.release();
    }

    fn release(t: *Task) void {
        if (!t.arrived or t.held or t.keep != null) return;
        const caller: Caller = .enter();
        defer caller.leave();
        if (t.call) |c| native.gpa.destroy(c);
        native.gpa.destroy(t);
    }
};

/// Tasks of this run that have not arrived, and the goroutine that waits for them.
var unfinished: u64 = 0;
var all_ended: Queue = .{};
/// Those that have arrived and may still keep something alive.
var graveyard: ?*Task = null;
var reap_wanted = false;

fn reapPending(_: ?*anyopaque) callconv(.c) c_int {
    reap_wanted = false;
    reap();
    return 0;
}

/// May run code of the program's.
fn reap() void {
    while (graveyard) |t| {
        graveyard = t.next_dead;
        const keep = t.keep;
        t.keep = null;
        t.release();
        py.xdecref(keep);
    }
}

/// What has ended meanwhile, without a run that would take it in.
fn settle() void {
    if (!host.Host.inbox.isEmpty()) host.Host.inbox.drain();
    if (graveyard != null) reap();
}

pub fn startRun() void {
    unfinished = 0;
    all_ended = .{};
}

/// Starts the task, which is the native lane's from here on. False with an exception set; it is
/// gone then.
fn launch(t: *Task, keep: *py.Object) bool {
    t.run = if (lane.live) lane.generation else lane.generation -% 1;
    t.keep = py.incref(keep);
    const caller: Caller = .enter();
    const id = switching.goForeign(.{ .function = Task.body, .arg = t });
    caller.leave();
    t.id = id catch {
        t.keep = null;
        t.discard();
        py.decref(keep);
        return raiseMemory();
    };
    if (lane.live) unfinished += 1;
    return true;
}

fn newTask(function: usize) ?*Task {
    const caller: Caller = .enter();
    defer caller.leave();
    const t = native.gpa.create(Task) catch {
        _ = py.PyErr_NoMemory();
        return null;
    };
    t.* = .{ .function = function };
    return t;
}

fn isOver(t: *const Task) bool {
    return t.ended.load(.acquire) == 1;
}

/// Until the task has ended. `handle` is what dumps show.
fn waitFor(t: *Task, handle: ?*py.Object, reason: g_mod.WaitReason, deadline: ?u64) outside.Ended {
    while (!isOver(t)) {
        const g = lane.here() orelse return joinThread(t, handle, reason, deadline);
        const p = goroutine.of(g);
        if (goroutine.raisePending(p)) return .raised;
        if (t.arrived) break;
        if (!p.g.system) lane.outside_waiters += 1;
        p.g.waiting_on = handle;
        var waiter: Queue.Waiter = .{};
        const wake = t.joiners.wait(&Rt.no_lock, &waiter, g, reason, deadline);
        if (!p.g.system) lane.outside_waiters -= 1;
        switch (wake) {
            .ready, .closed => break,
            .timeout => if (!isOver(t)) return .timeout,
            .interrupted => {
                // Ended all the same: the next park raises.
                if (isOver(t)) break;
                _ = goroutine.raisePending(p);
                return .raised;
            },
        }
    }
    return .served;
}

fn joinThread(
    t: *Task,
    handle: ?*py.Object,
    reason: g_mod.WaitReason,
    deadline: ?u64,
) outside.Ended {
    var shown: standin.Shown = undefined;
    shown.begin(reason, handle, .{ .set = &t.ended });
    defer shown.end();
    _ = t.threads.fetchAdd(1, .seq_cst);
    defer _ = t.threads.fetchSub(1, .seq_cst);
    const Sleeper = struct {
        task: *Task,

        pub fn sleep(s: @This(), timeout: ?u64) os.Wake {
            return os.futexWait(&s.task.ended, 0, timeout);
        }
        pub fn happened(s: @This()) bool {
            return s.task.ended.load(.seq_cst) == 1;
        }
    };
    return switch (outside.sleepDetached(Sleeper{ .task = t }, deadline)) {
        .happened => .served,
        .timeout => .timeout,
        .raised => .raised,
    };
}

/// native_wait(timeout_ns, /): until the goroutines of this run have ended; how many have not.
pub fn waitAll(ns: i64) ?*py.Object {
    if (unfinished > 0) host.Host.inbox.drain();
    if (unfinished > 0 and ns > 0) {
        const p = goroutine.forPark() orelse return null;
        const deadline = lane.now() +| @as(u64, @intCast(ns));
        lane.outside_waiters += 1;
        var waiter: Queue.Waiter = .{};
        const wake = all_ended.wait(&Rt.no_lock, &waiter, &p.g, .shutdown, deadline);
        lane.outside_waiters -= 1;
        if (wake == .interrupted) {
            _ = goroutine.raisePending(p);
            return null;
        }
    }
    if (graveyard != null) reap();
    return py.PyLong_FromUnsignedLongLong(unfinished);
}

// ---- functions ----

/// `python -E` and `-I` do.
pub fn ignoreEnvironment(ignores: bool) void {
    procs.ignores_environment = ignores;
}

/// Addresses at which there was code when they were asked for, each where its bits say.
var with_code: [256]usize = @splat(0);

/// The address of a function. One where no code lies is refused: a goroutine that goes there ends
/// the process.
fn functionAt(o: *py.Object) ?usize {
    const address = addressOf(o) orelse return null;
    const place = &with_code[(address ^ address >> 8) / 16 % with_code.len];
    if (address != 0 and place.* == address) return address;
    // Nothing is ever mapped there; for what lies elsewhere not every system says.
    if (address < 4096 or !(os.code.isAt(address) orelse true)) {
        const text = "there is no code at address 0x{x}: a function is needed";
        _ = py.raise(py.exc.valueError(), text, .{address});
        return null;
    }
    place.* = address;
    return address;
}

/// native_go(address, arg, keep, /)
pub fn go(address: *py.Object, argument: *py.Object, keep: *py.Object) ?*py.Object {
    const function = functionAt(address) orelse return null;
    const arg = addressOf(argument) orelse return null;
    if (!ensureStarted()) return null;
    settle();
    const h: *Handle = @ptrCast(py.PyType_GenericAlloc(Class.python_type, 0) orelse return null);
    const t = newTask(function) orelse {
        py.decref(&h.ob);
        return null;
    };
    t.arg = @ptrFromInt(arg);
    h.task = t;
    if (!launch(t, keep)) {
        h.task = null;
        py.decref(&h.ob);
        return null;
    }
    h.id = t.id;
    return &h.ob;
}

fn addressOf(o: *py.Object) ?usize {
    const value = py.PyLong_AsUnsignedLongLong(o);
    if (value == std.math.maxInt(c_ulonglong) and py.PyErr_Occurred() != null) return null;
    return @intCast(value);
}

/// native_call(address, kinds, values, result, keep, /): `kinds` has a letter for each value, "i"
/// for an integer or pointer, "d" and "f" for a double and a float; `result` is one of struct's
/// letters, "v" for none. Returns an int, a float or None.
pub fn call(
    address: *py.Object,
    letters: *py.Object,
    values: *py.Object,
    letter: *py.Object,
    keep: *py.Object,
) ?*py.Object {
    const function = functionAt(address) orelse return null;
    var kinds_len: py.Ssize = 0;
    const kinds = py.PyUnicode_AsUTF8AndSize(letters, &kinds_len) orelse return null;
    var result_len: py.Ssize = 0;
    const result = py.PyUnicode_AsUTF8AndSize(letter, &result_len) orelse return null;
    const count = py.PyTuple_Size(values);
    if (count < 0) return null;
    if (count != kinds_len or result_len != 1)
        return py.raise(
            py.exc.valueError(),
            "native_call(): a kind for each value, one for the result",
            .{},
        );
    if (!ensureStarted()) return null;
    settle();
    var prepared: Call = .{};
    for (kinds[0..@intCast(kinds_len)], 0..) |kind, i| {
        const value = py.PyTuple_GetItem(values, @intCast(i)).?;
        const fits = if (kind == 'i') integer: {
            const bits = py.PyLong_AsUnsignedLongLongMask(value);
            if (bits == std.math.maxInt(c_ulonglong) and py.PyErr_Occurred() != null) return null;
            break :integer prepared.addInteger(bits);
        } else float: {
            const number = py.PyFloat_AsDouble(value);
            if (number == -1 and py.PyErr_Occurred() != null) return null;
            break :float if (kind == 'f')
                prepared.addFloat(@floatCast(number))
            else
                prepared.addDouble(number);
        };
        if (!fits) return py.raise(
            py.exc.valueError(),
            "argument {d}: there is no room for it: {d} integers or pointers, " ++
                "{d} floating-point numbers, and {d} more of either",
            .{ i + 1, call_mod.most_integers, call_mod.most_floats, call_mod.most_on_stack },
        );
    }
    // A function that no goroutine would wait for is not begun.
    if (lane.here()) |g| if (goroutine.raisePending(goroutine.of(g))) return null;
    const t = newTask(function) orelse return null;
    t.result_kind = result[0];
    t.call = newCall(prepared) orelse {
        t.discard();
        return null;
    };
    if (!launch(t, keep)) return null;
    const ended = waitFor(t, null, .native_call, null);
    const value = if (ended == .served) resultOf(t) else null;
    // After an exception the function goes on; the task ends with it.
    t.letGo();
    if (ended == .served) keepException(settle);
    return value;
}

/// `function` may run code of the program's, which has exceptions of its own.
fn keepException(comptime function: fn () void) void {
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    function();
    py.PyErr_Restore(t, v, tb);
}

fn newCall(prepared: Call) ?*Call {
    const caller: Caller = .enter();
    defer caller.leave();
    const c = native.gpa.create(Call) catch {
        _ = py.PyErr_NoMemory();
        return null;
    };
    c.* = prepared;
    return c;
}

fn resultOf(t: *const Task) ?*py.Object {
    const bits = t.integer;
    return switch (t.result_kind) {
        'v' => py.returnNone(),
        '?' => py.boolean(bits & 0xff != 0),
        'b' => signed(i8, bits),
        'h' => signed(i16, bits),
        'i' => signed(i32, bits),
        'q' => signed(i64, bits),
        'B' => py.PyLong_FromUnsignedLongLong(@as(u8, @truncate(bits))),
        'H' => py.PyLong_FromUnsignedLongLong(@as(u16, @truncate(bits))),
        'I' => py.PyLong_FromUnsignedLongLong(@as(u32, @truncate(bits))),
        'Q' => py.PyLong_FromUnsignedLongLong(bits),
        'd' => py.PyFloat_FromDouble(t.double),
        'f' => py.PyFloat_FromDouble(@as(
            f32,
            @bitCast(@as(u32, @truncate(@as(u64, @bitCast(t.double))))),
        )),
        else => py.raise(
            py.exc.valueError(),
            "native_call(): no kind of result '{c}'",
            .{t.result_kind},
        ),
    };
}

fn signed(comptime T: type, bits: u64) ?*py.Object {
    const U = @Int(.unsigned, @bitSizeOf(T));
    return py.PyLong_FromLongLong(@as(T, @bitCast(@as(U, @truncate(bits)))));
}

// ---- figures ----

/// golibx_counters as a dict. Null with an exception set.
pub fn counters() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    if (addCounters(dict, "")) return dict;
    py.decref(dict);
    return null;
}

pub fn addCounters(dict: *py.Object, comptime prefix: []const u8) bool {
    const caller: Caller = .enter();
    const c = capi.collect();
    caller.leave();
    const info = @typeInfo(capi.Counters).@"struct";
    inline for (info.field_names) |name| {
        comptime if (std.mem.eql(u8, name, "size")) continue;
        const value: u64 = if (comptime std.mem.eql(u8, name, "gomaxprocs"))
            procCount()
        else
            @field(
                c,
                name,
            );
        if (!py.setInt(dict, prefix ++ name ++ "", value)) return false;
    }
    return true;
}

/// native_queues(): the goroutines in the queue of each processor.
pub fn queues() ?*py.Object {
    var lengths: [most_procs]u32 = undefined;
    const live = queueLengths(&lengths);
    const all = py.PyList_New(0) orelse return null;
    for (lengths[0..live]) |length| {
        const n = py.PyLong_FromUnsignedLongLong(length);
        if (n == null or py.PyList_Append(all, n.?) != 0) {
            py.xdecref(n);
            py.decref(all);
            return null;
        }
        py.decref(n.?);
    }
    return all;
}

fn queueLengths(out: *[most_procs]u32) usize {
    const caller: Caller = .enter();
    defer caller.leave();
    // It keeps the Ps there.
    native.procs_lock.lock();
    defer native.procs_lock.unlock();
    const procs_now = native.sched.procs();
    const live = @min(native.sched.gomaxprocs.load(.monotonic), procs_now.len);
    for (procs_now[0..live], out[0..live]) |p, *length| length.* = p.?.runq.waiting();
    return live;
}

pub fn steals() u64 {
    const caller: Caller = .enter();
    defer caller.leave();
    return capi.collect().steals;
}

/// Rows for `golibx info`: how native goroutines are preempted, or would be.
pub const PreemptWay = struct { way: [:0]const u8, reason: [:0]const u8 };

pub fn preemptWay(buffer: *[32]u8) PreemptWay {
    const by_calls = "at calls only";
    if (std.mem.eql(u8, native_preempt.name, "none"))
        return .{ .way = by_calls, .reason = "no signals for it on this platform" };
    const o = if (native.running()) &native.options else &settings;
    if (!o.preempt_async or procs.asyncPreemptOff())
        return .{ .way = by_calls, .reason = "switched off by preempt.async" };
    if (!native.running()) return .{ .way = "signal", .reason = "" };
    const number = native_preempt.signalNumber();
    if (number == 0)
        return .{ .way = by_calls, .reason = "no signal is free: the program handles them all" };
    return .{
        .way = std.fmt.bufPrintSentinel(buffer, "signal {d}", .{number}, 0) catch "signal",
        .reason = "",
    };
}

pub fn stackSize() usize {
    return if (native.running()) native.options.stack_size else settings.stack_size;
}

// ---- golibx.native.NativeGoroutine ----

const Handle = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    task: ?*Task,
    id: u64,
};

fn deinit(h: *Handle) void {
    if (h.task) |t| t.letGo();
}

fn join(h: *Handle, limit: timeouts.Limit) ?bool {
    const t = h.task.?;
    if (isOver(t)) return true;
    if (limit == .poll) return false;
    const ended = waitFor(t, &h.ob, .join, limit.deadline());
    if (ended == .raised) return null;
    keepException(settle);
    return ended == .served;
}

fn done(h: *Handle) bool {
    return isOver(h.task.?);
}

fn repr(h: *Handle) ?*py.Object {
    const state = if (isOver(h.task.?)) "done" else "running";
    return py.print("<NativeGoroutine {d} [{s}]>", .{ h.id, state });
}

pub const Class = class.Class(Handle, .{
    .name = "golibx.native.NativeGoroutine",
    .doc = "A C function that runs as a native goroutine, as native.go() returns it.",
    .repr = repr,
    .deinit = deinit,
    .has_points = false,
    .methods = &.{
        class.method("join(timeout=None)", join,
            \\Waits until the function has returned, at most timeout seconds (a float; None: for
            \\ever). Returns whether it has. Goroutines park meanwhile; threads block without the
            \\interpreter's lock.
        ),
        class.method("done()", done, "Whether the function has returned."),
    },
    .properties = &.{
        class.field(Handle, "id", "id",
            \\Number of the goroutine on the native lane, an int: golibx_goid() in C.
        ),
    },
});
