//! golibx.Mutex: sync/mutex.zig as a Python object.
const os = @import("../os/os.zig");
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const fork = @import("fork.zig");
const timeouts = @import("timeouts.zig");
const object = @import("object.zig");

pub const M = @import("../sync/mutex.zig").Mutex(host.Lane);
const O = object.Object(M);
const lane = &host.the_lane;

pub const of = O.of;
pub var mutex_type: *py.Type = undefined;

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("Mutex", args, kwargs)) return null;
    return O.make(t, .{});
}

/// Waits for it; false when the time is up, null with an exception set.
noinline fn acquire(m: *M, limit: timeouts.Limit) ?bool {
    const deadline = limit.deadline();
    var since: u64 = 0;
    while (true) {
        const p = goroutine.forWait() orelse return null;
        // Others may have run in forWait.
        if (m.tryLock()) return true;
        p.g.waiting_on = O.objectOf(m);
        switch (m.wait(lane, &p.g, &since, deadline)) {
            .locked => return true,
            .again => {},
            .timeout => return false,
            .interrupted => {
                _ = goroutine.raisePending(p);
                return null;
            },
        }
    }
}

/// Waits for it whatever the goroutine is to raise, which stays pending. False with an exception
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
        if (m.wait(lane, &p.g, &since, null) == .locked) return true;
    }
    return true;
}

fn lock(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    if (n == 0 and kw == null) return enter(o, null);
    const given = py.parse("lock", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    if (of(o).tryLock()) return py.boolean(true);
    if (limit == .poll) return py.boolean(false);
    return py.boolean(acquire(of(o), limit) orelse return null);
}

fn enter(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    if (of(o).tryLock()) return py.boolean(true);
    return py.boolean(acquire(of(o), .forever) orelse return null);
}

fn tryLock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(of(o).tryLock());
}

fn unlock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).unlock(lane) catch return unlocked();
    return py.returnNone();
}

fn exit(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    return unlock(o, null);
}

fn unlocked() ?*py.Object {
    return py.raise(py.exc.runtimeError(), "unlock of an unlocked Mutex", .{});
}

fn getLocked(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(of(o).locked);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat(
        "<Mutex %p %s>",
        o,
        @as([*:0]const u8, if (of(o).locked) "locked" else "unlocked"),
    );
}

const methods = [_]py.MethodDef{
    .{ .name = "lock", .function = @ptrCast(&lock), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\lock($self, /, timeout=None)
    \\--
    \\
    \\Locks it, waiting until it is free, at most timeout seconds (a float; None: for ever).
    \\Returns whether it has: False only when the time is up.
    },
    .{ .name = "try_lock", .function = @ptrCast(&tryLock), .flags = py.METH_NOARGS, .doc =
    \\try_lock($self, /)
    \\--
    \\
    \\Locks it if it is free; returns whether it has.
    },
    .{ .name = "unlock", .function = @ptrCast(&unlock), .flags = py.METH_NOARGS, .doc =
    \\unlock($self, /)
    \\--
    \\
    \\Unlocks it. Any goroutine may, not only the one that locked it. Raises RuntimeError if it is
    \\not locked.
    },
    .{
        .name = "__enter__",
        .function = @ptrCast(&enter),
        .flags = py.METH_NOARGS,
        .doc = "Locks it.",
    },
    .{
        .name = "__exit__",
        .function = @ptrCast(&exit),
        .flags = py.METH_FASTCALL,
        .doc = "Unlocks it.",
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{ .name = "locked", .get = getLocked, .doc = "Whether it is locked." },
    .{},
};

pub const spec = O.spec("golibx.Mutex", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Mutex()
    \\--
    \\
    \\Mutual exclusion, as Go's sync.Mutex: `with m:`. Fair under contention: who has waited for a
    \\millisecond is next. It does not know its owner, and locking it twice waits for ever.
    },
    .{},
});

// ---- golibx._core.Guard ----

pub var guard_type: *py.Type = undefined;

/// Whoever has it when a process forks is not there in the child, where it is free: `depth` is the
/// fork.depth at which it was locked.
const Guard = struct {
    m: M = .{},
    depth: u32 = 0,

    fn tryLock(g: *Guard) bool {
        if (g.m.locked and g.depth != fork.depth) g.m = .{};
        return g.m.tryLock();
    }
};
const GuardObject = object.Object(Guard);

fn newGuard(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("Guard", args, kwargs)) return null;
    return GuardObject.make(t, .{});
}

fn enterGuard(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const guard = GuardObject.of(o);
    while (!guard.tryLock() and !acquireAlways(&guard.m)) {
        // A thread outside of any run: there is nothing that it could wait on. Guards are held for
        // moments.
        py.PyErr_Clear();
        const state = py.PyEval_SaveThread();
        os.sleepNs(outside_wait_ns);
        py.PyEval_RestoreThread(state.?);
    }
    guard.depth = fork.depth;
    return py.boolean(true);
}

fn exitGuard(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    // A signal handler that forked may have taken it, and let it go, in the midst of this.
    GuardObject.of(o).m.unlock(lane) catch {};
    return py.returnNone();
}

const outside_wait_ns = 50_000;

const guard_methods = [_]py.MethodDef{
    .{
        .name = "__enter__",
        .function = @ptrCast(&enterGuard),
        .flags = py.METH_NOARGS,
        .doc = "Locks it.",
    },
    .{
        .name = "__exit__",
        .function = @ptrCast(&exitGuard),
        .flags = py.METH_FASTCALL,
        .doc = "Unlocks it.",
    },
    .{},
};

/// For golibx's own state in Python. A lock of the standard library would block the thread of a
/// goroutine that finds it taken by one that was preempted; and one that raises Cancelled would
/// leave things undone.
pub const guard_spec = GuardObject.spec("golibx._core.Guard", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&newGuard) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&GuardObject.dealloc) },
    .{ .slot = py.slot.tp_methods, .pfunc = @ptrCast(@constCast(&guard_methods)) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&GuardObject.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Guard()
    \\--
    \\
    \\A Mutex for `with`, in goroutines and threads, where waiting raises nothing: what the
    \\goroutine is to raise stays pending. In the child of a fork it is free.
    },
    .{},
});
