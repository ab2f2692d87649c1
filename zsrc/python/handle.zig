//! golibx.Goroutine, the type: what Python code sees of a goroutine and asks of it.
//!
//! Its memory, `Handle`, is goroutine.zig's, which fills it in when the goroutine ends. A method
//! may be called at any time, on any thread, and may run Python code, after which the goroutine may
//! have ended.
const std = @import("std");
const os = @import("../os/os.zig");
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const timeouts = @import("timeouts.zig");
const goroutine = @import("goroutine.zig");
const select = @import("select.zig");
const uncollected = @import("uncollected.zig");

const PyG = goroutine.PyG;
const Handle = goroutine.Handle;
const lane = &host.the_lane;

fn self(o: *py.Object) *Handle {
    return @ptrCast(o);
}

fn join(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("join", &.{"timeout"}, 0, args, n, kw) orelse return null;
    return switch (waitFor(self(o), given[0])) {
        .ended => py.boolean(true),
        .timeout => py.boolean(false),
        .raised => null,
    };
}

const Waited = enum { ended, timeout, raised };

inline fn waitFor(h: *Handle, timeout: ?*py.Object) Waited {
    const limit = timeouts.parse(timeout) orelse return .raised;
    if (h.live == null) return .ended;
    const p = goroutine.forWait() orelse return .raised;
    if (h.pyg() == p) {
        _ = py.raise(py.exc.runtimeError(), "goroutine {d} cannot wait for itself", .{h.id});
        return .raised;
    }
    if (h.live == null) return .ended;
    if (limit == .poll) return .timeout;
    _ = py.incref(&h.ob);
    defer py.decref(&h.ob);
    p.g.waiting_on = h;
    var waiter: goroutine.Queue.Waiter = .{ .g = &p.g };
    return switch (h.waiters().wait(lane, &waiter, .join, limit.deadline())) {
        .ready, .closed => .ended,
        .timeout => if (h.live == null) .ended else .timeout,
        .interrupted => {
            _ = goroutine.raisePending(p);
            return .raised;
        },
    };
}

