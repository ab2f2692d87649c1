//! Preemption of bytecode: a request that costs nothing until it is made.
//!
//! sysmon asks (`request`); the request is put in the way of the goroutine's next bytecode (`arm`);
//! there it yields (`arrive`).
//!  - From 3.12 on arming sets events of sys.monitoring on the one code object that the goroutine
//!    executes: its jumps, starts, yields and returns, one of which comes soon in anything that
//!    runs for long. Not INSTRUCTION: two tools that have those take each other's away when one of
//!    them changes its mind. Where the program traces itself (sys.settrace), the request goes in
//!    front of its trace function instead: 3.12 and 3.13 lose opcode events of code on which any
//!    tool sets local ones.
//!  - On 3.11 it sets a trace function on the goroutine's thread state. One that was there is put
//!    back before anything else happens, and gets the event.
//! If the goroutine has to raise something (`hurry`), no code of the program's may run before that.
//! The frame that the goroutine is in may return or be unwound first, and what a tool's callback
//! runs has no events: so on 3.12+ the frames around it get INSTRUCTION events too. Those of the
//! import system get CALL events: it is not interrupted itself, but where it calls others' code or
//! executes a module it has to expect that this raises.
//!
//! Arming needs the interpreter's lock, which the goroutine holds. From 3.12 on a pending call runs
//! with it, at the goroutine's own next check. On 3.11 a pending call from another thread is not
//! noticed before something else interrupts the interpreter's loop, so an M is sent that asks for
//! the lock, early enough to have it when the slice ends.
//!
//! The import system's own code holds locks that know threads, not goroutines, for a few
//! instructions: it is never interrupted.
const std = @import("std");
const m_mod = @import("../../serial/m.zig");
const holdoff = @import("../../serial/holdoff.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const mainthread = @import("mainthread.zig");
const recursion = @import("recursion.zig");
const backedge = @import("backedge.zig");

const M = m_mod.M;
const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// A request that has been armed, in its goroutine.
pub const Request = struct {
    armed: bool = false,
    /// Raise what is pending as well, wherever the goroutine is: a KeyboardInterrupt comes
    /// anywhere.
    raise: bool = false,
    /// 3.12+: there are code objects with events on for it, in `asked`.
    coded: bool = false,
    /// 3.12+: the code object's distance from the innermost frame when it was chosen.
    depth: u32 = 0,
    /// The program's own trace function, while the request stands in its place.
    traced_by: ?py.TraceFunction = null,
    /// 3.11: the frame that had f_trace_opcodes set for it, owned.
    frame: ?*py.Object = null,
};

pub const Way = enum { none, trace, monitoring };
pub var way: Way = .none;
/// Why there is none, for `golibx info`.
pub var reason: [:0]const u8 = "";

// ---- asking ----

/// Called by sysmon, without the lock. False if an M has to arm it.
pub fn request(m: *M) bool {
    const about: ?*anyopaque = @ptrFromInt(@as(usize, m.id) + 1);
    switch (way) {
        .none => return true,
        .trace => return false,
        .monitoring => {
            if (!canInterject()) return false;
            if (!asking.begin()) return true;
            defer asking.end();
            return interject(onPending, about);
        },
    }
}

const Pending = *const fn (?*anyopaque) callconv(.c) c_int;

fn canInterject() bool {
    return way == .monitoring and py.extra._PyEval_AddPendingCall != null;
}

/// The thread that holds the interpreter's lock calls that at its next check.
fn interject(function: Pending, about: ?*anyopaque) bool {
    const add: *const fn (*py.Interpreter, Pending, ?*anyopaque, c_int) callconv(.c) c_int =
        @ptrCast(@alignCast(py.extra._PyEval_AddPendingCall.?));
    return add(host.interpreter, function, about, 0) == 0;
}

/// For the one thread that takes samples (sampling.zig), without the lock. False if it cannot be.
pub fn interjectForSample(function: Pending) bool {
    if (!canInterject() or !noting.begin()) return false;
    defer noting.end();
    return interject(function, null);
}

/// sysmon, and the thread that takes samples, put calls into the interpreter's queue, which a fork
/// must not find half changed. Each of the two is one thread.
var asking: holdoff.HoldOffReal = .{};
var noting: holdoff.HoldOffReal = .{};

/// With the lock: from here to `letGo` no thread asks.
pub fn holdOff() void {
    asking.hold();
    noting.hold();
}

pub fn letGo() void {
    asking.letGo();
    noting.letGo();
}

/// In the child of a fork: no thread is about to ask, and none asks.
pub fn renew() void {
    asking = .{};
    noting = .{};
}

/// Runs between two bytecodes of the thread that holds the lock. Switching is not possible here:
/// the interpreter runs no further pending call until this one has returned.
fn onPending(about: ?*anyopaque) callconv(.c) c_int {
    const m = m_mod.current() orelse return 0;
    if (@as(usize, m.id) + 1 != @intFromPtr(about)) return 0;
    const g = lane.onThread() orelse return 0;
    arm(goroutine.of(g));
    return 0;
}

/// Makes a goroutine raise what is pending at its next bytecode, if it does not park first.
pub fn hurry(p: *PyG) void {
    p.request.raise = true;
    arm(p);
}

/// It raises what it was hurried for, wherever that is. No exception is set.
pub fn endHurry(p: *PyG) void {
    if (!p.request.raise) return;
    p.request.raise = false;
    if (p.state != null) switch (way) {
        .none => {},
        .trace => undoTrace(p),
        .monitoring => takeBack(p),
    };
}

// ---- arming ----

/// With the lock, from any thread.
pub fn arm(p: *PyG) void {
    const state = p.state orelse return;
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    switch (way) {
        .none => {},
        .trace => armTrace(p, state),
        // A trace function is also called by jumps: not where to raise, see backedge.zig.
        .monitoring => if (wantsRaise(p)) armRaise(p, state) else {
            if (!armTracer(p, state)) armMonitoring(p, state);
        },
    }
}

fn armTrace(p: *PyG, state: *py.ThreadState) void {
    const old = traceFunction(state);
    if (old == &onTrace) return;
    // An earlier request was replaced by the program's own sys.settrace().
    forgetOpcodes(p);
    const object = traceObject(state);
    if (object) |o| _ = py.incref(o);
    defer py.xdecref(object);
    p.request.traced_by = old;
    p.request.armed = true;
    // Line events do not come in a loop of a single instruction, `while True: pass`.
    if (py.PyThreadState_GetFrame(state)) |frame| watchOpcodes(p, &frame.ob);
    // With the program's own object, so that sys.gettrace() gives what it gave.
    setTrace(state, onTrace, object);
}

/// Takes the reference to `frame`.
fn watchOpcodes(p: *PyG, frame: *py.Object) void {
    if (traceOpcodes(frame)) p.request.frame = frame else py.decref(frame);
}

/// Has the frame give opcode events. False if it does already.
pub fn traceOpcodes(frame: *py.Object) bool {
    const yes = py.boolean(true);
    defer py.decref(yes);
    if (!tracesOpcodes(frame) and py.PyObject_SetAttrString(frame, "f_trace_opcodes", yes) == 0)
        return true;
    py.PyErr_Clear();
    return false;
}

pub fn dropOpcodes(frame: *py.Object) void {
    const no = py.boolean(false);
    defer py.decref(no);
    if (py.PyObject_SetAttrString(frame, "f_trace_opcodes", no) != 0) py.PyErr_Clear();
}

/// A trace function of the program's that another stands in for, with its object, owned.
pub const Traced = struct { function: ?py.TraceFunction, object: ?*py.Object };

/// 3.11: takes a request back that has not been answered yet.
pub fn undoTrace(p: *PyG) void {
    const state = p.state orelse return;
    if (!p.request.armed or traceFunction(state) != &onTrace) return;
    const user = p.request.traced_by;
    p.request.traced_by = null;
    p.request.armed = false;
    forgetOpcodes(p);
    const object = traceObject(state);
    if (object) |o| _ = py.incref(o);
    defer py.xdecref(object);
    setTrace(state, user, object);
}

/// 3.11: puts `function` in the place of the goroutine's.
pub fn takeTrace(state: *py.ThreadState, function: py.TraceFunction) Traced {
    const by: Traced = .{ .function = traceFunction(state), .object = traceObject(state) };
    if (by.object) |o| _ = py.incref(o);
    setTrace(state, function, by.object);
    return by;
}

/// Undoes takeTrace, unless the program has set another one since.
pub fn putTrace(state: *py.ThreadState, function: py.TraceFunction, by: Traced) void {
    if (traceFunction(state) == function) setTrace(state, by.function, by.object);
    py.xdecref(by.object);
}

fn tracesOpcodes(frame: *py.Object) bool {
    const set = py.PyObject_GetAttrString(frame, "f_trace_opcodes") orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(set);
    return py.isTrue(set);
}

fn forgetOpcodes(p: *PyG) void {
    const frame = p.request.frame orelse return;
    p.request.frame = null;
    dropOpcodes(frame);
    py.decref(frame);
}

/// 3.12+: in front of the goroutine's trace function. False if it has none.
fn armTracer(p: *PyG, state: *py.ThreadState) bool {
    if (trace_at == 0 and !findTracer(state)) return false;
    const user = traceFunction(state) orelse return false;
    if (user == &onTrace) return true;
    takeBack(p);
    p.request.traced_by = user;
    p.request.armed = true;
    setTraceFunction(state, onTrace);
    return true;
}

/// 3.12+: where a thread state keeps its trace function, found by replacing the program's own for a
/// moment. False if it is not traced, or not the calling one.
fn findTracer(state: *py.ThreadState) bool {
    if (state != py.PyThreadState_Get() or !tracing.inUse("gettrace")) return false;
    const object = py.call(tracing.get.?, &.{}) orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(object);
    const words: [*]const usize = @ptrCast(@alignCast(state));
    const before = words[0..trace_words].*;
    py.extra.PyEval_SetTrace(onTrace, object);
    for (before, 0..) |word, i| {
        if (words[i] != @intFromPtr(&onTrace) or word == 0) continue;
        trace_at = i;
        py.extra.PyEval_SetTrace(@ptrFromInt(word), object);
        return true;
    }
    // Not there: leave it as sys.settrace() would have.
    if (py.PySys_GetObject("settrace")) |set| py.xdecref(py.call(set, &.{object}));
    py.PyErr_Clear();
    return false;
}

fn armMonitoring(p: *PyG, state: *py.ThreadState) void {
    // While a tool's callback or a trace function runs, its own code has no events. A request that
    // found no answer goes to the caller next time, but not ever farther, where no code may run
    // for long.
    const depth = if (p.request.coded) (p.request.depth + 1) % depths else 0;
    const code = codeAt(state, depth) orelse return;
    takeBack(p);
    p.request.depth = depth;
    ask(p, code, all_events);
}

/// 3.12+: nothing of the frames that it is in goes on before it has raised.
fn armRaise(p: *PyG, state: *py.ThreadState) void {
    takeBack(p);
    p.request.depth = 0;
    var frame = py.PyThreadState_GetFrame(state);
    var depth: u32 = 0;
    while (frame) |f| : (depth += 1) {
        const code = py.PyFrame_GetCode(f);
        ask(p, code, if (isImportSystem(code)) call_event else instruction_event);
        frame = if (depth + 1 < most_hurried) py.extra.PyFrame_GetBack(f) else null;
        py.decref(&f.ob);
    }
}

const depths = 4; // a callback, what it calls, what that calls, and the code they are about
/// More frames than that are seldom unwound before one of them handles the exception.
const most_hurried = 1000;

/// 3.12+: takes the reference to the code object.
fn ask(p: *PyG, code: *py.Object, events: c_longlong) void {
    if (isAsked(p, code)) return py.decref(code);
    asked.append(host.gpa, .{ .p = p, .code = code, .events = events }) catch
        return py.decref(code);
    p.request.armed = true;
    p.request.coded = true;
    refresh(code);
}

fn isAsked(p: *const PyG, code: *const py.Object) bool {
    for (asked.items) |a| if (a.p == p and a.code == code) return true;
    return false;
}

/// The code of the frame that is `depth` calls away from the innermost one, or of the outermost.
fn codeAt(state: *py.ThreadState, depth: u32) ?*py.Object {
    var frame = py.PyThreadState_GetFrame(state) orelse return null;
    defer py.decref(&frame.ob);
    for (0..depth) |_| {
        const caller = py.extra.PyFrame_GetBack(frame) orelse break;
        py.decref(&frame.ob);
        frame = caller;
    }
    return py.PyFrame_GetCode(frame);
}

/// 3.12+: events on a code object, owned, for a goroutine. Several may be in one.
const Asked = struct { p: *PyG, code: *py.Object, events: c_longlong };
var asked: std.ArrayList(Asked) = .empty;

// ---- arriving ----

/// The goroutine is at a bytecode boundary, its request taken back. False with an exception set.
fn arrive(p: *PyG, exact: bool) bool {
    recursion.settle(p);
    if (raise(p, exact)) |goes_on| return goes_on;
    // From 3.13 on a signal interrupts only the thread state that the main thread began with.
    if (py.PyErr_CheckSignals() != 0) {
        if (exact) return false;
        goroutine.throwAtOnce(p, py.takeException() orelse return true);
        return true;
    }
    lane.preempt(&p.g);
    mainthread.makeWay(&p.g);
    return raise(p, exact) orelse true;
}

/// What `hurry` is about. Null if there is nothing to raise, false if it was raised, true if that
/// has to wait for an exact event.
fn raise(p: *PyG, exact: bool) ?bool {
    if (!wantsRaise(p) or p.owes.whole > 0) return null;
    if (!exact) {
        arm(p);
        return true;
    }
    return !goroutine.raisePending(p);
}

pub fn wantsRaise(p: *const PyG) bool {
    return p.owes.pending != null and p.request.raise;
}

fn onTrace(
    object: ?*py.Object,
    frame: *py.Object,
    what: c_int,
    arg: ?*py.Object,
) callconv(.c) c_int {
    const g = lane.onThread() orelse return 0;
    const p = goroutine.of(g);
    if (!p.request.armed) {
        // Called once more by an interpreter loop that had read the function before.
        const now = traceFunction(p.state.?) orelse return 0;
        return if (now == &onTrace) 0 else now(object, frame, what, arg);
    }
    const user = p.request.traced_by;
    const ours = what == trace_opcode and p.request.frame == frame;
    p.request.traced_by = null;
    p.request.armed = false;
    forgetOpcodes(p);
    const kept = if (object) |o| py.incref(o) else null;
    defer py.xdecref(kept);
    if (way == .monitoring)
        setTraceFunction(p.state.?, user.?)
    else
        setTrace(p.state.?, user, kept);
    const code = py.PyFrame_GetCode(@ptrCast(frame));
    const import_system = isImportSystem(code);
    py.decref(code);
    if (import_system) {
        if (wantsRaise(p)) arm(p);
    } else if (!arrive(p, way == .trace)) return -1;
    // The program did not ask for the event that only our setting caused.
    if (ours) return 0;
    return if (user) |f| f(kept, frame, what, arg) else 0;
}

pub const trace_opcode = 7; // PyTrace_OPCODE

/// JUMP: code, offset, destination.
fn onJump(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 3) return py.returnNone();
    const g = lane.onThread() orelse lane.stray() orelse return py.returnNone();
    backedge.onJump(goroutine.of(g), args[0], args[1], args[2]);
    return onEvent(null, args, n);
}

