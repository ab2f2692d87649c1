//! Python goroutines: what the scheduler runs (`PyG`) and what Python code holds (`Handle`).
//!
//! A PyG lives from `go` to the end of its function, is pooled and never freed during a run, so
//! that sysmon may look at one at any time. The handle, golibx.Goroutine, keeps what remains: the
//! result or the exception. The two point at each other while the goroutine lives, and the PyG then
//! owns one reference to its handle.
const std = @import("std");
const os = @import("../../os/os.zig");
const g_mod = @import("../../serial/g.zig");
const stacks = @import("../../serial/stack.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const errors = @import("../errors.zig");
const preempt = @import("preempt.zig");
const recursion = @import("recursion.zig");
const signals = @import("signals.zig");
const backedge = @import("backedge.zig");
const groups = @import("../types/waitgroup.zig");
const contexts = @import("../types/context.zig");
const chan = @import("../types/chan.zig");
const standin = @import("standin.zig");
const tracing = @import("tracing.zig");
const handle = @import("../types/handle.zig");
const uncollected = @import("../run/uncollected.zig");
const buffered = @import("buffered.zig");
const foreign = @import("foreign.zig");
const identity = @import("identity.zig");
const fork = @import("../run/fork.zig");
const owed = @import("owed.zig");
const watching = @import("watching.zig");

const G = g_mod.G;
const M = @import("../../serial/m.zig").M;
const Lane = host.Lane;
const lane = &host.the_lane;
/// Those in join() of one goroutine.
const Queue = host.Queue;
const Rt = host.Rt;

const inline_args = 4;

pub const PyG = struct {
    // A switch reads these. Fields lie in the order of their alignment.
    state: ?*py.ThreadState align(64) = null,
    owes: Owes align(32) = .{},
    g: G align(16) = .{},
    /// A preemption request that was put in its way, see preempt.zig.
    request: preempt.Request = .{},
    /// Its stack's reserve, see recursion.zig.
    overflow: recursion.Overflow = .{},
    /// 3.11: what backedge.zig's trace function stands in for.
    traced_by: ?preempt.Traced = null,
    /// The WaitGroup that started it by go(), owned.
    group: ?*py.Object = null,
    handle: *Handle = undefined,
    function: ?*py.Object = null,
    /// Positional and then keyword arguments, owned; in `few` if they fit.
    args: [*]*py.Object = undefined,
    nargs: u32 = 0,
    nkw: u32 = 0,
    kwnames: ?*py.Object = null,
    context: ?*py.Object = null,
    /// What it was made to raise last: see owed.zig.
    raised: owed.Raised = .{},
    /// Where what was eaten of that was reported.
    eaten_at: owed.Place = .{},
    /// What it has to raise at those after that.
    later: ?*Thrown = null,
    /// The context that ends its waits when it ends, owned; and those that it entered.
    ambient: ?*py.Object = null,
    entered: ?*contexts.Entered = null,
    /// Called with the handle when all is over, owned.
    on_end: ?*py.Object = null,
    /// The channel of which one value stands for it, owned: its place in a scope.
    places: ?*py.Object = null,
    /// Let go at its end.
    kept: ?*py.Object = null,
    /// The key of its thread object, owned, if the program has asked for that.
    thread: ?*py.Object = null,
    /// Its thread state is as new.
    clean: bool = false,
    /// It runs the program's signal handlers: see signals.zig.
    runs_handlers: bool = false,
    /// The handle is gone; only what its end runs is left to do.
    ended: bool = false,
    /// The run's end has cancelled it.
    told_to_end: bool = false,
    /// A thread of the program's: golibx does not end it, and it does not go on after the run.
    is_thread: bool = false,
    /// The program has ended: what it is made to raise may be ignored. See owed.zig.
    owes_nothing: bool = false,
    /// The module with the code that it waits in the middle of, while it keeps its thread for that;
    /// and the innermost call of the interpreter's buffered files that it is in.
    kept_by: ?*const foreign.Module = null,
    buffered: ?*buffered.Call = null,
    /// What was last found to lie below its calls.
    seen: foreign.Seen = .{},
    /// Its function is one in Python, or calls one and nothing else.
    runs_python: bool = false,
    /// A fork has left it alone in this process: see fork.zig. Never pooled again.
    survives: bool = false,
    /// Then where run() returns, of a main goroutine, and the M it was on.
    home: usize = 0,
    forked_on: ?*M = null,
    /// Forks that it is in without being locked to a thread.
    fork_unlocked: u32 = 0,
    /// How often it has parked since its run has ended without it.
    parks: u32 = 0,
    started_ns: u64 = 0,
    parent: u64 = 0,
    few: [inline_args]*py.Object = undefined,
    next_free: ?*PyG = null,
};

pub const Owes = extern struct {
    /// What the goroutine has to raise at its next park, owned.
    pending: ?*py.Object = null,
    /// What it was made to raise and has eaten, owned.
    eaten: ?*py.Object = null,
    /// How much it is in the midst of that nothing may cut in two: see whole.zig.
    whole: u32 = 0,
};

/// An exception that waits for its turn. One that is `hurried` is raised at the next bytecode after
/// the one before it.
pub const Thrown = struct {
    exception: *py.Object,
    hurried: bool = false,
    next: ?*Thrown = null,
};

pub inline fn of(g: *G) *PyG {
    return @alignCast(@fieldParentPtr("g", g));
}

/// golibx.Goroutine.
pub const Handle = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    /// Null once it has ended.
    live: ?*anyopaque,
    id: u64,
    parent: u64,
    /// The function, and after the end its code or name.
    named_by: ?*py.Object,
    /// Where go() was called: code object and instruction.
    code: ?*py.Object,
    lasti: c_int,
    outcome: Outcome,
    collected: bool,
    /// It is in the list of those that have raised and were not reported: see uncollected.zig.
    listed: bool,
    /// How many are in result().
    collectors: u32,
    system: bool,
    /// Its exception tells where it was started.
    noted: bool,
    result: ?*py.Object,
    exception: ?*py.Object,
    /// The Queue of those in join().
    joiners: [@sizeOf(Queue)]u8 align(@alignOf(Queue)),
    /// A list of channels that get the handle when the goroutine has ended.
    watchers: ?*py.Object,

    pub inline fn pyg(h: *Handle) ?*PyG {
        return @ptrCast(@alignCast(h.live));
    }

    pub inline fn waiters(h: *Handle) *Queue {
        return @ptrCast(&h.joiners);
    }
};

