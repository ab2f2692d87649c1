//! golibx.RWMutex, and the locker of its reading side: sync/rwmutex.zig as Python objects.
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const Limit = @import("../timeouts.zig").Limit;
const Place = @import("../../core/waiters.zig").Place;
const Wake = @import("../../core/wait.zig").Wake;

pub const M = @import("../../sync/rwmutex.zig").RWMutex(host.Rt);

pub const Side = enum { read, write };

inline fn tryTake(m: *M, comptime side: Side) bool {
    return if (side == .read) m.tryRLock() else m.tryLock();
}

noinline fn acquire(m: *M, comptime side: Side, limit: Limit) ?bool {
    const deadline = limit.deadline();
    var place: Place = .end;
    while (true) : (place = .front) {
        const p = goroutine.forWait() orelse return null;
        if (tryTake(m, side)) return true;
        switch (wait(m, side, place, p, deadline)) {
            .ready, .closed => return true,
            .timeout => return false,
            // Unless it was for a signal's handler.
            .interrupted => if (goroutine.raisePending(p)) return null,
        }
    }
}

fn wait(m: *M, comptime side: Side, place: Place, p: *goroutine.PyG, deadline: ?u64) Wake {
    p.g.waiting_on = class.objectOf(m);
    if (side == .read) return m.rLockWait(place, &p.g, deadline);
    return m.lockWait(place, &p.g, deadline);
}

/// One that waits for it has left, or does not go on soon.
pub fn serveOthers(o: *anyopaque) void {
    Class.of(@ptrCast(@alignCast(o))).serveOthers();
}

/// As mutex.acquireAlways.
pub fn acquireAlways(m: *M, comptime side: Side) bool {
    var place: Place = .end;
    while (!tryTake(m, side)) : (place = .front) {
        const p = goroutine.forLock() orelse return false;
        if (tryTake(m, side)) return true;
        // One that is done would end each wait at once.
        const context = p.g.context;
        p.g.context = null;
        defer p.g.context = context;
        if (wait(m, side, place, p, null) == .ready) return true;
    }
    return true;
}

fn take(comptime side: Side) fn (*M, Limit) ?bool {
    return struct {
        fn take(m: *M, limit: Limit) ?bool {
            if (tryTake(m, side)) return true;
            return if (limit == .poll) false else acquire(m, side, limit);
        }
    }.take;
}

fn takeNow(comptime side: Side) fn (*M) ?bool {
    return struct {
        fn takeNow(m: *M) ?bool {
            return if (tryTake(m, side)) true else acquire(m, side, .forever);
        }
    }.takeNow;
}

fn tryLock(m: *M) bool {
    return tryTake(m, .write);
}

fn tryRLock(m: *M) bool {
    return tryTake(m, .read);
}

fn unlock(m: *M) ?*py.Object {
    m.unlock() catch
        return py.raise(py.exc.runtimeError(), "unlock of an unlocked RWMutex", .{});
    return py.returnNone();
}

fn runlock(m: *M) ?*py.Object {
    m.rUnlock() catch
        return py.raise(py.exc.runtimeError(), "runlock of an RWMutex that nobody reads", .{});
    return py.returnNone();
}

// ---- golibx.RWMutex ----

fn reader(m: *M) ?*py.Object {
    const o = class.objectOf(m);
    return class.make(ReaderClass.python_type, Reader{ .mutex = py.incref(o) }) orelse {
        py.decref(o);
        return null;
    };
}

fn repr(m: *M) ?*py.Object {
    const address = class.addressOf(m);
    if (m.readers != 0) return py.print("<RWMutex 0x{x} readers {d}>", .{ address, m.readers });
    const state = if (m.writing) "locked" else "unlocked";
    return py.print("<RWMutex 0x{x} {s}>", .{ address, state });
}

pub const Class = class.Class(M, .{
    .name = "golibx.RWMutex",
    .doc =
    \\A lock for many readers or one writer, as Go's sync.RWMutex: `with m:` writes, `with
    \\m.reader():` reads. Neither side starves. A reader must not lock it again: a writer may wait
    \\in between.
    ,
    .new = class.constructor("RWMutex()", M),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{
        class.method("lock(timeout=None)", take(.write),
            \\Locks it for writing, waiting until no other has it, at most timeout seconds. Returns
            \\whether it has: False only when the time is up. While a writer waits, new readers do
            \\too.
        ),
        class.method("rlock(timeout=None)", take(.read),
            \\Locks it for reading, beside other readers, waiting until no writer has it or waits
            \\for it, at most timeout seconds. Returns whether it has: False only when the time is
            \\up.
        ),
        class.method("try_lock()", tryLock,
            \\Locks it for writing if that needs no waiting; returns whether it has.
        ),
        class.method("try_rlock()", tryRLock,
            \\Locks it for reading if that needs no waiting; returns whether it has.
        ),
        class.method("unlock()", unlock,
            \\Undoes one lock(). Raises RuntimeError if it is not locked for writing.
        ),
        class.method("runlock()", runlock,
            \\Undoes one rlock(). Raises RuntimeError if it is not locked for reading.
        ),
        class.method("reader()", reader,
            \\The reading side as a lock of its own, an RLocker: `with m.reader():`.
        ),
        class.method("__enter__()", takeNow(.write), "Locks it for writing."),
        class.method("__exit__(*exc_info)", unlock, "Unlocks it."),
    },
    .properties = &.{
        class.field(M, "locked", "writing", "Whether it is locked for writing."),
        class.field(M, "readers", "readers", "How many have it locked for reading, an int."),
    },
});

// ---- golibx.RLocker ----

const Reader = struct {
    /// Owned.
    mutex: *py.Object,

    fn held(r: *Reader) *py.Object {
        return r.mutex;
    }

    fn deinit(r: *Reader) void {
        py.decref(r.mutex);
    }

    fn repr(r: *Reader) ?*py.Object {
        return py.PyUnicode_FromFormat("<RLocker of %R>", r.mutex);
    }
};

/// What the RLocker `o` reads.
pub inline fn readerOf(o: *py.Object) *M {
    return Class.of(ReaderClass.of(o).mutex);
}

/// A method of the RWMutex's, as one of its RLocker.
fn method(
    comptime signature: []const u8,
    comptime function: anytype,
    comptime doc: []const u8,
) class.Method(Reader) {
    return class.methodOf(Reader, readerOf, signature, function, doc);
}

pub const ReaderClass = class.Class(Reader, .{
    .name = "golibx.RLocker",
    .doc = "The reading side of an RWMutex, made by RWMutex.reader().",
    .repr = Reader.repr,
    .held = Reader.held,
    .deinit = Reader.deinit,
    .is_waited_on = true,
    .methods = &.{
        method("lock(timeout=None)", take(.read), "RWMutex.rlock()."),
        method("try_lock()", tryRLock, "RWMutex.try_rlock()."),
        method("unlock()", runlock, "RWMutex.runlock()."),
        method("__enter__()", takeNow(.read), "Locks it for reading."),
        method("__exit__(*exc_info)", runlock, "Unlocks it."),
    },
});