/// INSTRUCTION: code, offset.
fn onInstruction(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 2) return py.returnNone();
    const g = lane.onThread() orelse lane.stray() orelse return py.returnNone();
    if (backedge.onInstruction(goroutine.of(g), args[0])) return null;
    return onEvent(null, args, n);
}

fn onEvent(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n < 1) return py.returnNone();
    const g = lane.onThread() orelse return py.returnNone();
    const p = goroutine.of(g);
    if (!p.request.coded or !isAsked(p, args[0])) return py.returnNone();
    if (isImportSystem(args[0])) {
        if (!wantsRaise(p)) takeBack(p);
        return py.returnNone();
    }
    takeBack(p);
    return if (arrive(p, n == 2)) py.returnNone() else null;
}

/// CALL, in the import system's code: code, offset, callable, first argument. Where it calls the
/// code of others, it has to expect that this raises.
fn onCall(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n < 3) return py.returnNone();
    const g = lane.onThread() orelse return py.returnNone();
    const p = goroutine.of(g);
    const due = wantsRaise(p) and p.owes.whole == 0;
    if (!due or !p.request.coded or !isAsked(p, args[0])) return py.returnNone();
    if (args[2] != execute) {
        const code = codeOf(args[2]) orelse return py.returnNone();
        if (isImportSystem(code)) {
            ask(p, code, call_event);
            return py.returnNone();
        }
        py.decref(code);
    }
    takeBack(p);
    return if (arrive(p, true)) py.returnNone() else null;
}