pub const Outcome = enum(u8) { none, returned, raised, cancelled };

/// The main goroutine of the present run.
pub var main: ?*PyG = null;
/// The thread state that called run(), which is the main goroutine's.
pub var main_state: ?*py.ThreadState = null;
/// Called with the handle and the exception of one that panicked: in a run, and past its end.
pub var panic_handler: ?*py.Object = null;
pub var stray_panic_handler: ?*py.Object = null;

var free_list: ?*PyG = null;
var main_stack: g_mod.Stack = .{};
var main_stack_slab: ?struct { base: [*]align(4096) u8, size: usize } = null;

pub fn mainStack() error{OutOfMemory}!g_mod.Stack {
    const size = lane.options.stack_main_size;
    if (main_stack_slab) |slab| {
        if (slab.size == size) return main_stack;
        os.release(slab.base, slab.size);
        main_stack_slab = null;
    }
    main_stack = try makeStack(size);
    main_stack_slab = .{ .base = @ptrFromInt(main_stack.hi() - size), .size = size };
    return main_stack;
}

/// One that is in no pool, with its guard.
pub fn makeStack(size: usize) error{OutOfMemory}!g_mod.Stack {
    const base = try os.reserve(size);
    errdefer os.release(base, size);
    const guard = stacks.guardSize(size);
    try os.guard(base, guard + if (lane.options.stack_reserves) stacks.reserveSize(size) else 0);
    try os.openStack(@intFromPtr(base) + guard, @intFromPtr(base) + size);
    return .{ .lo = @intFromPtr(base) + guard, .size = size - guard };
}

/// In the child of a fork, which may still run on the main goroutine's stack.
pub fn forget() void {
    main = null;
    ending = false;
    main_stack_slab = null;
}

fn alloc() error{OutOfMemory}!*PyG {
    const p = free_list orelse {
        const block = try host.gpa.alloc(PyG, 32);
        for (block[1..]) |*each| {
            each.* = .{ .next_free = free_list };
            free_list = each;
        }
        block[0] = .{};
        return &block[0];
    };
    free_list = p.next_free;
    return p;
}

/// Fetches all of it: to begin and to end, a goroutine reads or writes most.
pub inline fn prefetch(p: *PyG) void {
    const lines: [*]const u8 = @ptrCast(p);
    inline for (0..@sizeOf(PyG) / 64) |i| @prefetch(lines + i * 64, .{ .rw = .write });
}

/// Of a PyG that is off its stack, or about to leave it without looking back.
pub inline fn free(p: *PyG) void {
    p.g.status = .dead;
    p.next_free = free_list;
    free_list = p;
}

pub const GoError = error{Raised};

/// What a goroutine inherits from the one that starts it: its context variables, context, priority,
/// number, and where it is. References are owned.
pub const Birth = struct {
    /// Null if none is set: a new thread state has none either, and makes room for the first.
    variables: ?*py.Object,
    ambient: ?*py.Object = null,
    context: @FieldType(G, "context") = null,
    priority: g_mod.Priority = .normal,
    parent: u64 = 0,
    code: ?*py.Object = null,
    lasti: c_int = 0,

    pub fn drop(b: *const Birth) void {
        py.xdecref(b.variables);
        py.xdecref(b.ambient);
        py.xdecref(b.code);
    }
};

