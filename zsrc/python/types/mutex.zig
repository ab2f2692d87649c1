//! golibx.Mutex: sync/mutex.zig as a Python object.
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const fork = @import("../run/fork.zig");
const whole = @import("../host/whole.zig");
const Limit = @import("../timeouts.zig").Limit;

pub const M = @import("../../sync/mutex.zig").Mutex(host.Rt);
const lane = &host.the_lane;

/// Waits for it; false when the time is up, null with an exception set.
noinline fn acquire(m: *M, limit: Limit) ?bool {
    const deadline = limit.deadline();
    var since: u64 = 0;
    while (true) {
        const p = goroutine.forWait() orelse return null;
        // Others may have run in forWait.
        if (m.tryLock()) return true;
        p.g.waiting_on = class.objectOf(m);
        switch (m.wait(&p.g, &since, deadline)) {
            .locked => return true,
            .again => {},
            .timeout => return false,
            // Unless it was for a signal's handler.
            .interrupted => if (goroutine.raisePending(p)) return null,
        }
    }
}

/// Waits for it whatever the goroutine has to raise, which stays pending. False with an exception
/// set if the caller is no goroutine any more.
pub fn acquireAlways(m: *M) bool {
    var since: u64 = 0;
    while (!m.tryLock()) {
        const p = goroutine.forLock() orelse return false;
        if (m.tryLock()) return true;
        // One that is done would end each wait at once.
        const context = p.g.context;
        p.g.context = null;
        defer p.g.context = context;
        p.g.waiting_on = class.objectOf(m);
        if (m.wait(&p.g, &since, null) == .locked) return true;
    }
    return true;
}

fn lock(m: *M, limit: Limit) ?bool {
    if (m.tryLock()) return true;
    if (limit == .poll) return false;
    return acquire(m, limit);
}

fn enter(m: *M) ?bool {
    return if (m.tryLock()) true else acquire(m, .forever);
}

fn tryLock(m: *M) bool {
    return m.tryLock();
}

fn isLocked(m: *M) bool {
    return m.isLocked();
}

fn unlock(m: *M) ?*py.Object {
    if (m.unlock()) return py.returnNone();
    return py.raise(py.exc.runtimeError(), "unlock of an unlocked Mutex", .{});
}

fn repr(m: *M) ?*py.Object {
    return py.print("<Mutex 0x{x} {s}>", .{
        class.addressOf(m),
        if (m.isLocked()) "locked" else "unlocked",
    });
}

pub const Class = class.Class(M, .{
    .name = "golibx.Mutex",
    .doc =
    \\Mutual exclusion, as Go's sync.Mutex: `with m:`. Fair under contention: a goroutine that has
    \\waited for a millisecond is next. It does not know its owner, and locking it twice waits for
    \\ever.
    ,
    .new = class.constructor("Mutex()", M),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{
        class.method("lock(timeout=None)", lock,
            \\Locks it, waiting until it is free, at most timeout seconds (a float; None: for ever).
            \\Returns whether it has: False only when the time is up.
        ),
        class.method("try_lock()", tryLock, "Locks it if it is free; returns whether it has."),
        class.method("unlock()", unlock,
            \\Unlocks it. Any goroutine may, not only the one that locked it. Raises RuntimeError if
            \\it is not locked.
        ),
        class.method("__enter__()", enter, "Locks it."),
        class.method("__exit__(*exc_info)", unlock, "Unlocks it."),
    },
    .properties = &.{class.property("locked", isLocked, "Whether it is locked.")},
});

// ---- golibx._core.Guard ----

/// For golibx's own state in Python. A lock of the standard library would block the thread of a
/// goroutine that finds it taken by one that was preempted; and one that raises Cancelled would
/// leave things undone.
const Guard = struct {
    m: M = .{},
    /// The fork.depth at which it was locked: a goroutine that has it when another forks is not
    /// there in the child, where it is free.
    depth: u32 = 0,

    fn tryLock(g: *Guard) bool {
        if (g.m.isLocked() and g.depth != fork.depth) g.m = .{};
        return g.m.tryLock();
    }

    fn enter(g: *Guard) bool {
        _ = whole.begin();
        while (!g.tryLock() and !acquireAlways(&g.m)) {
            // A thread outside of any run: there is nothing that it could wait on. Guards are held
            // for moments.
            py.PyErr_Clear();
            const state = py.PyEval_SaveThread();
            os.sleepNs(outside_wait_ns);
            py.PyEval_RestoreThread(state.?);
        }
        g.depth = fork.depth;
        return true;
    }

    fn exit(guard: *Guard) ?*py.Object {
        // A signal handler that forked may have taken it, and let it go, in the midst of this.
        _ = guard.m.unlock();
        const g = lane.onThread() orelse return py.returnNone();
        return if (whole.end(goroutine.of(g))) py.returnNone() else null;
    }
};

const outside_wait_ns = 50_000;

pub const GuardClass = class.Class(Guard, .{
    .name = "golibx._core.Guard",
    .doc =
    \\A Mutex for `with`, in goroutines and threads, where waiting raises nothing: what the
    \\goroutine has to raise stays pending, and signal handlers are called when it is left. In the
    \\child of a fork it is free.
    ,
    .new = class.constructor("Guard()", Guard),
    .is_waited_on = true,
    .has_points = false,
    .methods = &.{
        class.method("__enter__()", Guard.enter, "Locks it."),
        class.method("__exit__(*exc_info)", Guard.exit, "Unlocks it."),
    },
});
