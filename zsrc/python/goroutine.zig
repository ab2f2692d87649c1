//! Python goroutines: what the scheduler runs (`PyG`) and what Python code holds (`Handle`).
//!
//! A PyG lives from `go` to the end of its function, is pooled and never freed during a run, so
//! that sysmon may look at one at any time. The handle, golibx.Goroutine, keeps what remains: the
//! result or the exception. The two point at each other while the goroutine lives, and the PyG then
//! owns one reference to its handle.
const std = @import("std");
const os = @import("../os/os.zig");
const g_mod = @import("../sched/g.zig");
const stacks = @import("../sched/stack.zig");
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const waitgroup = @import("../sync/waitgroup.zig");
const timeouts = @import("timeouts.zig");
const preempt = @import("preempt.zig");
const groups = @import("waitgroup.zig");
const contexts = @import("context.zig");
const chan = @import("chan.zig");
const select = @import("select.zig");
const standin = @import("standin.zig");

const G = g_mod.G;
const Lane = host.Lane;
const lane = &host.the_lane;

const inline_args = 4;

pub const PyG = struct {
    g: G = .{},
    state: ?*py.ThreadState = null,
    /// A preemption request that was put in its way, see preempt.zig.
    request: preempt.Request = .{},
    /// The WaitGroup whose go() started it, owned.
    group: ?*py.Object = null,
    handle: *Handle = undefined,
    function: ?*py.Object = null,
    /// Positional and then keyword arguments, owned; in `few` if they fit.
    args: [*]*py.Object = undefined,
    nargs: u32 = 0,
    nkw: u32 = 0,
    kwnames: ?*py.Object = null,
    context: ?*py.Object = null,
    /// What the goroutine is to raise at its next park, owned.
    pending: ?*py.Object = null,
    /// What it is to raise at those after that.
    later: ?*Thrown = null,
    /// The context whose end ends its waits, owned; and those that it entered.
    ambient: ?*py.Object = null,
    entered: ?*contexts.Entered = null,
    /// Called with the handle when all is over, owned.
    on_end: ?*py.Object = null,
    /// The channel of which one value stands for it, owned: its place in a scope.
    places: ?*py.Object = null,
    /// Let go at its end.
    kept: ?*py.Object = null,
    /// Its thread state is as new.
    clean: bool = false,
    /// The handle is gone; only what its end runs is left to do.
    ended: bool = false,
    /// The run's end has cancelled it.
    told_to_end: bool = false,
    started_ns: u64 = 0,
    parent: u64 = 0,
    few: [inline_args]*py.Object = undefined,
    next_free: ?*PyG = null,
};

/// An exception that waits for its turn.
const Thrown = struct { exception: *py.Object, next: ?*Thrown = null };

pub inline fn of(g: *G) *PyG {
    return @fieldParentPtr("g", g);
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
    system: bool,
    /// Its exception tells where it was started.
    noted: bool,
    result: ?*py.Object,
    exception: ?*py.Object,
    /// A waitgroup.WaitList of those in join().
    joiners: ?*anyopaque,
    /// A list of channels that get the handle when the goroutine has ended.
    watchers: ?*py.Object,

    inline fn pyg(h: *Handle) ?*PyG {
        return @ptrCast(@alignCast(h.live));
    }

    pub inline fn waiters(h: *Handle) *waitgroup.WaitList(Lane) {
        return @ptrCast(@alignCast(&h.joiners));
    }

    comptime {
        std.debug.assert(@sizeOf(waitgroup.WaitList(Lane)) == @sizeOf(?*anyopaque));
    }
};

pub const Outcome = enum(u8) { none, returned, raised, cancelled };

pub var goroutine_type: *py.Type = undefined;
/// The main goroutine of the present run.
pub var main: ?*PyG = null;
/// The thread state that called run(), which is the main goroutine's.
pub var main_state: ?*py.ThreadState = null;
pub var panic_handler: ?*py.Object = null;

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
    try os.guard(base, guard);
    try os.openStack(@intFromPtr(base) + guard, @intFromPtr(base) + size);
    return .{ .lo = @intFromPtr(base) + guard, .size = size - guard };
}