/// As a child of the caller. Sets an exception when it fails.
pub inline fn bear(system: bool) GoError!Birth {
    const here = lane.hereOnStack();
    const caller = here orelse lane.onThread();
    if (ending and !system and caller == null) {
        errors.runEnds();
        return error.Raised;
    }
    const state = if (here) |g| of(g).state.? else py.PyThreadState_Get();
    var b: Birth = .{ .variables = if (host.hasVariables(state)) try copyVariables() else null };
    takePlace(&b, py.PyThreadState_GetFrame(state));
    if (caller) |g| {
        b.parent = g.id;
        if (!system) {
            b.priority = g.priority;
            contexts.bequeath(of(g), &b);
        }
    } else standin.note();
    return b;
}

fn copyVariables() GoError!*py.Object {
    return py.extra.PyContext_CopyCurrent() orelse error.Raised;
}

/// Of the main goroutine, before it is launched: its thread state is the one of the thread that
/// called run(), where nothing of it may stay. Sets an exception when it fails.
pub fn ownVariables(p: *PyG) GoError!void {
    if (p.context != null) return;
    p.context = try copyVariables();
    py.PyObject_GC_UnTrack(p.context.?);
}

/// Makes a goroutine for `function`, not yet runnable. Sets an exception when it fails.
pub fn create(
    function: *py.Object,
    args: py.Args,
    nargs: usize,
    kwnames: ?*py.Object,
    system: bool,
) GoError!*PyG {
    const b = try bear(system);
    errdefer b.drop();
    return createAs(&b, function, args, nargs, kwnames, system);
}

/// The same, as a child of one that may be gone. Takes the references of `b`, unless it fails. Runs
/// no Python code, unless it is the collector's, up to 3.11.
pub inline fn createAs(
    b: *const Birth,
    function: *py.Object,
    args: py.Args,
    nargs: usize,
    kwnames: ?*py.Object,
    system: bool,
) GoError!*PyG {
    const nkw: usize = if (kwnames) |kw| @intCast(py.PyTuple_Size(kw)) else 0;
    const total = nargs + nkw;
    const h = handle.make() orelse return error.Raised;
    errdefer py.decref(&h.ob);
    const p = alloc() catch {
        _ = py.PyErr_NoMemory();
        return error.Raised;
    };
    p.args = if (total <= inline_args) &p.few else (host.gpa.alloc(*py.Object, total) catch {
        free(p);
        _ = py.PyErr_NoMemory();
        return error.Raised;
    }).ptr;
    p.g = .{ .system = system, .rank = b.priority, .priority = b.priority };
    p.state = null;
    p.owes.pending = null;
    p.raised = .{};
    p.owes.eaten = null;
    p.later = null;
    p.ambient = b.ambient;
    p.g.context = b.context;
    p.entered = null;
    p.on_end = null;
    p.places = null;
    p.kept = null;
    p.thread = null;
    p.clean = false;
    p.runs_handlers = false;
    p.ended = false;
    p.told_to_end = false;
    p.is_thread = false;
    p.owes_nothing = false;
    p.kept_by = null;
    p.buffered = null;
    p.runs_python = py.isFunction(function);
    p.parks = 0;
    p.request = .{};
    p.traced_by = null;
    p.group = null;
    p.handle = h;
    p.function = py.incref(function);
    p.context = b.variables;
    p.nargs = @intCast(nargs);
    p.nkw = @intCast(nkw);
    p.kwnames = if (kwnames) |kw| py.incref(kw) else null;
    for (0..total) |i| p.args[i] = py.incref(args[i]);
    p.parent = b.parent;
    h.live = p;
    h.system = system;
    h.named_by = py.incref(function);
    h.code = b.code;
    h.lasti = b.lasti;
    h.parent = b.parent;
    // Nothing else knows it before the goroutine starts: the collector need not look at it again
    // and again while a million wait for their turn.
    if (b.variables) |variables| py.PyObject_GC_UnTrack(variables);
    return p;
}

/// Where no Python code may run, and an exception may be set. With the collector off, up to 3.11.
/// Null if there is no memory; else the references of `b` are the goroutine's.
pub fn createQuietly(b: *const Birth, function: *py.Object) ?*PyG {
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    return createAs(b, function, undefined, 0, null, false) catch {
        py.PyErr_Clear();
        return null;
    };
}

/// Of one that was made just now: it begins as a thread, with nothing of its parent.
pub fn inheritNothing(p: *PyG) void {
    p.g.context = null;
    p.g.rank = .normal;
    p.g.priority = .normal;
    py.clear(&p.ambient);
    trackVariables(p);
    py.clear(&p.context);
}

/// Undoes `create` for one that will not be launched.
pub fn abandon(p: *PyG) void {
    const h = p.handle;
    h.live = null;
    trackVariables(p);
    dropCall(p);
    py.clear(&p.on_end);
    py.clear(&p.places);
    free(p);
    py.decref(&h.ob);
}

/// Notes the place of a frame, and takes the frame's reference: for a Birth or a Handle, which
/// forgets the place that it had.
inline fn takePlace(of_what: anytype, where: ?*py.Frame) void {
    const frame = where orelse return;
    const code = py.PyFrame_GetCode(frame);
    of_what.lasti = py.extra.PyFrame_GetLasti(frame);
    py.decref(@ptrCast(frame));
    const old = of_what.code;
    of_what.code = code;
    py.xdecref(old);
}