fn result_(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("result", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const h = self(o);
    h.collectors += 1;
    const waited = waitFor(h, given[0]);
    h.collectors -= 1;
    switch (waited) {
        .raised => return null,
        .timeout => return errors.raise(
            .DeadlineExceeded,
            "goroutine {d} did not end within the time-out",
            .{h.id},
        ),
        .ended => {},
    }
    if (h.result) |value| return py.incref(value);
    h.collected = true;
    goroutine.noteStart(h);
    py.restoreException(py.incref(goroutine.exceptionOf(h) orelse return null));
    return null;
}

fn throw(o: *py.Object, given: ?*py.Object) callconv(.c) ?*py.Object {
    var exception = py.incref(given.?);
    if (py.isExceptionClass(exception)) {
        const made = py.PyObject_CallObject(exception, null);
        py.decref(exception);
        exception = made orelse return null;
    }
    if (!py.isException(exception)) {
        defer py.decref(exception);
        return py.PyErr_Format(py.exc.typeError(), "throw() needs an exception, not %R", exception);
    }
    const p = self(o).pyg() orelse {
        py.decref(exception);
        return py.boolean(false);
    };
    if (p.owes.pending == null) {
        goroutine.interrupt(p, exception);
        return py.boolean(true);
    }
    goroutine.throwLater(p, exception) catch {
        py.decref(exception);
        return py.PyErr_NoMemory();
    };
    return py.boolean(true);
}

fn cancel(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.boolean(false);
    return if (goroutine.cancelG(p)) py.boolean(true) else null;
}

fn done(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return py.boolean(self(o).live == null);
}

fn onDone(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return select.newCase(.done, o, null, null);
}

fn getId(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(self(o).id);
}

fn getParent(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromUnsignedLongLong(self(o).parent);
}

pub fn getName(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const by = self(o).named_by orelse return py.PyUnicode_FromString("?");
    for ([_][*:0]const u8{ "__qualname__", "co_qualname" }) |attribute| {
        if (py.PyObject_GetAttrString(by, attribute)) |found| return found;
        py.PyErr_Clear();
    }
    if (py.PyObject_Str(by)) |text| {
        if (isText(by)) return text;
        py.decref(text);
    }
    py.PyErr_Clear();
    return py.PyObject_GetAttrString(@ptrCast(by.type), "__qualname__");
}

fn isText(o: *py.Object) bool {
    return py.PyType_GetFlags(o.type) & (1 << 28) != 0; // Py_TPFLAGS_UNICODE_SUBCLASS
}

fn setName(o: *py.Object, value: ?*py.Object, _: ?*anyopaque) callconv(.c) c_int {
    const name = value orelse {
        _ = py.raise(py.exc.attributeError(), "a goroutine's name cannot be deleted", .{});
        return -1;
    };
    if (!isText(name)) {
        _ = py.raise(py.exc.typeError(), "a goroutine's name must be a str", .{});
        return -1;
    }
    const h = self(o);
    const old = h.named_by;
    h.named_by = py.incref(name);
    py.xdecref(old);
    return 0;
}

/// "file.py:12", or "" if it was not started by Python code.
pub fn getStartedAt(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h = self(o);
    const code = h.code orelse return py.PyUnicode_FromString("");
    const file = py.PyObject_GetAttrString(code, "co_filename") orelse return null;
    defer py.decref(file);
    return py.PyUnicode_FromFormat("%U:%d", file, py.extra.PyCode_Addr2Line(code, h.lasti));
}

fn getState(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h = self(o);
    const p = h.pyg() orelse return py.PyUnicode_FromString(switch (h.outcome) {
        .cancelled => "cancelled",
        .raised => "raised",
        else => "done",
    });
    const text: [*:0]const u8 = switch (p.g.status) {
        .idle, .runnable, .notified => if (p.g.reason == .preempted) "runnable (preempted)" else "runnable",
        .running => "running",
        // Whoever asks for its own has come back, even if nobody has noticed yet.
        .syscall => if (lane.onThread() == &p.g) "running" else "syscall",
        .parking, .waiting => p.g.reason.text().ptr,
        .dead => "done",
    };
    return py.PyUnicode_FromString(text);
}

fn getWaitingOn(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return waitedFor(self(o).pyg() orelse return py.returnNone());
}

/// What it waits on: the object, a tuple of the cases' for a select, or None.
pub fn waitedFor(p: *const PyG) ?*py.Object {
    if (!goroutine.isParked(p)) return py.returnNone();
    const on = p.g.waiting_on orelse return py.returnNone();
    const n = p.g.waiting_count;
    if (n == 0) return py.incref(@ptrCast(@alignCast(on)));
    // Copied first: to make a tuple may let the goroutine go on.
    const objects = host.gpa.alloc(*py.Object, n) catch return py.PyErr_NoMemory();
    defer host.gpa.free(objects);
    const cases: [*]const *py.Object = @ptrCast(@alignCast(on));
    for (objects, cases[0..n]) |*object, case| object.* = py.incref(select.objectOf(case));
    const tuple = py.PyTuple_New(n) orelse {
        for (objects) |object| py.decref(object);
        return null;
    };
    for (objects, 0..) |object, i| _ = py.PyTuple_SetItem(tuple, @intCast(i), object);
    return tuple;
}

fn getWaiting(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.boolean(false);
    return py.boolean(goroutine.isParked(p));
}

fn getWaited(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.PyFloat_FromDouble(0);
    if (!goroutine.isParked(p)) return py.PyFloat_FromDouble(0);
    const waited_ns: f64 = @floatFromInt(os.nanotime() -| p.g.parked_at);
    return py.PyFloat_FromDouble(waited_ns / std.time.ns_per_s);
}

/// The frame the goroutine is at, or None: for dumps.
fn getFrame(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.returnNone();
    const state = p.state orelse return py.returnNone();
    const frame = py.PyThreadState_GetFrame(state) orelse return py.returnNone();
    return @ptrCast(frame);
}

fn getException(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const h = self(o);
    h.collected = true;
    if (h.outcome == .cancelled) return py.incref(goroutine.exceptionOf(h) orelse return null);
    return py.incref(h.exception orelse py.none());
}

fn getLocked(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.boolean(false);
    return py.boolean(p.g.lock_count > 0);
}

fn getKeptBy(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    const p = self(o).pyg() orelse return py.returnNone();
    const module = p.kept_by orelse return py.returnNone();
    if (p.g.locked_m == null or p.g.lock_count > 0) return py.returnNone();
    return py.PyUnicode_FromString(module.name().ptr);
}

fn getSystem(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(self(o).system);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const name = getName(o, null) orelse return null;
    defer py.decref(name);
    const state = getState(o, null) orelse return null;
    defer py.decref(state);
    return py.PyUnicode_FromFormat("<Goroutine %llu %U [%U]>", self(o).id, name, state);
}

fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const h = self(o);
    for ([_]?*py.Object{ @ptrCast(o.type), h.result, h.exception, h.named_by, h.code, h.watchers }) |each| {
        if (each) |x| {
            const r = visit(x, arg);
            if (r != 0) return r;
        }
    }
    return 0;
}

