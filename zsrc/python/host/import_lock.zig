//! The import system's lock, which knows its owner by its thread.
//!
//! The interpreter has one lock for its tables of modules and of modules' locks, held for some
//! lines of importlib's. A goroutine may park there and go on on another thread: so the functions
//! by which importlib takes it are replaced in place, and have a _thread.RLock that a goroutine can
//! own (rlock.zig). Threads that run no goroutine have the same.
//!
//! fork waits in C for the interpreter's own lock, after its hooks, so that the child finds no
//! import half done. So a goroutine that takes the RLock takes that lock as well, and keeps its
//! thread meanwhile. It does not if a thread without the RLock has it: a fork is in the middle of
//! what it does, or an import had begun before the first run. To wait for that one with the RLock
//! would be a deadlock, where a fork warns of threads, and imports for it.
const py = @import("../py.zig");
const host = @import("host.zig");
const fork = @import("../run/fork.zig");
const replace = @import("replace.zig");
const rlock = @import("rlock.zig");
const identity = @import("identity.zig");

const lane = &host.the_lane;

/// The lock, and its methods; owned.
var lock: ?*py.Object = null;
var lock_acquire: *py.Object = undefined;
var lock_release: *py.Object = undefined;

/// Its owner has the interpreter's too.
var has_both = false;
/// And is locked to its thread for that.
var keeps_thread = false;

/// Subinterpreters have a lock of their own.
inline fn inInterpreter() bool {
    return py.PyInterpreterState_Get() == host.interpreter;
}

const Acquire = replace.Replacement("_imp", "acquire_lock", inInterpreter, acquire);
const Release = replace.Replacement("_imp", "release_lock", inInterpreter, release);
const Held = replace.Replacement("_imp", "lock_held", inInterpreter, isHeld);

fn acquire(c: replace.Call) ?*py.Object {
    py.decref(py.call(lock_acquire, &.{}) orelse return null);
    if (rlock.depthOf(lock.?) == 1) takeBoth(c);
    return py.returnNone();
}

fn takeBoth(c: replace.Call) void {
    if (identity.inGoroutine()) {
        const g = lane.here() orelse return; // of an ended run
        // If no thread can be got, forks do not wait for it.
        lane.lockThread(g) catch return;
        keeps_thread = true;
    }
    // A fork that has waited for it may have it, though no thread holds it yet. Python code that it
    // calls with it, such as a warning's, imports: to wait for it here would be a deadlock.
    if (fork.isInProgress()) return;
    // From here to the end no other goroutine runs.
    const held = Held.callOriginal(c) orelse return py.PyErr_Clear();
    defer py.decref(held);
    if (py.isTrue(held)) return;
    py.decref(Acquire.callOriginal(c) orelse return py.PyErr_Clear());
    has_both = true;
}

fn release(c: replace.Call) ?*py.Object {
    const depth = rlock.depthOf(lock.?);
    // It was importing when this was put in place, or has nothing to let go.
    if (depth == 0) return Release.callOriginal(c);
    if (depth > 1) return py.call(lock_release, &.{});
    if (has_both) {
        has_both = false;
        py.decref(Release.callOriginal(c) orelse return null);
    }
    const kept = keeps_thread;
    keeps_thread = false;
    const result = py.call(lock_release, &.{});
    if (kept) if (lane.here()) |g| {
        _ = lane.unlockThread(g);
    };
    return result;
}

fn isHeld(c: replace.Call) ?*py.Object {
    return if (rlock.isTaken(lock.?)) py.boolean(true) else Held.callOriginal(c);
}

/// Whether a goroutine or a thread has it.
pub fn isTaken() bool {
    return if (lock) |l| rlock.isTaken(l) else false;
}

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (lock != null) return true;
    const class = replace.classOf("_thread", "RLock") orelse return false;
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

/// In the child of a fork.
pub fn renew(survivor: u64) void {
    const o = lock orelse return;
    keeps_thread = false;
    if (!rlock.renew(o, survivor)) has_both = false;
}
