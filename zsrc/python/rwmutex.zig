//! golibx.RWMutex, and the locker of its reading side: sync/rwmutex.zig as Python objects.
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");
const object = @import("object.zig");

pub const M = @import("../sync/rwmutex.zig").RWMutex(host.Lane);
const O = object.Object(M);
const lane = &host.the_lane;

pub const of = O.of;
pub var rwmutex_type: *py.Type = undefined;

pub const Side = enum { read, write };

inline fn tryTake(m: *M, comptime side: Side) bool {
    return if (side == .read) m.tryRLock(lane) else m.tryLock();
}

noinline fn acquire(m: *M, comptime side: Side, limit: timeouts.Limit) ?bool {
    const p = goroutine.forWait() orelse return null;
    if (tryTake(m, side)) return true;
    const deadline = limit.deadline();
    p.g.waiting_on = O.objectOf(m);
    return switch (if (side == .read) m.rLockWait(lane, &p.g, deadline) else m.lockWait(
        lane,
        &p.g,
        deadline,
    )) {
        .ready, .closed => true,
        .timeout => false,
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    };
}

/// As mutex.acquireAlways.
pub fn acquireAlways(m: *M, comptime side: Side) bool {
    while (!tryTake(m, side)) {
        const p = goroutine.forLock() orelse return false;
        if (tryTake(m, side)) return true;
        // One that is done would end each wait at once.
        const context = p.g.context;
        p.g.context = null;
        defer p.g.context = context;
        const wake = if (side == .read) m.rLockWait(lane, &p.g, null) else m.lockWait(
            lane,
            &p.g,
            null,
        );
        if (wake == .ready) return true;
    }
    return true;
}

fn take(
    m: *M,
    comptime side: Side,
    comptime name: []const u8,
    args: py.Args,
    n: py.Ssize,
    kw: ?*py.Object,
) ?*py.Object {
    if (n == 0 and kw == null) return takeNow(m, side);
    const given = py.parse(name, &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    if (tryTake(m, side)) return py.boolean(true);
    if (limit == .poll) return py.boolean(false);
    return py.boolean(acquire(m, side, limit) orelse return null);
}

inline fn takeNow(m: *M, comptime side: Side) ?*py.Object {
    if (tryTake(m, side)) return py.boolean(true);
    return py.boolean(acquire(m, side, .forever) orelse return null);
}

fn drop(m: *M, comptime side: Side) ?*py.Object {
    (if (side == .read) m.rUnlock(lane) else m.unlock(lane)) catch return py.raise(
        py.exc.runtimeError(),
        if (side == .read) "runlock of an RWMutex that nobody reads" else "unlock of an unlocked RWMutex",
        .{},
    );
    return py.returnNone();
}

// ---- golibx.RWMutex ----

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("RWMutex", args, kwargs)) return null;
    return O.make(t, .{});
}

fn lock(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    return take(of(o), .write, "lock", args, n, kw);
}

fn rlock(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    return take(of(o), .read, "rlock", args, n, kw);
}

fn tryLock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(tryTake(of(o), .write));
}

fn tryRLock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(tryTake(of(o), .read));
}

fn unlock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return drop(of(o), .write);
}

fn runlock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return drop(of(o), .read);
}

fn enter(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return takeNow(of(o), .write);
}

fn exit(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    return drop(of(o), .write);
}

fn reader(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return R.make(reader_type, .{ .mutex = py.incref(o) }) orelse {
        py.decref(o);
        return null;
    };
}

fn getLocked(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(of(o).writing);
}

