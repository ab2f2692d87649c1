//! threading.RLock in goroutines: the interpreter's own objects, whose methods are replaced in
//! place.
//!
//! _thread.RLock belongs to a thread. In goroutines its owner, a field of the object, is the
//! goroutine's ident, whenever the lock was made: before the run, before golibx was imported. The
//! lock inside is taken and let go as the original does it, so that threads, for which the original
//! methods run, and goroutines exclude each other.
//!
//! A goroutine that finds it taken parks, in a queue that is found by the object's address. Whoever
//! lets the lock go wakes the first, which tries again; others may have been quicker, as in Go's
//! sync.Mutex, but once it has waited for a millisecond it is given the lock. Everything here is
//! under the interpreter's lock.
const std = @import("std");
const os = @import("../../os/os.zig");
const List = @import("../../core/list.zig").List;
const g_mod = @import("../../serial/g.zig");
const arguments = @import("../arguments.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("../timeouts.zig");
const identity = @import("identity.zig");
const replace = @import("replace.zig");
const signals = @import("signals.zig");

const lane = &host.the_lane;

/// rlockobject of Modules/_threadmodule.c, and _PyRecursiveMutex in it from 3.14 on.
const RLock = extern struct {
    ob: py.Object,
    /// A PyThread_type_lock; from 3.14 on the one byte of a PyMutex.
    inner: usize,
    owner: u64,
    /// How often the owner has it; from 3.14 on how often beside the first time.
    count: usize,

    inline fn of(o: ?*py.Object) *RLock {
        return @ptrCast(o.?);
    }

    inline fn isMutex() bool {
        return py.minor() >= 14;
    }

    inline fn byte(l: *RLock) *u8 {
        return @ptrCast(&l.inner);
    }

    fn tryInner(l: *RLock) bool {
        if (!isMutex()) return py.PyThread_acquire_lock(@ptrFromInt(l.inner), 0) == 1;
        const before = @atomicRmw(u8, l.byte(), .Or, mutex_locked, .acquire);
        return before & mutex_locked == 0;
    }

    fn releaseInner(l: *RLock) void {
        if (isMutex())
            py.extra.PyMutex_Unlock.?(l.byte())
        else
            py.PyThread_release_lock(@ptrFromInt(l.inner));
    }

    inline fn isOwned(l: *const RLock, me: u64) bool {
        return l.owner == me and (isMutex() or l.count > 0);
    }

    fn depth(l: *const RLock) usize {
        return if (isMutex()) l.count + 1 else l.count;
    }

    fn own(l: *RLock, me: u64, times: usize) void {
        l.owner = me;
        l.count = if (isMutex()) times - 1 else times;
    }

    /// Takes it if that is possible at once.
    fn tryTake(l: *RLock, me: u64) bool {
        if (l.isOwned(me)) {
            l.count += 1;
        } else {
            if (!l.tryInner()) return false;
            l.own(me, 1);
        }
        return true;
    }

    fn letGo(l: *RLock) void {
        l.owner = 0;
        l.count = 0;
        l.releaseInner();
        if (waiting > 0) wakeNext(l);
    }
};

/// _Py_LOCKED of Include/internal/pycore_lock.h.
const mutex_locked = 1;

/// _thread.RLock, once a run has begun.
pub var rlock_type: ?*py.Type = null;

/// _thread.TIMEOUT_MAX: what is longer is refused.
var longest_s: f64 = 0;

// ---- those who wait ----

/// As Go's mutex: who has waited for that long is next.
const patience_ns = std.time.ns_per_ms;

/// Lies on its goroutine's stack.
const Waiter = struct {
    lock: *RLock,
    g: *g_mod.G,
    ident: u64,
    since: u64,
    generation: u32,
    given: bool = false,
    prev: ?*Waiter = null,
    next: ?*Waiter = null,
};

const Queue = List(Waiter);

var queues: [256]Queue = @splat(.{});
var waiting: usize = 0;

fn queueOf(l: *RLock) *Queue {
    return &queues[(@intFromPtr(l) >> 4) % queues.len];
}

fn enqueue(w: *Waiter, in_front: bool) void {
    const q = queueOf(w.lock);
    if (in_front) q.pushFront(w) else q.push(w);
    waiting += 1;
}

fn dequeue(w: *Waiter) void {
    queueOf(w.lock).remove(w);
    waiting -= 1;
}

/// The lock is free, or another was quicker, which then wakes the next.
fn wakeNext(l: *RLock) void {
    var it = queueOf(l).head;
    while (it) |w| {
        it = w.next;
        if (w.lock != l) continue;
        // What an ended run has left behind waits for ever.
        if (!lane.live or w.generation != lane.generation) continue;
        if (!lane.claim(w.g, .ready)) continue;
        if (os.nanotime() - w.since >= patience_ns and l.tryInner()) {
            l.own(w.ident, 1);
            w.given = true;
        }
        lane.readyLast(w.g);
        return;
    }
}

/// One of those who wait for it was woken, and does not try soon.
pub fn serveOthers(o: *anyopaque) void {
    const l: *RLock = @ptrCast(@alignCast(o));
    if (l.owner == 0) wakeNext(l);
}

/// In the child of a fork nobody waits.
pub fn forget() void {
    queues = @splat(.{});
    waiting = 0;
}

/// How often the caller has it.
pub fn depthOf(o: *py.Object) usize {
    const l: *RLock = .of(o);
    return if (l.isOwned(goroutine.ident())) l.depth() else 0;
}

/// Whether anybody has it.
pub fn isTaken(o: *py.Object) bool {
    return RLock.of(o).owner != 0;
}

/// In the child of a fork: nobody but the survivor has it. Whether that has.
pub fn renew(o: *py.Object, survivor: u64) bool {
    const l: *RLock = .of(o);
    if (l.isOwned(survivor)) return true;
    l.owner = 0;
    l.count = 0;
    if (RLock.isMutex()) {
        l.byte().* = 0;
    } else {
        _ = l.tryInner();
        l.releaseInner();
    }
    return false;
}

// ---- taking it ----

const Will = enum { may_raise, always };

/// In a goroutine. False when the time is up, null with an exception set.
fn take(l: *RLock, me: u64, limit: timeouts.Limit, will: Will) ?bool {
    if (l.tryTake(me)) return true;
    if (limit == .poll) return false;
    const deadline = limit.deadline();
    var w: Waiter = .{
        .lock = l,
        .g = undefined,
        .ident = me,
        .since = os.nanotime(),
        .generation = lane.generation,
    };
    var again = false;
    while (true) : (again = true) {
        const g = lane.here() orelse {
            // Of an ended run: there is nothing that it could wait on.
            const state = py.PyEval_SaveThread();
            os.sleepNs(std.time.ns_per_ms);
            py.PyEval_RestoreThread(state.?);
            if (l.tryTake(me)) return true;
            if (deadline) |d| if (os.nanotime() >= d) return false;
            continue;
        };
        const p = goroutine.of(g);
        // Contexts are for what golibx itself waits for: code that locks for a moment, such as
        // logging and imports, is to work in a `finally` block under one that is done.
        const context = g.context;
        g.context = null;
        defer g.context = context;
        if (will == .may_raise and goroutine.raisePending(p)) return null;
        if (l.tryTake(me)) return true; // others may have run
        w.g = g;
        g.waiting_on = l;
        lane.prepare(g);
        enqueue(&w, again);
        const wake = lane.park(g, .lock, deadline);
        dequeue(&w);
        if (w.given or l.tryTake(me)) return true;
        switch (wake) {
            .ready, .closed => {},
            .timeout => return false,
            .interrupted => {
                // Else it was for a signal's handler.
                if (will == .may_raise and goroutine.raisePending(p)) return null;
                if (will == .always and p == goroutine.main) signals.goOn();
            },
        }
    }
}

fn unowned() ?*py.Object {
    return py.raise(py.exc.runtimeError(), "cannot release un-acquired lock", .{});
}

// ---- the methods, in goroutines ----

fn ident() u64 {
    return host.goroutineIdent().?;
}

const acquire_signature: arguments.Signature = .of("acquire(blocking=True, timeout=-1)");

fn acquire(c: replace.Call) ?*py.Object {
    const given = arguments.parse(acquire_signature, c.args, c.n, c.names) orelse return null;
    var wait = true;
    if (given[0]) |b| {
        const truth = py.PyObject_IsTrue(b);
        if (truth < 0) return null;
        wait = truth != 0;
    }
    var limit: timeouts.Limit = if (wait) .forever else .poll;
    if (given[1]) |t| {
        const seconds = py.PyFloat_AsDouble(t);
        if (seconds == -1.0 and py.PyErr_Occurred() != null) return null;
        if (seconds != -1.0) {
            // What is wrong with it, in this version's words.
            if (!wait or !(seconds >= 0 and seconds <= longest_s)) return Acquire.callOriginal(c);
            limit = timeouts.fromSeconds(seconds) orelse return null;
        }
    }
    return py.boolean(take(.of(c.self), ident(), limit, .may_raise) orelse return null);
}

fn release(c: replace.Call) ?*py.Object {
    const l: *RLock = .of(c.self);
    const me = host.goroutineIdent() orelse return afterwards(Release.callOriginal(c), l);
    return drop(l, me);
}

fn exit(c: replace.Call) ?*py.Object {
    const l: *RLock = .of(c.self);
    const me = host.goroutineIdent() orelse return afterwards(Exit.callOriginal(c), l);
    return drop(l, me);
}

fn drop(l: *RLock, me: u64) ?*py.Object {
    if (!l.isOwned(me)) return unowned();
    if (l.depth() > 1) l.count -= 1 else l.letGo();
    return py.returnNone();
}

/// A thread has let it go, or not yet.
fn afterwards(result: ?*py.Object, l: *RLock) ?*py.Object {
    if (l.owner == 0 and py.PyInterpreterState_Get() == host.interpreter) wakeNext(l);
    return result;
}

fn isOwned(c: replace.Call) ?*py.Object {
    return py.boolean(RLock.of(c.self).isOwned(ident()));
}

fn recursionCount(c: replace.Call) ?*py.Object {
    const l: *RLock = .of(c.self);
    return py.PyLong_FromUnsignedLongLong(if (l.isOwned(ident())) l.depth() else 0);
}

fn releaseSave(c: replace.Call) ?*py.Object {
    const l: *RLock = .of(c.self);
    const me = host.goroutineIdent() orelse return afterwards(ReleaseSave.callOriginal(c), l);
    if (!l.isOwned(me)) return unowned();
    const count = py.PyLong_FromUnsignedLongLong(l.depth()) orelse return null;
    defer py.decref(count);
    const owner = py.PyLong_FromUnsignedLongLong(me) orelse return null;
    defer py.decref(owner);
    const saved = py.PyTuple_Pack(2, count, owner) orelse return null;
    l.letGo();
    return saved;
}

/// Condition.wait() ends with this, whatever else ends it.
fn acquireRestore(c: replace.Call) ?*py.Object {
    if (c.n != 1) return AcquireRestore.callOriginal(c);
    const l: *RLock = .of(c.self);
    // Before 3.15 the tuple is the one argument of a function that takes several.
    const count = py.PyTuple_GetItem(c.args[0], 0) orelse return null;
    const times = py.PyLong_AsUnsignedLongLong(count);
    if (py.PyErr_Occurred() != null) return null;
    const me = ident();
    _ = take(l, me, .forever, .always) orelse return null;
    l.own(me, @intCast(@max(1, times)));
    return py.returnNone();
}

inline fn releases() bool {
    return waiting > 0 or identity.inGoroutine();
}

const in = identity.inGoroutine;
const Acquire = replace.Replacement("_thread", "RLock.acquire", in, acquire);
const Enter = replace.Replacement("_thread", "RLock.__enter__", in, acquire);
const Release = replace.Replacement("_thread", "RLock.release", releases, release);
const Exit = replace.Replacement("_thread", "RLock.__exit__", releases, exit);
const IsOwned = replace.Replacement("_thread", "RLock._is_owned", in, isOwned);
const RecursionCount = replace.Replacement("_thread", "RLock._recursion_count", in, recursionCount);
const ReleaseSave = replace.Replacement("_thread", "RLock._release_save", releases, releaseSave);
const AcquireRestore = replace.Replacement("_thread", "RLock._acquire_restore", in, acquireRestore);

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (Acquire.entry.def != null) return true;
    if (!layoutIsKnown()) return false;
    const longest = py.importFrom("_thread", "TIMEOUT_MAX") orelse return false;
    defer py.decref(longest);
    longest_s = py.PyFloat_AsDouble(longest);
    if (py.PyErr_Occurred() != null) return false;
    inline for (
        .{ Acquire, Enter, Release, Exit, IsOwned, RecursionCount, ReleaseSave, AcquireRestore },
    ) |each|
        each.install() catch |e| if (e == error.Raised) return false;
    return true;
}

/// Looks at one that is held twice. False with an exception set.
fn layoutIsKnown() bool {
    const class = replace.classOf("_thread", "RLock") orelse return false;
    defer py.decref(class);
    const o = py.call(class, &.{}) orelse return false;
    defer py.decref(o);
    const method = py.PyObject_GetAttrString(o, "acquire") orelse return false;
    defer py.decref(method);
    const back = py.PyObject_GetAttrString(o, "release") orelse return false;
    defer py.decref(back);
    const l: *RLock = .of(o);
    for (0..2) |_| py.decref(py.call(method, &.{}) orelse return false);
    const known = l.owner == py.PyThread_get_thread_ident() and l.depth() == 2 and
        (!RLock.isMutex() or (l.inner == mutex_locked and py.extra.PyMutex_Unlock != null));
    for (0..2) |_| py.decref(py.call(back, &.{}) orelse return false);
    if (known) {
        rlock_type = o.type;
        return true;
    }
    _ = py.raise(
        py.exc.runtimeError(),
        "golibx does not know how Python 3.{d} keeps a lock's owner: " ++
            "it needs a golibx that knows it",
        .{py.minor()},
    );
    return false;
}