/// In the child of a fork, which may still run on the main goroutine's stack.
pub fn forget() void {
    main = null;
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

/// Of a PyG that is off its stack, or about to leave it without looking back.
pub inline fn free(p: *PyG) void {
    p.g.status = .dead;
    p.next_free = free_list;
    free_list = p;
}

pub const GoError = error{Raised};

/// Makes a goroutine for `function`, not yet runnable. Sets an exception when it fails.
pub fn create(
    function: *py.Object,
    args: [*]const *py.Object,
    nargs: usize,
    kwnames: ?*py.Object,
    system: bool,
) GoError!*PyG {
    const nkw: usize = if (kwnames) |kw| @intCast(py.PyTuple_Size(kw)) else 0;
    const object = py._PyObject_GC_New(goroutine_type) orelse return error.Raised;
    const h: *Handle = @ptrCast(object);
    // Everything after the header starts as zero.
    @memset(@as([*]u8, @ptrCast(h))[@sizeOf(py.Object)..@sizeOf(Handle)], 0);
    const context = py.extra.PyContext_CopyCurrent() orelse {
        py.decref(object);
        return error.Raised;
    };
    const p = alloc() catch {
        py.decref(object);
        py.decref(context);
        _ = py.PyErr_NoMemory();
        return error.Raised;
    };
    const total = nargs + nkw;
    p.g = .{ .system = system };
    p.state = null;
    p.pending = null;
    p.later = null;
    p.ambient = null;
    p.entered = null;
    p.on_end = null;
    p.places = null;
    p.kept = null;
    p.clean = false;
    p.ended = false;
    p.told_to_end = false;
    p.request = .{};
    p.group = null;
    p.handle = h;
    p.function = py.incref(function);
    p.context = context;
    p.nargs = @intCast(nargs);
    p.nkw = @intCast(nkw);
    p.kwnames = if (kwnames) |kw| py.incref(kw) else null;
    p.args = if (total <= inline_args) &p.few else blk: {
        const many = host.gpa.alloc(*py.Object, total) catch {
            py.decref(function);
            py.decref(context);
            py.xdecref(p.kwnames);
            free(p);
            py.decref(object);
            _ = py.PyErr_NoMemory();
            return error.Raised;
        };
        break :blk many.ptr;
    };
    for (0..total) |i| p.args[i] = py.incref(args[i]);
    h.live = p;
    h.system = system;
    h.named_by = py.incref(function);
    noteOrigin(h, py.PyThreadState_GetFrame(py.PyThreadState_Get()));
    p.parent = 0;
    if (lane.onThread()) |parent| {
        p.parent = parent.id;
        if (!system) contexts.inherit(p, of(parent));
    } else standin.note();
    h.parent = p.parent;
    // Nothing else knows it before the goroutine starts: the collector need not look at it again
    // and again while a million wait for their turn.
    py.PyObject_GC_UnTrack(context);
    return p;
}

/// Undoes `create` for one that is not to be launched.
pub fn abandon(p: *PyG) void {
    const h = p.handle;
    h.live = null;
    py.PyObject_GC_Track(p.context.?);
    dropCall(p);
    py.clear(&p.on_end);
    py.clear(&p.places);
    free(p);
    py.decref(&h.ob);
}

/// Remembers where go() was called. Takes the reference to the frame.
fn noteOrigin(h: *Handle, where: ?*py.Frame) void {
    const frame = where orelse return;
    const code = py.PyFrame_GetCode(frame);
    h.lasti = py.extra.PyFrame_GetLasti(frame);
    py.decref(@ptrCast(frame));
    const old = h.code;
    h.code = code;
    py.xdecref(old);
}

/// Makes it a child of somebody who looks after it: `on_end` is called with its handle when it has
/// ended, and what it raises counts as collected. It runs under `context`, and was started where the
/// function that calls was called. A value is received from `places`, if there is one, at its end.
/// Takes the references.
pub fn adopt(p: *PyG, context: *py.Object, on_end: *py.Object, places: ?*py.Object) void {
    p.on_end = on_end;
    p.places = places;
    p.handle.collected = true;
    contexts.setAmbient(p, context);
    const frame = py.PyThreadState_GetFrame(py.PyThreadState_Get()) orelse return;
    const caller = py.PyFrame_GetBack(frame);
    py.decref(@ptrCast(frame));
    noteOrigin(p.handle, caller);
}

/// Queues it. The handle is a new reference for the caller.
pub fn launch(p: *PyG) *py.Object {
    lane.go(&p.g);
    if (!p.g.system) lane.record(.goroutine_create, p.g.id, p.parent, 0);
    p.handle.id = p.g.id;
    return py.incref(&p.handle.ob);
}

/// Runs on the goroutine's own stack, with its thread state current.
pub fn runBody(p: *PyG) void {
    const id = p.g.id;
    p.handle.id = id;
    const timed = !p.g.system and p != main and lane.notesGoroutines();
    if (timed) {
        p.started_ns = os.nanotime();
        lane.record(.goroutine_start, id, p.parent, 0);
    }
    const context = p.context.?;
    py.PyObject_GC_Track(context);
    _ = py.extra.PyContext_Enter(context);
    startTracing();
    const result = if (raiseThrown(p))
        null
    else
        py.extra.PyObject_Vectorcall(p.function.?, p.args, p.nargs, p.kwnames);
    finish(p, result);
    _ = py.extra.PyContext_Exit(context);
    dropCall(p);
    if (timed) lane.record(
        .goroutine_exit,
        id,
        os.nanotime() - p.started_ns,
        @backingInt(p.handle.outcome) - 1,
    );
    settleHandle(p);
    clearState(p);
}

/// Of one that was refused: see refused.zig.
pub fn endRefused(p: *PyG) void {
    py.PyObject_GC_Track(p.context.?);
    _ = py.raise(py.exc.memoryError(), "no memory for the goroutine's stack", .{});
    finish(p, null);
    dropCall(p);
    settleHandle(p);
    free(p);
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

/// Stores how the function ended and wakes those who wait for it.
fn finish(p: *PyG, result: ?*py.Object) void {
    const h = p.handle;
    if (result) |value| {
        h.result = value;
        h.outcome = .returned;
    } else {
        const exception = py.takeException() orelse errors.make(py.exc.runtimeError(), "no exception was set");
        h.exception = exception;
        const cancelled = errors.get(.Cancelled);
        const was_cancelled = (cancelled != null and
            py.PyErr_GivenExceptionMatches(exception, cancelled.?) != 0) or contexts.isEcho(p, exception);
        h.outcome = if (was_cancelled) .cancelled else .raised;
        if (p.on_end != null) noteStart(h);
    }
    py.clear(&p.pending);
    dropLater(p);
    if (p.group) |group| {
        p.group = null;
        groups.done(group);
        py.decref(group);
    }
}

/// A pooled thread state starts its next goroutine as a new one would: without thread-local data,
/// tracing or profiling.
fn clearState(p: *PyG) void {
    preempt.cancelRequest(p);
    if (p == main) return;
    preempt.stopTracing();
    p.clean = true;
    if (!host.hasLocals(p.state.?)) return;
    if (py.minor() < 13) {
        const dict = py.PyThreadState_GetDict() orelse return;
        if (py.PyDict_Size(dict) != 0) py.PyDict_Clear(dict);
    } else {
        // The interpreter clears them with the thread state only.
        py.PyThreadState_Clear(p.state.?);
        p.clean = false;
    }
}

/// Parts the handle from the goroutine. What the handle's end runs still runs as this goroutine.
fn settleHandle(p: *PyG) void {
    const h = p.handle;
    const unseen = h.ob.refcnt == 1;
    h.live = null;
    if (h.joiners != null) h.waiters().wakeAll(lane);
    if (h.watchers != null) tellWatchers(h);
    if (p != main and h.outcome == .raised and !h.collected and (unseen or endsProgram(h))) report(h);
    if (!unseen) {
        // Name it by its code, so that what a closure holds goes now.
        nameByCode(h);
        if (mayBeInCycle(h)) py.PyObject_GC_Track(&h.ob);
    }
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

/// sys.exit() and Ctrl-C mean the program, whoever holds the handle.
fn endsProgram(h: *Handle) bool {
    return py.PyErr_GivenExceptionMatches(h.exception, py.exc.systemExit()) != 0 or
        py.PyErr_GivenExceptionMatches(h.exception, py.exc.keyboardInterrupt()) != 0;
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
    for (0..@intCast(py.PyList_Size(list))) |i| chan.deliver(py.PyList_GetItem(list, @intCast(i)).?, &h.ob);
    py.decref(list);
}

/// notify_end(goroutine, chan, /): sends the goroutine to the channel, which has room, when it ends.
pub fn notifyEnd(_: ?*py.Object, args: [*]const *py.Object, n: py.Ssize) callconv(.c) ?*py.Object {
    if (n != 2 or args[1].type != chan.chan_type)
        return py.raise(py.exc.typeError(), "notify_end() takes a Goroutine and a Chan", .{});
    if (args[0].type != goroutine_type)
        return py.PyErr_Format(py.exc.typeError(), "%R is not a Goroutine", args[0]);
    const h = self(args[0]);
    if (h.live != null and h.watchers == null) {
        const list = py.PyList_New(0) orelse return null;
        // Making it may have run other code that did the same, or the goroutine.
        if (h.watchers == null) h.watchers = list else py.decref(list);
    }
    if (h.live == null) {
        chan.deliver(args[1], args[0]);
    } else if (py.PyList_Append(h.watchers.?, args[1]) != 0) return null;
    return py.returnNone();
}

/// Has its exception tell, whoever raises it again, where the goroutine was started.
fn noteStart(h: *Handle) void {
    if (h.noted or h.outcome != .raised) return;
    h.noted = true;
    if (!addNote(h)) py.PyErr_Clear();
}

fn addNote(h: *Handle) bool {
    const name = getName(&h.ob, null) orelse return false;
    defer py.decref(name);
    const place = getStartedAt(&h.ob, null) orelse return false;
    defer py.decref(place);
    const text = py.PyUnicode_FromFormat("goroutine %llu [%U] started at %U", h.id, name, place) orelse
        return false;
    defer py.decref(text);
    const add = py.PyObject_GetAttrString(h.exception.?, "add_note") orelse return false;
    defer py.decref(add);
    py.decref(py.call(add, &.{text}) orelse return false);
    return true;
}

/// Hands an exception that nobody will collect to the runtime layer's handler.
fn report(h: *Handle) void {
    h.collected = true;
    const exception = h.exception orelse return;
    const handler = panic_handler orelse {
        py.PyErr_Restore(py.incref(@ptrCast(exception.type)), py.incref(exception), py.PyException_GetTraceback(exception));
        return py.PyErr_WriteUnraisable(&h.ob);
    };
    const result = py.call(handler, &.{ &h.ob, exception });
    if (result) |r| py.decref(r) else py.PyErr_WriteUnraisable(handler);
}

// ---- raising in a goroutine from outside ----

/// Makes `p` raise `exception` (taken) at its next park, or now if it is parked.
pub fn interrupt(p: *PyG, exception: *py.Object) void {
    if (p.pending != null) {
        py.decref(exception);
    } else {
        p.pending = exception;
    }
    wakePending(p);
}

fn wakePending(p: *PyG) void {
    switch (p.g.status) {
        .waiting, .parking => if (lane.claim(&p.g, .interrupted)) lane.ready(&p.g),
        else => {},
    }
}

/// Raises what the goroutine is to raise where it parks. True if there was something; an exception
/// is set then.
pub fn raisePending(p: *PyG) bool {
    return raiseThrown(p) or contexts.raiseAmbient(p) or standin.raiseEnded(p);
}

/// Raises what `interrupt` left.
fn raiseThrown(p: *PyG) bool {
    const exception = p.pending orelse return false;
    p.pending = null;
    if (p.later) |next| {
        p.pending = next.exception;
        p.later = next.next;
        host.gpa.destroy(next);
    }
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

/// Whether raisePending has something to raise.
inline fn isInterrupted(p: *const PyG) bool {
    if (p.pending != null) return true;
    return if (p.g.context) |c| c.done() else false;
}

/// The calling goroutine, for an operation that parks. Null with an exception set otherwise.
pub inline fn forPark() ?*PyG {
    const p = forCall() orelse return null;
    if (isInterrupted(p)) {
        _ = raisePending(p);
        return null;
    }
    return p;
}

/// As forPark, or the stand-in of the calling thread if that runs no goroutine.
pub inline fn forWait() ?*PyG {
    const p = of(lane.here() orelse return standin.forWait());
    if (isInterrupted(p)) {
        _ = raisePending(p);
        return null;
    }
    return p;
}

/// As forWait, for one that is not to be interrupted.
pub inline fn forLock() ?*PyG {
    return of(lane.here() orelse return standin.forCall());
}

/// A number that stands for the calling goroutine or, outside of one, thread: no goroutine has a
/// thread's, which is the address of memory of the thread's own.
pub fn ident() u64 {
    return if (lane.onThread()) |g| @intFromPtr(g) else py.PyThread_get_thread_ident();
}

pub inline fn forCall() ?*PyG {
    const g = lane.here() orelse {
        errors.notInGoroutine();
        return null;
    };
    return of(g);
}

// ---- tracing that the program asked of new threads ----

/// Where threading.settrace() and setprofile() keep what new threads are to call.
const TraceHook = struct {
    name: [*:0]const u8,
    setter: [*:0]const u8,
    key: ?*py.Object = null,
};
var trace_hooks = [_]TraceHook{
    .{ .name = "_trace_hook", .setter = "settrace" },
    .{ .name = "_profile_hook", .setter = "setprofile" },
};
var threading_dict: ?*py.Object = null;

/// False with an exception set.
pub fn watchTraceHooks() bool {
    if (threading_dict != null) return true;
    const module = py.PyImport_ImportModule("threading") orelse return false;
    defer py.decref(module);
    for (&trace_hooks) |*hook| hook.key = py.PyUnicode_InternFromString(hook.name) orelse return false;
    threading_dict = py.incref(py.PyModule_GetDict(module) orelse return false);
    return true;
}

/// As threading.Thread does for a new thread: sys.settrace and sys.setprofile with the program's
/// hooks.
inline fn startTracing() void {
    const dict = threading_dict orelse return;
    for (&trace_hooks) |*hook| {
        const function = py.PyDict_GetItemWithError(dict, hook.key.?) orelse continue;
        if (function != py.none()) setHook(hook, function);
    }
}

noinline fn setHook(hook: *const TraceHook, function: *py.Object) void {
    const set = py.PySys_GetObject(hook.setter) orelse return;
    if (py.call(set, &.{function})) |r| py.decref(r) else py.PyErr_Clear();
}

// ---- golibx.Goroutine ----

fn self(o: *py.Object) *Handle {
    return @ptrCast(o);
}

fn join(o: *py.Object, args: [*]const *py.Object, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("join", &.{"timeout"}, 0, args, n, kw) orelse return null;
    return switch (waitFor(self(o), given[0])) {
        .ended => py.boolean(true),
        .timeout => py.boolean(false),
        .raised => null,
    };
}

/// Cancels every goroutine of the program's but the caller, and those that they start meanwhile,
/// and waits for their ends until `deadline`. False with an exception set.
pub fn cancelAll(caller: *PyG, deadline: ?u64) bool {
    while (true) {
        var straggler: ?*PyG = null;
        var it = lane.all_g;
        while (it) |g| {
            it = g.all_next;
            const p = of(g);
            if (g.system or p == caller) continue;
            if (p.ended) continue;
            straggler = p;
            if (p.told_to_end or p.handle.live == null) continue;
            p.told_to_end = true;
            if (!cancelG(p)) return false;
            it = lane.all_g; // making the exception may have run code
        }
        const h = (straggler orelse return true).handle;
        if (h.live == null) {
            // It has ended but for what is still to be said of it.
            const now = lane.now();
            if (deadline != null and now > deadline.?) return true;
            if (lane.here() == null) return true;
            lane.prepare(&caller.g);
            _ = lane.park(&caller.g, .shutdown, now + std.time.ns_per_ms);
            if (raisePending(caller)) return false;
            continue;
        }
        _ = py.incref(&h.ob);
        defer py.decref(&h.ob);
        // Making exceptions may have cost the P, and getting it back may have let others run.
        if (lane.here() == null) return true;
        if (h.live == null) continue;
        caller.g.waiting_on = h;
        switch (h.waiters().wait(lane, &caller.g, .shutdown, deadline)) {
            .ready, .closed => {},
            .timeout => return true,
            .interrupted => {
                _ = raisePending(caller);
                return false;
            },
        }
    }
}

const Waited = enum { ended, timeout, raised };

fn waitFor(h: *Handle, timeout: ?*py.Object) Waited {
    const limit = timeouts.parse(timeout) orelse return .raised;
    if (h.live == null) return .ended;
    const p = forWait() orelse return .raised;
    if (h.pyg() == p) {
        _ = py.raise(py.exc.runtimeError(), "goroutine {d} cannot wait for itself", .{h.id});
        return .raised;
    }
    if (h.live == null) return .ended;
    if (limit == .poll) return .timeout;
    _ = py.incref(&h.ob);
    defer py.decref(&h.ob);
    p.g.waiting_on = h;
    return switch (h.waiters().wait(lane, &p.g, .join, limit.deadline())) {
        .ready, .closed => .ended,
        .timeout => if (h.live == null) .ended else .timeout,
        .interrupted => {
            _ = raisePending(p);
            return .raised;
        },
    };
}

fn result_(o: *py.Object, args: [*]const *py.Object, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("result", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const h = self(o);
    switch (waitFor(h, given[0])) {
        .raised => return null,
        .timeout => return errors.raise(
            .DeadlineExceeded,
            "goroutine {d} did not end within the time-out",
            .{h.id},
        ),
        .ended => {},
    }
    if (h.result) |value| return py.incref(value);
    h.collected = true;
    noteStart(h);
    py.restoreException(py.incref(h.exception.?));
    return null;
}

fn throw(o: *py.Object, given: ?*py.Object) callconv(.c) ?*py.Object {
    var exception = py.incref(given.?);
    if (py.isExceptionClass(exception)) {
        const made = py.PyObject_CallObject(exception, null);
        py.decref(exception);
        exception = made orelse return null;
    }
    if (!py.isException(exception)) {
        defer py.decref(exception);
        return py.PyErr_Format(py.exc.typeError(), "throw() needs an exception, not %R", exception);
    }
    const p = self(o).pyg() orelse {
        py.decref(exception);
        return py.boolean(false);
    };
    if (p.pending == null) {
        interrupt(p, exception);
        return py.boolean(true);
    }
    const last = host.gpa.create(Thrown) catch {
        py.decref(exception);
        return py.PyErr_NoMemory();
    };
    last.* = .{ .exception = exception };
    var at = &p.later;
    while (at.*) |thrown| at = &thrown.next;
    at.* = last;
    return py.boolean(true);
}

fn cancel(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.boolean(false);
    return if (cancelG(p)) py.boolean(true) else null;
}

/// False with an exception set.
pub fn cancelG(p: *PyG) bool {
    if (p.pending == null) {
        const exception = errors.instance(.Cancelled) orelse return false;
        // Making it may have run Python code that ended the goroutine.
        interrupt(p, exception);
    } else wakePending(p);
    return true;
}

fn done(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(self(o).live == null);
}

fn onDone(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return select.newCase(.done, o, null, null);
}

fn getId(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(self(o).id);
}

fn getParent(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(self(o).parent);
}

fn getName(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const by = self(o).named_by orelse return py.PyUnicode_FromString("?");
    for ([_][*:0]const u8{ "__qualname__", "co_qualname" }) |attribute| {
        if (py.PyObject_GetAttrString(by, attribute)) |found| return found;
        py.PyErr_Clear();
    }
    if (py.PyObject_Str(by)) |text| {
        if (isText(by)) return text;
        py.decref(text);
    }
    py.PyErr_Clear();
    return py.PyObject_GetAttrString(@ptrCast(by.type), "__qualname__");
}

fn isText(o: *py.Object) bool {
    return py.PyType_GetFlags(o.type) & (1 << 28) != 0; // Py_TPFLAGS_UNICODE_SUBCLASS
}

fn setName(o: *py.Object, value: ?*py.Object, _: ?*anyopaque) callconv(.c) c_int {
    const name = value orelse {
        _ = py.raise(py.exc.attributeError(), "a goroutine's name cannot be deleted", .{});
        return -1;
    };
    if (!isText(name)) {
        _ = py.raise(py.exc.typeError(), "a goroutine's name must be a str", .{});
        return -1;
    }
    const h = self(o);
    const old = h.named_by;
    h.named_by = py.incref(name);
    py.xdecref(old);
    return 0;
}

/// "file.py:12", or "" if it was not started by Python code.
fn getStartedAt(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h = self(o);
    const code = h.code orelse return py.PyUnicode_FromString("");
    const file = py.PyObject_GetAttrString(code, "co_filename") orelse return null;
    defer py.decref(file);
    return py.PyUnicode_FromFormat("%U:%d", file, py.extra.PyCode_Addr2Line(code, h.lasti));
}

fn getState(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h = self(o);
    const p = h.pyg() orelse return py.PyUnicode_FromString(switch (h.outcome) {
        .cancelled => "cancelled",
        .raised => "raised",
        else => "done",
    });
    const text: [*:0]const u8 = switch (p.g.status) {
        .idle, .runnable, .notified => if (p.g.reason == .preempted) "runnable (preempted)" else "runnable",
        .running => "running",
        // Whoever asks for its own has come back, even if nobody has noticed yet.
        .syscall => if (lane.onThread() == &p.g) "running" else "syscall",
        .parking, .waiting => p.g.reason.text().ptr,
        .dead => "done",
    };
    return py.PyUnicode_FromString(text);
}

/// In the child of a fork: nobody waits any more.
pub fn forgetJoiners(o: *py.Object) void {
    self(o).joiners = null;
}

/// The goroutine of a handle, while it lives.
pub inline fn liveOf(handle: *py.Object) ?*PyG {
    return self(handle).pyg();
}

pub fn namedBy(p: *PyG) ?*py.Object {
    return p.handle.named_by;
}

/// Whether it is parked, so that `waiting_on` says on what.
pub inline fn isParked(p: *const PyG) bool {
    return p.g.status == .waiting or p.g.status == .parking;
}

fn getWaitingOn(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return waitedFor(self(o).pyg() orelse return py.returnNone());
}

/// What it waits on: the object, a tuple of the cases' for a select, or None.
pub fn waitedFor(p: *const PyG) ?*py.Object {
    if (!isParked(p)) return py.returnNone();
    const on = p.g.waiting_on orelse return py.returnNone();
    const n = p.g.waiting_count;
    if (n == 0) return py.incref(@ptrCast(@alignCast(on)));
    // Copied first: to make a tuple may let the goroutine go on.
    const objects = host.gpa.alloc(*py.Object, n) catch return py.PyErr_NoMemory();
    defer host.gpa.free(objects);
    const cases: [*]const *py.Object = @ptrCast(@alignCast(on));
    for (objects, cases[0..n]) |*object, case| object.* = py.incref(select.objectOf(case));
    const tuple = py.PyTuple_New(n) orelse {
        for (objects) |object| py.decref(object);
        return null;
    };
    for (objects, 0..) |object, i| _ = py.PyTuple_SetItem(tuple, @intCast(i), object);
    return tuple;
}

fn getWaiting(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.boolean(false);
    return py.boolean(isParked(p));
}

fn getWaited(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.PyFloat_FromDouble(0);
    if (!isParked(p)) return py.PyFloat_FromDouble(0);
    const waited_ns: f64 = @floatFromInt(os.nanotime() -| p.g.parked_at);
    return py.PyFloat_FromDouble(waited_ns / std.time.ns_per_s);
}

/// The frame the goroutine is at, or None: for dumps.
fn getFrame(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.returnNone();
    const state = p.state orelse return py.returnNone();
    const frame = py.PyThreadState_GetFrame(state) orelse return py.returnNone();
    return @ptrCast(frame);
}

fn getException(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h = self(o);
    h.collected = true;
    return py.incref(h.exception orelse py.none());
}

fn getLocked(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.boolean(false);
    return py.boolean(p.g.lock_count > 0);
}

fn getSystem(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(self(o).system);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const name = getName(o, null) orelse return null;
    defer py.decref(name);
    const state = getState(o, null) orelse return null;
    defer py.decref(state);
    return py.PyUnicode_FromFormat("<Goroutine %llu %U [%U]>", self(o).id, name, state);
}

fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const h = self(o);
    for ([_]?*py.Object{ @ptrCast(o.type), h.result, h.exception, h.named_by, h.code, h.watchers }) |each| {
        if (each) |x| {
            const r = visit(x, arg);
            if (r != 0) return r;
        }
    }
    return 0;
}

fn clearHandle(o: *py.Object) callconv(.c) c_int {
    const h = self(o);
    py.clear(&h.exception);
    py.clear(&h.result);
    py.clear(&h.named_by);
    py.clear(&h.watchers);
    return 0;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const h = self(o);
    // The collector must not come across an object without references while others run.
    py.PyObject_GC_UnTrack(o);
    if (h.live == null and h.outcome == .raised and !h.collected and lane.live) {
        // Its last holder never asked. Nobody may see the dying object: a double tells the tale.
        reportDouble(h);
    }
    if (h.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    _ = clearHandle(o);
    py.clear(&h.code);
    const t: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(t);
}

fn reportDouble(h: *Handle) void {
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    const object = py._PyObject_GC_New(goroutine_type) orelse return py.PyErr_Clear();
    const d: *Handle = @ptrCast(object);
    @memset(@as([*]u8, @ptrCast(d))[@sizeOf(py.Object)..@sizeOf(Handle)], 0);
    d.id = h.id;
    d.parent = h.parent;
    d.outcome = h.outcome;
    d.lasti = h.lasti;
    d.collected = true;
    if (h.named_by) |x| d.named_by = py.incref(x);
    if (h.code) |x| d.code = py.incref(x);
    if (h.exception) |x| d.exception = py.incref(x);
    report(d);
    py.decref(object);
}

fn genericAlias(class: *py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    return py.genericAlias(class, item.?);
}

const methods = [_]py.MethodDef{
    .{ .name = "__class_getitem__", .function = @ptrCast(&genericAlias), .flags = py.METH_O | py.METH_CLASS, .doc = "Goroutine[T] in annotations." },
    .{ .name = "join", .function = @ptrCast(&join), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\join($self, /, timeout=None)
    \\--
    \\
    \\Waits until the goroutine has ended, at most timeout seconds (a float; None: for ever).
    \\Returns whether it has. Does not raise what the goroutine raised: see result().
    },
    .{ .name = "result", .function = @ptrCast(&result_), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\result($self, /, timeout=None)
    \\--
    \\
    \\Waits as join() does and returns what the function returned, or raises what it raised.
    \\Raises DeadlineExceeded when timeout seconds are over first.
    },
    .{ .name = "cancel", .function = @ptrCast(&cancel), .flags = py.METH_NOARGS, .doc =
    \\cancel($self, /)
    \\--
    \\
    \\Makes the goroutine raise Cancelled where it is parked, or at its next park.
    \\Returns False if it had ended already, else True.
    },
    .{ .name = "throw", .function = @ptrCast(&throw), .flags = py.METH_O, .doc =
    \\throw($self, exception, /)
    \\--
    \\
    \\Makes the goroutine raise exception, an exception or a class of them, where it is parked, or at
    \\its next park. Those thrown before come first. Returns False if it had ended already, else True.
    },
    .{ .name = "done", .function = @ptrCast(&done), .flags = py.METH_NOARGS, .doc =
    \\done($self, /)
    \\--
    \\
    \\Whether the goroutine has ended.
    },
    .{ .name = "on_done", .function = @ptrCast(&onDone), .flags = py.METH_NOARGS, .doc =
    \\on_done($self, /)
    \\--
    \\
    \\A case for select(): the goroutine has ended. Gives the goroutine; see result().
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{ .name = "id", .get = getId, .doc = "Number of the goroutine, an int from 1 (the main goroutine)." },
    .{ .name = "parent", .get = getParent, .doc = "The id of the goroutine that started it, 0 if none did." },
    .{ .name = "name", .get = getName, .set = setName, .doc = "Name for people, a str; the function's unless it was set." },
    .{ .name = "started_at", .get = getStartedAt, .doc = "Where go() was called, a str \"FILE:LINE\"; empty if not from Python." },
    .{ .name = "state", .get = getState, .doc = "What it does now, a str: \"running\", \"runnable\", a wait reason, \"done\" …" },
    .{ .name = "waiting_on", .get = getWaitingOn, .doc = "What it waits on, such as a Chan; a tuple of those for a select; None if it does not wait." },
    .{ .name = "waiting", .get = getWaiting, .doc = "Whether it is parked: `state` is then a wait reason." },
    .{ .name = "waited", .get = getWaited, .doc = "For how many seconds it has been waiting, a float that is a few ms off; 0.0 if it does not." },
    .{ .name = "frame", .get = getFrame, .doc = "The Python frame it is at, or None." },
    .{ .name = "exception", .get = getException, .doc = "What it raised, or None." },
    .{ .name = "locked", .get = getLocked, .doc = "Whether it is locked to its thread: lock_os_thread()." },
    .{ .name = "system", .get = getSystem, .doc = "Whether it belongs to the runtime and not to the program." },
    .{},
};

const members = [_]py.MemberDef{
    .{ .name = "__weaklistoffset__", .type = py.T_PYSSIZET, .offset = @offsetOf(Handle, "weakrefs"), .flags = py.READONLY },
    .{},
};

const slots = [_]py.Slot{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverse) },
    .{ .slot = py.slot.tp_clear, .pfunc = @ptrCast(&clearHandle) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
    .{ .slot = py.slot.tp_doc, .pfunc = "A goroutine, as go() returns it." },
    .{},
};

pub const spec: py.TypeSpec = .{
    .name = "golibx.Goroutine",
    .basicsize = @sizeOf(Handle),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE | py.TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = &slots,
};