/// exec(), by which modules are executed.
var execute: ?*py.Object = null;

/// Of a function or a method in Python, a new reference; null for all else.
fn codeOf(callable: *py.Object) ?*py.Object {
    if (py.isFunction(callable)) return py.incref(py.extra.PyFunction_GetCode(callable) orelse
        return null);
    const function = py.PyObject_GetAttrString(callable, "__func__") orelse {
        py.PyErr_Clear();
        return null;
    };
    defer py.decref(function);
    if (!py.isFunction(function)) return null;
    return py.incref(py.extra.PyFunction_GetCode(function) orelse return null);
}

/// 3.12+
fn takeBack(p: *PyG) void {
    p.request.armed = false;
    if (p.request.traced_by) |user| {
        p.request.traced_by = null;
        // Unless the program has set another one meanwhile.
        if (traceFunction(p.state.?) == &onTrace) setTraceFunction(p.state.?, user);
    }
    if (!p.request.coded) return;
    p.request.coded = false;
    var at: usize = 0;
    while (at < asked.items.len) {
        if (asked.items[at].p != p) {
            at += 1;
            continue;
        }
        const code = asked.swapRemove(at).code;
        refresh(code);
        py.decref(code);
        at = 0; // others may have come and gone
    }
}

/// 3.12+: asks for the events that the goroutines with requests in a code object want together.
pub fn refresh(code: *py.Object) void {
    var events = backedge.eventsOn(code);
    for (asked.items) |a| {
        if (a.code == code) events |= a.events;
    }
    _ = setEvents(code, events);
}