/// It was started so many frames above the function that calls.
pub fn takePlaceAbove(p: *PyG, frames: i64) void {
    var frame = py.PyThreadState_GetFrame(py.PyThreadState_Get()) orelse return;
    for (0..@intCast(@max(0, frames))) |_| {
        const above = py.extra.PyFrame_GetBack(frame) orelse break;
        py.decref(@ptrCast(frame));
        frame = above;
    }
    takePlace(p.handle, frame);
}

/// Makes it a child of code that looks after it: `on_end` is called with its handle when it has
/// ended, and what it raises counts as collected. It runs under `context`, and was started where
/// the function that calls was called. A value is received from `places`, if there is one, at its
/// end. Takes the references.
pub fn adopt(p: *PyG, context: *py.Object, on_end: *py.Object, places: ?*py.Object) void {
    p.on_end = on_end;
    p.places = places;
    p.handle.collected = true;
    contexts.setAmbient(p, context);
    const frame = py.PyThreadState_GetFrame(py.PyThreadState_Get()) orelse return;
    const caller = py.extra.PyFrame_GetBack(frame);
    py.decref(@ptrCast(frame));
    takePlace(p.handle, caller);
}

/// Queues it. The handle is a new reference for the caller.
pub fn launch(p: *PyG) *py.Object {
    launchUnseen(p);
    return py.incref(&p.handle.ob);
}

/// As launch, where no code gets the handle.
pub inline fn launchUnseen(p: *PyG) void {
    lane.go(&p.g);
    if (!p.g.system) lane.record(.goroutine_create, p.g.id, p.parent, 0);
    p.handle.id = p.g.id;
}

/// As launch, before all others.
pub fn launchFirst(p: *PyG) *py.Object {
    lane.goFirst(&p.g);
    p.handle.id = p.g.id;
    return py.incref(&p.handle.ob);
}

/// Runs on the goroutine's own stack, with its thread state current.
pub fn runBody(p: *PyG) void {
    if (p.runs_handlers) return runHandlers(p);
    const id = p.g.id;
    p.handle.id = id;
    const timed = !p.g.system and p != main and lane.notesGoroutines();
    if (timed) {
        p.started_ns = os.nanotime();
        lane.record(.goroutine_start, id, p.parent, 0);
    }
    trackVariables(p);
    const variables = p.context;
    if (variables) |context| _ = py.extra.PyContext_Enter(context);
    if (p != main) tracing.start();
    const on_end = watching.begin(p);
    foreign.enterBody(p);
    const returned = if (p.owes.pending != null and raiseThrown(p))
        null
    else
        py.extra.PyObject_Vectorcall(p.function.?, p.args, p.nargs, p.kwnames);
    const result = if (p == main) signals.endMain(p, returned) else returned;
    if (p.survives) fork.end(p, result);
    finish(p, result, on_end);
    if (variables) |context| _ = py.extra.PyContext_Exit(context);
    dropCall(p);
    // Before those that join it go on, as with threads.
    if (p != main) host.dropLocals(p.state.?);
    if (timed and lane.stray() == null) lane.record(
        .goroutine_exit,
        id,
        os.nanotime() - p.started_ns,
        @backingInt(p.handle.outcome) - 1,
    );
    settleHandle(p);
    if (p.survives) fork.leave(p); // a finalizer has forked
    clearState(p);
}

/// The thread state may be the main goroutine's, with its context.
fn runHandlers(p: *PyG) void {
    trackVariables(p);
    signals.runAll(p);
    finish(p, py.returnNone(), null);
    dropCall(p);
    settleHandle(p);
    if (!signals.giveBack(p)) clearState(p);
}

/// In the child of a fork, of the goroutine that forked: those that wait for it are gone.
pub fn endSurvivor(p: *PyG, result: ?*py.Object) void {
    const h = p.handle;
    p.group = null;
    p.on_end = null;
    p.places = null;
    h.watchers = null;
    finish(p, result, null);
    if (p.context) |context| _ = py.extra.PyContext_Exit(context);
    dropCall(p);
    h.live = null;
    // Threads of the child's.
    if (!h.waiters().isEmpty()) h.waiters().end(&Rt.no_lock, .ready);
    if (p.home == 0 and h.outcome == .raised) {
        report(h);
        fork.letGo(h.exception.?);
    }
    outliveGoroutine(h);
    p.ended = true;
    py.decref(&h.ob);
}

/// In the child of a fork: all but the one that forked have ended there, without a word.
pub fn forgetOthers(survivor: ?*PyG) void {
    var it = lane.all_g;
    while (it) |g| : (it = g.all_next) {
        const p = of(g);
        if (p == survivor) continue;
        p.state = null;
        // Code that comes across it in a queue passes by.
        g.claimed = .taken;
        if (p.ended) continue;
        p.ended = true;
        const h = p.handle;
        h.live = null;
        h.outcome = .cancelled;
        h.watchers = null;
    }
}