fn clearHandle(o: *py.Object) callconv(.c) c_int {
    const h = self(o);
    py.clear(&h.exception);
    py.clear(&h.result);
    py.clear(&h.named_by);
    py.clear(&h.watchers);
    return 0;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const h = self(o);
    // The collector must not come across an object without references while others run.
    py.PyObject_GC_UnTrack(o);
    if (h.listed) uncollected.remove(h);
    if (h.live == null and h.outcome == .raised and !h.collected and lane.live) {
        // Its last holder never asked. Nobody may see the dying object: a double tells the tale.
        reportDouble(h);
    }
    if (h.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    _ = clearHandle(o);
    py.clear(&h.code);
    const t: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(t);
}

fn reportDouble(h: *Handle) void {
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    const object = py._PyObject_GC_New(goroutine.goroutine_type) orelse return py.PyErr_Clear();
    const d: *Handle = @ptrCast(object);
    @memset(@as([*]u8, @ptrCast(d))[@sizeOf(py.Object)..@sizeOf(Handle)], 0);
    d.id = h.id;
    d.parent = h.parent;
    d.outcome = h.outcome;
    d.lasti = h.lasti;
    d.collected = true;
    if (h.named_by) |x| d.named_by = py.incref(x);
    if (h.code) |x| d.code = py.incref(x);
    if (h.exception) |x| d.exception = py.incref(x);
    goroutine.report(d);
    py.decref(object);
}

fn genericAlias(class: *py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    return py.genericAlias(class, item.?);
}

const methods = [_]py.MethodDef{
    .{
        .name = "__class_getitem__",
        .function = @ptrCast(&genericAlias),
        .flags = py.METH_O | py.METH_CLASS,
        .doc = "Goroutine[T] in annotations.",
    },
    .{ .name = "join", .function = @ptrCast(&join), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\join($self, /, timeout=None)
    \\--
    \\
    \\Waits until the goroutine has ended, at most timeout seconds (a float; None: for ever).
    \\Returns whether it has. Does not raise what the goroutine raised: see result().
    },
    .{ .name = "result", .function = @ptrCast(&result_), .flags = py.METH_FASTCALL | py.METH_KEYWORDS, .doc =
    \\result($self, /, timeout=None)
    \\--
    \\
    \\Waits as join() does and returns what the function returned, or raises what it raised.
    \\Raises DeadlineExceeded when timeout seconds are over first.
    },
    .{ .name = "cancel", .function = @ptrCast(&cancel), .flags = py.METH_NOARGS, .doc =
    \\cancel($self, /)
    \\--
    \\
    \\Makes the goroutine raise Cancelled where it is parked, or at its next park.
    \\Returns False if it had ended already, else True.
    },
    .{ .name = "throw", .function = @ptrCast(&throw), .flags = py.METH_O, .doc =
    \\throw($self, exception, /)
    \\--
    \\
    \\Makes the goroutine raise exception, an exception or a class of them, where it is parked, or at
    \\its next park. Those thrown before come first. Returns False if it had ended already, else True.
    },
    .{ .name = "done", .function = @ptrCast(&done), .flags = py.METH_NOARGS, .doc =
    \\done($self, /)
    \\--
    \\
    \\Whether the goroutine has ended.
    },
    .{ .name = "on_done", .function = @ptrCast(&onDone), .flags = py.METH_NOARGS, .doc =
    \\on_done($self, /)
    \\--
    \\
    \\A case for select(): the goroutine has ended. Gives the goroutine; see result().
    },
    .{},
};
pub const table = points.Table.of(&methods);

const getset = [_]py.GetSetDef{
    .{
        .name = "id",
        .get = getId,
        .doc = "Number of the goroutine, an int from 1 (the main goroutine).",
    },
    .{
        .name = "parent",
        .get = getParent,
        .doc = "The id of the goroutine that started it, 0 if none did.",
    },
    .{
        .name = "name",
        .get = getName,
        .set = setName,
        .doc = "Name for people, a str; the function's unless it was set.",
    },
    .{
        .name = "started_at",
        .get = getStartedAt,
        .doc = "Where go() was called, a str \"FILE:LINE\"; empty if not from Python.",
    },
    .{
        .name = "state",
        .get = getState,
        .doc = "What it does now, a str: \"running\", \"runnable\", a wait reason, \"done\" …",
    },
    .{
        .name = "waiting_on",
        .get = getWaitingOn,
        .doc = "What it waits on, such as a Chan; a tuple of those for a select; None if it does not wait.",
    },
    .{
        .name = "waiting",
        .get = getWaiting,
        .doc = "Whether it is parked: `state` is then a wait reason.",
    },
    .{
        .name = "waited",
        .get = getWaited,
        .doc = "For how many seconds it has been waiting, a float that is a few ms off; 0.0 if it does not.",
    },
    .{ .name = "frame", .get = getFrame, .doc = "The Python frame it is at, or None." },
    .{ .name = "exception", .get = getException, .doc = "What it raised, or None." },
    .{
        .name = "locked",
        .get = getLocked,
        .doc = "Whether it is locked to its thread: lock_os_thread().",
    },
    .{
        .name = "kept_by",
        .get = getKeptBy,
        .doc = "The file of the C code for which it keeps its thread while it is switched out, a str, or None.",
    },
    .{
        .name = "system",
        .get = getSystem,
        .doc = "Whether it belongs to the runtime and not to the program.",
    },
    .{},
};

const members = [_]py.MemberDef{
    .{
        .name = "__weaklistoffset__",
        .type = py.T_PYSSIZET,
        .offset = @offsetOf(Handle, "weakrefs"),
        .flags = py.READONLY,
    },
    .{},
};

const slots = [_]py.Slot{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverse) },
    .{ .slot = py.slot.tp_clear, .pfunc = @ptrCast(&clearHandle) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_methods, .pfunc = table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&getset) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
    .{ .slot = py.slot.tp_doc, .pfunc = "A goroutine, as go() returns it." },
    .{},
};

pub const spec: py.TypeSpec = .{
    .name = "golibx.Goroutine",
    .basicsize = @sizeOf(Handle),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE | py.TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = &slots,
};