/// When a goroutine ends with a request in its way.
pub fn cancelRequest(p: *PyG) void {
    if (backedge.any()) backedge.unwatch(p);
    p.request.raise = false;
    if (!p.request.armed) return;
    switch (way) {
        .none => {},
        .trace => {
            forgetOpcodes(p);
            setTrace(p.state.?, null, null);
            p.request.armed = false;
        },
        .monitoring => takeBack(p),
    }
    p.request = .{};
}

/// Takes a request out of the way of a goroutine that ends on another's thread state.
pub fn withdraw(p: *PyG) void {
    if (!p.request.armed) return;
    if (way == .monitoring) takeBack(p) else {
        const state = p.state.?;
        const object = traceObject(state);
        if (object) |o| _ = py.incref(o);
        defer py.xdecref(object);
        forgetOpcodes(p);
        // Unless the program has set another one meanwhile.
        if (traceFunction(state) == &onTrace) setTrace(state, p.request.traced_by, object);
    }
    p.request = .{};
}

/// Frozen modules carry this in their file names.
pub fn isImportSystem(code: *py.Object) bool {
    const name = py.PyObject_GetAttrString(code, "co_filename") orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(name);
    var len: py.Ssize = 0;
    const text = py.PyUnicode_AsUTF8AndSize(name, &len) orelse {
        py.PyErr_Clear();
        return false;
    };
    return std.mem.startsWith(u8, text[0..@intCast(len)], "<frozen importlib");
}

