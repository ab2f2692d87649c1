//! golibx.WaitGroup: sync/waitgroup.zig as a Python object.
const py = @import("../py.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const Limit = @import("../timeouts.zig").Limit;
const wg_mod = @import("../../sync/waitgroup.zig");

const W = wg_mod.WaitGroup(host.Rt);

/// False with an exception set.
fn change(w: *W, delta: i64) bool {
    w.add(delta) catch |e| return switch (e) {
        error.Negative => py.raises(
            py.exc.valueError(),
            "negative WaitGroup counter: {d} with {d} added",
            .{ w.count, delta },
        ),
        error.Overflow => py.raises(py.exc.overflowError(), "WaitGroup counter overflows", .{}),
    };
    return true;
}

fn add(w: *W, delta: i64) ?*py.Object {
    return if (change(w, delta)) py.returnNone() else null;
}

fn takeOff(w: *W) ?*py.Object {
    return add(w, -1);
}

/// For a goroutine that go() of the group started.
pub fn done(o: *py.Object) void {
    if (!change(Class.of(o), -1)) py.PyErr_WriteUnraisable(o);
}

fn wait(w: *W, limit: Limit) ?bool {
    if (w.count == 0) return true;
    if (limit == .poll) return false;
    const p = goroutine.forWait() orelse return null;
    if (w.count == 0) return true;
    p.g.waiting_on = class.objectOf(w);
    switch (w.wait(&p.g, limit.deadline())) {
        .ready, .closed => {
            if (w.count == 0) return true;
            const text = "WaitGroup is used again, with a count of {d}, before wait() has returned";
            _ = py.raise(py.exc.runtimeError(), text, .{w.count});
        },
        .timeout => return w.count == 0,
        .interrupted => _ = goroutine.raisePending(p),
    }
    return null;
}

fn go(w: *W, given: class.Given) ?*py.Object {
    const p = @import("../module.zig").createChecked("go", given, false) orelse return null;
    if (!change(w, 1)) {
        // Cannot start it any more: it ends as if it had been cancelled before it ran.
        goroutine.abandon(p);
        return null;
    }
    p.group = py.incref(class.objectOf(w));
    return goroutine.launch(p);
}

fn repr(w: *W) ?*py.Object {
    return py.print("<WaitGroup 0x{x} count {d}>", .{ class.addressOf(w), w.count });
}

pub const Class = class.Class(W, .{
    .name = "golibx.WaitGroup",
    .doc = "Waits for a number of goroutines to finish, as Go's sync.WaitGroup.",
    .new = class.constructor("WaitGroup()", W),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{
        class.method("add(delta=1)", add,
            \\Adds delta, an int that may be negative, to the counter. Raises ValueError if it would
            \\become negative; it keeps its value then.
        ),
        class.method("done()", takeOff, "Takes one off the counter."),
        class.method("wait(timeout=None)", wait,
            \\Waits until the counter is zero, at most timeout seconds; returns whether it is.
            \\Raises RuntimeError if it is added to again before the call has returned.
        ),
        class.method("go(fn, /, *args, **kwargs)", go,
            \\Starts fn(*args, **kwargs) as a goroutine that is counted until it ends; returns the
            \\Goroutine.
        ),
    },
    .properties = &.{class.field(W, "count", "count", "The counter, an int.")},
});
