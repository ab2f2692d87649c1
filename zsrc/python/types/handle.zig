//! golibx.Goroutine, the type: what Python code sees of a goroutine and asks of it.
//!
//! Its memory, `Handle`, is goroutine.zig's, which fills it in when the goroutine ends. A method
//! may be called at any time, on any thread, and may run Python code, after which the goroutine may
//! have ended.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const timeouts = @import("../timeouts.zig");
const g_mod = @import("../../serial/g.zig");
const goroutine = @import("../host/goroutine.zig");
const labels = @import("../host/labels.zig");
const select = @import("select.zig");
const uncollected = @import("../run/uncollected.zig");

const PyG = goroutine.PyG;
const Handle = goroutine.Handle;
const lane = &host.the_lane;

fn join(h: *Handle, timeout: ?*py.Object) ?bool {
    return switch (waitFor(h, timeout)) {
        .ended => true,
        .timeout => false,
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
    var waiter: host.Queue.Waiter = .{};
    return switch (h.waiters().wait(&host.Rt.no_lock, &waiter, &p.g, .join, limit.deadline())) {
        .ready, .closed => .ended,
        .timeout => if (h.live == null) .ended else .timeout,
        .interrupted => {
            _ = goroutine.raisePending(p);
            return .raised;
        },
    };
}

fn result_(h: *Handle, timeout: ?*py.Object) ?*py.Object {
    h.collectors += 1;
    const waited = waitFor(h, timeout);
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

fn throw(h: *Handle, given: *py.Object) ?*py.Object {
    var exception = py.incref(given);
    if (py.isExceptionClass(exception)) {
        const made = py.PyObject_CallObject(exception, null);
        py.decref(exception);
        exception = made orelse return null;
    }
    if (!py.isException(exception)) {
        defer py.decref(exception);
        return py.PyErr_Format(py.exc.typeError(), "throw() needs an exception, not %R", exception);
    }
    const p = h.pyg() orelse {
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

fn cancel(h: *Handle) ?bool {
    const p = h.pyg() orelse return false;
    return if (goroutine.cancelG(p)) true else null;
}

fn done(h: *Handle) bool {
    return h.live == null;
}

fn onDone(h: *Handle) ?*py.Object {
    return select.newCase(.done, &h.ob, null, null);
}

pub fn name(h: *Handle) ?*py.Object {
    const by = h.named_by orelse return py.PyUnicode_FromString("?");
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

fn setName(h: *Handle, value: ?*py.Object) bool {
    const text = value orelse
        return py.raises(py.exc.attributeError(), "a goroutine's name cannot be deleted", .{});
    if (!isText(text))
        return py.raises(py.exc.typeError(), "a goroutine's name must be a str", .{});
    const old = h.named_by;
    h.named_by = py.incref(text);
    py.xdecref(old);
    return true;
}

/// "file.py:12", or "" if it was not started by Python code.
pub fn startedAt(h: *Handle) ?*py.Object {
    const code = h.code orelse return py.PyUnicode_FromString("");
    const file = py.PyObject_GetAttrString(code, "co_filename") orelse return null;
    defer py.decref(file);
    return py.PyUnicode_FromFormat("%U:%d", file, py.extra.PyCode_Addr2Line(code, h.lasti));
}

fn state(h: *Handle) ?*py.Object {
    const p = h.pyg() orelse return py.PyUnicode_FromString(switch (h.outcome) {
        .cancelled => "cancelled",
        .raised => "raised",
        else => "done",
    });
    const text: [*:0]const u8 = switch (p.g.status) {
        .idle, .runnable, .notified => if (p.g.reason == .preempted)
            "runnable (preempted)"
        else
            "runnable",
        .running => "running",
        // A goroutine that asks for its own has come back, even if golibx has not noticed yet.
        .syscall => if (lane.onThread() == &p.g) "running" else "syscall",
        .parking, .waiting => p.g.reason.text().ptr,
        .dead => "done",
    };
    return py.PyUnicode_FromString(text);
}

fn waitingOn(h: *Handle) ?*py.Object {
    return waitedFor(h.pyg() orelse return py.returnNone());
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

fn isWaiting(h: *Handle) bool {
    const p = h.pyg() orelse return false;
    return goroutine.isParked(p);
}

fn waitedSeconds(h: *Handle) ?*py.Object {
    const p = h.pyg() orelse return py.PyFloat_FromDouble(0);
    if (!goroutine.isParked(p)) return py.PyFloat_FromDouble(0);
    const waited_ns: f64 = @floatFromInt(os.nanotime() -| p.g.parked_at);
    return py.PyFloat_FromDouble(waited_ns / std.time.ns_per_s);
}

/// The frame the goroutine is at, or None: for dumps.
fn frame(h: *Handle) ?*py.Object {
    const p = h.pyg() orelse return py.returnNone();
    const thread = p.state orelse return py.returnNone();
    return @ptrCast(py.PyThreadState_GetFrame(thread) orelse return py.returnNone());
}

fn exceptionOf(h: *Handle) ?*py.Object {
    h.collected = true;
    if (h.outcome == .cancelled) return py.incref(goroutine.exceptionOf(h) orelse return null);
    return py.incref(h.exception orelse py.none());
}

fn isLocked(h: *Handle) bool {
    const p = h.pyg() orelse return false;
    return p.g.lock_count > 0;
}

fn keptBy(h: *Handle) ?*py.Object {
    const p = h.pyg() orelse return py.returnNone();
    const module = p.kept_by orelse return py.returnNone();
    if (p.g.locked_m == null or p.g.lock_count > 0) return py.returnNone();
    return py.PyUnicode_FromString(module.name().ptr);
}

fn priority(h: *Handle) ?*py.Object {
    const its: g_mod.Priority = if (h.pyg()) |p| p.g.priority else .normal;
    return py.PyUnicode_FromString(@tagName(its));
}

fn setPriority(h: *Handle, value: ?*py.Object) bool {
    const text = value orelse return py.raises(
        py.exc.attributeError(),
        "a goroutine's priority cannot be deleted",
        .{},
    );
    inline for (@typeInfo(g_mod.Priority).@"enum".field_names) |its| {
        if (isText(text) and py.PyUnicode_CompareWithASCIIString(text, its) == 0) {
            if (h.pyg()) |p| lane.setPriority(&p.g, @field(g_mod.Priority, its));
            return true;
        }
    }
    const class_ = if (isText(text)) py.exc.valueError() else py.exc.typeError();
    _ = py.PyErr_Format(
        class_,
        "a goroutine's priority must be \"low\", \"normal\" or \"high\", not %R",
        text,
    );
    return false;
}

fn labelsOf(h: *Handle) ?*py.Object {
    return labels.of(h.pyg());
}

fn repr(h: *Handle) ?*py.Object {
    const called = name(h) orelse return null;
    defer py.decref(called);
    const does = state(h) orelse return null;
    defer py.decref(does);
    return py.PyUnicode_FromFormat("<Goroutine %llu %U [%U]>", h.id, called, does);
}

fn traverse(h: *Handle, v: class.Visitor) c_int {
    return v.all(&.{ h.result, h.exception, h.named_by, h.code, h.watchers });
}

fn clear(h: *Handle) void {
    py.clear(&h.exception);
    py.clear(&h.result);
    py.clear(&h.named_by);
    py.clear(&h.watchers);
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const h = Class.of(o);
    // The collector must not come across an object without references while others run.
    py.PyObject_GC_UnTrack(o);
    if (h.listed) uncollected.remove(h);
    if (h.live == null and h.outcome == .raised and !h.collected and lane.live) {
        // Its last holder never asked. No code may see the dying object: a double tells the tale.
        reportDouble(h);
    }
    Class.clearWeakrefs(o);
    clear(h);
    py.clear(&h.code);
    leave(o);
}

/// Memory of handles that are no more, linked by what is the place of the result in one that is.
/// Programs start goroutines by the thousand, and forget them by the thousand: the interpreter
/// would give pages back to the system and fetch them again. The collector's header is as it has
/// left it.
var spare: ?*Handle = null;

/// A new one, which the collector does not know. Null with an exception set.
pub fn make() ?*Handle {
    const h = spare orelse {
        const object = py._PyObject_GC_New(Class.python_type) orelse return null;
        return cleared(@ptrCast(object));
    };
    spare = @ptrCast(h.result);
    _ = py.PyObject_Init(&h.ob, Class.python_type);
    return cleared(h);
}

/// Everything after the header starts as zero.
inline fn cleared(h: *Handle) *Handle {
    @memset(@as([*]u8, @ptrCast(h))[@sizeOf(py.Object)..@sizeOf(Handle)], 0);
    return h;
}

/// The last of a dealloc.
fn leave(o: *py.Object) void {
    if (!lane.live) return Class.free(o);
    const t = o.type;
    const h = Class.of(o);
    h.result = @ptrCast(spare);
    spare = h;
    py.decref(&t.ob);
}

/// After a run. With the lock.
pub fn freeSpare() void {
    while (spare) |h| {
        spare = @ptrCast(h.result);
        py.PyObject_GC_Del(&h.ob);
    }
}

fn reportDouble(h: *Handle) void {
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    defer py.PyErr_Restore(t, v, tb);
    const d = make() orelse return py.PyErr_Clear();
    d.id = h.id;
    d.parent = h.parent;
    d.outcome = h.outcome;
    d.lasti = h.lasti;
    d.collected = true;
    if (h.named_by) |x| d.named_by = py.incref(x);
    if (h.code) |x| d.code = py.incref(x);
    if (h.exception) |x| d.exception = py.incref(x);
    goroutine.report(d);
    py.decref(&d.ob);
}

pub const Class = class.Class(Handle, .{
    .name = "golibx.Goroutine",
    .doc = "A goroutine, as go() returns it.",
    .generic = "Goroutine[T] in annotations.",
    .repr = repr,
    .traverse = traverse,
    .clear = clear,
    .is_waited_on = true,
    .methods = &.{
        class.method("join(timeout=None)", join,
            \\Waits until the goroutine has ended, at most timeout seconds (a float; None: for
            \\ever). Returns whether it has. Does not raise what the goroutine raised: see result().
        ),
        class.method("result(timeout=None)", result_,
            \\Waits as join() does and returns what the function returned, or raises what it raised.
            \\Raises DeadlineExceeded when timeout seconds are over first.
        ),
        class.method("cancel()", cancel,
            \\Makes the goroutine raise Cancelled where it is parked, or at its next park.
            \\Returns False if it had ended already, else True.
        ),
        class.method("throw(exception, /)", throw,
            \\Makes the goroutine raise exception, an exception or a class of them, where it is
            \\parked, or at its next park. Those thrown before come first. Returns False if it had
            \\ended already, else True.
        ),
        class.method("done()", done, "Whether the goroutine has ended."),
        class.method("on_done()", onDone,
            \\A case for select(): the goroutine has ended. Gives the goroutine; see result().
        ),
    },
    .properties = &.{
        class.field(
            Handle,
            "id",
            "id",
            "Number of the goroutine, an int from 1 (the main goroutine).",
        ),
        class.field(
            Handle,
            "parent",
            "parent",
            "The id of the goroutine that started it, 0 if none did.",
        ),
        class.variable("name", name, setName,
            \\Name for people, a str; the function's unless it was set.
        ),
        class.property("started_at", startedAt,
            \\Where go() was called, a str "FILE:LINE"; empty if not from Python.
        ),
        class.property("state", state,
            \\What it does now, a str: "running", "runnable", a wait reason, "done" …
        ),
        class.property("waiting_on", waitingOn,
            \\What it waits on, such as a Chan; a tuple of those for a select; None if it does not
            \\wait.
        ),
        class.property("waiting", isWaiting,
            \\Whether it is parked: `state` is then a wait reason.
        ),
        class.property("waited", waitedSeconds,
            \\For how many seconds it has been waiting, a float that is a few ms off; 0.0 if it does
            \\not.
        ),
        class.property("frame", frame, "The Python frame it is at, or None."),
        class.property("exception", exceptionOf, "What it raised, or None."),
        class.property("locked", isLocked, "Whether it is locked to its thread: lock_os_thread()."),
        class.property("kept_by", keptBy,
            \\The file of the C code for which it keeps its thread while it is switched out, a str,
            \\or None.
        ),
        class.variable("priority", priority, setPriority,
            \\Whether others go before it when both could run, a str: "low", "normal" or "high".
            \\Those that it starts have it too.
        ),
        class.property("labels", labelsOf,
            \\The labels that golibx.labels() gives the code that it runs, a mapping of str to str
            \\that cannot be changed; an empty one when it has ended.
        ),
        class.field(Handle, "system", "system",
            \\Whether it belongs to the runtime and not to the program.
        ),
    },
    .slots = .{ .tp_dealloc = dealloc },
});
