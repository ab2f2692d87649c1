//! threading.Lock in goroutines: one that is taken parks the goroutine, and the lock is given on
//! first come first served to those that have waited for long (host/parking.zig).
//!
//! The lock is the interpreter's own, whenever it was made, and threads use it as ever. It has no
//! owner: any thread may release it. So every release of the interpreter's looks whether goroutines
//! wait; that is one load for a program without any.
//!
//! Up to Python 3.12 a thread state releases a lock at its end, in C: threading.Thread.join() waits
//! for that one. Such a lock is told by its weak reference. For it, goroutines wait as threads do.
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const identity = @import("../host/identity.zig");
const lock_arguments = @import("../host/lock_arguments.zig");
const parking = @import("../host/parking.zig");
const replace = @import("../host/replace.zig");

const lane = &host.the_lane;

/// lockobject of Modules/_threadmodule.c. From 3.14 on there is one byte of a PyMutex instead.
const Lock = extern struct {
    ob: py.Object,
    inner: usize,
    weakrefs: usize,
    locked: u8,

    inline fn of(o: ?*py.Object) *Lock {
        return @ptrCast(o.?);
    }

    inline fn isMutex() bool {
        return py.minor() >= 14;
    }

    /// _Py_LOCKED of Include/internal/pycore_lock.h.
    const mutex_locked = 1;

    pub inline fn tryTake(l: *Lock, _: u64) bool {
        if (isMutex()) {
            const byte: *u8 = @ptrCast(&l.inner);
            if (@atomicLoad(u8, byte, .monotonic) & mutex_locked != 0) return false;
            return @atomicRmw(u8, byte, .Or, mutex_locked, .acquire) & mutex_locked == 0;
        }
        if (py.PyThread_acquire_lock(@ptrFromInt(l.inner), 0) != 1) return false;
        l.locked = 1;
        return true;
    }

    /// Whether C code releases it.
    inline fn isSentinel(l: *const Lock) bool {
        return !isMutex() and l.weakrefs != 0;
    }
};

fn give(w: *const parking.Waiter) bool {
    const l: *Lock = @ptrCast(@alignCast(w.on));
    return l.tryTake(0);
}

pub var lock_type: ?*py.Type = null;

fn Acquiring(comptime path: [:0]const u8) type {
    return struct {
        const Replaced = replace.Replacement("_thread", path, identity.inGoroutine, acquire);

        fn acquire(c: replace.Call) ?*py.Object {
            const l: *Lock = .of(c.self);
            const limit = switch (lock_arguments.parse(c)) {
                .raised => return null,
                .refused => return Replaced.callOriginal(c),
                .limit => |limit| limit,
            };
            if (l.tryTake(0)) return py.boolean(true);
            if (limit == .poll) return py.boolean(false);
            if (l.isSentinel() or lane.here() == null) return Replaced.callOriginal(c);
            return py.boolean(parking.take(l, 0, limit, .may_raise, give) orelse return null);
        }
    };
}

pub const all = .{
    Acquiring("lock.acquire").Replaced,
    Acquiring("lock.acquire_lock").Replaced,
    Acquiring("lock.__enter__").Replaced,
    parking.Waking("_thread", "lock.release").Replaced,
    parking.Waking("_thread", "lock.release_lock").Replaced,
    parking.Waking("_thread", "lock.__exit__").Replaced,
};

/// Looks at one before, while and after it is taken. Null with an exception set.
pub fn layoutIsKnown() ?bool {
    if (!lock_arguments.setUp()) return null;
    const make = replace.builtin("_thread", "allocate_lock") orelse return null;
    defer py.decref(make);
    const o = py.call(make, &.{}) orelse return null;
    defer py.decref(o);
    const l: *Lock = .of(o);
    const acquire = py.PyObject_GetAttrString(o, "acquire") orelse return null;
    defer py.decref(acquire);
    const release = py.PyObject_GetAttrString(o, "release") orelse return null;
    defer py.decref(release);
    var known = seems(l, false);
    py.decref(py.call(acquire, &.{}) orelse return null);
    known = known and seems(l, true) and !l.tryTake(0);
    py.decref(py.call(release, &.{}) orelse return null);
    known = known and seems(l, false);
    if (known) lock_type = o.type;
    return known;
}

fn seems(l: *const Lock, taken: bool) bool {
    if (Lock.isMutex()) return @as(*const u8, @ptrCast(&l.inner)).* == @intFromBool(taken);
    return l.inner != 0 and l.weakrefs == 0 and l.locked == @intFromBool(taken);
}
