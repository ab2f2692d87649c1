//! golibx.Timer and Ticker, after() and tick(): sync/timechan.zig as Python objects.
//! A timer with a channel is in the lane's heap only while a goroutine waits for it, so that a
//! forgotten one is garbage like any object. One that runs a function is there from its start to
//! its end or stop, and goes on when the program has let the Timer go. Its goroutine is made when
//! its time has come, as a child of the one that started the timer. That is in the middle of a
//! switch, where no Python code may run (`Call`).
const std = @import("std");
const List = @import("../../core/list.zig").List;
const timer_mod = @import("../../serial/timer.zig");
const asynchronous = @import("../asynchronous.zig");
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const errors = @import("../errors.zig");
const goroutine = @import("../host/goroutine.zig");
const select = @import("select.zig");
const views = @import("chan_views.zig");
const timeouts = @import("../timeouts.zig");
const Limit = timeouts.Limit;

const lane = &host.the_lane;
const C = select.TimeChan;

// ---- a timer's channel ----

const TimeChan = extern struct {
    base: views.View,
    inner: [@sizeOf(C)]u8 align(@alignOf(C)),

    inline fn c(ch: *TimeChan) *C {
        return @ptrCast(&ch.inner);
    }
};

inline fn inner(o: *py.Object) *C {
    return ChanClass.of(o).c();
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
    const o = py.PyType_GenericAlloc(ChanClass.python_type, 0) orelse return null;
    const c = inner(o);
    c.* = .{};
    _ = c.set(lane, when, period_ns) catch unreachable; // no goroutine waits yet
    return o;
}

/// It holds nothing. Those that wait have a reference to it: only a run that ended under them can
/// have left some.
fn traverseChan(_: *TimeChan, _: class.Visitor) c_int {
    return 0;
}

fn timedOut() ?*py.Object {
    if (py.PyErr_Occurred() != null) return null;
    return errors.raise(.DeadlineExceeded, "channel receive timed out", .{});
}

fn recv(ch: *TimeChan, limit: Limit) ?*py.Object {
    const when = select.receiveTime(&ch.base.ob, ch.c(), limit) orelse return timedOut();
    return select.secondsOf(when);
}

fn recvOk(ch: *TimeChan, limit: Limit) ?*py.Object {
    const when = select.receiveTime(&ch.base.ob, ch.c(), limit) orelse return timedOut();
    return py.pair(select.secondsOf(when) orelse return null, true);
}

fn tryRecv(ch: *TimeChan) ?*py.Object {
    const when = ch.c().poll(lane) orelse return py.pair(py.returnNone(), false);
    return py.pair(select.secondsOf(when) orelse return null, true);
}

fn next(ch: *TimeChan) ?*py.Object {
    return select.secondsOf(select.receiveTime(&ch.base.ob, ch.c(), .forever) orelse return null);
}

fn onRecv(ch: *TimeChan) ?*py.Object {
    return select.newCase(.time, &ch.base.ob, ch.c(), null);
}

fn length(_: *TimeChan) ?usize {
    return 0;
}

fn capacity(_: *TimeChan) usize {
    return 0;
}

fn isClosed(_: *TimeChan) bool {
    return false;
}

fn reprChan(ch: *TimeChan) ?*py.Object {
    const c = ch.c();
    return py.print("<TimeChan 0x{x} {s}>", .{
        class.addressOf(ch),
        if (!c.armed) "not pending" else if (c.period_ns != 0) "ticking" else "pending",
    });
}

/// Whether its time will come without anything being done.
pub fn isArmed(o: *py.Object) bool {
    const c = inner(o);
    return c.armed and c.timer.when != C.never;
}

// ---- a function that a timer calls ----