// ---- setting up ----

/// Names in sys.monitoring.events.
const event_names = [_][*:0]const u8{ "PY_START", "PY_YIELD", "PY_RETURN" };
var all_events: c_longlong = 0;
pub var jump_event: c_longlong = 0;
/// For something that has to be raised: from a jump's event it would miss the `try` it is in.
pub var instruction_event: c_longlong = 0;
/// Where that is in the import system.
var call_event: c_longlong = 0;

var set_local_events: ?*py.Object = null;
var tool_id: ?*py.Object = null;
/// Words of a thread state.
const trace_words = 24; // c_tracefunc and c_traceobj are within the first so many
var trace_at: usize = 0;
var trace_object_at: usize = 0;

fn setEvents(code: *py.Object, events: c_longlong) bool {
    const number = py.PyLong_FromLongLong(events) orelse return false;
    defer py.decref(number);
    const r = py.call(set_local_events orelse return false, &.{ tool_id.?, code, number }) orelse {
        py.PyErr_Clear();
        return false;
    };
    py.decref(r);
    return true;
}

const callback_def: py.MethodDef = .of("golibx_preempt", .{ .fast = onEvent }, null);
const jump_def: py.MethodDef = .of("golibx_preempt", .{ .fast = onJump }, null);
const call_def: py.MethodDef = .of("golibx_preempt", .{ .fast = onCall }, null);
const instruction_def: py.MethodDef = .of("golibx_preempt", .{ .fast = onInstruction }, null);

