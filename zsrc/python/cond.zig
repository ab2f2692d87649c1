//! golibx.Cond: goroutines that wait, with a lock let go, until another says that something
//! changed.
//!
//! The lock is a Mutex, an RWMutex or the reading side of one, so that letting it go and beginning
//! to wait are one step: no signal can come in between. A wait ends with the lock held, also when
//! it raises: what would keep the goroutine from getting it, such as a cancellation, is raised
//! afterwards.
const g_mod = @import("../sched/g.zig");
const py = @import("py.zig");
const asynchronous = @import("asynchronous.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");
const object = @import("object.zig");
const mutex = @import("mutex.zig");
const rwmutex = @import("rwmutex.zig");

const Queue = @import("../sync/waiters.zig").Waiters(host.Lane);
const lane = &host.the_lane;

const Kind = enum { mutex, writer, reader };

const Cond = struct {
    locker: *py.Object,
    kind: Kind,
    queue: Queue = .{},

    fn locked(c: *Cond) bool {
        return switch (c.kind) {
            .mutex => mutex.of(c.locker).locked,
            .writer => rwmutex.of(c.locker).writing,
            .reader => rwmutex.readerOf(c.locker).readers != 0,
        };
    }

    fn unlock(c: *Cond) void {
        switch (c.kind) {
            .mutex => mutex.of(c.locker).unlock(lane) catch unreachable,
            .writer => rwmutex.of(c.locker).unlock(lane) catch unreachable,
            .reader => rwmutex.readerOf(c.locker).rUnlock(lane) catch unreachable,
        }
    }

    fn lock(c: *Cond) bool {
        return switch (c.kind) {
            .mutex => mutex.acquireAlways(mutex.of(c.locker)),
            .writer => rwmutex.acquireAlways(rwmutex.of(c.locker), .write),
            .reader => rwmutex.acquireAlways(rwmutex.readerOf(c.locker), .read),
        };
    }
};

const O = object.Object(Cond);
const of = O.of;
pub var cond_type: *py.Type = undefined;

pub fn lockerOf(o: *py.Object) *py.Object {
    return of(o).locker;
}

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parseNew("Cond", &.{"lock"}, 0, args, kwargs) orelse return null;
    const locker = if (given[0] != null and given[0] != py.none())
        py.incref(given[0].?)
    else
        py.PyObject_CallObject(@ptrCast(mutex.mutex_type), null) orelse return null;
    const kind: Kind = if (locker.type == mutex.mutex_type)
        .mutex
    else if (locker.type == rwmutex.rwmutex_type)
        .writer
    else if (locker.type == rwmutex.reader_type)
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
    return O.make(t, .{ .locker = locker, .kind = kind }) orelse {
        py.decref(locker);
        return null;
    };
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const locker = of(o).locker;
    O.clearWeakrefs(o);
    py.freeObject(o);
    py.decref(locker);
}

/// Whether it was woken; null with an exception set.
fn waitOnce(c: *Cond, deadline: ?u64) ?bool {
    const p = goroutine.forWait() orelse return null;
    if (!c.locked()) {
        _ = py.raise(py.exc.runtimeError(), "wait on a Cond whose lock is not locked", .{});
        return null;
    }
    c.unlock();
    var w: Queue.Waiter = .{ .g = &p.g };
    p.g.waiting_on = O.objectOf(c);
    const wake = c.queue.wait(lane, &w, .cond_wait, deadline);
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

fn wait(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("wait", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    return py.boolean(waitOnce(of(o), limit.deadline()) orelse return null);
}

fn waitFor(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse(
        "wait_for",
        &.{ "predicate", "timeout" },
        1,
        args,
        n,
        kw,
    ) orelse return null;
    const limit = timeouts.parse(given[1]) orelse return null;
    if (asynchronous.look("wait_for", given[0].?) == .refused) return null;
    const deadline = limit.deadline();
    while (true) {
        const result = py.call(given[0].?, &.{}) orelse return null;
        const truth = py.PyObject_IsTrue(result);
        if (truth > 0) return result;
        if (truth < 0 or (deadline != null and lane.now() >= deadline.?)) {
            if (truth == 0) return result;
            py.decref(result);
            return null;
        }
        py.decref(result);
        _ = waitOnce(of(o), deadline) orelse return null;
    }
}

fn signal(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    if (of(o).queue.take(lane)) |w| lane.ready(w.g);
    return py.returnNone();
}

fn broadcast(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    of(o).queue.wakeAll(lane, .ready);
    return py.returnNone();
}

fn enter(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const method = py.PyObject_GetAttrString(of(o).locker, "__enter__") orelse return null;
    defer py.decref(method);
    return py.call(method, &.{});
}

fn exit(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    const c = of(o);
    if (!c.locked()) return py.raise(py.exc.runtimeError(), "the lock of the Cond is not locked", .{});
    c.unlock();
    return py.returnNone();
}

fn getLocker(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.incref(of(o).locker);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat("<Cond %p of %R>", o, of(o).locker);
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "wait", .function = @ptrCast(&wait), .flags = fast, .doc =
    \\wait($self, /, timeout=None)
    \\--
    \\
    \\Unlocks the lock, waits for signal() or broadcast(), at most timeout seconds, and locks it again.
    \\Returns whether it was woken: False only when the time is up. Raises RuntimeError if the lock is
    \\not locked. The lock is locked again whatever it raises.
    },
    .{ .name = "wait_for", .function = @ptrCast(&waitFor), .flags = fast, .doc =
    \\wait_for($self, /, predicate, timeout=None)
    \\--
    \\
    \\Waits until predicate(), called with the lock, returns something true, at most timeout seconds
    \\in all. Returns what it returned last.
    },
    .{ .name = "signal", .function = @ptrCast(&signal), .flags = py.METH_NOARGS, .doc =
    \\signal($self, /)
    \\--
    \\
    \\Wakes the goroutine that has waited longest, if any waits. The lock may be locked, or not.
    },
    .{ .name = "broadcast", .function = @ptrCast(&broadcast), .flags = py.METH_NOARGS, .doc =
    \\broadcast($self, /)
    \\--
    \\
    \\Wakes all that wait.
    },
    .{
        .name = "__enter__",
        .function = @ptrCast(&enter),
        .flags = py.METH_NOARGS,
        .doc = "Locks the lock.",
    },
    .{
        .name = "__exit__",
        .function = @ptrCast(&exit),
        .flags = py.METH_FASTCALL,
        .doc = "Unlocks the lock.",
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{
        .name = "locker",
        .get = getLocker,
        .doc = "Its lock: a Mutex, an RWMutex or the RLocker of one.",
    },
    .{},
};

pub const spec = O.spec("golibx.Cond", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Cond(lock=None)
    \\--
    \\
    \\Waits for a change of what a lock guards, as Go's sync.Cond. The lock is a Mutex, an RWMutex or
    \\its reader(); without one it makes a Mutex. `with c:` locks it.
    },
    .{},
});
