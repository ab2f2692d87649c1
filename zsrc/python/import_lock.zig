//! The import system's lock, which knows its owner by its thread.
//!
//! The interpreter has one lock for its tables of modules and of modules' locks, held for some
//! lines of importlib's. A goroutine may park there and go on on another thread: so the functions
//! by which importlib takes it are replaced in place, and have a _thread.RLock, whose owner is the
//! goroutine (rlock.zig). Threads that run no goroutine have the same. The interpreter's own is left
//! to fork, which takes it in C; nobody waits for that one with this one held.
const py = @import("py.zig");
const host = @import("host.zig");
const replace = @import("replace.zig");
const rlock = @import("rlock.zig");

/// The lock, and its methods; owned.
var lock: ?*py.Object = null;
var lock_acquire: *py.Object = undefined;
var lock_release: *py.Object = undefined;

/// Subinterpreters have a lock of their own.
inline fn inInterpreter() bool {
    return py.PyInterpreterState_Get() == host.interpreter;
}

const Acquire = replace.Replacement("_imp", "acquire_lock", inInterpreter, acquire);
const Release = replace.Replacement("_imp", "release_lock", inInterpreter, release);
const Held = replace.Replacement("_imp", "lock_held", inInterpreter, isHeld);

fn acquire(_: replace.Call) ?*py.Object {
    py.decref(py.call(lock_acquire, &.{}) orelse return null);
    return py.returnNone();
}

fn release(c: replace.Call) ?*py.Object {
    // It was importing when this was put in place, or has nothing to let go.
    if (!rlock.isHeld(lock.?)) return Release.callOriginal(c);
    return py.call(lock_release, &.{});
}

fn isHeld(c: replace.Call) ?*py.Object {
    return if (rlock.isTaken(lock.?)) py.boolean(true) else Held.callOriginal(c);
}

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (lock != null) return true;
    const class = py.importFrom("_thread", "RLock") orelse return false;
    defer py.decref(class);
    const o = py.call(class, &.{}) orelse return false;
    lock_acquire = py.PyObject_GetAttrString(o, "acquire") orelse return false;
    lock_release = py.PyObject_GetAttrString(o, "release") orelse return false;
    lock = o;
    Release.install() catch return false;
    Held.install() catch return false;
    Acquire.install() catch return false;
    return true;
}

/// In the child of a fork. Who held it stood between two bytecodes of importlib's, each of which
/// leaves its tables whole.
pub fn renew(survivor: u64) void {
    if (lock) |o| rlock.renew(o, survivor);
}