const Call = struct {
    timer: timer_mod.Timer = .{ .fire = start },
    /// The function to call, owned; null when the timer is not pending. `birth` says of which
    /// goroutine the new one is a child.
    function: ?*py.Object = null,
    birth: goroutine.Birth = undefined,
    /// The program has let the Timer go.
    forgotten: bool = false,
    generation: u32 = 0,
    prev: ?*Call = null,
    next: ?*Call = null,

    /// The time has come. Under the lane's lock, in the middle of a switch: the goroutine that is
    /// switched out may have an exception set.
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

    /// It does not come any more. May run Python code when `c` is no longer looked at.
    fn drop(c: *Call) void {
        const function = c.function.?;
        const birth = c.birth;
        c.unlink();
        if (c.forgotten) host.gpa.destroy(c);
        if (birth.variables) |variables| py.PyObject_GC_Track(variables);
        birth.drop();
        py.decref(function);
    }

    /// Returns whether it was pending. The last that this does may run Python code.
    fn stop(c: *Call) bool {
        if (!c.pending()) return false;
        if (c.inHeap()) lane.removeTimer(&c.timer, true);
        c.drop();
        return true;
    }

    /// Null with an exception set; else whether it was pending before.
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

/// After a run: functions that were pending are not called.
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

fn newTimer(t: *py.Type, seconds: *py.Object, given: ?*py.Object) ?*py.Object {
    const function: ?*py.Object = if (given == py.none()) null else given;
    if (function) |f| if (py.PyCallable_Check(f) == 0) {
        _ = py.PyErr_Format(py.exc.typeError(), "Timer() needs a callable or None, not %R", f);
        return null;
    };
    if (function) |f| if (asynchronous.look("Timer", f) == .refused) return null;
    const when = dueIn("Timer()", seconds) orelse return null;
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    const timer = Class.of(o);
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

fn newTicker(t: *py.Type, seconds: *py.Object) ?*py.Object {
    const ns = interval("Ticker()", seconds) orelse return null;
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    TickerClass.of(o).chan = newChan(lane.now() +| ns, ns) orelse {
        py.decref(o);
        return null;
    };
    return o;
}

fn traverse(t: *Timer, v: class.Visitor) c_int {
    return v.all(&.{ t.chan, t.function });
}

/// The function alone can lead back to the timer.
fn clear(t: *Timer) void {
    py.clear(&t.function);
}

fn deinit(t: *Timer) void {
    if (t.call_ != null) {
        const call = t.call();
        t.call_ = null;
        if (call.pending()) call.forgotten = true else host.gpa.destroy(call);
    }
    py.clear(&t.chan);
    py.clear(&t.function);
}

fn stop(t: *Timer) bool {
    return if (t.chan) |c| inner(c).stop(lane) else t.call().stop();
}

fn reset(t: *Timer, seconds: *py.Object) ?*py.Object {
    const when = dueIn("reset()", seconds) orelse return null;
    if (t.chan) |c| {
        const was = inner(c).set(lane, when, 0) catch return py.PyErr_NoMemory();
        return py.boolean(was);
    }
    // The collector has been here, in the finalizer of something that it took along.
    const function = t.function orelse return py.boolean(false);
    return py.boolean(t.call().set(function, when) orelse return null);
}

fn stopTicker(t: *Timer) void {
    _ = inner(t.chan.?).stop(lane);
}

fn resetTicker(t: *Timer, seconds: *py.Object) ?*py.Object {
    const ns = interval("reset()", seconds) orelse return null;
    _ = inner(t.chan.?).set(lane, lane.now() +| ns, ns) catch return py.PyErr_NoMemory();
    return py.returnNone();
}

fn getChan(t: *Timer) *py.Object {
    return py.incref(t.chan orelse py.none());
}

fn onFire(t: *Timer) ?*py.Object {
    const c = t.chan orelse return py.raise(
        py.exc.typeError(),
        "this Timer calls a function when its time has come: there is nothing to receive",
        .{},
    );
    return onRecv(ChanClass.of(c));
}

fn repr(t: *Timer) ?*py.Object {
    const is_pending = if (t.chan) |c| inner(c).armed else t.call().pending();
    return py.print("<{s} 0x{x}{s}>", .{
        if (Class.is(&t.ob)) "Timer" else "Ticker",
        class.addressOf(t),
        if (is_pending) " pending" else "",
    });
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

pub const ChanClass = class.Class(TimeChan, .{
    .name = "golibx._core.TimeChan",
    .doc = "The RecvChan of a Timer or Ticker, and what after() and tick() return.",
    .bases = &.{views.RecvClass},
    .repr = reprChan,
    .len = length,
    .next = next,
    .traverse = traverseChan,
    .is_waited_on = true,
    .methods = &.{
        class.method("recv(timeout=None)", recv,
            \\Waits until the time has come, at most timeout seconds, and returns when it was due: a
            \\float, in seconds of time.monotonic(). Raises DeadlineExceeded when the time-out is
            \\over first.
        ),
        class.method("recv_ok(timeout=None)", recvOk, "As recv(), but returns (time, True)."),
        class.method("try_recv()", tryRecv,
            \\Returns (time, True) if the time has come and was not received yet, else (None,
            \\False).
        ),
        class.method("on_recv()", onRecv, "A case for select(): the time has come."),
    },
    .properties = &.{
        class.property("capacity", capacity, "0: nothing is buffered."),
        class.property("closed", isClosed, "False: a timer's channel is never closed."),
    },
});

pub const Class = class.Class(Timer, .{
    .name = "golibx.Timer",
    .doc =
    \\Comes once, in seconds from now, a float: c is the channel to receive that from. With fn
    \\nothing is received, and fn() runs in a goroutine of its own, as with Go's time.AfterFunc.
    ,
    .new = class.constructor("Timer(seconds, fn=None)", newTimer),
    .repr = repr,
    .traverse = traverse,
    .clear = clear,
    .deinit = deinit,
    .methods = &.{
        class.method("stop()", stop,
            \\Stops the timer; returns whether it was pending. Nothing is received from it, and its
            \\function is not called, unless that was so before.
        ),
        class.method("reset(seconds)", reset,
            \\Has the time come in seconds from now; returns whether it was pending. What was not
            \\received of before is not received any more.
        ),
        class.method("on_fire()", onFire,
            \\A case for select(): the time has come. The same as c.on_recv().
        ),
    },
    .properties = &.{
        class.property("c", getChan,
            \\The RecvChan to receive from; None if the timer calls a function.
        ),
    },
});

pub const TickerClass = class.Class(Timer, .{
    .name = "golibx.Ticker",
    .doc =
    \\Ticks every seconds, a float above zero: c is the channel to receive the ticks from. A slow
    \\receiver misses some. Raises ValueError for zero and less.
    ,
    .new = class.constructor("Ticker(seconds)", newTicker),
    .repr = repr,
    .traverse = traverse,
    .clear = clear,
    .deinit = deinit,
    .methods = &.{
        class.method("stop()", stopTicker,
            \\Ends the ticks: nothing more is received. The channel is not closed.
        ),
        class.method("reset(seconds)", resetTicker,
            \\Ticks every seconds from now on, also after stop().
        ),
        class.method("on_fire()", onFire,
            \\A case for select(): the next tick. The same as c.on_recv().
        ),
    },
    .properties = &.{class.property("c", getChan, "The RecvChan to receive the ticks from.")},
});
