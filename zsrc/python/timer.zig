//! golibx.Timer and Ticker, after() and tick(): sync/timechan.zig as Python objects.
//!
//! A timer with a channel is in the lane's heap only while somebody waits for it, so that a
//! forgotten one is garbage like any object. One that runs a function is there from its start to
//! its end or stop, and goes on when nobody has the Timer any more. Its goroutine is made when its
//! time has come, as a child of who started the timer. That is in the middle of a switch, where no
//! Python code may run (`Call`).
const std = @import("std");
const List = @import("../core/list.zig").List;
const timer_mod = @import("../sched/timer.zig");
const asynchronous = @import("asynchronous.zig");
const py = @import("py.zig");
const points = @import("points.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const goroutine = @import("goroutine.zig");
const select = @import("select.zig");
const views = @import("chan_views.zig");
const timeouts = @import("timeouts.zig");

const lane = &host.the_lane;
const C = select.TimeChan;

pub var chan_type: *py.Type = undefined;
pub var timer_type: *py.Type = undefined;
pub var ticker_type: *py.Type = undefined;

// ---- a timer's channel ----

const TimeChan = extern struct {
    view: views.View,
    inner: [@sizeOf(C)]u8 align(@alignOf(C)),
};

inline fn inner(o: *py.Object) *C {
    const c: *TimeChan = @ptrCast(o);
    return @ptrCast(&c.inner);
}

/// When, from now on. Null with an exception set.
fn dueIn(comptime what: []const u8, seconds: *py.Object) ?u64 {
    const n = timeouts.number(
        seconds,
        what ++ " needs a number of seconds, not %R",
    ) orelse return null;
    const limit = timeouts.fromSeconds(n) orelse return null;
    return switch (limit) {
        .poll => lane.now(),
        .forever => C.never,
        .ns => |ns| lane.now() +| ns,
    };
}

/// The interval in ns. Null with an exception set.
fn interval(comptime what: []const u8, seconds: *py.Object) ?u64 {
    const n = timeouts.number(
        seconds,
        what ++ " needs a number of seconds, not %R",
    ) orelse return null;
    const limit = timeouts.fromSeconds(n) orelse return null;
    switch (limit) {
        .forever => return C.never,
        .ns => |ns| return ns,
        .poll => {},
    }
    _ = py.PyErr_Format(
        py.exc.valueError(),
        what ++ " needs an interval above zero, not %R",
        seconds,
    );
    return null;
}

fn newChan(when: u64, period_ns: u64) ?*py.Object {
    const o = py.PyType_GenericAlloc(chan_type, 0) orelse return null;
    const c = inner(o);
    c.* = .{};
    _ = c.set(lane, when, period_ns) catch unreachable; // nobody waits yet
    return o;
}

fn deallocChan(o: *py.Object) callconv(.c) void {
    const c: *TimeChan = @ptrCast(o);
    py.PyObject_GC_UnTrack(o);
    // Those that wait have a reference: only a run that ended under them can have left some.
    if (c.view.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    const t: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(t);
}

fn traverseChan(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    return visit(@ptrCast(o.type), arg);
}

fn timedOut() ?*py.Object {
    if (py.PyErr_Occurred() != null) return null;
    return errors.raise(.DeadlineExceeded, "channel receive timed out", .{});
}

fn recv(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("recv", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    return select.secondsOf(select.receiveTime(o, inner(o), limit) orelse return timedOut());
}

fn recvOk(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("recv_ok", &.{"timeout"}, 0, args, n, kw) orelse return null;
    const limit = timeouts.parse(given[0]) orelse return null;
    const when = select.receiveTime(o, inner(o), limit) orelse return timedOut();
    return pair(select.secondsOf(when) orelse return null, true);
}

fn tryRecv(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const when = inner(o).poll(lane) orelse return pair(py.returnNone(), false);
    return pair(select.secondsOf(when) orelse return null, true);
}

/// Takes the reference to `value`.
fn pair(value: *py.Object, ok: bool) ?*py.Object {
    defer py.decref(value);
    const flag = py.boolean(ok);
    defer py.decref(flag);
    return py.PyTuple_Pack(2, value, flag);
}

pub fn iternext(o: *py.Object) callconv(.c) ?*py.Object {
    return select.secondsOf(select.receiveTime(o, inner(o), .forever) orelse return null);
}

fn onRecv(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    return select.newCase(.time, o, inner(o), null);
}

fn length(_: *py.Object) callconv(.c) py.Ssize {
    return 0;
}

fn getCapacity(_: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.PyLong_FromLongLong(0);
}

fn getClosed(_: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.boolean(false);
}

fn reprChan(o: *py.Object) callconv(.c) ?*py.Object {
    const c = inner(o);
    const text: [*:0]const u8 = if (!c.armed)
        "not pending"
    else if (c.period_ns != 0) "ticking" else "pending";
    return py.PyUnicode_FromFormat("<TimeChan %p %s>", o, text);
}

/// Whether its time is still to come, though nobody does anything.
pub fn isArmed(o: *py.Object) bool {
    const c = inner(o);
    return c.armed and c.timer.when != C.never;
}

// ---- a function to be called ----

const Call = struct {
    timer: timer_mod.Timer = .{ .fire = start },
    /// What is to be called and by whose child, owned; null when the timer is not pending.
    function: ?*py.Object = null,
    birth: goroutine.Birth = undefined,
    /// Nobody has the Timer any more.
    forgotten: bool = false,
    generation: u32 = 0,
    prev: ?*Call = null,
    next: ?*Call = null,

    /// The time has come. Under the lane's lock, in the middle of a switch: who is switched out may
    /// have an exception set.
    fn start(t: *timer_mod.Timer) callconv(.c) void {
        const c: *Call = @fieldParentPtr("timer", t);
        lane.user_timers -= 1;
        const collects = py.minor() < 12 and py.PyGC_Disable() != 0;
        defer if (collects) {
            _ = py.PyGC_Enable();
        };
        const function = c.function.?;
        const p = goroutine.createQuietly(&c.birth, function) orelse {
            c.timer.when = lane.now() + again_ns;
            // There is room: it has just left.
            return lane.addTimer(&c.timer, true) catch unreachable;
        };
        c.unlink();
        goroutine.launchUnseen(p);
        // The goroutine has it too: that was not the last reference.
        py.decref(function);
        if (c.forgotten) host.gpa.destroy(c);
    }

    fn pending(c: *const Call) bool {
        return c.function != null and c.generation == lane.generation;
    }

    fn inHeap(c: *const Call) bool {
        return c.timer.pending() and c.generation == lane.generation;
    }

    /// What it had is the caller's.
    fn unlink(c: *Call) void {
        pending_calls.remove(c);
        c.function = null;
    }

    /// It is not to come. May run Python code when `c` is no longer looked at.
    fn drop(c: *Call) void {
        const function = c.function.?;
        const birth = c.birth;
        c.unlink();
        if (c.forgotten) host.gpa.destroy(c);
        if (birth.variables) |variables| py.PyObject_GC_Track(variables);
        birth.drop();
        py.decref(function);
    }

    /// Whether it was to come. The last that it does may run Python code.
    fn stop(c: *Call) bool {
        if (!c.pending()) return false;
        if (c.inHeap()) lane.removeTimer(&c.timer, true);
        c.drop();
        return true;
    }

    /// Null with an exception set; else whether it was to come before.
    fn set(c: *Call, function: *py.Object, when: u64) ?bool {
        if (!lane.live) {
            errors.notInGoroutine();
            return null;
        }
        if (c.pending()) {
            if (c.inHeap()) lane.removeTimer(&c.timer, true);
            return if (c.addToHeap(when)) true else null;
        }
        const birth = goroutine.bear(false) catch return null;
        // Others may have run in there.
        if (!lane.live or c.pending()) {
            birth.drop();
            return c.set(function, when);
        }
        // As for a goroutine that has not started.
        if (birth.variables) |variables| py.PyObject_GC_UnTrack(variables);
        c.generation = lane.generation;
        c.timer.index = timer_mod.Timer.none;
        c.birth = birth;
        c.function = py.incref(function);
        pending_calls.pushFront(c);
        if (c.addToHeap(when)) return false;
        c.drop();
        return null;
    }

    fn addToHeap(c: *Call, when: u64) bool {
        c.timer.when = when;
        if (when == C.never) return true;
        lane.addTimer(&c.timer, true) catch {
            _ = py.PyErr_NoMemory();
            return false;
        };
        return true;
    }
};

/// When there was no memory for the goroutine it is tried again.
const again_ns = 10 * std.time.ns_per_ms;

var pending_calls: List(Call) = .{};

/// After a run: what was still to be called is not.
pub fn dropCalls() void {
    while (pending_calls.head) |c| {
        c.timer.index = timer_mod.Timer.none;
        c.drop();
    }
}

/// In the child of a fork, where the goroutines are gone.
pub fn forget() void {
    pending_calls = .{};
}

// ---- golibx.Timer and golibx.Ticker ----

const Timer = extern struct {
    ob: py.Object,
    weakrefs: ?*py.Object,
    /// A TimeChan, owned, or else function and call.
    chan: ?*py.Object,
    function: ?*py.Object,
    call_: ?*anyopaque,

    fn call(t: *Timer) *Call {
        return @ptrCast(@alignCast(t.call_.?));
    }
};

fn self(o: *py.Object) *Timer {
    return @ptrCast(o);
}

/// Arguments of a constructor, by position or name; null with an exception set.
fn arguments(
    comptime function: []const u8,
    comptime names: []const [:0]const u8,
    args: *py.Object,
    kwargs: ?*py.Object,
) ?[names.len]?*py.Object {
    var out: [names.len]?*py.Object = @splat(null);
    const n: usize = @intCast(py.PyTuple_Size(args));
    if (n > names.len) {
        _ = py.raise(
            py.exc.typeError(),
            function ++ "() takes at most {d} arguments ({d} given)",
            .{ names.len, n },
        );
        return null;
    }
    for (out[0..n], 0..) |*value, i| value.* = py.PyTuple_GetItem(args, @intCast(i));
    var by_name: py.Ssize = 0;
    if (kwargs) |kw| inline for (names, &out) |name, *value| {
        if (py.PyDict_GetItemString(kw, name)) |given| {
            if (value.* != null) {
                _ = py.raise(
                    py.exc.typeError(),
                    function ++ "() got multiple values for argument '{s}'",
                    .{name},
                );
                return null;
            }
            value.* = given;
            by_name += 1;
        }
    };
    if (kwargs != null and py.PyDict_Size(kwargs.?) != by_name) {
        _ = py.raise(py.exc.typeError(), function ++ "() got an unexpected keyword argument", .{});
        return null;
    }
    if (out[0] == null) {
        _ = py.raise(
            py.exc.typeError(),
            function ++ "() missing required argument '{s}'",
            .{names[0]},
        );
        return null;
    }
    return out;
}

fn newTimer(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = arguments("Timer", &.{ "seconds", "fn" }, args, kwargs) orelse return null;
    const function: ?*py.Object = if (given[1] == py.none()) null else given[1];
    if (function) |f| if (py.PyCallable_Check(f) == 0) {
        _ = py.PyErr_Format(py.exc.typeError(), "Timer() needs a callable or None, not %R", f);
        return null;
    };
    if (function) |f| if (asynchronous.look("Timer", f) == .refused) return null;
    const when = dueIn("Timer()", given[0].?) orelse return null;
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    const timer = self(o);
    if (function) |f| {
        const call = host.gpa.create(Call) catch {
            py.decref(o);
            return py.PyErr_NoMemory();
        };
        call.* = .{};
        timer.call_ = call;
        timer.function = py.incref(f);
        if (call.set(f, when) != null) return o;
    } else {
        timer.chan = newChan(when, 0);
        if (timer.chan != null) return o;
    }
    py.decref(o);
    return null;
}

fn newTicker(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    const given = arguments("Ticker", &.{"seconds"}, args, kwargs) orelse return null;
    const ns = interval("Ticker()", given[0].?) orelse return null;
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    self(o).chan = newChan(lane.now() +| ns, ns) orelse {
        py.decref(o);
        return null;
    };
    return o;
}

fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
    const t = self(o);
    for ([_]?*py.Object{ @ptrCast(o.type), t.chan, t.function }) |each| {
        const r = visit(each orelse continue, arg);
        if (r != 0) return r;
    }
    return 0;
}

/// The function alone can lead back to the timer.
fn clear(o: *py.Object) callconv(.c) c_int {
    py.clear(&self(o).function);
    return 0;
}

fn dealloc(o: *py.Object) callconv(.c) void {
    const t = self(o);
    py.PyObject_GC_UnTrack(o);
    if (t.weakrefs != null) py.PyObject_ClearWeakRefs(o);
    if (t.call_ != null) {
        const call = t.call();
        t.call_ = null;
        if (call.pending()) call.forgotten = true else host.gpa.destroy(call);
    }
    py.clear(&t.chan);
    py.clear(&t.function);
    const class: *py.Object = @ptrCast(o.type);
    py.PyObject_GC_Del(o);
    py.decref(class);
}

fn stop(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const t = self(o);
    if (t.chan) |c| return py.boolean(inner(c).stop(lane));
    return py.boolean(t.call().stop());
}

fn reset(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("reset", &.{"seconds"}, 1, args, n, kw) orelse return null;
    const when = dueIn("reset()", given[0].?) orelse return null;
    const t = self(o);
    if (t.chan) |c| {
        const was = inner(c).set(lane, when, 0) catch return py.PyErr_NoMemory();
        return py.boolean(was);
    }
    // The collector has been here, in the finalizer of something that it took along.
    const function = t.function orelse return py.boolean(false);
    return py.boolean(t.call().set(function, when) orelse return null);
}

fn stopTicker(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    _ = inner(self(o).chan.?).stop(lane);
    return py.returnNone();
}

fn resetTicker(o: *py.Object, args: py.Args, n: py.Ssize, kw: ?*py.Object) callconv(.c) ?*py.Object {
    const given = py.parse("reset", &.{"seconds"}, 1, args, n, kw) orelse return null;
    const ns = interval("reset()", given[0].?) orelse return null;
    _ = inner(self(o).chan.?).set(lane, lane.now() +| ns, ns) catch return py.PyErr_NoMemory();
    return py.returnNone();
}

fn getChan(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
    return py.incref(self(o).chan orelse py.none());
}

fn onFire(o: *py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    const c = self(o).chan orelse return py.raise(
        py.exc.typeError(),
        "this Timer calls a function when its time has come: there is nothing to receive",
        .{},
    );
    return onRecv(c, null);
}

fn repr(o: *py.Object) callconv(.c) ?*py.Object {
    const t = self(o);
    const name: [*:0]const u8 = if (o.type == timer_type) "Timer" else "Ticker";
    const is_pending = if (t.chan) |c| inner(c).armed else t.call().pending();
    return py.PyUnicode_FromFormat(
        "<%s %p%s>",
        name,
        o,
        @as([*:0]const u8, if (is_pending) " pending" else ""),
    );
}

// ---- after() and tick() ----

pub fn after(seconds: *py.Object) ?*py.Object {
    return newChan(dueIn("after()", seconds) orelse return null, 0);
}

pub fn tick(seconds: *py.Object) ?*py.Object {
    const ns = interval("tick()", seconds) orelse return null;
    return newChan(lane.now() +| ns, ns);
}

// ---- the types ----

const fast = py.METH_FASTCALL | py.METH_KEYWORDS;

const chan_methods = [_]py.MethodDef{
    .{ .name = "recv", .function = @ptrCast(&recv), .flags = fast, .doc =
    \\recv($self, /, timeout=None)
    \\--
    \\
    \\Waits until the time has come, at most timeout seconds, and returns when it was due: a float, in
    \\seconds of time.monotonic(). Raises DeadlineExceeded when the time-out is over first.
    },
    .{ .name = "recv_ok", .function = @ptrCast(&recvOk), .flags = fast, .doc =
    \\recv_ok($self, /, timeout=None)
    \\--
    \\
    \\As recv(), but returns (time, True).
    },
    .{ .name = "try_recv", .function = @ptrCast(&tryRecv), .flags = py.METH_NOARGS, .doc =
    \\try_recv($self, /)
    \\--
    \\
    \\Returns (time, True) if the time has come and nobody has received it, else (None, False).
    },
    .{ .name = "on_recv", .function = @ptrCast(&onRecv), .flags = py.METH_NOARGS, .doc =
    \\on_recv($self, /)
    \\--
    \\
    \\A case for select(): the time has come.
    },
    .{},
};
pub const chan_table = points.Table.of(&chan_methods);

const chan_getset = [_]py.GetSetDef{
    .{ .name = "capacity", .get = getCapacity, .doc = "0: nothing is buffered." },
    .{ .name = "closed", .get = getClosed, .doc = "False: a timer's channel is never closed." },
    .{},
};

const chan_slots = [_]py.Slot{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&deallocChan) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverseChan) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&reprChan) },
    .{ .slot = py.slot.tp_iternext, .pfunc = @ptrCast(&iternext) },
    .{ .slot = py.slot.sq_length, .pfunc = @ptrCast(&length) },
    .{ .slot = py.slot.tp_methods, .pfunc = chan_table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&chan_getset) },
    .{
        .slot = py.slot.tp_doc,
        .pfunc = "The RecvChan of a Timer or Ticker, and what after() and tick() return.",
    },
    .{},
};