/// What a handle without a result raises.
pub fn exceptionOf(h: *Handle) ?*py.Object {
    if (h.exception) |exception| return exception;
    if (errors.raise(
        .Cancelled,
        "goroutine {d} has stayed in the process that this one was forked from",
        .{h.id},
    ) == null) h.exception = py.takeException();
    return h.exception;
}

/// Of one that was refused: see refused.zig.
pub fn endRefused(p: *PyG) void {
    if (p.runs_handlers) signals.refuse();
    trackVariables(p);
    _ = py.raise(py.exc.memoryError(), "no memory for the goroutine's stack", .{});
    finish(p, null, null);
    dropCall(p);
    settleHandle(p);
    free(p);
}

/// The collector may look at them again.
inline fn trackVariables(p: *PyG) void {
    if (p.context) |context| py.PyObject_GC_Track(context);
}

fn dropCall(p: *PyG) void {
    const total = p.nargs + p.nkw;
    for (p.args[0..total]) |arg| py.decref(arg);
    if (total > inline_args) host.gpa.free(p.args[0..total]);
    p.nargs = 0;
    p.nkw = 0;
    py.clear(&p.kwnames);
    py.clear(&p.function);
    py.clear(&p.context);
    if (p.ambient != null or p.entered != null) contexts.leaveAll(p);
    py.clear(&p.kept);
}

/// Stores how the function ended, tells the watchers, and wakes the goroutines that wait for it.
fn finish(p: *PyG, result: ?*py.Object, on_end: ?*py.Object) void {
    const h = p.handle;
    foreign.leaveBody(p);
    if (result) |value| {
        h.result = value;
        h.outcome = .returned;
    } else {
        const exception = py.takeException() orelse errors.make(
            py.exc.runtimeError(),
            "no exception was set",
        );
        h.exception = exception;
        const cancelled = errors.get(.Cancelled);
        const was_cancelled = (cancelled != null and
            py.PyErr_GivenExceptionMatches(exception, cancelled.?) != 0) or
            contexts.isEcho(p, exception);
        h.outcome = if (was_cancelled) .cancelled else .raised;
        if (p.on_end != null) noteStart(h);
    }
    if (on_end) |function| watching.end(h, function);
    py.clear(&p.owes.pending);
    py.clear(&p.owes.eaten);
    dropLater(p);
    if (p.group) |group| {
        p.group = null;
        groups.done(group);
        py.decref(group);
    }
}

/// A pooled thread state starts its next goroutine as a new one would: without thread-local data,
/// tracing or profiling, hooks, or an exception that came too late.
fn clearState(p: *PyG) void {
    preempt.cancelRequest(p);
    recursion.settle(p);
    if (p == main) return;
    preempt.stopTracing(p.state.?);
    p.clean = true;
    if (p.thread != null) identity.forgetThread(p);
    if (host.isUsed(p.state.?)) {
        clearUsed(p);
        // What that ran may have asked for its thread object.
        if (p.thread != null) identity.forgetThread(p);
    }
    host.dropAsyncException(p.state.?);
}

fn clearUsed(p: *PyG) void {
    if (host.dropVariables(p.state.?) and !host.isUsed(p.state.?)) return;
    if (py.minor() < 13) {
        // Mostly thread-local data, which is all in a dict.
        const dict = py.PyThreadState_GetDict() orelse return;
        if (py.PyDict_Size(dict) != 0) py.PyDict_Clear(dict);
        if (!host.isUsedBeside(p.state.?, dict)) return;
    }
    // The interpreter clears the rest with the thread state only.
    py.PyThreadState_Clear(p.state.?);
    p.clean = false;
}

/// Parts the handle from the goroutine. What the handle's end runs still runs as this goroutine.
fn settleHandle(p: *PyG) void {
    const h = p.handle;
    const unseen = h.ob.refcnt == 1;
    const is_awaited = h.watchers != null or awaitsOutcome(h);
    h.live = null;
    if (!h.waiters().isEmpty()) h.waiters().end(&Rt.no_lock, .ready);
    if (h.watchers != null) tellWatchers(h);
    if (p != main and h.outcome == .raised and !h.collected) {
        if (unseen or (isRequest(h.exception.?) and !is_awaited)) report(h) else uncollected.add(h);
    }
    if (!unseen) outliveGoroutine(h);
    if (p.places) |places| {
        p.places = null;
        chan.freePlace(places);
        py.decref(places);
    }
    if (p.on_end) |on_end| {
        p.on_end = null;
        if (py.call(on_end, &.{&h.ob})) |r| py.decref(r) else py.PyErr_WriteUnraisable(on_end);
        py.decref(on_end);
    }
    p.ended = true;
    py.decref(&h.ob);
}

/// Its goroutine has ended, and the program may have the handle.
fn outliveGoroutine(h: *Handle) void {
    // Name it by its code, so that what a closure holds goes now.
    nameByCode(h);
    if (mayBeInCycle(h)) py.PyObject_GC_Track(&h.ob);
}

