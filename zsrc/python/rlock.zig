//! golibx._core.RLock: a re-entrant lock that belongs to a goroutine, or to a thread of the
//! program's own.
//!
//! _thread.RLock belongs to a thread. A goroutine that is preempted while it holds one may go on on
//! another thread, where releasing it fails; another goroutine on the first thread would find the
//! lock its own. golibx/patch puts this one in its place. A goroutine that has to wait parks, a
//! thread sleeps without the interpreter's lock; whoever comes first after a release gets it.
const std = @import("std");
const os = @import("../os/os.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const timeouts = @import("timeouts.zig");

const Queue = @import("../sync/waiters.zig").Waiters(host.Lane);
const lane = &host.the_lane;

/// A thread that waits; lies on its stack.
const Sleeper = struct { note: os.Note = .{}, next: ?*Sleeper = null };

const RLock = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    owner: u64,
    count: u64,
    parked: [@sizeOf(Queue)]u8 align(@alignOf(Queue)),
    sleepers: ?*anyopaque,

    inline fn goroutines(l: *RLock) *Queue {
        return @ptrCast(&l.parked);
    }
};

pub var rlock_type: *py.Type = undefined;

inline fn self(o: *py.Object) *RLock {
    return @ptrCast(o);
}

fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (!py.noArguments("RLock", args, kwargs)) return null;
    return py.PyType_GenericAlloc(t, 0);
}

fn dealloc(o: *py.Object) callconv(.c) void {
    if (self(o).weakrefs != null) py.PyObject_ClearWeakRefs(o);
    py.freeObject(o);
}

/// Null with an exception set.
fn take(l: *RLock, me: u64, limit: timeouts.Limit) ?bool {
    if (l.owner == me) {
        l.count += 1;
        return true;
    }
    var deadline: ?u64 = null;
    while (l.owner != 0) {
        if (limit == .poll) return false;
        if (deadline == null) deadline = limit.deadline();
        const arrived = if (lane.onThread() != null) parkOn(l, deadline) else sleepOn(l, deadline);
        if (!(arrived orelse return null)) return false;
    }
    l.owner = me;
    l.count = 1;
    return true;
}

fn parkOn(l: *RLock, deadline: ?u64) ?bool {
    const p = goroutine.forCall() orelse return null;
    // Contexts are for what golibx itself waits for: code that locks for a moment, such as logging
    // and imports, is to work in a `finally` block under one that is done.
    const context = p.g.context;
    p.g.context = null;
    defer p.g.context = context;
    if (goroutine.raisePending(p)) return null;
    if (l.owner == 0) return true;
    p.g.waiting_on = l;
    var waiter: Queue.Waiter = .{ .g = &p.g };
    return switch (l.goroutines().wait(lane, &waiter, .lock, deadline)) {
        .ready, .closed => true,
        .timeout => l.owner == 0,
        .interrupted => {
            _ = goroutine.raisePending(p);
            return null;
        },
    };
}

fn sleepOn(l: *RLock, deadline: ?u64) ?bool {
    var sleeper: Sleeper = .{ .next = @ptrCast(@alignCast(l.sleepers)) };
    l.sleepers = &sleeper;
    const state = py.PyEval_SaveThread();
    const wake = sleeper.note.sleep(if (deadline) |d| d -| os.nanotime() else null);
    py.PyEval_RestoreThread(state.?);
    if (wake != .woken) {
        var link: *?*Sleeper = @ptrCast(&l.sleepers);
        while (link.*) |s| : (link = &s.next) {
            if (s == &sleeper) {
                link.* = s.next;
                break;
            }
        }
    }
    if (wake == .interrupted and py.PyErr_CheckSignals() != 0) return null;
    return wake != .timeout or l.owner == 0;
}

fn give(l: *RLock) void {
    l.owner = 0;
    l.count = 0;
    if (l.goroutines().head != null) l.goroutines().wakeAll(lane, .ready);
    var it: ?*Sleeper = @ptrCast(@alignCast(l.sleepers));
    l.sleepers = null;
    while (it) |s| {
        it = s.next; // it may be gone once it is woken
        s.note.wake();
    }
}

fn acquire(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse(
        "acquire",
        &.{ "blocking", "timeout" },
        0,
        args,
        n,
        kw,
    ) orelse return null;
    var wait = true;
    if (given[0]) |b| {
        const truth = py.PyObject_IsTrue(b);
        if (truth < 0) return null;
        wait = truth != 0;
    }
    var limit: timeouts.Limit = if (wait) .forever else .poll;
    if (given[1]) |t| {
        const seconds = py.PyFloat_AsDouble(t);
        if (seconds == -1.0 and py.PyErr_Occurred() != null) return null;
        if (seconds != -1.0) {
            if (!wait) return py.raise(py.exc.valueError(), "can't specify a timeout for a non-blocking call", .{});
            if (seconds < 0) return py.raise(py.exc.valueError(), "timeout value must be a non-negative number", .{});
            limit = timeouts.fromSeconds(seconds) orelse return null;
        }
    }
    return py.boolean(take(self(o), goroutine.ident(), limit) orelse return null);
}