/// How long the lock takes to get from a goroutine that computes: the interpreter's switch
/// interval.
pub var lead_ns: u64 = 0;

/// In nanoseconds.
pub fn readSwitchInterval() u64 {
    const get = py.PySys_GetObject("getswitchinterval") orelse return 0;
    const value = py.call(get, &.{}) orelse {
        py.PyErr_Clear();
        return 0;
    };
    defer py.decref(value);
    return @intFromFloat(py.PyFloat_AsDouble(value) * 1e9);
}

/// Before a run. With the lock, on a thread state of Python's own.
pub fn setUp() void {
    lead_ns = 0;
    reason = "";
    if (py.minor() == 11) return setUpTrace();
    if (!setUpMonitoring()) {
        py.PyErr_Clear();
        way = .none;
    }
}

pub fn tearDown() void {
    asked.clearRetainingCapacity();
    // A goroutine that was given up while it blocked has to find its loops watched when it comes
    // back.
    if (way == .monitoring and !backedge.any()) freeTool();
    way = .none;
}

/// In the child of a fork: the requests of all are taken back, the survivor's too.
pub fn forget(survivor: ?*PyG) void {
    for (asked.items) |a| {
        a.p.request.coded = false;
        _ = setEvents(a.code, 0);
        py.decref(a.code);
    }
    asked.clearRetainingCapacity();
    if (survivor) |p| if (p.request.armed) switch (way) {
        .none => {},
        .trace => {
            forgetOpcodes(p);
            const object = traceObject(p.state.?);
            if (object) |o| _ = py.incref(o);
            setTrace(p.state.?, p.request.traced_by, object);
            py.xdecref(object);
            p.request = .{};
        },
        .monitoring => takeBack(p),
    };
    tearDown();
}

/// Where a thread state keeps its trace function, found by setting one.
fn setUpTrace() void {
    if (trace_at != 0) {
        way = .trace;
        lead_ns = readSwitchInterval();
        return;
    }
    reason = "this interpreter exports no _PyEval_SetTrace";
    const set = py.extra._PyEval_SetTrace orelse return;
    if (py.extra.PyThreadState_LeaveTracing == null) return;
    reason = "the trace function of a thread state was not found";
    const probe = py.PyThreadState_New(host.interpreter) orelse return;
    defer {
        py.PyThreadState_Clear(probe);
        py.PyThreadState_Delete(probe);
    }
    if (set(probe, onTrace, py.none()) != 0) {
        py.PyErr_Clear();
        reason = "an audit hook refuses sys.settrace";
        return;
    }
    const words: *[trace_words]usize = @ptrCast(@alignCast(probe));
    var function_at: usize = 0;
    var object_at: usize = 0;
    for (words, 0..) |w, i| {
        if (w == @intFromPtr(&onTrace)) function_at = i;
        if (w == @intFromPtr(py.none())) object_at = i;
    }
    _ = set(probe, null, null);
    if (function_at == 0 or object_at == 0) return;
    if (words[function_at] != 0 or words[object_at] != 0) return;
    trace_at = function_at;
    trace_object_at = object_at;
    reason = "";
    way = .trace;
    lead_ns = readSwitchInterval();
}

/// 3.11: whether it has a trace function, as far as is known before the first run.
pub fn isTraced(state: *py.ThreadState) bool {
    if (py.minor() != 11) return false;
    return if (trace_at == 0) tracing.inUse("gettrace") else traceFunction(state) != null;
}

pub fn traceFunction(state: *py.ThreadState) ?py.TraceFunction {
    const words: [*]usize = @ptrCast(@alignCast(state));
    return @ptrFromInt(words[trace_at]);
}

fn setTraceFunction(state: *py.ThreadState, function: py.TraceFunction) void {
    const words: [*]usize = @ptrCast(@alignCast(state));
    words[trace_at] = @intFromPtr(function);
}

