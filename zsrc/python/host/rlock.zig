//! threading.RLock in goroutines: the interpreter's own objects, with methods replaced in place.
//!
//! _thread.RLock belongs to a thread. In goroutines its owner, a field of the object, is the
//! goroutine's ident, whenever the lock was made: before the run, before golibx was imported. The
//! lock inside is taken and let go as the original does it, so that threads, for which the original
//! methods run, and goroutines exclude each other.
//!
//! A goroutine that finds it taken parks (parking.zig). Everything here is under the interpreter's
//! lock.
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("../timeouts.zig");
const identity = @import("identity.zig");
const lock_arguments = @import("lock_arguments.zig");
const parking = @import("parking.zig");
const replace = @import("replace.zig");

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
    pub fn tryTake(l: *RLock, me: u64) bool {
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
        if (parking.waiting > 0) parking.wakeNext(l);
    }
};

/// _Py_LOCKED of Include/internal/pycore_lock.h.
const mutex_locked = 1;

/// _thread.RLock, once a run has begun.
pub var rlock_type: ?*py.Type = null;

/// How often the caller has it.
pub fn depthOf(o: *py.Object) usize {
    const l: *RLock = .of(o);
    return if (l.isOwned(goroutine.ident())) l.depth() else 0;
}

/// Whether a goroutine or thread has it.
pub fn isTaken(o: *py.Object) bool {
    return RLock.of(o).owner != 0;
}

/// In the child of a fork: only the survivor can have it. Returns whether it has.
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

/// In a goroutine. False when the time is up, null with an exception set.
fn take(l: *RLock, me: u64, limit: timeouts.Limit, will: parking.Will) ?bool {
    return parking.take(l, me, limit, will, give);
}

fn give(w: *const parking.Waiter) bool {
    const l: *RLock = @ptrCast(@alignCast(w.on));
    if (!l.tryInner()) return false;
    l.own(w.ident, 1);
    return true;
}

fn unowned() ?*py.Object {
    return py.raise(py.exc.runtimeError(), "cannot release un-acquired lock", .{});
}

// ---- the methods, in goroutines ----

fn ident() u64 {
    return host.goroutineIdent().?;
}

fn acquire(c: replace.Call) ?*py.Object {
    const limit = switch (lock_arguments.parse(c)) {
        .raised => return null,
        // What is wrong with it, in this version's words.
        .refused => return Acquire.callOriginal(c),
        .limit => |limit| limit,
    };
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
    if (l.owner == 0) parking.wakeNextHere(l);
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
    return parking.waiting > 0 or identity.inGoroutine();
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
    if (!lock_arguments.setUp()) return false;
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
