//! golibx.Cond: goroutines that wait, with a lock let go, until another says that something
//! changed.
//!
//! The lock is a Mutex, an RWMutex or the reading side of one, so that letting it go and beginning
//! to wait are one step: no signal can come in between. A wait ends with the lock held, also when
//! it raises: what would keep the goroutine from getting it, such as a cancellation, is raised
//! afterwards.
const py = @import("../py.zig");
const asynchronous = @import("../asynchronous.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const Limit = @import("../timeouts.zig").Limit;
const mutex = @import("mutex.zig");
const rwmutex = @import("rwmutex.zig");

const Shared = @import("../../sync/cond.zig").Cond(host.Rt);
const lane = &host.the_lane;

const Kind = enum { mutex, writer, reader };

const Cond = struct {
    /// Owned.
    locker: *py.Object,
    kind: Kind,
    shared: Shared = .{},

    fn locked(c: *Cond) bool {
        return switch (c.kind) {
            .mutex => mutex.Class.of(c.locker).isLocked(),
            .writer => rwmutex.Class.of(c.locker).writing,
            .reader => rwmutex.readerOf(c.locker).readers != 0,
        };
    }

    /// False if it is not locked.
    pub fn unlock(c: *Cond) bool {
        switch (c.kind) {
            .mutex => return mutex.Class.of(c.locker).unlock(),
            .writer => rwmutex.Class.of(c.locker).unlock() catch return false,
            .reader => rwmutex.readerOf(c.locker).rUnlock() catch return false,
        }
        return true;
    }

    fn lock(c: *Cond) bool {
        return switch (c.kind) {
            .mutex => mutex.acquireAlways(mutex.Class.of(c.locker)),
            .writer => rwmutex.acquireAlways(rwmutex.Class.of(c.locker), .write),
            .reader => rwmutex.acquireAlways(rwmutex.readerOf(c.locker), .read),
        };
    }
};

fn new(t: *py.Type, given: ?*py.Object) ?*py.Object {
    const locker = if (given != null and given != py.none())
        py.incref(given.?)
    else
        class.make(mutex.Class.python_type, mutex.M{}) orelse return null;
    const kind: Kind = if (mutex.Class.is(locker))
        .mutex
    else if (rwmutex.Class.is(locker))
        .writer
    else if (rwmutex.ReaderClass.is(locker))
        .reader
    else {
        _ = py.PyErr_Format(
            py.exc.typeError(),
            "the lock of a Cond must be a Mutex, an RWMutex or its reader(), not %R",
            locker,
        );
        py.decref(locker);
        return null;
    };
    return class.make(t, Cond{ .locker = locker, .kind = kind }) orelse {
        py.decref(locker);
        return null;
    };
}

fn deinit(c: *Cond) void {
    py.decref(c.locker);
}

/// Whether it was woken; null with an exception set.
fn waitOnce(c: *Cond, deadline: ?u64) ?bool {
    const p = goroutine.forWait() orelse return null;
    if (!c.locked()) {
        _ = py.raise(py.exc.runtimeError(), "wait on a Cond whose lock is not locked", .{});
        return null;
    }
    p.g.waiting_on = class.objectOf(c);
    const wake = c.shared.wait(&p.g, c, deadline).?;
    if (!c.lock()) return null;
    switch (wake) {
        .ready, .closed => return true,
        .timeout => return false,
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    }
}

fn wait(c: *Cond, limit: Limit) ?bool {
    return waitOnce(c, limit.deadline());
}

fn waitFor(c: *Cond, predicate: *py.Object, limit: Limit) ?*py.Object {
    if (asynchronous.look("wait_for", predicate) == .refused) return null;
    const deadline = limit.deadline();
    while (true) {
        const result = py.call(predicate, &.{}) orelse return null;
        const truth = py.PyObject_IsTrue(result);
        if (truth > 0) return result;
        if (truth < 0 or (deadline != null and lane.now() >= deadline.?)) {
            if (truth == 0) return result;
            py.decref(result);
            return null;
        }
        py.decref(result);
        _ = waitOnce(c, deadline) orelse return null;
    }
}

fn signal(c: *Cond) void {
    c.shared.signal();
}

fn broadcast(c: *Cond) void {
    c.shared.broadcast();
}

fn enter(c: *Cond) ?*py.Object {
    const method = py.PyObject_GetAttrString(c.locker, "__enter__") orelse return null;
    defer py.decref(method);
    return py.call(method, &.{});
}

fn exit(c: *Cond) ?*py.Object {
    if (c.unlock()) return py.returnNone();
    return py.raise(py.exc.runtimeError(), "the lock of the Cond is not locked", .{});
}

fn held(c: *Cond) *py.Object {
    return c.locker;
}

fn repr(c: *Cond) ?*py.Object {
    return py.PyUnicode_FromFormat("<Cond %p of %R>", class.objectOf(c), c.locker);
}

pub const Class = class.Class(Cond, .{
    .name = "golibx.Cond",
    .doc =
    \\Waits for a change of what a lock guards, as Go's sync.Cond. The lock is a Mutex, an RWMutex
    \\or its reader(); without one it makes a Mutex. `with c:` locks it.
    ,
    .new = class.constructor("Cond(lock=None)", new),
    .repr = repr,
    .held = held,
    .deinit = deinit,
    .is_waited_on = true,
    .methods = &.{
        class.method("wait(timeout=None)", wait,
            \\Unlocks the lock, waits for signal() or broadcast(), at most timeout seconds, and
            \\locks it again. Returns whether it was woken: False only when the time is up. Raises
            \\RuntimeError if the lock is not locked. The lock is locked again whatever it raises.
        ),
        class.method("wait_for(predicate, timeout=None)", waitFor,
            \\Waits until predicate(), called with the lock, returns something true, at most timeout
            \\seconds in all. Returns what it returned last.
        ),
        class.method("signal()", signal,
            \\Wakes the goroutine that has waited longest, if any waits. The lock may be locked, or
            \\not.
        ),
        class.method("broadcast()", broadcast, "Wakes all that wait."),
        class.method("__enter__()", enter, "Locks the lock."),
        class.method("__exit__(*exc_info)", exit, "Unlocks the lock."),
    },
    .properties = &.{class.field(Cond, "locker", "locker",
        \\Its lock: a Mutex, an RWMutex or the RLocker of one.
    )},
});