/// 3.11: what _PyEval_SetTrace does, without telling audit hooks of what is none of the program's
/// doing. Audit hooks are Python code, and any other caller of that function meanwhile, the program
/// or an M that arms, is refused; from another thread the refusal even lands in the goroutine.
fn setTrace(state: *py.ThreadState, function: ?py.TraceFunction, object: ?*py.Object) void {
    const words: [*]usize = @ptrCast(@alignCast(state));
    const before = traceObject(state);
    if (object) |o| _ = py.incref(o);
    words[trace_at] = @intFromPtr(function);
    words[trace_object_at] = @intFromPtr(object);
    // Has the interpreter's loop look whether there is one.
    py.extra.PyThreadState_EnterTracing.?(state);
    py.extra.PyThreadState_LeaveTracing.?(state);
    py.xdecref(before);
}

fn traceObject(state: *py.ThreadState) ?*py.Object {
    const words: [*]usize = @ptrCast(@alignCast(state));
    return @ptrFromInt(words[trace_object_at]);
}

/// sys.gettrace and sys.getprofile, and how to end what they tell of.
const Tracing = struct {
    get: ?*py.Object = null,

    fn inUse(t: *Tracing, comptime name: [*:0]const u8) bool {
        return !t.shows(py.none(), name);
    }

    /// Whether it returns that. False if it raises.
    fn shows(t: *Tracing, expected: *py.Object, comptime name: [*:0]const u8) bool {
        if (t.get == null)
            t.get = py.incref(py.PySys_GetObject(name) orelse return expected == py.none());
        const function = py.call(t.get.?, &.{}) orelse {
            py.PyErr_Clear();
            return false;
        };
        defer py.decref(function);
        return function == expected;
    }
};
var tracing: Tracing = .{};
var profiling: Tracing = .{};

/// Where a thread state keeps what sys.gettrace() and sys.getprofile() return, in words; 0 where
/// that is not known. They are null where those return None.
var shown_at: struct { trace: usize = 0, profile: usize = 0 } = .{};
var looked_for_shown = false;

/// The two words lie side by side, and before them, in the same order, the functions: all four are
/// null in a new thread state. One more that is null follows, on 3.11 three, and then a pointer
/// into the state itself. Where that is so, sys.gettrace() and sys.getprofile() have to return what
/// is put there. Before the first run, with the lock. False with an exception set.
pub fn findShown() bool {
    if (looked_for_shown) return true;
    const probe = py.PyThreadState_New(host.interpreter) orelse {
        _ = py.PyErr_NoMemory();
        return false;
    };
    looked_for_shown = true;
    const own = host.exchange(probe);
    const fields: []usize = @constCast(host.wordsOf(probe, most_words));
    const nulls: usize = if (py.minor() == 11) 3 else 1;
    for (fields, 0..) |value, end| {
        if (end < 4 + nulls or value -% @intFromPtr(probe) > most_state) continue;
        if (!std.mem.allEqual(usize, fields[end - nulls - 4 .. end], 0)) continue;
        const at = end - nulls - 1;
        if (!isShown(&fields[at], &tracing, "gettrace")) continue;
        if (isShown(&fields[at - 1], &profiling, "getprofile"))
            shown_at = .{ .trace = at, .profile = at - 1 };
    }
    _ = host.exchange(own.?);
    py.PyThreadState_Clear(probe);
    py.PyThreadState_Delete(probe);
    return true;
}

/// Of a thread state, in which they are.
const most_words = 48;
/// Bytes: none is as large.
const most_state = 2048;

fn isShown(field: *usize, by: *Tracing, comptime name: [*:0]const u8) bool {
    const object = py.boolean(true);
    defer py.decref(object);
    field.* = @intFromPtr(object);
    defer field.* = 0;
    return by.shows(object, name);
}

inline fn isUntraced(state: *py.ThreadState) bool {
    const words: [*]const usize = @ptrCast(@alignCast(state));
    if (words[shown_at.trace] | words[shown_at.profile] != 0) return false;
    return shown_at.trace != 0 and (way != .trace or words[trace_at] == 0);
}

/// A finished goroutine leaves no trace or profile function behind for the next user of its thread
/// state, the current one.
pub inline fn stopTracing(state: *py.ThreadState) void {
    if (!isUntraced(state)) stopTracingSlow();
}