/// Whether a goroutine waits that will learn how it ended: in result() or a select, not in join().
fn awaitsOutcome(h: *Handle) bool {
    if (h.collectors > 0) return true;
    var it = h.waiters().list.head;
    while (it) |w| : (it = w.next) if (w.who.reason == .select) return true;
    return false;
}

/// sys.exit() and Ctrl-C mean the program, whatever holds the handle, unless something waits for
/// the result.
fn isRequest(exception: *py.Object) bool {
    return py.PyErr_GivenExceptionMatches(exception, py.exc.systemExit()) != 0 or
        py.PyErr_GivenExceptionMatches(exception, py.exc.keyboardInterrupt()) != 0;
}

fn nameByCode(h: *Handle) void {
    const by = h.named_by orelse return;
    if (!py.isFunction(by)) return;
    h.named_by = py.incref(py.extra.PyFunction_GetCode(by) orelse return);
    py.decref(by);
}

/// Whether what remains of the goroutine can be part of a cycle of references.
fn mayBeInCycle(h: *Handle) bool {
    if (h.exception != null) return true;
    for ([_]?*py.Object{ h.result, h.named_by }) |each| {
        const o = each orelse continue;
        if (py.PyType_GetFlags(o.type) & py.TPFLAGS_HAVE_GC != 0 and !py.isCode(o)) return true;
    }
    return false;
}

fn tellWatchers(h: *Handle) void {
    const list = h.watchers.?;
    h.watchers = null;
    for (0..@intCast(py.PyList_Size(list))) |i|
        chan.deliver(py.PyList_GetItem(list, @intCast(i)).?, &h.ob);
    py.decref(list);
}

/// notify_end(goroutine, chan, /): sends the goroutine to the channel, which has room, when it
/// ends.
pub fn notifyEnd(object: *py.Object, ch: *py.Object) ?*py.Object {
    if (!chan.Class.is(ch))
        return py.PyErr_Format(py.exc.typeError(), "%R is not a Chan", ch);
    if (!handle.Class.is(object))
        return py.PyErr_Format(py.exc.typeError(), "%R is not a Goroutine", object);
    const h: *Handle = @ptrCast(object);
    if (h.live != null and h.watchers == null) {
        const list = py.PyList_New(0) orelse return null;
        // Making it may have run other code that did the same, or the goroutine.
        if (h.watchers == null) h.watchers = list else py.decref(list);
    }
    if (h.live == null) {
        chan.deliver(ch, object);
    } else if (py.PyList_Append(h.watchers.?, ch) != 0) return null;
    return py.returnNone();
}

/// Has its exception tell where the goroutine was started, wherever it is raised again.
pub fn noteStart(h: *Handle) void {
    if (h.noted or h.outcome != .raised) return;
    h.noted = true;
    if (!addNote(h)) py.PyErr_Clear();
}

fn addNote(h: *Handle) bool {
    const name = handle.name(h) orelse return false;
    defer py.decref(name);
    const place = handle.startedAt(h) orelse return false;
    defer py.decref(place);
    const text =
        py.PyUnicode_FromFormat("goroutine %llu [%U] started at %U", h.id, name, place) orelse
        return false;
    defer py.decref(text);
    const add = py.PyObject_GetAttrString(h.exception.?, "add_note") orelse return false;
    defer py.decref(add);
    py.decref(py.call(add, &.{text}) orelse return false);
    return true;
}

/// Hands an exception that no code will collect to the runtime layer's handler.
pub fn report(h: *Handle) void {
    h.collected = true;
    const exception = h.exception orelse return;
    // It may not end the program any more, which is past the run or in the middle of another.
    if (lane.stray() != null and isRequest(exception)) return;
    // Nor is it the business of a run that goes on now.
    const handler = (if (lane.stray() != null) stray_panic_handler else panic_handler) orelse {
        py.PyErr_Restore(
            py.incref(@ptrCast(exception.type)),
            py.incref(exception),
            py.PyException_GetTraceback(exception),
        );
        return py.PyErr_WriteUnraisable(&h.ob);
    };
    const before = if (main) |m| m.owes.pending else null;
    const result = py.call(handler, &.{ &h.ob, exception });
    if (result) |r| py.decref(r) else py.PyErr_WriteUnraisable(handler);
    const m = main orelse return;
    const is_new = m.owes.pending != null and m.owes.pending != before;
    if (is_new and lane.onThread() == &m.g) preempt.hurry(m);
}

// ---- raising in a goroutine from outside ----

/// Makes `p` raise `exception` (taken) at its next park, or now if it is parked.
pub fn interrupt(p: *PyG, exception: *py.Object) void {
    if (p.owes.pending != null) {
        py.decref(exception);
    } else {
        p.owes.pending = exception;
    }
    wakePending(p);
}

/// As `interrupt`, at the park after those at which it raises what it already has to raise.
pub fn throwLater(p: *PyG, exception: *py.Object) error{OutOfMemory}!void {
    const last = try host.gpa.create(Thrown);
    last.* = .{ .exception = exception };
    var at = &p.later;
    while (at.*) |thrown| at = &thrown.next;
    at.* = last;
}