pub const chan_spec: py.TypeSpec = .{
    .name = "golibx._core.TimeChan",
    .basicsize = @sizeOf(TimeChan),
    .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE | py.TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = &chan_slots,
};

const timer_methods = [_]py.MethodDef{
    .{ .name = "stop", .function = @ptrCast(&stop), .flags = py.METH_NOARGS, .doc =
    \\stop($self, /)
    \\--
    \\
    \\Stops the timer; returns whether it was pending. Nothing is received from it, and its function is
    \\not called, unless that was so before.
    },
    .{ .name = "reset", .function = @ptrCast(&reset), .flags = fast, .doc =
    \\reset($self, /, seconds)
    \\--
    \\
    \\Has the time come in seconds from now; returns whether it was pending. What was not received of
    \\before is not received any more.
    },
    .{ .name = "on_fire", .function = @ptrCast(&onFire), .flags = py.METH_NOARGS, .doc =
    \\on_fire($self, /)
    \\--
    \\
    \\A case for select(): the time has come. The same as c.on_recv().
    },
    .{},
};
pub const timer_table = points.Table.of(&timer_methods);

const ticker_methods = [_]py.MethodDef{
    .{ .name = "stop", .function = @ptrCast(&stopTicker), .flags = py.METH_NOARGS, .doc =
    \\stop($self, /)
    \\--
    \\
    \\Ends the ticks: nothing more is received. The channel is not closed.
    },
    .{ .name = "reset", .function = @ptrCast(&resetTicker), .flags = fast, .doc =
    \\reset($self, /, seconds)
    \\--
    \\
    \\Ticks every seconds from now on, also after stop().
    },
    .{ .name = "on_fire", .function = @ptrCast(&onFire), .flags = py.METH_NOARGS, .doc =
    \\on_fire($self, /)
    \\--
    \\
    \\A case for select(): the next tick. The same as c.on_recv().
    },
    .{},
};
pub const ticker_table = points.Table.of(&ticker_methods);