fn getReaders(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(of(o).readers);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const m = of(o);
    if (m.readers != 0)
        return py.PyUnicode_FromFormat("<RWMutex %p readers %llu>", o, @as(c_ulonglong, m.readers));
    const state: [*:0]const u8 = if (m.writing) "locked" else "unlocked";
    return py.PyUnicode_FromFormat("<RWMutex %p %s>", o, state);
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "lock", .function = @ptrCast(&lock), .flags = fast, .doc =
    \\lock($self, /, timeout=None)
    \\--
    \\
    \\Locks it for writing, waiting until nobody else has it, at most timeout seconds. Returns whether
    \\it has: False only when the time is up. While a writer waits, new readers do too.
    },
    .{ .name = "rlock", .function = @ptrCast(&rlock), .flags = fast, .doc =
    \\rlock($self, /, timeout=None)
    \\--
    \\
    \\Locks it for reading, beside other readers, waiting until no writer has it or waits for it, at
    \\most timeout seconds. Returns whether it has: False only when the time is up.
    },
    .{ .name = "try_lock", .function = @ptrCast(&tryLock), .flags = py.METH_NOARGS, .doc =
    \\try_lock($self, /)
    \\--
    \\
    \\Locks it for writing if that needs no waiting; returns whether it has.
    },
    .{ .name = "try_rlock", .function = @ptrCast(&tryRLock), .flags = py.METH_NOARGS, .doc =
    \\try_rlock($self, /)
    \\--
    \\
    \\Locks it for reading if that needs no waiting; returns whether it has.
    },
    .{ .name = "unlock", .function = @ptrCast(&unlock), .flags = py.METH_NOARGS, .doc =
    \\unlock($self, /)
    \\--
    \\
    \\Undoes one lock(). Raises RuntimeError if it is not locked for writing.
    },
    .{ .name = "runlock", .function = @ptrCast(&runlock), .flags = py.METH_NOARGS, .doc =
    \\runlock($self, /)
    \\--
    \\
    \\Undoes one rlock(). Raises RuntimeError if it is not locked for reading.
    },
    .{ .name = "reader", .function = @ptrCast(&reader), .flags = py.METH_NOARGS, .doc =
    \\reader($self, /)
    \\--
    \\
    \\The reading side as a lock of its own, an RLocker: `with m.reader():`.
    },
    .{
        .name = "__enter__",
        .function = @ptrCast(&enter),
        .flags = py.METH_NOARGS,
        .doc = "Locks it for writing.",
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
    .{ .name = "locked", .get = getLocked, .doc = "Whether it is locked for writing." },
    .{
        .name = "readers",
        .get = getReaders,
        .doc = "How many have it locked for reading, an int.",
    },
    .{},
};

pub const spec = O.spec("golibx.RWMutex", 0, &.{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&O.dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&O.members) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\RWMutex()
    \\--
    \\
    \\A lock for many readers or one writer, as Go's sync.RWMutex: `with m:` writes, `with m.reader():`
    \\reads. Neither side starves. A reader must not lock it again: a writer may wait in between.
    },
    .{},
});

// ---- golibx.RLocker ----

const Reader = struct { mutex: *py.Object };
const R = object.Object(Reader);

pub var reader_type: *py.Type = undefined;

pub inline fn readerOf(o: *py.Object) *M {
    return of(mutexOf(o));
}

pub inline fn mutexOf(o: *py.Object) *py.Object {
    return R.of(o).mutex;
}

fn readerDealloc(o: *py.Object) callconv(.c) void {
    const m = R.of(o).mutex;
    R.clearWeakrefs(o);
    py.freeObject(o);
    py.decref(m);
}

fn readerLock(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    return take(readerOf(o), .read, "lock", args, n, kw);
}

fn readerTryLock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(tryTake(readerOf(o), .read));
}

fn readerUnlock(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return drop(readerOf(o), .read);
}

fn readerEnter(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return takeNow(readerOf(o), .read);
}

fn readerExit(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    return drop(readerOf(o), .read);
}

fn readerRepr(o: *py.Object) callconv(.c) ?*py.Object {
    return py.PyUnicode_FromFormat("<RLocker of %R>", R.of(o).mutex);
}

const reader_methods = [_]py.MethodDef{
    .{ .name = "lock", .function = @ptrCast(&readerLock), .flags = fast, .doc =
    \\lock($self, /, timeout=None)
    \\--
    \\
    \\RWMutex.rlock().
    },
    .{ .name = "try_lock", .function = @ptrCast(&readerTryLock), .flags = py.METH_NOARGS, .doc =
    \\try_lock($self, /)
    \\--
    \\
    \\RWMutex.try_rlock().
    },
    .{ .name = "unlock", .function = @ptrCast(&readerUnlock), .flags = py.METH_NOARGS, .doc =
    \\unlock($self, /)
    \\--
    \\
    \\RWMutex.runlock().
    },
    .{
        .name = "__enter__",
        .function = @ptrCast(&readerEnter),
        .flags = py.METH_NOARGS,
        .doc = "Locks it for reading.",
    },
    .{
        .name = "__exit__",
        .function = @ptrCast(&readerExit),
        .flags = py.METH_FASTCALL,
        .doc = "Unlocks it.",
    },
    .{},
};
pub const reader_table = points.Table.of(&reader_methods);

pub const reader_spec = R.spec("golibx.RLocker", py.TPFLAGS_DISALLOW_INSTANTIATION, &.{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&readerDealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&readerRepr) },
    .{ .slot = py.slot.tp_methods, .pfunc = reader_table.methods() },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&R.members) },
    .{
        .slot = py.slot.tp_doc,
        .pfunc = "The reading side of an RWMutex, made by RWMutex.reader().",
    },
    .{},
});