/// As `interrupt`, but the goroutine raises it before it executes another bytecode, wherever it is,
/// and before what it has to raise where it parks.
pub fn throwAtOnce(p: *PyG, exception: *py.Object) void {
    if (p.owes.pending == null) {
        p.owes.pending = exception;
    } else insertHurried(p, exception) catch {
        py.restoreException(exception);
        return py.PyErr_WriteUnraisable(null);
    };
    p.request.raise = true;
    wakePending(p);
    // While a handler runs on its thread state: see signals.giveBack.
    if (!signals.isLent(p)) preempt.hurry(p);
}

fn insertHurried(p: *PyG, exception: *py.Object) error{OutOfMemory}!void {
    const new = try host.gpa.create(Thrown);
    if (!p.request.raise) {
        new.* = .{ .exception = p.owes.pending.?, .next = p.later };
        p.later = new;
        p.owes.pending = exception;
        return;
    }
    var at = &p.later;
    while (at.*) |thrown| {
        if (!thrown.hurried) break;
        at = &thrown.next;
    }
    new.* = .{ .exception = exception, .hurried = true, .next = at.* };
    at.* = new;
}

fn wakePending(p: *PyG) void {
    switch (p.g.status) {
        .waiting, .parking => if (lane.claim(&p.g, .interrupted)) lane.ready(&p.g),
        else => {},
    }
}

/// Raises what the goroutine has to raise where it parks. True if there was something; an exception
/// is set then.
pub fn raisePending(p: *PyG) bool {
    return raiseThrown(p) or contexts.raiseAmbient(p) or standin.raiseEnded(p);
}

/// Raises what `interrupt` left.
fn raiseThrown(p: *PyG) bool {
    const exception = p.owes.pending orelse return false;
    p.owes.pending = null;
    preempt.endHurry(p);
    if (p.later) |next| {
        p.owes.pending = next.exception;
        p.later = next.next;
        const hurried = next.hurried;
        host.gpa.destroy(next);
        if (hurried) preempt.hurry(p);
    }
    if (p == main) signals.goOn();
    owed.note(p, exception);
    py.restoreException(exception);
    return true;
}

fn dropLater(p: *PyG) void {
    while (p.later) |next| {
        p.later = next.next;
        const exception = next.exception;
        host.gpa.destroy(next);
        py.decref(exception);
    }
}

/// Whether there is something that a wait would raise.
pub fn isToRaise(p: *const PyG) bool {
    return p.owes.pending != null or if (p.g.context) |c| c.done() else false;
}

/// Whether it owes anything, or its context is done: seldom.
inline fn isIndebted(p: *PyG) bool {
    const o = &p.owes;
    if (o.whole | @intFromPtr(o.eaten) | @intFromPtr(o.pending) != 0) return true;
    return if (p.g.context) |c| c.done() else false;
}

/// Of one that is indebted, before it waits. False with an exception set.
noinline fn mayWait(p: *PyG) bool {
    if (p.owes.whole > 0 and !signals.callHeld(p)) return false;
    if (p.owes.eaten != null) owed.settle(p);
    const is_done = if (p.g.context) |c| c.done() else false;
    if (p.owes.pending == null and !is_done) return true;
    _ = raisePending(p);
    return false;
}

/// After it gave way: as raisePending, of one that is no stand-in.
pub inline fn raiseAfterTurn(p: *PyG) bool {
    return isIndebted(p) and raisePending(p);
}

/// The calling goroutine, for an operation that parks. Null with an exception set otherwise.
pub inline fn forPark() ?*PyG {
    const p = forCall() orelse return null;
    return if (isIndebted(p) and !mayWait(p)) null else p;
}

/// As forPark, or the stand-in of the calling thread if that runs no goroutine.
pub inline fn forWait() ?*PyG {
    const p = of(lane.here() orelse return standin.forWait());
    return if (isIndebted(p) and !mayWait(p)) null else p;
}

/// As forWait, if nothing has to be looked at or done first, as is usual, so that no other
/// goroutine has run meanwhile. Null, without an exception, if one may have: forWait tells.
pub inline fn forPlainWait() ?*PyG {
    const p = of(lane.hereIfPlain() orelse return null);
    return if (isIndebted(p)) null else p;
}

/// As forWait, for one that must not be interrupted.
pub inline fn forLock() ?*PyG {
    return of(lane.here() orelse return standin.forCall());
}

/// The number that stands for the calling goroutine or, outside of one, thread; as get_ident().
pub inline fn ident() u64 {
    return host.goroutineIdent() orelse py.PyThread_get_thread_ident();
}

/// Signal handlers are the main goroutine's.
pub inline fn actsAs(p: *PyG) *PyG {
    return if (p.runs_handlers) main orelse p else p;
}

pub inline fn forCall() ?*PyG {
    const g = lane.here() orelse {
        if (lane.stray()) |g| parkStray(g) else errors.notInGoroutine();
        return null;
    };
    return of(g);
}