const timer_getset = [_]py.GetSetDef{
    .{
        .name = "c",
        .get = getChan,
        .doc = "The RecvChan to receive from; None if the timer calls a function.",
    },
    .{},
};

const ticker_getset = [_]py.GetSetDef{
    .{ .name = "c", .get = getChan, .doc = "The RecvChan to receive the ticks from." },
    .{},
};

const members = [_]py.MemberDef{
    .{
        .name = "__weaklistoffset__",
        .type = py.T_PYSSIZET,
        .offset = @offsetOf(Timer, "weakrefs"),
        .flags = py.READONLY,
    },
    .{},
};

const common = [_]py.Slot{
    .{ .slot = py.slot.tp_dealloc, .pfunc = @ptrCast(&dealloc) },
    .{ .slot = py.slot.tp_traverse, .pfunc = @ptrCast(&traverse) },
    .{ .slot = py.slot.tp_clear, .pfunc = @ptrCast(&clear) },
    .{ .slot = py.slot.tp_repr, .pfunc = @ptrCast(&repr) },
    .{ .slot = py.slot.tp_members, .pfunc = @ptrCast(&members) },
};

const timer_slots = common ++ [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&newTimer) },
    .{ .slot = py.slot.tp_methods, .pfunc = timer_table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&timer_getset) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Timer(seconds, fn=None)
    \\--
    \\
    \\Comes once, in seconds from now, a float: c is the channel to receive that from. With fn nothing is
    \\received, and fn() runs in a goroutine of its own, as with Go's time.AfterFunc.
    },
    .{},
};

const ticker_slots = common ++ [_]py.Slot{
    .{ .slot = py.slot.tp_new, .pfunc = @ptrCast(&newTicker) },
    .{ .slot = py.slot.tp_methods, .pfunc = ticker_table.methods() },
    .{ .slot = py.slot.tp_getset, .pfunc = @ptrCast(&ticker_getset) },
    .{ .slot = py.slot.tp_doc, .pfunc =
    \\Ticker(seconds)
    \\--
    \\
    \\Ticks every seconds, a float above zero: c is the channel to receive the ticks from. Whoever is
    \\slow misses some. Raises ValueError for zero and less.
    },
    .{},
};

const timer_flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_HAVE_GC | py.TPFLAGS_IMMUTABLETYPE;

pub const timer_spec: py.TypeSpec = .{
    .name = "golibx.Timer",
    .basicsize = @sizeOf(Timer),
    .flags = timer_flags,
    .slots = &timer_slots,
};

pub const ticker_spec: py.TypeSpec = .{
    .name = "golibx.Ticker",
    .basicsize = @sizeOf(Timer),
    .flags = timer_flags,
    .slots = &ticker_slots,
};
