//! Stand-ins: how threads that run no goroutine wait on what goroutines use.
//!
//! Channels, locks and the rest know their waiters by a G, and have the lane claim it and make it
//! ready. A plain thread has one too, its stand-in, which lies in no list of the lane and never
//! runs. It is prepared and parked as any other, under the interpreter's lock; to park it blocks
//! the thread (`block`), without that lock, on a note. It stays `parking` meanwhile, so that
//! the waker finds the same as with a goroutine that has not left its stack yet: it becomes
//! `notified`, and the note is woken. So threads and goroutines stand in one queue, in order, and
//! serving one costs nothing for the other.
//!
//! The thread itself keeps the time, and claims its wait for a time-out when it has the lock again:
//! if another has been quicker, the operation has succeeded after all. Signal handlers run while
//! the wait goes on, in its place in the queue, and may wait themselves: with another stand-in, for
//! as long as they run. A wait for a lock ends before that, and is begun anew: the handler may want
//! the same lock.
//! A run that ends wakes the threads that wait (`endRun`). They come back when they get the lock,
//! maybe in the next run: what belongs to a run has to be left alone then (`Waiter.run`).
//!
//! The interpreter counts the threads that it has started (_thread._count). Of those that C code
//! made a run remembers how many have come, since one that came may come again. See deadlock.zig.
//!
//! Dumps list the waits: `waitingThreads` with the interpreter's lock, `Waits` without it.
const std = @import("std");
const os = @import("../../os/os.zig");
const List = @import("../../core/list.zig").List;
const g_mod = @import("../../serial/g.zig");
const m_mod = @import("../../serial/m.zig");
const inbox = @import("../../serial/inbox.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("goroutine.zig");
const handle = @import("../types/handle.zig");
const peek = @import("../run/peek.zig");
const select = @import("../types/select.zig");
const signals = @import("signals.zig");
const outside = @import("outside.zig");

const lane = &host.the_lane;
const G = g_mod.G;
const PyG = goroutine.PyG;

/// What threads there are, for deadlock detection.
const Kind = enum {
    /// Started by Python's threading: the interpreter counts it.
    started,
    /// The one that Python began with, which it does not count. Never in a run of its own.
    main,
    /// One of C code's, which is not counted.
    foreign,
};

const StandIn = struct {
    p: PyG = .{ .g = .{ .system = true, .status = .running } },
    note: os.Note = .{},
    kind: Kind = .foreign,
    /// The run that it last came to.
    generation: ?u32 = null,
    /// Signal handlers wait until the operation is over.
    deaf: bool = false,
    /// It waits for as long as it takes.
    forever: bool = false,
    /// The run has ended its wait.
    run_ended: bool = false,
    /// Of a wait that native code may end too: the entry that arrives then.
    entry: ?*inbox.Entry = null,
    /// Of a wait that native code ends by itself, without the lock.
    over: Over = .unknown,
    /// Of a select, its sources, for a fork.
    sources: []select.Source = &.{},
    /// For dumps, while it waits: the thread's number for people, the interpreter's, and its state.
    number: u64 = 0,
    ident: c_ulong = 0,
    state: ?*py.ThreadState = null,
    /// Those that wait.
    prev: ?*StandIn = null,
    next: ?*StandIn = null,

    fn of(g: *G) *StandIn {
        return @alignCast(@fieldParentPtr("p", goroutine.of(g)));
    }

    /// False if its wait has ended, though it has not had the lock since.
    fn waits(s: *const StandIn) bool {
        return s.p.g.status == .parking and !s.over.isTrue();
    }
};

/// What native code changes to end a wait.
pub const Over = union(enum) {
    unknown,
    woken: *const os.Note,
    /// When it is not 0.
    set: *const std.atomic.Value(u32),

    fn isTrue(over: Over) bool {
        return switch (over) {
            .unknown => false,
            .woken => |n| n.isWoken(),
            .set => |word| word.load(.acquire) != 0,
        };
    }
};

/// The thread's own; and what stands in while a signal handler runs in the middle of a wait.
threadlocal var own: StandIn = .{};
threadlocal var instead: ?*StandIn = null;

var waiting: List(StandIn) = .{};
var foreign_came: usize = 0;

noinline fn mine() *StandIn {
    return instead orelse &own;
}

noinline fn ownOne() *StandIn {
    return &own;
}

noinline fn replace(s: ?*StandIn) ?*StandIn {
    const before = instead;
    instead = s;
    return before;
}

/// Of the calling thread, for an operation that waits. Null with an exception set if it is none
/// that may.
pub noinline fn forWait() ?*PyG {
    const s = (come() orelse return null);
    s.deaf = false;
    return &s.p;
}

/// As forWait, for a wait that no signal handler may end.
pub noinline fn forCall() ?*PyG {
    const s = (come() orelse return null);
    s.deaf = true;
    return &s.p;
}

fn come() ?*StandIn {
    note(); // which may let others run
    // A thread of the lane's is on no goroutine in a signal handler or a finalizer: to block it
    // would stop the others.
    if (!lane.live or m_mod.current() != null) {
        if (lane.stray()) |g| goroutine.parkStray(g) else errors.notInGoroutine();
        return null;
    }
    const s = mine();
    s.p.g.thread = &s.note;
    s.run_ended = false;
    s.entry = null;
    s.sources = &.{};
    return s;
}

/// The calling thread, which runs no goroutine, has something to do with the present run.
pub fn note() void {
    // One of the lane's may be between two goroutines.
    if (!lane.live or m_mod.current() != null) return;
    const s = ownOne();
    if (s.generation == lane.generation) return;
    s.kind = kindOfThread();
    s.generation = lane.generation;
    if (s.kind == .foreign) foreign_came += 1;
}

/// By what the threading module knows. Sets no exception.
fn kindOfThread() Kind {
    defer py.PyErr_Clear();
    const module = py.PyImport_ImportModule("threading") orelse return .foreign;
    defer py.decref(module);
    const dict = py.PyModule_GetDict(module) orelse return .foreign;
    const active = py.PyDict_GetItemString(dict, "_active") orelse return .foreign;
    const id = py.PyLong_FromUnsignedLongLong(py.PyThread_get_thread_ident()) orelse
        return .foreign;
    defer py.decref(id);
    const thread = py.PyDict_GetItemWithError(active, id) orelse return .foreign;
    const others = [_]struct { [*:0]const u8, Kind }{ .{ "_MainThread", .main }, .{
        "_DummyThread",
        .foreign,
    } };
    for (others) |other| {
        const class = py.PyDict_GetItemString(dict, other[0]) orelse return .foreign;
        if (py.PyObject_IsInstance(thread, class) != 0) return other[1];
    }
    return .started;
}

// ---- waiting ----

/// For Host.block: returns when the wait is claimed, by whomever.
pub fn block(g: *G, deadline: ?u64) void {
    const s = StandIn.of(g);
    // Not at the beginning: native code may have woken it by then.
    defer s.note.clear();
    s.forever = deadline == null;
    link(s);
    defer unlink(s);
    while (true) {
        const woken = sleep(s, deadline);
        if (g.isClaimed()) break;
        switch (woken) {
            .woken => unreachable, // by the one that has claimed it
            .timeout => if (lane.claim(g, .timeout)) return,
            .interrupted => if (!s.deaf and handleSignals(s)) return,
        }
        if (g.isClaimed()) break;
    }
    // A claim with the lock is followed by the wake-up before the lock is let go.
    if (g.claimed == .taken) return;
    while (!s.note.isWoken()) _ = sleep(s, null);
    const entry = s.entry.?;
    entry.arrive(entry);
}

/// Of the calling thread: as debuggers and `top` show it, where that is known.
fn numberOf(thread_ident: c_ulong) u64 {
    const number = os.threadId();
    return if (number > 0) @intCast(number) else thread_ident;
}

fn sleep(s: *StandIn, deadline: ?u64) os.Wake {
    return outside.sleepOnce(outside.OnNote{ .note = &s.note }, deadline, s.kind == .main);
}

/// Whether the wait is over: a handler has raised something, or it is for a lock and begun anew.
fn handleSignals(s: *StandIn) bool {
    var nested: StandIn = .{ .kind = s.kind };
    const g = &s.p.g;
    signals.leaveLock(g);
    const leaves = g.isClaimed();
    const before = replace(&nested);
    const forever = s.forever;
    s.forever = false;
    const raised = py.PyErr_CheckSignals() != 0;
    s.forever = forever;
    _ = replace(before);
    if (!raised) return leaves;
    const exception = py.takeException() orelse return leaves;
    if (leaves or lane.claim(g, .interrupted)) {
        s.p.owes.pending = exception;
        return true;
    }
    // The operation has succeeded meanwhile: it is raised after that, as if the signal came then.
    outside.raiseSoon(exception);
    return false;
}

fn link(s: *StandIn) void {
    s.ident = py.PyThread_get_thread_ident();
    s.number = numberOf(s.ident);
    s.state = py.PyThreadState_Get();
    s.p.g.parked_at = os.nanotime();
    waiting.pushFront(s);
}

fn unlink(s: *StandIn) void {
    // After a fork it is in no list.
    waiting.remove(s);
}

/// Whether `p` is one: then it is about a thread.
pub inline fn is(p: *const PyG) bool {
    return p.g.thread != null;
}

/// Sets the exception that ends a wait because the run did. False if that is not why.
pub noinline fn raiseEnded(p: *PyG) bool {
    if (!is(p) or !StandIn.of(&p.g).run_ended) return false;
    _ = py.raise(
        py.exc.runtimeError(),
        "the golibx run has ended while this thread waited for its goroutines",
        .{},
    );
    return true;
}

/// Native code may end the wait by changing the word that `entry` is about: it has the entry
/// arrive, or calls `wake`.
pub fn expect(g: *G, entry: *inbox.Entry) void {
    StandIn.of(g).entry = entry;
}

/// The sources of a select, before it waits.
pub fn selects(p: *PyG, sources: []select.Source) void {
    StandIn.of(&p.g).sources = sources;
}

// ---- for dumps ----

/// A wait for native code, which needs no stand-in: only what is shown of it. It is never claimed.
pub const Shown = struct {
    s: StandIn,

    pub fn begin(shown: *Shown, reason: g_mod.WaitReason, on: ?*anyopaque, over: Over) void {
        shown.s = .{ .over = over };
        const g = &shown.s.p.g;
        g.status = .parking;
        g.claimed = .taken;
        g.reason = reason;
        g.waiting_on = on;
        link(&shown.s);
    }

    pub fn end(shown: *Shown) void {
        unlink(&shown.s);
    }
};

/// waiting_threads(): see golibx._core.
pub fn waitingThreads() ?*py.Object {
    const rows = py.PyList_New(0) orelse return null;
    // A collection might run finalizers, and these let the threads go on meanwhile.
    const collecting = py.PyGC_Disable() != 0;
    defer if (collecting) {
        _ = py.PyGC_Enable();
    };
    var it = waiting.head;
    while (it) |s| : (it = s.next) {
        if (s.run_ended) continue;
        const row = rowOf(s);
        if (row != null and py.PyList_Append(rows, row.?) == 0) {
            py.decref(row.?);
            continue;
        }
        py.xdecref(row);
        py.decref(rows);
        return null;
    }
    return rows;
}

fn rowOf(s: *StandIn) ?*py.Object {
    const g = &s.p.g;
    const waits = s.waits();
    const waited_ns: f64 = @floatFromInt(os.nanotime() -| g.parked_at);
    const frame: ?*py.Object = @ptrCast(py.PyThreadState_GetFrame(s.state.?));
    const row = py.PyTuple_New(6) orelse {
        py.xdecref(frame);
        return null;
    };
    const values = [_]?*py.Object{
        py.PyLong_FromUnsignedLongLong(s.number),
        py.PyLong_FromUnsignedLongLong(s.ident),
        py.PyUnicode_FromString(if (waits) g.reason.text().ptr else "runnable"),
        handle.waitedFor(&s.p),
        py.PyFloat_FromDouble(waited_ns / std.time.ns_per_s),
        frame orelse py.returnNone(),
    };
    for (values, 0..) |value, i|
        _ = py.PyTuple_SetItem(row, @intCast(i), value orelse py.returnNone());
    if (py.PyErr_Occurred() == null) return row;
    py.decref(row);
    return null;
}

/// A wait, as it is found without the interpreter's lock: any of it may be out of date.
pub const Seen = struct {
    number: u64,
    /// Of the PyThreadState.
    state: usize,
    status: g_mod.Status,
    reason: g_mod.WaitReason,
    parked_at: u64,
    waiting_on: usize,
    waiting_count: u32,
};

/// The waits, the newest first. A stand-in goes away with its thread: it is only copied from.
pub const Waits = struct {
    at: usize,

    pub fn init() Waits {
        return .{ .at = @atomicLoad(usize, @as(*const usize, @ptrCast(&waiting.head)), .acquire) };
    }

    pub fn next(w: *Waits) ?Seen {
        const s = w.at;
        if (s == 0) return null;
        w.at = peek.word(s +% @offsetOf(StandIn, "next")) orelse 0;
        const g = s +% @offsetOf(StandIn, "p") +% @offsetOf(PyG, "g");
        const status = copied(u8, g +% @offsetOf(G, "status")) orelse return null;
        const reason = copied(u8, g +% @offsetOf(G, "reason")) orelse return null;
        return .{
            .number = copied(u64, s +% @offsetOf(StandIn, "number")) orelse return null,
            .state = peek.word(s +% @offsetOf(StandIn, "state")) orelse return null,
            .status = std.enums.fromInt(g_mod.Status, status) orelse return null,
            .reason = std.enums.fromInt(g_mod.WaitReason, reason) orelse return null,
            .parked_at = copied(u64, g +% @offsetOf(G, "parked_at")) orelse return null,
            .waiting_on = peek.word(g +% @offsetOf(G, "waiting_on")) orelse return null,
            .waiting_count = copied(u32, g +% @offsetOf(G, "waiting_count")) orelse return null,
        };
    }

    fn copied(comptime T: type, address: usize) ?T {
        var value: T = undefined;
        return if (os.peek(address, std.mem.asBytes(&value))) value else null;
    }
};

// ---- of a run ----

pub fn startRun() void {
    foreign_came = 0;
}

/// With the lock: ends the waits of all.
pub fn endRun() void {
    var it = waiting.head;
    while (it) |s| : (it = s.next) {
        if (!lane.claim(&s.p.g, .interrupted)) continue;
        s.run_ended = true;
        lane.ready(&s.p.g);
    }
}

/// How many threads wait. Not those that have been woken, maybe by the end of an earlier run.
pub fn waitingCount() usize {
    var n: usize = 0;
    var it = waiting.head;
    while (it) |s| : (it = s.next) n += @intFromBool(s.waits());
    return n;
}

/// Whether `started` threads that Python has started wait for as long as it takes, and all of C
/// code's that have come to this run.
pub fn allWait(started: usize) bool {
    const waits = thoseThatWait();
    return waits.get(.started) >= started and waits.get(.foreign) >= foreign_came;
}

/// As allWait, for the main thread, where the run is on another.
pub fn mainWaits() bool {
    return thoseThatWait().get(.main) > 0;
}

fn thoseThatWait() std.EnumArray(Kind, usize) {
    var waits: std.EnumArray(Kind, usize) = .initFill(0);
    var it = waiting.head;
    while (it) |s| : (it = s.next) {
        // One that is claimed is about to go on.
        if (!s.forever or s.p.g.isClaimed()) continue;
        // One that waits within a signal handler is that of a thread that waits already.
        if (s.generation == null) continue;
        waits.getPtr(s.kind).* += 1;
    }
    return waits;
}

/// In the child of a fork the threads are gone, and their stacks may be used for others. What they
/// have queued is of a run that is over, and is not touched.
pub fn forget() void {
    while (waiting.pop()) |s| {
        // The calling thread may be one of them, in a signal handler.
        if (lane.claim(&s.p.g, .interrupted)) s.run_ended = true;
    }
}