noinline fn stopTracingSlow() void {
    if (way == .trace) {
        const state = py.PyThreadState_Get();
        if (traceFunction(state) != null) setTrace(state, null, null);
    } else if (tracing.inUse("gettrace")) py.extra.PyEval_SetTrace(null, null);
    if (profiling.inUse("getprofile") and !dropProfile()) py.extra.PyEval_SetProfile(null, null);
}

/// 3.11: as setTrace, which see. The words are the ones before those of the trace function; false
/// if they are not.
fn dropProfile() bool {
    if (py.minor() != 11 or trace_at == 0) return false;
    const state = py.PyThreadState_Get();
    const words: [*]usize = @ptrCast(@alignCast(state));
    const object = words[trace_object_at - 1];
    const shown = py.call(profiling.get.?, &.{}) orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(shown);
    if (words[trace_at - 1] == 0 or object != @intFromPtr(shown)) return false;
    words[trace_at - 1] = 0;
    words[trace_object_at - 1] = 0;
    py.extra.PyThreadState_EnterTracing.?(state);
    py.extra.PyThreadState_LeaveTracing.?(state);
    py.decref(shown);
    return true;
}

fn setUpMonitoring() bool {
    if (tool_id != null) {
        way = .monitoring;
        return true;
    }
    reason = "sys.monitoring is missing";
    const monitoring = py.PySys_GetObject("monitoring") orelse return false;
    const events = py.PyObject_GetAttrString(monitoring, "events") orelse return false;
    defer py.decref(events);
    reason = "all tool ids of sys.monitoring are taken";
    const use = py.PyObject_GetAttrString(monitoring, "use_tool_id") orelse return false;
    defer py.decref(use);
    const name = py.PyUnicode_FromString("golibx") orelse return false;
    defer py.decref(name);
    // 0, 1 and 2 are meant for debuggers, coverage and profilers, 3 and 4 for any tool. 5 is for an
    // optimizer, which does not exist: taking it takes nothing from a program. The highest is also
    // called last, when those that measure have seen the event.
    const id = for ([_]c_longlong{ 5, 4, 3, 2 }) |n| {
        const number = py.PyLong_FromLongLong(n) orelse return false;
        if (py.call(use, &.{ number, name })) |r| {
            py.decref(r);
            break number;
        }
        py.PyErr_Clear();
        py.decref(number);
    } else return false;
    tool_id = id;
    const register = py.PyObject_GetAttrString(monitoring, "register_callback") orelse return false;
    defer py.decref(register);
    all_events = 0;
    for (event_names) |name_of| {
        all_events |= listen(register, id, events, name_of, &callback_def) orelse return false;
    }
    jump_event = listen(register, id, events, "JUMP", &jump_def) orelse return false;
    all_events |= jump_event;
    instruction_event = listen(register, id, events, "INSTRUCTION", &instruction_def) orelse
        return false;
    call_event = listen(register, id, events, "CALL", &call_def) orelse return false;
    if (execute == null) execute = py.importFrom("builtins", "exec");
    set_local_events = py.PyObject_GetAttrString(
        monitoring,
        "set_local_events",
    ) orelse return false;
    reason = "";
    way = .monitoring;
    return true;
}

/// Registers a callback for an event of that name. The event; null with an exception set.
fn listen(
    register: *py.Object,
    id: *py.Object,
    events: *py.Object,
    name: [*:0]const u8,
    def: *const py.MethodDef,
) ?c_longlong {
    const callback = py.PyCMethod_New(def, null, null, null) orelse return null;
    defer py.decref(callback);
    const event = py.PyObject_GetAttrString(events, name) orelse return null;
    defer py.decref(event);
    py.xdecref(py.call(register, &.{ id, event, callback }) orelse return null);
    return py.PyLong_AsLongLong(event);
}

fn freeTool() void {
    py.clear(&set_local_events);
    if (tool_id) |id| {
        if (py.PySys_GetObject("monitoring")) |monitoring| {
            if (py.PyObject_GetAttrString(monitoring, "free_tool_id")) |free| {
                py.xdecref(py.call(free, &.{id}));
                py.decref(free);
            }
        }
        py.PyErr_Clear();
    }
    py.clear(&tool_id);
}