fn enter(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(take(self(o), goroutine.ident(), .forever) orelse return null);
}

fn drop(o: *py.Object) bool {
    const l = self(o);
    if (l.owner != goroutine.ident()) {
        _ = py.raise(py.exc.runtimeError(), "cannot release un-acquired lock", .{});
        return false;
    }
    l.count -= 1;
    if (l.count == 0) give(l);
    return true;
}

fn release(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return if (drop(o)) py.returnNone() else null;
}

fn exit(o: *py.Object, _: py.Args, _: py.Ssize) callconv(.c) ?*py.Object {
    return if (drop(o)) py.returnNone() else null;
}

// What threading.Condition asks of a re-entrant lock.

fn isOwned(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(self(o).owner == goroutine.ident());
}

fn releaseSave(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const l = self(o);
    if (l.count == 0) return py.raise(py.exc.runtimeError(), "cannot release un-acquired lock", .{});
    const count = l.count;
    give(l);
    return py.PyLong_FromUnsignedLongLong(count);
}

fn acquireRestore(o: *py.Object, count: ?*py.Object) callconv(.c) ?*py.Object {
    const n = py.PyLong_AsLongLong(count.?);
    if (n == -1 and py.PyErr_Occurred() != null) return null;
    const l = self(o);
    _ = take(l, goroutine.ident(), .forever) orelse return null;
    l.count = @intCast(n);
    return py.returnNone();
}

fn recursionCount(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const l = self(o);
    return py.PyLong_FromUnsignedLongLong(if (l.owner == goroutine.ident()) l.count else 0);
}

fn locked(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(self(o).owner != 0);
}

fn atForkReinit(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const l = self(o);
    l.owner = 0;
    l.count = 0;
    l.goroutines().* = .{};
    l.sleepers = null;
    return py.returnNone();
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const l = self(o);
    return py.PyUnicode_FromFormat(
        "<%s golibx.RLock owner=%llu count=%llu at %p>",
        @as([*:0]const u8, if (l.count > 0) "locked" else "unlocked"),
        l.owner,
        l.count,
        o,
    );
}

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const methods = [_]py.MethodDef{
    .{ .name = "acquire", .function = @ptrCast(&acquire), .flags = fast, .doc =
    \\acquire($self, /, blocking=True, timeout=-1)
    \\--
    \\
    \\As threading.RLock.acquire().
    },
    .{ .name = "release", .function = @ptrCast(&release), .flags = py.METH_NOARGS, .doc =
    \\release($self, /)
    \\--
    \\
    \\As threading.RLock.release().
    },
    .{ .name = "__enter__", .function = @ptrCast(&enter), .flags = py.METH_NOARGS },
    .{ .name = "__exit__", .function = @ptrCast(&exit), .flags = py.METH_FASTCALL },
    .{ .name = "locked", .function = @ptrCast(&locked), .flags = py.METH_NOARGS, .doc =
    \\locked($self, /)
    \\--
    \\
    \\Whether somebody holds it.
    },
    .{ .name = "_is_owned", .function = @ptrCast(&isOwned), .flags = py.METH_NOARGS },
    .{ .name = "_recursion_count", .function = @ptrCast(&recursionCount), .flags = py.METH_NOARGS },
    .{ .name = "_release_save", .function = @ptrCast(&releaseSave), .flags = py.METH_NOARGS },
    .{ .name = "_acquire_restore", .function = @ptrCast(&acquireRestore), .flags = py.METH_O },
    .{ .name = "_at_fork_reinit", .function = @ptrCast(&atForkReinit), .flags = py.METH_NOARGS },
    .{},
};

const members = [_]py.MemberDef{
    .{
        .name = "__weaklistoffset__",
        .type = py.T_PYSSIZET,
        .offset = @offsetOf(RLock, "weakrefs"),
        .flags = py.READONLY,
    },
    .{},
};

const slots = [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&new) },
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = @ptrCast(&methods) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
    .{
        .slot = py.slot.tp_doc,
        .pfunc = "RLock()\n--\n\nA re-entrant lock that belongs to a goroutine or thread; as threading.RLock otherwise.",
    },
    .{},
};

pub const spec: py.TypeSpec = .{
    .name = "golibx._core.RLock",
    .basicsize = @sizeOf(RLock),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_BASETYPE,
    .slots = &slots,
};
