//! golibx.Once: a function that is called once, by the first caller. All others wait for it.
const py = @import("../py.zig");
const asynchronous = @import("../asynchronous.zig");
const class = @import("../class.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");

const Queue = host.Queue;
const Rt = host.Rt;

const Once = struct {
    state: enum { new, running, done } = .new,
    /// While it runs: goroutine.ident of the caller.
    owner: u64 = 0,
    queue: Queue = .{},
};
fn do(once: *Once, given: class.Given) ?*py.Object {
    if (given.n < 1) return py.raise(py.exc.typeError(), "do() missing the function to call", .{});
    if (once.state == .done) return py.returnNone();
    const function = given.args[0];
    if (py.PyCallable_Check(function) == 0)
        return py.PyErr_Format(py.exc.typeError(), "do() needs a callable, not %R", function);
    if (asynchronous.look("do", function) == .refused) return null;
    if (once.state == .running) {
        if (once.owner == goroutine.ident()) return py.raise(
            py.exc.runtimeError(),
            "do() called by the function that this Once runs: it would wait for itself",
            .{},
        );
        return waitDone(once);
    }
    once.state = .running;
    once.owner = goroutine.ident();
    const result = given.after(1).call(function);
    // Also if it raised: as in Go, where a panic counts.
    once.state = .done;
    once.queue.end(&Rt.no_lock, .ready);
    py.decref(result orelse return null);
    return py.returnNone();
}

fn waitDone(once: *Once) ?*py.Object {
    const p = goroutine.forWait() orelse return null;
    if (once.state == .done) return py.returnNone();
    var w: Queue.Waiter = .{};
    p.g.waiting_on = class.objectOf(once);
    _ = once.queue.wait(&Rt.no_lock, &w, &p.g, .once_do, null);
    if (w.given) return py.returnNone();
    _ = goroutine.raisePending(p);
    return null;
}

fn isDone(once: *Once) bool {
    return once.state == .done;
}

fn repr(once: *Once) ?*py.Object {
    return py.print("<Once 0x{x} {t}>", .{ class.addressOf(once), once.state });
}

pub const Class = class.Class(Once, .{
    .name = "golibx.Once",
    .doc = "Calls a function once, for the first caller, as Go's sync.Once.",
    .new = class.constructor("Once()", Once),
    .repr = repr,
    .is_waited_on = true,
    .methods = &.{class.method("do(fn, /, *args, **kwargs)", do,
        \\Calls fn(*args, **kwargs) if this is the first call of do(), else waits until that has
        \\returned. A function that raises has been called too: only the first caller sees the
        \\exception. Raises RuntimeError when fn itself calls do().
    )},
    .properties = &.{
        class.property("done", isDone, "Whether the function has been called and has returned."),
    },
});