/// Where a goroutine parks after its run has ended: the exception that this sets should end it.
/// After so many times that it did not end, it never goes on.
pub noinline fn parkStray(g: *G) void {
    const p = of(g);
    if (raiseThrown(p)) return;
    if (p.parks == stray_parks) lane.freeze();
    p.parks += 1;
    _ = errors.raise(.Cancelled, "the run of goroutine {d} has ended", .{g.id});
}

/// A `finally` block may have some; one that has this many does not mean to end.
const stray_parks = 100;

/// The program's goroutines are told to end: threads start no more of them, or there might be no
/// end.
pub var ending = false;

/// How long a goroutine that was told to end has to park, before its loops are watched.
const grace_ns = 10 * std.time.ns_per_ms;

/// How many goroutines there are that are the program's threads.
pub fn countThreads() usize {
    var n: usize = 0;
    var it = lane.all_g;
    while (it) |g| : (it = g.all_next) n += @intFromBool(of(g).is_thread and !g.system);
    return n;
}

/// Cancels every goroutine of the program's but its threads and the caller, and those that they
/// start meanwhile, and waits for their ends until `deadline`, also of those whose functions have
/// ended: what their thread states kept has finalizers, which may be in the middle of something.
/// False with an exception set.
pub fn cancelAll(caller: *PyG, deadline: u64) bool {
    ending = true;
    // In an explored run its time limit, too, is for those that do not end.
    lane.chooser.early_timers = false;
    var grace_ends = os.nanotime() + grace_ns;
    while (true) {
        const overdue = os.nanotime() >= grace_ends;
        if (overdue) {
            watchLoops(caller);
            grace_ends = os.nanotime() + grace_ns;
            if (lane.here() == null) return true;
        }
        var straggler: ?*PyG = null;
        var finalizes = false;
        var runnable = false;
        var told = false;
        var it = lane.all_g;
        while (it) |g| {
            it = g.all_next;
            const p = of(g);
            if (g.system or p.is_thread or p == caller) continue;
            runnable = runnable or g.status == .runnable;
            if (p.ended) {
                finalizes = true; // and has no handle any more
                continue;
            }
            straggler = p;
            if (p.told_to_end or p.handle.live == null) continue;
            p.told_to_end = true;
            told = true;
            if (!cancelG(p)) return false;
            // Making the exception may have run code, and that have ended this one.
            it = if (p.told_to_end and !p.ended) g.all_next else lane.all_g;
        }
        if (straggler == null and !finalizes and !told) return true;
        if (lane.here() == null or lane.now() > deadline) return true;
        if (told) continue; // what that ran may have ended others
        if (runnable) {
            // A turn of the whole queue, rather than a look at all of them after each end.
            caller.g.gave_way = true;
            lane.gosched(&caller.g);
            if (raisePending(caller)) return false;
            continue;
        }
        const h = if (straggler) |p| p.handle else null;
        if (h == null or h.?.live == null) {
            // It has ended but for what has yet to be said of it, or to be finalized.
            lane.prepare(&caller.g);
            _ = lane.park(&caller.g, .shutdown, lane.now() + std.time.ns_per_ms);
            if (raisePending(caller)) return false;
            continue;
        }
        const awaited = h.?;
        _ = py.incref(&awaited.ob);
        defer py.decref(&awaited.ob);
        // Making exceptions may have cost the P, and getting it back may have let others run.
        if (lane.here() == null) return true;
        if (awaited.live == null) continue;
        caller.g.waiting_on = awaited;
        var waiter: Queue.Waiter = .{};
        const limit = @min(deadline, lane.now() +| grace_ns);
        switch (awaited.waiters().wait(&Rt.no_lock, &waiter, &caller.g, .shutdown, limit)) {
            .ready, .closed, .timeout => {},
            .interrupted => {
                _ = raisePending(caller);
                return false;
            },
        }
    }
}

/// Of those that have not parked since they were told to end.
fn watchLoops(caller: *PyG) void {
    var it = lane.all_g;
    while (it) |g| {
        const p = of(g);
        const id = g.id;
        if (!g.system and !p.is_thread and p != caller and !isParked(p)) {
            owed.settle(p);
            if (p.owes.pending != null) backedge.watch(p);
        }
        // That runs Python code: where it let this one end, the next round sees the others.
        if (g.id != id or g.status == .dead) return;
        it = g.all_next;
    }
}

/// False with an exception set.
pub fn cancelG(p: *PyG) bool {
    if (p.owes.pending == null) {
        const exception = errors.instance(.Cancelled) orelse return false;
        // Making it may have run Python code that ended the goroutine.
        interrupt(p, exception);
    } else wakePending(p);
    return true;
}

/// The goroutine of a handle, while it lives.
pub inline fn liveOf(o: *py.Object) ?*PyG {
    const h: *Handle = @ptrCast(o);
    return h.pyg();
}

pub fn namedBy(p: *PyG) ?*py.Object {
    return p.handle.named_by;
}

/// Whether it is parked, so that `waiting_on` says on what.
pub inline fn isParked(p: *const PyG) bool {
    return p.g.status == .waiting or p.g.status == .parking;
}
